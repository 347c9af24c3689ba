package aesgcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// implementations are the two ways, each of which every machine must be able to test if it has it.
func implementations(t testing.TB, f func(t *testing.T, v *Vault)) {
	for _, portable := range []bool{false, true} {
		name := "kernels"
		if portable {
			name = "portable"
		} else if !Accelerated() {
			continue
		}
		t.(*testing.T).Run(name, func(t *testing.T) {
			v := NewVault(Options{Portable: portable, Unlocked: true})
			t.Cleanup(func() {
				if err := v.Close(); err != nil {
					t.Error(err)
				}
			})
			f(t, v)
		})
	}
}

// A subject is a packet with what crypto/cipher makes of it.
type subject struct {
	key        Key
	aead       cipher.AEAD
	nonce      [SaltSize + IVSize]byte
	aad        []byte
	plain      []byte
	sealed     []byte
	room, text []byte // text is a part of room
}

// source makes subjects.
type source struct {
	t     testing.TB
	v     *Vault
	rand  *rand.Rand
	keys  []Key
	salts [][SaltSize]byte
	aead  []cipher.AEAD
}

func newSource(t testing.TB, v *Vault, seed uint64, keys int) *source {
	s := &source{t: t, v: v, rand: rand.New(rand.NewPCG(seed, 1))}
	for i := range keys {
		secret := s.bytes(16 + i%2*16)
		var salt [SaltSize]byte
		copy(salt[:], s.bytes(SaltSize))
		k, err := v.Key(secret, salt)
		if err != nil {
			t.Fatal(err)
		}
		s.keys, s.salts, s.aead = append(s.keys, k), append(s.salts, salt), append(s.aead, oracle(t, secret))
	}
	return s
}

func oracle(t testing.TB, secret []byte) cipher.AEAD {
	block, err := aes.NewCipher(secret)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

func (s *source) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rand.Uint32())
	}
	return b
}

const canary, margin = 0xA5, 80

// subject makes a packet of n bytes at an address that is align bytes after a multiple of 64.
func (s *source) subject(n, align, aad int) *subject {
	i := s.rand.IntN(len(s.keys))
	x := &subject{key: s.keys[i], aead: s.aead[i], aad: s.bytes(aad), plain: s.bytes(n)}
	copy(x.nonce[:], s.salts[i][:])
	copy(x.nonce[SaltSize:], s.bytes(IVSize))
	x.sealed = x.aead.Seal(nil, x.nonce[:], x.plain, x.aad)
	x.room = bytes.Repeat([]byte{canary}, 64+margin+n+TagSize+margin)
	at := margin + (align+128-address(x.room)%64-margin%64)%64
	x.text = x.room[at : at+n+TagSize]
	copy(x.text, x.plain)
	return x
}

// untouched reports whether nothing but the text and its tag was written.
func (x *subject) untouched() bool {
	at := address(x.text) - address(x.room)
	return bytes.Count(x.room[:at], []byte{canary}) == at && bytes.Count(x.room[at+len(x.text):], []byte{canary}) == len(x.room)-at-len(x.text)
}

func (x *subject) add(b *Burst) {
	b.Set(b.Len(), &x.key, x.text, binary.LittleEndian.Uint64(x.nonce[SaltSize:]), aadOf(x.aad))
}

func aadOf(b []byte) AAD {
	var w [MaxAAD]byte
	copy(w[:], b)
	return AAD{binary.LittleEndian.Uint64(w[:]), binary.LittleEndian.Uint64(w[8:]), uint8(len(b))}
}

// check seals and opens subjects in bursts and compares each step with crypto/cipher.
func check(t *testing.T, subjects []*subject) {
	t.Helper()
	b := new(Burst)
	for len(subjects) > 0 {
		some := subjects[:min(len(subjects), MaxBurst)]
		subjects = subjects[len(some):]
		b.Reset()
		for _, x := range some {
			x.add(b)
		}
		b.Seal()
		for _, x := range some {
			if !bytes.Equal(x.text, x.sealed) || !x.untouched() {
				n := len(x.plain)
				t.Fatalf("sealing %d bytes with %d of additional data: text right: %v, tag right: %v, surroundings untouched: %v", n, len(x.aad),
					bytes.Equal(x.text[:n], x.sealed[:n]), bytes.Equal(x.text[n:], x.sealed[n:]), x.untouched())
			}
		}
		if failed := b.Open(); failed > 0 {
			t.Fatalf("%d of %d packets were refused", failed, b.Len())
		}
		for i, x := range some {
			if b.Failed(i) || !bytes.Equal(x.text[:len(x.plain)], x.plain) || !bytes.Equal(x.text[len(x.plain):], x.sealed[len(x.plain):]) || !x.untouched() {
				t.Fatalf("opening %d bytes with %d of additional data: refused: %v, text right: %v, surroundings untouched: %v", len(x.plain), len(x.aad),
					b.Failed(i), bytes.Equal(x.text[:len(x.plain)], x.plain), x.untouched())
			}
		}
	}
}

