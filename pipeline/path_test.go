package pipeline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// families runs f for all four combinations of outer and inner family.
func families(t *testing.T, f func(t *testing.T, outer6, inner6 bool)) {
	for _, outer6 := range []bool{false, true} {
		for _, inner6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("outer6=%v/inner6=%v", outer6, inner6), func(t *testing.T) { f(t, outer6, inner6) })
		}
	}
}

func tunnelOver(outer6 bool, change ...func(*TunnelSpec)) TunnelSpec {
	if outer6 {
		change = append([]func(*TunnelSpec){over6}, change...)
	}
	return tunnelSpec("cust-a", change...)
}

func customerOf(outer6 bool) netip.Addr { return pickAddr(outer6, customer4, customer6) }
func endpointOf(outer6 bool) netip.Addr { return pickAddr(outer6, endpoint4, endpoint6) }
func inetHost(v6 bool) netip.Addr       { return pickAddr(v6, inetHost4, inetHost6) }
func behind(v6 bool) netip.Addr         { return pickAddr(v6, behind4, behind6) }

func pickAddr(v6 bool, a4, a6 netip.Addr) netip.Addr {
	if v6 {
		return a6
	}
	return a4
}

// hop is the IP packet as it must look one hop later, by an independent decoder and encoder.
func hop(t *testing.T, packet []byte) []byte {
	t.Helper()
	if packet[0]>>4 == 6 {
		out := bytes.Clone(packet)
		out[7]--
		return out
	}
	out := bytes.Clone(packet)
	hlen := int(out[0]&15) * 4
	out[8]--
	out[10], out[11] = 0, 0
	binary.BigEndian.PutUint16(out[10:], naiveChecksum(out[:hlen]))
	return out
}

func TestDecap(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		b := newBed(t, 1, tunnelOver(outer6))
		inner := udp(t, behind(inner6), inetHost(inner6), 100)
		out := b.send(gre(t, inner, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)}))
		if len(out) != 1 {
			t.Fatalf("want one frame, got %d; dropped: %v", len(out), b.dropped())
		}
		want := framed(hop(t, inner))
		copy(want, routerMAC[:])
		copy(want[6:], nodeMAC[:])
		if !bytes.Equal(out[0], want) {
			t.Errorf("got  %x\nwant %x", out[0], want)
		}
		id, _ := b.engine.TunnelID("cust-a")
		if c := b.engine.TunnelCounters(id); c.RXPackets != 1 || c.RXBytes != uint64(len(inner)) || c.TXPackets != 0 {
			t.Errorf("tunnel counters: %+v", c)
		}
	})
}

func TestEncap(t *testing.T) {
	for name, opt := range map[string]func(*TunnelSpec){
		"plain":    func(*TunnelSpec) {},
		"key":      func(s *TunnelSpec) { s.HasKey, s.Key = true, 42 },
		"checksum": func(s *TunnelSpec) { s.Checksum = true },
		"sequence": func(s *TunnelSpec) { s.Sequence = true },
		"all":      func(s *TunnelSpec) { s.HasKey, s.Key, s.Checksum, s.Sequence = true, 42, true, true },
	} {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, outer6, inner6 bool) {
				spec := tunnelOver(outer6, opt)
				b := newBed(t, 1, spec)
				for seq := range uint32(3) {
					inner := udp(t, inetHost(inner6), behind(inner6), 101)
					checkEncap(t, b.wantOne(framed(inner)), &spec, hop(t, inner), seq)
				}
				id, _ := b.engine.TunnelID("cust-a")
				if c := b.engine.TunnelCounters(id); c.TXPackets != 3 || c.RXPackets != 0 {
					t.Errorf("tunnel counters: %+v", c)
				}
			})
		})
	}
}

