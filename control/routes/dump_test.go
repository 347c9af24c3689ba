package routes

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeBytes encodes an IPv6 route of the main table through a gateway on p2.
func routeBytes(p, gateway string) []byte {
	prefix := netip.MustParsePrefix(p)
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1], h[4], h[7] = unix.AF_INET6, byte(prefix.Bits()), unix.RT_TABLE_MAIN, unix.RTN_UNICAST
	return slices.Concat(h,
		nl.NewRtAttr(unix.RTA_DST, prefix.Addr().AsSlice()).Serialize(),
		nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(2)).Serialize(),
		nl.NewRtAttr(unix.RTA_GATEWAY, netip.MustParseAddr(gateway).AsSlice()).Serialize())
}

// passOf runs a pass in which the dump has these routes, and during which happens what during does.
func (b *mirror) passOf(t *testing.T, during func(), routes ...[]byte) {
	t.Helper()
	b.m.loseTrack()
	if !b.m.beginPass() {
		t.Fatal("no pass begins")
	}
	for i := 2; i <= 4; i++ {
		b.device(i, true)
	}
	for kind := range kindRoute6 {
		b.m.takeDump(dumped{kind: kind, done: true})
	}
	if during != nil {
		during()
	}
	b.m.takeDump(dumped{kind: kindRoute6, messages: routes})
	b.m.takeDump(dumped{kind: kindRoute6, done: true})
	b.m.takeDump(dumped{kind: messageKinds, done: true})
}

func TestSweep(t *testing.T) {
	const p, q = "2001:db8:1::/48", "2001:db8:2::/48"
	b := newMirror(newEngine(t, 2))
	new := func(p, gateway string) func() {
		return func() { b.m.event(unix.RTM_NEWROUTE, unix.NLM_F_REPLACE, routeBytes(p, gateway)); b.m.settle() }
	}
	del := func(p, gateway string) func() {
		return func() { b.m.event(unix.RTM_DELROUTE, 0, routeBytes(p, gateway)); b.m.settle() }
	}
	expect := func(what, atP, atQ string) {
		t.Helper()
		short := func(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "fe80::"), "%2") }
		if x, y := short(b.m.at("", "2001:db8:1::1")), short(b.m.at("", "2001:db8:2::1")); x != atP || y != atQ {
			t.Errorf("%s: %s and %s, want %s and %s", what, x, y, atP, atQ)
		}
	}
	dump := routeBytes
	b.passOf(t, nil, dump(p, "fe80::1"), dump(q, "fe80::1"))
	expect("first dump", "1", "1")
	b.passOf(t, nil, dump(q, "fe80::2"))
	expect("a quiet dump without one, and with the other changed", "none", "2")
	new(p, "fe80::1")()
	b.passOf(t, new(q, "fe80::3"), dump(q, "fe80::2"))
	expect("a dump that missed one while the table changed, and is older than what was announced of the other", "1", "3")
	if !b.m.pass.wanted {
		t.Error("no second dump is due")
	}
	b.passOf(t, new(q, "fe80::4"), dump(q, "fe80::4"))
	expect("missed by two dumps", "none", "4")
	b.passOf(t, del(q, "fe80::4"), dump(q, "fe80::4"))
	expect("a dump that still has what was deleted since", "none", "none")
	b.passOf(t, new(p, "fe80::5"))
	expect("a dump that does not have what came since", "5", "none")
	b.passOf(t, b.m.loseTrack, dump(q, "fe80::1"))
	expect("announcements were lost during the dump", "5", "1")
	b.passOf(t, nil, dump(q, "fe80::1"), dump(q, "fe80::2"))
	expect("two routes of one identity: the first counts", "none", "1")
	if b.m.takeDump(dumped{kind: kindRoute6, done: true, err: nl.ErrDumpInterrupted}); b.m.at("", "2001:db8:2::1") == "none" {
		t.Error("an interrupted dump withdrew a route")
	}
}

func TestPassesAreRare(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	b.passOf(t, nil)
	b.m.pass.wanted, b.m.pass.took = false, 100*verifyDelay // a large table
	b.m.verify(verifyDelay)
	if rest := b.m.pass.due.Sub(b.m.pass.began); rest != 500*verifyDelay {
		t.Errorf("the next dump is due %v after the last began, which took %v", rest, b.m.pass.took)
	}
}

func TestRoutesAreShown(t *testing.T) {
	b := newMirror(newEngine(t, 2))
	b.kernel()
	configure(t, b.engine, b.m, parse(t, "p2", threeTunnels+"  - {prefix: 0.0.0.0/0, nexthop: 192.0.2.253, interface: p2, priority: 7, weight: 3}\n"))
	got := map[string]Route{}
	for r := range b.m.Routes() {
		got[r.Account+" "+r.Prefix.String()+" "+r.NextHop] = r
	}
	for key, want := range map[string]Route{
		" 0.0.0.0/0 via 192.0.2.254 dev p2":  {Source: "kernel", Kind: "neighbour", Weight: 1},
		" 0.0.0.0/0 via 192.0.2.253 dev p2":  {Source: "static", Kind: "neighbour", Priority: 7, Weight: 3, Active: true},
		" 192.0.2.0/24 dev p2":               {Source: "kernel", Kind: "glean", Weight: 1, Active: true},
		"acme 203.0.113.0/24 tunnel a1":      {Source: "static", Kind: "tunnel", Priority: 100, Weight: 1, Active: true},
		"acme 10.213.0.2/32 self, tunnel a2": {Source: "interface", Kind: "tunnel-address", Priority: 1, Weight: 1, Active: true},
		" 203.0.113.0/24 tunnel a2":          {Source: "static", Kind: "tunnel", Priority: 100, Weight: 1, Active: true},
		" 192.0.2.1/32 kernel":               {Source: "local", Kind: "kernel", Weight: 1, Active: true},
	} {
		r := got[key]
		r.Prefix, r.Account, r.NextHop = netip.Prefix{}, "", ""
		if r != want {
			t.Errorf("%s: %+v, want %+v", key, r, want)
		}
	}
	for range b.m.Routes() {
		break // an iteration that is given up leaves no lock behind
	}
	if n := b.m.Neighbours(); len(n) != 2 || n[0].State != "none" || !n[0].Used || n[0].Usable || n[0].Interface != "p2" {
		t.Errorf("neighbours: %+v", n)
	}
}

// TestMalformedAttributes cuts a message short at every byte.
func TestMalformedAttributes(t *testing.T) {
	whole := routeBytes("2001:db8::/32", "fe80::1")
	var r routeMessage
	for n := range whole {
		if err := r.decode(whole[:n]); n < unix.SizeofRtMsg && err == nil {
			t.Errorf("%d bytes are enough for a route", n)
		}
	}
	long := slices.Clone(whole)
	binary.NativeEndian.PutUint16(long[unix.SizeofRtMsg:], 60000) // an attribute longer than the message
	if err := r.decode(long); err != nil || r.prefix != netip.MustParsePrefix("::/32") || len(r.hops) != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	long[1] = 129
	if r.decode(long) == nil {
		t.Error("a prefix of 129 bits")
	}
}
