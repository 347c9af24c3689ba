package routes

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"causeway/pipeline"
	"causeway/pipeline/fib"
)

const threeTunnels = `
endpoints: [192.0.2.1]
tunnels:
  - {name: a1, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.0/31, prefixes: [203.0.113.0/24, 10.7.0.0/16]}
  - {name: a2, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.213.0.2/31, prefixes: [203.0.112.0/24]}
  - {name: b1, account: bolt, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.4, interface_address: 10.213.0.0/31, prefixes: [10.7.0.0/16]}
routes:
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a1}
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a2}
`

// kernel makes what the kernel would say: the first port has 192.0.2.0/24 and a default route.
func (b *mirror) kernel() {
	say := func(p string, table uint32, kind uint8, hops ...hop) {
		b.m.routeEvent(&routeMessage{prefix: netip.MustParsePrefix(p), table: table, kind: kind, hops: hops}, false, 0)
	}
	say("192.0.2.0/24", unix.RT_TABLE_MAIN, unix.RTN_UNICAST, hop{ifindex: 2, weight: 1})
	say("192.0.2.1/32", unix.RT_TABLE_LOCAL, unix.RTN_LOCAL, hop{ifindex: 2, weight: 1})
	say("0.0.0.0/0", unix.RT_TABLE_MAIN, unix.RTN_UNICAST, hop{ifindex: 2, gateway: netip.MustParseAddr("192.0.2.254"), weight: 1})
	b.m.settle()
}

func (b *mirror) expect(t *testing.T, account string, want map[string]string) {
	t.Helper()
	for addr, w := range want {
		if got := b.m.at(account, addr); got != w {
			t.Errorf("account %q, %s: %q, want %q", account, addr, got, w)
		}
	}
}

func TestAccountsAreApart(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	b.kernel()
	configure(t, b.engine, b.m, parse(t, "p2", threeTunnels))
	b.expect(t, "acme", map[string]string{
		"10.213.0.0": "tunnel-address a1", "10.213.0.1": "tunnel a1", "10.213.0.3": "tunnel a2", "10.7.1.1": "tunnel a1",
		"203.0.113.9": "tunnel a1*1 + tunnel a2*1", "8.8.8.8": "none",
	})
	b.expect(t, "bolt", map[string]string{"10.213.0.0": "tunnel-address b1", "10.213.0.1": "tunnel b1", "10.7.1.1": "tunnel b1", "203.0.113.9": "none"})
	b.expect(t, "", map[string]string{ // public prefixes only
		"203.0.113.9": "tunnel a1*1 + tunnel a2*1", "10.7.1.1": "192.0.2.254%2", "10.213.0.0": "192.0.2.254%2", "192.0.2.77": "glean 2", "192.0.2.1": "kernel",
	})
	if got := b.m.SteerPrefixes(); !slices.Equal(got, prefixes("203.0.112.0/24 203.0.113.0/24")) {
		t.Errorf("steered: %v", got)
	}
	if a, b := b.engine, b.m; lookup(a, "acme", "203.0.113.9") != lookup(a, "", "203.0.113.9") || b.groups.inUse() != 1 {
		t.Error("the two tables of one prefix do not share their group")
	}
}

// TestPublished: whoever waits goes on when the steering program has been told, and not before.
func TestPublished(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	b.kernel()
	configure(t, b.engine, b.m, parse(t, "p2", threeTunnels))
	done := b.m.Published()
	told := 0
	open := func() bool {
		select {
		case <-done:
			return false
		default:
			return true
		}
	}
	b.m.opts.OnSteer = func(p []netip.Prefix) {
		if told++; !open() || !slices.Equal(p, prefixes("203.0.112.0/24 203.0.113.0/24")) {
			t.Errorf("told %v, somebody waits: %v", p, open())
		}
	}
	b.m.publish()
	if told != 1 || open() {
		t.Errorf("told %d times, somebody waits: %v", told, open())
	}
	done = b.m.Published()
	if b.m.publish(); told != 1 || open() {
		t.Errorf("without a change: told %d times, somebody waits: %v", told, open())
	}
}

