package pipeline

import (
	"encoding/binary"
	"net/netip"

	"causeway/pipeline/wire"
)

// enterSlow4 checks an inner IPv4 header that has options or is malformed.
func (w *worker) enterSlow4(t *Tables, b *batch, i int, ip []byte) {
	p := &b.packets[i]
	hlen, total, f := wire.CheckIPv4(ip)
	if f == wire.OK {
		f = checkIPv4Rest(ip, hlen, total)
	}
	if f != wire.OK {
		w.drop(p, innerFault(f))
		return
	}
	p.end = p.l3 + uint16(total)
	p.l4 = p.l3 + uint16(hlen)
	w.admit4(t, b, i, ip)
}

// enter6 checks an inner IPv6 packet and queues it for route.
func (w *worker) enter6(t *Tables, b *batch, i int) {
	p := &b.packets[i]
	ip := w.bytes(p)
	total, f := wire.CheckIPv6(ip)
	if f != wire.OK {
		w.drop(p, innerFault(f))
		return
	}
	p.end = p.l3 + uint16(total)
	chain, f := walkIPv6(ip[:total])
	if f != wire.OK {
		w.drop(p, innerFault(f))
		return
	}
	p.proto, p.l4 = chain.Proto, p.l3+uint16(chain.Offset)
	r := &t.rx[p.tunnel]
	src := addr6(ip[8:])
	if (src[0]&r.mask6[0] != r.net6[0] || src[1]&r.mask6[1] != r.net6[1]) && !w.mayUseSource6(t, p, ip) {
		return
	}
	if bad6(ip[24:40]) {
		w.drop(p, InnerDestination)
		return
	}
	if p.outerECN != 0 && !w.decapECN6(p, ip) {
		return
	}
	switch {
	case chain.Fragmented && chain.FragOff != 0:
		p.flags |= pktLaterFragment
	case p.proto == wire.ProtoTCP:
		w.noteSYN(p)
	}
	c := &w.tunnels[p.tunnel]
	c.rxPackets.add(1)
	c.rxBytes.add(uint64(p.end - p.l3))
	w.count.decapsulated.add(1)
	if p.flags&pktCaptured != 0 {
		w.noteAdmitted(p)
	}
	b.toRoute(i)
}

// mayUseSource4 decides about a source outside the tunnel's first prefix: one of the others, or the interface's
// subnet. A GRE keepalive is answered here, for its source is our own endpoint. If it returns false the packet is
// gone.
func (w *worker) mayUseSource4(t *Tables, p *packet) bool {
	set := &t.sources[p.tunnel]
	if set.behind4(p.src) {
		return true
	}
	if set.interface4.contains(p.src) {
		p.flags |= pktInterfaceSource
		return true
	}
	if t.isKeepalive4(w, p) {
		w.answerKeepalive(t, p)
		return false
	}
	w.drop(p, InnerSource)
	return false
}

func (w *worker) mayUseSource6(t *Tables, p *packet, ip []byte) bool {
	set := &t.sources[p.tunnel]
	src, _ := netip.AddrFromSlice(ip[8:24])
	if set.behind6(src) {
		return true
	}
	if set.inside6(src) {
		p.flags |= pktInterfaceSource
		return true
	}
	w.drop(p, InnerSource)
	return false
}

// ECN codepoints, RFC 3168 5.
const (
	ecnNot = 0
	ect1   = 1
	ect0   = 2
	ecnCE  = 3
)

// combineECN is the table of RFC 6040 4.2 for an outer codepoint other than Not-ECT: the codepoint of the packet
// that goes on, or ok false where it must be dropped.
func combineECN(outer, inner uint8) (ecn uint8, ok bool) {
	switch {
	case inner == ecnNot:
		return inner, outer != ecnCE
	case outer == ecnCE:
		return ecnCE, true
	case inner == ect0 && outer == ect1:
		return ect1, true
	}
	return inner, true
}

func (w *worker) decapECN4(p *packet, ip []byte) bool {
	old := binary.BigEndian.Uint16(ip)
	ecn, ok := combineECN(p.outerECN, ip[1]&3)
	if !ok {
		w.drop(p, ECNConflict)
		return false
	}
	ip[1] = ip[1]&^3 | ecn
	sum := binary.BigEndian.Uint16(ip[10:])
	binary.BigEndian.PutUint16(ip[10:], wire.Update16(sum, old, binary.BigEndian.Uint16(ip)))
	return true
}

func (w *worker) decapECN6(p *packet, ip []byte) bool {
	ecn, ok := combineECN(p.outerECN, ip[1]>>4&3)
	if !ok {
		w.drop(p, ECNConflict)
		return false
	}
	ip[1] = ip[1]&^0x30 | ecn<<4
	return true
}
