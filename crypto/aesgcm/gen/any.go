package main

import "fmt"

// The kernel for packets of any length from 5 registers on. It cuts a packet into tiles of at most 8 registers: 8 as long
// as more than 16 are left, and then two of nearly the same size, because a small tile cannot hide the latency of its
// instructions. Its bodies are named by the tile whose text they treat and the tile whose key stream they make: body 85n
// treats 8 registers of a packet that goes on (n; otherwise l, its last ones) and makes the key stream of 5.
const (
	largest       = 8
	smallestFirst = 5
	smallest      = 4
)

// spreadRounds is the register that points to round keys in all lanes.
const spreadRounds = "R10"

// General registers of the kernel:
//
//	R8 descriptors, R9 the next packet's number, R10 spread round keys, R11 work
//	of the key stream: SI number, DI key, DX registers left, BX the counters' last bytes
//	of text and hash: R12 number, R13 address, R14 key, R15 layouts
func (a *asm) any() {
	a.text(a.name+"Any", 32)
	a.line("MOVQ packets+0(FP), R8")
	a.line("MOVQ order+8(FP), R9")
	a.line("MOVQ n+16(FP), R10")
	a.line("LEAQ (R9)(R10*2), R10")
	a.line("MOVQ work+24(FP), R11")
	a.line("MOVQ R10, %d(R11)", workEnd)
	a.line("MOVQ %d(R11), %s", workRounds, spreadRounds)
	a.line("MOVQ ·layouts(SB), R15")
	a.constants()
	a.line("VPXORQ %s, %s, %s", z(carry), z(carry), z(carry))
	a.next()
	a.dispatchFirst("f", 0)
	for n := smallestFirst; n <= largest; n++ {
		a.body("f", 0, n)
	}
	for g := smallestFirst; g <= largest; g++ {
		for _, n := range followers(g) {
			a.body("n", g, n)
		}
	}
	for g := smallest; g <= largest; g++ {
		for n := smallestFirst; n <= largest; n++ {
			a.body("l", g, n)
		}
		a.drain(g)
		a.turn(g)
	}
	a.label("done")
	a.line("VPXORQ Z0, Z0, Z0")
	for r := 1; r <= a.rounds; r++ {
		a.line("VMOVDQU64 Z0, %d(%s)", 64*r, spreadRounds)
	}
	a.clear()
	for _, f := range a.cold {
		f()
	}
	a.cold = nil
}

// followers are the sizes of a tile that can follow one of g registers in the same packet.
func followers(g int) []int {
	if g == largest {
		return []int{8, 7, 6, 5}
	}
	return []int{g, g - 1}
}

// constants loads what both kinds of kernels need.
func (a *asm) constants() {
	a.line("VBROADCASTI64X2 ·byteSwap(SB), %s", z(swap))
	a.line("VBROADCASTI64X2 ·polynomial(SB), %s", z(poly))
	a.line("MOVL $0xc0, AX")
	a.line("KMOVB AX, %s", maskLengths)
}

// next begins the key stream of the next packet.
func (a *asm) next() {
	a.line("MOVWLZX (R9), SI")
	a.line("ADDQ $2, R9")
	a.line("MOVQ %d(R8)(SI*8), DI", packetKey)
	a.line("MOVQ %d(R11)(SI*2), DX", workLengths)
	a.line("ADDQ $(95*8), DX")
	a.line("SHRQ $9, DX") // registers
	a.line("MOVBLZX %d(R11)(SI*1), CX", workShapeEmpty)
	a.line("SHRL $1, CX")
	a.line("LEAQ ·counters+%d(SB), BX", counterOne)
	a.line("SUBQ CX, BX")
	a.line("VBROADCASTI64X2 %d(R8)(SI*8), %s", packetNonce, z(base))
	a.line("VBROADCASTI64X2 %d(DI), %s", keyRounds, z(round))
	a.line("VPXORQ %s, %s, %s", z(round), z(base), z(base))
}

// dispatchFirst goes to the body that makes the key stream of a packet's first tile and treats g registers.
func (a *asm) dispatchFirst(kind string, g int) {
	a.line("CMPQ DX, $14")
	a.line("JHI %s", bodyName(kind, g, 8))
	a.line("CMPQ DX, $12")
	a.line("JHI %s", bodyName(kind, g, 7))
	a.line("CMPQ DX, $10")
	a.line("JHI %s", bodyName(kind, g, 6))
	a.line("CMPQ DX, $8")
	a.line("JHI %s", bodyName(kind, g, 5))
	a.line("JEQ %s", bodyName(kind, g, 8))
	a.line("CMPQ DX, $6")
	a.line("JHI %s", bodyName(kind, g, 7))
	a.line("JEQ %s", bodyName(kind, g, 6))
	a.line("JMP %s", bodyName(kind, g, 5))
}