// TestPeers: an account reaches its peers' prefixes, private ones too, and nobody else's.
func TestPeers(t *testing.T) {
	text := strings.Replace(threeTunnels, "tunnels:", "accounts: [{name: acme, peers: [bolt]}, {name: bolt, peers: [acme]}]\ntunnels:", 1)
	text = strings.Replace(text, "10.7.0.0/16", "10.8.0.0/16", 1)
	b := newMirror(newEngine(t, 2))
	b.kernel()
	configure(t, b.engine, b.m, parse(t, "p2", text))
	b.expect(t, "acme", map[string]string{"10.8.1.1": "tunnel a1", "10.7.1.1": "tunnel b1"})
	b.expect(t, "bolt", map[string]string{"10.8.1.1": "tunnel a1", "10.7.1.1": "tunnel b1"})
	b.expect(t, "", map[string]string{"10.7.1.1": "192.0.2.254%2", "10.8.1.1": "192.0.2.254%2"})
	apart := strings.Replace(text, "accounts: [{name: acme, peers: [bolt]}, {name: bolt, peers: [acme]}]\n", "", 1)
	configure(t, b.engine, b.m, parse(t, "p2", apart))
	b.expect(t, "acme", map[string]string{"10.8.1.1": "tunnel a1", "10.7.1.1": "none"})
}

func TestReloadWritesOnlyWhatChanged(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	b.kernel()
	configure(t, b.engine, b.m, parse(t, "p2", threeTunnels))
	writes := b.m.Stats().Changes
	configure(t, b.engine, b.m, parse(t, "p2", threeTunnels))
	if n := b.m.Stats().Changes - writes; n != 0 {
		t.Errorf("the same configuration again wrote %d routes", n)
	}
	configure(t, b.engine, b.m, parse(t, "p2", threeTunnels+"  - {prefix: 203.0.113.128/25, nexthop: a2, account: acme}\n"))
	if n := b.m.Stats().Changes - writes; n != 2 {
		t.Errorf("one route in two tables wrote %d", n)
	}
	b.expect(t, "", map[string]string{"203.0.113.200": "tunnel a2"})
	configure(t, b.engine, b.m, parse(t, "p2", "endpoints: [192.0.2.1]\n"))
	b.expect(t, "acme", map[string]string{"10.213.0.0": "none", "203.0.113.9": "none"})
	if n := len(b.m.Tunnels()) + len(b.m.SteerPrefixes()) + b.m.Stats().Static; n != 0 {
		t.Errorf("%d tunnels, prefixes and routes are left", n)
	}
}

func TestApplyRefusesWhatTheEngineLacks(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	configure(t, b.engine, b.m, parse(t, "p2", "endpoints: [192.0.2.1]\n"))
	err := b.m.Apply(parse(t, "p2", threeTunnels))
	if err == nil || !strings.Contains(err.Error(), `account "acme": the workers do not have it yet`) {
		t.Errorf("error: %v", err)
	}
}

func TestCustomerEndpoints(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	b.kernel()
	configure(t, b.engine, b.m, parse(t, "p2", threeTunnels))
	check := func(tunnel, leaf, problem string) {
		t.Helper()
		for _, r := range b.m.Tunnels() {
			if r.Tunnel == tunnel {
				id, _ := b.engine.TunnelID(tunnel)
				if got := b.m.explain(b.m.fwd.TunnelRoute(id)); got != leaf || r.Problem != problem || r.Leaf != b.m.fwd.TunnelRoute(id) {
					t.Errorf("%s: %q (%s), want %q (%s)", tunnel, got, r.Problem, leaf, problem)
				}
			}
		}
	}
	say := func(del bool, p string, kind uint8, hops ...hop) {
		b.m.routeEvent(&routeMessage{prefix: netip.MustParsePrefix(p), table: unix.RT_TABLE_MAIN, kind: kind, hops: hops}, del, unix.NLM_F_REPLACE)
		b.m.settle()
	}
	check("a1", "192.0.2.254%2", "")
	say(false, "198.51.100.0/24", unix.RTN_UNICAST, hop{ifindex: 3, weight: 1})
	check("a1", "198.51.100.2%3", "") // on the link itself
	say(false, "198.51.100.0/29", unix.RTN_UNICAST, hop{ifindex: 4, weight: 1})
	check("a1", "none", "the route to 198.51.100.0/29 leads to this host or over an interface that is not among `interfaces`")
	say(false, "198.51.100.2/32", unix.RTN_BLACKHOLE)
	check("a1", "none", "the route to 198.51.100.2/32 discards")
	check("a2", "none", "the route to 198.51.100.0/29 leads to this host or over an interface that is not among `interfaces`")
	say(true, "198.51.100.2/32", unix.RTN_BLACKHOLE)
	say(true, "198.51.100.0/29", unix.RTN_UNICAST, hop{ifindex: 4, weight: 1})
	check("a2", "198.51.100.3%3", "")
	say(true, "198.51.100.0/24", unix.RTN_UNICAST, hop{ifindex: 3, weight: 1})
	say(true, "0.0.0.0/0", unix.RTN_UNICAST, hop{ifindex: 2, gateway: netip.MustParseAddr("192.0.2.254"), weight: 1})
	check("b1", "none", "no route")

	// Into a tunnel, and so round and round; a group of tunnels no less.
	c := parse(t, "p2", threeTunnels) // a file that says so plainly is refused before it gets here
	c.Tunnels[0].Prefixes = prefixes("198.51.100.4/32")
	configure(t, b.engine, b.m, c)
	check("b1", "none", "the route to 198.51.100.4/32 leads into a tunnel")
}

