package pipeline

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/pipeline/wire"
)

// What an attacker found, each once.

// icmpError is an ICMP error from a customer to an endpoint about a packet from there to dst.
func icmpError(t *testing.T, dst netip.Addr) []byte {
	t.Helper()
	if dst.Is4() {
		quote := udp(t, endpoint4, dst, 8)
		body := append([]byte{wire.ICMP4Unreachable, wire.ICMP4CodeFragNeeded, 0, 0, 0, 0, 2, 88}, quote...)
		binary.BigEndian.PutUint16(body[2:], naiveChecksum(body))
		return serialize(t, ip(behind4, endpoint4, layers.IPProtocolICMPv4), gopacket.Payload(body))
	}
	body := append([]byte{wire.ICMP6TooBig, 0, 0, 0, 0, 0, 5, 0}, udp(t, endpoint6, dst, 8)...)
	return serialize(t, ip(behind6, endpoint6, layers.IPProtocolICMPv6), gopacket.Payload(body))
}

// sealed gives a changed IPv4 header its checksum again.
func sealed(ip []byte) []byte {
	ip[wire.IPv4OffChecksum], ip[wire.IPv4OffChecksum+1] = 0, 0
	binary.BigEndian.PutUint16(ip[wire.IPv4OffChecksum:], naiveChecksum(ip[:ip4Len]))
	return ip
}

// TestForeignErrors: the host learns from a customer about packets toward the customer, not about those toward others.
func TestForeignErrors(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	b.route("", netip.PrefixFrom(endpoint4, 32), MakeLeaf(KindKernel, 0))
	b.route("", netip.PrefixFrom(endpoint6, 128), MakeLeaf(KindKernel, 0))
	for _, dst := range []netip.Addr{inetHost4, customer4, inetHost6, customer6} {
		b.wantDrop(gre(t, icmpError(t, dst), greHeader{}), HostForeignError)
	}
	cut := icmpError(t, behind4)[:20+8+19]
	binary.BigEndian.PutUint16(cut[2:], uint16(len(cut)))
	b.wantDrop(gre(t, sealed(cut), greHeader{}), HostForeignError)
	for i, p := range [][]byte{icmpError(t, behind4), icmpError(t, netip.MustParseAddr("10.213.0.11")), icmpError(t, behind6), udp(t, behind4, endpoint4, 9)} {
		b.send(gre(t, p, greHeader{}))
		if got := b.engine.Total().Punted; got != uint64(i+1) {
			t.Errorf("packet %d did not reach the host: %v", i, b.dropped())
		}
	}
}

// TestTransitGREInOrder: GRE between others passes through in the order it came, whatever its packets look like.
func TestTransitGREInOrder(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	key := uint32(5)
	var want []uint16
	for id := range uint16(30) {
		h := greHeader{src: inetHost4, dst: netip.MustParseAddr("8.8.8.8")}
		if id%3 == 1 {
			h.key = &key
		}
		frame := gre(t, udp(t, inetHost4, behind4, 64), h)
		binary.BigEndian.PutUint16(frame[14+wire.IPv4OffID:], id)
		if id%3 == 2 {
			frame[14+wire.IPv4OffFrag] = wire.IPv4MF >> 8
		}
		sealed(frame[14:])
		b.queues[0][0].Put(frame)
		want = append(want, id)
	}
	var got []uint16
	for _, f := range b.run() {
		got = append(got, binary.BigEndian.Uint16(f[14+wire.IPv4OffID:]))
	}
	if !bytes.Equal(words(got), words(want)) {
		t.Errorf("left in the order %v; dropped %v", got, b.dropped())
	}
}

func words(w []uint16) (b []byte) {
	for _, v := range w {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

// TestLongHeadersOfFragments: what fits a frame by its data and not with its headers is dropped whole, not cut.
func TestLongHeadersOfFragments(t *testing.T) {
	b := newBed(t, 1, tunnelOver(true))
	datagram := append([]byte{0, 0, 8, 0}, udp(t, behind4, inetHost4, 1600)...)
	const options, first = 480, 400
	fragment := func(off int, more bool, data []byte, options int) []byte {
		p := make([]byte, 40+options+8, 40+options+8+len(data))
		p[0], p[6], p[7] = 0x60, wire.NextFragment, 64
		copy(p[8:], customer6.AsSlice())
		copy(p[24:], endpoint6.AsSlice())
		if options > 0 {
			p[6], p[40], p[41] = 60, wire.NextFragment, byte(options/8-1) // destination options, RFC 8200 4.6
			for at := 42; at < 40+options; at += 2 + int(p[at+1]) {       // PadN
				p[at], p[at+1] = 1, byte(min(200, 40+options-at-2))
			}
		}
		h := p[40+options:]
		h[0], h[7] = wire.ProtoGRE, 9
		binary.BigEndian.PutUint16(h[2:], uint16(off))
		if more {
			h[3] |= 1
		}
		p = append(p, data...)
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		return framed(p)
	}
	b.queues[0][0].Put(fragment(0, true, datagram[:first], options))
	b.queues[0][0].Put(fragment(first, false, datagram[first:], 0))
	if out := b.run(); len(out) != 0 || b.engine.Total().Dropped[FragmentTooBig] != 2 {
		t.Errorf("%d frames left; dropped %v", len(out), b.dropped())
	}
}

// TestRouteToATunnelThatIsNotThere: a route may be there longer than the last tunnel.
func TestRouteToATunnelThatIsNotThere(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	b.spec.Tunnels = nil
	b.apply()
	b.wantDrop(framed(udp(t, inetHost4, behind4, 10)), NoRoute)
}