// checkEncap judges an encapsulated frame by gopacket.
func checkEncap(t *testing.T, p gopacket.Packet, s *TunnelSpec, inner []byte, seq uint32) {
	t.Helper()
	l := p.Layers()
	switch o := l[1].(type) {
	case *layers.IPv4:
		if o.TTL != s.TTL || !o.SrcIP.Equal(s.Endpoint.AsSlice()) || !o.DstIP.Equal(s.CustomerEndpoint.AsSlice()) || o.Flags&layers.IPv4DontFragment == 0 {
			t.Errorf("outer header: %+v", o)
		}
		if naiveChecksum(o.Contents) != 0 {
			t.Errorf("outer checksum is wrong: %x", o.Contents)
		}
		if int(o.Length) != len(o.Contents)+len(o.Payload) {
			t.Errorf("outer length %d, want %d", o.Length, len(o.Contents)+len(o.Payload))
		}
	case *layers.IPv6:
		if o.HopLimit != s.TTL || !o.SrcIP.Equal(s.Endpoint.AsSlice()) || !o.DstIP.Equal(s.CustomerEndpoint.AsSlice()) {
			t.Errorf("outer header: %+v", o)
		}
	}
	g, ok := p.Layer(layers.LayerTypeGRE).(*layers.GRE)
	if !ok {
		t.Fatalf("no GRE layer in %v", p)
	}
	if g.KeyPresent != s.HasKey || g.Key != s.Key || g.ChecksumPresent != s.Checksum || g.SeqPresent != s.Sequence {
		t.Errorf("GRE header: %+v", g)
	}
	if s.Sequence && g.Seq != seq {
		t.Errorf("sequence number %d, want %d", g.Seq, seq)
	}
	if s.Checksum && naiveChecksum(append(bytes.Clone(g.Contents), g.Payload...)) != 0 {
		t.Errorf("GRE checksum is wrong")
	}
	if !bytes.Equal(g.Payload, inner) {
		t.Errorf("inner packet\ngot  %x\nwant %x", g.Payload, inner)
	}
}

func TestDecapOptionalFields(t *testing.T) {
	key, seq := uint32(42), uint32(7)
	keyed := func(s *TunnelSpec) { s.HasKey, s.Key = true, 42 }
	families(t, func(t *testing.T, outer6, inner6 bool) {
		inner := udp(t, behind(inner6), inetHost(inner6), 33)
		for name, h := range map[string]greHeader{
			"key":          {key: &key},
			"checksum":     {key: &key, checksum: true},
			"sequence":     {key: &key, seq: &seq},
			"all":          {key: &key, seq: &seq, checksum: true},
			"ignored bits": {key: &key, flags: 0x00f8}, // RFC 2784 2.3: bits 6-12 are ignored
		} {
			t.Run(name, func(t *testing.T) {
				b := newBed(t, 1, tunnelOver(outer6, keyed))
				h.src, h.dst = customerOf(outer6), endpointOf(outer6)
				p := b.wantOne(gre(t, inner, h))
				if got := p.LinkLayer().LayerPayload(); !bytes.Equal(got, hop(t, inner)) {
					t.Errorf("got  %x\nwant %x", got, hop(t, inner))
				}
			})
		}
	})
}

func TestKeyMismatch(t *testing.T) {
	key, other := uint32(42), uint32(43)
	inner := udp(t, behind4, inetHost4, 33)
	for _, outer6 := range []bool{false, true} {
		h := greHeader{src: customerOf(outer6), dst: endpointOf(outer6)}
		keyed := newBed(t, 1, tunnelOver(outer6, func(s *TunnelSpec) { s.HasKey, s.Key = true, 42 }))
		keyed.wantDrop(gre(t, inner, h), TunnelKeyMismatch)
		h.key = &other
		keyed.wantDrop(gre(t, inner, h), TunnelKeyMismatch)
		plain := newBed(t, 1, tunnelOver(outer6))
		h.key = &key
		plain.wantDrop(gre(t, inner, h), TunnelKeyMismatch)
		h.src = pickAddr(outer6, inetHost4, inetHost6)
		plain.wantDrop(gre(t, inner, h), TunnelUnknown)
	}
}

func TestLateral(t *testing.T) {
	second := tunnelSpec("cust-b", func(s *TunnelSpec) {
		s.CustomerEndpoint = netip.MustParseAddr("198.51.100.9")
		s.Interface4, s.Interface6 = netip.MustParsePrefix("10.213.0.12/31"), netip.Prefix{}
		s.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}
	})
	b := newBed(t, 1, tunnelSpec("cust-a"), second)
	inner := udp(t, behind4, netip.MustParseAddr("10.9.1.1"), 64)
	checkEncap(t, b.wantOne(gre(t, inner, greHeader{})), &second, hop(t, inner), 0)
	for name, want := range map[string]TunnelCounters{
		"cust-a": {RXPackets: 1, RXBytes: 92, LateralRXPackets: 1, LateralRXBytes: 92},
		"cust-b": {TXPackets: 1, TXBytes: 92, LateralTXPackets: 1, LateralTXBytes: 92},
	} {
		id, _ := b.engine.TunnelID(name)
		if c := b.engine.TunnelCounters(id); c != want {
			t.Errorf("%s counts %+v, want %+v", name, c, want)
		}
	}

	second.Account = "other"
	second.Prefixes = []netip.Prefix{netip.MustParsePrefix("198.19.0.0/16")}
	apart := newBed(t, 1, tunnelSpec("cust-a"), second)
	inner = udp(t, behind4, netip.MustParseAddr("198.19.1.1"), 64)
	apart.wantDrop(gre(t, inner, greHeader{}), RouteLeavesAccount)
	apart.spec.Accounts = []AccountSpec{{Name: "default", Peers: []string{"other"}}}
	apart.apply()
	checkEncap(t, apart.wantOne(gre(t, inner, greHeader{})), &second, hop(t, inner), 0)
	if id, _ := apart.engine.TunnelID("cust-b"); apart.engine.TunnelCounters(id) != (TunnelCounters{TXPackets: 1, TXBytes: 92}) {
		t.Errorf("from another account: %+v", apart.engine.TunnelCounters(id))
	}
}

