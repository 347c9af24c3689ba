package aesgcm

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// packet is what is known of a packet but for its text. Its layout is known to gen.
type packet struct {
	key     unsafe.Pointer // *context, or *aeadKey
	_       [24]byte
	_       [SaltSize]byte // the block that is counted on: salt and counter, which are 0 here, and the IV between them
	iv      [IVSize]byte
	_       [4]byte
	aad     uint64
	restAAD uint64
}

// A Burst is some packets that are sealed or opened together. It belongs to one goroutine at a time. The zero Burst is
// empty and ready for use. It takes 11 KiB, so make one for each worker.
type Burst struct {
	self    *Burst // who has work.rounds: a copy does not
	n       int
	packets [MaxBurst]packet
	fillers [side]packet // they follow packets, and fill up groups
	work    work
	spare   [side][256]byte // texts of fillers

	portable scratch
}

// Reset empties the burst.
func (b *Burst) Reset() {
	b.n = 0
	b.work.extents = [MaxBurst]extent{} // not in one assignment with n, which would make a copy
}

// Len returns the number of packets.
func (b *Burst) Len() int { return b.n }

// Set makes packet i one with a text of len(text)-TagSize bytes and room for the tag behind it. The text is used in place
// by Seal and Open, so it must not overlap with another. iv is 8 bytes as binary.LittleEndian reads them; one must never be
// used twice for sealing with a key. The packets of a burst are those up to the last one that was set. Set panics if i is
// not below MaxBurst; Seal and Open do, before they touch anything, if a packet was left out, its length is impossible or
// its Key is one that was wiped or never made, for those are mistakes of the program, not of a packet.
//
// Set is small enough to be inlined, and gets i because a counter in memory would make each call wait for the one before.
// It takes half the time of a function that does for one packet what plan does for eight.
func (b *Burst) Set(i int, k *Key, text []byte, iv uint64, aad AAD) {
	p := &b.packets[i]
	if i >= b.n {
		b.n = i + 1
	}
	p.key, b.work.texts[i] = k.state, unsafe.SliceData(text)
	binary.LittleEndian.PutUint64(p.iv[:], iv)
	p.aad, p.restAAD = aad.First, aad.Next
	b.work.extents[i] = extent(len(text)) | extent(aad.Len)<<aadShift | k.size
}

// Seal encrypts all texts and writes their tags.
func (b *Burst) Seal() {
	if b.run(&sealKernels) {
		b.sealPortable()
	}
}

// Open checks all tags and decrypts the texts. It returns how many packets are not authentic; their texts are wiped.
func (b *Burst) Open() (failed int) {
	if b.run(&openKernels) {
		b.openPortable()
	}
	failures := b.work.failures(b.n)
	for left := failures; left != 0; left &= left - 1 {
		i := bits.TrailingZeros64(left)
		clear(b.room(i)[:b.work.extents[i].room()-TagSize])
	}
	return bits.OnesCount64(failures)
}

// Failed reports whether packet i was found not authentic by Open.
func (b *Burst) Failed(i int) bool { return b.work.shapes[i].failed }

// room is text and tag of a packet whose length plan has checked.
func (b *Burst) room(i int) []byte { return unsafe.Slice(b.work.texts[i], b.work.extents[i].room()) }

// A kernel treats the packets whose n numbers are in order: a multiple of what goes side by side, and at least one.
type kernel func(packets *packet, order *uint16, n int, work *work)

// run gives each class of packets to its kernel, and reports whether there are packets without one.
func (b *Burst) run(kernels *[classes]kernel) (portable bool) {
	present := b.work.plan(b.n)
	if present.impossible() {
		panic("aesgcm: a packet has an impossible length, or a key that was wiped or never made")
	}
	if b.self != b && accelerated {
		b.self, b.work.rounds = b, takeSpread(b)
	}
	for ; present != 0; present &= present - 1 {
		c := class(bits.TrailingZeros64(uint64(present)))
		if kernels[c] == nil {
			return true // as all classes that follow
		}
		n := b.fill(c, b.work.collect(c, b.n))
		kernels[c](&b.packets[0], &b.work.order[0], n, &b.work)
	}
	return false
}

// nobody is the key of fillers. It encrypts nothing.
var nobody context

// fill adds fillers to the n packets of a class until its groups are full, and returns how many packets there are then.
func (b *Burst) fill(c class, n int) int {
	g := groups[c%kindSlots]
	for i := 0; n%g.packets != 0; i++ {
		b.fillers[i].key = unsafe.Pointer(&nobody)
		b.work.describe(MaxBurst+i, uintptr(unsafe.Pointer(&b.spare[i][64])), g.text, 0)
		b.work.order[n] = uint16(8 * (MaxBurst + i))
		n++
	}
	return n
}
