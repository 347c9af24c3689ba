package main

import "fmt"

// A shape is a group of packets of the same number of registers that a kernel treats side by side.
type shape struct{ packets, registers int }

var sides = []shape{{4, 1}, {4, 2}, {2, 3}, {2, 4}}

// sideKeys are the registers that point to the keys of the group whose key stream is made.
var sideKeys = []string{"SI", "DI", "DX", "BX"}

// General registers of a kernel:
//
//	R8 descriptors, R9 the numbers of the group whose key stream is made, R10 layouts, R11 work
//	of the key stream: SI, DI, DX, BX keys, CX number, R12
//	of text and hash: R13 address, R14 number, R15 key, AX
func (a *asm) side(g shape) {
	a.text(fmt.Sprintf("%sSide%dx%d", a.name, g.packets, g.registers), 32)
	a.line("MOVQ packets+0(FP), R8")
	a.line("MOVQ order+8(FP), R9")
	a.line("MOVQ n+16(FP), R10")
	a.line("MOVQ work+24(FP), R11")
	a.line("LEAQ (R9)(R10*2), R10")
	a.line("MOVQ R10, %d(R11)", workEnd)
	a.line("MOVQ ·layouts(SB), R10")
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
	a.line("ADDQ $%d, R9", 2*g.packets)
	a.line("CMPQ R9, %d(R11)", workEnd)
	a.line("JEQ drain")
	a.label("loop")
	hash, tail := a.sideHash(g)
	a.merge(aes, hash)
	a.merge(last, tail)
	a.line("ADDQ $%d, R9", 2*g.packets)
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
		s.op("MOVWLZX %d(R9), CX", 2*q)
		s.op("MOVQ %d(R8)(CX*8), %s", packetKey, key)
		s.op("MOVBLZX %d(R11)(CX*1), R12", workShapeEmpty)
		s.op("VBROADCASTI64X2 %d(R8)(CX*8), %s", packetNonce, z(first))
		s.op("VBROADCASTI64X2 %d(%s), %s", keyRounds, key, z(round))
		s.op("VPTERNLOGQ $0x96, %d(R10)(R12*8), %s, %s", layoutCounters, z(round), z(first))
		for j := 1; j < g.registers; j++ {
			s.op("VPXORQ %d(R10)(R12*8), %s, %s", layoutCounters+64*j, z(first), z(first+j))
		}
		parts = append(parts, part{key: key, first: first, n: g.registers})
	}
	a.encrypt(&s, parts)
	return s, parts
}

// laneOf is the lane that a packet's hash ends in.
func (g shape) laneOf(q int) int { return q * 4 / g.packets }

// intoLane is the operand that limits an instruction to the words of a lane. For lane 0 there is none: it comes first, and the
// others overwrite what it leaves in theirs.
var intoLane = [4]string{"", maskLane1 + ", ", maskLane2 + ", ", maskLengths + ", "}

// sums are where the sums of a group's packets are kept: the high part in the packet's first register, as multiply leaves
// it. With four packets each pair is folded as soon as it is there, so that two of them share a register.
func (g shape) sums(q int) sum {
	sum := sum{hi: keys + q*g.registers, lo: keys + q*g.registers + 1, mid: []int{carry, accMid, accLo, accMid}[q], tagged: true}
	switch {
	case g == shape{4, 1}:
		sum.lo = keys + 4 + q
	case g.packets == 2:
		sum.lo = []int{accHi, base}[q]
	}
	return sum
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
	a.sideTags(&tail, g)
	return s, tail
}

// sideTags compares the hashes in accHi with the tags behind the texts, or writes them there.
func (a *asm) sideTags(s *stream, g shape) {
	h, t := z(accHi), z(temp[2])
	number := func(q int) string { return fmt.Sprintf("MOVWLZX %d(R9), R14", 2*(q-g.packets)) }
	for q := range g.packets {
		s.op("%s", number(q))
		s.op("MOVQ %d(R11)(R14*1), AX", workTags)
		switch lane := g.laneOf(q); {
		case a.open:
			s.op("VBROADCASTI64X2 (AX), %s%s", intoLane[lane], t)
		case lane == 0:
			s.op("VMOVDQU64 %s, (AX)", x(accHi))
		default:
			s.op("VEXTRACTI64X2 $%d, %s, (AX)", lane, h)
		}
	}
	if !a.open {
		return
	}
	s.op("VPXORQ %s, %s, %s", t, h, h)
	s.op("VPTESTMQ %s, %s, %s", h, h, maskTemp)
	s.op("KMOVB %s, AX", maskTemp)
	for q := range g.packets {
		s.together(number(q),
			fmt.Sprintf("TESTL $%#x, AX", 3<<(2*g.laneOf(q))), fmt.Sprintf("SETNE %d(R11)(R14*1)", workFailed))
	}
}

// sideText treats the text of one packet and leaves the sum of its products.
func (a *asm) sideText(s *stream, g shape, q int) {
	s.op("MOVWLZX %d(R9), R14", 2*(q-g.packets))
	s.op("MOVQ %d(R8)(R14*8), R15", packetKey)
	s.op("MOVQ %d(R11)(R14*1), R13", workHeads)
	loadMasks(s, "R14")
	first := keys + q*g.registers
	sum := g.sums(q)
	takeJ0(s, "R10", "R14", first, z(sum.mid))
	at := func(j int) power { return power{key: "R15", index: keyPowerTiles - g.registers + j} }
	for j := range g.registers {
		a.cipher(s, first+j, place{head: j == 0, tail: j == g.registers-1, addr: fmt.Sprintf("%d(R13)", 64*j), packet: "R14"})
		switch index := at(j).index; {
		case index%2 == 0:
		case j == 0:
			a.multiplyOne(s, &sum, first, at(0))
		default:
			a.multiply(s, &sum, first+j-1, first+j, at(j-1), at(j))
		}
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
