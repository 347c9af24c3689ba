package flow

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// TestParseEveryCut compares Parse with what gopacket decodes, for random packets cut at every length.
func TestParseEveryCut(t *testing.T) {
	n := 3000
	if testing.Short() {
		n = 1000
	}
	r := rand.New(rand.NewPCG(1, 2))
	kinds := map[gopacket.LayerType]int{}
	for range n {
		packet := randomPacket(t, r)
		parts, kind := oracle(t, packet)
		kinds[kind]++
		for cut := 0; cut <= min(len(packet), HeaderLen); cut++ {
			var want Header
			for _, p := range parts {
				if cut >= p.needs {
					p.fill(&want, cut)
				}
			}
			if got := Parse(packet[:cut:cut]); !reflect.DeepEqual(got, want) {
				t.Fatalf("packet % x\ncut at %d\n got %+v\nwant %+v", packet, cut, got, want)
			}
		}
	}
	for _, k := range []gopacket.LayerType{layers.LayerTypeTCP, layers.LayerTypeUDP, layers.LayerTypeICMPv4, layers.LayerTypeICMPv6,
		layers.LayerTypeGRE, gopacket.LayerTypeFragment, gopacket.LayerTypePayload} {
		if kinds[k] < n/100 {
			t.Errorf("only %d packets of kind %v", kinds[k], k)
		}
	}
}

// A found part of a packet is known as soon as so many bytes are captured.
type found struct {
	needs int
	fill  func(h *Header, captured int)
}

// oracle has gopacket decode a whole packet, layer by layer, and says what kind of layer the last one is.
func oracle(t *testing.T, b []byte) (parts []found, kind gopacket.LayerType) {
	var at, protocol, fragment int
	if b[0]>>4 == 4 {
		var ip layers.IPv4
		must(t, ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback))
		at, protocol, fragment = len(ip.Contents), int(ip.Protocol), int(ip.FragOffset)
		parts = append(parts, found{20, func(h *Header, captured int) {
			h.Version, h.DSCP, h.ECN, h.TTL, h.Protocol = ip.Version, ip.TOS>>2, ip.TOS&3, ip.TTL, uint8(ip.Protocol)
			h.Src, h.Dst = address(ip.SrcIP), address(ip.DstIP)
			h.Length, h.HeaderBytes, h.Checksum = int(ip.Length), len(ip.Contents), ip.Checksum
			h.DontFragment, h.MoreFragments = ip.Flags&layers.IPv4DontFragment != 0, ip.Flags&layers.IPv4MoreFragments != 0
			h.Identification, h.FragmentOffset = uint32(ip.Id), int(ip.FragOffset)*8
			h.Options = upTo(ip.Contents, 20, captured)
		}})
	} else {
		parts, at, protocol, fragment = oracle6(t, b)
	}
	if fragment != 0 {
		return parts, gopacket.LayerTypeFragment
	}
	more, kind := upper(t, b, at, layers.IPProtocol(protocol))
	return append(parts, more...), kind
}

