package top

import (
	"slices"

	"causeway/analytics/flow"
	"causeway/analytics/sketch"
	"causeway/analytics/store"
)

// A weight is what samples stand for (Horvitz-Thompson).
type weight struct {
	samples         uint64
	packets, bytes  uint64
	packetsVariance float64
	bitsVariance    float64
}

func weightOf(s *store.Sample) weight {
	w, bits := float64(s.Every), 8*float64(s.Length)
	return weight{1, uint64(s.Every), uint64(s.Every) * uint64(s.Length), w * (w - 1), w * (w - 1) * bits * bits}
}

func (w *weight) add(o *weight) {
	w.samples += o.samples
	w.packets += o.packets
	w.bytes += o.bytes
	w.packetsVariance += o.packetsVariance
	w.bitsVariance += o.bitsVariance
}

// less is w without a part of it. Variances are sums of floating point numbers, and may miss 0 by a little.
func (w *weight) less(o *weight) weight {
	return weight{w.samples - o.samples, w.packets - o.packets, w.bytes - o.bytes, max(0, w.packetsVariance-o.packetsVariance),
		max(0, w.bitsVariance-o.bitsVariance)}
}

// A slot is one tunnel and direction.
type slot struct {
	slotKey
	tunnel  *flow.Tunnel // nil: none
	bytes   int64        // that it holds
	total   weight
	tables  []table // as Counter.kinds
	sources sources
}

func newSlot(c *Counter, k slotKey) *slot {
	x := &slot{slotKey: k, tables: make([]table, len(c.kinds))}
	x.sources.few = make([]uint64, 0, fewSources)
	for i := range x.tables {
		x.tables[i].make(fewest, c.hash)
	}
	c.take(x, c.baseline)
	return x
}

func (c *Counter) hash(k key) uint64 { return sketch.Hash(sketch.Hash(c.seed, k.high), k.low) }

func (x *slot) observe(c *Counter, s *store.Sample) {
	w := weightOf(s)
	x.total.add(&w)
	for i := range x.tables {
		k := keyOf(c.kinds[i], s)
		t := &x.tables[i]
		if t.full(k) {
			c.grow(x, t, c.kinds[i])
		}
		t.count(k, &w)
	}
	x.sources.add(c, x, c.hash(addressKey(s.Packet.Src)))
}

// grow gives a table twice its counters, if it may have them.
func (c *Counter) grow(x *slot, t *table, kind store.TopKind) {
	limit := most
	if kind == store.TopProtocol || kind == store.TopTCPFlags || kind == store.TopPacketSize {
		limit = mostOfSmall
	}
	if n := t.keys.Cap(); n < limit && c.mayGrow(x, int64(n)*counterBytes) {
		t.grow(2 * n)
	}
}

// reset forgets the interval. Small: what the slot holds beyond the least is given back, too.
func (x *slot) reset(c *Counter, small bool) {
	x.total = weight{}
	for i := range x.tables {
		t := &x.tables[i]
		n := t.keys.Cap()
		switch {
		case small:
			n = fewest
		case t.keys.Len() <= n/4:
			n = max(n/2, fewest)
		}
		if n < t.keys.Cap() {
			c.take(x, int64(n-t.keys.Cap())*counterBytes)
			t.make(n, c.hash)
		}
		t.reset()
	}
	x.sources.reset(c, x, small)
}

// fewSources is how many sources are remembered one by one.
const fewSources = 16

// The registers of sketches of sources, as powers of 2: 4096 have a standard error of 1.6 %, and 256, which are for when memory is short, of
// 6.5 %.
const (
	fineSources   = 12
	coarseSources = 8
)

// sources counts distinct ones.
type sources struct {
	few  []uint64 // their hashes, as long as they are few
	many *sketch.Distinct
	fine bool // many has the registers that are booked apart
}

func (s *sources) add(c *Counter, x *slot, hash uint64) {
	switch {
	case s.many != nil:
		s.many.Add(hash)
	case slices.Contains(s.few, hash):
	case len(s.few) < fewSources:
		s.few = append(s.few, hash)
	default:
		precision := uint8(fineSources)
		if s.fine = c.mayGrow(x, 1<<fineSources); !s.fine {
			precision = coarseSources
		}
		s.many = sketch.NewDistinct(precision)
		for _, h := range append(s.few, hash) {
			s.many.Add(h)
		}
	}
}

func (s *sources) count() uint64 {
	if s.many == nil {
		return uint64(len(s.few))
	}
	return uint64(s.many.Count() + 0.5)
}

// reset keeps registers that would be needed again.
func (s *sources) reset(c *Counter, x *slot, small bool) {
	s.few = s.few[:0]
	if s.many == nil {
		return
	}
	if !small && s.fine && s.many.Count() > fewSources {
		s.many.Reset()
		return
	}
	if s.fine {
		c.take(x, -1<<fineSources)
	}
	s.many, s.fine = nil, false
}
