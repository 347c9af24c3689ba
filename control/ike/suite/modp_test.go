package suite

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"math/big"
	"testing"
)

// pi returns pi * 2^bits rounded down, by Machin's formula: pi = 16 arctan(1/5) - 4 arctan(1/239).
func pi(bits uint) *big.Int {
	const guard = 64
	one := new(big.Int).Lsh(big.NewInt(1), bits+guard)
	arctan := func(x int64) *big.Int { // of 1/x
		term := new(big.Int).Div(one, big.NewInt(x))
		sum := new(big.Int).Set(term)
		for n := int64(3); term.Sign() != 0; n += 2 {
			term.Div(term, big.NewInt(-x*x))
			sum.Add(sum, new(big.Int).Quo(term, big.NewInt(n)))
		}
		return sum
	}
	sum := new(big.Int).Mul(big.NewInt(16), arctan(5))
	sum.Sub(sum, new(big.Int).Mul(big.NewInt(4), arctan(239)))
	return sum.Rsh(sum, guard)
}

// TestPrimes computes the primes of RFC 3526 by its own formula, 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + k), and shows that they
// are safe: (p-1)/2 is prime too. 2 then is a square, whose powers are the larger subgroup.
func TestPrimes(t *testing.T) {
	for _, g := range []struct {
		method uint16
		text   string
		bits   uint
		k      int64
	}{
		{MODP1536, prime1536, 1536, 741804}, {MODP2048, prime2048, 2048, 124476}, {MODP3072, prime3072, 3072, 1690314}, {MODP4096, prime4096, 4096, 240904},
	} {
		want := pi(g.bits - 130)
		want.Add(want, big.NewInt(g.k)).Lsh(want, 64)
		want.Add(want, new(big.Int).Lsh(big.NewInt(1), g.bits))
		want.Sub(want, new(big.Int).Lsh(big.NewInt(1), g.bits-64)).Sub(want, big.NewInt(1))
		b, err := hex.DecodeString(g.text)
		if err != nil || new(big.Int).SetBytes(b).Cmp(want) != 0 {
			t.Errorf("%s is not the prime of RFC 3526: %v", MethodName(g.method), err)
			continue
		}
		half := new(big.Int).Rsh(want, 1)
		if !want.ProbablyPrime(2) || !half.ProbablyPrime(2) {
			t.Errorf("%s is not a safe prime", MethodName(g.method))
		}
		if new(big.Int).Exp(big.NewInt(2), half, want).Cmp(big.NewInt(1)) != 0 {
			t.Errorf("%s: 2 is not of the larger subgroup", MethodName(g.method))
		}
		if size := modps[g.method]().size; size != int(g.bits/8) {
			t.Errorf("%s has %d bytes", MethodName(g.method), size)
		}
	}
}

// TestMODPAgainstBig compares public values and secrets with math/big.
func TestMODPAgainstBig(t *testing.T) {
	for method, make := range modps {
		g := make()
		p := modulusOf(method)
		for range 3 {
			private, public, err := g.generate()
			if err != nil {
				t.Fatal(err)
			}
			x := new(big.Int).SetBytes(private)
			if want := new(big.Int).Exp(big.NewInt(2), x, p).FillBytes(bytesOf(g.size)); !bytes.Equal(public, want) {
				t.Errorf("%s: public value %x, want %x", MethodName(method), public, want)
			}
			y, err := rand.Int(rand.Reader, p)
			if err != nil {
				t.Fatal(err)
			}
			secret, err := g.shared(private, y.FillBytes(bytesOf(g.size)))
			if want := new(big.Int).Exp(y, x, p).FillBytes(bytesOf(g.size)); err != nil || !bytes.Equal(secret, want) {
				t.Errorf("%s: secret %x, want %x: %v", MethodName(method), secret, want, err)
			}
		}
		// A secret with leading zeros stays as long as the prime (RFC 7296, section 2.14).
		one := []byte{1}
		if secret, err := g.shared(one, big.NewInt(2).FillBytes(bytesOf(g.size))); err != nil || len(secret) != g.size || secret[g.size-1] != 2 {
			t.Errorf("%s: 2^1 is %x, %v", MethodName(method), secret, err)
		}
	}
}

func bytesOf(n int) []byte { return make([]byte, n) }

func modulusOf(method uint16) *big.Int {
	text := map[uint16]string{MODP1536: prime1536, MODP2048: prime2048, MODP3072: prime3072, MODP4096: prime4096}[method]
	p, _ := new(big.Int).SetString(text, 16)
	return p
}

// TestMODPEdges: 0, 1 and p-1, from which nothing secret comes, and what is not below p are refused (RFC 6989, section 2.1).
func TestMODPEdges(t *testing.T) {
	for _, method := range []uint16{MODP1536, MODP2048, MODP3072, MODP4096} {
		p, size := modulusOf(method), modps[method]().size
		all := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*size)), big.NewInt(1))
		for name, c := range map[string]struct {
			y    *big.Int
			good bool
		}{
			"0": {big.NewInt(0), false}, "1": {big.NewInt(1), false}, "2": {big.NewInt(2), true},
			"p-2": {new(big.Int).Sub(p, big.NewInt(2)), true}, "p-1": {new(big.Int).Sub(p, big.NewInt(1)), false}, "p": {p, false},
			"p+1": {new(big.Int).Add(p, big.NewInt(1)), false}, "all ones": {all, false},
		} {
			_, secret, err := Respond(method, c.y.FillBytes(make([]byte, size)))
			if (err == nil) != c.good || c.good && len(secret) != size {
				t.Errorf("%s: %s: %v", MethodName(method), name, err)
			}
		}
	}
}
