package bpf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/asavie/xdp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// childVar tells the test binary to be the process that holds a program.
const childVar = "CAUSEWAY_BPF_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childVar); role != "" {
		if err := child(role, os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child loads the program, attaches it to an interface if it is to, says so, and
// waits for its end.
func child(role string, args []string) error {
	f, err := NewFilter()
	if err != nil {
		return err
	}
	if err := errors.Join(f.SetEndpoints(testEndpoints), f.SetPrefixes(testPrefixes)); err != nil {
		return err
	}
	p, err := f.NewProgram(1)
	if err != nil {
		return err
	}
	if role == "attach" {
		ifindex, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		if err := p.Attach(ifindex, args[1] == "generic"); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// bed is a veth pair between two nameless network namespaces: the node's end
// "port", in the namespace of the calling thread, has the endpoints' addresses;
// the peer's end "peer" is in the other. Both vanish with the thread.
type bed struct {
	t    *testing.T
	port netlink.Link
	peer netns.NsHandle
	mac  net.HardwareAddr // the port's
}

func newBed(t *testing.T) *bed {
	t.Helper()
	needsRoot(t)
	// Never unlocked: the thread ends with the test, and the namespaces with it.
	runtime.LockOSThread()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	peer, err := netns.New()
	must(err)
	t.Cleanup(func() { peer.Close() })
	node, err := netns.New()
	must(err)
	defer node.Close()

	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumRxQueues, attrs.NumTxQueues = "port", 1, 1
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer", PeerNamespace: netlink.NsFd(int(peer))}))
	b := &bed{t: t, peer: peer}
	configure("port", "192.0.2.1/24", "2001:db8::1/64", must)
	b.port, err = netlink.LinkByName("port")
	must(err)
	b.mac = b.port.Attrs().HardwareAddr
	b.inPeer(func() { configure("peer", "192.0.2.9/24", "2001:db8::9/64", must) })
	return b
}

func configure(name, addr4, addr6 string, must func(error)) {
	dev, err := netlink.LinkByName(name)
	must(err)
	for _, s := range []string{addr4, addr6} {
		addr, err := netlink.ParseAddr(s)
		must(err)
		addr.Flags = unix.IFA_F_NODAD
		must(netlink.AddrAdd(dev, addr))
	}
	must(netlink.LinkSetUp(dev))
}

// inPeer runs f with the thread in the peer's namespace.
func (b *bed) inPeer(f func()) {
	b.t.Helper()
	node, err := netns.Get()
	if err != nil {
		b.t.Fatal(err)
	}
	defer node.Close()
	if err := netns.Set(b.peer); err != nil {
		b.t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(node); err != nil {
			b.t.Fatal(err)
		}
	}()
	f()
}

// pings pings both endpoints from the peer: ARP, neighbour discovery and ICMP
// must reach the node's kernel.
func (b *bed) pings(when string) {
	b.t.Helper()
	b.inPeer(func() {
		for _, dst := range testEndpoints {
			if out, err := exec.Command("ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", dst.String()).CombinedOutput(); err != nil {
				b.t.Errorf("%s: ping %s: %v\n%s", when, dst, err, out)
			}
		}
	})
}

// send puts frames on the wire at the peer's end, to the port's MAC address
// unless the frame is for a group.
func (b *bed) send(frames ...[]byte) {
	b.t.Helper()
	b.inPeer(func() {
		dev, err := netlink.LinkByName("peer")
		if err != nil {
			b.t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			b.t.Fatal(err)
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: dev.Attrs().Index}); err != nil {
				b.t.Fatalf("send % x: %v", f, err)
			}
		}
	})
}

func (b *bed) attached() *netlink.LinkXdp {
	b.t.Helper()
	dev, err := netlink.LinkByName("port")
	if err != nil {
		b.t.Fatal(err)
	}
	return dev.Attrs().Xdp
}

// startChild runs this test binary as the holder of the program.
func startChild(t *testing.T, role string, attr *syscall.SysProcAttr, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), childVar+"="+role)
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("child said nothing: %v", err)
	}
	return cmd, strings.TrimSpace(line)
}