// dispatchNext goes to the body that makes the key stream of the tile after one of g registers of the same packet.
func (a *asm) dispatchNext(g int) {
	if g < largest {
		a.line("CMPQ DX, $%d", g)
		a.line("JEQ %s", bodyName("n", g, g))
		a.line("JMP %s", bodyName("n", g, g-1))
		return
	}
	a.line("CMPQ DX, $14")
	a.line("JHI %s", bodyName("n", g, 8))
	a.line("CMPQ DX, $12")
	a.line("JHI %s", bodyName("n", g, 7))
	a.line("CMPQ DX, $10")
	a.line("JHI %s", bodyName("n", g, 6))
	a.line("CMPQ DX, $8")
	a.line("JHI %s", bodyName("n", g, 5))
	a.line("JEQ %s", bodyName("n", g, 8))
	a.line("JMP %s", bodyName("n", g, 7))
}

func bodyName(kind string, g, n int) string { return fmt.Sprintf("%s%d%d", kind, g, n) }

// body makes the key stream of n registers and treats g of the tile before: kind f none, n of a packet that goes on, l
// the last of a packet.
func (a *asm) body(kind string, g, n int) {
	name := bodyName(kind, g, n)
	a.label("%s", name)
	if kind == "n" { // elsewhere the tile is a packet's first, and its counters small
		a.line("LEAQ ·counters+%d(SB), CX", counterEnd-64*n)
		a.line("CMPQ BX, CX")
		a.line("JHI %sover", name)
		a.cold = append(a.cold, func() { a.overflow(name, n) })
	}
	var aes, hash, tail stream
	for j := range n {
		a.line("VPXORQ %d(BX), %s, %s", 64*j, z(base), z(state+j))
	}
	if kind == "n" {
		a.label("%sgo", name)
	}
	parts := []part{{key: "DI", first: state, n: n, spread: stored}}
	if kind == "n" {
		parts[0].spread = loaded
	}
	a.encrypt(&aes, parts)
	if kind != "f" {
		a.hash(&hash, &tail, g, kind == "l")
	}
	a.merge(aes, hash)
	var last stream
	a.encryptLast(&last, parts)
	a.merge(last, tail)
	if kind == "n" {
		a.advance(g)
		a.line("JMP advanced%d", n)
	} else {
		a.line("JMP taken%d", n)
	}
}

// turn is what follows a body: the tile of n registers whose key stream was made becomes the one whose text is treated,
// and the next key stream is chosen.
func (a *asm) turn(n int) {
	if n >= smallestFirst { // else the tile is its packet's last, and not the first
		a.label("taken%d", n)
		a.take()
	}
	a.label("advanced%d", n)
	a.line("ADDQ $%d, BX", 64*n)
	a.line("SUBQ $%d, DX", n)
	if n >= smallestFirst {
		a.line("JNE more%d", n)
	}
	a.line("CMPQ R9, %d(R11)", workEnd)
	a.line("JEQ %s", bodyName("d", n, 0))
	a.next()
	a.dispatchFirst("l", n)
	if n >= smallestFirst {
		a.label("more%d", n)
		a.dispatchNext(n)
	}
}

// drain treats the last tile of the last packet.
func (a *asm) drain(g int) {
	a.label("%s", bodyName("d", g, 0))
	var hash, tail stream
	a.hash(&hash, &tail, g, true)
	a.merge(hash, nil)
	a.merge(tail, nil)
	a.line("JMP done")
}

