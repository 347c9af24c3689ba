package sketch

import (
	"fmt"
	"math"
	"math/bits"
)

// HyperLogLog estimates how many distinct things there were (Flajolet and others, 2007), in 2^p bytes. The standard error is
// 1.04/sqrt(2^p): 1.6 % for p = 12, 0.8 % for p = 14. It is for one goroutine.
type HyperLogLog struct {
	p         uint8
	registers []uint8
}

// The precisions that NewHyperLogLog takes.
const (
	MinPrecision = 12
	MaxPrecision = 14
)

// NewHyperLogLog makes an empty one of 2^p bytes. It panics if p is not from MinPrecision to MaxPrecision.
func NewHyperLogLog(p int) *HyperLogLog {
	if p < MinPrecision || p > MaxPrecision {
		panic(fmt.Sprintf("sketch: HyperLogLog precision %d: %d to %d is allowed", p, MinPrecision, MaxPrecision))
	}
	return &HyperLogLog{p: uint8(p), registers: make([]uint8, 1<<p)}
}

// Add takes in a thing by a hash of which all 64 bits are needed. It does not allocate.
func (h *HyperLogLog) Add(hash uint64) {
	// The upper p bits choose the register, which keeps the longest run of zeros, and one, of the others.
	rank := uint8(min(bits.LeadingZeros64(hash<<h.p), 64-int(h.p))) + 1
	if r := &h.registers[hash>>(64-h.p)]; *r < rank {
		*r = rank
	}
}

// Merge takes in everything that o has. Both must have been fed by the same hash. It fails if their precisions differ.
func (h *HyperLogLog) Merge(o *HyperLogLog) error {
	if h.p != o.p {
		return fmt.Errorf("sketch: a HyperLogLog of precision %d cannot take in one of %d: make all with the same", h.p, o.p)
	}
	for i, r := range o.registers {
		h.registers[i] = max(h.registers[i], r)
	}
	return nil
}

// Estimate is how many distinct hashes were added, about. It does not allocate.
//
// The estimator is Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6), which is as good for
// few as for many and needs no tables of what was measured.
func (h *HyperLogLog) Estimate() float64 {
	q := 64 - int(h.p)
	var count [64 + 2]float64
	for _, r := range h.registers {
		count[r]++
	}
	m := float64(len(h.registers))
	z := m * tau(1-count[q+1]/m)
	for k := q; k >= 1; k-- {
		z = (z + count[k]) / 2
	}
	z += m * sigma(count[0]/m)
	return m * m / (2 * math.Ln2 * z)
}

// Reset forgets everything.
func (h *HyperLogLog) Reset() { clear(h.registers) }

// sigma corrects for registers that are still zero.
func sigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	y, z := 1.0, x
	for {
		x *= x
		before := z
		z += x * y
		y += y
		if z == before {
			return z
		}
	}
}

// tau corrects for registers that are full.
func tau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	y, z := 1.0, 1-x
	for {
		x = math.Sqrt(x)
		before := z
		y /= 2
		z -= (1 - x) * (1 - x) * y
		if z == before {
			return z / 3
		}
	}
}
