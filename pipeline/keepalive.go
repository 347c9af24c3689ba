package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/wire"
)

// A GRE keepalive, as Cisco's routers send it, carries its own answer: the inner packet is a GRE packet from our
// endpoint to the customer's, with protocol 0. Who decapsulates and routes it has answered.

// isKeepalive4 reports whether the inner packet of p is the answer to a keepalive of its tunnel, which is one of GRE: what
// came encrypted never leaves as it is.
func (t *Tables) isKeepalive4(w *worker, p *packet) bool {
	r := &t.rx[p.tunnel]
	if t.esp[p.tunnel] != nil || r.flags&tunOuter6 != 0 || p.proto != wire.ProtoGRE || p.src != r.endpoint4 || p.dst != r.customer4 {
		return false
	}
	gre := w.frame(p.chunk)[p.l4:p.end]
	return len(gre) >= wire.GREMinLen && binary.BigEndian.Uint16(gre[wire.GREOffProto:]) == 0
}

// answerKeepalive sends the inner packet to the customer endpoint as it is, by the way of the tunnel's own packets.
func (w *worker) answerKeepalive(t *Tables, p *packet) {
	id := int(p.tunnel)
	w.sampled(p, noTunnel, Delivered)
	w.count.delivered.add(1)
	w.count.originated.add(1)
	p.tunnel, p.flags, p.sample = noTunnel, p.flags&^watched|w.chooseOne(t), 0
	l := w.outerRoute(p, id)
	if LeafKind(l) != KindNeighbour {
		w.drop(p, TunnelUnroutable)
		return
	}
	slot := w.engine.fwd.neighbours[LeafIndex(l)].Load()
	if slot&neighbourResolved == 0 {
		w.unresolved(p, LeafIndex(l))
		return
	}
	w.sampled(p, noTunnel, Forwarded)
	w.sendLink(p, &t.links[slot>>neighbourLinkShift&(MaxLinks-1)], slot, p.l3)
}
