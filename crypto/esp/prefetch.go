//go:build amd64 || arm64

package esp

import "unsafe"

// Prefetch asks for what Add and Seal read of the associations with these numbers in all, so that the loads for a batch
// overlap. Nothing is changed; a number may be too large, or that of nil, and the association another goroutine's.
func (s *Sealer) Prefetch(all []*Outbound, numbers []uint32) {
	prefetchAssociations(unsafe.SliceData(numbers), len(numbers), unsafe.Pointer(unsafe.SliceData(all)), len(all), unsafe.Offsetof(Outbound{}.association))
}

// Prefetch asks for what Add and Open read of associations, as Sealer.Prefetch does.
func (o *Opener) Prefetch(all []*Inbound, numbers []uint32) {
	prefetchAssociations(unsafe.SliceData(numbers), len(numbers), unsafe.Pointer(unsafe.SliceData(all)), len(all), unsafe.Offsetof(Inbound{}.association))
}

// prefetchAssociations asks, for each of n numbers below limit that is not the one before, for the lines of the association
// that the pointer with that number points to, and for those of its key that short packets need: the pointer to that lies
// at key. On arm64 only the former: kernels are amd64's alone.
//
//go:noescape
func prefetchAssociations(numbers *uint32, n int, all unsafe.Pointer, limit int, key uintptr)
