package fib

import (
	"net/netip"
	"sync/atomic"
)

// chunk is how many addresses one pass of a batch lookup handles; their indexes fit a byte.
const chunk = 64

// Table4 is a longest-prefix-match table for IPv4. One goroutine at a time may write (Insert, Delete, Close); any number may look up
// meanwhile. It must not be copied.
type Table4 struct {
	trie
	shift uint32 // address >> shift = slot of the root
}

// NewTable4 makes an empty table whose root is indexed by the first rootBits bits of an address: 24 for the Internet table (64 MiB
// of address space, one memory access for routes up to /24), 16 or 8 for tables of few routes (256 KiB, 1 KiB). It panics if rootBits is
// none of these.
//
// The table calls retire with a function that recycles memory which readers may still be looking at. The owner runs that function
// on the writer's goroutine, after each reader has finished the lookup or batch that it was in. With a nil retire it runs at once:
// only right while nobody looks up concurrently.
func NewTable4(rootBits int, retire func(free func())) *Table4 {
	t := &Table4{shift: uint32(32 - rootBits)}
	t.init(32, rootBits, retire)
	return t
}

// Insert adds a route or replaces the one with the same prefix; host bits of p are ignored. v is 1 to MaxValue. It fails, and
// changes nothing, if p is not an IPv4 prefix or v is out of range.
func (t *Table4) Insert(p netip.Prefix, v Value) error { return t.insert(p, v) }

// Delete removes a route and reports whether it was there. The next shorter route takes its place.
func (t *Table4) Delete(p netip.Prefix) bool { return t.delete(p) }

// Len is the number of routes. Any goroutine may call it.
func (t *Table4) Len() int { return int(t.routes.Load()) }

// MemoryBytes is the address space that the table holds for slots and their route lengths, without the RIB (see the package
// comment). Pages that were never touched count here but use no memory. Any goroutine may call it.
func (t *Table4) MemoryBytes() int { return int(t.memory.Load()) }

// Close gives the memory back at once; without it the large parts stay mapped. Nobody may use the table during or after it.
func (t *Table4) Close() { t.close() }

// Lookup returns the value of the longest route that covers addr (host byte order), or 0. For many addresses LookupBatch is faster.
func (t *Table4) Lookup(addr uint32) Value {
	for {
		fallback := t.fallback.Load()
		if s := t.walk(addr); s != 0 {
			return Value(s)
		}
		if t.fallback.Load() == fallback {
			return Value(uint32(fallback))
		}
	}
}

// walk returns the route in the slots, 0 for the default.
func (t *Table4) walk(addr uint32) uint32 {
	shift := t.shift
	s := atomic.LoadUint32(&t.root[addr>>(shift&31)])
	for s&childBit != 0 {
		shift -= stride
		blocks := *t.blocks.shared.Load()
		s = atomic.LoadUint32(&blocks[s&numberMask][uint8(addr>>(shift&31))])
	}
	return s
}

// LookupBatch looks up each address (host byte order) and stores the results at the same indexes of out, which must be at least as
// long as addrs. It goes through the trie level by level without a branch that depends on a slot, so that the memory accesses of a
// batch overlap.
func (t *Table4) LookupBatch(addrs []uint32, out []Value) {
	out = out[:len(addrs)]
	for len(addrs) > 0 {
		n := min(len(addrs), chunk)
		// Again if the default route changed meanwhile, see trie.fallback.
		for fallback := t.fallback.Load(); ; fallback = t.fallback.Load() {
			if t.lookupChunk(addrs[:n], out[:n], uint32(fallback)); t.fallback.Load() == fallback {
				break
			}
		}
		addrs, out = addrs[n:], out[n:]
	}
}

func (t *Table4) lookupChunk(addrs []uint32, out []Value, fallback uint32) {
	out = out[:len(addrs)]
	// Indexes of the addresses whose slot leads to a block, for this level and the next. Two arrays: were the next level's list
	// written over the one that is being read, the processor could not read on before it knows each slot.
	var lists [2][chunk]uint8
	todo, below, n := &lists[0], &lists[1], 0
	root, shift := t.root, t.shift
	for i, a := range addrs {
		s := atomic.LoadUint32(&root[a>>(shift&31)])
		todo[uint8(n)] = uint8(i)
		n += int(s >> 31)
		if s == 0 {
			s = fallback
		}
		out[i] = Value(s)
	}
	for n > 0 {
		shift -= stride
		blocks := *t.blocks.shared.Load() // after the slots that lead into it, see pool
		now := todo[:n]
		n = 0
		for _, i := range now {
			s := atomic.LoadUint32(&blocks[out[i]&numberMask][uint8(addrs[i]>>(shift&31))])
			below[uint8(n)] = i
			n += int(s >> 31)
			if s == 0 {
				s = fallback
			}
			out[i] = Value(s)
		}
		todo, below = below, todo
	}
}