func oracle6(t *testing.T, b []byte) (parts []found, at, protocol, fragment int) {
	var ip layers.IPv6
	must(t, ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback))
	at, protocol = 40, int(ip.NextHeader)
	parts = append(parts, found{40, func(h *Header, _ int) {
		h.Version, h.DSCP, h.ECN, h.TTL, h.Protocol = ip.Version, ip.TrafficClass>>2, ip.TrafficClass&3, ip.HopLimit, uint8(ip.NextHeader)
		h.Src, h.Dst = address(ip.SrcIP), address(ip.DstIP)
		h.Length, h.HeaderBytes, h.FlowLabel = int(ip.Length)+40, 40, ip.FlowLabel
	}})
	for fragment == 0 {
		kind, here := uint8(protocol), at
		var next layers.IPProtocol
		var frag *layers.IPv6Fragment
		switch layers.IPProtocol(protocol) {
		case layers.IPProtocolIPv6HopByHop, layers.IPProtocolIPv6Destination, layers.IPProtocolIPv6Routing:
			var ext layers.IPv6ExtensionSkipper
			must(t, ext.DecodeFromBytes(b[at:], gopacket.NilDecodeFeedback))
			next, at = ext.NextHeader, at+len(ext.Contents)
		case layers.IPProtocolIPv6Fragment:
			p := gopacket.NewPacket(b[at:], layers.LayerTypeIPv6Fragment, gopacket.Default)
			frag = p.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
			next, at, fragment = frag.NextHeader, at+8, int(frag.FragmentOffset)
		default:
			return
		}
		size := at - here
		protocol = int(next)
		parts = append(parts, found{here + 8, func(h *Header, _ int) {
			h.Extensions.Kinds[h.Extensions.Count] = kind
			h.Extensions.Count++
			h.Protocol = uint8(next)
			h.HeaderBytes += size
			if frag != nil {
				h.Identification, h.MoreFragments, h.FragmentOffset = frag.Identification, frag.MoreFragments, int(frag.FragmentOffset)*8
			}
		}})
	}
	return
}

// upper is oracle for what stands behind the IP headers, at at.
func upper(t *testing.T, b []byte, at int, protocol layers.IPProtocol) ([]found, gopacket.LayerType) {
	ports := func(src, dst uint16) found {
		return found{at + 4, func(h *Header, _ int) { h.HasPorts, h.SrcPort, h.DstPort = true, src, dst }}
	}
	switch protocol {
	case layers.IPProtocolTCP:
		var tcp layers.TCP
		must(t, tcp.DecodeFromBytes(b[at:], gopacket.NilDecodeFeedback))
		return append([]found{ports(uint16(tcp.SrcPort), uint16(tcp.DstPort))}, oracleTCP(&tcp, at)...), layers.LayerTypeTCP
	case layers.IPProtocolUDP:
		var udp layers.UDP
		must(t, udp.DecodeFromBytes(b[at:], gopacket.NilDecodeFeedback))
		return []found{ports(uint16(udp.SrcPort), uint16(udp.DstPort)), {at + 8, func(h *Header, _ int) {
			h.HasUDP, h.UDPLength, h.UDPChecksum = true, udp.Length-8, udp.Checksum
		}}}, layers.LayerTypeUDP
	case layers.IPProtocolICMPv4:
		var icmp layers.ICMPv4
		must(t, icmp.DecodeFromBytes(b[at:], gopacket.NilDecodeFeedback))
		return []found{{at + 4, func(h *Header, _ int) {
			h.HasICMP, h.ICMPType, h.ICMPCode, h.ICMPChecksum = true, icmp.TypeCode.Type(), icmp.TypeCode.Code(), icmp.Checksum
		}}}, layers.LayerTypeICMPv4
	case layers.IPProtocolICMPv6:
		var icmp layers.ICMPv6
		must(t, icmp.DecodeFromBytes(b[at:], gopacket.NilDecodeFeedback))
		return []found{{at + 4, func(h *Header, _ int) {
			h.HasICMP, h.ICMPType, h.ICMPCode, h.ICMPChecksum = true, icmp.TypeCode.Type(), icmp.TypeCode.Code(), icmp.Checksum
		}}}, layers.LayerTypeICMPv6
	case layers.IPProtocolGRE:
		var gre layers.GRE
		must(t, gre.DecodeFromBytes(b[at:], gopacket.NilDecodeFeedback))
		return oracleGRE(&gre, at), layers.LayerTypeGRE
	}
	return nil, gopacket.LayerTypePayload
}