// TestResilience counts the flows that move when members come and go: in the prefix's two tables, in place or by a new
// group.
func TestResilience(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	b.kernel()
	flows := func(account string) (out [fib.Buckets]string) {
		l := lookup(b.engine, account, "198.18.0.1")
		for i := range out {
			out[i] = b.m.explain(b.m.groups.list[pipeline.LeafIndex(l)].fib.Pick(uint32(i) << 24))
		}
		return out
	}
	moved := func(x, y [fib.Buckets]string) (n int) {
		for i := range x {
			if x[i] != y[i] {
				n++
			}
		}
		return n
	}
	fix := strings.NewReplacer("account: bolt", "account: acme", "10.213.0.0/31, prefixes: [10.7.0.0/16]", "10.213.0.4/31, prefixes: [10.8.0.0/16]")
	apply := func(tunnels ...string) {
		t.Helper()
		c := threeTunnels
		for _, x := range tunnels {
			c += "  - {prefix: 198.18.0.0/15, account: acme, nexthop: " + x + "}\n"
		}
		configure(t, b.engine, b.m, parse(t, "p2", fix.Replace(c)))
	}
	apply("a1", "a2", "b1")
	before := flows("acme")
	share := 0
	for _, x := range before {
		if x == "tunnel a2" {
			share++
		}
	}
	apply("a1", "b1")
	after := flows("acme")
	if n := moved(before, after); n != share {
		t.Errorf("a member with %d of %d parts left, %d moved", share, fib.Buckets, n)
	}
	if after != flows("") {
		t.Error("the Internet table spreads otherwise than the account's")
	}
	apply("a1", "a2", "b1")
	if n := moved(after, flows("")); n > fib.Buckets/3+1 {
		t.Errorf("a member came back for a third of %d parts, %d moved", fib.Buckets, n)
	}

	// The kernel's routes: bird replaces the next hops of each of many prefixes that share them.
	hops := []hop{}
	for i := range 3 {
		hops = append(hops, hop{ifindex: 2, gateway: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}), weight: 1})
	}
	say := func(p string, hops ...hop) {
		b.m.routeEvent(&routeMessage{prefix: netip.MustParsePrefix(p), table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST, hops: hops}, false, unix.NLM_F_REPLACE)
		b.m.settle()
	}
	say("198.18.0.0/16", hops...)
	say("198.20.0.0/16", hops...)
	before = flows("")
	say("198.18.0.0/16", hops[1], hops[2])
	if n := moved(before, flows("")); n != 85 && n != 86 {
		t.Errorf("one of three hops left, %d of %d parts moved", n, fib.Buckets)
	}
}

func TestGroupsRunOut(t *testing.T) {
	e := newEngine(t, 1)
	g := newGroupTable(e.Forwarding())
	members := []fib.Member{{Value: 1, Weight: 1}, {Value: 2, Weight: 1}}
	for range pipeline.MaxGroups - 1 {
		if g.make(0, members) == 0 {
			t.Fatal("ran out early")
		}
	}
	if i := g.make(0, members); i != 0 || g.leaf(i, members) != 1 || g.exhausted != 1 {
		t.Errorf("the group after the last is %d", i)
	}
	g.release(7)
	dying := g.dying
	g.dying = nil
	g.free(dying)
	if i := g.make(0, members); i != 7 {
		t.Errorf("the freed group is not used again: %d", i)
	}
}

