package pipeline

import (
	"encoding/binary"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// sealedPacket is a packet that waits for the burst to be sealed. Its headers stand: all of them, and then only the frame
// and its port are known; or those in front of the ESP header, but for what depends on the text.
type sealedPacket struct {
	addr   uint64
	length uint32
	port   uint16
	ready  bool

	p     packet // ends where the ESP packet does
	id    int32
	by    *sender
	route Leaf   // to the customer endpoint
	outer uint16 // start of the outer IP header
	inner uint16 // size of the inner packet
}

// encapESP makes the ESP packet, with outer headers, of a packet for tunnel id, and queues it for sealESP.
func (w *worker) encapESP(t *Tables, p *packet, id int, tun *espTunnel) {
	if tun.via != viaHere {
		w.forwardToOwner(t, p, id, int(tun.via))
		return
	}
	by, selected := tun.sender(w.bytes(p))
	if by == nil {
		w.refuseESP(p, id, ESPNoOutbound)
		return
	}
	if int(by.tx.owner) != w.id {
		w.handToEncap(t, p, id, int(by.tx.owner))
		return
	}
	if !selected {
		by.out.Refuse(esp.Selector)
		w.refuseESP(p, id, SealReason(esp.Selector))
		return
	}
	if int(p.l3) < frameRoom+by.out.Suite().Before() || p.l3 >= p.end {
		w.refuseESP(p, id, FrameNoRoom)
		return
	}
	w.sampled(p, id, Forwarded)
	tos, next := w.tosOf(p)
	w.seal(t, p, id, by, w.outerRoute(p, id), tos, next)
}

// tosOf is the octet of DSCP and ECN of packet p, and what it is to ESP.
func (w *worker) tosOf(p *packet) (tos, next uint8) {
	f := w.frame(p.chunk)
	tos, next = f[p.l3+1], uint8(esp.NextIPv4)
	if first := f[p.l3]; first>>4 == 6 {
		tos, next = first<<4|tos>>4, esp.NextIPv6
	}
	return tos, next
}

// seal queues p as the text of an ESP packet of tunnel id, with outer headers, to be encrypted and sent along a route.
func (w *worker) seal(t *Tables, p *packet, id int, by *sender, route Leaf, tos, next uint8) {
	w.makeRoomToSeal(t)
	out, f := by.out, w.frame(p.chunk)
	from, to, v := w.sealer.Add(out, f[:], int(p.l3), int(p.end), next)
	if v != esp.OK {
		w.refuseESP(p, id, SealReason(v))
		return
	}
	x := &by.tx
	*(*[64]byte)(f[from-64 : from]) = x.header
	outer := from - int(x.hlen)
	x.finishOuter(f[outer:to], tos)
	if by.udp {
		binary.BigEndian.PutUint16(f[from-wire.UDPLen+4:], uint16(to-from+wire.UDPLen))
	}
	s := &w.sealing[w.nseal]
	w.nseal++
	s.ready = false
	s.p, s.id, s.by, s.route, s.outer, s.inner = *p, int32(id), by, route, uint16(outer), p.end-p.l3
	s.p.end = uint16(to)
}

// sealAndSend queues a frame for sealESP whose headers are complete.
func (w *worker) sealAndSend(port uint16, addr uint64, length uint32) {
	s := &w.sealing[w.nseal&(BatchSize-1)]
	w.nseal++
	s.addr, s.length, s.port, s.ready = addr, length, port, true
}

func (w *worker) refuseESP(p *packet, id int, r Reason) {
	w.countDropInto(p, id, r)
	w.drop(p, r)
}

// makeRoomToSeal leaves room for one packet.
func (w *worker) makeRoomToSeal(t *Tables) {
	if w.nseal == len(w.sealing) {
		w.sealESP(t)
	}
}

// sealESP encrypts what encapESP and sealAndSend queued, as one burst, and sends it.
func (w *worker) sealESP(t *Tables) {
	if w.nseal == 0 {
		return
	}
	w.sealer.Seal()
	n := w.nseal
	w.nseal = 0
	for i := range w.sealing[:n] {
		s := &w.sealing[i]
		if s.ready {
			w.emitAt(int(s.port), s.addr, s.length)
			continue
		}
		if s.by.udp && s.by.tx.flags&tunOuter6 != 0 {
			f := w.frame(s.p.chunk)
			wire.SetUDP6Checksum(f[s.outer:s.p.end])
		}
		w.sendOuter(t, &s.p, int(s.id), &s.by.tx, s.by.out, s.route, uint(s.outer), s.inner)
	}
}

// SealReason is why a packet was not sealed.
func SealReason(v esp.Verdict) Reason {
	switch v {
	case esp.Exhausted:
		return ESPSequenceExhausted
	case esp.Unmarked:
		return ESPSequenceNotReserved
	case esp.NoIV:
		return ESPIVExhausted
	case esp.Expired:
		return ESPOutboundExpired
	case esp.Selector:
		return ESPOutboundSelector
	}
	return FrameNoRoom
}
