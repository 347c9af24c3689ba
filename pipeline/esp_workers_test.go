package pipeline

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// TestESPHandedOver: what came by the other worker's queue is the same packet there: bytes behind the end of the UDP
// datagram do not count, and who is not the peer gives the owner no work.
func TestESPHandedOver(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, udp: true, outer6: outer6, window: 64})
		b := newESPBed(t, 2, p.tunnel("cust-a"))
		there := b.engine.OwnerOfSPI(p.out.SPI()) ^ 1
		inner := udp(t, behind4, inetHost4, 60)
		packet := p.packet(inner)
		frame := p.wrap(append(bytes.Clone(packet), 1, 2, 3))
		length := frame[14+20+4:]
		if outer6 {
			length = frame[14+40+4:]
		}
		binary.BigEndian.PutUint16(length, uint16(len(packet)+wire.UDPLen))
		b.queues[there][0].Put(frame)
		if out := b.run(); len(out) != 1 || !bytes.Equal(out[0][14:], hop(t, inner)) {
			t.Errorf("%d frames; dropped: %v", len(out), b.dropped())
		}
		before := b.engine.Total().HandedOver
		p.udp = false
		b.queues[there][0].Put(p.seal(inner))
		b.run()
		if c := b.engine.Total(); c.HandedOver != before || b.dropped()["esp_source"] != 1 {
			t.Errorf("%d handed over, want %d; dropped: %v", c.HandedOver, before, b.dropped())
		}
	}
}

// TestHandedOverPacketsOfATunnelThatIsGone: what waits between workers for a tunnel leaves by no other that has got its number, and
// not by the same one in another account. More waits than the owner takes in a turn.
func TestHandedOverPacketsOfATunnelThatIsGone(t *testing.T) {
	gone := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 64, spi: 0x1000})
	next := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 64, spi: 0x2000})
	acme := gone.tunnel("cust-a", func(s *TunnelSpec) { s.Account = "acme" })
	for what, after := range map[string][]TunnelSpec{
		"its number": {next.tunnel("cust-b", func(s *TunnelSpec) {
			s.Account, s.CustomerEndpoint = "other", netip.MustParseAddr("198.51.100.66")
			s.Prefixes = []netip.Prefix{netip.MustParsePrefix("198.18.66.0/24")}
		})},
		"its name": {gone.tunnel("cust-a", func(s *TunnelSpec) { s.Account = "other" })},
	} {
		b := newESPBed(t, 2, acme)
		owner := b.engine.OwnerOfSPI(gone.in.SPI())
		const packets = 200
		for range packets {
			b.queues[owner^1][0].Put(framed(udp(t, inetHost4, behind4, 40)))
		}
		for b.engine.Total().HandedOver < packets {
			b.engine.Poll(owner ^ 1)
		}
		if what == "its number" {
			b.spec.Tunnels = nil
			b.apply()
			b.engine.Poll(owner)
		}
		b.spec.Tunnels = after
		b.apply()
		if out := b.run(); len(out) != 0 || b.dropped()["tunnel_unroutable"] != packets {
			t.Errorf("another has %s: %d frames left; dropped: %v", what, len(out), b.dropped())
		}
	}
}

// TestESPRenamed: an association stays its worker's when its tunnel gets another name, and so another number.
func TestESPRenamed(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 64})
	b := newESPBed(t, 2, p.tunnel("cust-a"))
	owners := map[uint8]bool{}
	for _, name := range []string{"cust-a", "cust-b", "cust-c"} {
		b.spec.Tunnels[0] = p.tunnel(name)
		b.apply()
		t0 := b.engine.tables.Load()
		id, _ := b.engine.TunnelID(name)
		owners[t0.spis.list[t0.spis.find(p.out.SPI())].owner<<1|t0.tx[id].owner] = true
	}
	if len(owners) != 1 {
		t.Errorf("owners of the pair: %v", owners)
	}
}

// TestStrays: the control side learns of an ESP packet that belongs to nobody, by either worker and protocol, once.
func TestStrays(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, outer6: outer6, window: 64})
		b := newESPBed(t, 2, p.tunnel("cust-a"))
		src := "198.51.100.2"
		if outer6 {
			src = "2001:db8:c::2"
		}
		for queue := range 2 {
			b.queues[queue][0].Put(p.seal(udp(t, behind4, inetHost4, 60)))
			b.run()
			if s, ok := b.engine.Stray(); ok {
				t.Errorf("a good packet is a stray: %+v", s)
			}
			unknown := p.packet(udp(t, behind4, inetHost4, 60))
			binary.BigEndian.PutUint32(unknown, 0xbad)
			for range 3 {
				b.queues[queue][0].Put(p.wrap(unknown))
			}
			b.run()
			want := Stray{Reason: ESPNoSA, SPI: 0xbad, Src: netip.MustParseAddr(src)}
			if s, ok := b.engine.Stray(); !ok || s != want {
				t.Errorf("%+v, %v; want %+v", s, ok, want)
			}
			if s, ok := b.engine.Stray(); ok {
				t.Errorf("again: %+v", s)
			}
			p.udp = true // and the association is without
			b.queues[queue][0].Put(p.seal(udp(t, behind4, inetHost4, 60)))
			p.udp = false
			b.run()
			want = Stray{Reason: ESPSource, SPI: p.out.SPI(), Src: want.Src, Tunnel: "cust-a"}
			if s, ok := b.engine.Stray(); !ok || s != want {
				t.Errorf("%+v, %v; want %+v", s, ok, want)
			}
		}
	}
}
