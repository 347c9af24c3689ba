package pipeline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// negotiated is a tunnel whose peers are those of its children.
func negotiated(outer6 bool, change ...func(*TunnelSpec)) TunnelSpec {
	return tunnelOver(outer6, append(change, func(s *TunnelSpec) {
		s.CustomerEndpoint, s.Negotiated, s.MTU = netip.Addr{}, true, 1400
	})...)
}

// child is the peer's child as the node has it, with selectors for what is behind the customer.
func (p *espPeer) child(remote ...string) SASpec {
	c := p.node
	c.Endpoint, c.Peer, c.Either = endpointOf(p.outer6), netip.AddrPortFrom(customerOf(p.outer6), 4500), true
	for _, r := range remote {
		c.Remote = append(c.Remote, netip.MustParsePrefix(r))
	}
	return c
}

// children gives tunnel cust-a these.
func (b *bed) children(list ...SASpec) {
	b.t.Helper()
	if err := b.engine.SetChildren("cust-a", list)(); err != nil {
		b.t.Fatal(err)
	}
}

func spiOf(frame []byte, outer6, udp bool) uint32 {
	at := 14 + 20
	if outer6 {
		at = 14 + 40
	}
	if udp {
		at += 8
	}
	return binary.BigEndian.Uint32(frame[at:])
}

// TestChildren: a tunnel without any sends nothing; the first that wants a packet gets it; all receive, each within its selectors.
func TestChildren(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		narrow, wide := "198.18.5.8/30", "198.18.0.0/16"
		if inner6 {
			narrow, wide = "2001:db8:5::/64", "2001:db8::/32"
		}
		first := newESPPeer(t, espOptions{suite: esp.AES128GCM16, outer6: outer6, spi: 0x1000, window: 64})
		second := newESPPeer(t, espOptions{suite: esp.AES256SHA256, outer6: outer6, spi: 0x2000, window: 64})
		b := newESPBed(t, 1, negotiated(outer6))
		down, up := udp(t, inetHost(inner6), behind(inner6), 60), udp(t, behind(inner6), inetHost(inner6), 60)
		b.wantDrop(framed(down), ESPNoOutbound)
		b.wantDrop(first.seal(up), ESPNoSA)
		gets := func(p *espPeer) {
			t.Helper()
			out := b.send(framed(down))
			if len(out) != 1 || !bytes.Equal(p.open(out[0]), hop(t, down)) {
				t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
			}
		}
		b.children(first.child(narrow), second.child(wide))
		gets(first)
		b.children(second.child(wide), first.child(narrow))
		gets(second)
		b.children(first.child("10.0.0.0/8"), second.child(wide))
		gets(second)
		b.wantDrop(first.seal(up), ESPSelector)
		b.wantOne(second.seal(up))
		b.children(first.child("10.0.0.0/8"))
		b.wantDrop(framed(down), ESPOutboundSelector)
		if n := first.node.Outbound.Refused(esp.Selector); n != 1 {
			t.Errorf("the association counts %d packets outside of its selectors", n)
		}
		b.wantDrop(second.seal(up), ESPNoSA)
		b.children(first.child())
		gets(first)
		b.children()
		b.wantDrop(framed(down), ESPNoOutbound)
	})
}

// TestChildForIPv4Alone: such a one goes by the fast way, and takes no other packets.
func TestChildForIPv4Alone(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 64})
	c := p.child("0.0.0.0/0")
	c.Local = c.Remote
	b := newESPBed(t, 1, negotiated(false))
	b.children(c)
	before := b.engine.Total().General
	b.wantOne(framed(udp(t, inetHost4, behind4, 60)))
	b.wantOne(p.seal(udp(t, behind4, inetHost4, 60)))
	if n := b.engine.Total().General - before; n != 0 {
		t.Errorf("%d packets went by the general way", n)
	}
	b.wantDrop(framed(udp(t, inetHost6, behind6, 60)), ESPOutboundSelector)
	b.wantDrop(p.seal(udp(t, behind6, inetHost6, 60)), ESPSelector)
}

