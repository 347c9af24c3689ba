package xsk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmapOffsets asks where the parts of each ring lie in the socket's file.
// Kernels before 5.4 answer with a shorter structure, without flags.
func mmapOffsets(fd int) (unix.XDPMmapOffsets, error) {
	var off unix.XDPMmapOffsets
	size, err := getsockoptSize(fd, unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&off), unsafe.Sizeof(off))
	if err == nil && size < unsafe.Sizeof(off) {
		off = widenOffsets(off)
	}
	return off, err
}

// widenOffsets spreads four triples (producer, consumer, slots) over four
// quadruples whose flags are 0, which means that there are none.
func widenOffsets(narrow unix.XDPMmapOffsets) unix.XDPMmapOffsets {
	words := (*[12]uint64)(unsafe.Pointer(&narrow))
	ring := func(i int) unix.XDPRingOffset {
		return unix.XDPRingOffset{Producer: words[3*i], Consumer: words[3*i+1], Desc: words[3*i+2]}
	}
	return unix.XDPMmapOffsets{Rx: ring(0), Tx: ring(1), Fr: ring(2), Cr: ring(3)}
}

func getsockopt(fd, name int, value unsafe.Pointer, size uintptr) error {
	_, err := getsockoptSize(fd, name, value, size)
	return err
}

// getsockoptSize also returns how many bytes the kernel wrote.
func getsockoptSize(fd, name int, value unsafe.Pointer, size uintptr) (uintptr, error) {
	length := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(name),
		uintptr(value), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return 0, errno
	}
	return uintptr(length), nil
}

func setsockopt(fd, name int, value unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(name),
		uintptr(value), size, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
