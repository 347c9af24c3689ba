package fib

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a transparent huge page on amd64, and on arm64 with pages of 4 KiB.
const hugePage = 2 << 20

// array is zeroed memory for n items. A large one lives outside the Go heap: the collector neither counts nor zeroes it, and pages
// that nobody touches cost nothing. T must not hold pointers.
type array[T any] struct {
	items   []T
	mapping []byte // what to unmap; nil if the items are on the Go heap
}

// newArray asks for huge pages if huge is set: right for what readers hit at random, wrong for what is touched sparsely.
func newArray[T any](n int, huge bool) array[T] {
	size := n * int(unsafe.Sizeof(*new(T)))
	if size < hugePage || raceDetector {
		return array[T]{items: make([]T, n)}
	}
	// One huge page more, to start on a boundary: kernels before 6.7 do not align large anonymous mappings by themselves.
	m, err := unix.Mmap(-1, 0, size+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return array[T]{items: make([]T, n)} // a limit on address space: the heap may still have room
	}
	start := -uintptr(unsafe.Pointer(unsafe.SliceData(m))) & (hugePage - 1)
	b := m[start : start+uintptr(size)]
	if huge {
		// An advice only: without huge pages lookups miss the TLB more often, and nothing else changes.
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
	return array[T]{items: unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), mapping: m}
}

// release gives the memory back. Nobody may use the items after it.
func (a array[T]) release() {
	if a.mapping != nil {
		// It fails only for a range that was never mapped, and this one came from Mmap.
		_ = unix.Munmap(a.mapping)
	}
}

// size in bytes, touched or not.
func (a array[T]) size() int { return len(a.items) * int(unsafe.Sizeof(*new(T))) }
