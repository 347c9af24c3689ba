package main

import "fmt"

// Registers. The key stream of a tile is made in Z0 to Z7 and stands in Z8 to Z15 while the next is made; there the
// text and then the hash's input take its place.
const (
	state  = 0
	keys   = 8
	carry  = 16 // any: the hash so far, one part per lane
	accLo  = 17
	accMid = 18
	accHi  = 19
	round  = 25 // round key
	base   = 27 // any: nonce and first round key, and the counter's upper bytes; side: a sum
	swap   = 28 // constant: reverses the bytes of each lane
	poly   = 29 // constant: for the reduction
	tag    = 30 // any: E(J0), its bytes reversed, in one lane
)

var temp = [6]int{20, 21, 22, 23, 24, 31}

// Mask registers.
const (
	maskHead    = "K1" // 64-bit words of text in a packet's first register
	maskTail    = "K2" // bytes of text in its last one
	maskAAD     = "K3" // 64-bit words of the additional data's lane in the first register
	maskFirst   = "K4" // any: all bytes if the tile is its packet's first, else none
	maskLane1   = "K4" // side: words of lane 1, and so on
	maskLane2   = "K5"
	maskLengths = "K6" // words of lane 3
	maskTemp    = "K7"
)

// Offsets in a packet's descriptor, struct packet.
const (
	packetKey   = 0
	packetNonce = 32 // 12 bytes, then 0
	packetAAD   = 48 // 16 bytes, zero behind the data
)

// Offsets in a key's context, struct context.
const (
	keyRounds     = 16
	keyPowers     = 256 // H^32 ... H^1, each multiplied by x
	keyKaratsuba  = 768 // of two registers of powers each: the sum of its halves
	keyPowerTiles = 8   // registers of powers
)

// Offsets in counters: blocks with the last byte of a counter from -2 to 255.
const (
	counterOne = 16 * 3
	counterEnd = 16 * 258
)

// Offsets in layouts, by the number of empty lanes.
const (
	layoutCounters = 0    // 256 bytes each
	layoutJ0       = 1024 // 64 bytes each
)

// Offsets in struct work. The numbers are the size of an entry, over 8.
const (
	workLengths    = 1024 // 2
	workHeads      = 2112 // 1
	workTags       = 2656 // 1
	workTails      = 3200 // 1
	workShapeText  = 3744 // 1
	workShapeAAD   = 3745
	workShapeEmpty = 3746
	workFailed     = 3747
	workRounds     = 4488 // a pointer
	workEnd        = 4496
)

// encrypt goes through the rounds of AES but for the last, after the counters were xored with the first round key.
func (a *asm) encrypt(s *stream, parts []part) {
	for r := 1; r < a.rounds; r++ {
		for _, p := range parts {
			rk := z(round)
			a.roundKey(s, p, r)
			for j := range p.n {
				s.op("VAESENC %s, %s, %s", rk, z(p.first+j), z(p.first+j))
			}
		}
	}
}

// encryptLast goes through the last round. It follows the hash, which until then uses the registers for key streams.
func (a *asm) encryptLast(s *stream, parts []part) {
	for _, p := range parts {
		rk := z(round)
		a.roundKey(s, p, a.rounds)
		for j := range p.n {
			s.op("VAESENCLAST %s, %s, %s", rk, z(p.first+j), z(keys+p.first+j))
		}
	}
}

// roundKey loads a round key into all lanes. To spread a key costs as much as a round of AES for one register, so packets
// of several tiles spread it once.
func (a *asm) roundKey(s *stream, p part, r int) {
	if p.spread == loaded {
		s.op("VMOVDQU64 %d(%s), %s", 64*r, spreadRounds, z(round))
		return
	}
	s.op("VBROADCASTI64X2 %d(%s), %s", keyRounds+16*r, p.key, z(round))
	if p.spread == stored {
		s.op("VMOVDQU64 %s, %d(%s)", z(round), 64*r, spreadRounds)
	}
}

// A part is some registers of one packet.
type part struct {
	key      string // register that points to the context
	first, n int
	spread   spread
}

// spread says whether round keys are kept in all lanes for the next tile, or were by the one before.
type spread int

const (
	unused spread = iota
	stored
	loaded
)

