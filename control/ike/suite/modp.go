package suite

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"

	"filippo.io/bigmod"
)

// A modp is a group of RFC 3526: the powers of 2 modulo a safe prime, in constant time.
type modp struct {
	modulus  *bigmod.Modulus
	size     int // of the prime, in bytes
	exponent int // length of private exponents, in bytes: more than twice the group's strength (RFC 3526, section 8; RFC 7919, appendix A)
}

var modps = map[uint16]func() *modp{
	MODP1536: sync.OnceValue(func() *modp { return newMODP(prime1536, 32) }),
	MODP2048: sync.OnceValue(func() *modp { return newMODP(prime2048, 32) }),
	MODP3072: sync.OnceValue(func() *modp { return newMODP(prime3072, 40) }),
	MODP4096: sync.OnceValue(func() *modp { return newMODP(prime4096, 48) }),
}

func newMODP(prime string, exponent int) *modp {
	b, err := hex.DecodeString(prime)
	if err != nil {
		panic(err)
	}
	m, err := bigmod.NewModulus(b)
	if err != nil {
		panic(err)
	}
	return &modp{m, len(b), exponent}
}

// generate makes a private exponent and the public value 2^x.
func (g *modp) generate() (private, public []byte, err error) {
	private = make([]byte, g.exponent)
	rand.Read(private)
	two, err := bigmod.NewNat().SetBytes([]byte{2}, g.modulus)
	if err != nil {
		return nil, nil, err
	}
	return private, bigmod.NewNat().Exp(two, private, g.modulus).Bytes(g.modulus), nil
}

var errPublic = errors.New("the peer's public value is not one of the group")

// shared is peer^x, as long as the prime. Values from which nothing secret can come are refused (RFC 6989, section 2.1: all but
// those between 1 and p-1).
func (g *modp) shared(private, peer []byte) ([]byte, error) {
	if len(peer) != g.size { // RFC 7296, section 3.4
		return nil, errPublic
	}
	y, err := bigmod.NewNat().SetBytes(peer, g.modulus)
	if err != nil || y.IsZero() == 1 || y.IsOne() == 1 || y.IsMinusOne(g.modulus) == 1 {
		return nil, errPublic
	}
	secret := bigmod.NewNat().Exp(y, private, g.modulus).Bytes(g.modulus)
	if bytes.Count(secret, []byte{0}) == len(secret) {
		return nil, errPublic
	}
	return secret, nil
}
