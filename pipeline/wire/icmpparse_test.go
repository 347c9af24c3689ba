package wire

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestParseICMPError4(t *testing.T) {
	outer := make4(ProtoGRE, nil, pattern(1480))
	want := ICMPReport{Type: 3, Code: 4, MTU: 1400, Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.2"),
		Proto: ProtoGRE, Total: 1500, ID: 0x1234}
	mtu := []byte{0, 0, 0x05, 0x78}
	for _, c := range []struct {
		name string
		icmp []byte
		want func(*ICMPReport)
	}{
		{"fragmentation needed", withWord(icmp4(3, 4, outer[:548]), mtu), func(r *ICMPReport) { r.Payload = outer[20:548] }},
		{"the least quote", withWord(icmp4(3, 4, outer[:28]), mtu), func(r *ICMPReport) { r.Payload = outer[20:28] }},
		{"a router before RFC 1191", icmp4(3, 4, outer[:28]), func(r *ICMPReport) { r.MTU, r.Payload = 0, outer[20:28] }},
		{"the mtu field of another code", withWord(icmp4(3, 1, outer[:28]), mtu), func(r *ICMPReport) { r.Code, r.MTU, r.Payload = 1, 0, outer[20:28] }},
		{"time exceeded", icmp4(11, 0, outer[:28]), func(r *ICMPReport) { r.Type, r.Code, r.MTU, r.Payload = 11, 0, 0, outer[20:28] }},
		{"extensions of RFC 4884", withWord(icmp4(3, 4, join(outer[:128], pattern(12))), []byte{0, 32, 0x05, 0x78}),
			func(r *ICMPReport) { r.Payload = outer[20:128] }},
		{"a length beyond the message", withWord(icmp4(3, 4, outer[:28]), []byte{0, 255, 0x05, 0x78}), func(r *ICMPReport) { r.Payload = outer[20:28] }},
		{"a whole short datagram and padding", withWord(icmp4(3, 4, join(make4(ProtoGRE, nil, pattern(4)), pattern(30))), mtu),
			func(r *ICMPReport) { r.Total, r.Payload = 24, pattern(4) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := want
			c.want(&w)
			got, f := ParseICMPError4(c.icmp)
			if f != OK {
				t.Fatal(f)
			}
			if d := cmp.Diff(w, got, compareAddr); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseICMPError6(t *testing.T) {
	outer := make6(NextDestination, join(ext(ProtoGRE), pattern(1400)))
	want := ICMPReport{Type: 2, MTU: 0x10000, Src: netip.AddrFrom16(src6), Dst: netip.AddrFrom16(dst6),
		Proto: ProtoGRE, Total: 1448}
	hdr := make6(ProtoICMPv6, nil)
	for _, c := range []struct {
		name string
		icmp []byte
		want func(*ICMPReport)
	}{
		{"packet too big", withWord(icmp6(2, 0, outer[:1232]), []byte{0, 1, 0, 0}), func(r *ICMPReport) { r.Payload = outer[48:1232] }},
		{"headers alone", withWord(icmp6(2, 0, outer[:48]), []byte{0, 1, 0, 0}), func(r *ICMPReport) { r.Payload = outer[48:48] }},
		{"extensions of RFC 4884", withWord(icmp6(1, 3, join(outer[:128], pattern(8))), []byte{16, 0, 0, 0}),
			func(r *ICMPReport) { r.Type, r.Code, r.MTU, r.Payload = 1, 3, 0, outer[48:128] }},
		{"a fragment of ours, cut", withWord(icmp6(2, 0, make6(NextFragment, join(fragHeader(ProtoGRE, 1), pattern(1001)))), []byte{0, 1, 0, 0}),
			func(r *ICMPReport) { r.ID, r.Total, r.Payload = 0xdeadbeef, 1049, pattern(1001) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := want
			c.want(&w)
			icmp := edit(c.icmp, func(b []byte) {})
			got, f := ParseICMPError6(hdr, icmp)
			if f != OK {
				t.Fatal(f)
			}
			if d := cmp.Diff(w, got, compareAddr); d != "" {
				t.Error(d)
			}
		})
	}
}

// withWord sets the second word of an ICMP message and corrects the checksum.
func withWord(icmp, word []byte) []byte {
	for i := 0; i < 4; i += 2 {
		check := uint16(icmp[2])<<8 | uint16(icmp[3])
		check = Update16(check, uint16(icmp[4+i])<<8|uint16(icmp[5+i]), uint16(word[i])<<8|uint16(word[i+1]))
		icmp[2], icmp[3] = byte(check>>8), byte(check)
	}
	copy(icmp[4:8], word)
	return icmp
}
