package wire

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func TestCheckIPv6(t *testing.T) {
	for _, c := range []struct {
		name  string
		b     []byte
		total int
	}{
		{"plain", plain6, 56},
		{"with Ethernet padding", join(plain6, make([]byte, 4)), 56},
		{"no next header", make6(NextNone, nil), 40},
		{"no next header, padded", join(make6(NextNone, nil), make([]byte, 6)), 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			total, f := CheckIPv6(c.b)
			if f != OK || total != c.total {
				t.Errorf("got %d, %q; want %d", total, f, c.total)
			}
		})
	}
}

func TestWalkIPv6(t *testing.T) {
	id := uint32(0xdeadbeef)
	// What Linux puts before GRE: tunnel encapsulation limit (RFC 2473 section
	// 4.1.1), padding.
	limit := []byte{ProtoGRE, 0, 4, 1, 4, 1, 1, 0}
	routing := []byte{NextDestination, 0, 4, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		b    []byte
		want IPv6Chain
	}{
		{"udp", plain6, IPv6Chain{Proto: ProtoUDP, Offset: 40, UnfragLen: 40, UnfragNext: 6}},
		{"ip6gre of linux", make6(NextDestination, join(limit, make([]byte, 4))),
			IPv6Chain{Proto: ProtoGRE, Offset: 48, UnfragLen: 40, UnfragNext: 6}},
		{"hop-by-hop, routing, destination", make6(NextHopByHop, join(ext(NextRouting), routing, limit, make([]byte, 4))),
			IPv6Chain{Proto: ProtoGRE, Offset: 64, UnfragLen: 56, UnfragNext: 48}},
		{"first fragment", make6(NextFragment, join(fragHeader(ProtoUDP, 1), pattern(16))),
			IPv6Chain{Proto: ProtoUDP, Offset: 48, Fragmented: true, FragMore: true, FragID: id, FragHdr: 40, UnfragLen: 40, UnfragNext: 6}},
		{"first fragment with destination options", make6(NextFragment, join(fragHeader(NextDestination, 1), limit, pattern(8))),
			IPv6Chain{Proto: ProtoGRE, Offset: 56, Fragmented: true, FragMore: true, FragID: id, FragHdr: 40, UnfragLen: 40, UnfragNext: 6}},
		{"later fragment that begins like a header", make6(NextHopByHop, join(ext(NextFragment), fragHeader(NextDestination, 1480), pattern(5))),
			IPv6Chain{Proto: NextDestination, Offset: 56, Fragmented: true, FragID: id, FragOff: 1480, FragHdr: 48, UnfragLen: 48, UnfragNext: 40}},
		{"atomic fragment", make6(NextFragment, join(fragHeader(ProtoTCP, 0), pattern(4))),
			IPv6Chain{Proto: ProtoTCP, Offset: 48, Fragmented: true, FragID: id, FragHdr: 40, UnfragLen: 40, UnfragNext: 6}},
		{"reserved bits of a fragment header", make6(NextFragment, join(fragHeader(ProtoUDP, 8|6), pattern(4))),
			IPv6Chain{Proto: ProtoUDP, Offset: 48, Fragmented: true, FragID: id, FragOff: 8, FragHdr: 40, UnfragLen: 40, UnfragNext: 6}},
		{"fragment header behind destination options", make6(NextDestination, join(ext(NextFragment), fragHeader(ProtoUDP, 8), pattern(4))),
			IPv6Chain{Proto: ProtoUDP, Offset: 56, Fragmented: true, FragID: id, FragOff: 8, FragHdr: 48, UnfragLen: 48, UnfragNext: 40}},
		{"no next header behind options", make6(NextDestination, ext(NextNone)),
			IPv6Chain{Proto: NextNone, Offset: 48, UnfragLen: 40, UnfragNext: 6}},
		{"padding behind the packet", join(make6(NextDestination, ext(NextNone)), pattern(6)),
			IPv6Chain{Proto: NextNone, Offset: 48, UnfragLen: 40, UnfragNext: 6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if f := check6(c.b); f != OK {
				t.Fatal(f)
			}
			got, _ := WalkIPv6(c.b)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestWalkIPv6Eight walks as many headers as are allowed.
func TestWalkIPv6Eight(t *testing.T) {
	var b []byte
	for range maxExtensions - 1 {
		b = append(b, ext(NextDestination)...)
	}
	c, f := WalkIPv6(make6(NextDestination, append(b, ext(ProtoUDP)...)))
	if f != OK || c.Offset != 40+8*8 {
		t.Errorf("got %+v, %q", c, f)
	}
}

// TestFirstFragmentHeaders cuts first fragments inside and right behind the
// header of each upper layer that is read.
func TestFirstFragmentHeaders(t *testing.T) {
	for proto, least := range map[uint8]int{ProtoTCP: 24, ProtoUDP: 8, ProtoGRE: 8, ProtoESP: 8, ProtoICMPv6: 8, 132: 8} {
		// Data is a multiple of 8; destination options put the cut where it hurts.
		b := make6(NextFragment, join(fragHeader(proto, 1), pattern(least)))
		if f := check6(b); f != OK {
			t.Errorf("protocol %d with %d bytes: %q", proto, least, f)
		}
		b = make6(NextFragment, join(fragHeader(NextDestination, 1), ext(proto)))
		want := IPv6FragmentChain
		if proto == 132 {
			want = OK // not a protocol that is read here
		}
		if f := check6(b); f != want {
			t.Errorf("protocol %d without its header: %q, want %q", proto, f, want)
		}
	}
}

func TestIsIPv6Extension(t *testing.T) {
	want := map[uint8]bool{0: true, 43: true, 44: true, 60: true}
	for next := range 256 {
		if got := IsIPv6Extension(uint8(next)); got != want[uint8(next)] {
			t.Errorf("next header %d: %v", next, got)
		}
	}
}

func TestCheckIPv6DestinationAccepts(t *testing.T) {
	for _, b := range [][]byte{
		plain6,
		make6(NextHopByHop, []byte{NextNone, 0, 5, 2, 0, 0, 0, 0}),    // router alert (RFC 2711)
		make6(NextDestination, []byte{NextNone, 0, 4, 1, 4, 0, 0, 0}), // encapsulation limit, Pad1
		make6(NextRouting, []byte{NextNone, 0, 0, 0, 0, 0, 0, 0}),     // no segments left: type does not matter
		// Behind the header of a later fragment there are no options.
		make6(NextFragment, join(fragHeader(NextDestination, 8), []byte{0, 0, 0xc2, 4})),
	} {
		if f := check6(b); f != OK {
			t.Errorf("% x: %q", b[40:], f)
		}
	}
}

func TestPutIPv6(t *testing.T) {
	b := make([]byte, 100)
	PutIPv6(b, &IPv6Header{Src: src6, Dst: dst6, Payload: 60, Flow: 0xab<<20 | 0x12345, Next: ProtoGRE, HopLimit: 63})
	var ip layers.IPv6
	if err := ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		t.Fatal(err)
	}
	if ip.Version != 6 || ip.TrafficClass != 0xab || ip.FlowLabel != 0x12345 || ip.Length != 60 || ip.HopLimit != 63 ||
		ip.NextHeader != layers.IPProtocolGRE || string(ip.SrcIP) != string(src6[:]) || string(ip.DstIP) != string(dst6[:]) {
		t.Errorf("gopacket reads %+v", ip)
	}
	if total, f := CheckIPv6(b); total != 100 || f != OK {
		t.Errorf("got %d, %q", total, f)
	}
}

// slowWalk is the oracle of WalkIPv6: one header by recursion. It returns the
// chain, and false for a chain that is malformed.
func slowWalk(b []byte, proto, at, depth, unfrag, unfragNext int, seen *IPv6Chain) (IPv6Chain, bool) {
	c := IPv6Chain{Proto: uint8(proto), Offset: at, UnfragLen: unfrag, UnfragNext: unfragNext}
	if seen != nil {
		c = *seen
		c.Proto, c.Offset = uint8(proto), at
	}
	least := map[int]int{ProtoTCP: 20, ProtoUDP: 8, ProtoGRE: 4, ProtoESP: 8, ProtoICMPv6: 8}
	if proto != 0 && proto != 43 && proto != 44 && proto != 60 {
		return c, !(c.FragMore && len(b)-at < least[proto])
	}
	if depth == 8 || proto == 0 && depth > 0 || len(b) < at+8 {
		return c, false
	}
	next := int(b[at])
	if proto == 44 {
		if seen != nil {
			return c, false
		}
		word := int(b[at+2])*256 + int(b[at+3])
		c.Fragmented, c.FragHdr, c.UnfragLen = true, at, at
		c.FragOff, c.FragMore, c.FragID = word/8*8, word%2 == 1, binary.BigEndian.Uint32(b[at+4:])
		// The unfragmentable part ends with the field that announced this header.
		c.UnfragNext = fieldBefore(b, at)
		data := len(b) - at - 8
		if c.FragOff > 0 || c.FragMore {
			if data == 0 || c.FragMore && data%8 != 0 || at-40+c.FragOff+data > 65535 {
				return c, false
			}
		}
		if c.FragOff > 0 {
			c.Proto, c.Offset = uint8(next), at+8
			return c, true
		}
		return slowWalk(b, next, at+8, depth+1, 0, 0, &c)
	}
	end := at + 8 + int(b[at+1])*8
	if end > len(b) {
		return c, false
	}
	if proto != 60 {
		unfrag, unfragNext = end, at
	}
	return slowWalk(b, next, end, depth+1, unfrag, unfragNext, seen)
}

// fieldBefore returns the offset of the next header field that leads to at.
func fieldBefore(b []byte, at int) int {
	field, here := 6, 40
	for here != at {
		field, here = here, here+8+int(b[here+1])*8
	}
	return field
}

func FuzzIPv6(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		total, fault := CheckIPv6(b)
		if fault != OK {
			if len(b) >= 40 && b[0]>>4 == 6 && (b[4] != 0 || b[5] != 0) && 40+int(b[4])*256+int(b[5]) <= len(b) {
				t.Fatalf("%q for a good header", fault)
			}
			return
		}
		c, fault := WalkIPv6(b)
		want, ok := slowWalk(b[:total], int(b[6]), 40, 0, 40, 6, nil)
		if ok != (fault == OK) {
			t.Fatalf("%q, the oracle says %v", fault, ok)
		}
		MayError6(b[:total])
		if !ok {
			return
		}
		if d := cmp.Diff(want, c); d != "" {
			t.Fatal(d)
		}
		if c.Offset > total || c.UnfragLen > c.Offset || b[c.UnfragNext] == NextDestination && c.Fragmented {
			t.Fatalf("offsets out of order: %+v of %d", c, total)
		}
		CheckIPv6Destination(b[:total])
	})
}
