package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/wire"
)

// maxPieces bounds into how many fragments one packet is cut: what a frame holds, at the smallest MTU that IPv4
// allows (RFC 791 3.2: 68 bytes), would need 36.
const maxPieces = 40

// oversize deals with a packet larger than mtu, the limit of tunnel id or, with noTunnel, of the link.
//
//	IPv4, DF clear, or `df: clear` on the tunnel  fragmented before encapsulation (RFC 791 2.3)
//	IPv4, DF set                                  dropped, fragmentation needed to the source (RFC 1191 4)
//	IPv6 up to 1280                               encapsulated, the outer packet fragmented (RFC 8200 5)
//	IPv6                                          dropped, packet too big to the source (RFC 4443 3.2)
func (w *worker) oversize(t *Tables, p *packet, mtu, id int) {
	ip := w.bytes(p)
	if p.flags&pktV6 != 0 {
		if id != noTunnel && len(ip) <= wire.IPv6MinMTU {
			if w.decrement(t, p, id) {
				w.encap(t, p, id)
			}
			return
		}
		w.tooBig(t, p, max(mtu, wire.IPv6MinMTU), id)
		return
	}
	df := ip[wire.IPv4OffFrag]&(wire.IPv4DF>>8) != 0
	if df && (id == noTunnel || t.tx[id].flags&tunClearDF == 0) {
		w.tooBig(t, p, mtu, id)
		return
	}
	if w.decrement(t, p, id) {
		w.fragmentInner(t, p, mtu, id, df)
	}
}

func (w *worker) tooBig(t *Tables, p *packet, mtu, id int) {
	if id != noTunnel {
		w.countDropInto(p, id, TooBig)
	}
	w.refuse(t, p, TooBig,
		wire.ICMPError{Type: wire.ICMP4Unreachable, Code: wire.ICMP4CodeFragNeeded, MTU: uint32(mtu)},
		wire.ICMPError{Type: wire.ICMP6TooBig, MTU: uint32(mtu)})
}

// fragmentInner cuts an IPv4 packet into pieces of at most mtu bytes and sends each where the whole was going. An
// identification means nothing in a packet that had DF set (RFC 6864 4.1), so such a packet gets a new one.
func (w *worker) fragmentInner(t *Tables, p *packet, mtu, id int, df bool) {
	ip := w.bytes(p)
	ident := binary.BigEndian.Uint16(ip[wire.IPv4OffID:])
	if df {
		ip[wire.IPv4OffFrag] &^= wire.IPv4DF >> 8
		ident = w.nextID()
	}
	pieces := w.cut4(&w.innerPieces, p, ip, mtu, ident)
	for i := range pieces {
		q := &pieces[i]
		if id != noTunnel {
			w.encap(t, q, id)
			continue
		}
		slot := w.engine.fwd.neighbours[LeafIndex(q.leaf)].Load()
		w.sampled(q, noTunnel, Forwarded)
		w.sendLink(q, &t.links[slot>>neighbourLinkShift&(MaxLinks-1)], slot, q.l3)
	}
}

// fragmentOuter cuts an encapsulated packet, whose outer header begins at o, into pieces of at most mtu bytes.
func (w *worker) fragmentOuter(p *packet, lk *link, slot uint64, o uint, mtu int) {
	p.l3 = uint16(o)
	ip := w.bytes(p)
	var pieces []packet
	if p.flags&pktV6 != 0 {
		pieces = w.cut6(&w.outerPieces, p, ip, mtu)
	} else {
		ip[wire.IPv4OffFrag] &^= wire.IPv4DF >> 8
		pieces = w.cut4(&w.outerPieces, p, ip, mtu, w.nextID())
	}
	for i := range pieces {
		w.sendLink(&pieces[i], lk, slot, pieces[i].l3)
	}
}

// nextID is an identification for packets that we fragment.
func (w *worker) nextID() uint16 {
	w.ident++
	return uint16(w.ident)
}

// cut4 cuts the IPv4 packet ip, which is p's, into pieces; the first stays in p's frame, the others get frames of
// their own. If that can not be, p is dropped and there are no pieces.
func (w *worker) cut4(into *[maxPieces]packet, p *packet, ip []byte, mtu int, ident uint16) []packet {
	n, f := wire.PlanIPv4(ip, mtu, w.plan[:])
	hlen := int(ip[0]&15) * 4
	if !w.makePieces(into, p, n, f) {
		return nil
	}
	for i := 1; i < n; i++ {
		dst := w.frame(into[i].chunk)[errorStart:]
		h := wire.PutFragment4(dst, ip, w.plan[i], ident)
		h += copy(dst[h:], ip[hlen+w.plan[i].Off:][:w.plan[i].Len])
		into[i].end = errorStart + uint16(h)
	}
	wire.PutFragment4(ip, ip, w.plan[0], ident)
	into[0].end = p.l3 + uint16(hlen+w.plan[0].Len)
	return into[:n]
}

// cut6 is cut4 for an outer IPv6 packet, which has no extension headers before its GRE header. The first piece
// grows by a fragment header, toward the front of its frame.
func (w *worker) cut6(into *[maxPieces]packet, p *packet, ip []byte, mtu int) []packet {
	chain := wire.IPv6Chain{UnfragLen: wire.IPv6Len, UnfragNext: wire.IPv6OffNext}
	n, f := wire.PlanIPv6(ip, &chain, mtu, w.plan[:])
	if !w.makePieces(into, p, n, f) {
		return nil
	}
	ident := uint32(w.id)<<24 ^ w.ident
	w.ident++
	for i := 1; i < n; i++ {
		dst := w.frame(into[i].chunk)[errorStart:]
		h := wire.PutFragment6(dst, ip, &chain, w.plan[i], ident)
		h += copy(dst[h:], ip[wire.IPv6Len+w.plan[i].Off:][:w.plan[i].Len])
		into[i].end = errorStart + uint16(h)
	}
	h := wire.PutFragment6(w.scratch[:], ip, &chain, w.plan[0], ident)
	into[0].l3 = p.l3 - wire.IPv6FragmentLen
	copy(w.frame(p.chunk)[into[0].l3:], w.scratch[:h])
	into[0].end = p.l3 + wire.IPv6Len + uint16(w.plan[0].Len)
	return into[:n]
}

// makePieces prepares n packets like p, with frames for all but the first.
func (w *worker) makePieces(into *[maxPieces]packet, p *packet, n int, f wire.Fault) bool {
	if f != wire.OK {
		w.drop(p, FragmentNotAllowed)
		return false
	}
	got := w.pool.Get(w.moved[:n-1])
	if got < n-1 {
		w.pool.Put(w.moved[:got])
		w.drop(p, FragmentNoFrame)
		return false
	}
	w.notePieces(p, n)
	into[0] = *p
	for i := 1; i < n; i++ {
		into[i] = *p
		into[i].chunk, into[i].l3 = w.moved[i-1], errorStart
		into[i].flags = p.flags&^pktCaptured | pktLaterFragment
		into[i].sample = 0
	}
	w.count.fragments.add(uint64(n - 1))
	return true
}
