package suite

import (
	"crypto/hmac"
	"crypto/sha1" // HMAC-SHA-1 of old routers
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
)

// A PRF is a pseudorandom function: HMAC with a hash.
type PRF uint16

func (p PRF) hash() func() hash.Hash {
	switch p {
	case PRFHMACSHA1:
		return sha1.New
	case PRFHMACSHA384:
		return sha512.New384
	case PRFHMACSHA512:
		return sha512.New
	}
	return sha256.New
}

// Size is the length of its output, and of its keys, in bytes.
func (p PRF) Size() int {
	switch p {
	case PRFHMACSHA1:
		return 20
	case PRFHMACSHA384:
		return 48
	case PRFHMACSHA512:
		return 64
	}
	return 32
}

// Sum is prf(key, data), of all data one after the other.
func (p PRF) Sum(key []byte, data ...[]byte) []byte {
	m := hmac.New(p.hash(), key)
	for _, d := range data {
		m.Write(d)
	}
	return m.Sum(nil)
}

// Plus is prf+(key, seed), n bytes of it (RFC 7296, section 2.13).
func (p PRF) Plus(key, seed []byte, n int) []byte {
	m := hmac.New(p.hash(), key)
	out := make([]byte, 0, n+p.Size())
	var last []byte
	for i := byte(1); len(out) < n; i++ {
		m.Reset()
		m.Write(last)
		m.Write(seed)
		m.Write([]byte{i})
		at := len(out)
		out = m.Sum(out)
		last = out[at:]
	}
	clear(out[n:])
	return out[:n:n]
}

// Keys are the keys of an IKE SA (RFC 7296, section 2.14): SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr. They are not printed.
type Keys struct{ D, Ai, Ar, Ei, Er, Pi, Pr []byte }

// Format hides the keys.
func (k Keys) Format(f fmt.State, _ rune) { fmt.Fprint(f, "keys of an IKE SA") }

// Wipe ends the keys.
func (k *Keys) Wipe() {
	for _, b := range [][]byte{k.D, k.Ai, k.Ar, k.Ei, k.Er, k.Pi, k.Pr} {
		clear(b)
	}
}

// Seed is SKEYSEED of a new IKE SA: prf(Ni | Nr, secret).
func Seed(prf PRF, secret, ni, nr []byte) []byte {
	return prf.Sum(slices.Concat(ni, nr), secret)
}

// NextSeed is SKEYSEED after an additional key exchange, or of an IKE SA in place of one with SK_d: prf(SK_d, secret | Ni | Nr | more),
// with the old PRF (RFC 7296, section 2.18; RFC 9370, sections 2.2.2 and 2.2.4).
func NextSeed(prf PRF, d, secret, ni, nr []byte, more ...[]byte) []byte {
	return prf.Sum(d, append([][]byte{secret, ni, nr}, more...)...)
}

// Keys derives the keys of an IKE SA. The seed is wiped.
func (s IKE) Keys(seed, ni, nr []byte, spii, spir uint64) *Keys {
	in := slices.Concat(ni, nr)
	in = binary.BigEndian.AppendUint64(in, spii)
	in = binary.BigEndian.AppendUint64(in, spir)
	p, a, e := s.PRF.Size(), macs[s.Integ].key, keyLen(s.Encr, s.KeyBits)
	all := s.PRF.Plus(seed, in, 3*p+2*a+2*e)
	clear(seed)
	cut := func(n int) []byte {
		out := all[:n:n]
		all = all[n:]
		return out
	}
	return &Keys{D: cut(p), Ai: cut(a), Ar: cut(a), Ei: cut(e), Er: cut(e), Pi: cut(p), Pr: cut(p)}
}

// Keys derives the keys of a pair of child SAs: of what the exchange's initiator sends, and of what its responder sends, each in the
// order of package esp. KEYMAT = prf+(SK_d, [secret |] Ni | Nr [| more]) (RFC 7296, section 2.17; RFC 9370, section 2.2.4).
func (s ESP) Keys(prf PRF, d, secret, ni, nr []byte, more ...[]byte) (initiator, responder []byte) {
	n := s.Suite.KeySize()
	seed := slices.Concat(append([][]byte{secret, ni, nr}, more...)...)
	all := prf.Plus(d, seed, 2*n)
	clear(seed)
	return all[:n:n], all[n:]
}
