//go:build amd64

#include "textflag.h"

// Offsets in work.
#define TEXTS 0
#define EXTENTS 512
#define LENGTHS 1024
#define HEADS 2112
#define TAGS 2656
#define TAILS 3200
#define SHAPES 3744
#define CLASSES 4288
#define ORDER 4352

DATA ·planNumbers+0(SB)/8, $1
DATA ·planNumbers+8(SB)/8, $2
DATA ·planNumbers+16(SB)/8, $3
DATA ·planNumbers+24(SB)/8, $4 // kinds - 2
DATA ·planNumbers+32(SB)/8, $15
DATA ·planNumbers+40(SB)/8, $16 // TagSize and MaxAAD
DATA ·planNumbers+48(SB)/8, $31
DATA ·planNumbers+56(SB)/8, $0xff
DATA ·planNumbers+64(SB)/8, $0x10000 // MaxText
DATA ·planNumbers+72(SB)/8, $-1
DATA ·planNumbers+80(SB)/8, $0xff000000 // shape.failed
DATA ·planNumbers+88(SB)/8, $64
GLOBL ·planNumbers(SB), RODATA|NOPTR, $96

// pairs are the indexes that take turns between two registers: of their first halves, of their second ones.
DATA ·pairs+0(SB)/8, $0
DATA ·pairs+8(SB)/8, $8
DATA ·pairs+16(SB)/8, $1
DATA ·pairs+24(SB)/8, $9
DATA ·pairs+32(SB)/8, $2
DATA ·pairs+40(SB)/8, $10
DATA ·pairs+48(SB)/8, $3
DATA ·pairs+56(SB)/8, $11
DATA ·pairs+64(SB)/8, $4
DATA ·pairs+72(SB)/8, $12
DATA ·pairs+80(SB)/8, $5
DATA ·pairs+88(SB)/8, $13
DATA ·pairs+96(SB)/8, $6
DATA ·pairs+104(SB)/8, $14
DATA ·pairs+112(SB)/8, $7
DATA ·pairs+120(SB)/8, $15
GLOBL ·pairs(SB), RODATA|NOPTR, $128

DATA ·indexes+0(SB)/8, $0x0706050403020100
DATA ·indexes+8(SB)/8, $0x0f0e0d0c0b0a0908
DATA ·indexes+16(SB)/8, $0x1716151413121110
DATA ·indexes+24(SB)/8, $0x1f1e1d1c1b1a1918
DATA ·indexes+32(SB)/8, $0x2726252423222120
DATA ·indexes+40(SB)/8, $0x2f2e2d2c2b2a2928
DATA ·indexes+48(SB)/8, $0x3736353433323130
DATA ·indexes+56(SB)/8, $0x3f3e3d3c3b3a3938
GLOBL ·indexes(SB), RODATA|NOPTR, $64

// func planAll(w *work, n int) presence
//
// What describe and planEach do, for eight packets at a time, each in 64 bits.
TEXT ·planAll(SB), NOSPLIT, $0-24
	MOVQ w+0(FP), DI
	MOVQ n+8(FP), CX
	VPBROADCASTQ ·planNumbers+0(SB), Z16  // 1
	VPBROADCASTQ ·planNumbers+8(SB), Z17  // 2
	VPBROADCASTQ ·planNumbers+16(SB), Z18 // 3
	VPBROADCASTQ ·planNumbers+24(SB), Z19 // 4
	VPBROADCASTQ ·planNumbers+32(SB), Z20 // 15
	VPBROADCASTQ ·planNumbers+40(SB), Z21 // 16
	VPBROADCASTQ ·planNumbers+48(SB), Z22 // 31
	VPBROADCASTQ ·planNumbers+56(SB), Z23 // 0xff
	VPBROADCASTQ ·planNumbers+64(SB), Z24 // MaxText
	VPBROADCASTQ ·planNumbers+72(SB), Z25 // all bits
	VPBROADCASTQ ·threeLanes(SB), Z26
	VMOVDQU64 ·pairs+0(SB), Z27
	VMOVDQU64 ·pairs+64(SB), Z28
	VPBROADCASTQ ·planNumbers+88(SB), Z15 // 64
	VPXORQ Z29, Z29, Z29 // 0
	VPXORQ Z30, Z30, Z30 // presence
	MOVQ DI, SI // 64 bytes for eight packets
	MOVQ DI, DX // 8 bytes
	MOVQ DI, BX // 128 bytes
	XORL R8, R8 // packets with impossible lengths
	TESTQ CX, CX
	JLE  sum

