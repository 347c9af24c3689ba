package fib

import (
	"net/netip"
	"sync/atomic"
)

// Table6 is a longest-prefix-match table for IPv6. One goroutine at a time may write (Insert, Delete, Close); any number may look up
// meanwhile. It must not be copied.
type Table6 struct {
	trie
}

// NewTable6 makes an empty table; rootBits and retire are as in NewTable4. For the Internet table take 24: of the 64 MiB root only
// the pages of the few /12 that are in use get touched.
func NewTable6(rootBits int, retire func(free func())) *Table6 {
	t := &Table6{trie{skip: true}}
	t.init(128, rootBits, retire)
	return t
}

// Insert adds a route or replaces the one with the same prefix; host bits of p are ignored. v is 1 to MaxValue. It fails, and
// changes nothing, if p is not an IPv6 prefix or v is out of range.
func (t *Table6) Insert(p netip.Prefix, v Value) error { return t.insert(p, v) }

// Delete removes a route and reports whether it was there. The next shorter route takes its place.
func (t *Table6) Delete(p netip.Prefix) bool { return t.delete(p) }

// Len is the number of routes. Any goroutine may call it.
func (t *Table6) Len() int { return int(t.routes.Load()) }

// MemoryBytes is as Table4.MemoryBytes.
func (t *Table6) MemoryBytes() int { return int(t.memory.Load()) }

// Close gives the memory back at once; without it the large parts stay mapped. Nobody may use the table during or after it.
func (t *Table6) Close() { t.close() }

// Lookup returns the value of the longest route that covers the address, or 0. hi holds the first 8 bytes of the address and lo the
// last 8, both read as big-endian numbers. For many addresses LookupBatch is faster.
func (t *Table6) Lookup(hi, lo uint64) Value {
	for {
		fallback := t.fallback.Load()
		if s := t.walk(hi, lo); s != 0 {
			return Value(s)
		}
		if t.fallback.Load() == fallback {
			return Value(uint32(fallback))
		}
	}
}

// walk returns the route in the slots and leaves, 0 for the default.
func (t *Table6) walk(hi, lo uint64) uint32 {
	shift, half := 64-t.rootBits, hi
	s := atomic.LoadUint32(&t.root[hi>>(shift&63)])
	for s&childBit != 0 {
		if s&leafBit != 0 {
			leaves := *t.leaves.shared.Load()
			return leaves[s&numberMask].lookup(hi, lo)
		}
		if shift == 0 {
			shift, half = 64, lo
		}
		shift -= stride
		blocks := *t.blocks.shared.Load()
		s = atomic.LoadUint32(&blocks[s&numberMask][uint8(half>>(shift&63))])
	}
	return s
}

// lookup returns the route for an address that has reached the leaf, 0 for the default.
func (l *leaf) lookup(hi, lo uint64) uint32 {
	s, match := atomic.LoadUint32(&l.other), atomic.LoadUint32(&l.match)
	if (hi^l.hi)>>l.freeHi|(lo^l.lo)>>l.freeLo == 0 {
		s = match
	}
	return s
}

// LookupBatch looks up the addresses whose halves are hi[i] and lo[i] (see Lookup) and stores the results in out[i]; lo and out must be at
// least as long as hi. It goes through the trie level by level, as Table4.LookupBatch.
func (t *Table6) LookupBatch(hi, lo []uint64, out []Value) {
	lo, out = lo[:len(hi)], out[:len(hi)]
	for len(hi) > 0 {
		n := min(len(hi), chunk)
		for fallback := t.fallback.Load(); ; fallback = t.fallback.Load() { // as in Table4
			if t.lookupChunk(hi[:n], lo[:n], out[:n], uint32(fallback)); t.fallback.Load() == fallback {
				break
			}
		}
		hi, lo, out = hi[n:], lo[n:], out[n:]
	}
}

func (t *Table6) lookupChunk(hi, lo []uint64, out []Value, fallback uint32) {
	lo, out = lo[:len(hi)], out[:len(hi)]
	// Indexes of the addresses whose slot leads to a block, for this level and the next (two arrays as in Table4), and to a leaf.
	var lists [2][chunk]uint8
	var ends [chunk]uint8
	todo, below, n, m := &lists[0], &lists[1], 0, 0
	root, shift := t.root, 64-t.rootBits
	for i, a := range hi {
		s := atomic.LoadUint32(&root[a>>(shift&63)])
		todo[uint8(n)], ends[uint8(m)] = uint8(i), uint8(i)
		n += int(s >> 31 &^ (s >> 30))
		m += int(s >> 31 & (s >> 30))
		if s == 0 {
			s = fallback
		}
		out[i] = Value(s)
	}
	for half := hi; n > 0; {
		if shift == 0 {
			shift, half = 64, lo
		}
		shift -= stride
		blocks := *t.blocks.shared.Load() // after the slots that lead into it, see pool
		now := todo[:n]
		n = 0
		for _, i := range now {
			s := atomic.LoadUint32(&blocks[out[i]&numberMask][uint8(half[i]>>(shift&63))])
			below[uint8(n)], ends[uint8(m)] = i, i
			n += int(s >> 31 &^ (s >> 30))
			m += int(s >> 31 & (s >> 30))
			if s == 0 {
				s = fallback
			}
			out[i] = Value(s)
		}
		todo, below = below, todo
	}
	leaves := *t.leaves.shared.Load()
	for _, i := range ends[:m] {
		s := leaves[out[i]&numberMask].lookup(hi[i], lo[i])
		if s == 0 {
			s = fallback
		}
		out[i] = Value(s)
	}
}