func oracleTCP(tcp *layers.TCP, at int) []found {
	parts := []found{{at + 20, func(h *Header, captured int) {
		h.HasTCP = true
		h.TCP = TCP{Seq: tcp.Seq, Ack: tcp.Ack, DataOffset: tcp.DataOffset, Window: tcp.Window, Checksum: tcp.Checksum, Urgent: tcp.Urgent}
		for i, set := range []bool{tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK, tcp.URG, tcp.ECE, tcp.CWR} {
			if set {
				h.TCP.Flags |= 1 << i
			}
		}
		h.TCP.Options = upTo(tcp.Contents, 20, captured-at)
	}}}
	end := at + 20
	for _, o := range tcp.Options {
		end += int(o.OptionLength)
		parts = append(parts, found{end, func(h *Header, _ int) {
			switch o.OptionType {
			case layers.TCPOptionKindMSS:
				h.TCP.HasMSS, h.TCP.MSS = true, binary.BigEndian.Uint16(o.OptionData)
			case layers.TCPOptionKindWindowScale:
				h.TCP.HasWindowScale, h.TCP.WindowScale = true, o.OptionData[0]
			case layers.TCPOptionKindSACKPermitted:
				h.TCP.SACKPermitted = true
			case layers.TCPOptionKindSACK:
				h.TCP.SACKBlocks = len(o.OptionData) / 8
			case layers.TCPOptionKindTimestamps:
				h.TCP.HasTimestamp = true
				h.TCP.TSValue, h.TCP.TSEcho = binary.BigEndian.Uint32(o.OptionData), binary.BigEndian.Uint32(o.OptionData[4:])
			}
		}})
	}
	return parts
}

func oracleGRE(gre *layers.GRE, at int) []found {
	parts := []found{{at + 4, func(h *Header, _ int) {
		h.HasGRE, h.GRE = true, GRE{Version: gre.Version, EtherType: uint16(gre.Protocol), Bytes: uint8(len(gre.Contents))}
	}}}
	end := at + 4
	if gre.ChecksumPresent {
		end += 4
		parts = append(parts, found{end, func(h *Header, _ int) { h.GRE.HasChecksum, h.GRE.Checksum = true, gre.Checksum }})
	}
	if gre.KeyPresent {
		end += 4
		parts = append(parts, found{end, func(h *Header, _ int) { h.GRE.HasKey, h.GRE.Key = true, gre.Key }})
	}
	if gre.SeqPresent {
		end += 4
		parts = append(parts, found{end, func(h *Header, _ int) { h.GRE.HasSequence, h.GRE.Sequence = true, gre.Seq }})
	}
	return parts
}

// upTo is what is captured of b from an offset on, nil if nothing is.
func upTo(b []byte, from, captured int) []byte {
	if captured = min(captured, len(b)); captured > from {
		return b[from:captured]
	}
	return nil
}

func TestParseWrong(t *testing.T) {
	zero := Header{}
	udp := append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, 0, 53, 0, 99, 0, 7, 0, 0)
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(udp)
		copy(b[at:], v)
		return b
	}
	for _, c := range []struct {
		name  string
		b     []byte
		holds func(h Header) bool
	}{
		{"nothing", nil, func(h Header) bool { return reflect.DeepEqual(h, zero) }},
		{"version 5", change(0, 0x55), func(h Header) bool { return reflect.DeepEqual(h, zero) }},
		{"header of 16 bytes", change(0, 0x44), func(h Header) bool { return reflect.DeepEqual(h, zero) }},
		{"UDP length below its header", udp, func(h Header) bool { return h.HasUDP && h.UDPLength == 0 && h.SrcPort == 53 }},
		{"padding is no port", change(2, 0, 22), func(h Header) bool { return h.Length == 22 && !h.HasPorts }},
		{"total length below the header", change(2, 0, 5), func(h Header) bool { return h.Length == 5 && h.Options == nil && !h.HasPorts }},
		{"header longer than the packet", change(0, 0x4f), func(h Header) bool { return h.HeaderBytes == 60 && len(h.Options) == 8 && !h.HasPorts }},
		{"PPTP", change(9, 47, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x30, 1, 0x88, 0x0b, 1), func(h Header) bool {
			return h.GRE == GRE{Bytes: 4, Version: 1, EtherType: 0x880b}
		}},
		{"RFC 1701 routing", change(9, 47, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x40, 0, 8, 0, 1), func(h Header) bool {
			return h.GRE == GRE{Bytes: 8, EtherType: 0x800}
		}},
		{"chain without end", chain(40), func(h Header) bool { return h.Extensions.Count == 8 && h.Protocol == 60 && h.HeaderBytes == 104 }},
	} {
		if h := Parse(c.b); !c.holds(h) {
			t.Errorf("%s: %+v", c.name, h)
		}
	}
}