func TestVLANLinks(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	var applied [][]pipeline.LinkSpec
	b.m.opts.OnLinks = func(l []pipeline.LinkSpec) error {
		applied = append(applied, l)
		return b.engine.Apply(&pipeline.Spec{Links: l})
	}
	vlan := func(ifindex int, id uint16, protocol uint16) {
		data := nl.NewRtAttr(unix.IFLA_INFO_DATA, nil)
		data.AddRtAttr(unix.IFLA_VLAN_ID, nl.Uint16Attr(id))
		data.AddRtAttr(unix.IFLA_VLAN_PROTOCOL, nl.BEUint16Attr(protocol))
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("vlan"))
		info.AddChild(data)
		h := nl.NewIfInfomsg(unix.AF_UNSPEC)
		h.Index, h.Flags = int32(ifindex), unix.IFF_UP|unix.IFF_RUNNING
		body := slices.Concat(h.Serialize(), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(fmt.Sprintf("p2.%d", id))).Serialize(),
			nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(2)).Serialize(), info.Serialize())
		b.m.event(unix.RTM_NEWLINK, 0, body)
		b.m.routeEvent(&routeMessage{prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(id), 0}), 24), table: unix.RT_TABLE_MAIN,
			kind: unix.RTN_UNICAST, hops: []hop{{ifindex: ifindex, weight: 1}}}, false, 0)
		b.m.settle()
	}
	vlan(9, 7, unix.ETH_P_8021Q)
	b.expect(t, "", map[string]string{"10.0.7.1": "none"}) // the workers do not know the link yet
	b.m.publish()
	b.expect(t, "", map[string]string{"10.0.7.1": "glean 9"})
	if l := applied[0]; len(l) != 3 || l[2].VLAN != 7 || l[2].Port != 0 {
		t.Fatalf("links: %+v", l)
	}
	vlan(10, 8, unix.ETH_P_8021AD)
	b.m.publish()
	b.expect(t, "", map[string]string{"10.0.8.1": "kernel"})

	// Another takes the number over, but not before the workers are past the first.
	b.m.deleteDevice(9)
	b.m.settle()
	b.expect(t, "", map[string]string{"10.0.7.1": "none"})
	vlan(11, 9, unix.ETH_P_8021Q)
	if n := b.m.devices.byIndex[11].link; n != 3 {
		t.Errorf("link %d was used again too early", n)
	}
	b.m.reclaim()
	vlan(12, 10, unix.ETH_P_8021Q)
	if n := b.m.devices.byIndex[12].link; n != 2 {
		t.Errorf("the free number was not used, but %d", n)
	}
	b.m.opts.OnLinks = func([]pipeline.LinkSpec) error { return fmt.Errorf("no") }
	b.m.publish()
	b.expect(t, "", map[string]string{"10.0.10.1": "none"})
	b.m.opts.OnLinks = nil
	b.m.refresh()
	b.m.publish()
	b.expect(t, "", map[string]string{"10.0.10.1": "glean 12", "10.0.9.1": "glean 11"})
}

// TestAskIsBounded sends wishes for more hosts than any link has.
func TestAskIsBounded(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	for i := range 20000 {
		b.m.asks.gleans = 0
		b.m.wish(pipeline.ResolveRequest{Link: 0, Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Slot: -1})
	}
	if n := len(b.m.asks.last); n > askMemory {
		t.Errorf("%d hosts are remembered, %d are allowed", n, askMemory)
	}
	if len(b.m.asks.queue) != askQueue || b.m.Stats().AskSuppressed != 20000-askQueue {
		t.Errorf("%d questions wait, %d were suppressed", len(b.m.asks.queue), b.m.Stats().AskSuppressed)
	}
	b.m.wish(pipeline.ResolveRequest{Link: 77, Addr: netip.MustParseAddr("10.0.0.1"), Slot: -1})
	b.m.wish(pipeline.ResolveRequest{Slot: 1 << 20})
	for i := range 100 { // one tick
		b.m.wish(pipeline.ResolveRequest{Link: 1, Addr: netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), Slot: -1})
	}
	if b.m.asks.gleans < 100 {
		t.Error("wishes are not counted")
	}
}

