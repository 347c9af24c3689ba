package aesgcm

import "unsafe"

// packet is what is known of a packet. Its layout is known to gen.
type packet struct {
	key      *context
	text     *byte
	textBits uint64
	aadBits  uint64
	salt     uint32
	iv       [2]uint32
	_        uint32 // 0, where the counter will be
	aad      [2]uint64
}

// work is what a kernel writes beside texts and tags. Its layout is known to gen.
type work struct {
	streams [side][64]byte // key streams, wiped at the end
	failed  [MaxBurst + side + 4]bool
	tags    [side]uintptr
	end     uintptr
}

// side is how many packets go side by side at the most.
const side = 4

// A class is a kind of packets of a burst, which one kernel treats, by number.
type class struct {
	order [2 * MaxBurst]uint8
	n     uint
}

// kinds is how many kernels there are for packets of different lengths. The kernels for short packets are for those
// that take exactly one, two, three and four registers of 64 bytes, the last kernel is for all others.
const kinds = 5

// groups says what the kernels for short packets want: how many side by side, and a length that fills up a group.
var groups = [kinds]struct{ packets, text int }{{4, 16}, {4, 64}, {2, 128}, {2, 192}, {1, 0}}

// A Burst is some packets that are sealed or opened together. It belongs to one goroutine at a time. The zero Burst is
// empty and ready for use. It takes 9 KiB, so make one for each worker.
type Burst struct {
	n       int
	packets [MaxBurst + side]packet // the last ones fill up groups
	classes [keyClasses][kinds]class
	work    work
	spare   [side][256]byte // texts of packets that fill up groups

	portable portables
}

// Reset empties the burst.
func (b *Burst) Reset() {
	b.n = 0
	for size := range b.classes {
		for kind := range b.classes[size] {
			b.classes[size][kind].n = 0
		}
	}
}

// Len returns the number of packets.
func (b *Burst) Len() int { return b.n }

// Add adds a packet with a text of len(text)-TagSize bytes and room for the tag behind it. The text is used in place by
// Seal and Open, so it must not overlap with another. iv is 8 bytes as binary.LittleEndian reads them; one must
// never be used twice for sealing with a key. Add panics if the burst is full or a length impossible, for that is a
// mistake of the program, not of a packet.
func (b *Burst) Add(k *Key, text []byte, iv uint64, aad AAD) {
	n, i := uint(len(text)-TagSize), uint(b.n)
	if i >= MaxBurst || n > MaxText || uint(aad.Len) > MaxAAD {
		panic("aesgcm: the burst is full, or a packet has an impossible length")
	}
	p := &b.packets[i]
	p.key, p.text = k.context, unsafe.SliceData(text)
	p.textBits, p.aadBits = uint64(n)*8, uint64(aad.Len)*8
	p.salt, p.iv = k.salt, [2]uint32{uint32(iv), uint32(iv >> 32)}
	p.aad[0], p.aad[1] = aad.First, aad.Next
	if k.context == nil {
		b.addPortable(i, k)
	}
	c := &b.classes[k.size][kindOf(n)]
	c.order[c.n%uint(len(c.order))] = uint8(i)
	c.n++
	b.n++
}

// kindOf is the number of the kernel for a text of n bytes. Two blocks come to those of the text: one for J0 and the
// additional data, one for the lengths.
func kindOf(n uint) uint { return min((n+2*16+63)/64, kinds) - 1 }

// Seal encrypts all texts and writes their tags.
func (b *Burst) Seal() {
	b.run(&sealKernels)
	b.sealPortable()
}

// Open checks all tags and decrypts the texts. It returns how many packets are not authentic; their texts are wiped.
func (b *Burst) Open() (failed int) {
	b.run(&openKernels)
	b.openPortable()
	for i := range b.n {
		if b.work.failed[i] {
			failed++
			clear(unsafe.Slice(b.packets[i].text, b.packets[i].textBits/8))
		}
	}
	return failed
}

// Failed reports whether packet i, counted in the order of Add, was found not authentic by Open.
func (b *Burst) Failed(i int) bool { return b.work.failed[i] }

// A kernel treats the packets whose n numbers are in order: a multiple of what goes side by side, and at least one.
type kernel func(packets *packet, order *uint8, n int, work *work)

func (b *Burst) run(kernels *[keyPortable][kinds]kernel) {
	for size := range kernels {
		for kind := range kinds {
			if c := &b.classes[size][kind]; c.n > 0 {
				kernels[size][kind](&b.packets[0], &c.order[0], b.fill(c, kind), &b.work)
			}
		}
	}
}

// nobody is the key of packets that fill up a group. It encrypts nothing.
var nobody context

// fill adds packets of nobody behind a class until its groups are full, and returns how many packets there are then.
func (b *Burst) fill(c *class, kind int) int {
	n, g := int(c.n), groups[kind]
	for i := 0; n%g.packets != 0; i++ {
		p := &b.packets[MaxBurst+i]
		p.key, p.text, p.textBits = &nobody, &b.spare[i][64], uint64(g.text)*8
		c.order[n] = uint8(MaxBurst + i)
		n++
	}
	return n
}

// counters are counter blocks with nothing but the last byte: of -2 to 255.
var counters = lastBytes()

func lastBytes() (c [258][16]byte) {
	for i := range c {
		c[i][15] = byte(i - 2)
	}
	return c
}
