//go:build amd64

#include "textflag.h"

// byteSwap reverses the bytes of a lane.
DATA ·byteSwap+0(SB)/8, $0x08090a0b0c0d0e0f
DATA ·byteSwap+8(SB)/8, $0x0001020304050607
GLOBL ·byteSwap(SB), RODATA|NOPTR, $16

// polynomial is that of the field, reversed.
DATA ·polynomial+0(SB)/8, $0x0000000000000001
DATA ·polynomial+8(SB)/8, $0xc200000000000000
GLOBL ·polynomial(SB), RODATA|NOPTR, $16

// lanes are the numbers of the lanes, and four, in the first word of each lane.
DATA ·lanes+0(SB)/8, $0
DATA ·lanes+8(SB)/8, $0
DATA ·lanes+16(SB)/8, $1
DATA ·lanes+24(SB)/8, $0
DATA ·lanes+32(SB)/8, $2
DATA ·lanes+40(SB)/8, $0
DATA ·lanes+48(SB)/8, $3
DATA ·lanes+56(SB)/8, $0
DATA ·lanes+64(SB)/8, $4
DATA ·lanes+72(SB)/8, $0
DATA ·lanes+80(SB)/8, $4
DATA ·lanes+88(SB)/8, $0
DATA ·lanes+96(SB)/8, $4
DATA ·lanes+104(SB)/8, $0
DATA ·lanes+112(SB)/8, $4
DATA ·lanes+120(SB)/8, $0
GLOBL ·lanes(SB), RODATA|NOPTR, $128

// threeLanes is the mask of the bytes of three lanes.
DATA ·threeLanes+0(SB)/8, $0x0000ffffffffffff
GLOBL ·threeLanes(SB), RODATA|NOPTR, $8

// toJ0 makes J0 of the counter block in each lane of a text's first register.
DATA ·toJ0+0(SB)/8, $0
DATA ·toJ0+8(SB)/8, $0x0300000000000000
DATA ·toJ0+16(SB)/8, $0
DATA ·toJ0+24(SB)/8, $0x0200000000000000
DATA ·toJ0+32(SB)/8, $0
DATA ·toJ0+40(SB)/8, $0x0500000000000000
DATA ·toJ0+48(SB)/8, $0
DATA ·toJ0+56(SB)/8, $0x0400000000000000
GLOBL ·toJ0(SB), RODATA|NOPTR, $64
