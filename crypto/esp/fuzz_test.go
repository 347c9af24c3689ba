package esp

import (
	"bytes"
	"testing"
)

// FuzzOpen gives an association of each suite a packet that nobody sealed, alone and after one that is authentic: nothing
// panics, nothing is accepted, and the window stays where the authentic one left it. NULL with HMAC is where the input
// gets furthest: of its packets, half are given the check value that they need, and what is inside is judged.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("\x00\x00\x10\x01\x00\x00\x00\x02ivivivivtexttext0123456789abcdef"))
	f.Add(bytes.Repeat([]byte{0xff}, 80))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newBed(t)
		if len(in) < headerLen || len(in) > 1600 {
			return // the pipeline looks at the SPI before an association is found
		}
		for s := AES128GCM16; s < suiteEnd; s++ {
			for _, esn := range []bool{false, true} {
				out, sa := b.pair(s, esn, 64)
				if _, _, v := b.open(sa, b.seal(out, make([]byte, 40), NextIPv4)); v != OK {
					t.Fatal(v)
				}
				top := sa.window.top
				switch _, _, v := b.open(sa, bytes.Clone(in)); v {
				case Short, Left, Replayed, Forged:
				default:
					t.Fatalf("%v, esn %v: a packet that nobody sealed is %v", s, esn, v)
				}
				if sa.window.top != top {
					t.Fatalf("%v, esn %v: it moved the window", s, esn)
				}
			}
		}
		_, sa := b.pair(NullSHA256, false, 64)
		packet := append(bytes.Clone(in), make([]byte, 16)...)
		sa.single.seal(packet, 0, false)
		text, next, v := b.open(sa, packet)
		if v == OK && (next == NoNextHeader || len(text)+trailerLen > len(in)-headerLen) {
			t.Fatalf("%d bytes of text and next header %d out of %d", len(text), next, len(in))
		}
	})
}