// TestTCPOptionsWrong: an option whose length is wrong for its kind is passed over, and an impossible one ends the list.
func TestTCPOptionsWrong(t *testing.T) {
	for _, c := range []struct {
		options []byte
		want    TCP
	}{
		{[]byte{2, 3, 9, 3, 3, 7}, TCP{HasWindowScale: true, WindowScale: 7}},
		{[]byte{2, 1, 3, 3, 7}, TCP{}},
		{[]byte{2, 0, 3, 3, 7}, TCP{}},
		{[]byte{5, 9, 1, 2, 3, 4, 5, 6, 7, 4, 2}, TCP{SACKPermitted: true}},
		{[]byte{0, 4, 2}, TCP{}},
		{[]byte{1, 1, 4}, TCP{}},
		{[]byte{8, 200, 1}, TCP{}},
	} {
		var got TCP
		if got.options(c.options); !reflect.DeepEqual(got, c.want) {
			t.Errorf("% x: %+v", c.options, got)
		}
	}
}

// chain is an IPv6 packet of n empty destination options headers.
func chain(n int) []byte {
	b := make([]byte, 40+8*n)
	b[0], b[6] = 0x60, 60
	binary.BigEndian.PutUint16(b[4:], uint16(8*n))
	for at := 40; at < len(b); at += 8 {
		b[at] = 60
	}
	return b
}

func TestParseAllocates(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var packets [][]byte
	for range 100 {
		p := randomPacket(t, r)
		packets = append(packets, p[:min(len(p), HeaderLen)])
	}
	packets = append(packets, chain(10))
	var h Header
	if n := testing.AllocsPerRun(10, func() {
		for _, p := range packets {
			h = Parse(p)
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d packets, want none; the last: %+v", n, len(packets), h)
	}
}

// FuzzParse: whatever the bytes are, what is said holds together, and a longer capture says the same and more.
func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		f.Add(randomPacket(f, r), uint8(r.IntN(HeaderLen)))
	}
	f.Add(chain(12), uint8(77))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		h := Parse(b)
		if (h.Version == 0) != (!h.Src.IsValid()) || h.HasTCP && !h.HasPorts || h.HasUDP && !h.HasPorts ||
			h.FragmentOffset != 0 && (h.HasPorts || h.HasICMP || h.HasGRE) || h.Version == 0 && !reflect.DeepEqual(h, Header{}) {
			t.Fatalf("% x: %+v", b, h)
		}
		short := Parse(b[:min(int(cut), len(b))])
		if short.Version != 0 && (short.Src != h.Src || short.Length != h.Length) || short.HasPorts && short.SrcPort != h.SrcPort ||
			short.HasTCP && short.TCP.Seq != h.TCP.Seq || short.GRE.HasKey && short.GRE.Key != h.GRE.Key ||
			short.Extensions.Count > h.Extensions.Count || short.TCP.HasMSS && !h.TCP.HasMSS {
			t.Fatalf("% x cut at %d: %+v, whole: %+v", b, cut, short, h)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	var packets [][]byte
	for range 64 {
		packets = append(packets, randomPacket(b, r))
	}
	b.ReportAllocs()
	var sum int
	for i := 0; b.Loop(); i++ {
		h := Parse(packets[i&63])
		sum += int(h.Protocol)
	}
	_ = sum
}
