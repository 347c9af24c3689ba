package routes

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"causeway/config"
	"causeway/pipeline"
)

// learningBed is two accounts, peers of each other, with tunnels that have devices.
func learningBed(t *testing.T) (*mirror, *config.Config) {
	e := newEngine(t, 2)
	b := newMirror(e)
	c := parse(t, "p2", `endpoints: [192.0.2.1]
accounts: [{name: a, peers: [b]}, {name: b, peers: [a]}]
tunnels:
  - {name: t0, account: a, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.0/31, kernel_interface: true, prefixes: [203.0.113.0/24, 10.1.0.0/16]}
  - {name: t1, account: a, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.213.0.2/31, kernel_interface: true, prefixes: [203.0.113.0/24]}
  - {name: t2, account: b, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.4, interface_address: 10.213.0.4/31, kernel_interface: true, prefixes: [198.18.0.0/24]}
`)
	b.m.SetDevices(map[string]int{"t0": firstDevice, "t1": firstDevice + 1, "t2": firstDevice + 2})
	configure(t, e, b.m, c)
	return b, c
}

// learn is a route that a routing daemon has put into a table of the kernel's.
func (b *mirror) learn(del bool, prefix string, table uint32, metric uint32, devices ...int) {
	r := routeMessage{prefix: netip.MustParsePrefix(prefix), table: table, kind: unix.RTN_UNICAST, metric: metric, protocol: 186}
	for _, d := range devices {
		r.hops = append(r.hops, hop{ifindex: d, gateway: netip.MustParseAddr(fmt.Sprintf("10.213.0.%d", 2*(d-firstDevice)+1)), weight: 1})
	}
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.m.routeEvent(&r, del, unix.NLM_F_CREATE)
	b.m.settle()
}

func (b *mirror) want(t *testing.T, account, addr, want string) {
	t.Helper()
	if got := b.m.at(account, addr); got != want {
		t.Errorf("account %q, %s: %q, want %q", account, addr, got, want)
	}
}

// A customer's router says what is behind it to its own account, and to others what lies in the tunnel's prefixes.
func TestLearn(t *testing.T) {
	b, c := learningBed(t)
	for _, x := range [][3]string{{"a", "203.0.113.7", "unlearned"}, {"", "203.0.113.7", "unlearned"}, {"b", "203.0.113.7", "unlearned"}, {"a", "10.1.2.3", "unlearned"}, {"", "10.1.2.3", "none"}} {
		b.want(t, x[0], x[1], x[2])
	}
	b.learn(false, "203.0.113.0/25", 101, 100, firstDevice)
	b.learn(false, "10.1.0.0/24", 101, 100, firstDevice)
	b.learn(false, "10.2.0.0/16", 101, 100, firstDevice)       // not its own: for its account alone
	b.learn(false, "198.18.0.0/24", 101, 100, firstDevice)     // nor is that
	b.learn(false, "0.0.0.0/0", 101, 100, firstDevice)         // its account's way out
	b.learn(false, "198.18.0.0/25", 102, 100, firstDevice+2)   // what is the other one's
	b.learn(false, "203.0.113.128/25", 102, 50, firstDevice+2) // and what is not
	for _, x := range [][3]string{
		{"a", "203.0.113.7", "tunnel t0"}, {"", "203.0.113.7", "tunnel t0"}, {"b", "203.0.113.7", "tunnel t0"}, {"", "203.0.113.200", "unlearned"}, {"a", "203.0.113.200", "unlearned"},
		{"a", "10.1.0.3", "tunnel t0"}, {"b", "10.1.0.3", "tunnel t0"}, {"", "10.1.0.3", "none"}, {"a", "10.2.0.3", "tunnel t0"}, {"b", "10.2.0.3", "none"},
		{"a", "198.18.0.200", "tunnel t0"}, {"", "198.18.0.200", "unlearned"}, {"b", "198.18.0.200", "unlearned"}, {"a", "8.8.8.8", "tunnel t0"}, {"", "8.8.8.8", "none"},
		{"", "198.18.0.7", "tunnel t2"}, {"a", "198.18.0.7", "tunnel t2"}, {"b", "203.0.113.200", "tunnel t2"},
	} {
		b.want(t, x[0], x[1], x[2])
	}
	if s := b.m.SteerPrefixes(); fmt.Sprint(s) != "[198.18.0.0/24 203.0.113.0/24]" {
		t.Errorf("steered: %v", s)
	}
	b.learn(true, "203.0.113.0/25", 101, 100, firstDevice)
	b.want(t, "", "203.0.113.7", "unlearned")
	b.want(t, "b", "203.0.113.7", "unlearned")

	// Without the device nothing is learned.
	b.m.SetDevices(map[string]int{"t1": firstDevice + 1, "t2": firstDevice + 2})
	configure(t, b.engine, b.m, c)
	b.want(t, "a", "10.1.0.3", "unlearned")
	b.want(t, "a", "8.8.8.8", "none")
	b.want(t, "", "198.18.0.7", "tunnel t2") // which nothing has happened to
}