// TestChildrenOfOtherSizes: an inner packet that its source is never told is too large is cut outside to what the path carries, by
// the headers of the child that it leaves by.
func TestChildrenOfOtherSizes(t *testing.T) {
	small := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x1000})
	large := newESPPeer(t, espOptions{suite: esp.AES256SHA256, udp: true, spi: 0x2000})
	b := newESPBed(t, 1, negotiated(false))
	b.spec.Tunnels[0].MTU = 1000
	b.apply()
	for _, p := range []*espPeer{small, large} {
		list := []SASpec{small.child("10.0.0.0/8"), large.child("10.0.0.0/8")}
		if p == small {
			list = []SASpec{large.child("10.0.0.0/8"), small.child("::/0")}
		} else {
			list[1].Remote = []netip.Prefix{netip.MustParsePrefix("::/0")}
		}
		b.children(list...)
		out := b.send(framed(udp(t, inetHost6, behind6, 1200-48)))
		if len(out) != 2 {
			t.Fatalf("%s: %d frames; dropped: %v", p.suite, len(out), b.dropped())
		}
		limit := 20 + p.suite.PacketLen(1000)
		if p.udp {
			limit += 8
		}
		if n := len(out[0]) - 14; n > limit || n <= limit-8 {
			t.Errorf("%s: the first piece has %d bytes, want at most %d", p.suite, n, limit)
		}
	}
}

// TestChildrenEncapsulation: a negotiated child takes packets with UDP and without, whatever it sends; from where depends.
func TestChildrenEncapsulation(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		other := netip.MustParseAddr("198.51.100.77")
		if outer6 {
			other = netip.MustParseAddr("2001:db8:c::77")
		}
		from := func(p *espPeer, src netip.Addr, port int) []byte {
			f := p.wrap(p.packet(udp(t, behind4, inetHost4, 60)))
			l3, at := f[14:], 20
			if outer6 {
				at = 40
				copy(l3[8:], src.AsSlice())
			} else {
				copy(l3[12:], src.AsSlice())
				l3[10], l3[11] = 0, 0
				binary.BigEndian.PutUint16(l3[10:], naiveChecksum(l3[:20]))
			}
			if p.udp {
				binary.BigEndian.PutUint16(l3[at:], uint16(port))
			}
			return f
		}
		for _, nat := range []bool{false, true} {
			p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, outer6: outer6, udp: true, window: 64})
			c := p.child()
			c.NAT, c.Peer = nat, netip.AddrPortFrom(customerOf(outer6), 61234)
			c.Source = NewPeerSource(c.Peer)
			b := newESPBed(t, 1, negotiated(outer6))
			b.children(c)
			d := b.wantOne(framed(udp(t, inetHost4, behind4, 60)))
			if u, ok := d.Layer(layers.LayerTypeUDP).(*layers.UDP); !ok || u.SrcPort != 4500 || u.DstPort != 61234 {
				t.Fatalf("not from port 4500 to port 61234: %v", d)
			}
			b.wantOne(from(p, c.Peer.Addr(), 61234))
			if s := c.Source.Get(); s != c.Peer {
				t.Errorf("source %s, want %s", s, c.Peer)
			}
			p.udp = false
			b.wantOne(from(p, c.Peer.Addr(), 0))
			b.wantDrop(from(p, other, 0), ESPSource)
			p.udp = true
			if !nat {
				b.wantDrop(from(p, other, 61234), ESPSource)
				continue
			}
			late := from(p, c.Peer.Addr(), 5)
			b.wantOne(from(p, other, 777))
			want := netip.AddrPortFrom(other, 777)
			if s := c.Source.Get(); s != want {
				t.Errorf("source %s, want %s", s, want)
			}
			b.wantOne(late) // authentic, but not the newest
			forged := from(p, c.Peer.Addr(), 6)
			forged[len(forged)-1] ^= 1
			b.wantDrop(forged, ESPForged)
			if s := c.Source.Get(); s != want {
				t.Errorf("source %s, want %s", s, want)
			}
			c.Peer = want
			b.children(c)
			out := b.send(framed(udp(t, inetHost4, behind4, 60)))
			if len(out) != 1 {
				t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
			}
			if n := decode(t, out[0]).NetworkLayer().NetworkFlow().Dst().String(); n != other.String() {
				t.Errorf("packets go to %s, want %s", n, other)
			}
		}
	}
}

