package wire

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func TestCheckIPv4(t *testing.T) {
	for _, c := range []struct {
		name        string
		b           []byte
		hlen, total int
	}{
		{"plain", plain4, 20, 36},
		{"with Ethernet padding", join(plain4, make([]byte, 24)), 20, 36},
		{"no payload", make4(ProtoUDP, nil, nil), 20, 20},
		{"options", opts4(1, 1, 1, 1), 24, 32},
		{"40 bytes of options", opts4(join([]byte{7, 39, 4}, make([]byte, 36))...), 60, 68},
	} {
		t.Run(c.name, func(t *testing.T) {
			hlen, total, f := CheckIPv4(c.b)
			if f != OK || hlen != c.hlen || total != c.total {
				t.Errorf("got %d, %d, %q; want %d, %d", hlen, total, f, c.hlen, c.total)
			}
			if f := CheckIPv4Options(c.b[:hlen]); f != OK {
				t.Errorf("options: %q", f)
			}
		})
	}
}

// TestCheckIPv4EveryBit flips each bit of a good header: the checksum, or a check
// before it, must see it.
func TestCheckIPv4EveryBit(t *testing.T) {
	for _, good := range [][]byte{plain4, opts4(7, 7, 4, 1, 2, 3, 4, 1)} {
		hlen, _, _ := CheckIPv4(good)
		for bit := range hlen * 8 {
			b := edit(good, func(b []byte) { b[bit/8] ^= 1 << (bit % 8) })
			if _, _, f := CheckIPv4(b); f == OK {
				t.Errorf("bit %d of byte %d changed unnoticed", bit%8, bit/8)
			}
		}
	}
}

func TestGoodIPv4Options(t *testing.T) {
	for _, opts := range [][]byte{
		{0, 7, 1, 1},                // nothing counts behind the end of the list
		{148, 4, 0, 0},              // router alert (RFC 2113)
		{7, 3, 4, 0},                // record route without room left
		{7, 7, 8, 1, 2, 3, 4, 1},    // record route that is full
		{68, 8, 9, 0, 1, 2, 3, 4},   // timestamp that is full
		{68, 12, 5, 1, 1, 2, 3, 4},  // cut by the padding below
		{130, 11, 0, 0, 0, 0, 0, 0}, // security (RFC 1108), cut likewise
	} {
		n := 0
		if len(opts) > 1 {
			n = int(opts[1])
		}
		b := make4(ProtoUDP, join(opts, make([]byte, max(0, n-len(opts)))), nil)
		if f := check4(b); f != OK {
			t.Errorf("% d: %q", opts, f)
		}
	}
}

func TestIPv4Fragment(t *testing.T) {
	type fields struct {
		ID       uint16
		Off      int
		More, DF bool
	}
	for _, c := range []struct {
		word     uint16
		want     fields
		fragment bool
	}{
		{0, fields{ID: 0x1234}, false},
		{IPv4DF, fields{ID: 0x1234, DF: true}, false},
		{IPv4MF, fields{ID: 0x1234, More: true}, true},
		{185, fields{ID: 0x1234, Off: 1480}, true},
		{IPv4DF | IPv4MF | 0x1fff, fields{ID: 0x1234, Off: 65528, More: true, DF: true}, true},
	} {
		b := frag4(c.word, 8)
		var got fields
		got.ID, got.Off, got.More, got.DF = IPv4Fragment(b)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%#04x: %s", c.word, d)
		}
		if IPv4IsFragment(b) != c.fragment {
			t.Errorf("%#04x: IPv4IsFragment is %v", c.word, !c.fragment)
		}
	}
	if !IPv4IsFragment(frag4(IPv4Reserved, 0)) {
		t.Error("the reserved flag must lead to CheckIPv4Fragment")
	}
	// The last byte that a datagram can have.
	if f := CheckIPv4Fragment(frag4(8189, 3), 20, 23); f != OK {
		t.Errorf("a fragment that ends at 65535: %q", f)
	}
}

