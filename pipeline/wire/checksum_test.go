package wire

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestSumRFC1071Example(t *testing.T) {
	// RFC 1071 section 3: the sum of these bytes is ddf2.
	b := unhex(t, "0001 f203 f4f5 f6f7")
	if got := Fold(Sum(b, 0)); got != 0xddf2 {
		t.Errorf("sum is %#04x, RFC 1071 has 0xddf2", got)
	}
	if got := Checksum(b); got != ^uint16(0xddf2) {
		t.Errorf("checksum is %#04x", got)
	}
}

func TestUpdate16RFC1624Example(t *testing.T) {
	// RFC 1624 section 4: the case that RFC 1141 gets wrong.
	if got := Update16(0xdd2f, 0x5555, 0x3285); got != 0x0000 {
		t.Errorf("got %#04x, RFC 1624 has 0x0000", got)
	}
}

// TestSumLengths covers each length through all the loops, at each alignment,
// with the values that carry most.
func TestSumLengths(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 200)
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	ones := make([]byte, 200)
	for i := range ones {
		ones[i] = 0xff
	}
	for _, data := range [][]byte{random, ones, make([]byte, 200)} {
		for at := range 9 {
			for n := 0; at+n <= len(data); n++ {
				b := data[at : at+n]
				if got, want := Fold(Sum(b, 0)), naiveSum(b); got != want {
					t.Fatalf("%d bytes from %d: got %#04x, want %#04x", n, at, got, want)
				}
			}
		}
	}
}

// TestSumPieces adds a message up in pieces, with accumulators near overflow.
func TestSumPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "b")
		cut := rapid.IntRange(0, len(b)/2).Draw(t, "cut") * 2
		acc := rapid.SampledFrom([]uint32{0, 1, 0xffff, 0x10000, 0xfffeffff, 0xffffffff}).Draw(t, "acc")
		var head [4]byte
		binary.BigEndian.PutUint32(head[:], acc)
		want := naiveSum(append(head[:], b...))
		if got := Fold(Sum(b[cut:], Sum(b[:cut], acc))); got != want {
			t.Fatalf("got %#04x, want %#04x", got, want)
		}
	})
}

// edges are the words at which ones-complement arithmetic goes wrong first.
var edges = []uint16{0, 1, 2, 0x00ff, 0x0100, 0x7fff, 0x8000, 0xfeff, 0xff00, 0xfffe, 0xffff}

// TestUpdateEdges changes a word of a message at every combination of edge
// values and compares with the checksum computed anew. The first word makes the
// message one that is not all zero, as every real header is.
func TestUpdateEdges(t *testing.T) {
	b := make([]byte, 8)
	b[0] = 0x45
	for _, rest := range edges {
		for _, old := range edges {
			for _, new := range edges {
				binary.BigEndian.PutUint16(b[2:], rest)
				binary.BigEndian.PutUint16(b[4:], old)
				check := Checksum(b)
				binary.BigEndian.PutUint16(b[4:], new)
				if got, want := Update16(check, old, new), ^naiveSum(b); got != want {
					t.Fatalf("rest %#04x, %#04x to %#04x: got %#04x, want %#04x", rest, old, new, got, want)
				}
				old32, new32 := uint32(old)<<16|uint32(rest), uint32(new)<<16|uint32(old)
				binary.BigEndian.PutUint32(b[4:], old32)
				check = Checksum(b)
				binary.BigEndian.PutUint32(b[4:], new32)
				if got, want := Update32(check, old32, new32), ^naiveSum(b); got != want {
					t.Fatalf("rest %#04x, %#08x to %#08x: got %#04x, want %#04x", rest, old32, new32, got, want)
				}
			}
		}
	}
}

// TestDecTTL4 takes every time to live with every protocol down, which meets
// every checksum carry.
func TestDecTTL4(t *testing.T) {
	for ttl := 1; ttl < 256; ttl++ {
		for proto := range 256 {
			b := make4(uint8(proto), nil, nil)
			b[IPv4OffTTL] = byte(ttl)
			// Choose the identification so that the checksum covers edge values.
			binary.BigEndian.PutUint16(b[IPv4OffID:], uint16(ttl*proto))
			fix4(b)
			DecTTL4(b)
			want := edit(b, fix4)
			if int(b[IPv4OffTTL]) != ttl-1 || string(b) != string(want) {
				t.Fatalf("ttl %d, protocol %d: got % x, want % x", ttl, proto, b, want)
			}
		}
	}
	// Each checksum value there is.
	for id := range 1 << 16 {
		b := make4(ProtoGRE, nil, nil)
		binary.BigEndian.PutUint16(b[IPv4OffID:], uint16(id))
		fix4(b)
		DecTTL4(b)
		if want := edit(b, fix4); string(b) != string(want) {
			t.Fatalf("id %#04x: got % x, want % x", id, b, want)
		}
	}
}

func TestPseudoSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src, dst := rapid.Uint32().Draw(t, "src"), rapid.Uint32().Draw(t, "dst")
		proto := rapid.Byte().Draw(t, "proto")
		length := rapid.IntRange(0, 0xffff).Draw(t, "length")
		// RFC 9293 section 3.1: source, destination, zero, protocol, length.
		var p4 [12]byte
		binary.BigEndian.PutUint32(p4[0:], src)
		binary.BigEndian.PutUint32(p4[4:], dst)
		p4[9] = proto
		binary.BigEndian.PutUint16(p4[10:], uint16(length))
		if got, want := Fold(PseudoSum4(src, dst, proto, length)), naiveSum(p4[:]); got != want {
			t.Fatalf("ipv4: got %#04x, want %#04x", got, want)
		}
		// RFC 8200 section 8.1: addresses, 32-bit length, three zero bytes, next header.
		addresses := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "addresses")
		length6 := rapid.IntRange(0, 1<<20).Draw(t, "length6")
		p6 := make([]byte, 40)
		copy(p6, addresses)
		binary.BigEndian.PutUint32(p6[32:], uint32(length6))
		p6[39] = proto
		hdr := join(make([]byte, IPv6OffSrc), addresses)
		if got, want := Fold(PseudoSum6(hdr, proto, length6)), naiveSum(p6); got != want {
			t.Fatalf("ipv6: got %#04x, want %#04x", got, want)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"20", 20}, {"64", 64}, {"1400", 1400}} {
		data := pattern(size.n)
		b.Run(size.name, func(b *testing.B) {
			b.SetBytes(int64(size.n))
			for b.Loop() {
				sinkSum += Sum(data, 0)
			}
		})
	}
}

var sinkSum uint32
