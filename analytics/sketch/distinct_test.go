package sketch

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Each estimate is within four standard errors of the truth, from the first hash to many times the registers; and there is no bias: the
// mean over many seeds is within four standard errors of a mean.
func TestDistinct(t *testing.T) {
	for _, precision := range []uint8{4, 8, 12} {
		const seeds = 60
		var means [13]float64
		sizes := [len(means)]int{1, 2, 5, 20, 100, 700, 2000, 4000, 8000, 12000, 20000, 50000, 100000}
		for seed := range uint64(seeds) {
			d, n := NewDistinct(precision), 0
			for i, size := range sizes {
				for ; n < size; n++ {
					h := Hash(seed, uint64(n))
					d.Add(h)
					d.Add(h)
				}
				got, width := d.Count(), 4*d.StandardError()*float64(size)
				if len(d.registers) >= 256 && math.Abs(got-float64(size)) > max(width, 0.5) { // of 16 the error is far from normal
					t.Errorf("precision %d, seed %d: %d are counted as %.1f", precision, seed, size, got)
				}
				means[i] += got / seeds
			}
		}
		for i, size := range sizes {
			width := 4 * NewDistinct(precision).StandardError() / math.Sqrt(seeds)
			if bias := means[i]/float64(size) - 1; math.Abs(bias) > width {
				t.Errorf("precision %d: %d are counted as %.1f in the mean, a bias of %.4f", precision, size, means[i], bias)
			}
		}
	}
	if n := NewDistinct(12).Count(); n != 0 {
		t.Errorf("nothing is counted as %v", n)
	}
}

// The registers are those of the definition, made slowly; and merging is the same as having seen both.
func TestDistinctRegisters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		precision := uint8(rapid.IntRange(4, 16).Draw(t, "precision"))
		both, all := NewDistinct(precision), NewDistinct(precision)
		want := make([]uint8, 1<<precision)
		for range 2 {
			part := NewDistinct(precision)
			for _, h := range rapid.SliceOf(rapid.Uint64()).Draw(t, "hashes") {
				h >>= rapid.IntRange(0, 63).Draw(t, "zeros")
				part.Add(h)
				all.Add(h)
				rank := uint8(1)
				for bit := 63 - int(precision); bit >= 0 && h>>bit&1 == 0; bit-- {
					rank++
				}
				want[h>>(64-precision)] = max(want[h>>(64-precision)], rank)
			}
			if err := both.Merge(part); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(all.registers, want) || !slices.Equal(both.registers, want) {
			t.Fatalf("registers %v, merged %v, want %v", all.registers, both.registers, want)
		}
		if n := both.Count(); math.IsNaN(n) || n < 0 {
			t.Fatalf("counted as %v", n)
		}
		if both.Reset(); both.Count() != 0 {
			t.Fatal("something is left after Reset")
		}
	})
	if err := NewDistinct(4).Merge(NewDistinct(5)); err == nil {
		t.Error("different numbers of registers were merged")
	}
}

func TestDistinctAllocates(t *testing.T) {
	d, r := NewDistinct(12), rand.New(rand.NewPCG(1, 1))
	if n := testing.AllocsPerRun(10, func() { d.Add(r.Uint64()) }); n != 0 {
		t.Errorf("%v allocations in an update, want none", n)
	}
}
