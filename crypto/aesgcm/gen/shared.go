package main

import "fmt"

// The kernel for packets whose text fits into one register with little to spare: three or four blocks. On their own they
// would take two registers each, of which a quarter or more is empty. Here four packets side by side share the registers
// for what comes beside their text:
//
//	four of     CTR    J0+1          J0+2          J0+3          J0+4
//	            GHASH  text 1        text 2        text 3        text 4
//	one of      CTR    J0 of packet 0, of packet 1, of packet 2, of packet 3
//	two of      GHASH  AAD, lengths of a packet    AAD, lengths of the next
//
// The first is multiplied with H^5 to H^2 (H^4 to H if there are three blocks: the empty lane adds nothing), the last with
// the power of each lane. When a pair of packets is folded, two lanes are left for each, and they are those of the last.
const (
	sharedPackets = 4
	sharedJ0      = 4  // state of the four J0
	sharedRound   = 5  // their round keys
	sharedCount   = 27 // constant: the counters of a text
	sharedTag     = 6  // E(J0) of the packets whose text is treated
)

// General registers are used as by the kernels for packets side by side.
func (a *asm) shared() {
	a.text(a.name+"Shared4x1", 32)
	a.line("MOVQ packets+0(FP), R8")
	a.line("MOVQ order+8(FP), R9")
	a.line("MOVQ n+16(FP), R10")
	a.line("MOVQ work+24(FP), R11")
	a.line("LEAQ (R9)(R10*2), R10")
	a.constants()
	a.line("MOVL $0x0c, AX")
	a.line("KMOVB AX, %s", maskLane1)
	a.line("MOVL $0x30, AX")
	a.line("KMOVB AX, %s", maskLane2)
	a.line("VMOVDQU64 ·counters+%d(SB), %s", counterOne+16, z(sharedCount))
	aes := a.sharedKeyStream()
	last := a.sharedLast()
	a.merge(aes, nil)
	a.merge(last, nil)
	a.line("ADDQ $%d, R9", 2*sharedPackets)
	a.line("CMPQ R9, R10")
	a.line("JEQ drain")
	a.label("loop")
	hash, tail := a.sharedHash()
	a.merge(aes, hash)
	a.merge(last, tail)
	a.line("ADDQ $%d, R9", 2*sharedPackets)
	a.line("CMPQ R9, R10")
	a.line("JNE loop")
	a.label("drain")
	a.merge(hash, nil)
	a.merge(tail, nil)
	a.clear()
}

// sharedKeyStream makes the key stream of four packets, but for the last round.
func (a *asm) sharedKeyStream() (s stream) {
	for q, key := range sideKeys {
		s.op("MOVWLZX %d(R9), CX", 2*q)
		s.op("MOVQ %d(R8)(CX*8), %s", packetKey, key)
		s.op("VBROADCASTI64X2 %d(R8)(CX*8), %s", packetNonce, z(q))
		s.op("VBROADCASTI64X2 %d(%s), %s", keyRounds, key, z(round))
		s.op("VPTERNLOGQ $0x96, %s, %s, %s", z(sharedCount), z(round), z(q))
		s.op("VMOVDQA64 %s, %s%s", z(q), intoLane[q], z(sharedJ0))
	}
	s.op("VPXORQ ·toJ0(SB), %s, %s", z(sharedJ0), z(sharedJ0))
	for r := 1; r < a.rounds; r++ {
		for q := range sideKeys {
			s.op("VAESENC %s, %s, %s", a.sharedRoundKey(&s, q, r), z(q), z(q))
		}
		s.op("VAESENC %s, %s, %s", z(sharedRound), z(sharedJ0), z(sharedJ0))
	}
	return s
}

// sharedLast goes through the last round.
func (a *asm) sharedLast() (s stream) {
	for q := range sideKeys {
		s.op("VAESENCLAST %s, %s, %s", a.sharedRoundKey(&s, q, a.rounds), z(q), z(keys+q))
	}
	s.op("VAESENCLAST %s, %s, %s", z(sharedRound), z(sharedJ0), z(keys+sharedJ0))
	return s
}

// sharedRoundKey spreads a round key of packet q into the register that it returns, and puts it into its lane for J0.
func (a *asm) sharedRoundKey(s *stream, q, r int) string {
	from := fmt.Sprintf("%d(%s)", keyRounds+16*r, sideKeys[q])
	if q == 0 { // the other lanes are overwritten
		s.op("VBROADCASTI64X2 %s, %s", from, z(sharedRound))
		return z(sharedRound)
	}
	s.op("VBROADCASTI64X2 %s, %s", from, z(round))
	s.op("VMOVDQA64 %s, %s%s", z(round), intoLane[q], z(sharedRound))
	return z(round)
}

// sharedHash treats the texts of the packets before R9.
func (a *asm) sharedHash() (s, tail stream) {
	s.op("VMOVDQA64 %s, %s", z(keys+sharedJ0), z(sharedTag))
	total, next := sum{lo: 16, mid: 17, hi: 18}, sum{lo: 19, mid: 26, hi: 7}
	a.sharedPair(&s, 0, total)
	a.sharedPair(&s, 2, next)
	fold(&s, total, next, 0x88, 0xdd)
	a.reduce(&s, &total, accHi)
	h := z(accHi)
	tail.op("VPSHUFB %s, %s, %s", z(swap), h, h)
	tail.op("VPXORQ %s, %s, %s", z(sharedTag), h, h)
	a.sideTags(&tail, shape{sharedPackets, 1})
	return s, tail
}

