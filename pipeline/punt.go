package pipeline

import (
	"encoding/binary"
	"fmt"

	"causeway/pipeline/wire"
)

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

// Inject gives a packet of the kernel's to the pipeline, which routes it by the Internet table like one from
// outside. It reports false if the ring is full or the packet larger than a frame.
func (q *PuntQueue) Inject(packet []byte) bool {
	return q.put(packet, 0)
}

// punt copies p to the kernel's queue and gives its frame back.
func (w *worker) punt(p *packet) {
	if w.punts == nil {
		w.drop(p, PuntNoDevice)
		return
	}
	w.giveCopy(w.punts, &w.engine.punt.copyQueue, p, w.bytes(p))
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
		if w.fromControl(w.inject, &b.packets[b.n]) == nil {
			break
		}
		w.inject.pop()
		w.injectOne(t, b)
	}
	w.route(t, b)
	w.forward(t, b)
	w.sendOriginated(t)
	b.n = 0
	return n
}

// injectOne takes the packet behind the last one of the batch into it, if nothing is wrong with it.
func (w *worker) injectOne(t *Tables, b *batch) {
	p := &b.packets[b.n]
	p.flags = pktInjected | w.chooseOne(t)
	if w.capturing != nil {
		w.capturing.lookAt(w, p, FromHost, 0, w.bytes(p))
	}
	w.count.injected.add(1)
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
