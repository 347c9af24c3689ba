package pipeline

import "sync/atomic"

// A ring is a single-producer single-consumer queue between two workers, or between a worker and the control side.
// It never blocks: what does not fit is the producer's to drop. Its size is a power of two.
//
// The producer alone writes tail and slots in front of it; the consumer alone writes head. Each keeps a copy of the
// other's index and looks again only when the copy says full or empty, so that a batch costs one shared cache miss. What
// is added is the producer's until it is shown: showing a batch at once costs one shared store. A consumer that finds nothing
// looks at tail again and again, so what the producer writes for each element lies in another line of the cache.
type ring[T any] struct {
	slots []T
	mask  uint32
	_     [36]byte

	tail atomic.Uint32
	_    [60]byte

	added    uint32 // tail, with what is not shown yet
	seenHead uint32
	_        [56]byte

	head     atomic.Uint32
	seenTail uint32
	_        [56]byte
}

func newRing[T any](size int) *ring[T] {
	if size < 1 || size&(size-1) != 0 {
		panic("pipeline: ring size is not a power of two")
	}
	return &ring[T]{slots: make([]T, size), mask: uint32(size - 1)}
}

// next returns the slot to be written next, or nil if the ring is full; publish makes it visible.
func (r *ring[T]) next() *T {
	if r.added-r.seenHead > r.mask {
		r.seenHead = r.head.Load()
		if r.added-r.seenHead > r.mask {
			return nil
		}
	}
	return &r.slots[r.added&r.mask]
}

func (r *ring[T]) publish() {
	r.added++
	r.show()
}

// claim returns the slot behind what is in the ring, or nil if the ring is full. It is the producer's to fill until show.
func (r *ring[T]) claim() *T {
	s := r.next()
	if s != nil {
		r.added++
	}
	return s
}

// add puts v behind what is in the ring and reports whether there was room. The consumer sees it after show.
func (r *ring[T]) add(v T) bool {
	s := r.claim()
	if s == nil {
		return false
	}
	*s = v
	return true
}

// show lets the consumer see all that was added.
func (r *ring[T]) show() {
	if r.added != r.tail.Load() {
		r.tail.Store(r.added)
	}
}

// push adds v, shows it, and reports whether there was room.
func (r *ring[T]) push(v T) bool {
	ok := r.add(v)
	r.show()
	return ok
}

// take moves the oldest elements to out, as many as fit, and returns how many they are.
func (r *ring[T]) take(out []T) int {
	head := r.head.Load()
	if r.seenTail-head < uint32(len(out)) {
		r.seenTail = r.tail.Load()
	}
	n := min(r.seenTail-head, uint32(len(out)))
	if n == 0 {
		return 0
	}
	for i := range n {
		out[i] = r.slots[(head+i)&r.mask]
	}
	r.head.Store(head + n)
	return int(n)
}

// front returns the oldest element, or nil if there is none; pop takes it away.
func (r *ring[T]) front() *T {
	head := r.head.Load()
	if head == r.seenTail {
		r.seenTail = r.tail.Load()
		if head == r.seenTail {
			return nil
		}
	}
	return &r.slots[head&r.mask]
}

func (r *ring[T]) pop() { r.head.Store(r.head.Load() + 1) }

// len is how many were shown and not taken: exact for producer and consumer, a snapshot for others.
func (r *ring[T]) len() int { return int(r.tail.Load() - r.head.Load()) }
