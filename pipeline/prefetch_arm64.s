#include "textflag.h"

// func prefetchDescs(memory unsafe.Pointer, descs *xsk.Desc, n int)
TEXT ·prefetchDescs(SB), NOSPLIT, $0-24
	MOVD memory+0(FP), R0
	MOVD descs+8(FP), R1
	MOVD n+16(FP), R2
	CMP  $0, R2
	BLE  done

next:
	MOVD.P 16(R1), R3
	ADD    R0, R3
	PRFM   (R3), PLDL1KEEP
	ADD    $37, R3
	PRFM   (R3), PLDL1KEEP
	SUB    $1, R2
	CBNZ   R2, next

done:
	RET

// func prefetchLines(numbers *uint32, n int, contexts, counters unsafe.Pointer)
TEXT ·prefetchLines(SB), NOSPLIT, $0-32
	MOVD numbers+0(FP), R0
	MOVD n+8(FP), R1
	MOVD contexts+16(FP), R2
	MOVD counters+24(FP), R3
	CMP  $0, R1
	BLE  done

next:
	MOVWU.P 4(R0), R4
	ADD     R4<<7, R2, R5
	PRFM    (R5), PLDL1KEEP
	ADD     R4<<6, R3, R5
	PRFM    (R5), PLDL1KEEP
	SUB     $1, R1
	CBNZ    R1, next

done:
	RET

// func prefetchWords(numbers *uint32, n int, words unsafe.Pointer)
TEXT ·prefetchWords(SB), NOSPLIT, $0-24
	MOVD numbers+0(FP), R0
	MOVD n+8(FP), R1
	MOVD words+16(FP), R2
	CMP  $0, R1
	BLE  done

next:
	MOVWU.P 4(R0), R3
	ADD     R3<<3, R2, R4
	PRFM    (R4), PLDL1KEEP
	SUB     $1, R1
	CBNZ    R1, next

done:
	RET