// overflow makes a tile's counters where the last byte overflows: from numbers, in the order of the machine, with the
// counter in the first word of each lane, whose bytes are then reversed.
func (a *asm) overflow(name string, n int) {
	a.label("%sover", name)
	a.line("MOVQ %d(R11)(SI*2), CX", workLengths)
	a.line("ADDQ $(15*8), CX")
	a.line("SHRQ $7, CX")
	a.line("ADDQ $3, CX")
	a.line("LEAQ (DX*4), AX")
	a.line("SUBQ AX, CX") // the first lane's counter: blocks + 1 - 4 * registers left
	a.line("MOVL $0x1111, AX")
	a.line("KMOVW AX, %s", maskTemp)
	c, nonce := z(temp[0]), z(temp[1])
	a.line("VPBROADCASTD.Z CX, %s, %s", maskTemp, c)
	a.line("VPADDD ·lanes(SB), %s, %s", c, c)
	a.line("VBROADCASTI64X2 %d(R8)(SI*8), %s", packetNonce, nonce)
	a.line("VBROADCASTI64X2 %d(DI), %s", keyRounds, z(round))
	a.line("VPXORQ %s, %s, %s", z(round), nonce, nonce)
	for j := range n {
		a.line("VPSHUFB %s, %s, %s", z(swap), c, z(state+j))
		a.line("VPXORQ %s, %s, %s", nonce, z(state+j), z(state+j))
		a.line("VPADDD ·lanes+64(SB), %s, %s", c, c)
	}
	a.line("ADDQ $%d, CX", 4*n) // the next tile's
	a.line("MOVBLZX CX, AX")
	a.line("SUBQ AX, CX")
	a.line("VPBROADCASTD.Z CX, %s, %s", maskTemp, c)
	a.line("VPSHUFB %s, %s, %s", z(swap), c, z(base))
	a.line("VPXORQ %s, %s, %s", nonce, z(base), z(base))
	a.line("SHLQ $4, AX")
	a.line("LEAQ ·counters+%d(SB), BX", counterOne-16-64*n)
	a.line("ADDQ AX, BX")
	a.line("JMP %sgo", name)
}

// hash treats the text of g registers. The first register is multiplied last: it waits for the tile before.
func (a *asm) hash(s, tail *stream, g int, last bool) {
	sum := &sum{lo: accLo, mid: accMid, hi: accHi}
	at := func(j int) power { return power{key: "R14", index: keyPowerTiles - g + j, uniform: !last} }
	treat := func(j int) {
		if j == 0 {
			takeJ0(s, "R15", "R12", keys, maskFirst+", "+z(tag))
		}
		a.cipher(s, keys+j, place{head: j == 0, tail: last && j == g-1, addr: fmt.Sprintf("%d(R13)", 64*j), packet: "R12", carried: j == 0})
	}
	pair := func(j int) {
		treat(j)
		treat(j + 1)
		a.multiply(s, sum, keys+j, keys+j+1, at(j), at(j+1))
	}
	for j := 2 - g%2; j < g; j += 2 { // at even indexes
		pair(j)
	}
	if g%2 == 0 {
		pair(0)
	} else {
		treat(0)
		a.multiplyOne(s, sum, keys, at(0))
	}
	a.reduce(tail, sum, carry)
	if last {
		a.tag(tail)
	}
}

// tag folds the lanes of the hash and writes the tag, or compares it.
func (a *asm) tag(s *stream) {
	h, t := x(carry), temp[3]
	s.op("VPXORQ %s, %s, %s", z(tag), z(carry), z(carry))
	s.op("VEXTRACTI64X4 $1, %s, %s", z(carry), y(t))
	s.op("VPXORQ %s, %s, %s", y(carry), y(t), y(t))
	s.op("VEXTRACTI64X2 $1, %s, %s", y(t), h)
	s.op("VPXORQ %s, %s, %s", x(t), h, h)
	s.op("MOVQ %d(R11)(R12*1), AX", workTags)
	s.op("VPSHUFB %s, %s, %s", x(swap), h, h)
	if a.open {
		s.op("VPXORQ (AX), %s, %s", h, h)
		s.together(fmt.Sprintf("VPTESTMQ %s, %s, %s", h, h, maskTemp), fmt.Sprintf("KORTESTB %s, %s", maskTemp, maskTemp),
			fmt.Sprintf("SETNE %d(R11)(R12*1)", workFailed))
	} else {
		s.op("VMOVDQU64 %s, (AX)", h)
	}
	s.op("VPXORQ %s, %s, %s", z(carry), z(carry), z(carry))
}

// advance goes on to the next tile of the same packet's text.
func (a *asm) advance(g int) {
	a.line("ADDQ $%d, R13", 64*g)
	a.line("KXNORB %s, %s, %s", maskHead, maskHead, maskHead)
	a.line("KXORQ %s, %s, %s", maskAAD, maskAAD, maskAAD)
	a.line("KXORQ %s, %s, %s", maskFirst, maskFirst, maskFirst)
}

// take goes on to the text of the packet whose key stream was begun.
func (a *asm) take() {
	a.line("MOVQ SI, R12")
	a.line("MOVQ DI, R14")
	a.line("MOVQ %d(R11)(R12*1), R13", workHeads)
	var masks stream
	loadMasks(&masks, "R12")
	a.merge(masks, nil)
	a.line("KXNORQ %s, %s, %s", maskFirst, maskFirst, maskFirst)
}
