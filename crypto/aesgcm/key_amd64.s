//go:build amd64

#include "textflag.h"

// Offsets in context.
#define ROUNDS 16
#define POWERS 256
#define KARATSUBA 768

// PREFIXES leaves in X1 the sums of its first one, two, three and four words, plus X2.
#define PREFIXES(X1, X2) \
	VPSLLDQ $4, X1, X5; \
	VPXOR   X5, X1, X1; \
	VPSLLDQ $8, X1, X5; \
	VPXOR   X5, X1, X1; \
	VPXOR   X2, X1, X1

// FIPS 197, section 5.2, for 16 bytes: four words at a time.
#define EXPAND128(rcon, at) \
	VAESKEYGENASSIST $rcon, X0, X2; \
	VPSHUFD $0xff, X2, X2; \
	PREFIXES(X0, X2); \
	VMOVDQU X0, (ROUNDS+16*at)(DI)

// For 32 bytes: the even four words, with the round constant, and the odd ones, without.
#define EVEN256(rcon, at) \
	VAESKEYGENASSIST $rcon, X1, X2; \
	VPSHUFD $0xff, X2, X2; \
	PREFIXES(X0, X2); \
	VMOVDQU X0, (ROUNDS+16*at)(DI)

#define ODD256(at) \
	VAESKEYGENASSIST $0, X0, X2; \
	VPSHUFD $0xaa, X2, X2; \
	PREFIXES(X1, X2); \
	VMOVDQU X1, (ROUNDS+16*at)(DI)

// func expand(c *context, secret *byte, rounds int)
TEXT ·expand(SB), NOSPLIT, $0-24
	MOVQ c+0(FP), DI
	MOVQ secret+8(FP), SI
	MOVQ rounds+16(FP), CX
	VMOVDQU (SI), X0
	VMOVDQU X0, ROUNDS(DI)
	CMPQ CX, $14
	JEQ  long
	EXPAND128(0x01, 1)
	EXPAND128(0x02, 2)
	EXPAND128(0x04, 3)
	EXPAND128(0x08, 4)
	EXPAND128(0x10, 5)
	EXPAND128(0x20, 6)
	EXPAND128(0x40, 7)
	EXPAND128(0x80, 8)
	EXPAND128(0x1b, 9)
	EXPAND128(0x36, 10)
	JMP  hash

long:
	VMOVDQU 16(SI), X1
	VMOVDQU X1, (ROUNDS+16)(DI)
	EVEN256(0x01, 2)
	ODD256(3)
	EVEN256(0x02, 4)
	ODD256(5)
	EVEN256(0x04, 6)
	ODD256(7)
	EVEN256(0x08, 8)
	ODD256(9)
	EVEN256(0x10, 10)
	ODD256(11)
	EVEN256(0x20, 12)
	ODD256(13)
	EVEN256(0x40, 14)

hash: // H is the encrypted zero block
	VMOVDQU ROUNDS(DI), X0
	LEAQ (ROUNDS+16)(DI), BX

round:
	DECQ CX
	JEQ  last
	VAESENC (BX), X0, X0
	ADDQ $16, BX
	JMP  round

last:
	VAESENCLAST (BX), X0, X0
	VMOVDQU ·byteSwap(SB), X1
	VPSHUFB X1, X0, X0
	VMOVDQU ·polynomial(SB), X7

	// H / x: with the bits in reversed order that is one to the left. The bit that falls out comes back as the polynomial.
	VPSRLQ $63, X0, X1
	VPSLLQ $1, X0, X0
	VPSLLDQ $8, X1, X2
	VPOR   X2, X0, X0
	VPSRLDQ $8, X1, X1
	VPXOR  X2, X2, X2
	VPSUBQ X1, X2, X1
	VPUNPCKLQDQ X1, X1, X1
	VPAND  X7, X1, X1
	VPXOR  X1, X0, X0

	// The powers, from the end of the table to its begin, each the one before times the first.
	VMOVDQU X0, X6
	MOVQ $31, CX

power:
	MOVQ CX, AX
	SHLQ $4, AX
	VMOVDQU X0, POWERS(DI)(AX*1)
	MOVQ CX, AX      // Karatsuba: register CX/8, lane CX%4, half CX/4%2
	SHRQ $3, AX
	SHLQ $6, AX
	MOVQ CX, BX
	ANDQ $3, BX
	SHLQ $4, BX
	ADDQ BX, AX
	MOVQ CX, BX
	SHLQ $1, BX
	ANDQ $8, BX
	ADDQ BX, AX
	VPSHUFD $0x4e, X0, X1
	VPXOR  X0, X1, X1
	VMOVQ  X1, KARATSUBA(DI)(AX*1)
	SUBQ $1, CX
	JLT  done
	VPCLMULQDQ $0x00, X6, X0, X1
	VPCLMULQDQ $0x11, X6, X0, X3
	VPCLMULQDQ $0x01, X6, X0, X2
	VPCLMULQDQ $0x10, X6, X0, X4
	VPXOR  X4, X2, X2
	VPCLMULQDQ $0x01, X1, X7, X4
	VPSHUFD $0x4e, X1, X1
	VPXOR  X1, X2, X2
	VPXOR  X4, X2, X2
	VPCLMULQDQ $0x01, X2, X7, X4
	VPSHUFD $0x4e, X2, X2
	VPXOR  X2, X3, X3
	VPXOR  X4, X3, X0
	JMP  power

done:
	VZEROALL
	RET