// TestEveryLength is the comparison with crypto/cipher over every length that a packet may have, and some that are longer.
func TestEveryLength(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 1, 8)
		var subjects []*subject
		for n := range 2101 {
			for _, aad := range []int{8, 12} {
				subjects = append(subjects, s.subject(n, s.rand.IntN(64), aad))
			}
		}
		for _, n := range []int{3900, 3960, 4000, 4024, 4040, 4056, 4072, 4080, 4096, 8176, 8192, 9000, 16384, 65535, MaxText} {
			subjects = append(subjects, s.subject(n, s.rand.IntN(64), 8))
		}
		check(t, subjects)
		s.rand.Shuffle(len(subjects), func(i, j int) { subjects[i], subjects[j] = subjects[j], subjects[i] })
		check(t, subjects)
	})
}

// TestEveryAlignment: lengths around those at which the shape of the work changes, at each address modulo 64.
func TestEveryAlignment(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 2, 4)
		for align := range 64 {
			var subjects []*subject
			for _, n := range []int{0, 1, 31, 32, 33, 95, 96, 97, 160, 161, 224, 225, 288, 289, 480, 481, 545, 992, 993, 1400} {
				x := s.subject(n, align, 8+s.rand.IntN(2)*4)
				if address(x.text)%64 != align {
					t.Fatalf("at %d, want %d", address(x.text)%64, align)
				}
				subjects = append(subjects, x)
			}
			check(t, subjects)
		}
	})
}

// TestEveryOrder: each pair of tile shapes follows each other, since a kernel's work on a packet overlaps with the next.
func TestEveryOrder(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 3, 8)
		for first := 16; first <= 1600; first += 32 {
			var subjects []*subject
			for second := 16; second <= 1600; second += 64 {
				subjects = append(subjects, s.subject(first-s.rand.IntN(16), 40, 8), s.subject(second-s.rand.IntN(16), 40, 12))
			}
			check(t, subjects)
		}
	})
}

func TestEveryCount(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 4, 8)
		for count := 1; count <= MaxBurst; count++ {
			for _, n := range []int{20, 64, 130, 200, 300} {
				var subjects []*subject
				for range count {
					subjects = append(subjects, s.subject(n, 8, 8))
				}
				check(t, subjects)
			}
		}
	})
}

// TestAdditionalData: any number of bytes, though ESP has 8 or 12.
func TestAdditionalData(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 5, 2)
		var subjects []*subject
		for aad := range MaxAAD + 1 {
			for _, n := range []int{0, 1, 64, 100, 200, 1000} {
				subjects = append(subjects, s.subject(n, 0, aad))
			}
		}
		check(t, subjects)
	})
}

// TestForgeries: with any bit of text, tag, additional data or IV turned, a packet is refused, its text is wiped and
// its neighbours are not touched.
func TestForgeries(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 6, 8)
		for _, n := range []int{4, 20, 64, 100, 200, 300, 600, 1400} {
			for _, aad := range []int{8, 12} {
				bits := 8 * (n + TagSize + aad + IVSize)
				for bit := 0; bit < bits; bit += 1 + n/100 {
					s.forge(t, n, aad, bit)
				}
			}
		}
	})
}

func (s *source) forge(t *testing.T, n, aad, bit int) {
	t.Helper()
	b := new(Burst)
	forged := s.rand.IntN(7)
	var subjects []*subject
	for i := range 7 {
		x := s.subject(n, s.rand.IntN(64), aad)
		copy(x.text, x.sealed)
		where := [][]byte{x.text, x.aad, x.nonce[SaltSize:]}
		for _, p := range where {
			if at := bit; i == forged && at >= 0 && at < 8*len(p) {
				p[at/8] ^= 1 << (at % 8)
			}
			if i == forged {
				bit -= 8 * len(p)
			}
		}
		x.add(b)
		subjects = append(subjects, x)
	}
	if failed := b.Open(); failed != 1 {
		t.Fatalf("%d bytes, bit %d: %d packets were refused", n, bit, failed)
	}
	for i, x := range subjects {
		want := x.plain
		if i == forged {
			want = make([]byte, n)
		}
		if b.Failed(i) != (i == forged) || !bytes.Equal(x.text[:n], want) || !x.untouched() {
			t.Fatalf("%d bytes, bit %d, packet %d of which %d is forged: refused: %v, text right: %v", n, bit, i, forged, b.Failed(i), bytes.Equal(x.text[:n], want))
		}
	}
}