// Of two routers that announce the same the one of the lower metric carries it, until its tunnel is worse; of equal ones each a part.
func TestLearnedPenalty(t *testing.T) {
	b, _ := learningBed(t)
	b.learn(false, "203.0.113.0/24", 101, 50, firstDevice)
	b.learn(false, "203.0.113.0/24", 102, 100, firstDevice+1)
	both := "tunnel t0*1 + tunnel t1*1"
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "tunnel t0"},
		{func() { b.m.SetPenalty("t0", 1000) }, "tunnel t1"},
		{func() { b.m.SetPenalty("t1", 1000) }, "tunnel t0"}, // both are bad, and none is withdrawn
		{func() { b.m.SetPenalty("t0", 0); b.m.SetPenalty("t1", 0) }, "tunnel t0"},
		{func() { b.learn(true, "203.0.113.0/24", 101, 50, firstDevice) }, "tunnel t1"},
		{func() { b.learn(false, "203.0.113.0/24", 101, 100, firstDevice) }, both},
		{func() { b.learn(true, "203.0.113.0/24", 102, 100, firstDevice+1) }, "tunnel t0"},
		{func() { b.learn(false, "203.0.113.0/24", 101, 100, firstDevice, firstDevice+1) }, both}, // one route of two hops
		{func() { b.m.SetPenalty("t0", 1000) }, "tunnel t1"},
		{func() { b.m.SetPenalty("t0", 0) }, both},
		{func() { b.device(firstDevice+1, false); b.m.settle() }, "tunnel t0"},
	} {
		step.do()
		for _, account := range []string{"a", "b", ""} {
			b.want(t, account, "203.0.113.9", step.want)
		}
	}
}

// Of a route of the file and one that was learned the better one counts, and of equal ones the file's.
func TestStaticOrLearned(t *testing.T) {
	b, c := learningBed(t)
	c.Routes = append(c.Routes, config.Route{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Account: "a", Tunnel: "t1", Priority: 100, Weight: 1})
	configure(t, b.engine, b.m, c)
	for metric, want := range map[uint32]string{99: "tunnel t0", 100: "tunnel t1", 101: "tunnel t1"} {
		b.learn(false, "203.0.113.0/24", 101, metric, firstDevice)
		b.want(t, "a", "203.0.113.9", want)
		b.learn(true, "203.0.113.0/24", 101, metric, firstDevice)
	}
}

// Two customers' routers that announce the same to one daemon do not share it.
func TestLearnedOfTwoAccounts(t *testing.T) {
	b, _ := learningBed(t)
	b.learn(false, "203.0.113.0/24", unix.RT_TABLE_MAIN, 20, firstDevice, firstDevice+2)
	b.want(t, "", "203.0.113.9", "tunnel t0")
	b.m.mu.Lock()
	for id, ifindex := range []int{firstDevice, firstDevice + 2} {
		b.m.setObject(&objectMessage{id: uint32(id + 1), hop: hop{ifindex: ifindex, weight: 1}})
	}
	b.m.setObject(&objectMessage{id: 3, members: []objectMember{{1, 1}, {2, 1}}})
	b.m.routeEvent(&routeMessage{prefix: netip.MustParsePrefix("203.0.113.0/25"), table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST, nexthop: 3}, false, unix.NLM_F_CREATE)
	b.m.settle()
	b.m.mu.Unlock()
	b.want(t, "", "203.0.113.9", "tunnel t0")
	b.want(t, "a", "203.0.113.9", "tunnel t0")
}

