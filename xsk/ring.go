package xsk

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The four rings of a socket. Names are the kernel's, ends are ours:
//
//	ring        our end    carries
//	fill        producer   addresses of frames to receive into
//	RX          consumer   descriptors of received packets
//	TX          producer   descriptors of packets to send
//	completion  consumer   addresses of frames that were sent
//
// Indices run freely over 32 bits; a slot is index & mask. "Ours" is the index
// that we write and the kernel reads; "theirs" is the other way round. We keep
// private copies of both, so that a call touches each shared cache line once.

// slot is what a ring carries.
type slot interface{ uint64 | Desc }

// producer is our end of the fill ring or the TX ring.
type producer[T slot] struct {
	slots  []T     // shared with the kernel; a power of two
	ours   *uint32 // producer index, shared
	theirs *uint32 // consumer index, shared
	flags  *uint32 // XDP_RING_NEED_WAKEUP, shared
	next   uint32  // == *ours
	seen   uint32  // *theirs when we last looked
}

// put appends as much of src as there is room for and publishes it.
func (r *producer[T]) put(src []T) int {
	size := uint32(len(r.slots))
	room := size - (r.next - r.seen)
	if room < uint32(len(src)) {
		// Acquire: the kernel has read the slots up to here.
		r.seen = atomic.LoadUint32(r.theirs)
		room = size - (r.next - r.seen)
	}
	src = src[:min(len(src), int(room))]
	if len(src) == 0 {
		return 0
	}
	first := copy(r.slots[r.next&(size-1):], src)
	copy(r.slots, src[first:])
	r.next += uint32(len(src))
	// Release: the slots are written before the kernel sees the index. It is a
	// full barrier too, so the wake-up flag is read after it.
	atomic.StoreUint32(r.ours, r.next)
	return len(src)
}

// pending is how many slots the kernel has not consumed yet.
func (r *producer[T]) pending() uint32 {
	r.seen = atomic.LoadUint32(r.theirs)
	return r.next - r.seen
}

// needWakeup reports whether the kernel sleeps until a system call.
func (r *producer[T]) needWakeup() bool {
	return atomic.LoadUint32(r.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}

// level is pending for any goroutine: it reads the shared indices only.
func (r *producer[T]) level() uint32 {
	theirs := atomic.LoadUint32(r.theirs) // first: it never passes ours
	return atomic.LoadUint32(r.ours) - theirs
}

// consumer is our end of the RX ring or the completion ring.
type consumer[T slot] struct {
	slots  []T     // shared with the kernel; a power of two
	ours   *uint32 // consumer index, shared
	theirs *uint32 // producer index, shared
	next   uint32  // == *ours
	seen   uint32  // *theirs when we last looked
}

// take moves up to len(dst) slots to dst and gives their room back.
func (r *consumer[T]) take(dst []T) int {
	size := uint32(len(r.slots))
	ready := r.seen - r.next
	if ready < uint32(len(dst)) {
		// Acquire: the kernel has written the slots up to here.
		r.seen = atomic.LoadUint32(r.theirs)
		ready = r.seen - r.next
	}
	dst = dst[:min(len(dst), int(ready))]
	if len(dst) == 0 {
		return 0
	}
	first := copy(dst, r.slots[r.next&(size-1):])
	copy(dst[first:], r.slots)
	r.next += uint32(len(dst))
	// Release: the slots are read before the kernel may write them again.
	atomic.StoreUint32(r.ours, r.next)
	return len(dst)
}

// level is how many slots wait for us; any goroutine may ask.
func (r *consumer[T]) level() uint32 {
	ours := atomic.LoadUint32(r.ours) // first: it never passes theirs
	return atomic.LoadUint32(r.theirs) - ours
}

// Kernels before 5.4 share no flags. Then TX always needs a wake-up and the
// fill ring never does.
var (
	alwaysWake uint32 = unix.XDP_RING_NEED_WAKEUP
	neverWake  uint32
)

// newProducer lays a producer over a mapped ring. old is the flag word of
// kernels that have none.
func newProducer[T slot](mem []byte, off unix.XDPRingOffset, size uint32, old *uint32) producer[T] {
	r := producer[T]{
		slots:  slotsAt[T](mem, off.Desc, size),
		ours:   wordAt(mem, off.Producer),
		theirs: wordAt(mem, off.Consumer),
		flags:  old,
	}
	if off.Flags != 0 {
		r.flags = wordAt(mem, off.Flags)
	}
	r.next = atomic.LoadUint32(r.ours)
	r.seen = atomic.LoadUint32(r.theirs)
	return r
}

// newConsumer lays a consumer over a mapped ring.
func newConsumer[T slot](mem []byte, off unix.XDPRingOffset, size uint32) consumer[T] {
	r := consumer[T]{
		slots:  slotsAt[T](mem, off.Desc, size),
		ours:   wordAt(mem, off.Consumer),
		theirs: wordAt(mem, off.Producer),
	}
	r.next = atomic.LoadUint32(r.ours)
	r.seen = r.next
	return r
}

func wordAt(mem []byte, offset uint64) *uint32 {
	return (*uint32)(unsafe.Pointer(&mem[offset]))
}

func slotsAt[T slot](mem []byte, offset uint64, size uint32) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[offset])), size)
}

// ringBytes is how much of the socket's file a ring occupies.
func ringBytes[T slot](off unix.XDPRingOffset, size uint32) int {
	var one T
	return int(off.Desc) + int(size)*int(unsafe.Sizeof(one))
}