// TestReplaysDoNotMove: without a replay window an old packet is taken again, from wherever, and says nothing of where the peer is.
func TestReplaysDoNotMove(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, udp: true})
	c := p.child()
	c.NAT, c.Source = true, NewPeerSource(netip.AddrPortFrom(customer4, 4500))
	b := newESPBed(t, 1, negotiated(false))
	b.children(c)
	f := p.seal(udp(t, behind4, inetHost4, 60))
	b.wantOne(f)
	binary.BigEndian.PutUint16(f[14+20:], 666)
	b.wantOne(f)
	if s := c.Source.Get(); s != c.Peer {
		t.Errorf("source %s, want %s", s, c.Peer)
	}
}

// TestManyChildren: a policy-based router has a child for each pair of networks.
func TestManyChildren(t *testing.T) {
	const n = 300
	b := newESPBed(t, 2, negotiated(false, func(s *TunnelSpec) { s.Prefixes = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")} }))
	var peers []*espPeer
	var list []SASpec
	for i := range n {
		p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x1000 + 2*uint32(i), window: 64})
		peers = append(peers, p)
		list = append(list, p.child(fmt.Sprintf("198.18.%d.%d/32", i>>8, i&255)))
	}
	b.children(list...)
	for i := 0; i < n; i += 7 {
		inside := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		b.queues[i%2][0].Put(framed(udp(t, inetHost4, inside, 60)), peers[i].seal(udp(t, inside, inetHost4, 60)))
		out := b.run()
		if len(out) != 2 {
			t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
		}
		for _, f := range out {
			if f[14+9] == wire.ProtoESP {
				peers[i].open(f)
			}
		}
	}
	b.wantDrop(framed(udp(t, inetHost4, netip.MustParseAddr("198.18.200.1"), 60)), ESPOutboundSelector)
	if c := b.engine.Total(); c.HandedOver == 0 {
		t.Error("one worker has had all associations")
	}
}

// TestSetChildrenRefuses: what cannot be is refused, and the rest is done.
func TestSetChildrenRefuses(t *testing.T) {
	manual := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x5000})
	p, q := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x1000, window: 64}), newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x2000, window: 64})
	twin := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x5000})
	b := newESPBed(t, 1, negotiated(false), negotiated(false, func(s *TunnelSpec) {
		s.Name, s.Prefixes = "cust-b", nil
		s.Interface4, s.Interface6 = netip.MustParsePrefix("10.213.0.20/31"), netip.Prefix{}
	}), manual.tunnel("manual", func(s *TunnelSpec) {
		s.Prefixes, s.Interface4, s.Interface6 = nil, netip.MustParsePrefix("10.213.0.30/31"), netip.Prefix{}
	}))
	for _, name := range []string{"cust-z", "manual"} {
		if err := b.engine.SetChildren(name, nil)(); err == nil || err.Error() != fmt.Sprintf("tunnel %q: the workers have no negotiated tunnel of this name", name) {
			t.Error(err)
		}
	}
	if err := b.engine.SetChildren("cust-a", []SASpec{twin.child(), p.child()})(); err == nil || err.Error() != `tunnel "cust-a": spi 0x5000 is that of two security associations` {
		t.Error(err)
	}
	b.wantOne(p.seal(udp(t, behind4, inetHost4, 60)))
	// Two goroutines at once, the second of which wants what the first has or gets.
	first, second := b.engine.SetChildren("cust-a", []SASpec{p.child(), q.child()}), b.engine.SetChildren("cust-b", []SASpec{q.child()})
	a, c := second(), first()
	if (a == nil) == (c == nil) {
		t.Errorf("both tunnels have 0x2000, or none: %v, %v", a, c)
	}
	b.wantOne(p.seal(udp(t, behind4, inetHost4, 60)))
}