// The kernel's own routes over a device are no news: the file has them.
func TestDeviceRoutes(t *testing.T) {
	b, c := learningBed(t)
	b.m.SetDevices(nil)
	configure(t, b.engine, b.m, c)
	own := func(prefix string, table uint32, kind uint8) {
		b.m.mu.Lock()
		defer b.m.mu.Unlock()
		b.m.routeEvent(&routeMessage{prefix: netip.MustParsePrefix(prefix), table: table, kind: kind, protocol: unix.RTPROT_KERNEL, hops: []hop{{ifindex: firstDevice, weight: 1}}}, false, unix.NLM_F_CREATE)
		b.m.settle()
	}
	own("10.213.0.0/31", unix.RT_TABLE_MAIN, unix.RTN_UNICAST)
	own("10.213.0.0/32", unix.RT_TABLE_LOCAL, unix.RTN_LOCAL)
	b.want(t, "", "10.213.0.0", pipeline.KindKernel.String()) // that it is a tunnel's is not known yet
	b.m.SetDevices(map[string]int{"t0": firstDevice})
	configure(t, b.engine, b.m, c)
	b.dump(&oracle{})
	b.m.settle()
	b.want(t, "", "10.213.0.0", "none")
	own("10.213.0.0/31", unix.RT_TABLE_MAIN, unix.RTN_UNICAST)
	own("10.213.0.0/32", unix.RT_TABLE_LOCAL, unix.RTN_LOCAL)
	b.want(t, "", "10.213.0.0", "none")
	b.want(t, "", "10.213.0.1", "none")
	b.want(t, "a", "10.213.0.1", "tunnel t0")
	if n := b.m.Learned(); len(n) > 0 {
		t.Errorf("learned: %v", n)
	}
}

// Next hops that have a group of their own are used by it once their prefix has no other: it changes in place.
func TestOwnGroupAgain(t *testing.T) {
	b, c := learningBed(t)
	with := *c
	for _, gateway := range []string{"10.0.0.1", "10.0.0.2"} {
		with.Routes = append(with.Routes, config.Route{Prefix: netip.MustParsePrefix("192.0.2.0/24"), NextHop: netip.MustParseAddr(gateway), Interface: "p2", Priority: 1, Weight: 1})
	}
	configure(t, b.engine, b.m, &with)
	b.m.mu.Lock()
	b.m.routeEvent(&routeMessage{prefix: netip.MustParsePrefix("192.0.2.0/24"), table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST,
		hops: []hop{{2, netip.MustParseAddr("10.0.0.3"), 1}, {3, netip.MustParseAddr("10.0.0.4"), 1}}}, false, unix.NLM_F_CREATE)
	b.m.settle()
	b.m.mu.Unlock()
	b.want(t, "", "192.0.2.9", "10.0.0.1%2*1 + 10.0.0.2%2*1")
	configure(t, b.engine, b.m, c)
	b.want(t, "", "192.0.2.9", "10.0.0.3%2*1 + 10.0.0.4%3*1")
	b.m.mu.Lock()
	b.device(2, false)
	b.m.settle()
	b.m.mu.Unlock()
	b.want(t, "", "192.0.2.9", "10.0.0.4%3")
}

// When one hop of an IPv6 route goes, the rest is the account's still, and so is what is learned over the same device afterwards.
func TestLearnedHopGoes(t *testing.T) {
	b, c := learningBed(t)
	six := *c
	six.Tunnels = slices.Clone(c.Tunnels)
	for i := range six.Tunnels {
		six.Tunnels[i].Prefixes = append(slices.Clone(six.Tunnels[i].Prefixes), netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::/48", i)))
	}
	configure(t, b.engine, b.m, &six)
	route := func(del bool, prefix string, devices ...int) {
		r := routeMessage{prefix: netip.MustParsePrefix(prefix), table: 101, kind: unix.RTN_UNICAST, metric: 100}
		for _, d := range devices {
			r.hops = append(r.hops, hop{ifindex: d, weight: 1})
		}
		b.m.mu.Lock()
		defer b.m.mu.Unlock()
		b.m.routeEvent(&r, del, unix.NLM_F_CREATE)
		b.m.settle()
	}
	route(false, "2001:db8::/48", firstDevice, firstDevice+1)
	route(true, "2001:db8::/48", firstDevice+1)
	route(false, "2001:db8:0:7::/64", firstDevice)
	b.m.SetPenalty("t0", 1000) // which is the least bad
	for _, a := range []string{"2001:db8::1", "2001:db8:0:7::1"} {
		b.want(t, "a", a, "tunnel t0")
	}
	id, _ := b.engine.TunnelID("t0")
	if n := b.m.Learned()[uint32(id)]; n != 2 {
		t.Errorf("%d are learned", n)
	}
}