// TestRoundKeysAreWiped: each kernel, alone in a burst, leaves nothing of what it stored.
func TestRoundKeysAreWiped(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 10, 4)
		for _, n := range []int{20, 64, 130, 200, 300, 1400} {
			for range 8 { // keys of both sizes
				b := new(Burst)
				s.subject(n, 0, 8).add(b)
				for what, treat := range map[string]func(){"Seal": b.Seal, "Open": func() { b.Open() }} {
					if treat(); b.work.rounds != nil && *b.work.rounds != (spreadRounds{}) {
						t.Fatalf("%s of %d bytes leaves round keys", what, n)
					}
				}
			}
		}
	})
}

func TestNothingIsAllocated(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 7, 8)
		var subjects []*subject
		for i := range MaxBurst {
			subjects = append(subjects, s.subject(20+i*23, 0, 8))
		}
		b := new(Burst)
		if n := testing.AllocsPerRun(100, func() {
			b.Reset()
			for _, x := range subjects {
				x.add(b)
			}
			b.Seal()
			b.Open()
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestImpossiblePackets(t *testing.T) {
	v := NewVault(Options{Unlocked: true})
	defer v.Close()
	k, err := v.Key(make([]byte, 16), [SaltSize]byte{})
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(b *Burst){
		"no room for a tag":       func(b *Burst) { b.Set(b.Len(), &k, make([]byte, TagSize-1), 0, AAD{}) },
		"a text that is too long": func(b *Burst) { b.Set(b.Len(), &k, make([]byte, MaxText+TagSize+1), 0, AAD{}) },
		"too much additional data": func(b *Burst) {
			b.Set(b.Len(), &k, make([]byte, TagSize), 0, AAD{Len: MaxAAD + 1})
		},
		"a packet that was left out": func(b *Burst) {
			b.Set(b.Len()+1, &k, make([]byte, TagSize), 0, AAD{})
		},
		"a key that was wiped": func(b *Burst) {
			gone := Key{}
			b.Set(b.Len(), &gone, make([]byte, TagSize), 0, AAD{})
		},
	} {
		for _, among := range []int{0, 3, 9, MaxBurst - 2} {
			for what, treat := range map[string]func(b *Burst){"Seal": (*Burst).Seal, "Open": func(b *Burst) { b.Open() }} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, what, among), func(t *testing.T) {
					b := new(Burst)
					for i := range MaxBurst { // what was there before does not count
						b.Set(i, &k, make([]byte, TagSize), 0, AAD{})
					}
					b.Reset()
					room := make([]byte, 50)
					for range among {
						b.Set(b.Len(), &k, room, 0, AAD{})
					}
					f(b)
					defer func() {
						if p := recover(); p == nil || !strings.HasPrefix(fmt.Sprint(p), "aesgcm: ") || !bytes.Equal(room, make([]byte, 50)) {
							t.Errorf("panic %v, a neighbour: %x", p, room)
						}
					}()
					treat(b)
				})
			}
		}
	}
}

// TestPlaces: a burst ends with the last packet that was set, in whatever order, and has no more than MaxBurst.
func TestPlaces(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 12, 4)
		b := new(Burst)
		var subjects []*subject
		for range MaxBurst {
			subjects = append(subjects, s.subject(s.rand.IntN(200), 0, 8))
		}
		for _, i := range s.rand.Perm(MaxBurst) {
			x := subjects[i]
			b.Set(i, &x.key, x.text, binary.LittleEndian.Uint64(x.nonce[SaltSize:]), aadOf(x.aad))
		}
		b.Seal()
		for i, x := range subjects {
			if !bytes.Equal(x.text, x.sealed) {
				t.Errorf("packet %d is sealed wrong", i)
			}
		}
		defer func() {
			if recover() == nil || b.Len() != MaxBurst {
				t.Errorf("one packet too many was taken: %d", b.Len())
			}
		}()
		subjects[0].add(b)
	})
}

// TestCopies: a burst that was copied after its first use shares nothing with the copy.
func TestCopies(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 13, 4)
		first := new(Burst)
		s.subject(1000, 0, 8).add(first)
		first.Seal()
		second := *first
		second.Reset()
		s.subject(1000, 0, 8).add(&second)
		second.Seal()
		if first.work.rounds != nil && first.work.rounds == second.work.rounds {
			t.Error("two bursts keep their round keys in one place")
		}
	})
}
