package wire

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// greKinds are the eight combinations of optional fields.
func greKinds() (kinds []uint16) {
	for i := range uint16(8) {
		kinds = append(kinds, i>>2&1*GREFlagChecksum|i>>1&1*GREFlagKey|i&1*GREFlagSequence)
	}
	return kinds
}

func TestGREGolden(t *testing.T) {
	payload := unhex(t, "4500 001c")
	for _, c := range []struct {
		flags uint16
		want  string
	}{
		{0, "0000 0800"},
		{GREFlagKey, "2000 0800 0000002a"},
		{GREFlagSequence, "1000 0800 00000007"},
		{GREFlagChecksum, "8000 0800 32e3 0000"}, // ~(8000 + 0800 + 4500 + 001c)
		{GREFlagChecksum | GREFlagKey | GREFlagSequence, "b000 0800 02b2 0000 0000002a 00000007"},
	} {
		b := make([]byte, GREMaxLen)
		n := PutGRE(b, EtherTypeIPv4, c.flags, 42, 7)
		b = append(b[:n], payload...)
		if c.flags&GREFlagChecksum != 0 {
			SetGREChecksum(b)
		}
		if want := join(unhex(t, c.want), payload); string(b) != string(want) {
			t.Errorf("flags %#04x: got % x, want % x", c.flags, b, want)
		}
	}
}

// TestGRERoundTrip writes, reads back, and lets gopacket read.
func TestGRERoundTrip(t *testing.T) {
	for _, flags := range greKinds() {
		want := GRE{Proto: EtherTypeIPv6}
		want.HasChecksum, want.HasKey, want.HasSeq = flags&0x8000 != 0, flags&0x2000 != 0, flags&0x1000 != 0
		if want.HasKey {
			want.Key = 0xfeedface
		}
		if want.HasSeq {
			want.Seq = 0xfffffffe
		}
		b := pattern(80) // what was in the frame before must not show
		want.Len = PutGRE(b, EtherTypeIPv6, flags, 0xfeedface, 0xfffffffe)
		if want.HasChecksum {
			SetGREChecksum(b)
			if !GREChecksumOK(b) || naiveSum(b) != 0xffff {
				t.Errorf("flags %#04x: checksum wrong", flags)
			}
			b[70] ^= 4
			if GREChecksumOK(b) {
				t.Errorf("flags %#04x: a changed payload passes the checksum", flags)
			}
		}
		if n := GRELen(want.HasKey, want.HasChecksum, want.HasSeq); n != want.Len {
			t.Errorf("flags %#04x: GRELen is %d, PutGRE wrote %d", flags, n, want.Len)
		}
		got, f := ParseGRE(b)
		if f != OK {
			t.Fatal(f)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("flags %#04x: %s", flags, d)
		}
		if d := cmp.Diff(want, gopacketGRE(t, b)); d != "" {
			t.Errorf("flags %#04x, gopacket: %s", flags, d)
		}
	}
}

// gopacketGRE is gopacket's reading of a header that ParseGRE has accepted, with
// the bits cleared that RFC 2784 has ignored: gopacket takes bit 8 for the
// acknowledgment of version 1 in version 0 too.
func gopacketGRE(t testing.TB, b []byte) GRE {
	t.Helper()
	b = edit(b, func(b []byte) { b[0], b[1] = b[0]&^0x03, b[1]&^0xf8 })
	var l layers.GRE
	if err := l.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		t.Fatalf("gopacket: %v", err)
	}
	g := GRE{Proto: uint16(l.Protocol), HasChecksum: l.ChecksumPresent, Len: len(l.Contents)}
	g.HasKey, g.HasSeq, g.Key, g.Seq = l.KeyPresent, l.SeqPresent, l.Key, l.Seq
	return g
}

// TestGREEveryFlagWord goes through all 65536 first words: RFC 2784 section 2.3
// says which bits refuse a packet and which are ignored.
func TestGREEveryFlagWord(t *testing.T) {
	for word := range 1 << 16 {
		b := make([]byte, GREMaxLen)
		binary.BigEndian.PutUint16(b, uint16(word))
		// Bits count from the left, bit 0 is the upper one.
		bit := func(n int) bool { return word>>(15-n)&1 == 1 }
		refused := bit(1) || bit(4) || bit(5) || bit(13) || bit(14) || bit(15)
		g, f := ParseGRE(b)
		if refused != (f != OK) {
			t.Fatalf("%#04x: %q", word, f)
		}
		if f == OK && (g.HasChecksum != bit(0) || g.HasKey != bit(2) || g.HasSeq != bit(3)) {
			t.Fatalf("%#04x: %+v", word, g)
		}
	}
}

func FuzzGRE(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		g, fault := ParseGRE(b)
		if fault != OK {
			return
		}
		if g.Len > len(b) || g.Len != GRELen(g.HasKey, g.HasChecksum, g.HasSeq) {
			t.Fatalf("length %d of %d: %+v", g.Len, len(b), g)
		}
		if d := cmp.Diff(gopacketGRE(t, b), g); d != "" {
			t.Fatal(d)
		}
		if g.HasChecksum && GREChecksumOK(b) != (naiveSum(b) == 0xffff) {
			t.Fatal("checksum judged otherwise than by the oracle")
		}
		// Written again it is the same but for the bits that are ignored and the
		// checksum with Reserved1.
		flags := binary.BigEndian.Uint16(b) & greFields
		again := make([]byte, g.Len)
		PutGRE(again, g.Proto, flags, g.Key, g.Seq)
		want := edit(b[:g.Len], func(b []byte) {
			binary.BigEndian.PutUint16(b, flags)
			if g.HasChecksum {
				clear(b[4:8])
			}
		})
		if string(again) != string(want) {
			t.Fatalf("got % x, want % x", again, want)
		}
	})
}
