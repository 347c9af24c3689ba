package fib

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// Value is what a route leads to, for example an index into a table of next hops. 0 means no route; MaxValue is the largest.
type Value uint32

// MaxValue leaves the two upper bits of a slot to the trie.
const MaxValue Value = 1<<30 - 1

const (
	childBit   = 1 << 31 // set in a slot that holds the number of a block instead of a Value
	blockBits  = 8
	blockSlots = 1 << blockBits
	maxLevels  = 16 // rows on the way to a /128 below a root of 8 bits

	// firstBlocks is how many blocks the first growth makes: small, because there may be ten thousand tables of a few routes.
	firstBlocks = 4
)

// blockInfo is what only the writer needs to know about a block.
type blockInfo struct {
	lens  [blockSlots]uint8 // length of the route that each slot holds, 0 for none
	users uint16            // routes that end in this block plus blocks below it; a block without users is freed
}

// trie is what Table4 and Table6 have in common: the slots and the writer. Addresses are 16 bytes in network order, an IPv4 address
// fills the first four.
type trie struct {
	// For readers and the writer.
	root     []uint32                 // 1<<rootBits slots
	blocks   atomic.Pointer[[]uint32] // blockSlots slots for each block; replaced by a longer copy when it is full
	fallback atomic.Uint32            // the default route

	// For the writer.
	addrBits int // 32 or 128
	rootBits int
	rootMem  array[uint32]
	rootLens array[uint8] // as blockInfo.lens
	blockMem array[uint32]
	info     array[blockInfo]
	made     int      // blocks taken from blockMem so far
	free     []uint32 // blocks to use again
	retire   func(free func())
	rib      bart.Table[Value]
	routes   atomic.Int64
	memory   atomic.Int64
}

func (t *trie) init(addrBits, rootBits int, retire func(func())) {
	if rootBits != 8 && rootBits != 16 && rootBits != 24 {
		panic(fmt.Sprintf("fib: a root of %d bits, want 8, 16 or 24", rootBits))
	}
	if retire == nil {
		retire = func(free func()) { free() }
	}
	t.addrBits, t.rootBits, t.retire = addrBits, rootBits, retire
	t.rootMem = newArray[uint32](1<<rootBits, true)
	t.rootLens = newArray[uint8](1<<rootBits, false)
	t.root = t.rootMem.items
	t.blocks.Store(&t.blockMem.items)
	t.account()
}

// account keeps the number that MemoryBytes reports where any goroutine may read it.
func (t *trie) account() {
	t.memory.Store(int64(t.rootMem.size() + t.rootLens.size() + t.blockMem.size() + t.info.size()))
}

func (t *trie) close() {
	t.rootMem.release()
	t.rootLens.release()
	t.blockMem.release()
	t.info.release()
	t.root, t.free = nil, nil
	t.rootMem, t.rootLens, t.blockMem, t.info = array[uint32]{}, array[uint8]{}, array[uint32]{}, array[blockInfo]{}
	t.blocks.Store(&[]uint32{})
	t.account()
}

// check says whether p can be a route of this table.
func (t *trie) check(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("fib: route %v: not a valid prefix", p)
	case p.Addr().BitLen() != t.addrBits:
		return fmt.Errorf("fib: route %v: wrong family, this table holds prefixes of %d-bit addresses", p, t.addrBits)
	}
	return nil
}

// key is the address of a masked prefix as the trie wants it.
func key(p netip.Prefix) (k [16]byte) {
	if a := p.Addr(); a.Is4() {
		b := a.As4()
		copy(k[:], b[:])
	} else {
		k = a.As16()
	}
	return k
}

func (t *trie) insert(p netip.Prefix, v Value) error {
	if err := t.check(p); err != nil {
		return err
	}
	if v == 0 || v > MaxValue {
		return fmt.Errorf("fib: route %v: value %d, want 1 to %d (to remove a route, delete it)", p, v, MaxValue)
	}
	p = p.Masked()
	fresh := true
	t.rib.Modify(p, func(_ Value, ok bool) (Value, bool) {
		fresh = !ok
		return v, false
	})
	if fresh {
		t.routes.Add(1)
	}
	if p.Bits() == 0 {
		t.fallback.Store(uint32(v))
		return nil
	}
	k := key(p)
	t.set(&k, p.Bits(), uint32(v), fresh)
	return nil
}

func (t *trie) delete(p netip.Prefix) bool {
	if t.check(p) != nil {
		return false
	}
	p = p.Masked()
	if _, ok := t.rib.Get(p); !ok {
		return false
	}
	t.rib.Delete(p)
	t.routes.Add(-1)
	if p.Bits() == 0 {
		t.fallback.Store(0)
		return true
	}
	// The default route is not in the slots: under it they go back to 0.
	cover, v, ok := t.rib.LookupPrefixLPM(p)
	if !ok || cover.Bits() == 0 {
		v, cover = 0, netip.Prefix{}
	}
	k := key(p)
	t.unset(&k, p.Bits(), uint32(v), max(cover.Bits(), 0))
	return true
}
