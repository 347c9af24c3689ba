package pipeline

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"causeway/pipeline/wire"
	"causeway/xsk"
)

// A PuntQueue carries packets between the workers and the kernel's stack: one bounded ring per worker toward it, and
// one from it to worker 0. The daemon's TUN device is at the other end. Packets are copied, so the ring never holds
// a frame.
type PuntQueue struct {
	rings  []*ring[puntSlot]
	inject *ring[puntSlot]
	bell   int // eventfd that a worker rings when it has put something into an empty ring
	rung   atomic.Bool
}

// puntSlot holds one IP packet.
type puntSlot struct {
	n    int
	data [xsk.FrameSize - errorStart]byte
}

// NewPuntQueue makes the queue for that many workers; each may have depth packets waiting (a power of two).
func NewPuntQueue(workers, depth int) (*PuntQueue, error) {
	if depth < 1 || depth&(depth-1) != 0 {
		return nil, fmt.Errorf("punt queue: depth %d is not a power of two", depth)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("punt queue: eventfd: %w", err)
	}
	q := &PuntQueue{bell: bell, inject: newRing[puntSlot](depth)}
	for range workers {
		q.rings = append(q.rings, newRing[puntSlot](depth))
	}
	return q, nil
}

// Close frees the queue; the workers and the reader must have stopped.
func (q *PuntQueue) Close() error { return unix.Close(q.bell) }

// Wait blocks until a worker has put something in, or for at most timeoutMS milliseconds.
func (q *PuntQueue) Wait(timeoutMS int) {
	fds := [1]unix.PollFd{{Fd: int32(q.bell), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds[:], timeoutMS); err != nil || n == 0 {
		return
	}
	var b [8]byte
	_, _ = unix.Read(q.bell, b[:]) // non-blocking: only resets the counter
}

// Drain calls f for each waiting packet, which is f's only until it returns, and returns how many there were.
func (q *PuntQueue) Drain(f func(packet []byte)) int {
	q.rung.Store(false)
	total := 0
	for _, r := range q.rings {
		for s := r.front(); s != nil; s = r.front() {
			f(s.data[:s.n])
			r.pop()
			total++
		}
	}
	return total
}

// Inject gives a packet of the kernel's to the pipeline, which routes it by the Internet table like one from
// outside. It reports false if the ring is full or the packet larger than a frame.
func (q *PuntQueue) Inject(packet []byte) bool {
	s := q.inject.next()
	if s == nil || len(packet) > len(s.data) {
		return false
	}
	s.n = copy(s.data[:], packet)
	q.inject.publish()
	return true
}

// ring wakes the reader, once until it has looked.
func (q *PuntQueue) ring() {
	if q.rung.CompareAndSwap(false, true) {
		one := [8]byte{1}
		_, _ = unix.Write(q.bell, one[:]) // cannot fail but for a counter that is already set
	}
}

// punt copies p to the kernel's queue and gives its frame back.
func (w *worker) punt(p *packet) {
	if w.punts == nil {
		w.drop(p, PuntNoDevice)
		return
	}
	s := w.punts.next()
	if s == nil {
		w.drop(p, PuntQueueFull)
		return
	}
	s.n = copy(s.data[:], w.bytes(p))
	w.punts.publish()
	w.engine.punt.ring()
	w.count.punted.add(1)
	w.release(p.chunk)
}

// takeInjected forwards what the kernel sent through the TUN device, at most a batch.
func (w *worker) takeInjected(t *Tables) int {
	if w.inject == nil || w.inject.front() == nil {
		return 0
	}
	w.again.n, w.again.routed.n = 0, 0
	n := 0
	for ; n < BatchSize; n++ {
		s := w.inject.front()
		if s == nil || w.pool.Get(w.moved[:1]) == 0 {
			break
		}
		w.injectOne(w.moved[0], s)
		w.inject.pop()
	}
	w.sendOriginated(t)
	return n
}

func (w *worker) injectOne(chunk uint64, s *puntSlot) {
	p := packet{chunk: chunk, l3: errorStart, tunnel: noTunnel}
	p.end = p.l3 + uint16(copy(w.frame(chunk)[errorStart:], s.data[:s.n]))
	ip := w.bytes(&p)
	f := wire.IPv4Version
	if len(ip) > 0 {
		switch ip[0] >> 4 {
		case 4:
			_, _, f = wire.CheckIPv4(ip)
		case 6:
			p.flags |= pktV6
			_, f = wire.CheckIPv6(ip)
		}
	}
	w.count.injected.add(1)
	if f != wire.OK {
		w.count.originated.add(1)
		w.drop(&p, outerFault(f))
		return
	}
	w.originate(&p)
	if p.flags&pktV6 == 0 && binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
		w.again.packets[w.again.n-1].flags |= pktLaterFragment
	}
}
