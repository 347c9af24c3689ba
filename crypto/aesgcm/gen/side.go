package main

import "fmt"

// A shape is a group of packets of the same number of registers that a kernel treats side by side.
type shape struct{ packets, registers int }

var sides = []shape{{4, 1}, {4, 2}, {2, 3}, {2, 4}}

// sideKeys are the registers that point to the keys of the group whose key stream is made.
var sideKeys = []string{"SI", "DI", "DX", "BX"}

// General registers of a kernel:
//
//	R8 descriptors, R9 the numbers of the group whose key stream is made, R11 work
//	of the key stream: SI, DI, DX, BX keys, CX, R12
//	of text and hash: R13 address, R14 descriptor, R15 key, AX, R10
func (a *asm) side(g shape) {
	a.text(fmt.Sprintf("%sSide%dx%d", a.name, g.packets, g.registers), 32)
	a.line("MOVQ packets+0(FP), R8")
	a.line("MOVQ order+8(FP), R9")
	a.line("MOVQ n+16(FP), R10")
	a.line("MOVQ work+24(FP), R11")
	a.line("ADDQ R9, R10")
	a.line("MOVQ R10, %d(R11)", workEnd)
	a.constants()
	if g.packets == 4 {
		a.line("MOVL $0x0c, AX")
		a.line("KMOVB AX, %s", maskLane1)
	}
	a.line("MOVL $0x30, AX")
	a.line("KMOVB AX, %s", maskLane2)
	aes, parts := a.sideKeyStream(g)
	var last stream
	a.encryptLast(&last, parts)
	a.merge(aes, nil)
	a.merge(last, nil)
	a.line("ADDQ $%d, R9", g.packets)
	a.line("CMPQ R9, %d(R11)", workEnd)
	a.line("JEQ drain")
	a.label("loop")
	hash, tail := a.sideHash(g)
	a.merge(aes, hash)
	a.merge(last, tail)
	a.line("ADDQ $%d, R9", g.packets)
	a.line("CMPQ R9, %d(R11)", workEnd)
	a.line("JNE loop")
	a.label("drain")
	a.merge(hash, nil)
	a.merge(tail, nil)
	a.clear()
}

// sideKeyStream makes the key stream of a group.
func (a *asm) sideKeyStream(g shape) (s stream, parts []part) {
	for q := range g.packets {
		key, first := sideKeys[q], state+q*g.registers
		s.op("MOVBLZX %d(R9), CX", q)
		s.op("SHLQ $6, CX")
		s.op("ADDQ R8, CX")
		s.op("MOVQ %d(CX), %s", packetKey, key)
		s.op("MOVQ %d(CX), R12", packetLengths)
		s.op("VBROADCASTI64X2 %d(CX), %s", packetNonce, z(base))
		s.op("ADDQ $(15*8), R12")
		s.op("SHRQ $7, R12")
		s.op("NEGQ R12")
		s.op("SUBQ $2, R12")
		s.op("ANDQ $3, R12") // empty lanes at the head
		s.op("SHLQ $4, R12")
		s.op("LEAQ ·counters+%d(SB), CX", counterOne)
		s.op("SUBQ R12, CX")
		s.op("VBROADCASTI64X2 %d(%s), %s", keyRounds, key, z(round))
		s.op("VPXORQ %s, %s, %s", z(round), z(base), z(base))
		for j := range g.registers {
			s.op("VPXORQ %d(CX), %s, %s", 64*j, z(base), z(first+j))
		}
		parts = append(parts, part{key, first, g.registers})
	}
	a.encrypt(&s, parts)
	return s, parts
}

// laneOf is the lane that a packet's hash ends in.
func (g shape) laneOf(q int) int { return q * 4 / g.packets }

// laneMask is the mask of the words of a packet's lane.
func (g shape) laneMask(q int) string {
	return []string{"", maskLane1, maskLane2, maskLengths}[g.laneOf(q)]
}

// sums are where the sums of a group's packets are kept. With four packets each pair is folded as soon as it is there,
// so the second of a pair may stay where sums are made.
func (g shape) sums(q int) sum {
	switch mids := []int{carry, accMid, accLo, accMid}; {
	case g == shape{4, 1}:
		return sum{lo: keys + 4 + q, mid: mids[q], hi: keys + q}
	case g == shape{4, 2}:
		return sum{lo: keys + 2*q + 1, mid: mids[q], hi: keys + 2*q}
	}
	return []sum{{lo: carry, mid: accLo, hi: accMid}, {lo: accHi, mid: spare, hi: temp[1]}}[q]
}