// place says where in its packet a register of text is.
type place struct {
	head, tail bool
	addr       string // of its 64 bytes
	packet     string // register with the packet's number
	carried    bool   // the hash so far is added to a head
}

// cipher xors a register's text with its key stream, stores it, and leaves the hash's input in the key stream's place.
func (a *asm) cipher(s *stream, reg int, p place) {
	ks, t := z(reg), z(temp[0])
	move, mask := "VMOVDQU64", ""
	switch {
	case p.tail: // where it is the head too, the mask is of both
		move, mask = "VMOVDQU8", maskTail+", "
	case p.head:
		mask = maskHead + ", "
	}
	hashed := ks // where the cipher text is
	switch {
	case a.open && mask == "":
		s.op("VMOVDQU64 %s, %s", p.addr, t)
		s.op("VPXORQ %s, %s, %s", t, ks, ks)
		hashed = t
	case a.open:
		s.op("%s.Z %s, %s%s", move, p.addr, mask, t)
		s.op("VPXORQ %s, %s, %s", t, ks, ks)
		hashed = t
	case mask == "":
		s.op("VPXORQ %s, %s, %s", p.addr, ks, ks)
	case !p.tail:
		s.op("VPXORQ.Z %s, %s, %s%s", p.addr, ks, mask, ks)
	default:
		s.op("VMOVDQU8.Z %s, %s%s", p.addr, mask, t)
		s.op("VPXORQ %s, %s, %s", t, ks, ks)
	}
	s.op("%s %s, %s%s", move, ks, mask, p.addr)
	if p.tail && !a.open {
		s.op("VMOVDQU8.Z %s, %s%s", ks, mask, ks)
	}
	if p.head {
		s.op("VBROADCASTI64X2 %d(R8)(%s*8), %s, %s", packetAAD, p.packet, maskAAD, hashed)
	}
	s.op("VPSHUFB %s, %s, %s", z(swap), hashed, ks)
	if p.tail {
		s.op("VBROADCASTI64X2 %d(R11)(%s*2), %s, %s", workLengths, p.packet, maskLengths, ks)
	}
	if p.carried {
		s.op("VPXORQ %s, %s, %s", z(carry), ks, ks)
	}
}

// loadMasks loads a packet's masks.
func loadMasks(s *stream, packet string) {
	s.op("KMOVB %d(R11)(%s*1), %s", workShapeText, packet, maskHead)
	s.op("KMOVQ %d(R11)(%s*1), %s", workTails, packet, maskTail)
	s.op("KMOVB %d(R11)(%s*1), %s", workShapeAAD, packet, maskAAD)
}

// takeJ0 leaves E(J0), its bytes reversed, in the lane that it has in the first register of key stream.
func takeJ0(s *stream, tables, packet string, reg int, to string) {
	s.together(fmt.Sprintf("MOVBLZX %d(R11)(%s*1), AX", workShapeEmpty, packet),
		fmt.Sprintf("VPSHUFB %d(%s)(AX*2), %s, %s", layoutJ0, tables, z(reg), to))
}

// A sum is the sum of products of a hash, in the three parts of Karatsuba's method: low, middle and high.
type sum struct {
	lo, mid, hi int
	begun       bool
	tagged      bool // the middle holds what must be added to the hash
}

// power says where a register of powers of H is.
type power struct {
	key     string // register that points to the context
	index   int    // among the registers of powers
	uniform bool   // the first lane's power for all lanes: the packet goes on after this tile
}

// load loads powers, and loadSums the sums of their halves, which two registers of powers share: an operand in memory
// would be loaded by each of the instructions that use it.
func (p power) load(s *stream, to string) {
	s.op("%s %d(%s), %s", p.move(), keyPowers+64*p.index, p.key, to)
}

func (p power) loadSums(s *stream, to string) {
	s.op("%s %d(%s), %s", p.move(), keyKaratsuba+64*(p.index/2), p.key, to)
}

func (p power) move() string {
	if p.uniform {
		return "VBROADCASTI64X2"
	}
	return "VMOVDQU64"
}

// half says which half of a register of sums belongs to the powers.
func (p power) half() int { return p.index % 2 << 4 }

