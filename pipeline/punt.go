package pipeline

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"causeway/pipeline/wire"
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
	node uint32 // NodeQueue, to a worker: the tag of the node's tunnel
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

// A PuntQueue carries packets between the workers and the kernel's stack. The daemon's TUN device is at the other end.
type PuntQueue struct{ copyQueue }

// NewPuntQueue makes the queue for that many workers; each may have depth packets waiting (a power of two).
func NewPuntQueue(workers, depth int) (*PuntQueue, error) {
	q := new(PuntQueue)
	if err := q.open(workers, depth); err != nil {
		return nil, fmt.Errorf("punt queue: %w", err)
	}
	return q, nil
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
	return q.put(packet, 0)
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

// punt copies p to the kernel's queue and gives its frame back.
func (w *worker) punt(p *packet) {
	if w.punts == nil {
		w.drop(p, PuntNoDevice)
		return
	}
	w.giveCopy(w.punts, &w.engine.punt.copyQueue, p, w.bytes(p))
}

// giveCopy copies what p has for the control side to this worker's ring of a queue, and gives the frame back.
func (w *worker) giveCopy(r *ring[copySlot], q *copyQueue, p *packet, b []byte) {
	s := r.next()
	if s == nil {
		w.drop(p, PuntQueueFull)
		return
	}
	s.n = copy(s.data[:], b)
	r.publish()
	q.ring()
	w.count.punted.add(1)
	w.release(p.chunk)
}

// takeInjected forwards what the kernel sent through the TUN device, at most a batch, like packets from outside: they
// are clamped, and their senders get ICMP errors. What is wrong with them ends at the next hop, if not here.
func (w *worker) takeInjected(t *Tables) int {
	if w.inject == nil || w.inject.front() == nil {
		return 0
	}
	b := &w.whole
	b.n = 0
	b.reset()
	n := 0
	for ; n < BatchSize; n++ {
		s := w.inject.front()
		if s == nil || w.pool.Get(w.moved[:1]) == 0 {
			break
		}
		w.injectOne(b, w.moved[0], s)
		w.inject.pop()
	}
	w.route(t, b)
	w.forward(t, b)
	w.sendOriginated(t)
	b.n = 0
	return n
}

func (w *worker) injectOne(b *batch, chunk uint64, s *copySlot) {
	p := &b.packets[b.n]
	*p = packet{chunk: chunk, l3: errorStart, tunnel: noTunnel, flags: pktInjected}
	p.end = p.l3 + uint16(copy(w.frame(chunk)[errorStart:], s.data[:s.n]))
	w.count.injected.add(1)
	w.count.originated.add(1)
	if f := w.describe(p); f != wire.OK {
		w.drop(p, outerFault(f))
		return
	}
	b.toRoute(b.n)
	b.n++
}

// describe fills in what route and forward need to know of an IP packet without a link header.
func (w *worker) describe(p *packet) wire.Fault {
	ip := w.bytes(p)
	if len(ip) == 0 {
		return wire.IPv4Short
	}
	if ip[0]>>4 == 6 {
		p.flags |= pktV6
		if _, f := wire.CheckIPv6(ip); f != wire.OK {
			return f
		}
		chain, f := walkIPv6(ip)
		p.proto, p.l4 = chain.Proto, p.l3+uint16(chain.Offset)
		w.noteInjected(p, chain.FragOff != 0)
		return f
	}
	hlen, _, f := wire.CheckIPv4(ip)
	if f != wire.OK {
		return f
	}
	p.proto, p.l4 = ip[wire.IPv4OffProto], p.l3+uint16(hlen)
	p.src, p.dst = binary.BigEndian.Uint32(ip[wire.IPv4OffSrc:]), binary.BigEndian.Uint32(ip[wire.IPv4OffDst:])
	w.noteInjected(p, binary.BigEndian.Uint16(ip[wire.IPv4OffFrag:])&wire.IPv4FragMask != 0)
	return wire.OK
}

func (w *worker) noteInjected(p *packet, later bool) {
	switch {
	case later:
		p.flags |= pktLaterFragment
	case p.proto == wire.ProtoTCP:
		w.noteSYN(p)
	}
}