// TestQuestions sees what the kernel is asked when.
func TestQuestions(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	gateway := hostKey{2, netip.MustParseAddr("192.0.2.254")}
	asked := func(what string, want ...question) {
		t.Helper()
		b.m.settle()
		var got []question
		for len(b.m.asks.queue) > 0 {
			got = append(got, <-b.m.asks.queue)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: asked %v, want %v", what, got, want)
		}
	}
	say := func(state uint16, flags uint8, managed bool) {
		b.m.setNeighbour(&neighbourMessage{ifindex: 2, addr: gateway.addr, mac: [6]byte{2}, hasMAC: true, state: state, flags: flags, managed: managed})
	}
	later := func() { clear(b.m.asks.last) }
	b.kernel()
	asked("a gateway, in advance", question{gateway, true})
	say(netlink.NUD_FAILED, 0, false)
	b.m.wish(pipeline.ResolveRequest{Slot: 0})
	asked("a wish within a second")
	later()
	b.m.wish(pipeline.ResolveRequest{Slot: 0})
	asked("a wish", question{gateway, true})
	later()
	say(netlink.NUD_STALE, 0, true)
	asked("stale, but the kernel keeps it fresh")
	say(netlink.NUD_STALE, 0, false)
	asked("stale", question{gateway, true})
	later()
	say(netlink.NUD_PERMANENT, 0, false)
	b.m.refresh()
	say(netlink.NUD_STALE, netlink.NTF_EXT_LEARNED, false)
	b.m.refresh()
	asked("somebody else's entry")
	say(netlink.NUD_REACHABLE, 0, false)
	b.m.refresh()
	asked("used for long, and not kept fresh", question{gateway, true})
	b.m.refresh()
	asked("a second later")

	b.m.pass.wanted = false
	b.device(2, false)
	if !b.m.pass.wanted {
		t.Error("no dump is due after a link went down")
	}
	later()
	b.m.refresh()
	asked("the link is down")
	b.device(2, true)
	asked("the link is back", question{gateway, true})
	say(netlink.NUD_REACHABLE, 0, true)
	b.m.routeEvent(&routeMessage{prefix: netip.MustParsePrefix("0.0.0.0/0"), table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST}, true, 0)
	b.m.routeEvent(&routeMessage{prefix: netip.MustParsePrefix("192.0.2.0/24"), table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST}, true, 0)
	b.m.settle()
	b.m.reclaim()
	asked("no route needs it any more", question{gateway, false})
}

// TestBridgePortsStayDevices: a port that leaves a bridge is announced as a deleted link, of another family.
func TestBridgePortsStayDevices(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	h := nl.NewIfInfomsg(unix.AF_BRIDGE)
	h.Index = 2
	b.m.event(unix.RTM_DELLINK, 0, h.Serialize())
	if b.m.devices.byIndex[2] == nil {
		t.Error("the device is gone")
	}
}

// FuzzEvent feeds the writer with messages: those from a kernel are in the corpus. Nothing may panic, and what a
// message leaves behind can be taken away again.
func FuzzEvent(f *testing.F) {
	e := newEngine(f, 2)
	f.Add(uint16(unix.RTM_NEWROUTE), uint16(0), bytes.Repeat([]byte{2}, 40))
	f.Fuzz(func(t *testing.T, typ, flags uint16, body []byte) {
		m := newManager(e, Options{Ports: []Port{{0, 2, "p2"}, {1, 3, "p3"}}, Log: slog.New(slog.DiscardHandler)})
		for i := 2; i <= 3; i++ {
			m.setDevice(&linkMessage{ifindex: i, flags: unix.IFF_UP | unix.IFF_RUNNING})
		}
		m.event(typ, flags, body)
		m.settle()
		m.event(typ^1, flags, body) // deletes what was added: the types come in pairs
		m.settle()
		m.sweepPaths(func(*path) bool { return true })
		m.settle()
		m.reclaim()
		if n := len(m.rib.index) + len(m.vias.index); n != 0 {
			t.Errorf("%d prefixes and next hops are left", n)
		}
	})
}

func TestChunkWithBrokenMessages(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	b.m.events = &eventSocket{spare: make(chan []byte, 1)}
	message := func(n int, typ uint16, body ...byte) []byte {
		out := binary.NativeEndian.AppendUint32(nil, uint32(n))
		out = binary.NativeEndian.AppendUint16(out, typ)
		return append(append(out, make([]byte, 10)...), body...)
	}
	for _, data := range [][]byte{
		nil, {1}, message(3, unix.RTM_NEWROUTE), message(17, unix.RTM_NEWROUTE), message(1<<30, unix.RTM_NEWROUTE),
		message(20, unix.RTM_NEWROUTE, 2, 0, 0, 0),
	} {
		b.m.takeEvents(chunk{data: data})
	}
	if s := b.m.Stats(); s.Malformed != 1 || !b.m.pass.wanted {
		t.Errorf("%d malformed, and a dump is due: %v", s.Malformed, b.m.pass.wanted)
	}
}
