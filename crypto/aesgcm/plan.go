package aesgcm

import "unsafe"

// side is how many packets go side by side at the most.
const side = 4

// slots is how many packets the kernels know: those of a burst and the fillers.
const slots = MaxBurst + side

// work is what the kernels need beside the packets. In order, a packet goes by 8 times its index, which addresses any of
// the arrays. The layout is known to gen and to plan_amd64.s.
type work struct {
	texts   [MaxBurst]*byte
	extents [MaxBurst]extent

	// What plan makes of them.
	lengths [slots][2]uint64 // bits of text, bits of additional data: with these, GHASH ends
	heads   [slots]uintptr   // where the first register of a packet lies, or of its text where it has its own
	tags    [slots]uintptr
	tails   [slots]uint64 // the bytes of text in the last register
	shapes  [slots]shape
	classes [MaxBurst]class

	order  [slots]uint16 // the packets of one class
	rounds *spreadRounds
	end    uintptr
}

// An extent is what plan must know of a packet, in one word because storing is what Set takes its time for: how many bytes
// text and tag are, how many the additional data is, and the size of the key.
type extent uint64

const (
	aadShift  = 48
	sizeShift = 56
)

func (e extent) room() int   { return int(e & (1<<aadShift - 1)) }
func (e extent) aad() int    { return int(uint8(e >> aadShift)) }
func (e extent) size() class { return class(e >> sizeShift) }

// A shape says how a packet lies in its registers.
type shape struct {
	text   uint8 // the 64-bit words of text in the first register
	aad    uint8 // and those of additional data
	empty  uint8 // 32 times the number of lanes in front of the additional data
	failed bool  // the tag is wrong
	_      [4]byte
}

// A class is the packets of a burst that one kernel treats: a size of keys, and a kind of lengths. The kernels for short
// packets are for those that take exactly one, two, three and four registers of 64 bytes, and before those of two for the
// ones whose text takes just one; the last kernel is for all others.
type class uint8

const (
	kinds     = 6
	kindSlots = 8
	classes   = keySizes * kindSlots
)

// groups says what the kernels want: how many packets side by side, and a length that fills up a group.
var groups = [kindSlots]struct {
	packets int
	text    int
}{{4, 16}, {4, 64}, {4, 96}, {2, 128}, {2, 192}, {1, 0}}

// presence has a bit for each class with packets.
type presence uint64

// impossible is the bit for packets with a length that cannot be.
const impossible = presence(1) << 63

// impossible reports whether there is a packet that no kernel may touch.
func (p presence) impossible() bool { return p&(impossible|(1<<kindSlots-1)<<(keyNone*kindSlots)) != 0 }

// describe is plan for one packet with n bytes of text and a number of bytes of additional data.
func (w *work) describe(i int, text uintptr, n, aad int) (kind class) {
	empty := uint(2-(n+15)/16) % 4 // two blocks come to those of the text: J0 with the additional data, and the lengths
	kind = class(min((n+31)/64, kinds-2))
	if n > 64 {
		kind++
	}
	w.lengths[i] = [2]uint64{uint64(n) * 8, uint64(aad) * 8}
	w.heads[i], w.tags[i] = text-uintptr(16*empty+16), text+uintptr(n)
	w.tails[i] = (1<<48 - 1) >> (uint(-n) % 16)
	switch kind {
	case 0:
		w.tails[i] &= ^uint64(0) << (16*empty + 16)
	case 1:
		w.heads[i], w.tails[i] = text, ^uint64(0)>>(64-n)
	}
	w.shapes[i] = shape{text: 0xff << (2*empty + 2) & 0xff, aad: 3 << (2 * empty), empty: uint8(32 * empty)}
	return kind
}

// planEach is plan packet by packet.
func (w *work) planEach(n int) (present presence) {
	for i := range n {
		text, aad := w.extents[i].room()-TagSize, w.extents[i].aad()
		if uint(text) > MaxText || uint(aad) > MaxAAD {
			present |= impossible
			continue
		}
		w.classes[i] = w.extents[i].size()*kindSlots + w.describe(i, uintptr(unsafe.Pointer(w.texts[i])), text, aad)
		present |= 1 << w.classes[i]
	}
	return present
}

// collectEach is collect packet by packet.
func (w *work) collectEach(c class, n int) (count int) {
	for i := range n {
		if w.classes[i] == c {
			w.order[count] = uint16(8 * i)
			count++
		}
	}
	return count
}

// failuresEach is failures packet by packet.
func (w *work) failuresEach(n int) (failed uint64) {
	for i := range n {
		if w.shapes[i].failed {
			failed |= 1 << i
		}
	}
	return failed
}

// layouts are what the kernels look up by the number of empty lanes.
var layouts = makeLayouts()

// The layout of layoutTables is known to gen.
type layoutTables struct {
	// The counters of a packet's first four registers: those of the first one, and what turns them into those of the others.
	counters [4][4][4][16]byte

	// A shuffle that leaves the lane of J0, its bytes reversed, and clears the others.
	j0 [4][4][16]byte
}

// makeLayouts puts the tables at a multiple of 64, so that each register is loaded from one line of the cache.
func makeLayouts() *layoutTables {
	memory := make([]byte, unsafe.Sizeof(layoutTables{})+63)
	t := (*layoutTables)(unsafe.Pointer(&memory[-uintptr(unsafe.Pointer(&memory[0]))%64]))
	for empty := range 4 {
		for lane := range 4 {
			first := 1 - empty + lane // J0 has the counter 1
			t.counters[empty][0][lane][15] = byte(first)
			for register := 1; register < 4; register++ {
				t.counters[empty][register][lane][15] = byte(first ^ (first + 4*register))
			}
			for i := range 16 {
				t.j0[empty][lane][i] = 0x80
				if lane == empty {
					t.j0[empty][lane][i] = byte(15 - i)
				}
			}
		}
	}
	return t
}

// counters are counter blocks with nothing but the last byte: of -2 to 255.
var counters = lastBytes()

func lastBytes() (c [258][16]byte) {
	for i := range c {
		c[i][15] = byte(i - 2)
	}
	return c
}
