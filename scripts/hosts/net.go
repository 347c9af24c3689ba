package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Net is the network of one test. Its methods, and those of its hosts, end the test when they
// fail, so they must be called from the test's own goroutine.
type Net struct {
	t      testing.TB
	prefix string // begins the name of every namespace and guest: cw<pid>-<number of the net>-
	dir    string // logs and captures
}

var netsMade atomic.Int32

// New makes an empty network that lives as long as the test.
func New(t testing.TB) *Net {
	t.Helper()
	if uid := os.Geteuid(); uid != 0 {
		t.Fatalf("needs root: user %d may not make network namespaces; run the test as root (make test says how)", uid)
	}
	need(t, "ip", "iproute2")
	need(t, "ethtool", "ethtool")
	processDir := watch(t)

	number := netsMade.Add(1)
	n := &Net{t: t, prefix: fmt.Sprintf("cw%d-%d-", os.Getpid(), number)}
	n.dir = filepath.Join(processDir, strconv.Itoa(int(number)))
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.remove)
	return n
}

// remove uses the same script as the watching process, so that a test that ends well and one that
// dies clean up alike.
func (n *Net) remove() {
	if out, err := exec.Command(script(n.t, "scripts/hosts/reap.sh"), "now", n.prefix).CombinedOutput(); err != nil {
		n.t.Errorf("removing the network %s: %v\n%s", n.prefix, err, out)
	}
	os.RemoveAll(n.dir)
}

var watcher struct {
	sync.Once
	dir string
	end *os.File // its closing, by whatever death of this process, tells the watcher to clean up
	err error
}

// watch starts, once in a process, the watching process, and returns the directory it will remove.
func watch(t testing.TB) string {
	t.Helper()
	path := script(t, "scripts/hosts/reap.sh")
	watcher.Do(func() {
		watcher.dir = fmt.Sprintf("/tmp/causeway-%d", os.Getpid())
		if watcher.err = os.MkdirAll(watcher.dir, 0o755); watcher.err != nil {
			return
		}
		var stdin *os.File
		if stdin, watcher.end, watcher.err = os.Pipe(); watcher.err != nil {
			return
		}
		defer stdin.Close()
		cmd := exec.Command(path, "watch", fmt.Sprintf("cw%d-", os.Getpid()), watcher.dir)
		cmd.Stdin = stdin
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C must not reach it
		watcher.err = cmd.Start()
	})
	if watcher.err != nil {
		t.Fatalf("starting the watching process: %v", watcher.err)
	}
	return watcher.dir
}

// Host makes a host: a network namespace in which only the loopback interface is up. IPv6 addresses
// work at once (no duplicate address detection). The name is for this net alone.
func (n *Net) Host(name string) *Host {
	n.t.Helper()
	h := &Host{net: n, Name: name, Netns: n.prefix + name}
	n.ip("netns", "add", h.Netns)
	h.ip("link", "set", "dev", "lo", "up")
	h.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	h.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	return h
}

// LinkOptions describe a link. The zero value is one queue at each end, MTU 1500, random addresses.
type LinkOptions struct {
	Queues int       // receive and transmit queues of each end; 0 means 1
	MTU    int       // bytes; 0 means 1500
	MACs   [2]string // of the first and the second end; empty means random
}

// Link joins two hosts by a veth pair, both ends up. Every offload is off at both ends, because
// packets that pass AF_XDP must be as on a wire: with full checksums, no larger than the MTU, and
// with the VLAN tag in the frame.
func (n *Net) Link(a *Host, ifA string, b *Host, ifB string, opts LinkOptions) {
	n.t.Helper()
	queues := strconv.Itoa(max(opts.Queues, 1))
	end := func(ifname string, mac string) []string {
		args := []string{"name", ifname}
		if mac != "" {
			args = append(args, "address", mac)
		}
		if opts.MTU != 0 {
			args = append(args, "mtu", strconv.Itoa(opts.MTU))
		}
		return append(args, "numrxqueues", queues, "numtxqueues", queues)
	}
	args := append([]string{"link", "add"}, end(ifA, opts.MACs[0])...)
	args = append(args, "type", "veth", "peer")
	args = append(args, end(ifB, opts.MACs[1])...)
	a.ip(append(args, "netns", b.Netns)...)
	a.asWire(ifA)
	b.asWire(ifB)
}

func (h *Host) asWire(ifname string) {
	h.net.t.Helper()
	h.MustRun("ethtool", "-K", ifname, "tx", "off", "rx", "off", "sg", "off",
		"tso", "off", "gso", "off", "gro", "off", "txvlan", "off")
	h.ip("link", "set", "dev", ifname, "up")
}

// Build compiles a command of this module, for example causeway/cmd/causeway, once in the life of
// the test process, and returns the path of the executable.
func (n *Net) Build(pkg string) string {
	n.t.Helper()
	path := filepath.Join(watcher.dir, "bin", filepath.Base(pkg))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
		n.t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// ip runs the ip command in the namespace of the test process.
func (n *Net) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// script returns the path of a file of the repository, found from the directory of the test.
func script(t testing.TB, path string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, path)
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no go.mod above the working directory: cannot find %s", path)
		}
		dir = filepath.Dir(dir)
	}
}

// need ends the test with the line that cures it when a program is not installed.
func need(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("needs %s: run scripts/deps.sh, or: apt-get install -y --no-install-recommends %s", program, pkg)
	}
}