eight:
	MOVL $0xff, AX
	BZHIL CX, AX, R9
	CMPQ CX, $8
	CMOVQLT R9, AX
	KMOVB AX, K1 // those that there are

	// Z0: bytes of text, Z1: of additional data, Z9: size of the key
	VMOVDQU64.Z EXTENTS(SI), K1, Z9
	VPSLLQ $(64-48), Z9, Z0
	VPSRLQ $(64-48), Z0, Z0
	VPSLLQ $8, Z9, Z1
	VPSRLQ $56, Z1, Z1
	VPSRLQ $56, Z9, Z9 // the size of the key
	VPSUBQ Z21, Z0, Z0
	VPCMPUQ $6, Z24, Z0, K1, K2
	VPCMPUQ $6, Z21, Z1, K1, K3
	KORB K2, K3, K2
	KMOVB K2, AX
	ORL  AX, R8
	VPSLLQ $3, Z0, Z2
	VPSLLQ $3, Z1, Z3
	VMOVDQA64 Z2, Z4
	VPERMT2Q Z3, Z27, Z4
	VPERMT2Q Z3, Z28, Z2
	VMOVDQU64 Z4, LENGTHS(BX)
	VMOVDQU64 Z2, (LENGTHS+64)(BX)

	// Z2: empty lanes, Z3: kind, Z5: bytes in front of the text
	VPADDQ Z20, Z0, Z2
	VPSRLQ $4, Z2, Z2
	VPSUBQ Z2, Z17, Z2
	VPANDQ Z18, Z2, Z2
	VPADDQ Z22, Z0, Z3
	VPSRLQ $6, Z3, Z3
	VPMINUQ Z19, Z3, Z3
	VPCMPUQ $6, Z15, Z0, K2
	VPADDQ Z16, Z3, K2, Z3
	VPADDQ Z16, Z2, Z5
	VPSLLQ $4, Z5, Z5

	VPSUBQ Z0, Z29, Z4
	VPANDQ Z20, Z4, Z4
	VPSRLVQ Z4, Z26, Z4
	VPSLLVQ Z5, Z25, Z6
	VPTESTNMQ Z3, Z3, K2
	VPANDQ Z6, Z4, K2, Z4 // one register is the first and the last
	VPCMPEQQ Z16, Z3, K2
	VPSUBQ Z0, Z15, Z6
	VPSRLVQ Z6, Z25, K2, Z4 // all text is in one register
	VMOVDQU64 Z4, TAILS(SI)

	VPADDQ Z2, Z2, Z6
	VPSLLVQ Z6, Z18, Z7
	VPADDQ Z17, Z6, Z6
	VPSLLVQ Z6, Z23, Z6
	VPANDQ Z23, Z6, Z6
	VPSLLQ $8, Z7, Z7
	VPSLLQ $(16+5), Z2, Z8
	VPTERNLOGQ $0xfe, Z6, Z7, Z8
	VMOVDQU64 Z8, SHAPES(SI)

	VMOVDQU64 TEXTS(SI), Z6
	VPSUBQ Z5, Z6, Z7
	VMOVDQA64 Z6, K2, Z7
	VPADDQ Z0, Z6, Z6
	VMOVDQU64 Z7, HEADS(SI)
	VMOVDQU64 Z6, TAGS(SI)

	VPSLLQ $3, Z9, Z6 // kindSlots
	VPADDQ Z3, Z6, Z6
	VPMOVQB Z6, CLASSES(DX)
	VPSLLVQ.Z Z6, Z16, K1, Z6
	VPORQ Z6, Z30, Z30

	ADDQ $64, SI
	ADDQ $8, DX
	ADDQ $128, BX
	SUBQ $8, CX
	JGT  eight

sum:
	VEXTRACTI64X4 $1, Z30, Y0
	VPORQ Y0, Y30, Y0
	VEXTRACTI128 $1, Y0, X1
	VPOR X1, X0, X0
	VPSRLDQ $8, X0, X1
	VPOR X1, X0, X0
	VMOVQ X0, AX
	NEGL R8 // sets the carry if there were any
	SBBQ DX, DX
	SHLQ $63, DX
	ORQ  DX, AX
	MOVQ AX, ret+16(FP)
	VZEROUPPER
	RET

// func collectAll(w *work, c class, n int) int
TEXT ·collectAll(SB), NOSPLIT, $0-32
	MOVQ w+0(FP), DI
	MOVBLZX c+8(FP), AX
	MOVQ n+16(FP), CX
	VPBROADCASTB AX, Z0
	VPCMPEQB CLASSES(DI), Z0, K1
	KMOVQ K1, AX
	MOVQ $-1, DX
	BZHIQ CX, DX, DX
	ANDQ DX, AX
	KMOVQ AX, K1
	POPCNTQ AX, AX
	MOVQ AX, ret+24(FP)
	VMOVDQU64 ·indexes(SB), Z1
	VPCOMPRESSB.Z Z1, K1, Z1
	VEXTRACTI64X4 $1, Z1, Y2
	VPMOVZXBW Y1, Z1
	VPMOVZXBW Y2, Z2
	VPSLLW $3, Z1, Z1
	VPSLLW $3, Z2, Z2
	VMOVDQU64 Z1, ORDER(DI)
	VMOVDQU64 Z2, (ORDER+64)(DI)
	VZEROUPPER
	RET

// func failuresAll(w *work, n int) uint64
TEXT ·failuresAll(SB), NOSPLIT, $0-24
	MOVQ w+0(FP), DI
	MOVQ n+8(FP), CX
	VPBROADCASTQ ·planNumbers+80(SB), Z0
	VPTESTMQ (SHAPES+0*64)(DI), Z0, K0
	VPTESTMQ (SHAPES+1*64)(DI), Z0, K1
	VPTESTMQ (SHAPES+2*64)(DI), Z0, K2
	VPTESTMQ (SHAPES+3*64)(DI), Z0, K3
	VPTESTMQ (SHAPES+4*64)(DI), Z0, K4
	VPTESTMQ (SHAPES+5*64)(DI), Z0, K5
	VPTESTMQ (SHAPES+6*64)(DI), Z0, K6
	VPTESTMQ (SHAPES+7*64)(DI), Z0, K7
	KUNPCKBW K0, K1, K0
	KUNPCKBW K2, K3, K2
	KUNPCKBW K4, K5, K4
	KUNPCKBW K6, K7, K6
	KUNPCKWD K0, K2, K0
	KUNPCKWD K4, K6, K4
	KUNPCKDQ K0, K4, K0
	KMOVQ K0, AX
	BZHIQ CX, AX, AX
	MOVQ AX, ret+16(FP)
	VZEROUPPER
	RET
