package hosts

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair is two hosts with a link between them: a 192.0.2.1, b 192.0.2.2.
func pair(t *testing.T, opts LinkOptions) (n *Net, a, b *Host) {
	t.Helper()
	n = New(t)
	a, b = n.Host("a"), n.Host("b")
	n.Link(a, "eth0", b, "up", opts) // up: a name that is also a word of ip link
	a.Addr("eth0", "192.0.2.1/24", "2001:db8::1/64")
	b.Addr("up", "192.0.2.2/24", "2001:db8::2/64")
	return n, a, b
}

func TestRootPingIsSeenByTshark(t *testing.T) {
	n, a, b := pair(t, LinkOptions{})
	wire := b.Capture("up", "icmp or icmp6")
	a.MustRun("ping", "-c2", "-i.1", "192.0.2.2")
	a.MustRun("ping", "-c1", "2001:db8::2")

	pcap := wire.Stop()
	want := [][]string{{"192.0.2.1", "8", "64"}, {"192.0.2.2", "0", "64"}, {"192.0.2.1", "8", "64"}, {"192.0.2.2", "0", "64"}}
	if got := n.Tshark(pcap, "icmp && ip.checksum.status == 1", "ip.src", "icmp.type", "ip.ttl"); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("IPv4 on the wire: %v, want %v", got, want)
	}
	if got := n.Tshark(pcap, "icmpv6.type == 128", "ipv6.src"); len(got) != 1 || got[0][0] != "2001:db8::1" {
		t.Errorf("IPv6 echo requests on the wire: %v, want one from 2001:db8::1", got)
	}
}

// A TCP transfer must look as on a wire: no segment beyond the MTU, every checksum complete.
func TestRootLinkCarriesWholeChecksumsAndNoSuperFrames(t *testing.T) {
	n, a, b := pair(t, LinkOptions{MTU: 1400})
	wire := b.Capture("up", "tcp")
	server := b.Start("iperf3", "-s", "-1", "--forceflush")
	server.WaitLog("listening", 5*time.Second)
	a.MustRun("iperf3", "-c", "192.0.2.2", "-n", "300K")

	pcap := wire.Stop()
	if bad := n.Tshark(pcap, "tcp.checksum.status != 1 || ip.len > 1400", "frame.number"); len(bad) != 0 {
		t.Errorf("%d packets with a bad checksum or longer than the MTU", len(bad))
	}
	if full := n.Tshark(pcap, "ip.len == 1400", "frame.number"); len(full) < 100 {
		t.Errorf("%d packets of 1400 bytes, want most of the 220 that 300 KiB need", len(full))
	}
}

func TestRootLinkOptions(t *testing.T) {
	_, a, b := pair(t, LinkOptions{Queues: 3, MTU: 1280, MACs: [2]string{"02:00:00:00:00:0a", "02:00:00:00:00:0b"}})
	if mac := a.MAC("eth0"); mac != "02:00:00:00:00:0a" {
		t.Errorf("first end has address %s", mac)
	}
	if mac := b.MAC("up"); mac != "02:00:00:00:00:0b" {
		t.Errorf("second end has address %s", mac)
	}
	for h, ifname := range map[*Host]string{a: "eth0", b: "up"} {
		if got := strings.TrimSpace(h.MustRun("cat", "/sys/class/net/"+ifname+"/mtu")); got != "1280" {
			t.Errorf("%s: MTU %s, want 1280", ifname, got)
		}
		for _, direction := range []string{"rx", "tx"} {
			found, _ := h.Run("sh", "-c", "ls -d /sys/class/net/"+ifname+"/queues/"+direction+"-*")
			if queues := strings.Fields(found); len(queues) != 3 {
				t.Errorf("%s: %s queues %v, want 3", ifname, direction, queues)
			}
		}
	}
}

func TestRootDoOpensSocketsInTheHost(t *testing.T) {
	_, a, b := pair(t, LinkOptions{})
	var listener net.Listener
	var conn net.Conn
	var err error
	b.Do(func() { listener, err = net.Listen("tcp", "192.0.2.2:7") })
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if c, err := listener.Accept(); err == nil {
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	a.Do(func() { conn, err = net.DialTimeout("tcp", "192.0.2.2:7", 5*time.Second) })
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := net.DialTimeout("tcp", "192.0.2.2:7", 100*time.Millisecond); err == nil {
		t.Error("the test itself reaches 192.0.2.2: Do did not come home")
	}
}

func TestRootScapyMakesAPacket(t *testing.T) {
	n, a, b := pair(t, LinkOptions{})
	a.MustRun("ping", "-c1", "192.0.2.2") // the neighbour is known now
	wire := b.Capture("up", "proto 47")
	out := a.Scapy(`
p = IP(dst="192.0.2.2")/GRE(key_present=1, key=42)/IP(src="10.0.0.1", dst="10.0.0.2")/UDP(dport=9)
send(p); print(len(p))`)
	if got := strings.TrimSpace(out); got != "56" {
		t.Errorf("scapy says the packet has %s bytes, want 56", got)
	}
	want := [][]string{{"192.0.2.1,10.0.0.1", "0x0000002a"}}
	if got := n.Tshark(wire.Stop(), "", "ip.src", "gre.key"); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("on the wire: %v, want %v", got, want)
	}
}

