package pipeline

import (
	"encoding/binary"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// parseESP queues an ESP packet for decap.
func (w *worker) parseESP(b *batch, i int) {
	p := &b.packets[i]
	packet := w.frame(p.chunk)[p.l4:p.end]
	if len(packet) < wire.ESPLen {
		w.drop(p, ESPShort)
		return
	}
	p.key = binary.BigEndian.Uint32(packet)
	b.esp.add(i)
}

// parseESPInUDP is parseESP for a packet in UDP (RFC 3948 2.1). The checksum, which should be zero, is not looked at: the
// integrity check value says more.
func (w *worker) parseESPInUDP(b *batch, i int) {
	p := &b.packets[i]
	udp := w.frame(p.chunk)[p.l4:p.end]
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if n < wire.UDPLen || n > len(udp) {
		w.drop(p, ESPShort)
		return
	}
	p.end = p.l4 + uint16(n)
	p.l4 += wire.UDPLen
	w.parseESP(b, i)
}

// openESP finds the association of each ESP packet, checks and decrypts all of them as one burst, and makes the inner
// packets those that are looked at. Associations of other workers' get their packets first.
func (w *worker) openESP(t *Tables, b *batch) {
	list := b.esp.list()
	sas := w.sas[:len(list)]
	for k, i := range list {
		sas[k] = t.spis.find(b.packets[i&(BatchSize-1)].key)
	}
	w.fetchOpening(t, sas)
	o := &w.opener
	o.Reset()
	n := 0
	for k, i := range list {
		p := &b.packets[i&(BatchSize-1)]
		if !w.mayOpen(t, p, sas[k]) {
			continue
		}
		if v := o.Add(t.spis.in[sas[k]], w.frame(p.chunk)[p.l4:p.end]); v != esp.OK {
			w.drop(p, OpenReason(v))
			continue
		}
		sas[n], w.opening[n] = sas[k], i
		n++
	}
	o.Open()
	opened := 0
	for k, i := range w.opening[:n] {
		p := &b.packets[i&(BatchSize-1)]
		from, to, next, v := o.Result(k)
		if v != esp.OK {
			w.drop(p, OpenReason(v))
			continue
		}
		p.l4, p.end = p.l4+uint16(from), p.l4+uint16(to)
		sa := &t.spis.list[sas[k]]
		if (next != esp.NextIPv4 || sa.flags&(saNarrow|saNoted|saNode) != 0 || p.flags&pktV6 != 0) && !w.mayEnter(t, p, sas[k], k, next) {
			continue
		}
		w.opening[opened], w.ids[opened] = i, uint32(sa.tunnel)
		opened++
	}
	w.leaveTunnels(t, b, w.opening[:opened], w.ids[:opened], true)
}

// mayOpen reports whether a packet belongs to the association with that number, from its peer, and is this worker's to open.
// Otherwise it does what else is to be done with it.
func (w *worker) mayOpen(t *Tables, p *packet, at uint32) bool {
	if at >= uint32(len(t.spis.list)) {
		w.strayed(t, p, ESPNoSA)
		return false
	}
	sa := &t.spis.list[at]
	if !sa.sends(p) && !w.fromPeer(t, p, at) { // before the other worker has work with it
		p.tunnel = sa.tunnel
		w.strayed(t, p, ESPSource)
		return false
	}
	if int(sa.owner) != w.id {
		end := w.endOfIP(p)
		if h := w.handTo(int(sa.owner), handESP, p); h != nil {
			h.end, h.flags = end, p.flags&(pktV6|watched)
		}
		return false
	}
	p.tunnel = sa.tunnel
	return true
}

// endOfIP is where the outer packet ends: what its UDP header leaves over at the end was cut off p.
func (w *worker) endOfIP(p *packet) uint16 {
	ip := w.frame(p.chunk)[p.l3:]
	if p.flags&pktV6 != 0 {
		return p.l3 + ip6Len + binary.BigEndian.Uint16(ip[wire.IPv6OffPayload:])
	}
	return p.l3 + binary.BigEndian.Uint16(ip[wire.IPv4OffTotal:])
}

// sends reports whether a packet is ESP over IPv4 between the association's ends: what most are.
func (sa *inboundSA) sends(p *packet) bool {
	return p.proto == wire.ProtoESP && p.flags&pktV6 == 0 && sa.flags&(saPlain|saOuter6) == saPlain && p.src == sa.peer4 && p.dst == sa.endpoint4
}

// fromPeer reports whether the outer header is what the association's peer sends. Behind NAT the source may be anything
// (RFC 3948 A).
func (w *worker) fromPeer(t *Tables, p *packet, at uint32) bool {
	sa := &t.spis.list[at]
	taken, anywhere := saPlain, false
	if p.proto == wire.ProtoUDP {
		taken, anywhere = saUDP, sa.flags&saAnywhere != 0
	}
	if sa.flags&taken == 0 {
		return false
	}
	outer6 := p.flags&pktV6 != 0
	if outer6 != (sa.flags&saOuter6 != 0) {
		return false
	}
	if outer6 {
		ip, more := w.frame(p.chunk)[p.l3:], t.spis.more[at]
		return addr6(ip[wire.IPv6OffDst:]) == more.endpoint6 && (anywhere || addr6(ip[wire.IPv6OffSrc:]) == more.peer6)
	}
	return p.dst == sa.endpoint4 && (anywhere || p.src == sa.peer4)
}

// mayEnter turns to the family of the text of the k-th opened packet and reports whether it may come out of the tunnel, or drops
// it. at is the number of its association. What another node has forwarded comes out of no tunnel.
func (w *worker) mayEnter(t *Tables, p *packet, at uint32, k int, next uint8) bool {
	if t.spis.list[at].flags&saNode != 0 {
		w.takeForwarded(t, p, next)
		return false
	}
	in, more := t.spis.in[at], t.spis.more[at]
	if more.source != nil && p.proto == wire.ProtoUDP && w.opener.Newest(k) {
		w.noteSource(p, in, more.source)
	}
	outer6 := p.flags & pktV6
	p.flags &^= pktV6 | pktOuter6
	if outer6 != 0 {
		p.flags |= pktOuter6
	}
	switch next {
	case esp.NextIPv4:
	case esp.NextIPv6:
		p.flags |= pktV6
	default:
		w.drop(p, ESPProtocol)
		return false
	}
	if !more.selectors.admits(w.frame(p.chunk)[p.l4:p.end]) {
		in.Refuse(esp.Selector)
		w.drop(p, OpenReason(esp.Selector))
		return false
	}
	return true
}

// OpenReason is why a packet was not opened.
func OpenReason(v esp.Verdict) Reason {
	switch v {
	case esp.Dummy:
		return ESPDummy
	case esp.Short:
		return ESPShort
	case esp.Left:
		return ESPLeftOfWindow
	case esp.Below:
		return ESPBelowFloor
	case esp.Replayed:
		return ESPReplayed
	case esp.Padding:
		return ESPPadding
	case esp.Expired:
		return ESPExpired
	case esp.Selector:
		return ESPSelector
	}
	return ESPForged
}
