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
	spare  = 26
	base   = 27 // any: nonce and first round key, and the counter's upper bytes
	swap   = 28 // constant: reverses the bytes of each lane
	poly   = 29 // constant: for the reduction
	tags   = 30 // side: E(J0) of each packet, one per lane
)

var temp = [6]int{20, 21, 22, 23, 24, 31}

// Mask registers.
const (
	maskHead    = "K1" // bytes of text in a packet's first register
	maskTail    = "K2" // and in its last one
	maskAAD     = "K3" // 64-bit words of the additional data's lane in the first register
	maskFirst   = "K4" // any: all words if the tile is its packet's first, else none
	maskLane1   = "K4" // side: words of lane 1, and so on
	maskLane2   = "K5"
	maskLengths = "K6" // words of lane 3
	maskTemp    = "K7"
)

// Offsets in a packet's descriptor, struct packet.
const (
	packetKey     = 0
	packetText    = 8
	packetLengths = 16 // bits of text, bits of additional data: 64-bit words in the order of a register
	packetNonce   = 32 // 12 bytes, then 0
	packetAAD     = 48 // 16 bytes, zero behind the data
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

// Offsets in struct work.
const (
	workStream = 0 // key streams of first registers, 64 bytes each
	workFailed = 256
	workTag    = 328 // addresses of tags
	workEnd    = 360
)

// encrypt goes through the rounds of AES but for the last, after the counters were xored with the first round key.
func (a *asm) encrypt(s *stream, parts []part) {
	for r := 1; r < a.rounds; r++ {
		for _, p := range parts {
			rk := z(round)
			s.op("VBROADCASTI64X2 %d(%s), %s", keyRounds+16*r, p.key, rk)
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
		s.op("VBROADCASTI64X2 %d(%s), %s", keyRounds+16*a.rounds, p.key, rk)
		for j := range p.n {
			s.op("VAESENCLAST %s, %s, %s", rk, z(p.first+j), z(keys+p.first+j))
		}
	}
}

// A part is some registers of one packet.
type part struct {
	key      string // register that points to the context
	first, n int
}

// place says where in its packet a register of text is.
type place struct {
	head, tail bool
	addr       string // of its 64 bytes
	packet     string // register that points to the descriptor
	carried    bool   // the hash so far is added to a head
}

// cipher xors a register's text with its key stream, stores it, and leaves the hash's input in the key stream's place.
func (a *asm) cipher(s *stream, reg int, p place) {
	ks, t := z(reg), z(temp[0])
	mask := ""
	switch {
	case p.head && p.tail:
		s.op("KANDQ %s, %s, %s", maskHead, maskTail, maskTemp)
		mask = maskTemp
	case p.head:
		mask = maskHead
	case p.tail:
		mask = maskTail
	}
	hashed := ks // where the cipher text is
	switch {
	case mask == "" && a.open:
		s.op("VMOVDQU64 %s, %s", p.addr, t)
		s.op("VPXORQ %s, %s, %s", t, ks, ks)
		s.op("VMOVDQU64 %s, %s", ks, p.addr)
		hashed = t
	case mask == "":
		s.op("VPXORQ %s, %s, %s", p.addr, ks, ks)
		s.op("VMOVDQU64 %s, %s", ks, p.addr)
	case a.open:
		s.op("VMOVDQU8.Z %s, %s, %s", p.addr, mask, t)
		s.op("VPXORQ %s, %s, %s", t, ks, ks)
		s.op("VMOVDQU8 %s, %s, %s", ks, mask, p.addr)
		hashed = t
	default:
		s.op("VMOVDQU8.Z %s, %s, %s", p.addr, mask, t)
		s.op("VPXORQ %s, %s, %s", t, ks, ks)
		s.op("VMOVDQU8 %s, %s, %s", ks, mask, p.addr)
		s.op("VMOVDQU8.Z %s, %s, %s", ks, mask, ks)
	}
	if p.head {
		s.op("VBROADCASTI64X2 %d(%s), %s, %s", packetAAD, p.packet, maskAAD, hashed)
	}
	s.op("VPSHUFB %s, %s, %s", z(swap), hashed, ks)
	if p.tail {
		s.op("VBROADCASTI64X2 %d(%s), %s, %s", packetLengths, p.packet, maskLengths, ks)
	}
	if p.carried {
		s.op("VPXORQ %s, %s, %s", z(carry), ks, ks)
	}
}

// makeMasks makes a packet's masks out of AX, the bits of its text, and leaves 16 times the number of its empty lanes in
// another register.
func makeMasks(s *stream, by string) {
	s.op("SHRQ $3, AX")
	s.op("LEAQ 15(AX), %s", by)
	s.op("SHRQ $4, %s", by)
	s.op("NEGQ AX")
	s.op("ANDQ $15, AX") // bytes missing in the last block
	s.op("SHRXQ AX, ·threeLanes(SB), AX")
	s.op("KMOVQ AX, %s", maskTail)
	s.op("NEGQ %s", by)
	s.op("SUBQ $2, %s", by)
	s.op("ANDQ $3, %s", by)
	s.op("ADDQ %s, %s", by, by)
	s.op("MOVL $3, AX")
	s.op("SHLXQ %s, AX, AX", by)
	s.op("KMOVB AX, %s", maskAAD)
	s.op("SHLQ $3, %s", by)
	s.op("MOVQ $-1, AX")
	s.op("SHLXQ %s, AX, AX", by)
	s.op("SHLQ $16, AX") // apart, because both may be 64
	s.op("KMOVQ AX, %s", maskHead)
}

// A sum is the sum of products of a hash, in the three parts of Karatsuba's method: low, middle and high.
type sum struct {
	lo, mid, hi int
	begun       bool
}

// power says where a register of powers of H is.
type power struct {
	key     string // register that points to the context
	index   int    // among the registers of powers
	uniform bool   // the first lane's power for all lanes: the packet goes on after this tile
}

// powers returns the operands for the powers and for the sums of their halves.
func (p power) operands(s *stream) (h, k string) {
	h = fmt.Sprintf("%d(%s)", keyPowers+64*p.index, p.key)
	k = fmt.Sprintf("%d(%s)", keyKaratsuba+64*(p.index/2), p.key)
	if p.uniform {
		s.op("VBROADCASTI64X2 %s, %s", h, z(temp[1]))
		s.op("VBROADCASTI64X2 %s, %s", k, z(temp[0]))
		return z(temp[1]), z(temp[0])
	}
	return h, k
}

// half says which half of a register of sums belongs to the powers.
func (p power) half() int { return p.index % 2 << 4 }

// multiply adds the products of two registers, which it destroys, with powers. Of two, the sums of the halves are made
// together.
func (a *asm) multiply(s *stream, sum *sum, x, y int, px, py power) {
	lox, midx, loy, midy := z(temp[2]), z(temp[3]), z(temp[4]), z(temp[5])
	s.op("VPUNPCKLQDQ %s, %s, %s", z(y), z(x), midx)
	s.op("VPUNPCKHQDQ %s, %s, %s", z(y), z(x), midy)
	hx, kx := px.operands(s)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", hx, z(x), lox)
	s.op("VPXORQ %s, %s, %s", midx, midy, midy)
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", hx, z(x), z(x))
	s.op("VPCLMULQDQ $%#02x, %s, %s, %s", px.half(), kx, midy, midx)
	hy, ky := py.operands(s)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", hy, z(y), loy)
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", hy, z(y), z(y))
	s.op("VPCLMULQDQ $%#02x, %s, %s, %s", py.half()|1, ky, midy, midy)
	for _, r := range [][3]string{{z(x), z(y), z(sum.hi)}, {lox, loy, z(sum.lo)}, {midx, midy, z(sum.mid)}} {
		if sum.begun {
			s.op("VPTERNLOGQ $0x96, %s, %s, %s", r[0], r[1], r[2])
		} else {
			s.op("VPXORQ %s, %s, %s", r[0], r[1], r[2])
		}
	}
	sum.begun = true
}

// multiplyOne adds the product of one register, which it destroys.
func (a *asm) multiplyOne(s *stream, sum *sum, x int, p power) {
	lo, mid, hi := sum.lo, sum.mid, sum.hi
	if sum.begun {
		lo, mid, hi = temp[2], temp[3], x
	}
	h, k := p.operands(s)
	s.op("VPSHUFD $0x4e, %s, %s", z(x), z(mid))
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", h, z(x), z(lo))
	s.op("VPXORQ %s, %s, %s", z(x), z(mid), z(mid))
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", h, z(x), z(hi))
	s.op("VPCLMULQDQ $%#02x, %s, %s, %s", p.half(), k, z(mid), z(mid))
	if sum.begun {
		s.op("VPXORQ %s, %s, %s", z(lo), z(sum.lo), z(sum.lo))
		s.op("VPXORQ %s, %s, %s", z(mid), z(sum.mid), z(sum.mid))
		s.op("VPXORQ %s, %s, %s", z(hi), z(sum.hi), z(sum.hi))
	}
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
	for i := range 4 {
		a.line("VMOVDQU64 Z0, %d(R11)", workStream+64*i)
	}
	a.line("VZEROUPPER")
	a.line("RET")
}
