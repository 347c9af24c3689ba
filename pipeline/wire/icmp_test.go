package wire

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// TestICMP4Error writes each kind of error about packets of several lengths and
// lets gopacket read it.
func TestICMP4Error(t *testing.T) {
	for _, e := range []ICMPError{
		{Type: ICMP4Unreachable, Code: ICMP4CodeFragNeeded, MTU: 1400},
		{Type: ICMP4Unreachable, Code: ICMP4CodeNet},
		{Type: ICMP4Unreachable, Code: ICMP4CodeHost},
		{Type: ICMP4Unreachable, Code: ICMP4CodeAdmin},
		{Type: ICMP4TimeExceeded, Code: ICMP4CodeTTL},
	} {
		for _, payload := range []int{0, 8, 519, 520, 528, 529, 1480} {
			pkt := make4(ProtoUDP, nil, pattern(payload))
			dst := pattern(MaxICMP4Error + 10)
			n := AppendICMP4Error(dst, 0xcb007101, e, pkt)
			if want := min(IPv4Len+ICMPLen+len(pkt), 576); n != want {
				t.Fatalf("%+v about %d bytes: length %d, want %d", e, len(pkt), n, want)
			}
			ip := decode4(t, dst[:n])
			if _, _, f := CheckIPv4(dst[:n]); f != OK || ip.SrcIP.String() != "203.0.113.1" || ip.DstIP.String() != "192.0.2.1" || ip.TTL != 64 {
				t.Fatalf("%q, %+v", f, ip)
			}
			var l layers.ICMPv4
			if err := l.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback); err != nil {
				t.Fatal(err)
			}
			if l.TypeCode != layers.CreateICMPv4TypeCode(e.Type, e.Code) || l.Id != 0 || uint32(l.Seq) != e.MTU {
				t.Errorf("%+v: gopacket reads %+v", e, l)
			}
			if string(l.Payload) != string(pkt[:len(l.Payload)]) {
				t.Error("the quote is not the packet")
			}
			if naiveSum(ip.Payload) != 0xffff {
				t.Error("checksum wrong")
			}
		}
	}
}

func TestICMP6Error(t *testing.T) {
	for _, e := range []ICMPError{
		{Type: ICMP6TooBig, MTU: 1456},
		{Type: ICMP6TimeExceeded, Code: ICMP6CodeHopLimit},
		{Type: ICMP6Unreachable, Code: ICMP6CodeNoRoute},
		{Type: ICMP6Unreachable, Code: ICMP6CodeAdmin},
	} {
		for _, payload := range []int{1, 8, 1191, 1192, 1193, 1460} {
			pkt := make6(ProtoUDP, pattern(payload))
			dst := pattern(MaxICMP6Error + 10)
			from := [16]byte{0xfd, 15: 9}
			n := AppendICMP6Error(dst, &from, e, pkt)
			if want := min(IPv6Len+ICMPLen+len(pkt), 1280); n != want {
				t.Fatalf("%+v about %d bytes: length %d, want %d", e, len(pkt), n, want)
			}
			p := gopacket.NewPacket(dst[:n], layers.LayerTypeIPv6, gopacket.Default)
			ip, _ := p.NetworkLayer().(*layers.IPv6)
			l, _ := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
			if l == nil || string(ip.SrcIP) != string(from[:]) || string(ip.DstIP) != string(src6[:]) {
				t.Fatalf("gopacket reads %v", p)
			}
			if l.TypeCode != layers.CreateICMPv6TypeCode(e.Type, e.Code) || binary.BigEndian.Uint32(l.Payload) != e.MTU {
				t.Errorf("%+v: gopacket reads %+v", e, l)
			}
			if string(l.Payload[4:]) != string(pkt[:len(l.Payload)-4]) {
				t.Error("the quote is not the packet")
			}
			if _, f := ParseICMPError6(dst, dst[IPv6Len:n]); f != OK {
				t.Errorf("read back: %q", f)
			}
		}
	}
}

