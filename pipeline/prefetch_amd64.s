#include "textflag.h"

// func prefetchDescs(memory unsafe.Pointer, descs *xsk.Desc, n int)
TEXT ·prefetchDescs(SB), NOSPLIT, $0-24
	MOVQ  memory+0(FP), DI
	MOVQ  descs+8(FP), SI
	MOVQ  n+16(FP), CX
	TESTQ CX, CX
	JLE   done

next:
	MOVQ        (SI), AX
	PREFETCHT0  (DI)(AX*1)
	PREFETCHT0  37(DI)(AX*1)
	ADDQ        $16, SI
	DECQ        CX
	JNZ         next

done:
	RET

// func prefetchLines(numbers *uint32, n int, contexts, counters unsafe.Pointer)
TEXT ·prefetchLines(SB), NOSPLIT, $0-32
	MOVQ  numbers+0(FP), SI
	MOVQ  n+8(FP), CX
	MOVQ  contexts+16(FP), DI
	MOVQ  counters+24(FP), DX
	TESTQ CX, CX
	JLE   done

next:
	MOVL       (SI), AX
	SHLQ       $6, AX
	PREFETCHT0 (DI)(AX*2)
	PREFETCHT0 (DX)(AX*1)
	ADDQ       $4, SI
	DECQ       CX
	JNZ        next

done:
	RET

// func prefetchWords(numbers *uint32, n int, words unsafe.Pointer)
TEXT ·prefetchWords(SB), NOSPLIT, $0-24
	MOVQ  numbers+0(FP), SI
	MOVQ  n+8(FP), CX
	MOVQ  words+16(FP), DI
	TESTQ CX, CX
	JLE   done

next:
	MOVL       (SI), AX
	PREFETCHT0 (DI)(AX*8)
	ADDQ       $4, SI
	DECQ       CX
	JNZ        next

done:
	RET
