package pipeline

import (
	"encoding/binary"
	"fmt"

	"causeway/pipeline/wire"
	"causeway/xsk"
)

// Between workers there are only single-producer single-consumer rings: one hands frames over, one brings frames
// home to the part of the UMEM that they came from. The home ring holds a whole part, so it is never full.

// A handover is a frame on its way to another worker.
type handover struct {
	chunk   uint64
	start   uint16 // handTransmit: link header; otherwise the IP packet, with handESP the outer one
	end     uint16
	kind    handKind
	port    uint8
	tunnel  int32 // handFragment: noTunnel; handEncap: tunnel to encapsulate for
	packetV packetView
}

// packetView is what the owner of a tunnel's sequence numbers needs to know of a packet that was routed elsewhere.
type packetView struct {
	proto, flags uint8
	l4           uint16
	encrypt      bool
}

type handKind uint8

const (
	handTransmit handKind = iota // ready for the wire; the other worker has a queue of the port
	handFragment                 // an outer fragment, for the worker that its datagram chose
	handESP                      // an ESP packet, for the owner of its association
	handEncap                    // to be encapsulated by the owner of the tunnel's sequence numbers
)

// handoverRing is the number of frames that may wait between two workers.
const handoverRing = 1024

// connect makes the rings between the workers, and finds for each port without a queue here the worker to go through.
func (e *Engine) connect() error {
	n := len(e.workers)
	for i, w := range e.workers {
		w.alone = n == 1
		w.toward, w.from = make([]*ring[handover], n), make([]*ring[handover], n)
		w.home, w.coming = make([]*ring[uint64], n), make([]*ring[uint64], n)
		if e.punt != nil {
			w.punts = e.punt.rings[i]
			if i == 0 {
				w.inject = e.punt.inject
			}
		}
	}
	for i, w := range e.workers {
		for j, o := range e.workers {
			if i == j {
				continue
			}
			w.toward[j] = newRing[handover](handoverRing)
			o.from[i] = w.toward[j]
			w.home[j] = newRing[uint64](e.umem.FramesPerPart())
			o.coming[i] = w.home[j]
		}
	}
	for port := range e.ports {
		if err := e.connectPort(port); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) connectPort(port int) error {
	var owners []int
	for i, w := range e.workers {
		if w.ports[port].queue != nil {
			owners = append(owners, i)
		}
	}
	if len(owners) == 0 {
		return fmt.Errorf("port %d: no worker has a queue of it", port)
	}
	for i, w := range e.workers {
		w.ports[port].via = owners[i%len(owners)]
	}
	return nil
}

// handOverFrames gives finished frames to a worker that has a queue of their port.
func (w *worker) handOverFrames(descs []xsk.Desc, via, port int) {
	for i := range descs {
		d := &descs[i]
		start := uint16(d.Addr & (xsk.FrameSize - 1))
		chunk := d.Addr &^ (xsk.FrameSize - 1)
		w.handTo(via, handover{chunk: chunk, start: start, end: start + uint16(d.Len), kind: handTransmit, port: uint8(port)})
	}
}

// handTo gives a frame to another worker, or drops it if the ring is full.
func (w *worker) handTo(to int, h handover) bool {
	w.umem.Track(h.chunk, xsk.Worker, xsk.HandOver)
	if w.toward[to].add(h) { // flush shows it
		w.count.handover.add(1)
		return true
	}
	w.umem.Track(h.chunk, xsk.HandOver, xsk.Worker)
	w.count.dropped[HandOverFull].add(1)
	w.release(h.chunk)
	return false
}

// takeOver works on what the other workers handed over, at most a batch from each.
func (w *worker) takeOver(t *Tables) int {
	work := 0
	for _, r := range w.from {
		if r == nil {
			continue
		}
		n := r.take(w.taken[:])
		if n == 0 {
			continue
		}
		for _, h := range w.taken[:n] {
			w.umem.Track(h.chunk, xsk.HandOver, xsk.Worker)
			w.accept(t, h)
		}
		w.sealESP(t)
		w.finishWhole(t)
		work += n
	}
	return work
}

func (w *worker) accept(t *Tables, h handover) {
	switch h.kind {
	case handTransmit:
		w.emit(int(h.port), h.chunk, h.start, h.end)
	case handFragment:
		p := packet{chunk: h.chunk, l3: h.start, end: h.end, tunnel: noTunnel, port: h.port, flags: h.packetV.flags}
		w.join(&p)
	case handESP: // finishWhole looks at it from its outer header on
		w.whole.packets[w.whole.n] = packet{chunk: h.chunk, l3: h.start, end: h.end, tunnel: noTunnel, port: h.port, flags: h.packetV.flags}
		w.whole.n++
	case handEncap:
		p := packet{chunk: h.chunk, l3: h.start, end: h.end, tunnel: noTunnel, port: h.port,
			flags: h.packetV.flags, proto: h.packetV.proto, l4: h.packetV.l4, encrypt: h.packetV.encrypt}
		if ip := w.bytes(&p); p.flags&pktV6 == 0 { // for the flow's way
			p.src, p.dst = binary.BigEndian.Uint32(ip[wire.IPv4OffSrc:]), binary.BigEndian.Uint32(ip[wire.IPv4OffDst:])
		}
		if int(h.tunnel) >= len(t.tx) || t.tx[h.tunnel].flags&tunLive == 0 {
			w.drop(&p, TunnelUnroutable) // the tunnel was taken away meanwhile
			return
		}
		w.encap(t, &p, int(h.tunnel))
	}
}

// sendHome sorts freed frames by the part of the UMEM that they belong to.
func (w *worker) sendHome(chunks []uint64) {
	kept := 0
	for _, c := range chunks {
		home := w.umem.Home(c)
		if home == w.id {
			chunks[kept] = c
			kept++
			continue
		}
		w.umem.Track(c, xsk.Worker, xsk.HandOver)
		w.home[home].add(c) // as long as a part: never full
	}
	for _, r := range w.home {
		if r != nil {
			r.show()
		}
	}
	w.pool.Put(chunks[:kept])
}

// welcome takes the frames that other workers sent home.
func (w *worker) welcome() {
	for _, r := range w.coming {
		if r == nil {
			continue
		}
		for n := r.take(w.moved[:]); n > 0; n = r.take(w.moved[:]) {
			for _, c := range w.moved[:n] {
				w.umem.Track(c, xsk.HandOver, xsk.Worker)
			}
			w.pool.Put(w.moved[:n])
		}
	}
}

// inFlight is the number of frames that this worker has handed over and nobody has taken yet.
func (w *worker) inFlight() uint64 {
	n := 0
	for _, r := range w.toward {
		if r != nil {
			n += r.len()
		}
	}
	return uint64(n)
}
