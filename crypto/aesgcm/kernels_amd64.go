package aesgcm

import "golang.org/x/sys/cpu"

// accelerated is set only where the operating system saves the registers too.
var accelerated = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ &&
	cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasAVX512VBMI2 && cpu.X86.HasBMI2 && cpu.X86.HasPOPCNT

var sealKernels = [classes]kernel{
	key128 * kindSlots:   seal128Side4x1,
	key128*kindSlots + 1: seal128Shared4x1,
	key128*kindSlots + 2: seal128Side4x2,
	key128*kindSlots + 3: seal128Side2x3,
	key128*kindSlots + 4: seal128Side2x4,
	key128*kindSlots + 5: seal128Any,
	key256 * kindSlots:   seal256Side4x1,
	key256*kindSlots + 1: seal256Shared4x1,
	key256*kindSlots + 2: seal256Side4x2,
	key256*kindSlots + 3: seal256Side2x3,
	key256*kindSlots + 4: seal256Side2x4,
	key256*kindSlots + 5: seal256Any,
}

var openKernels = [classes]kernel{
	key128 * kindSlots:   open128Side4x1,
	key128*kindSlots + 1: open128Shared4x1,
	key128*kindSlots + 2: open128Side4x2,
	key128*kindSlots + 3: open128Side2x3,
	key128*kindSlots + 4: open128Side2x4,
	key128*kindSlots + 5: open128Any,
	key256 * kindSlots:   open256Side4x1,
	key256*kindSlots + 1: open256Shared4x1,
	key256*kindSlots + 2: open256Side4x2,
	key256*kindSlots + 3: open256Side2x3,
	key256*kindSlots + 4: open256Side2x4,
	key256*kindSlots + 5: open256Any,
}

//go:noescape
func seal128Side4x1(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal128Shared4x1(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal128Side4x2(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal128Side2x3(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal128Side2x4(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal128Any(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal256Side4x1(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal256Shared4x1(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal256Side4x2(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal256Side2x3(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal256Side2x4(packets *packet, order *uint16, n int, work *work)

//go:noescape
func seal256Any(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open128Side4x1(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open128Shared4x1(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open128Side4x2(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open128Side2x3(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open128Side2x4(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open128Any(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open256Side4x1(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open256Shared4x1(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open256Side4x2(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open256Side2x3(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open256Side2x4(packets *packet, order *uint16, n int, work *work)

//go:noescape
func open256Any(packets *packet, order *uint16, n int, work *work)

// expand fills in the round keys and the powers of H. The secret has 16 bytes for 10 rounds, 32 for 14.
//
//go:noescape
func expand(c *context, secret *byte, rounds int)

// plan looks at the n packets of a burst, fills in the rest of what is known of them, and returns which classes there are.
func (w *work) plan(n int) presence {
	if accelerated {
		return planAll(w, n)
	}
	return w.planEach(n)
}

// collect puts the packets of a class in order, and returns how many there are.
func (w *work) collect(c class, n int) int { return collectAll(w, c, n) }

// failures returns a bit for each packet that is not authentic.
func (w *work) failures(n int) uint64 {
	if accelerated {
		return failuresAll(w, n)
	}
	return w.failuresEach(n)
}

//go:noescape
func planAll(w *work, n int) presence

//go:noescape
func collectAll(w *work, c class, n int) int

//go:noescape
func failuresAll(w *work, n int) uint64
