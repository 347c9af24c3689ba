package fib

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// Value is what a route leads to, for example an index into a table of next hops. 0 means no route; MaxValue is the largest.
type Value uint32

// MaxValue leaves the two upper bits of a slot to the trie.
const MaxValue Value = 1<<30 - 1

// A slot holds a Value (upper bits 00), or in its lower 30 bits the number of a block (10) or of a leaf (11).
const (
	childBit   = 1 << 31 // the lookup goes on below
	leafBit    = 1 << 30 // with childBit: in a leaf
	numberMask = 1<<30 - 1
)

const (
	stride     = 8 // address bits that a block resolves
	blockSlots = 1 << stride
	maxRows    = 16 // on the way to a /128 below a root of 8 bits
)

// block is what readers see of the slots for one longer prefix.
type block [blockSlots]uint32

// blockInfo is what only the writer needs to know about the block of the same number.
type blockInfo struct {
	lens  [blockSlots]uint8 // length of the route in each slot, or of the one around the leaf in it; 0 for none
	users uint16            // routes that end in this block, leaves and blocks below it; a block without users is freed
}

// leaf stands for the only route below a slot, in place of a chain of blocks that would hold little else.
type leaf struct {
	hi, lo uint64 // the prefix, as two big-endian numbers; immutable while readers can see the leaf
	// An address is in the prefix if it agrees above these many low bits; 64 = the half does not matter.
	freeHi, freeLo uint8
	match, other   uint32 // the route, and the shorter one around it (0: the default)
}

// trie is what Table4 and Table6 have in common: the slots and the writer. Addresses are 16 bytes in network order, an IPv4 address
// fills the first four.
type trie struct {
	// For readers and the writer.
	root   []uint32 // 1<<rootBits slots
	blocks pool[block]
	leaves pool[leaf]
	// The default route in the lower half, the number of its changes in the upper one. A reader takes it before the slots and looks
	// afterwards if it is still the same: otherwise it could miss a route that moves between here and a slot.
	fallback atomic.Uint64

	// For the writer.
	addrBits int // 32 or 128
	rootBits int
	skip     bool // use leaves
	rootMem  array[uint32]
	rootLens array[uint8] // as blockInfo.lens
	info     array[blockInfo]
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
	t.blocks.shared.Store(new([]block))
	t.leaves.shared.Store(new([]leaf))
	t.account()
}

// account keeps the number that MemoryBytes reports where any goroutine may read it.
func (t *trie) account() {
	t.memory.Store(int64(t.rootMem.size() + t.rootLens.size() + t.blocks.mem.size() + t.info.size() + t.leaves.mem.size()))
}

func (t *trie) close() {
	t.rootMem.release()
	t.rootLens.release()
	t.info.release()
	t.blocks.close()
	t.leaves.close()
	t.root, t.rootMem, t.rootLens, t.info = nil, array[uint32]{}, array[uint8]{}, array[blockInfo]{}
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
		binary.BigEndian.PutUint32(k[:], binary.BigEndian.Uint32(a.AsSlice()))
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
		t.setFallback(v)
		return nil
	}
	k := key(p)
	t.set(&k, p.Bits(), uint32(v), fresh)
	return nil
}

func (t *trie) setFallback(v Value) {
	changes := t.fallback.Load()>>32 + 1
	t.fallback.Store(changes<<32 | uint64(v))
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
		t.setFallback(0)
		return true
	}
	cover, v, ok := t.rib.LookupPrefixLPM(p)
	if !ok || cover.Bits() == 0 {
		// The default route is not in the slots: what only it covers goes back to 0.
		cover, v = netip.PrefixFrom(p.Addr(), 0), 0
	}
	k := key(p)
	t.unset(&k, p.Bits(), uint32(v), uint8(cover.Bits()))
	return true
}
