package sketch

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestHyperLogLogError: over many seeds the root of the mean square error is what theory says, with no bias, for few and for many;
// no single estimate is off by more than five times that.
func TestHyperLogLogError(t *testing.T) {
	const seeds = 40
	for p := MinPrecision; p <= MaxPrecision; p += 2 {
		sigma := 1.04 / math.Sqrt(float64(int(1)<<p))
		for _, n := range []int{1, 10, 100, 1000, 5000, 10_000, 20_000, 100_000} {
			if testing.Short() && n > 20_000 {
				continue
			}
			var sum, squares float64
			for seed := range uint64(seeds) {
				h := NewHyperLogLog(p)
				for i := range uint64(n) {
					h.Add(Hash(seed, i))
					if i%3 == 0 {
						h.Add(Hash(seed, i)) // what is there already changes nothing
					}
				}
				e := h.Estimate()/float64(n) - 1
				sum, squares = sum+e, squares+e*e
				if math.Abs(e) > 5*sigma {
					t.Errorf("p %d, seed %d: %.1f for %d", p, seed, h.Estimate(), n)
				}
			}
			if rms := math.Sqrt(squares / seeds); rms > 1.4*sigma || math.Abs(sum/seeds) > 4*sigma/math.Sqrt(seeds) {
				t.Errorf("p %d, %d things: error %.4f, bias %.4f; in theory %.4f and none", p, n, rms, sum/seeds, sigma)
			}
		}
	}
}

func TestHyperLogLogMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.IntRange(MinPrecision, MaxPrecision).Draw(t, "p")
		a, b, both := NewHyperLogLog(p), NewHyperLogLog(p), NewHyperLogLog(p)
		for _, v := range rapid.SliceOf(rapid.Uint64()).Draw(t, "hashes") {
			if v%2 == 0 {
				a.Add(v)
			} else {
				b.Add(v)
			}
			both.Add(v)
		}
		if err := a.Merge(b); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.registers, both.registers) {
			t.Fatal("merged registers differ from those of one that saw everything")
		}
		a.Reset()
		if a.Estimate() != 0 {
			t.Fatalf("%v after Reset", a.Estimate())
		}
	})
	if err := NewHyperLogLog(12).Merge(NewHyperLogLog(13)); err == nil {
		t.Error("different precisions were merged")
	}
	defer func() {
		if recover() == nil {
			t.Error("precision 11 was taken")
		}
	}()
	NewHyperLogLog(11)
}

// TestHyperLogLogExtremes: hashes that are all zeros or all ones fit the registers, and full registers have an estimate.
func TestHyperLogLogExtremes(t *testing.T) {
	h := NewHyperLogLog(12)
	h.Add(0)
	h.Add(^uint64(0))
	if h.registers[0] != 64-12+1 || h.registers[1<<12-1] != 1 {
		t.Errorf("registers %d and %d", h.registers[0], h.registers[1<<12-1])
	}
	for i := range h.registers {
		h.registers[i] = 64 - 12 + 1
	}
	if e := h.Estimate(); !math.IsInf(e, 1) {
		t.Errorf("estimate %v of a full one", e)
	}
	if n := testing.AllocsPerRun(10, func() { h.Add(12345); h.Estimate() }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// TestHash: each bit of word, seed and address changes half of the bits of the hash, about.
func TestHash(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	const rounds = 400
	for bit := range 64 {
		var word, seed, upper, lower int
		for range rounds {
			s, v := r.Uint64(), r.Uint64()
			word += bits.OnesCount64(Hash(s, v) ^ Hash(s, v^1<<bit))
			seed += bits.OnesCount64(Hash(s, v) ^ Hash(s^1<<bit, v))
			a := [16]byte{1, 2, 3}
			b, c := a, a
			b[bit/8] ^= 1 << (bit % 8)
			c[8+bit/8] ^= 1 << (bit % 8)
			upper += bits.OnesCount64(HashAddr(s, netip.AddrFrom16(a)) ^ HashAddr(s, netip.AddrFrom16(b)))
			lower += bits.OnesCount64(HashAddr(s, netip.AddrFrom16(a)) ^ HashAddr(s, netip.AddrFrom16(c)))
		}
		for name, flips := range map[string]int{"word": word, "seed": seed, "upper half": upper, "lower half": lower} {
			if mean := float64(flips) / rounds; mean < 30 || mean > 34 {
				t.Errorf("bit %d of %s changes %.1f of 64 bits", bit, name, mean)
			}
		}
	}
}
