package main

import "math/bits"

// A histogram counts durations in ns, in buckets of 1/16 of a power of two. One goroutine uses it.
type histogram struct {
	n, sum   uint64
	min, max uint64
	buckets  [64 * 16]uint64
}

func (h *histogram) add(v uint64) {
	if h.n == 0 || v < h.min {
		h.min = v
	}
	h.max = max(h.max, v)
	h.n++
	h.sum += v
	h.buckets[bucket(v)]++
}

// bucket is exact below 32; above, the four bits behind the leading one choose.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-5, 0)
	return shift*16 + int(v>>shift)
}

// upper is the largest value of bucket i.
func upper(i int) uint64 {
	if i < 32 {
		return uint64(i)
	}
	shift := i/16 - 1
	return uint64(i%16+17)<<shift - 1
}

// quantile is an upper bound of the value that the share q of all is not above.
func (h *histogram) quantile(q float64) uint64 {
	want := uint64(q * float64(h.n))
	var got uint64
	for i, c := range h.buckets {
		if got += c; got > want {
			return min(upper(i), h.max)
		}
	}
	return h.max
}

// result is nil when there was nothing to measure.
func (h *histogram) result() *delayResult {
	if h.n == 0 {
		return nil
	}
	return &delayResult{
		Min: h.min, Mean: h.sum / h.n, Max: h.max,
		P50: h.quantile(0.5), P90: h.quantile(0.9), P99: h.quantile(0.99),
	}
}