// TestICMPErrorRoom gives less room than the longest error needs.
func TestICMPErrorRoom(t *testing.T) {
	e := ICMPError{Type: ICMP4TimeExceeded}
	pkt := make4(ProtoUDP, []byte{1, 1, 1, 1}, pattern(100))
	for room, want := range map[int]int{0: 0, 20: 0, 59: 0, 60: 60, 100: 100, 152: 152, 2000: 152} {
		if got := AppendICMP4Error(make([]byte, room), 1, e, pkt); got != want {
			t.Errorf("ipv4, room %d: got %d, want %d", room, got, want)
		}
	}
	pkt = make6(ProtoUDP, pattern(100))
	for room, want := range map[int]int{0: 0, 95: 0, 96: 96, 188: 188, 2000: 188} {
		if got := AppendICMP6Error(make([]byte, room), &src6, e, pkt); got != want {
			t.Errorf("ipv6, room %d: got %d, want %d", room, got, want)
		}
	}
}

func TestMayError4(t *testing.T) {
	addr := func(b []byte, at int, s string) {
		a := netip.MustParseAddr(s).As4()
		copy(b[at:], a[:])
	}
	icmp := func(kind byte) []byte { return make4(ProtoICMP, nil, []byte{kind, 0, 0, 0, 0, 0, 0, 0}) }
	from := func(s string) []byte { return edit(plain4, func(b []byte) { addr(b, IPv4OffSrc, s) }) }
	to := func(s string) []byte { return edit(plain4, func(b []byte) { addr(b, IPv4OffDst, s) }) }
	for _, c := range []struct {
		name string
		pkt  []byte
		want bool
	}{
		{"udp", plain4, true},
		{"first fragment", frag4(IPv4MF, 8), true},
		{"later fragment", frag4(IPv4MF|1, 8), false},
		{"last fragment", frag4(1, 8), false},
		{"echo request", icmp(8), true},
		{"echo reply", icmp(0), true},
		{"timestamp", icmp(13), true},
		{"unreachable", icmp(3), false},
		{"source quench", icmp(4), false},
		{"redirect", icmp(5), false},
		{"time exceeded", icmp(11), false},
		{"parameter problem", icmp(12), false},
		{"icmp without a type", make4(ProtoICMP, nil, nil), false},
		{"unreachable behind options", make4(ProtoICMP, []byte{1, 1, 1, 1}, []byte{3, 0, 0, 0}), false},
		{"from 0.0.0.0", from("0.0.0.0"), false},
		{"from this network", from("0.1.2.3"), false},
		{"from loopback", from("127.0.0.1"), false},
		{"from multicast", from("224.0.0.1"), false},
		{"from class e", from("240.0.0.1"), false},
		{"from broadcast", from("255.255.255.255"), false},
		{"from the last host address", from("223.255.255.254"), true},
		{"to multicast", to("239.1.1.1"), false},
		{"to broadcast", to("255.255.255.255"), false},
	} {
		if got := MayError4(c.pkt); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestMayError6(t *testing.T) {
	addr := func(at int, s string) []byte {
		return edit(plain6, func(b []byte) {
			a := netip.MustParseAddr(s).As16()
			copy(b[at:], a[:])
		})
	}
	icmp := func(kind byte) []byte { return make6(ProtoICMPv6, []byte{kind, 0, 0, 0, 0, 0, 0, 0}) }
	for _, c := range []struct {
		name string
		pkt  []byte
		want bool
	}{
		{"udp", plain6, true},
		{"gre behind options", make6(NextDestination, join(ext(ProtoGRE), pattern(8))), true},
		{"echo request", icmp(128), true},
		{"packet too big", icmp(2), false},
		{"unknown error", icmp(127), false},
		{"redirect", icmp(137), false},
		{"neighbour solicitation", icmp(135), true},
		{"error behind options", make6(NextDestination, join(ext(ProtoICMPv6), []byte{1, 0, 0, 0, 0, 0, 0, 0})), false},
		{"later fragment of udp", make6(NextFragment, join(fragHeader(ProtoUDP, 8), pattern(8))), true},
		{"later fragment of icmp", make6(NextFragment, join(fragHeader(ProtoICMPv6, 8), pattern(8))), false},
		{"malformed chain", make6(NextDestination, []byte{0}), false},
		{"no room for the type", make6(NextDestination, ext(ProtoICMPv6)), false},
		{"from ::", addr(IPv6OffSrc, "::"), false},
		{"from ::1", addr(IPv6OffSrc, "::1"), false},
		{"from ::2", addr(IPv6OffSrc, "::2"), true},
		{"from multicast", addr(IPv6OffSrc, "ff02::1"), false},
		{"to multicast", addr(IPv6OffDst, "ff0e::1"), false},
	} {
		if got := MayError6(c.pkt); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestEchoReply4(t *testing.T) {
	for _, opts := range [][]byte{nil, {148, 4, 0, 0}} {
		for ttl := range 256 {
			pkt := make4(ProtoICMP, opts, icmp4(ICMP4Echo, 0, pattern(ttl)))
			pkt[IPv4OffTTL], pkt[IPv4OffTOS] = byte(ttl), 0x28
			fix4(pkt)
			if f := EchoReply4(pkt); f != OK {
				t.Fatal(f)
			}
			want := make4(ProtoICMP, opts, icmp4(ICMP4EchoReply, 0, pattern(ttl)))
			binary.BigEndian.PutUint32(want[IPv4OffSrc:], dst4)
			binary.BigEndian.PutUint32(want[IPv4OffDst:], src4)
			want[IPv4OffTOS] = 0x28
			fix4(want)
			if string(pkt) != string(want) {
				t.Fatalf("ttl %d: got % x, want % x", ttl, pkt, want)
			}
		}
	}
}

func TestEchoReply6(t *testing.T) {
	for n := range 256 {
		pkt := make6(ProtoICMPv6, icmp6(ICMP6Echo, 0, pattern(n)))
		pkt[IPv6OffHopLimit] = byte(n)
		if f := EchoReply6(pkt); f != OK {
			t.Fatal(f)
		}
		want := make6(ProtoICMPv6, icmp6(ICMP6EchoReply, 0, pattern(n)))
		copy(want[IPv6OffSrc:], dst6[:])
		copy(want[IPv6OffDst:], src6[:])
		if string(pkt) != string(want) {
			t.Fatalf("%d bytes: got % x, want % x", n, pkt, want)
		}
	}
}

// FuzzICMPError writes errors about any packet that passes the checks and reads
// them back; and it reads any bytes as an error.
func FuzzICMPError(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, room uint16) {
		ParseICMPError4(b)
		ParseICMPError6(plain6, b)
		dst := make([]byte, room%2048)
		if _, total, fault := CheckIPv4(b); fault == OK {
			e := ICMPError{Type: ICMP4Unreachable, Code: ICMP4CodeFragNeeded, MTU: 1400}
			n := AppendICMP4Error(dst, dst4, e, b[:total])
			roundTrip(t, n, MaxICMP4Error, IPv4Len, dst, b[:total], func(icmp []byte) (ICMPReport, Fault) {
				if _, got, fault := CheckIPv4(dst[:n]); fault != OK || got != n {
					t.Fatalf("%d bytes: %d, %q", n, got, fault)
				}
				if MayError4(dst[:n]) {
					t.Fatal("an error about an error would be sent")
				}
				return ParseICMPError4(icmp)
			})
			EchoReply4(b[:total])
		}
		if total, fault := CheckIPv6(b); fault == OK {
			n := AppendICMP6Error(dst, &dst6, ICMPError{Type: ICMP6TooBig, MTU: 1400}, b[:total])
			roundTrip(t, n, MaxICMP6Error, IPv6Len, dst, b[:total], func(icmp []byte) (ICMPReport, Fault) {
				if got, fault := CheckIPv6(dst[:n]); fault != OK || got != n {
					t.Fatalf("%d bytes: %d, %q", n, got, fault)
				}
				if MayError6(dst[:n]) {
					t.Fatal("an error about an error would be sent")
				}
				return ParseICMPError6(dst, icmp)
			})
			EchoReply6(b[:total])
		}
	})
}

// roundTrip judges an error of n bytes in dst about pkt, behind a header of hdr
// bytes, by what parse reads from it.
func roundTrip(t *testing.T, n, limit, hdr int, dst, pkt []byte, parse func([]byte) (ICMPReport, Fault)) {
	t.Helper()
	if n == 0 {
		return
	}
	if want := min(hdr+ICMPLen+len(pkt), limit, len(dst)); n != want {
		t.Fatalf("%d bytes about %d in %d, want %d", n, len(pkt), len(dst), want)
	}
	r, fault := parse(dst[hdr:n])
	if fault == ICMPQuoteMalformed || fault == ICMPQuoteShort {
		return // an extension header chain that is bad, or does not fit the quote
	}
	if fault != OK || r.MTU != 1400 || r.Total != len(pkt) {
		t.Fatalf("%q, %+v", fault, r)
	}
	if q := dst[hdr+ICMPLen : n]; string(q) != string(pkt[:len(q)]) || len(r.Payload) > len(q) {
		t.Fatal("the quote is not the packet")
	}
}
