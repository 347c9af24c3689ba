#include "textflag.h"

// func prefetchAssociations(numbers *uint32, n int, all unsafe.Pointer, limit int, key uintptr)
TEXT ·prefetchAssociations(SB), NOSPLIT, $0-40
	MOVQ  numbers+0(FP), SI
	MOVQ  n+8(FP), CX
	MOVQ  all+16(FP), DI
	MOVQ  limit+24(FP), R8
	MOVQ  key+32(FP), DX
	MOVQ  $-1, BX
	TESTQ CX, CX
	JLE   done

next:
	MOVL       (SI), AX
	ADDQ       $4, SI
	CMPL       AX, BX
	JEQ        skip
	MOVL       AX, BX
	CMPQ       AX, R8
	JCC        skip
	MOVQ       (DI)(AX*8), AX
	TESTQ      AX, AX
	JEQ        skip
	PREFETCHT0 64(AX)
	MOVQ       (AX)(DX*1), AX
	PREFETCHT0 (AX)            // round keys
	PREFETCHT0 64(AX)
	PREFETCHT0 128(AX)
	PREFETCHT0 640(AX)         // powers
	PREFETCHT0 704(AX)
	PREFETCHT0 960(AX)         // sums of their halves

skip:
	DECQ CX
	JNZ  next

done:
	RET
