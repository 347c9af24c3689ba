package aesgcm

import "golang.org/x/sys/cpu"

// accelerated is set only where the operating system saves the registers too.
var accelerated = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ &&
	cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasBMI2

var sealKernels = [keyPortable][kinds]kernel{
	{seal128Side4x1, seal128Side4x2, seal128Side2x3, seal128Side2x4, seal128Any},
	{seal256Side4x1, seal256Side4x2, seal256Side2x3, seal256Side2x4, seal256Any},
}

var openKernels = [keyPortable][kinds]kernel{
	{open128Side4x1, open128Side4x2, open128Side2x3, open128Side2x4, open128Any},
	{open256Side4x1, open256Side4x2, open256Side2x3, open256Side2x4, open256Any},
}

//go:noescape
func seal128Side4x1(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal128Side4x2(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal128Side2x3(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal128Side2x4(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal128Any(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal256Side4x1(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal256Side4x2(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal256Side2x3(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal256Side2x4(packets *packet, order *uint8, n int, work *work)

//go:noescape
func seal256Any(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open128Side4x1(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open128Side4x2(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open128Side2x3(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open128Side2x4(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open128Any(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open256Side4x1(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open256Side4x2(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open256Side2x3(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open256Side2x4(packets *packet, order *uint8, n int, work *work)

//go:noescape
func open256Any(packets *packet, order *uint8, n int, work *work)

// expand fills in the round keys and the powers of H. The secret has 16 bytes for 10 rounds, 32 for 14.
//
//go:noescape
func expand(c *context, secret *byte, rounds int)
