#include "textflag.h"

// Ten or fourteen rounds of AES and three carry-less products of 512-bit registers, all independent of each other: what
// AES-GCM cannot do without for 64 bytes.

#define AES(r) VAESENC Z31, r, r
#define MUL(r) VPCLMULQDQ $0, Z31, Z30, r

// func aes10mul3(n int)
TEXT ·aes10mul3(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX

loop:
	AES(Z0)
	AES(Z1)
	MUL(Z10)
	AES(Z2)
	AES(Z3)
	AES(Z4)
	MUL(Z11)
	AES(Z5)
	AES(Z6)
	AES(Z7)
	MUL(Z12)
	AES(Z8)
	AES(Z9)
	DECQ CX
	JNE loop
	VZEROUPPER
	RET

// func aes14mul3(n int)
TEXT ·aes14mul3(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX

loop:
	AES(Z0)
	AES(Z1)
	AES(Z13)
	MUL(Z10)
	AES(Z2)
	AES(Z3)
	AES(Z4)
	AES(Z14)
	MUL(Z11)
	AES(Z5)
	AES(Z6)
	AES(Z7)
	AES(Z15)
	MUL(Z12)
	AES(Z8)
	AES(Z9)
	AES(Z16)
	DECQ CX
	JNE loop
	VZEROUPPER
	RET

// func mul2(n int)
TEXT ·mul2(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX

loop:
	MUL(Z10)
	MUL(Z11)
	DECQ CX
	JNE loop
	VZEROUPPER
	RET