// TestAccountsApart has two accounts with the same addresses in all places but the outer ones.
func TestAccountsApart(t *testing.T) {
	private := netip.MustParsePrefix("10.0.0.0/8")
	var specs []TunnelSpec
	for i, name := range []string{"red-1", "red-2", "blue-1", "blue-2"} {
		specs = append(specs, tunnelSpec(name, func(s *TunnelSpec) {
			s.Account = name[:len(name)-2]
			s.CustomerEndpoint = netip.AddrFrom4([4]byte{198, 51, 100, byte(10 + i)})
			s.Interface6 = netip.Prefix{}
			s.Interface4 = netip.MustParsePrefix("10.213.0.10/31")
			s.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
			if i%2 == 1 {
				s.Interface4 = netip.MustParsePrefix("10.213.0.12/31")
				s.Prefixes = []netip.Prefix{private}
			}
		}))
	}
	b := newBed(t, 1, specs...)
	inner := udp(t, netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.2.3.4"), 64)
	for i := range specs {
		if i%2 == 1 {
			continue
		}
		p := b.wantOne(gre(t, inner, greHeader{src: specs[i].CustomerEndpoint, dst: endpoint4}))
		checkEncap(t, p, &specs[i+1], hop(t, inner), 0)
	}
}

func TestTTLExceeded(t *testing.T) {
	low := func(l gopacket.SerializableLayer) {
		switch l := l.(type) {
		case *layers.IPv4:
			l.TTL = 1
		case *layers.IPv6:
			l.HopLimit = 1
		}
	}
	families(t, func(t *testing.T, outer6, inner6 bool) {
		spec := tunnelOver(outer6)
		b := newBed(t, 1, spec)
		// From outside: the error comes from an endpoint.
		inner := udp(t, inetHost(inner6), behind(inner6), 20, low)
		p := b.wantOne(framed(inner))
		checkTimeExceeded(t, p, endpointOf(inner6), inetHost(inner6), inner)
		// From the tunnel: it comes from our interface address, through the tunnel.
		inner = udp(t, behind(inner6), inetHost(inner6), 20, low)
		p = b.wantOne(gre(t, inner, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)}))
		g := p.Layer(layers.LayerTypeGRE).(*layers.GRE)
		first := layers.LayerTypeIPv4
		own := spec.Interface4.Addr()
		if inner6 {
			first, own = layers.LayerTypeIPv6, spec.Interface6.Addr()
		}
		checkTimeExceeded(t, gopacket.NewPacket(g.Payload, first, gopacket.Default), own, behind(inner6), inner)
		if got := b.engine.Total().Dropped[TTLExceeded]; got != 2 {
			t.Errorf("ttl_exceeded counts %d, want 2", got)
		}
	})
}

func checkTimeExceeded(t *testing.T, p gopacket.Packet, src, dst netip.Addr, about []byte) {
	t.Helper()
	n := p.NetworkLayer()
	from, _ := netip.AddrFromSlice(n.NetworkFlow().Src().Raw())
	to, _ := netip.AddrFromSlice(n.NetworkFlow().Dst().Raw())
	if from != src || to != dst {
		t.Errorf("error goes from %v to %v, want %v to %v", from, to, src, dst)
	}
	var quote []byte
	if v4, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		if v4.TypeCode.Type() != layers.ICMPv4TypeTimeExceeded {
			t.Errorf("type %v", v4.TypeCode)
		}
		quote = v4.Payload
	} else if v6, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		if v6.TypeCode.Type() != layers.ICMPv6TypeTimeExceeded {
			t.Errorf("type %v", v6.TypeCode)
		}
		quote = v6.Payload[4:]
	} else {
		t.Fatalf("no ICMP layer in %v", p)
	}
	if !bytes.Equal(quote, about) {
		t.Errorf("quote\ngot  %x\nwant %x", quote, about)
	}
}