// multiply adds the products of two registers, which it destroys, with powers at an even index and the next one. The
// first products with something to be added leave their high part in x.
func (a *asm) multiply(s *stream, sum *sum, x, y int, px, py power) {
	h, k, lox, midx, loy, midy := z(temp[1]), z(temp[0]), z(temp[2]), z(temp[3]), z(temp[4]), z(temp[5])
	s.op("VPUNPCKLQDQ %s, %s, %s", z(y), z(x), midx)
	s.op("VPUNPCKHQDQ %s, %s, %s", z(y), z(x), midy)
	px.load(s, h)
	px.loadSums(s, k)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", h, z(x), lox)
	s.op("VPXORQ %s, %s, %s", midx, midy, midy)
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", h, z(x), z(x))
	s.op("VPCLMULQDQ $%#02x, %s, %s, %s", px.half(), k, midy, midx)
	py.load(s, h)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", h, z(y), loy)
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", h, z(y), z(y))
	s.op("VPCLMULQDQ $%#02x, %s, %s, %s", py.half()|1, k, midy, midy)
	add := func(x, y string, to int, begun bool) {
		if begun {
			s.op("VPTERNLOGQ $0x96, %s, %s, %s", x, y, z(to))
		} else {
			s.op("VPXORQ %s, %s, %s", x, y, z(to))
		}
	}
	if sum.tagged && !sum.begun {
		add(z(y), z(sum.mid), x, true)
	} else {
		add(z(x), z(y), sum.hi, sum.begun)
	}
	add(lox, loy, sum.lo, sum.begun)
	add(midx, midy, sum.mid, sum.begun || sum.tagged)
	sum.begun = true
}

// multiplyOne adds the product of one register, which it destroys.
func (a *asm) multiplyOne(s *stream, sum *sum, x int, p power) {
	h, k, lo, mid := z(temp[1]), z(temp[0]), sum.lo, temp[3]
	if sum.begun {
		lo = temp[2]
	}
	p.load(s, h)
	p.loadSums(s, k)
	s.op("VPSHUFD $0x4e, %s, %s", z(x), z(mid))
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", h, z(x), z(lo))
	s.op("VPXORQ %s, %s, %s", z(x), z(mid), z(mid))
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", h, z(x), z(x))
	s.op("VPCLMULQDQ $%#02x, %s, %s, %s", p.half(), k, z(mid), z(mid))
	if sum.begun {
		s.op("VPXORQ %s, %s, %s", z(lo), z(sum.lo), z(sum.lo))
		s.op("VPXORQ %s, %s, %s", z(x), z(sum.hi), z(sum.hi))
	} else { // and tagged
		s.op("VPXORQ %s, %s, %s", z(sum.mid), z(x), z(sum.hi))
	}
	s.op("VPXORQ %s, %s, %s", z(mid), z(sum.mid), z(sum.mid))
	sum.begun = true
}

// reduce reduces a sum modulo the field's polynomial, each lane for itself, into the register for its high part. The
// powers were multiplied by x, which makes up for the reversed order of bits. Twice, 64 bits at the low end are cleared
// by adding a multiple of the polynomial.
func (a *asm) reduce(s *stream, sum *sum, to int) {
	lo, mid, hi, t := z(sum.lo), z(sum.mid), z(sum.hi), z(temp[2])
	s.op("VPTERNLOGQ $0x96, %s, %s, %s", lo, hi, mid)
	s.op("VPCLMULQDQ $0x01, %s, %s, %s", lo, z(poly), t)
	s.op("VPSHUFD $0x4e, %s, %s", lo, lo)
	s.op("VPTERNLOGQ $0x96, %s, %s, %s", t, lo, mid)
	s.op("VPCLMULQDQ $0x01, %s, %s, %s", mid, z(poly), t)
	s.op("VPSHUFD $0x4e, %s, %s", mid, z(to))
	s.op("VPTERNLOGQ $0x96, %s, %s, %s", t, hi, z(to))
}

// clear wipes the vector registers: they hold keys, key streams and text.
func (a *asm) clear() {
	for i := range 32 {
		a.line("VPXORQ %s, %s, %s", z(i), z(i), z(i))
	}
	a.line("VZEROUPPER")
	a.line("RET")
}