// The interface of a process that was killed works as if it had never run, and a
// new program attaches without cleaning.
func TestRootKilledProcessLeavesNothing(t *testing.T) {
	for _, mode := range []string{"native", "generic"} {
		t.Run(mode, func(t *testing.T) {
			b := newBed(t)
			ifindex := b.port.Attrs().Index
			for round := range 2 {
				cmd, said := startChild(t, "attach", nil, strconv.Itoa(ifindex), mode)
				if said != "ready" {
					t.Fatalf("round %d: %s", round, said)
				}
				if x := b.attached(); x == nil || !x.Attached {
					t.Fatalf("round %d: no program on the interface", round)
				}
				b.pings("while attached")
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				cmd.Wait()
				// The kernel may finish the release a moment after the exit.
				for end := time.Now().Add(2 * time.Second); b.attached().Attached; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("round %d: program %d still attached 2 s after SIGKILL", round, b.attached().ProgId)
					}
				}
				b.pings("after SIGKILL")
			}
		})
	}
}

// The frames of the table come from a wire; the socket (of another
// implementation) gets exactly the worker's, unchanged and in order.
func TestRootSocketGetsTheWorkersFrames(t *testing.T) {
	for _, mode := range []string{"native", "generic"} {
		t.Run(mode, func(t *testing.T) {
			b := newBed(t)
			sock := newSocket(t, b)
			f := newFilter(t, testEndpoints, testPrefixes)
			p := newProgram(t, f, 1)
			if err := p.SetSocket(0, sock.FD()); err != nil {
				t.Fatal(err)
			}
			if err := p.Attach(b.port.Attrs().Index, mode == "generic"); err != nil {
				t.Fatal(err)
			}
			b.pings("with a socket")
			before := counters(t, p)
			var sent, want [][]byte
			sum := make(map[Class]uint64)
			for _, fr := range frames(t) {
				frame := append(fr.frame, make([]byte, max(0, 60-len(fr.frame)))...) // as a card pads it
				if frame[0]&1 == 0 {
					copy(frame, b.mac)
				}
				class := oracle{testEndpoints, testPrefixes}.classify(frame)
				if class.ToWorker() {
					want = append(want, frame)
				}
				sent = append(sent, frame)
				sum[class]++
			}
			b.send(sent...)
			got := receive(t, sock, len(want))
			for i := range want {
				if i >= len(got) || !bytes.Equal(got[i], want[i]) {
					t.Fatalf("frame %d of %d (%d arrived) differs; sent\n% x", i, len(want), len(got), want[i])
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d frames arrived, want %d; the first too many:\n% x", len(got), len(want), got[len(want)])
			}
			after := counters(t, p)
			for c := range Class(classes) {
				n := after[c] - before[c]
				// The kernels talk too: neighbour discovery, errors about our frames.
				if talk := c == Other || c == NotIP || c == GroupMAC || c == EndpointOther; n != sum[c] && !(talk && n > sum[c]) {
					t.Errorf("class %v counted %d times, want %d", c, n, sum[c])
				}
			}
			if err := p.ClearSocket(0); err != nil {
				t.Fatal(err)
			}
			b.send(want[0])
			if n := counters(t, p)[NoSocket]; n != 1 {
				t.Errorf("without a socket: no_socket is %d, want 1", n)
			}
			b.pings("without a socket")
		})
	}
}

// newSocket opens an AF_XDP socket on queue 0 of the port, with a full fill ring.
func newSocket(t *testing.T, b *bed) *xdp.Socket {
	t.Helper()
	sock, err := xdp.NewSocket(b.port.Attrs().Index, 0, &xdp.SocketOptions{
		NumFrames: 256, FrameSize: 2048,
		FillRingNumDescs: 256, CompletionRingNumDescs: 64, RxRingNumDescs: 256, TxRingNumDescs: 64,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	if n := sock.Fill(sock.GetDescs(sock.NumFreeFillSlots())); n != 256 {
		t.Fatalf("fill ring took %d of 256 frames", n)
	}
	return sock
}

// receive returns what arrives until n frames are there and 50 ms have been
// quiet, or 2 s have passed.
func receive(t *testing.T, sock *xdp.Socket, n int) [][]byte {
	t.Helper()
	var got [][]byte
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		ready, _, err := sock.Poll(50)
		if err != nil {
			t.Fatal(err)
		}
		if ready == 0 && len(got) >= n {
			break
		}
		for _, d := range sock.Receive(ready) {
			got = append(got, bytes.Clone(sock.GetFrame(d)))
		}
	}
	return got
}

func TestRootAttachErrors(t *testing.T) {
	b := newBed(t)
	index := b.port.Attrs().Index
	f := newFilter(t, nil, nil)
	holder, other := newProgram(t, f, 1), newProgram(t, f, 1)
	says := func(err error, target error, words ...string) {
		t.Helper()
		if err == nil || (target != nil && !errors.Is(err, target)) {
			t.Fatalf("error %v, want %v", err, target)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("error %q does not say %q", err, w)
			}
		}
	}
	says(holder.Attach(9999, false), nil, "interface 9999", "no such interface in this network namespace")

	if err := holder.Attach(index, false); err != nil {
		t.Fatal(err)
	}
	says(holder.Attach(index, false), nil, "already attached")
	says(other.Attach(index, false), ErrOccupied, "(port)", "(causeway_steer)", "held by bpf_link", "bpftool link show id")
	says(other.Attach(index, true), ErrOccupied, "held by bpf_link")
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}

	// A program that was attached without a link stays until someone obeys.
	if err := netlink.LinkSetXdpFdWithFlags(b.port, other.prog.FD(), unix.XDP_FLAGS_DRV_MODE); err != nil {
		t.Fatal(err)
	}
	third := newProgram(t, f, 1)
	err := third.Attach(index, false)
	says(err, ErrOccupied, "held by nobody", "ip link set dev port xdp off")
	if out, err := exec.Command("ip", "link", "set", "dev", "port", "xdp", "off").CombinedOutput(); err != nil {
		t.Fatalf("what the error advises: %v\n%s", err, out)
	}
	if err := third.Attach(index, false); err != nil {
		t.Errorf("after doing what the error advises: %v", err)
	}
}

