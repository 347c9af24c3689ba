package routes

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"causeway/pipeline"
)

// seen is how soon a change must be in the tables. The promise is 100 ms from the kernel's announcement; `ip` itself
// takes a few.
const seen = 100 * time.Millisecond

// host is two network namespaces with a wire of two pairs between them: the node's, where a Manager runs, and the
// world's, which is a real kernel that answers ARP and neighbour discovery.
type host struct {
	t           *testing.T
	node, world string
	engine      *pipeline.Engine
	m           *Manager
	port        [2]int // the node's ifindexes of p0 and p1
	steer       atomic.Pointer[[]netip.Prefix]
	links       atomic.Int32 // calls of OnLinks
	stop        func()       // ends Run, and may be called twice
}

var hosts atomic.Int32

func newHost(t *testing.T, change ...func(*Options)) *host {
	t.Helper()
	h := newWires(t)
	h.start(newEngine(t, 2), change...)
	return h
}

// newWires is a host without a Manager yet.
func newWires(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	id := fmt.Sprintf("cwrt%d-%d", os.Getpid(), hosts.Add(1))
	h := &host{t: t, node: id + "n", world: id + "w"}
	for _, ns := range []string{h.node, h.world} {
		run(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", ns) })
		h.ip(ns, "link set lo up")
		run(t, "ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0",
			"net.ipv6.conf.default.router_solicitations=0")
	}
	for i := range h.port {
		h.ip(h.node, fmt.Sprintf("link add p%d address 02:00:00:00:00:1%d type veth peer name w%d address 02:00:00:00:00:2%d netns %s", i, i, i, i, h.world))
		h.ip(h.world, fmt.Sprintf("link set w%d up", i))
		h.ip(h.world, fmt.Sprintf("addr add 10.0.%d.1/24 dev w%d", i, i))
		h.ip(h.world, fmt.Sprintf("addr add fd00:%d::1/64 dev w%d nodad", i, i))
		h.ip(h.node, fmt.Sprintf("link set p%d up", i))
		h.ip(h.node, fmt.Sprintf("addr add 10.0.%d.9/24 dev p%d", i, i))
		h.ip(h.node, fmt.Sprintf("addr add fd00:%d::9/64 dev p%d nodad", i, i))
	}
	return h
}

// start runs a Manager in the node's namespace, for an engine of two ports.
func (h *host) start(e *pipeline.Engine, change ...func(*Options)) {
	t := h.t
	t.Helper()
	h.engine = e
	o := Options{
		OnSteer: func(p []netip.Prefix) { h.steer.Store(&p) },
		OnLinks: func(l []pipeline.LinkSpec) error {
			h.links.Add(1)
			return h.engine.Apply(&pipeline.Spec{Links: l})
		},
	}
	var err error
	h.inside(func() {
		for i := range h.port {
			nic, err := net.InterfaceByName(fmt.Sprintf("p%d", i))
			if err != nil {
				t.Error(err)
				return
			}
			h.port[i] = nic.Index
			o.Ports = append(o.Ports, Port{Index: i, Ifindex: nic.Index, Name: nic.Name})
		}
		for _, f := range change {
			f(&o)
		}
		h.m, err = New(h.engine, o)
	})
	if err != nil || t.Failed() {
		t.Fatal(err)
	}
	if err := h.engine.Apply(&pipeline.Spec{Links: h.m.Links()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.m.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	h.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(h.stop)
	select {
	case <-h.m.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the kernel's tables are not mirrored after 20 s")
	}
}

// inside runs f on a thread in the node's namespace. The thread dies with it.
func (h *host) inside(f func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromName(h.node)
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err != nil {
			h.t.Error(err)
			return
		}
		f()
	})
	wg.Wait()
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ip runs ip(8) in a namespace.
func (h *host) ip(ns, line string) {
	h.t.Helper()
	run(h.t, "ip", append([]string{"-n", ns}, strings.Fields(line)...)...)
}

// batch runs many lines in one ip(8).
func (h *host) batch(family string, lines func(*bytes.Buffer)) {
	h.t.Helper()
	var b bytes.Buffer
	lines(&b)
	file := filepath.Join(h.t.TempDir(), "batch")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		h.t.Fatal(err)
	}
	run(h.t, "ip", family, "-n", h.node, "-batch", file)
}

// within waits until got returns want, at most d.
func (h *host) within(d time.Duration, what, want string, got func() string) {
	h.t.Helper()
	start := time.Now()
	last := ""
	for time.Since(start) < d {
		if last = got(); last == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
	h.t.Errorf("%s: after %v it is %q, want %q", what, d, last, want)
}

// soon checks what the Internet table has for an address within the promised time.
func (h *host) soon(addr, want string) {
	h.t.Helper()
	h.within(seen, addr, want, func() string { return h.m.at("", addr) })
}

// carrier takes the wire of port i away or gives it back, and returns when the kernel has noticed, for which it takes
// up to a second.
func (h *host) carrier(i int, state string) {
	h.t.Helper()
	h.ip(h.world, fmt.Sprintf("link set w%d %s", i, state))
	h.kernelSays(i, map[string]string{"down": "NO-CARRIER", "up": "LOWER_UP"}[state])
}

// kernelSays waits until the kernel shows a flag of port i.
func (h *host) kernelSays(i int, flag string) {
	h.t.Helper()
	h.within(2*time.Second, "the kernel's own view", "true", func() string {
		return fmt.Sprint(strings.Contains(run(h.t, "ip", "-n", h.node, "link", "show", fmt.Sprintf("p%d", i)), flag))
	})
}

// hop writes a host on port i as explain does.
func (h *host) hop(i int, addr string) string { return fmt.Sprintf("%s%%%d", addr, h.port[i]) }

// resolved waits until the slot of a host has the MAC address of the world's interface i.
func (h *host) resolved(i int, addr string, want bool) {
	h.t.Helper()
	h.within(3*time.Second, "neighbour "+addr, fmt.Sprint(want), func() string {
		for _, n := range h.m.Neighbours() {
			if n.Addr.String() == addr && n.Interface == fmt.Sprintf("p%d", i) {
				return fmt.Sprint(n.Used && n.Usable && n.MAC == [6]byte{2, 0, 0, 0, 0, 0x20 + byte(i)})
			}
		}
		return "false"
	})
}

func TestRootStartMirrorsWhatIsThere(t *testing.T) {
	h := newHost(t)
	for addr, want := range map[string]string{
		"10.0.0.77":   fmt.Sprintf("glean %d", h.port[0]),
		"10.0.0.9":    "kernel",
		"10.0.0.255":  "kernel",
		"fd00:1::77":  fmt.Sprintf("glean %d", h.port[1]),
		"fd00:1::9":   "kernel",
		"192.0.2.1":   "none",
		"2001:db8::1": "none",
		"127.0.0.1":   "kernel",
	} {
		h.soon(addr, want)
	}
	links := h.m.Links()
	if len(links) != 2 || links[1].MAC != [6]byte{2, 0, 0, 0, 0, 0x11} || links[1].MTU != 1500 ||
		links[1].Addr4 != netip.MustParseAddr("10.0.1.9") || links[1].Addr6 != netip.MustParseAddr("fd00:1::9") {
		t.Errorf("links: %+v", links)
	}
}

func TestRootRouteChangesAreSeen(t *testing.T) {
	h := newHost(t)
	step := func(line, addr, want string) {
		t.Helper()
		h.ip(h.node, line)
		h.soon(addr, want)
	}
	step("route add 192.0.2.0/24 via 10.0.0.1", "192.0.2.1", h.hop(0, "10.0.0.1"))
	step("route replace 192.0.2.0/24 via 10.0.1.1", "192.0.2.1", h.hop(1, "10.0.1.1"))
	step("route add 192.0.2.0/24 via 10.0.0.1 metric 50", "192.0.2.1", h.hop(1, "10.0.1.1"))
	step("route del 192.0.2.0/24 via 10.0.1.1", "192.0.2.1", h.hop(0, "10.0.0.1"))
	step("route del 192.0.2.0/24", "192.0.2.1", "none")
	step("route add blackhole 192.0.2.0/25", "192.0.2.1", "blackhole")
	step("route add prohibit 192.0.2.0/26", "192.0.2.1", "unreachable")
	step("route add local 192.0.2.5/32 dev lo", "192.0.2.5", "kernel")
	step("route add 192.0.2.6/32 dev lo", "192.0.2.6", "kernel")
	step("-6 route add 2001:db8::/32 via fd00:0::1", "2001:db8::1", h.hop(0, "fd00::1"))
	step("-6 route replace 2001:db8::/32 via fe80::1 dev p1", "2001:db8::1", h.hop(1, "fe80::1"))
	step("route add 0.0.0.0/0 via inet6 fe80::1 dev p1", "8.8.8.8", h.hop(1, "fe80::1"))
	step("-6 route del 2001:db8::/32", "2001:db8::1", "none")
	step("route add 192.0.2.128/25 via 10.0.0.1 tos 4", "192.0.2.200", h.hop(1, "fe80::1"))
	step("route add 192.0.2.128/25 via 10.0.0.1 table 77", "192.0.2.200", h.hop(1, "fe80::1"))
}

func TestRootAppendedRoutesOfOneIdentity(t *testing.T) {
	h := newHost(t)
	h.ip(h.node, "route add 192.0.2.0/24 via 10.0.0.1")
	h.ip(h.node, "route append 192.0.2.0/24 via 10.0.1.1")
	h.soon("192.0.2.1", h.hop(0, "10.0.0.1"))
	h.ip(h.node, "route del 192.0.2.0/24 via 10.0.0.1")
	h.within(time.Second, "the second route", h.hop(1, "10.0.1.1"), func() string { return h.m.at("", "192.0.2.1") })
	h.ip(h.node, "route prepend 192.0.2.0/24 via 10.0.0.1")
	h.soon("192.0.2.1", h.hop(0, "10.0.0.1"))
	time.Sleep(200 * time.Millisecond)
	h.ip(h.node, "route del 192.0.2.0/24 via 10.0.0.1")
	h.within(time.Second, "the older route", h.hop(1, "10.0.1.1"), func() string { return h.m.at("", "192.0.2.1") })
}

func TestRootLinkDownAndUp(t *testing.T) {
	h := newHost(t)
	h.ip(h.node, "route add 192.0.2.0/24 via 10.0.0.1 metric 10")
	h.ip(h.node, "route add 192.0.2.0/24 via 10.0.1.1 metric 20")
	h.ip(h.node, "-6 route add 2001:db8::/32 via fd00:0::1")
	h.soon("192.0.2.1", h.hop(0, "10.0.0.1"))
	h.soon("2001:db8::1", h.hop(0, "fd00::1"))

	h.carrier(0, "down") // the kernel keeps its routes
	h.soon("192.0.2.1", h.hop(1, "10.0.1.1"))
	h.soon("2001:db8::1", "none")
	h.carrier(0, "up")
	h.soon("192.0.2.1", h.hop(0, "10.0.0.1"))
	h.resolved(0, "10.0.0.1", true)

	h.ip(h.node, "link set p0 down") // the kernel drops the IPv4 routes without a word
	h.soon("192.0.2.1", h.hop(1, "10.0.1.1"))
	h.soon("10.0.0.77", "none")
	h.within(time.Second, "swept routes", "true", func() string { return fmt.Sprint(h.m.Stats().Swept > 0) })
	h.ip(h.node, "link set p0 up")
	h.kernelSays(0, "LOWER_UP")
	h.soon("10.0.0.77", fmt.Sprintf("glean %d", h.port[0]))
	h.soon("192.0.2.1", h.hop(1, "10.0.1.1")) // nobody has added the other route again
	h.ip(h.node, "route add 192.0.2.0/24 via 10.0.0.1 metric 10")
	h.soon("192.0.2.1", h.hop(0, "10.0.0.1"))
}

func TestRootMultipath(t *testing.T) {
	h := newHost(t)
	h.ip(h.node, "route add 192.0.2.0/24 nexthop via 10.0.0.1 weight 3 nexthop via 10.0.1.1 weight 1")
	h.ip(h.node, "-6 route add 2001:db8::/32 nexthop via fd00:0::1 weight 2 nexthop via fd00:1::1 weight 5")
	a, b := h.hop(0, "10.0.0.1"), h.hop(1, "10.0.1.1")
	h.soon("192.0.2.1", a+"*3 + "+b+"*1")
	six := []string{h.hop(0, "fd00::1") + "*2", h.hop(1, "fd00:1::1") + "*5"}
	slices.Sort(six)
	h.soon("2001:db8::1", strings.Join(six, " + "))

	before := lookup(h.engine, "", "192.0.2.1")
	h.carrier(0, "down")
	h.soon("192.0.2.1", b)
	if lookup(h.engine, "", "192.0.2.1") != before {
		t.Error("the route was rewritten; its group was to change in place")
	}
	h.carrier(0, "up")
	h.soon("192.0.2.1", a+"*3 + "+b+"*1")

	h.ip(h.node, "-6 route del 2001:db8::/32 via fd00:0::1") // one of two
	h.soon("2001:db8::1", h.hop(1, "fd00:1::1"))
	h.ip(h.node, "-6 route append 2001:db8::/32 via fd00:0::1")
	six[0], six[1] = h.hop(0, "fd00::1")+"*1", h.hop(1, "fd00:1::1")+"*5"
	slices.Sort(six)
	h.soon("2001:db8::1", strings.Join(six, " + "))
	h.ip(h.node, "route replace 192.0.2.0/24 via 10.0.1.1")
	h.soon("192.0.2.1", b)
}

func TestRootNextHopObjects(t *testing.T) {
	h := newHost(t)
	h.ip(h.node, "nexthop add id 1 via 10.0.0.1 dev p0")
	h.ip(h.node, "nexthop add id 2 via 10.0.1.1 dev p1")
	h.ip(h.node, "nexthop add id 3 blackhole")
	h.ip(h.node, "nexthop add id 10 group 1,4/2,1")
	h.ip(h.node, "route add 192.0.2.0/24 nhid 1")
	h.ip(h.node, "route add 198.51.100.0/24 nhid 10")
	a, b := h.hop(0, "10.0.0.1"), h.hop(1, "10.0.1.1")
	h.soon("192.0.2.1", a)
	h.soon("198.51.100.1", a+"*4 + "+b+"*1")

	h.ip(h.node, "nexthop replace id 1 via 10.0.1.1 dev p1") // the routes are not announced again
	h.soon("192.0.2.1", b)
	h.soon("198.51.100.1", b)
	h.ip(h.node, "nexthop replace id 1 via 10.0.0.1 dev p0")
	h.soon("198.51.100.1", a+"*4 + "+b+"*1")
	h.ip(h.node, "nexthop replace id 10 group 2")
	h.soon("198.51.100.1", b)
	h.ip(h.node, "route replace 192.0.2.0/24 nhid 3")
	h.soon("192.0.2.1", "blackhole")
	h.ip(h.node, "nexthop del id 3") // takes its IPv4 routes with it, in silence
	h.soon("192.0.2.1", "none")
	h.within(time.Second, "routes of a deleted object", "2", func() string { // fd00::/64 and the like aside: 198.51.100.0/24 stays
		n := 0
		for r := range h.m.Routes() {
			if r.Source == "kernel" && (strings.HasPrefix(r.NextHop, "nhid 3") || strings.HasPrefix(r.NextHop, "nhid 10")) {
				n++
			}
		}
		return fmt.Sprint(n + 1)
	})
	run(t, "ip", "netns", "exec", h.node, "sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0")
	h.ip(h.node, "-6 nexthop add id 6 via fd00:0::1 dev p0")
	h.ip(h.node, "-6 route add 2001:db8::/32 nhid 6")
	h.soon("2001:db8::1", h.hop(0, "fd00::1"))
}

func TestRootLinksAreDescribed(t *testing.T) {
	h := newHost(t)
	before := h.links.Load()
	h.ip(h.node, "link set p0 mtu 1450 address 02:00:00:00:00:55")
	h.ip(h.node, "addr del 10.0.0.9/24 dev p0")
	h.ip(h.node, "addr add 10.0.2.9/24 dev p0")
	h.within(seen, "the link's MTU, MAC and address", "1450 85 10.0.2.9", func() string {
		l := h.m.Links()[0]
		return fmt.Sprint(l.MTU, l.MAC[5], l.Addr4)
	})
	h.within(seen, "OnLinks called", "true", func() string { return fmt.Sprint(h.links.Load() > before) })
}

// TestRootReload runs configurations beside the kernel's routes, and a customer endpoint that only neighbour discovery
// can find.
func TestRootReload(t *testing.T) {
	const head = "endpoints: [192.0.2.1]\ntunnels:\n"
	const a = "  - {name: a1, account: acme, endpoint: 192.0.2.1, customer_endpoint: 10.0.0.1, interface_address: 10.213.0.0/31, prefixes: [203.0.113.0/24]}\n"
	const b = "  - {name: a2, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.7, interface_address: 10.213.0.2/31, prefixes: [198.18.0.0/15]}\n"
	h := newHost(t)
	h.ip(h.node, "route add blackhole 203.0.113.0/24") // as who announces the prefix by BGP has it; the file wins
	h.soon("203.0.113.1", "blackhole")
	configure(t, h.engine, h.m, parse(t, "p0", head+a))
	h.soon("203.0.113.1", "tunnel a1")
	h.resolved(0, "10.0.0.1", true)
	steered := func(want string) {
		t.Helper()
		h.within(seen, "steered prefixes", want, func() string {
			if p := h.steer.Load(); p != nil {
				return fmt.Sprint(*p)
			}
			return ""
		})
	}
	steered("[203.0.113.0/24]")

	whole := keptWhole(func() bool { return pipeline.LeafKind(lookup(h.engine, "", "203.0.113.1")) == pipeline.KindTunnel })
	configure(t, h.engine, h.m, parse(t, "p0", head+a+b))
	steered("[198.18.0.0/15 203.0.113.0/24]")
	problem := func(want string) {
		t.Helper()
		h.within(seen, "the way to a2's customer", want, func() string { return h.m.Tunnels()[1].Problem })
	}
	problem("no route")
	h.ip(h.node, "route add 198.51.100.0/24 via 10.0.1.1")
	problem("")
	configure(t, h.engine, h.m, parse(t, "p0", head+a))
	steered("[203.0.113.0/24]")
	if n := whole(); n != 0 {
		t.Errorf("a tunnel that stayed had no route in %d looks", n)
	}
	configure(t, h.engine, h.m, parse(t, "p0", "endpoints: [192.0.2.1]\n"))
	h.soon("203.0.113.1", "blackhole")
	steered("[]")
}

// TestRootBird has a routing daemon write into the kernel.
func TestRootBird(t *testing.T) {
	if _, err := exec.LookPath("bird"); err != nil {
		t.Fatal("bird is not installed: apt-get install bird2, or run scripts/deps.sh")
	}
	h := newHost(t)
	dir := t.TempDir()
	conf := func(routes string) {
		t.Helper()
		text := "log stderr all;\nrouter id 10.0.0.9;\nprotocol device {}\n" +
			"protocol kernel { ipv4 { export all; }; merge paths on; }\nprotocol kernel { ipv6 { export all; }; }\n" +
			"protocol static { ipv4; " + routes + " }\nprotocol static { ipv6; route 2001:db8::/32 via fd00:1::1; }\n"
		if err := os.WriteFile(filepath.Join(dir, "bird.conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conf("route 192.0.2.0/24 via 10.0.0.1; route 198.51.100.0/24 via 10.0.0.1 via 10.0.1.1 weight 2; route 203.0.113.0/24 blackhole;")
	bird := exec.Command("ip", "netns", "exec", h.node, "bird", "-f", "-c", filepath.Join(dir, "bird.conf"), "-s", filepath.Join(dir, "ctl"))
	if err := bird.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = bird.Process.Signal(os.Interrupt)
		_ = bird.Wait()
	}()
	at := func(addr string) func() string { return func() string { return h.m.at("", addr) } }
	a, b := h.hop(0, "10.0.0.1"), h.hop(1, "10.0.1.1")
	h.within(5*time.Second, "bird's first route", a, at("192.0.2.1"))
	h.within(time.Second, "bird's multipath route", a+"*1 + "+b+"*2", at("198.51.100.1"))
	h.within(time.Second, "bird's blackhole", "blackhole", at("203.0.113.1"))
	h.within(time.Second, "bird's IPv6 route", h.hop(1, "fd00:1::1"), at("2001:db8::1"))
	conf("route 192.0.2.0/24 via 10.0.1.1; route 198.51.100.0/24 via 10.0.0.1;")
	run(t, "birdc", "-s", filepath.Join(dir, "ctl"), "configure")
	h.within(2*time.Second, "bird's changed route", b, at("192.0.2.1"))
	h.within(time.Second, "bird's route with one hop less", a, at("198.51.100.1"))
	h.within(time.Second, "bird's withdrawn route", "none", at("203.0.113.1"))
}
