#include "textflag.h"

// func prefetchAssociations(numbers *uint32, n int, all unsafe.Pointer, limit int, key uintptr)
TEXT ·prefetchAssociations(SB), NOSPLIT, $0-40
	MOVD numbers+0(FP), R0
	MOVD n+8(FP), R1
	MOVD all+16(FP), R2
	MOVD limit+24(FP), R3
	CMP  $0, R1
	BLE  done

next:
	MOVWU.P 4(R0), R4
	CMP     R3, R4
	BHS     skip
	MOVD    (R2)(R4<<3), R4
	PRFM    (R4), PLDL1KEEP
	PRFM    64(R4), PLDL1KEEP

skip:
	SUB  $1, R1
	CBNZ R1, next

done:
	RET
