package fib

import (
	"encoding/binary"
	"sync/atomic"
)

// row is the root or one block, as the writer sees it.
type row struct {
	slots []uint32
	lens  []uint8
	users *uint16 // nil for the root, which is never freed
}

func (t *trie) rootRow() row { return row{t.root, t.rootLens.items, nil} }

func (t *trie) blockRow(b uint32) row {
	info := &t.info.items[b]
	return row{t.blocks.item(b)[:], info.lens[:], &info.users}
}

func (r row) use(n int) {
	if r.users != nil {
		*r.users += uint16(n)
	}
}

// index of the slot for k in a row that ends at bit depth of the address.
func (t *trie) index(k *[16]byte, depth int) int {
	if depth > t.rootBits {
		return int(k[depth/8-1])
	}
	return int(binary.BigEndian.Uint32(k[:4]) >> (32 - t.rootBits))
}

// set writes a route of bits > 0 into the slots that it covers, where no longer route is. fresh: the prefix was not there before.
func (t *trie) set(k *[16]byte, bits int, v uint32, fresh bool) {
	t.reserve(bits)
	r, depth := t.rootRow(), t.rootBits
	for ; depth < bits; depth += stride {
		i := t.index(k, depth)
		switch s := r.slots[i]; {
		case s&childBit == 0 && t.skip:
			r.use(1)
			atomic.StoreUint32(&r.slots[i], childBit|leafBit|t.takeLeaf(k, bits, v, s))
			return
		case s&childBit == 0:
			// The block repeats the slot that it replaces, so a reader finds the same route through either.
			r.use(1)
			atomic.StoreUint32(&r.slots[i], childBit|t.takeBlock(s, r.lens[i]))
		case s&leafBit != 0:
			if l := t.leaves.item(s & numberMask); l.is(k, bits) {
				atomic.StoreUint32(&l.match, v)
				return
			}
			t.split(r, i, depth)
		}
		r = t.blockRow(r.slots[i] & numberMask)
	}
	if fresh {
		r.use(1)
	}
	first := t.index(k, depth)
	t.fill(r, first, first+1<<(depth-bits), uint8(bits), v, uint8(bits))
}

// unset puts the covering route (v and its length, or 0 and 0) where the deleted route of bits > 0 was, and frees what nothing
// needs any more.
func (t *trie) unset(k *[16]byte, bits int, v uint32, coverBits uint8) {
	var rows [maxRows]row
	rows[0] = t.rootRow()
	n, depth, i := 0, t.rootBits, t.index(k, t.rootBits)
	for depth < bits && rows[n].slots[i]&leafBit == 0 {
		rows[n+1] = t.blockRow(rows[n].slots[i] & numberMask)
		n, depth = n+1, depth+stride
		i = t.index(k, depth)
	}
	if depth < bits {
		number := rows[n].slots[i] & numberMask
		atomic.StoreUint32(&rows[n].slots[i], v)
		t.retire(func() { t.leaves.put(number) })
	} else {
		t.fill(rows[n], i, i+1<<(depth-bits), uint8(bits), v, coverBits)
	}
	for ; n > 0; n-- {
		r := rows[n]
		if r.use(-1); *r.users > 0 {
			return
		}
		// No route ends here and nothing is below: all slots hold the one route that covers the block.
		depth -= stride
		up, i := rows[n-1], t.index(k, depth)
		number := up.slots[i] & numberMask
		up.lens[i] = r.lens[0]
		atomic.StoreUint32(&up.slots[i], r.slots[0])
		t.retire(func() { t.blocks.put(number) })
	}
}

// fill stores v, a route of length bits, into the slots from first up to end and below them, wherever the route that is there now is
// not longer than limit.
func (t *trie) fill(r row, first, end int, limit uint8, v uint32, bits uint8) {
	slots, lens := r.slots[first:end], r.lens[first:end]
	for i, s := range slots {
		switch {
		case s&childBit != 0 && s&leafBit == 0:
			t.fill(t.blockRow(s&numberMask), 0, blockSlots, limit, v, bits)
		case lens[i] > limit:
		case s&childBit != 0:
			lens[i] = bits
			atomic.StoreUint32(&t.leaves.item(s&numberMask).other, v)
		default:
			lens[i] = bits
			atomic.StoreUint32(&slots[i], v)
		}
	}
}

// split puts a block with the same route in the place of the leaf in slot i of r, a row that ends at bit depth. If the route goes on
// below the block it gets another leaf: the old one may still be read for addresses that the new one is not about.
func (t *trie) split(r row, i, depth int) {
	old := r.slots[i] & numberMask
	l := *t.leaves.item(old)
	number := t.takeBlock(l.other, r.lens[i])
	below := t.blockRow(number)
	below.use(1)
	k, bits := l.prefix()
	depth += stride
	j := t.index(&k, depth)
	if bits > depth {
		below.slots[j] = childBit | leafBit | t.takeLeaf(&k, bits, l.match, l.other)
	} else {
		t.fill(below, j, j+1<<(depth-bits), uint8(bits), l.match, uint8(bits))
	}
	atomic.StoreUint32(&r.slots[i], childBit|number)
	t.retire(func() { t.leaves.put(old) })
}

// takeBlock returns a block in which each slot holds v, a route of length bits. No reader knows it yet. Room must be reserved.
func (t *trie) takeBlock(v uint32, bits uint8) uint32 {
	number := t.blocks.take()
	r := t.blockRow(number)
	for i := range r.slots {
		r.slots[i], r.lens[i] = v, bits
	}
	*r.users = 0
	return number
}

// takeLeaf returns a leaf that no reader knows yet. Room must be reserved.
func (t *trie) takeLeaf(k *[16]byte, bits int, match, other uint32) uint32 {
	number := t.leaves.take()
	*t.leaves.item(number) = leaf{
		hi:     binary.BigEndian.Uint64(k[:8]),
		lo:     binary.BigEndian.Uint64(k[8:]),
		freeHi: uint8(64 - min(bits, 64)),
		freeLo: uint8(64 - max(bits-64, 0)),
		match:  match,
		other:  other,
	}
	return number
}

func (l *leaf) prefix() (k [16]byte, bits int) {
	binary.BigEndian.PutUint64(k[:8], l.hi)
	binary.BigEndian.PutUint64(k[8:], l.lo)
	return k, 128 - int(l.freeHi) - int(l.freeLo)
}

func (l *leaf) is(k *[16]byte, bits int) bool {
	have, haveBits := l.prefix()
	return have == *k && haveBits == bits
}

// reserve makes room for what set may take for a route of bits: slots must not move while it works on them.
func (t *trie) reserve(bits int) {
	rows := max(0, bits-t.rootBits+stride-1) / stride
	grown := t.blocks.reserve(rows, t.retire)
	if t.skip {
		// One for the route and one for each split on the way.
		grown = t.leaves.reserve(1+rows, t.retire) || grown
	}
	if !grown {
		return
	}
	if n := len(t.blocks.mem.items); n > len(t.info.items) {
		old := t.info
		t.info = newArray[blockInfo](n, false)
		copy(t.info.items, old.items)
		old.release() // readers never look there
	}
	t.account()
}