func TestRootAttachRefusedByDriver(t *testing.T) {
	b := newBed(t)
	p := newProgram(t, newFilter(t, nil, nil), 1)
	b.inPeer(func() {
		dev, err := netlink.LinkByName("peer")
		if err == nil {
			err = netlink.LinkSetMTU(dev, 9000)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	err := p.Attach(b.port.Attrs().Index, false)
	if !errors.Is(err, unix.ERANGE) || !strings.Contains(err.Error(), "lower it to 1500") {
		t.Errorf("peer with MTU 9000: %v", err)
	}

	// The loopback device has no native XDP.
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	err = p.Attach(lo.Attrs().Index, false)
	if !errors.Is(err, ErrNoNative) || !strings.Contains(err.Error(), "use generic mode") {
		t.Errorf("native on lo: %v", err)
	}
	if err := p.Attach(lo.Attrs().Index, true); err != nil {
		t.Errorf("generic on lo: %v", err)
	}
}

// CAP_BPF and CAP_NET_ADMIN are enough, which the verifier judges more strictly
// than root; without them the error says what is missing.
func TestRootCapabilities(t *testing.T) {
	b := newBed(t)
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	least := &syscall.SysProcAttr{Credential: nobody, AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN}}
	if _, said := startChild(t, "attach", least, strconv.Itoa(b.port.Attrs().Index), "native"); said != "ready" {
		t.Errorf("with CAP_BPF and CAP_NET_ADMIN: %s", said)
	}
	_, said := startChild(t, "attach", least, strconv.Itoa(b.port.Attrs().Index), "native")
	if !strings.Contains(said, ErrOccupied.Error()) || !strings.Contains(said, "ask bpftool net") {
		t.Errorf("a second one, which may not look for the holder: %s", said)
	}
	_, said = startChild(t, "load", &syscall.SysProcAttr{Credential: nobody})
	if !strings.Contains(said, "run as root or with CAP_BPF and CAP_NET_ADMIN") {
		t.Errorf("without privilege: %s", said)
	}
}

// A change of the filter is seen by the program that is attached.
func TestRootPrefixesChangeUnderAttachedProgram(t *testing.T) {
	b := newBed(t)
	f := newFilter(t, testEndpoints, nil)
	p := newProgram(t, f, 1)
	if err := p.Attach(b.port.Attrs().Index, false); err != nil {
		t.Fatal(err)
	}
	frame := build(t, eth(0x0800), ip4("10.9.8.7", 6))
	copy(frame, b.mac)
	for i, set := range [][]netip.Prefix{nil, prefixes("10.9.0.0/16"), prefixes("10.9.0.0/16", "10.9.8.0/24"), nil} {
		if err := f.SetPrefixes(set); err != nil {
			t.Fatal(err)
		}
		before := counters(t, p)[Prefix]
		b.send(frame)
		if got, want := counters(t, p)[Prefix]-before, uint64(min(1, len(set))); got != want {
			t.Errorf("step %d, prefixes %v: %d frames counted as prefix, want %d", i, set, got, want)
		}
	}
}