func TestRootGuestHasGRE(t *testing.T) {
	n := New(t)
	router, customer := n.Host("router"), n.Host("customer")
	n.Link(router, "down", customer, "up0", LinkOptions{MTU: 1400})
	router.Addr("down", "192.0.2.254/24", "2001:db8::fe/64")
	g := customer.Guest("linux", "up0")
	g.Addr("vec0", []string{"192.0.2.1/24", "2001:db8::1/64"}, "192.0.2.254", "2001:db8::fe")
	g.GRE("tun4", "192.0.2.1", "203.0.113.1", []string{"10.9.0.1/30"}, "key", "42")
	g.GRE("tun6", "2001:db8::1", "2001:db8:1::1", []string{"fd00::1/127"})

	router.MustRun("ping", "-c1", "-M", "do", "-s", "1372", "192.0.2.1")
	wire := router.Capture("down", "proto 47 or ip6 proto 60")
	g.MustSh("ping -c1 -W.1 10.9.0.2; ping -c1 -W.1 fd00::; ip link show vec0 | grep -q 'mtu 1400'")
	pcap := wire.Stop()
	if got := n.Tshark(pcap, "gre.key == 42 && icmp.type == 8", "frame.number"); len(got) != 1 {
		t.Errorf("%d echo requests in GRE with key 42, want 1", len(got))
	}
	if got := n.Tshark(pcap, "ipv6.dstopts && gre && icmpv6.type == 128", "frame.number"); len(got) != 1 {
		t.Errorf("%d echo requests in GRE behind a destination option, want 1", len(got))
	}
	if out, err := g.Sh("echo no; exit 3"); err == nil || out != "no\n" {
		t.Errorf("a failing command: output %q, error %v", out, err)
	}
}

func TestRootProcessStopsAndTellsHow(t *testing.T) {
	n := New(t)
	a := n.Host("a")
	p := a.Start("sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep .01; done")
	p.WaitLog("ready", 5*time.Second)
	err := p.Stop()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 7 || !strings.Contains(p.Log(), "bye") {
		t.Errorf("ended with %v after printing %q, want status 7 and bye", err, p.Log())
	}
	deaf := a.Start("sh", "-c", "trap '' TERM; sleep 100")
	deaf.Kill()
	if err := deaf.Wait(time.Second); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a killed process ended with %v", err)
	}
}

func TestRootBuildCompilesOnce(t *testing.T) {
	n := New(t)
	path := n.Build("causeway/scripts/testsum")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(n.Build("causeway/scripts/testsum"))
	if err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("built again: %v, %v", after, err)
	}
}

// The end of a test leaves nothing: no namespace, no process, no guest, no interface.
func TestRootCleanupLeavesNothing(t *testing.T) {
	before := interfaces(t)
	var prefix string
	var spaces []string
	t.Run("network", func(t *testing.T) {
		n, a, b := pair(t, LinkOptions{})
		n.Link(a, "eth1", b, "eth1", LinkOptions{})
		b.Guest("g", "eth1")
		a.Start("sleep", "1000")
		b.MustRun("sh", "-c", "sleep 1000 >/dev/null 2>&1 &") // a process that the package does not know
		b.Capture("up", "")
		prefix, spaces = n.prefix, namespaces(t, n.prefix)
		// Two namespaces and a guest's directory; two sleeps, tcpdump and the guest's processes.
		if left := leftovers(t, prefix, spaces); len(left) < 7 {
			t.Errorf("the search for leftovers sees only %v of a living network", left)
		}
	})
	if left := leftovers(t, prefix, spaces); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if after := interfaces(t); !slices.Equal(before, after) {
		t.Errorf("interfaces before %v, after %v", before, after)
	}
}

// A test process that dies without a word is cleaned up after by the watching process.
func TestRootDeathOfTheTestLeavesNothing(t *testing.T) {
	if os.Getenv("HOSTS_TEST_DIE") != "" {
		n, a, _ := pair(t, LinkOptions{})
		a.Start("sleep", "1000")
		fmt.Println("namespaces", strings.Join(namespaces(t, n.prefix), " "))
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRootDeathOfTheTestLeavesNothing$")
	cmd.Env = append(os.Environ(), "HOSTS_TEST_DIE=1")
	out, err := cmd.CombinedOutput()
	if err == nil || err.Error() != "signal: killed" {
		t.Fatalf("the dying test ended with %v\n%s", err, out)
	}
	spaces := strings.Fields(string(out))[1:]
	if len(spaces) != 2 {
		t.Fatalf("the dying test had namespaces %v, want two", spaces)
	}
	prefix := fmt.Sprintf("cw%d-", cmd.Process.Pid)
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = leftovers(t, prefix, spaces); len(left) == 0 {
			return
		}
	}
	t.Errorf("5 s after the death of the test: %v", left)
}

// namespaces returns what /proc calls the namespaces with a prefix: net:[inode].
func namespaces(t *testing.T, prefix string) []string {
	t.Helper()
	files, _ := filepath.Glob("/run/netns/" + prefix + "*")
	var names []string
	for _, f := range files {
		var st syscall.Stat_t
		if err := syscall.Stat(f, &st); err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("net:[%d]", st.Ino))
	}
	return names
}

// leftovers names what is there of the networks with a prefix: namespaces, guests, and the processes
// in the given namespaces, which outlive the namespaces' names.
func leftovers(t *testing.T, prefix string, spaces []string) []string {
	t.Helper()
	named, _ := filepath.Glob("/run/netns/" + prefix + "*")
	guests, _ := filepath.Glob("/tmp/causeway-uml/" + prefix + "*")
	found := append(named, guests...)
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		// A process that is ending has no namespace any more: the link cannot be read.
		if space, err := os.Readlink(p + "/ns/net"); err == nil && slices.Contains(spaces, space) {
			args, _ := os.ReadFile(p + "/cmdline")
			found = append(found, strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

func interfaces(t *testing.T) []string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

func TestRootIsDemandedNotSkipped(t *testing.T) {
	// A copy, because the directory that go test builds in is closed to others.
	self := filepath.Join(t.TempDir(), "hosts.test")
	for dir := filepath.Dir(self); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestRootLinkOptions$")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "needs root: user 65534") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}