// TestChildrenLiveThroughApply: other tables leave a tunnel's children alone, as long as it is there and negotiates.
func TestChildrenLiveThroughApply(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 64})
	b := newESPBed(t, 1, negotiated(false))
	down, up := framed(udp(t, inetHost4, behind4, 60)), udp(t, behind4, inetHost4, 60)
	for range 3 {
		b.children(p.child())
		b.wantOne(down)
		b.apply()
		b.wantOne(down)
		b.wantOne(p.seal(up))
		b.children(p.child()) // the other copy
		b.wantOne(down)
		b.wantOne(p.seal(up))
	}
	manual := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x5000, window: 64})
	b.spec.Tunnels[0] = manual.tunnel("cust-a")
	b.apply()
	b.wantDrop(p.seal(up), ESPNoSA)
	if out := b.send(down); len(out) != 1 || spiOf(out[0], false, false) != manual.in.SPI() {
		t.Errorf("%d frames", len(out))
	}
	b.spec.Tunnels[0] = negotiated(false)
	b.apply()
	b.wantDrop(down, ESPNoOutbound)
	b.children(p.child())
	b.spec.Tunnels = nil
	b.apply()
	b.spec.Tunnels = []TunnelSpec{negotiated(false, func(s *TunnelSpec) { s.Name = "cust-b" })}
	b.apply()
	b.wantDrop(down, ESPNoOutbound) // though it has got the number
	b.wantDrop(p.seal(up), ESPNoSA)
}

// TestChildrenTakeTurns: what one tunnel has got stays when another gets something, in either copy of the tables.
func TestChildrenTakeTurns(t *testing.T) {
	b := newESPBed(t, 1, negotiated(false), negotiated(false, func(s *TunnelSpec) {
		s.Name, s.Prefixes = "cust-b", nil
		s.Interface4, s.Interface6 = netip.MustParsePrefix("10.213.0.20/31"), netip.Prefix{}
	}))
	for n := range uint32(6) {
		p, q := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x1000 + 16*n}), newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x2000 + 16*n})
		b.children(p.child())
		for range 1 + n%3 {
			if err := b.engine.SetChildren("cust-b", []SASpec{q.child()})(); err != nil {
				t.Fatal(err)
			}
			b.wantOne(p.seal(udp(t, behind4, inetHost4, 60)))
			if out := b.send(framed(udp(t, inetHost4, behind4, 60))); len(out) != 1 || spiOf(out[0], false, false) != p.in.SPI() {
				t.Fatalf("%d: %d frames; dropped: %v", n, len(out), b.dropped())
			}
		}
	}
}

// TestChildrenDoNotAllocate: several children with selectors behind NAT, whose source changes with each packet.
func TestChildrenDoNotAllocate(t *testing.T) {
	b := newESPBed(t, 1, negotiated(false))
	var list []SASpec
	var frames [][]byte
	for i := range 4 {
		p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, udp: true, spi: 0x1000 + 16*uint32(i)})
		c := p.child(fmt.Sprintf("198.18.5.%d/32", i))
		c.NAT, c.Source = true, NewPeerSource(c.Peer)
		list = append(list, c)
		inside := netip.AddrFrom4([4]byte{198, 18, 5, byte(i)})
		for n := range 8 {
			f := p.wrap(p.packet(udp(t, inside, inetHost4, 40+n)), func(l gopacket.SerializableLayer) { l.(*layers.IPv4).SrcIP = []byte{198, 51, 100, byte(10 + n)} })
			frames = append(frames, f, framed(udp(t, inetHost4, inside, 40+n)))
		}
	}
	b.children(list...)
	q := &loopQueue{umem: b.umem, frames: frames}
	w := b.engine.workers[0]
	w.queues[0].queue, w.ports[0].queue, w.queues[0].debt = q, q, 256
	for range 20 {
		w.poll()
	}
	if n := testing.AllocsPerRun(200, func() { w.poll() }); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
	if d := b.dropped(); len(d) > 0 || b.engine.Total().Decapsulated == 0 {
		t.Errorf("dropped: %v", d)
	}
}
