package cluster

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"causeway/control/ike/sa"
)

// What all nodes have done with a child is one sum, and its lifetime is over when that is; a packet that came to any of them says that the
// peer uses it.
func TestUsageIsOfAll(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	for _, n := range []*node{hub, a} {
		n.sees(1)
	}
	child := hub.install() // 7 packets at the most
	spi := child.SPIIn
	a.eventually("with the child", func() bool { return a.plane.child(spi) != nil })
	hub.plane.uses(spi, sa.Usage{PacketsIn: 1, BytesIn: 10, PacketsOut: 3, BytesOut: 300})
	if u, ok := hub.Shared().Usage("cust-a", spi); !ok || u.HardExpired || u.PacketsOut != 3 {
		t.Errorf("alone: %+v", u)
	}
	a.plane.uses(spi, sa.Usage{PacketsIn: 2, BytesIn: 20, PacketsOut: 3, BytesOut: 30})
	usage := func() sa.Usage { u, _ := hub.Shared().Usage("cust-a", spi); return u }
	hub.eventually("with what a has done", func() bool { return usage() == sa.Usage{PacketsIn: 3, BytesIn: 30, PacketsOut: 6, BytesOut: 330} })
	a.plane.uses(spi, sa.Usage{PacketsIn: 2, BytesIn: 20, PacketsOut: 4, BytesOut: 30})
	hub.eventually("at the end of its lifetime", func() bool { return usage().HardExpired })
	if err := hub.Shared().Use("cust-a", spi); err != nil { // another generation of the record
		t.Fatal(err)
	}
	if !usage().HardExpired {
		t.Error("what others have done is forgotten when the record changes")
	}

	other := hub.install().SPIIn
	a.eventually("with the other child", func() bool { return a.plane.child(other) != nil })
	a.plane.uses(other, sa.Usage{SoftExpired: true})
	hub.eventually("knowing that a has used up its numbers", func() bool { u, _ := hub.Shared().Usage("cust-a", other); return u.SoftExpired })
	a.plane.receives(other, 1)
	hub.eventually("knowing that a packet came to a", func() bool { u, _ := hub.Shared().Usage("cust-a", other); return u.PacketsIn == 1 })
}

// A peer behind a NAT that has another mapping is noticed by whichever node gets its packets, and told to the one that has the IKE SA.
func TestSourceIsToldToAll(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	for _, n := range []*node{hub, a} {
		n.sees(1)
	}
	k := hub.install()
	a.eventually("with the child", func() bool { return a.plane.child(k.SPIIn) != nil })
	hub.plane.uses(k.SPIIn, sa.Usage{})
	source := func() netip.AddrPort { u, _ := hub.Shared().Usage("cust-a", k.SPIIn); return u.Source }
	for _, from := range []string{"203.0.113.7:61001", "[2001:db8::7]:61002"} {
		from := netip.MustParseAddrPort(from)
		a.plane.cameFrom(k.SPIIn, from)
		hub.eventually("knowing where packets come from", func() bool { return source() == from })
		hub.Shared().Move("cust-a", k.SPIIn, from)
		a.eventually("sending there", func() bool { return a.plane.child(k.SPIIn).Peer == from })
		if s := source(); s.IsValid() {
			t.Errorf("when it has moved the source is %v", s)
		}
	}
	hub.plane.receives(k.SPIIn, 100)
	hub.eventually("knowing what came", func() bool { return hub.highestOf(k.SPIIn) == 100 })
	a.plane.receives(k.SPIIn, 99) // which came late, or a second time
	a.plane.cameFrom(k.SPIIn, netip.MustParseAddrPort("203.0.113.66:6666"))
	time.Sleep(3 * sourceTime)
	if s := source(); s.IsValid() {
		t.Errorf("an old packet from %v moves the peer", s)
	}
	a.plane.receives(k.SPIIn, 101)
	own := netip.MustParseAddrPort("203.0.113.8:61003")
	a.plane.cameFrom(k.SPIIn, own)
	hub.eventually("knowing it again", func() bool { return source() == own })
	a.plane.cameFrom(k.SPIIn, netip.MustParseAddrPort("[2001:db8::7]:61002")) // back where it is thought to be
	hub.eventually("forgetting what is told no more", func() bool { return !source().IsValid() })
}

// FuzzSources: what is read was told so.
func FuzzSources(f *testing.F) {
	f.Add(appendSource(nil, 0x1000, 7, netip.MustParseAddrPort("192.0.2.1:4500")))
	f.Add(appendSource(appendSource(nil, 1<<32-1, 1<<64-1, netip.MustParseAddrPort("[2001:db8::1]:1")), 256, 0, netip.MustParseAddrPort("[::ffff:192.0.2.1]:65535")))
	f.Add([]byte{1})
	f.Add(make([]byte, sourceLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseSources(b)
		if err != nil {
			return
		}
		for spi, s := range list {
			if !s.from.IsValid() || s.from.Addr().Zone() != "" || !bytes.Contains(b, appendSource(nil, spi, s.highest, s.from)) {
				t.Fatalf("%x is told of %#x, and %+v read", b, spi, s)
			}
		}
	})
}

// FuzzUsage: what is read was told so.
func FuzzUsage(f *testing.F) {
	f.Add(appendUsage([]byte("\x06edge-1"), 0x1000, &sa.Usage{PacketsIn: 1, BytesIn: 2, PacketsOut: 3, BytesOut: 1<<64 - 1, HardExpired: true}))
	f.Add([]byte{})
	f.Add([]byte{255})
	f.Add([]byte("\x01a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		node, list, err := parseUsage(b)
		if err != nil {
			return
		}
		if len(node) == 0 || len(list) > (len(b)-1-len(node))/usageLen {
			t.Fatalf("%q tells %d of %q", b, len(list), node)
		}
	})
}
