// Package top finds out of samples what was most frequent in an interval, for each account, tunnel and direction: addresses, ports, protocols,
// TCP flags, sizes, countries and autonomous systems; and counts the distinct sources. What it finds are rows of store.Top.
//
// A sample goes this way: top.go finds the slot of its tunnel and direction, slot.go gives it to a table for each kind, table.go counts it for
// its value (values.go), and rows.go lists what a table has when the interval is over.
//
// # Bounds
//
// A table is a space-saving sketch (package sketch) that grows from 2 counters to 256 before it loses anything, while there is memory. With k
// counters every value that makes more than 1/k of the sampled packets is in it. What a row says of a value was seen; the sketch's error is
// what it may have missed, and is 0 as long as no more values came than there are counters. All memory is within Options.Memory, whoever sends
// what through how many tunnels.
package top

import (
	"math/rand/v2"
	"unsafe"

	"causeway/analytics/flow"
	"causeway/analytics/sketch"
	"causeway/analytics/store"
)

// Options are the bounds of a Counter; zero is the default.
type Options struct {
	Origins bool  // countries and autonomous systems are known, and looked at
	Memory  int64 // bytes that are held at the most; default 96 MiB
	Values  int   // that are listed of a kind, tunnel and direction; default OfHour
	Rows    int   // of one interval; default 100,000. Where there would be more, the lists become shorter
}

// How many values the lists of a minute and of an hour have at the most: minutes are what a store is filled with.
const (
	OfMinute = 10
	OfHour   = 20
)

// RowsOfMinute is how many rows a minute has at the most: two days of them are 4 GB in SQLite.
const RowsOfMinute = 25_000

// Sizes of tables. Small domains (protocols, flags, sizes of packets) have a counter for each value before anything else has more than few.
const (
	fewest      = 2
	most        = 256
	mostOfSmall = 1024
)

// A Counter counts the samples of one interval at a time. It is for one goroutine.
type Counter struct {
	o        Options
	kinds    []store.TopKind
	seed     uint64
	slots    map[slotKey]*slot
	used     int64  // bytes, of slots and what they hold
	leftOut  uint64 // samples, since the start
	baseline int64  // bytes of a slot before it grows
}

type slotKey struct {
	account, id string // of the tunnel; empty: none
	direction   flow.Direction
}

// New makes a Counter.
func New(o Options) *Counter {
	if o.Memory == 0 {
		o.Memory = 96 << 20
	}
	if o.Values == 0 {
		o.Values = OfHour
	}
	if o.Rows == 0 {
		o.Rows = 100_000
	}
	c := &Counter{o: o, seed: rand.Uint64(), slots: map[slotKey]*slot{}}
	for k := store.TopSourceAddress; int(k) < len(store.TopKinds); k++ {
		if o.Origins || k < store.TopSourceCountry {
			c.kinds = append(c.kinds, k)
		}
	}
	c.baseline = slotBytes + int64(len(c.kinds))*(tableBytes+fewest*counterBytes)
	return c
}

// What things take. The map that finds slots is at least half full, and each slot can have its coarse registers.
var (
	slotBytes    = int64(unsafe.Sizeof(slot{})+8*fewSources+1<<coarseSources) + 2*int64(unsafe.Sizeof(slotKey{})+8)
	tableBytes   = int64(unsafe.Sizeof(table{}) + unsafe.Sizeof(sketch.SpaceSaving[key]{}))
	counterBytes = int64(sketch.CounterBytes + unsafe.Sizeof(more{}))
)

// LeftOut is how many samples found no room for their tunnel and direction, since the start.
func (c *Counter) LeftOut() uint64 { return c.leftOut }

// Observe counts a sample, as its account may see it, with addresses as they are kept. It keeps nothing of it but the tunnel, and allocates only
// where a tunnel or a table needs more room than in the interval before.
func (c *Counter) Observe(s *store.Sample) {
	x := c.slot(s)
	if x == nil {
		c.leftOut++
		return
	}
	x.observe(c, s)
}

// slot is that of a sample's tunnel and direction; nil: there is no room. Of two tunnels it is the one that the packet went into, as exact
// counts have it.
func (c *Counter) slot(s *store.Sample) *slot {
	t := s.Out
	if t == nil {
		t = s.In
	}
	k := slotKey{account: s.Account, direction: s.Direction()}
	if t != nil {
		k.id = t.ID
	}
	x := c.slots[k]
	if x == nil {
		if c.used+c.baseline > c.o.Memory {
			return nil
		}
		x = newSlot(c, k)
		c.slots[k] = x
	}
	x.tunnel = t
	return x
}

// mayGrow takes memory for a slot, if there is some. A quarter of all is for slots that are yet to come. Of the rest one half is there for whoever
// comes first, and the other in equal parts for all slots: so a flood through some tunnels leaves room for the others.
func (c *Counter) mayGrow(x *slot, bytes int64) bool {
	if after := c.used + bytes; after > c.free() && (after > c.growth() || x.bytes+bytes > c.share()) {
		return false
	}
	c.take(x, bytes)
	return true
}

func (c *Counter) growth() int64 { return c.o.Memory / 4 * 3 }
func (c *Counter) free() int64   { return c.growth() / 2 }
func (c *Counter) share() int64  { return c.baseline + c.growth()/2/int64(max(len(c.slots), 1)) }

// take books memory, or with a negative number gives it back.
func (c *Counter) take(x *slot, bytes int64) {
	x.bytes += bytes
	c.used += bytes
}

// End lists what the interval that began then had, and begins the next one. Who had nothing loses its slot, and who needed little, or has more
// than its share while memory is short, some of its room.
func (c *Counter) End(began int64, hour bool) []store.Top {
	rows := c.rows(began, hour)
	short := c.used > c.free()
	for k, x := range c.slots {
		if x.total.samples == 0 {
			c.take(x, -x.bytes)
			delete(c.slots, k)
			continue
		}
		x.reset(c, short && x.bytes > c.share())
	}
	return rows
}
