package aesgcm

import (
	"bytes"
	"testing"
)

// FuzzBurst makes a burst out of the input, seals it, breaks what the input says, and compares each packet with
// crypto/cipher. The input is a list of packets: two bytes of length, one of flags, a break, and the rest is text.
func FuzzBurst(f *testing.F) {
	f.Add([]byte{64, 0, 0, 0, 20, 0, 1, 9, 0, 1, 2, 3, 0xff, 5, 7, 7})
	f.Add(bytes.Repeat([]byte{120, 5, 3, 200}, 20))
	f.Add(bytes.Repeat([]byte{44, 0, 8, 1}, MaxBurst))
	v := NewVault(Options{Unlocked: true})
	f.Cleanup(func() { _ = v.Close() })
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newSource(t, v, 9, 4)
		defer func() {
			for i := range s.keys {
				v.Wipe(&s.keys[i])
			}
		}()
		var subjects []*subject
		var breaks []int
		b := new(Burst)
		for len(in) >= 4 && len(subjects) < MaxBurst {
			n, flags, at := (int(in[0])|int(in[1])<<8)%2200, in[2], int(in[3])
			in = in[4:]
			x := s.subject(n, int(flags)&63, 8+int(flags>>6&1)*4)
			copy(x.text[:n], in)
			copy(x.plain, x.text)
			x.sealed = x.aead.Seal(nil, x.nonce[:], x.plain, x.aad)
			if flags < 128 {
				at = -1
			}
			subjects, breaks = append(subjects, x), append(breaks, at)
			x.add(b)
		}
		b.Seal()
		for i, x := range subjects {
			if !bytes.Equal(x.text, x.sealed) || !x.untouched() {
				t.Fatalf("packet %d: %d bytes are sealed wrong", i, len(x.plain))
			}
			if breaks[i] >= 0 {
				x.text[breaks[i]%len(x.text)] ^= 1
			}
		}
		b.Open()
		for i, x := range subjects {
			want := x.plain
			if breaks[i] >= 0 {
				want = make([]byte, len(x.plain))
			}
			if b.Failed(i) != (breaks[i] >= 0) || !bytes.Equal(x.text[:len(want)], want) || !x.untouched() {
				t.Fatalf("packet %d: %d bytes are opened wrong", i, len(x.plain))
			}
		}
	})
}
