package xsk

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Ring sizes in slots. The default rides out the pauses of a Go process (about
// 0.5 ms at 4 million packets per second); the kernel sets no upper bound, ours
// keeps a ring under 1 MiB.
const (
	DefaultRingSize = 2048
	MinRingSize     = 64
	MaxRingSize     = 65536
)

// SocketConfig says what a socket binds to.
type SocketConfig struct {
	Interface string
	Queue     int
	// Mode: ModeAuto tries zero-copy, then copy. ModeGeneric is bound like
	// ModeCopy; the difference lies in how the XDP program is attached.
	Mode Mode
	// RingSize is the number of slots in each of the four rings, a power of
	// two; 0 means DefaultRingSize.
	RingSize uint32
	// BusyPoll makes the worker's own system calls run the driver's receive
	// code (SO_PREFER_BUSY_POLL), instead of an interrupt on some core.
	BusyPoll bool
}

// Socket is one AF_XDP socket: one queue of one interface, four rings. Receive,
// Transmit, Kick, Reap and Refill belong to one goroutine and never allocate;
// FD, Stats and the other readers may be called from any; Close comes after the
// owner has stopped.
type Socket struct {
	rx       consumer[Desc]
	tx       producer[Desc]
	fill     producer[uint64]
	done     consumer[uint64]
	fd       int
	busyPoll bool
	maxKicks int // system calls that one Kick may make
	ledger   *ledger
	count    counters

	umem      *UMEM
	iface     string
	ifindex   int
	queue     int
	zeroCopy  bool
	unbound   bool  // its interface is gone, so it cannot be shared with; guarded by umem.mu
	fallback  error // why not zero-copy, in ModeAuto
	busyError error // why no busy polling, if it was asked for
	maps      [][]byte

	mu     sync.Mutex // Stats against Close
	closed bool
	last   Stats // as of Close
}

// Receive takes up to len(dst) received packets. Their frames pass from Fill to
// Worker: the caller owns them. A descriptor's address is Headroom bytes or
// more into its frame.
func (s *Socket) Receive(dst []Desc) int {
	n := s.rx.take(dst)
	if n == 0 {
		s.wakeReceiver()
		return 0
	}
	if s.ledger != nil {
		for i := range dst[:n] {
			s.ledger.move(dst[i].Addr, Fill, Worker)
		}
	}
	return n
}

// Transmit puts as many packets on the TX ring as it has room for and returns
// how many; their frames pass from Worker to TX. The caller still owns the
// rest. A packet must lie within one frame. Nothing is sent before Kick.
func (s *Socket) Transmit(src []Desc) int {
	if s.ledger != nil {
		return s.transmitTracked(src)
	}
	return s.tx.put(src)
}

// transmitTracked tells the ledger before the kernel can complete a frame.
func (s *Socket) transmitTracked(src []Desc) int {
	room := len(s.tx.slots) - int(s.tx.pending())
	src = src[:min(len(src), room)]
	for i := range src {
		s.ledger.move(src[i].Addr, Worker, TX)
	}
	return s.tx.put(src)
}

// Reap takes the chunk addresses of up to len(dst) frames that were sent (TX to
// Worker). They may belong to any part of the UMEM. A socket that is not reaped
// stops sending when its completion ring is full.
func (s *Socket) Reap(dst []uint64) int {
	n := s.done.take(dst)
	for i, addr := range dst[:n] {
		dst[i] = addr &^ frameMask // the kernel returns the packet's address
	}
	if s.ledger != nil {
		for _, addr := range dst[:n] {
			s.ledger.move(addr, TX, Worker)
		}
	}
	return n
}

// Refill gives the kernel as many frames to receive into as the fill ring has
// room for and returns how many (Worker to Fill). An address may lie anywhere
// in its frame. The caller still owns the rest.
func (s *Socket) Refill(src []uint64) int {
	if s.ledger != nil {
		return s.refillTracked(src)
	}
	return s.fill.put(src)
}

// refillTracked tells the ledger before the kernel can fill a frame.
func (s *Socket) refillTracked(src []uint64) int {
	room := len(s.fill.slots) - int(s.fill.pending())
	src = src[:min(len(src), room)]
	for _, addr := range src {
		s.ledger.move(addr, Worker, Fill)
	}
	return s.fill.put(src)
}

// FD is the socket's file descriptor, for the XSKMAP and for poll. The socket
// keeps owning it.
func (s *Socket) FD() int { return s.fd }

// Interface is the name of the interface at the time of opening.
func (s *Socket) Interface() string { return s.iface }

// Queue is the number of the queue on its interface.
func (s *Socket) Queue() int { return s.queue }

// RingSize is the number of slots in each ring.
func (s *Socket) RingSize() int { return len(s.tx.slots) }

// ZeroCopy reports whether the driver uses the UMEM itself.
func (s *Socket) ZeroCopy() bool { return s.zeroCopy }

// Fallback says why a socket opened with ModeAuto is not zero-copy; nil if it is.
func (s *Socket) Fallback() error { return s.fallback }

// BusyPoll reports whether busy polling is on, and why not if it was asked for.
func (s *Socket) BusyPoll() (bool, error) { return s.busyPoll, s.busyError }

// Close unmaps the rings and closes the socket. The kernel frees the queue some
// 20 ms later, so a new socket on it may have to wait: opening does. The frames
// that the kernel held are not returned to their pools; they come back with
// the next UMEM.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.last = s.stats()
	s.closed = true
	s.umem.forget(s)
	// Zero rings turn a late call into a Go panic instead of a wild access.
	s.rx, s.tx = consumer[Desc]{}, producer[Desc]{}
	s.fill, s.done = producer[uint64]{}, consumer[uint64]{}
	return s.release()
}

// release gives back what the kernel lent: rings first, because a mapped ring
// keeps a closed socket, and so its queue, alive.
func (s *Socket) release() error {
	var first error
	for _, m := range s.maps {
		if err := unix.Munmap(m); err != nil && first == nil {
			first = fmt.Errorf("xsk: %s queue %d: unmapping a ring: %w", s.iface, s.queue, err)
		}
	}
	s.maps = nil
	if err := unix.Close(s.fd); err != nil && first == nil {
		first = fmt.Errorf("xsk: %s queue %d: close: %w", s.iface, s.queue, err)
	}
	return first
}
