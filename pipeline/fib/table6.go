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
	t := new(Table6)
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

// Close gives the memory back. Nobody may use the table during or after it.
func (t *Table6) Close() { t.close() }

// Lookup returns the value of the longest route that covers the address, or 0. hi holds the first 8 bytes of the address and lo the
// last 8, both read as big-endian numbers. For many addresses LookupBatch is faster.
func (t *Table6) Lookup(hi, lo uint64) Value {
	s := atomic.LoadUint32(&t.root[hi>>((64-t.rootBits)&63)])
	for depth, w := t.rootBits, hi; s&childBit != 0; depth += blockBits {
		if depth == 64 {
			w = lo
		}
		blocks := *t.blocks.Load()
		s = atomic.LoadUint32(&blocks[(s&^childBit)*blockSlots+uint32(w>>((56-depth)&63))&(blockSlots-1)])
	}
	if s == 0 {
		s = t.fallback.Load()
	}
	return Value(s)
}

// LookupBatch looks up the addresses whose halves are hi[i] and lo[i] (see Lookup) and stores the results in out[i]; lo and out must be at
// least as long as hi. It goes through the trie level by level, as Table4.LookupBatch.
func (t *Table6) LookupBatch(hi, lo []uint64, out []Value) {
	lo, out = lo[:len(hi)], out[:len(hi)]
	for len(hi) > chunk {
		t.lookupChunk(hi[:chunk], lo[:chunk], out[:chunk])
		hi, lo, out = hi[chunk:], lo[chunk:], out[chunk:]
	}
	t.lookupChunk(hi, lo, out)
}

func (t *Table6) lookupChunk(hi, lo []uint64, out []Value) {
	out = out[:len(hi)]
	var below [chunk]uint8 // indexes of the addresses whose slot leads to a block
	n := 0
	root, shift, fallback := t.root, 64-t.rootBits, t.fallback.Load()
	for i, a := range hi {
		s := atomic.LoadUint32(&root[a>>(shift&63)])
		below[uint8(n)] = uint8(i)
		n += int(s >> 31)
		if s == 0 {
			s = fallback
		}
		out[i] = Value(s)
	}
	for half := hi; n > 0; {
		if shift == 0 {
			shift, half = 64, lo
		}
		shift -= blockBits
		blocks := *t.blocks.Load() // after the slots that lead into it, see reserve
		todo := below[:n]
		n = 0
		for _, i := range todo {
			s := atomic.LoadUint32(&blocks[(uint32(out[i])&^childBit)*blockSlots+uint32(half[i]>>(shift&63))&(blockSlots-1)])
			below[uint8(n)] = i
			n += int(s >> 31)
			if s == 0 {
				s = fallback
			}
			out[i] = Value(s)
		}
	}
}
