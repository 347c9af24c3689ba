package pipeline

import (
	"encoding/binary"
	"fmt"

	"causeway/pipeline/wire"
	"causeway/xsk"
)

// Between workers there are only single-producer single-consumer rings: one hands frames over, one brings frames
// home to the part of the UMEM that they came from. The home ring holds a whole part, so it is never full.

// A handover is a frame on its way to another worker, with what the worker found out about the packet in it. It is written
// field by field into its place in the ring: a copy is loaded in larger pieces than it was stored in, and such a load waits
// until all stores before it, those to lines of the other core too, have reached the cache.
type handover struct {
	chunk     uint64
	from      int32  // tunnel that the packet came out of
	tunnel    int32  // handEncap: tunnel to encapsulate for; handMessage: that of the node
	start     uint16 // handTransmit: link header; handMessage: the message; otherwise the IP packet, with handESP the outer one
	end       uint16
	l4        uint16
	kind      handKind
	port      uint8
	flags     uint16
	proto     uint8
	encrypt   bool
	forwarded bool
	holder    uint8 // of the tunnel's number when the packet was routed
	capture   uint16
}

type handKind uint8

const (
	handTransmit handKind = iota // ready for the wire; the other worker has a queue of the port
	handFragment                 // an outer fragment, for the worker that its datagram chose
	handESP                      // an ESP packet, for the owner of its association
	handEncap                    // to be encapsulated by the owner of the tunnel's sequence numbers, or of the association
	handMessage                  // a message to another node, for the owner of the association with it
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
				w.inject = e.punt.to
			}
		}
		if e.nodes != nil {
			w.heard = e.nodes.rings[i]
			if i == 0 {
				w.told = e.nodes.to
			}
		}
		w.probes, w.devices = e.probes.ringsOf(i), e.devices.ringsOf(i)
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
		if h := w.placeFor(via, d.Addr&^(xsk.FrameSize-1)); h != nil {
			h.kind, h.port, h.start, h.end = handTransmit, uint8(port), start, start+uint16(d.Len)
		}
	}
}

// handTo gives a packet to another worker, or drops it if the ring is full: then it returns nil. What it returns may be
// changed until flush shows it.
func (w *worker) handTo(to int, kind handKind, p *packet) *handover {
	h := w.placeFor(to, p.chunk)
	if h == nil {
		w.noteReason(p, HandOverFull)
		return nil
	}
	if p.flags&pktCaptured != 0 && w.capturing != nil {
		w.capturing.give(w, p, to)
	}
	h.kind, h.port, h.start, h.end, h.tunnel, h.from = kind, p.port, p.l3, p.end, noTunnel, p.tunnel
	h.proto, h.flags, h.l4, h.encrypt, h.forwarded, h.capture = p.proto, p.flags, p.l4, p.encrypt, p.forwarded, p.capture
	return h
}

// handToEncap gives a packet for tunnel id to the worker that encapsulates it.
func (w *worker) handToEncap(t *Tables, p *packet, id, to int) {
	w.handInto(t, handEncap, p, id, to)
}

func (w *worker) handInto(t *Tables, kind handKind, p *packet, id, to int) {
	if h := w.handTo(to, kind, p); h != nil {
		h.tunnel, h.holder = int32(id), t.tx[id].holder
	}
}

// placeFor is a place in the ring toward another worker for a frame, which it drops if there is none.
func (w *worker) placeFor(to int, chunk uint64) *handover {
	w.umem.Track(chunk, xsk.Worker, xsk.HandOver)
	h := w.toward[to].claim()
	if h == nil {
		w.umem.Track(chunk, xsk.HandOver, xsk.Worker)
		w.countLost(HandOverFull)
		w.release(chunk)
		return nil
	}
	w.count.handover.add(1)
	h.chunk = chunk
	return h
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
		for i := range w.taken[:n] {
			h := &w.taken[i]
			w.umem.Track(h.chunk, xsk.HandOver, xsk.Worker)
			w.accept(t, h)
		}
		w.sealESP(t)
		w.finishWhole(t)
		work += n
	}
	return work
}

func (w *worker) accept(t *Tables, h *handover) {
	if h.kind == handTransmit {
		w.emit(int(h.port), h.chunk, h.start, h.end)
		return
	}
	p := packet{chunk: h.chunk, l3: h.start, end: h.end, tunnel: h.from, port: h.port,
		flags: h.flags, proto: h.proto, l4: h.l4, encrypt: h.encrypt, forwarded: h.forwarded, capture: h.capture}
	if p.flags&pktCaptured != 0 {
		w.takeCaptured(&p)
	}
	switch h.kind {
	case handFragment:
		w.join(&p)
	case handESP: // finishWhole looks at it from its outer header on
		w.whole.packets[w.whole.n] = p
		w.whole.n++
	case handEncap, handMessage:
		if int(h.tunnel) >= len(t.tx) || t.tx[h.tunnel].flags&tunLive == 0 || t.tx[h.tunnel].holder != h.holder {
			w.drop(&p, TunnelUnroutable) // the tunnel was taken away meanwhile, and another may have its number
			return
		}
		if h.kind == handMessage {
			w.sendMessage(t, &p, int(h.tunnel))
			return
		}
		if ip := w.bytes(&p); p.flags&pktV6 == 0 { // for the flow's way
			p.src, p.dst = binary.BigEndian.Uint32(ip[wire.IPv4OffSrc:]), binary.BigEndian.Uint32(ip[wire.IPv4OffDst:])
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