func TestSourceNotInPrefixes(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		b := newBed(t, 1, tunnelOver(outer6))
		inner := udp(t, inetHost(inner6), pickAddr(inner6, netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8:2::77")), 20)
		b.wantDrop(gre(t, inner, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)}), InnerSource)
	})
}

func TestEchoOfInterfaceAddress(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		spec := tunnelOver(outer6)
		b := newBed(t, 1, spec)
		own, peer := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
		var inner []byte
		if inner6 {
			own, peer = spec.Interface6.Addr(), spec.Interface6.Addr().Next()
			l3 := ip(peer, own, layers.IPProtocolICMPv6)
			l4 := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
			setNetwork(t, l4, l3)
			inner = serialize(t, l3, l4, &layers.ICMPv6Echo{Identifier: 9, SeqNumber: 3}, gopacket.Payload("ping"))
		} else {
			inner = serialize(t, ip(peer, own, layers.IPProtocolICMPv4),
				&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 9, Seq: 3}, gopacket.Payload("ping"))
		}
		p := b.wantOne(gre(t, inner, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)}))
		g := p.Layer(layers.LayerTypeGRE).(*layers.GRE)
		want := bytes.Clone(inner)
		if inner6 {
			copy(want[8:], inner[24:40])
			copy(want[24:], inner[8:24])
			want[7], want[40] = 64, 129
			binary.BigEndian.PutUint16(want[42:], binary.BigEndian.Uint16(want[42:])-0x100) // the type grew by 1
		} else {
			copy(want[12:], inner[16:20])
			copy(want[16:], inner[12:16])
			want[8], want[20] = 64, 0
			want[10], want[11], want[22], want[23] = 0, 0, 0, 0
			binary.BigEndian.PutUint16(want[10:], naiveChecksum(want[:20]))
			binary.BigEndian.PutUint16(want[22:], naiveChecksum(want[20:]))
		}
		if !bytes.Equal(g.Payload, want) {
			t.Errorf("reply\ngot  %x\nwant %x", g.Payload, want)
		}
		if c := b.engine.Total(); c.Delivered != 1 || c.Originated != 1 || c.Forwarded != 1 {
			t.Errorf("counters: %+v", c)
		}
	})
}

func TestKeepalive(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	answer := serialize(t, ip(endpoint4, customer4, layers.IPProtocolGRE), gopacket.Payload{0, 0, 0, 0})
	out := b.send(gre(t, answer, greHeader{}))
	if len(out) != 1 {
		t.Fatalf("want one frame, got %d; dropped: %v", len(out), b.dropped())
	}
	if !bytes.Equal(out[0][14:], answer) {
		t.Errorf("got  %x\nwant %x", out[0][14:], answer)
	}
}

func TestECN(t *testing.T) {
	// RFC 6040 figure 4: rows inner, columns outer, in the order Not-ECT, ECT(1), ECT(0), CE; -1 is a drop.
	want := [4][4]int{{0, 0, 0, -1}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3}}
	families(t, func(t *testing.T, outer6, inner6 bool) {
		set := func(ecn int) func(gopacket.SerializableLayer) {
			return func(l gopacket.SerializableLayer) {
				switch l := l.(type) {
				case *layers.IPv4:
					l.TOS = 0xb8 | uint8(ecn)
				case *layers.IPv6:
					l.TrafficClass = 0xb8 | uint8(ecn)
				}
			}
		}
		for in := range 4 {
			for out := range 4 {
				b := newBed(t, 1, tunnelOver(outer6))
				frame := gre(t, udp(t, behind(inner6), inetHost(inner6), 20, set(in)),
					greHeader{src: customerOf(outer6), dst: endpointOf(outer6), outer: set(out)})
				if want[in][out] < 0 {
					b.wantDrop(frame, ECNConflict)
					continue
				}
				p := b.wantOne(frame)
				if got := tos(p.Layers()[1]); got != 0xb8|uint8(want[in][out]) {
					t.Errorf("inner %d, outer %d: %#x leaves, want ECN %d", in, out, got, want[in][out])
				}
			}
		}
		b := newBed(t, 1, tunnelOver(outer6))
		for ecn := range 4 {
			p := b.wantOne(framed(udp(t, inetHost(inner6), behind(inner6), 20, set(ecn))))
			if got := tos(p.Layers()[1]); got != 0xb8|uint8(ecn) {
				t.Errorf("encapsulated: outer traffic class %#x, want DSCP and ECN copied from %#x", got, 0xb8|ecn)
			}
		}
	})
}

func tos(l gopacket.Layer) uint8 {
	if v4, ok := l.(*layers.IPv4); ok {
		return v4.TOS
	}
	return l.(*layers.IPv6).TrafficClass
}
