package main

// trackWindow is how far behind the highest sequence number a duplicate is still recognised; a power of two.
const trackWindow = 1 << 20

// A tracker follows the sequence numbers of one run. The zero value is ready; one goroutine uses it.
type tracker struct {
	received   uint64
	lowest     uint64
	highest    uint64
	duplicates uint64
	reordered  uint64
	maxReorder uint64
	tooLate    uint64
	seen       []uint64 // bit n modulo trackWindow: n came; valid for highest-trackWindow < n <= highest
}

// add takes note of a received sequence number.
func (t *tracker) add(n uint64) {
	t.received++
	if t.seen == nil {
		t.seen = make([]uint64, trackWindow/64)
		t.lowest, t.highest = n, n
		t.mark(n)
		return
	}
	t.lowest = min(t.lowest, n)
	if n > t.highest {
		t.forget(n)
		t.highest = n
		t.mark(n)
		return
	}
	behind := t.highest - n
	switch {
	case behind >= trackWindow:
		t.tooLate++
	case t.has(n):
		t.duplicates++
		return
	default:
		t.mark(n)
	}
	t.reordered++
	t.maxReorder = max(t.maxReorder, behind)
}

// forget clears the bits that the numbers highest+1 to n take over.
func (t *tracker) forget(n uint64) {
	if n-t.highest >= trackWindow {
		clear(t.seen)
		return
	}
	for i := t.highest + 1; i <= n; i++ {
		t.seen[i%trackWindow/64] &^= 1 << (i % 64)
	}
}

func (t *tracker) mark(n uint64)     { t.seen[n%trackWindow/64] |= 1 << (n % 64) }
func (t *tracker) has(n uint64) bool { return t.seen[n%trackWindow/64]&(1<<(n%64)) != 0 }

func (t *tracker) result() *probeResult {
	r := &probeResult{
		Received: t.received, First: t.lowest, Last: t.highest, Duplicates: t.duplicates,
		Reordered: t.reordered, MaxReorder: t.maxReorder, TooLate: t.tooLate,
	}
	if t.received > 0 {
		span := t.highest - t.lowest + 1
		r.Lost = span - min(span, t.received-t.duplicates)
		r.LossRatio = float64(r.Lost) / float64(span)
	}
	return r
}