func TestPutIPv4(t *testing.T) {
	h := IPv4Header{Src: src4, Dst: dst4, Total: 1400, ID: 7, Frag: IPv4DF, TOS: 0xb8, TTL: 64, Proto: ProtoGRE}
	b := make([]byte, 1400)
	PutIPv4(b, h)
	ip := decode4(t, b)
	want := &layers.IPv4{Version: 4, IHL: 5, TOS: 0xb8, Length: 1400, Id: 7, Flags: layers.IPv4DontFragment,
		TTL: 64, Protocol: layers.IPProtocolGRE, Checksum: ip.Checksum,
		SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{198, 51, 100, 2}}
	want.BaseLayer = ip.BaseLayer
	if d := cmp.Diff(want, ip); d != "" {
		t.Error(d)
	}
	if _, _, f := CheckIPv4(b); f != OK {
		t.Error(f)
	}
}

// decode4 is gopacket's reading of b.
func decode4(t testing.TB, b []byte) *layers.IPv4 {
	t.Helper()
	var ip layers.IPv4
	if err := ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		t.Fatalf("gopacket: %v", err)
	}
	return &ip
}

// slowCheckIPv4 is the oracle of CheckIPv4: RFC 791 field by field.
func slowCheckIPv4(b []byte) (ok bool, hlen, total int) {
	if len(b) < 20 || b[0]/16 != 4 {
		return
	}
	hlen, total = int(b[0]%16)*4, int(b[2])*256+int(b[3])
	ok = hlen >= 20 && hlen <= total && total <= len(b) && naiveSum(b[:hlen]) == 0xffff
	return
}

func FuzzIPv4(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 60 && b[1]&1 != 0 {
			fix4(b) // else nearly every input ends at the checksum
		}
		hlen, total, fault := CheckIPv4(b)
		ok, wantLen, wantTotal := slowCheckIPv4(b)
		if ok != (fault == OK) || ok && (hlen != wantLen || total != wantTotal) {
			t.Fatalf("got %d, %d, %q; the oracle %v, %d, %d", hlen, total, fault, ok, wantLen, wantTotal)
		}
		if !ok {
			return
		}
		word := binary.BigEndian.Uint16(b[6:])
		id, off, more, df := IPv4Fragment(b)
		if id != binary.BigEndian.Uint16(b[4:]) || off != int(word%8192)*8 || more != (word>>13&1 == 1) || df != (word>>14&1 == 1) {
			t.Fatalf("word %#04x: id %d, offset %d, more %v, df %v", word, id, off, more, df)
		}
		if CheckIPv4Fragment(b, hlen, total) == OK && IPv4IsFragment(b) {
			if off+total-hlen == 0 || hlen+off+total-hlen > 65535 || more && (total-hlen)%8 != 0 {
				t.Fatal("a fragment that no datagram can be cut into")
			}
		}
		// gopacket refuses options of length 2, which RFC 791 allows.
		if hlen == IPv4Len || CheckIPv4Options(b[:hlen]) == OK && !hasShortOption(b[IPv4Len:hlen]) {
			ip := decode4(t, b)
			if int(ip.IHL)*4 != hlen || int(ip.Length) != total || ip.Id != id || int(ip.FragOffset)*8 != off {
				t.Fatalf("gopacket reads %+v", ip)
			}
		}
		if b[8] > 1 {
			b = b[:hlen:hlen]
			DecTTL4(b)
			if naiveSum(b) != 0xffff {
				t.Fatal("checksum wrong after DecTTL4")
			}
		}
	})
}

// hasShortOption reports whether a list that is well-formed holds an option of
// two bytes.
func hasShortOption(opts []byte) bool {
	for len(opts) > 0 && opts[0] != ipv4OptEnd {
		n, _ := ipv4OptLen(opts)
		if n == 2 {
			return true
		}
		opts = opts[n:]
	}
	return false
}