// The registers of a pair of packets beside their text, which is in that of the key stream.
const (
	sharedPowers = 13 // of H for the text, one register for each packet
	sharedEnds   = 15 // additional data and lengths of both
	sharedEndsH  = 30 // and their powers
)

// The addresses of powers, from a context. The kernel adds half of shape.empty to it for powers that depend on the length:
// 32 if there are four blocks of text, 48 if there are three.
const (
	powerOfLengths = keyPowers + 31*16
	powersOfText   = powerOfLengths - 4*16 - 32
	powerOfAAD     = powerOfLengths - 5*16 - 32
)

// sharedPair treats the texts of packet q and the next one, and leaves the sum of their products, two lanes for each.
func (a *asm) sharedPair(s *stream, q int, to sum) {
	a.sharedText(s, q, intoLane[0], intoLane[1])
	a.sharedText(s, q+1, intoLane[2], intoLane[3])
	s.op("VPSHUFB %s, %s, %s", z(swap), z(sharedEnds), z(sharedEnds))
	for i, lane := range []string{intoLane[1], intoLane[3]} {
		s.op("MOVWLZX %d(R9), R14", 2*(q+i-sharedPackets))
		s.op("VBROADCASTI64X2 %d(R11)(R14*2), %s%s", workLengths, lane, z(sharedEnds))
	}
	a.sharedProducts(s, keys+q, to)
}

// sharedText encrypts or decrypts the text of packet q, leaves it as the hash's input, and loads what comes with it, into
// the lanes for its additional data and its lengths.
func (a *asm) sharedText(s *stream, q int, aad, lengths string) {
	ks, t := z(keys+q), z(temp[1])
	s.op("MOVWLZX %d(R9), R14", 2*(q-sharedPackets))
	s.op("MOVQ %d(R8)(R14*8), R15", packetKey)
	s.op("MOVQ %d(R11)(R14*1), R13", workHeads)
	s.op("KMOVQ %d(R11)(R14*1), %s", workTails, maskTail)
	s.op("VMOVDQU8.Z (R13), %s, %s", maskTail, t)
	s.op("VPXORQ %s, %s, %s", t, ks, ks)
	s.op("VMOVDQU8 %s, %s, (R13)", ks, maskTail)
	if !a.open {
		s.op("VMOVDQU8.Z %s, %s, %s", ks, maskTail, t)
	}
	s.op("VPSHUFB %s, %s, %s", z(swap), t, ks)
	s.op("VBROADCASTI64X2 %d(R8)(R14*8), %s%s", packetAAD, aad, z(sharedEnds))
	s.together(fmt.Sprintf("MOVBLZX %d(R11)(R14*1), AX", workShapeEmpty), "SHRL $1, AX", "ADDQ R15, AX")
	s.op("VMOVDQU64 %d(AX), %s", powersOfText, z(sharedPowers+q%2))
	s.op("VBROADCASTI64X2 %d(AX), %s%s", powerOfAAD, aad, z(sharedEndsH))
	s.op("VBROADCASTI64X2 %d(R15), %s%s", powerOfLengths, lengths, z(sharedEndsH))
}

// sharedProducts multiplies the two texts from a register on, and what is beside them. The sums of halves of powers are made
// here: the table has them for other pairs, and a cold context is a line of the cache shorter.
func (a *asm) sharedProducts(s *stream, text int, to sum) {
	x, y, ends := z(text), z(text+1), z(sharedEnds)
	px, py, pends := z(sharedPowers), z(sharedPowers+1), z(sharedEndsH)
	k, t := z(temp[0]), z(temp[1])
	lox, midx, loy, midy := z(temp[2]), z(temp[3]), z(temp[4]), z(temp[5])
	lo, mid, hi := z(to.lo), z(to.mid), z(to.hi)
	s.op("VPUNPCKLQDQ %s, %s, %s", y, x, midx)
	s.op("VPUNPCKHQDQ %s, %s, %s", y, x, midy)
	s.op("VPUNPCKLQDQ %s, %s, %s", py, px, k)
	s.op("VPUNPCKHQDQ %s, %s, %s", py, px, t)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", px, x, lox)
	s.op("VPXORQ %s, %s, %s", midx, midy, midy)
	s.op("VPXORQ %s, %s, %s", t, k, k)
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", px, x, x)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", k, midy, midx)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", py, y, loy)
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", py, y, y)
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", k, midy, midy)
	s.op("VPSHUFD $0x4e, %s, %s", ends, mid)
	s.op("VPSHUFD $0x4e, %s, %s", pends, t)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", pends, ends, lo)
	s.op("VPXORQ %s, %s, %s", ends, mid, mid)
	s.op("VPXORQ %s, %s, %s", pends, t, t)
	s.op("VPCLMULQDQ $0x11, %s, %s, %s", pends, ends, hi)
	s.op("VPCLMULQDQ $0x00, %s, %s, %s", t, mid, mid)
	for _, r := range [][3]string{{lox, loy, lo}, {midx, midy, mid}, {x, y, hi}} {
		s.op("VSHUFI64X2 $0x44, %s, %s, %s", r[1], r[0], k)
		s.op("VSHUFI64X2 $0xee, %s, %s, %s", r[1], r[0], t)
		s.op("VPTERNLOGQ $0x96, %s, %s, %s", k, t, r[2])
	}
}
