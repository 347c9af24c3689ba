package top

import "causeway/analytics/sketch"

// A table counts values. The sketch counts packets; of what else there is to count, more has as much for each of its counters.
//
// Bytes are bounded as packets are: whoever loses a counter had by then at most lost bytes, which whoever gets a counter, perhaps again, may have
// had before.
type table struct {
	keys *sketch.SpaceSaving[key]
	more []more // by counter
	lost uint64 // bytes
}

// more is what samples stand for since the value has its counter, without the packets; and how many bytes it may have had before.
type more struct {
	bytes, lost     uint64
	packetsVariance float64
	bitsVariance    float64
	samples         uint64
}

func (t *table) make(n int, hash func(key) uint64) {
	t.keys, t.more, t.lost = sketch.NewSpaceSaving(n, hash), make([]more, n), 0
}

func (t *table) reset() {
	t.keys.Reset()
	t.lost = 0
}

// full reports whether a value would take another's counter.
func (t *table) full(k key) bool {
	if t.keys.Len() < t.keys.Cap() {
		return false
	}
	_, known := t.keys.Get(k)
	return !known
}

func (t *table) grow(n int) {
	t.keys.Grow(n)
	grown := make([]more, n)
	copy(grown, t.more)
	t.more = grown
}

func (t *table) count(k key, w *weight) {
	had := t.keys.Len()
	i, fresh := t.keys.Put(k, w.packets)
	m := &t.more[i]
	if fresh {
		if i < had { // it was another's
			t.lost = max(t.lost, m.bytes+m.lost)
		}
		*m = more{lost: t.lost}
	}
	m.samples++
	m.bytes += w.bytes
	m.packetsVariance += w.packetsVariance
	m.bitsVariance += w.bitsVariance
}

// An entry is a value, what was seen of it, and what may have been missed.
type entry struct {
	key key
	weight
	missedPackets, missedBytes uint64
}

func (t *table) at(i int) entry {
	e, m := t.keys.At(i), &t.more[i]
	return entry{e.Key, weight{m.samples, e.Count - e.Error, m.bytes, m.packetsVariance, m.bitsVariance}, e.Error, m.lost}
}