// sideHash treats the text of the group before R9.
func (a *asm) sideHash(g shape) (s, tail stream) {
	for q := range g.packets {
		a.sideText(&s, g, q)
		if q%2 == 1 {
			fold(&s, g.sums(q-1), g.sums(q), 0x44, 0xee)
		}
	}
	total := g.sums(0)
	if g.packets == 4 {
		fold(&s, total, g.sums(2), 0x88, 0xdd)
	}
	a.reduce(&s, &total, accHi)
	h, t := z(accHi), z(temp[2])
	if g.packets == 2 { // each packet's hash is still in two lanes
		tail.op("VSHUFI64X2 $0xb1, %s, %s, %s", h, h, t)
		tail.op("VPXORQ %s, %s, %s", t, h, h)
	}
	tail.op("VPSHUFB %s, %s, %s", z(swap), h, h)
	tail.op("VPXORQ %s, %s, %s", z(tags), h, h)
	if a.open {
		a.sideCompare(&tail, g)
		return s, tail
	}
	for q := range g.packets {
		tail.op("MOVQ %d(R11), AX", workTag+8*q)
		tail.op("VEXTRACTI64X2 $%d, %s, (AX)", g.laneOf(q), h)
	}
	return s, tail
}

// sideText treats the text of one packet and leaves the sum of its products.
func (a *asm) sideText(s *stream, g shape, q int) {
	s.op("MOVBLZX %d(R9), R14", q-g.packets)
	s.op("SHLQ $6, R14")
	s.op("ADDQ R8, R14")
	s.op("MOVQ %d(R14), R15", packetKey)
	s.op("MOVQ %d(R14), AX", packetLengths)
	s.op("MOVQ %d(R14), R13", packetText)
	s.op("MOVQ AX, R10")
	s.op("SHRQ $3, R10")
	s.op("ADDQ R13, R10")
	s.op("MOVQ R10, %d(R11)", workTag+8*q)
	makeMasks(s, "R10")
	s.op("SUBQ R10, R13")
	first := keys + q*g.registers
	s.op("VMOVDQU64 %s, %d(R11)", z(first), workStream+64*q)
	j0 := fmt.Sprintf("VBROADCASTI64X2 %d(R11)(R10*1), ", workStream+64*q)
	if q == 0 {
		s.op(j0+"%s", z(tags))
	} else {
		s.op(j0+"%s, %s", g.laneMask(q), z(tags))
	}
	sum := g.sums(q)
	at := func(j int) power { return power{key: "R15", index: keyPowerTiles - g.registers + j} }
	for j := range g.registers {
		last := g.registers - 1
		a.cipher(s, first+j, place{head: j == 0, tail: j == last, addr: fmt.Sprintf("%d(R13)", 64*j-16), packet: "R14"})
		switch {
		case j%2 == 1:
			a.multiply(s, &sum, first+j-1, first+j, at(j-1), at(j))
		case j == last:
			a.multiplyOne(s, &sum, first+j, at(j))
		}
	}
}

// sideCompare compares the hashes with the tags behind the texts.
func (a *asm) sideCompare(s *stream, g shape) {
	h, t := z(accHi), z(temp[2])
	for q := range g.packets {
		s.op("MOVQ %d(R11), AX", workTag+8*q)
		if q == 0 {
			s.op("VBROADCASTI64X2 (AX), %s", t)
		} else {
			s.op("VBROADCASTI64X2 (AX), %s, %s", g.laneMask(q), t)
		}
	}
	s.op("VPXORQ %s, %s, %s", t, h, h)
	s.op("VPTESTMQ %s, %s, %s", h, h, maskTemp)
	s.op("KMOVB %s, AX", maskTemp)
	for q := range g.packets {
		s.together(fmt.Sprintf("MOVBLZX %d(R9), R14", q-g.packets),
			fmt.Sprintf("TESTL $%#x, AX", 3<<(2*g.laneOf(q))), fmt.Sprintf("SETNE %d(R11)(R14*1)", workFailed))
	}
}

// fold adds pairs of lanes of two sums: after two steps each of four sums is in a lane of its own.
func fold(s *stream, a, b sum, even, odd int) {
	t, u := z(temp[2]), z(temp[3])
	for _, r := range [][2]int{{a.lo, b.lo}, {a.mid, b.mid}, {a.hi, b.hi}} {
		s.op("VSHUFI64X2 $%#02x, %s, %s, %s", even, z(r[1]), z(r[0]), t)
		s.op("VSHUFI64X2 $%#02x, %s, %s, %s", odd, z(r[1]), z(r[0]), u)
		s.op("VPXORQ %s, %s, %s", t, u, z(r[0]))
	}
}
