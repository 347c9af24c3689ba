package fib

import "sync/atomic"

// row is the root or one block, as the writer sees it.
type row struct {
	slots []uint32
	lens  []uint8
	users *uint16 // nil for the root, which is never freed
}

func (t *trie) rootRow() row { return row{t.root, t.rootLens.items, nil} }

func (t *trie) blockRow(b uint32) row {
	info := &t.info.items[b]
	return row{t.blockMem.items[b*blockSlots:][:blockSlots:blockSlots], info.lens[:], &info.users}
}

// index of the slot for k in a row that ends at bit depth of the address.
func (t *trie) index(k *[16]byte, depth int) int {
	if depth > t.rootBits {
		return int(k[depth/8-1])
	}
	i := 0
	for _, b := range k[:t.rootBits/8] {
		i = i<<8 | int(b)
	}
	return i
}

// set writes a route of bits > 0 into the slots, where nothing longer is in its place. fresh: the prefix was not there before.
func (t *trie) set(k *[16]byte, bits int, v uint32, fresh bool) {
	t.reserve(max(0, bits-t.rootBits+blockBits-1) / blockBits)
	r, depth := t.rootRow(), t.rootBits
	for ; depth < bits; depth += blockBits {
		i := t.index(k, depth)
		if r.slots[i]&childBit == 0 {
			// The block repeats the slot that it replaces, so a reader finds the same route through either.
			b := t.take(r.slots[i], r.lens[i])
			atomic.StoreUint32(&r.slots[i], childBit|b)
			r.use(1)
		}
		r = t.blockRow(r.slots[i] &^ childBit)
	}
	if fresh {
		r.use(1)
	}
	first := t.index(k, depth)
	t.fill(r, first, first+1<<(depth-bits), uint8(bits), v, uint8(bits))
}

// unset puts the covering route (v and its length, or 0 and 0) where the deleted route of bits > 0 was, and frees the blocks that
// nothing needs any more.
func (t *trie) unset(k *[16]byte, bits int, v uint32, coverBits int) {
	var rows [maxLevels]row
	rows[0] = t.rootRow()
	n, depth := 0, t.rootBits
	for ; depth < bits; depth += blockBits {
		rows[n+1] = t.blockRow(rows[n].slots[t.index(k, depth)] &^ childBit)
		n++
	}
	first := t.index(k, depth)
	t.fill(rows[n], first, first+1<<(depth-bits), uint8(bits), v, uint8(coverBits))

	for ; n > 0; n-- {
		r := rows[n]
		if r.use(-1); *r.users > 0 {
			return
		}
		// No route ends here and no block is below: all slots hold the one route that covers the block.
		depth -= blockBits
		up, i := rows[n-1], t.index(k, depth)
		b := up.slots[i] &^ childBit
		up.lens[i] = r.lens[0]
		atomic.StoreUint32(&up.slots[i], r.slots[0])
		t.retire(func() { t.free = append(t.free, b) })
	}
}

func (r row) use(n int) {
	if r.users != nil {
		*r.users += uint16(n)
	}
}

// fill stores v, a route of length bits, into the slots from first up to end and below them, wherever the route that is there now is
// not longer than limit.
func (t *trie) fill(r row, first, end int, limit uint8, v uint32, bits uint8) {
	slots, lens := r.slots[first:end], r.lens[first:end]
	for i, s := range slots {
		if s&childBit != 0 {
			t.fill(t.blockRow(s&^childBit), 0, blockSlots, limit, v, bits)
			continue
		}
		if lens[i] <= limit {
			lens[i] = bits
			atomic.StoreUint32(&slots[i], v)
		}
	}
}

// take returns a block in which each slot holds v, a route of length bits. No reader knows the block yet. Room must be reserved.
func (t *trie) take(v uint32, bits uint8) uint32 {
	var b uint32
	if n := len(t.free); n > 0 {
		b, t.free = t.free[n-1], t.free[:n-1]
	} else {
		b = uint32(t.made)
		t.made++
	}
	r := t.blockRow(b)
	for i := range r.slots {
		r.slots[i], r.lens[i] = v, bits
	}
	*r.users = 0
	return b
}

// reserve makes room for n more blocks. Growth copies all blocks and publishes the copy; a reader that still holds the old ones sees
// the table as it was then, until its next batch.
func (t *trie) reserve(n int) {
	have := len(t.info.items)
	if len(t.free)+have-t.made >= n {
		return
	}
	want := max(have, firstBlocks)
	for want < have+n {
		want *= 2
	}
	old, oldInfo := t.blockMem, t.info
	t.blockMem, t.info = newArray[uint32](want*blockSlots, true), newArray[blockInfo](want, false)
	copy(t.blockMem.items, old.items)
	copy(t.info.items, oldInfo.items)
	// Before any parent slot leads into the new part: readers load a slot first and the blocks after it.
	grown := t.blockMem.items
	t.blocks.Store(&grown)
	oldInfo.release()
	if old.mapping != nil {
		t.retire(old.release)
	}
	t.account()
}
