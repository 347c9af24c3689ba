package sketch

import (
	"fmt"
	"math"
	"math/bits"
)

// Distinct counts how many different hashes it was given: HyperLogLog (Flajolet, Fusy, Gandouet and Meunier, 2007) with registers for 64-bit
// hashes, and the estimator of Ertl ("New cardinality estimation algorithms for HyperLogLog sketches", 2017), which has no bias at small
// numbers nor between them and large ones, and needs no table. The standard error is StandardError; below some tens of the
// registers it is nearly exact. It is for one goroutine.
type Distinct struct {
	registers []uint8 // the highest rank of any hash: leading zeros behind the register's number, and one
	precision uint8
}

// NewDistinct makes one of 2^precision registers, a byte each; precision is 4 to 16.
func NewDistinct(precision uint8) *Distinct {
	precision = min(max(precision, 4), 16)
	return &Distinct{registers: make([]uint8, 1<<precision), precision: precision}
}

// Add counts a hash, which needs all 64 bits, and a seed that strangers do not know where they choose what is hashed. It does not allocate.
func (d *Distinct) Add(hash uint64) {
	register := &d.registers[hash>>(64-d.precision)]
	if rank := uint8(bits.LeadingZeros64(hash<<d.precision|1<<(d.precision-1)) + 1); rank > *register {
		*register = rank
	}
}

// StandardError is that of Count, as a part of it: 0.016 of 2^12 registers.
func (d *Distinct) StandardError() float64 { return 1.04 / math.Sqrt(float64(len(d.registers))) }

// Count estimates the number of different hashes.
func (d *Distinct) Count() float64 {
	highest := 64 - int(d.precision) // rank highest+1 is that of a hash whose rest is all zeros
	var of [66]float64               // registers by rank
	for _, r := range d.registers {
		of[r]++
	}
	m := float64(len(d.registers))
	z := m * tau(1-of[highest+1]/m)
	for k := highest; k >= 1; k-- {
		z = (z + of[k]) / 2
	}
	z += m * sigma(of[0]/m)
	return m * m / (2 * math.Ln2 * z)
}

// sigma corrects for registers that are empty, and tau for those that are full; both are series of Ertl's, which end when a term adds nothing.
func sigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	for y, z := 1.0, x; ; y *= 2 {
		x *= x
		before := z
		if z += x * y; z == before {
			return z
		}
	}
}

func tau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	for y, z := 0.5, 1-x; ; y /= 2 {
		x = math.Sqrt(x)
		before := z
		if z -= (1 - x) * (1 - x) * y; z == before {
			return z / 3
		}
	}
}

// Merge makes d what it would be if it had been given the hashes of o as well. It fails if they have not the same number of registers.
func (d *Distinct) Merge(o *Distinct) error {
	if d.precision != o.precision {
		return fmt.Errorf("sketch: a Distinct of %d registers cannot take in one of %d: make all with the same", len(d.registers), len(o.registers))
	}
	for i, r := range o.registers {
		d.registers[i] = max(d.registers[i], r)
	}
	return nil
}

// Reset forgets everything.
func (d *Distinct) Reset() { clear(d.registers) }
