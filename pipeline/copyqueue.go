package pipeline

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"causeway/xsk"
)

// A copyQueue carries copies between the workers and the control side: one bounded ring from each worker, and one to worker 0. It
// never holds a frame.
type copyQueue struct {
	rings []*ring[copySlot]
	to    *ring[copySlot]
	bell  int // eventfd that a worker rings when it has put something into an empty ring
	rung  atomic.Bool
}

// copySlot holds one IP packet, or one message.
type copySlot struct {
	n    int
	node uint32 // NodeQueue, to a worker: the tag of the node's tunnel; TunnelQueue: the tunnel's id
	data [xsk.FrameSize - errorStart]byte
}

func (q *copyQueue) open(workers, depth int) (err error) {
	if depth < 1 || depth&(depth-1) != 0 {
		return fmt.Errorf("depth %d is not a power of two", depth)
	}
	if q.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	q.to = newRing[copySlot](depth)
	for range workers {
		q.rings = append(q.rings, newRing[copySlot](depth))
	}
	return nil
}

// Close frees the queue; the workers and the reader must have stopped.
func (q *copyQueue) Close() error { return unix.Close(q.bell) }

// Wait blocks until a worker has put something in, or for at most timeoutMS milliseconds.
func (q *copyQueue) Wait(timeoutMS int) {
	fds := [1]unix.PollFd{{Fd: int32(q.bell), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds[:], timeoutMS); err != nil || n == 0 {
		return
	}
	var b [8]byte
	_, _ = unix.Read(q.bell, b[:]) // non-blocking: only resets the counter
}

// Drain calls f for each waiting packet, which is f's only until it returns, and returns how many there were.
func (q *copyQueue) Drain(f func(packet []byte)) int {
	return q.drain(func(s *copySlot) { f(s.data[:s.n]) })
}

func (q *copyQueue) drain(f func(*copySlot)) (total int) {
	q.rung.Store(false)
	for _, r := range q.rings {
		for s := r.front(); s != nil; s = r.front() {
			f(s)
			r.pop()
			total++
		}
	}
	return total
}

// put gives bytes to worker 0, if there is room.
func (q *copyQueue) put(b []byte, node uint32) bool {
	s := q.to.next()
	if s == nil || len(b) > len(s.data) {
		return false
	}
	s.n, s.node = copy(s.data[:], b), node
	q.to.publish()
	return true
}

// ring wakes the reader, once until it has looked.
func (q *copyQueue) ring() {
	if q.rung.CompareAndSwap(false, true) {
		one := [8]byte{1}
		_, _ = unix.Write(q.bell, one[:]) // cannot fail but for a counter that is already set
	}
}

// fromControl puts the next packet of the control side's into a frame, as p, and returns its slot, which is to be popped; nil: there is none,
// or no frame for it.
func (w *worker) fromControl(r *ring[copySlot], p *packet) *copySlot {
	s := r.front()
	if s == nil || w.pool.Get(w.moved[:1]) == 0 {
		return nil
	}
	*p = packet{chunk: w.moved[0], l3: errorStart, tunnel: noTunnel}
	p.end = p.l3 + uint16(copy(w.frame(p.chunk)[errorStart:], s.data[:s.n]))
	w.count.originated.add(1)
	return s
}

// giveCopy copies what p has for the control side to this worker's ring of a queue, and gives the frame back.
func (w *worker) giveCopy(r *ring[copySlot], q *copyQueue, p *packet, b []byte) {
	s := r.next()
	if s == nil {
		w.drop(p, PuntQueueFull)
		return
	}
	w.sampled(p, noTunnel, Punted)
	s.n, s.node = copy(s.data[:], b), uint32(p.tunnel)
	r.publish()
	q.ring()
	w.count.punted.add(1)
	w.release(p.chunk)
}
