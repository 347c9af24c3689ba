package pipeline

import (
	"encoding/binary"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// forward sends each packet where its leaf leads: into a tunnel, to a neighbour, or to one of the ends in local.go.
// The contexts of all tunnels of the batch are fetched before the first is used. What most packets are, IPv4 with
// nothing special about them, goes by the two loops of fast.go; they leave everything else to toLeaf and toTunnel.
func (w *worker) forward(t *Tables, b *batch) {
	w.inside.n = 0
	w.makeRoom()
	if w.capturing != nil {
		w.noteRoutes(t, b)
	}
	w.forward4(t, b, &b.own4)
	w.forward4(t, b, &b.net4)
	for k, i := range b.all6.list() {
		w.toLeaf(t, b, int(i), b.all6.leaf[k])
	}
	w.enterTunnels(t, b)
	w.sealESP(t) // seal.go
}

// entering is a vector of packets with the tunnels that they go into.
type entering struct {
	vector
	id [BatchSize]uint32
}

func (e *entering) addTo(i, id int) {
	e.id[e.n&(BatchSize-1)] = uint32(id)
	e.add(i)
}

// toLeaf sends packet i of the batch where l leads.
func (w *worker) toLeaf(t *Tables, b *batch, i int, l Leaf) {
	w.count.general.add(1)
	p := &b.packets[i]
	if LeafKind(l) == KindGroup {
		l = w.pick(p, l)
		w.noteMember(p, l)
	}
	p.leaf = l
	switch LeafKind(l) {
	case KindTunnel:
		w.inside.addTo(i, LeafIndex(l))
	case KindNeighbour:
		w.toNeighbour(t, p)
	default:
		w.end(t, p)
	}
}

// pick chooses the member of an equal-cost group for p's flow.
func (w *worker) pick(p *packet, l Leaf) Leaf {
	g := w.engine.fwd.groups[LeafIndex(l)].Load()
	if g == nil {
		return 0
	}
	return g.Pick(w.flowHash(p))
}

// toNeighbour forwards a packet as it is.
func (w *worker) toNeighbour(t *Tables, p *packet) {
	if p.mustEncrypt() {
		w.drop(p, ESPAnswerInClear)
		return
	}
	slot := w.engine.fwd.neighbours[LeafIndex(p.leaf)].Load()
	if slot&neighbourResolved == 0 {
		w.unresolved(p, LeafIndex(p.leaf))
		return
	}
	lk := &t.links[slot>>neighbourLinkShift&(MaxLinks-1)]
	if p.flags&(pktSYN|pktInterfaceSource) != 0 && !w.beforePlain(t, p) {
		return
	}
	w.noteSize(p, int(lk.mtu))
	if int(p.end-p.l3) > int(lk.mtu) {
		w.oversize(t, p, int(lk.mtu), noTunnel)
		return
	}
	if !w.decrement(t, p, noTunnel) {
		return
	}
	w.sampled(p, noTunnel, Forwarded)
	w.sendLink(p, lk, slot, p.l3)
}

// encrypts reports whether what goes into tunnel id cannot be read on its way, by whichever child. A tunnel that cannot send
// yet says yes: nothing that goes into it leaves.
func (t *Tables) encrypts(id int) bool { return t.esp[id] != nil && t.esp[id].encrypts }

// secret reports whether what comes through tunnel id cannot be read on its way, by one child at least.
func (t *Tables) secret(id int) bool { return t.esp[id] != nil && t.esp[id].secret }

// mustEncrypt reports whether p must be encrypted before it leaves: it answers, and an ICMP error quotes, what came encrypted.
func (p *packet) mustEncrypt() bool { return p.flags&pktOriginated != 0 && p.encrypt }

// beforePlain does what few packets need before they leave unencapsulated.
func (w *worker) beforePlain(t *Tables, p *packet) bool {
	if p.flags&pktInterfaceSource != 0 {
		w.drop(p, InnerSource) // a tunnel's own subnet has no way back from the Internet
		return false
	}
	return p.tunnel == noTunnel || w.clamp(p, w.clampTo(t, int(p.tunnel), p))
}

// toTunnel checks a packet's size and life against the tunnel and encapsulates it.
func (w *worker) toTunnel(t *Tables, p *packet, id int) {
	w.count.general.add(1)
	if id >= len(t.tx) || t.tx[id].flags&tunLive == 0 {
		w.drop(p, NoRoute) // the tunnel was taken away a moment ago, its routes follow
		return
	}
	w.noteMember(p, MakeLeaf(KindTunnel, id))
	x := &t.tx[id]
	if p.vrf != x.vrf && p.vrf != 0 && !t.vrfs[p.vrf].mayReach(x.vrf) {
		w.drop(p, RouteLeavesAccount)
		return
	}
	if p.flags&pktSYN != 0 && !w.clampThrough(t, p, id) {
		return
	}
	mtu := w.tunnelMTU(t, id)
	w.noteSize(p, mtu)
	if int(p.end-p.l3) > mtu {
		w.oversize(t, p, mtu, id)
		return
	}
	if !w.decrement(t, p, id) {
		return
	}
	w.encap(t, p, id)
}

// tunnelMTU is the largest inner packet that tunnel id carries now: its own MTU or what its path was found to allow.
func (w *worker) tunnelMTU(t *Tables, id int) int {
	_, path := w.engine.fwd.tunnels[id].load()
	mtu := int(t.tx[id].mtu)
	if path != 0 && path < mtu {
		return path
	}
	return mtu
}

func (v *VRF) mayReach(other uint16) bool {
	for _, p := range v.peers {
		if p == other {
			return true
		}
	}
	return false
}

// decrement takes one hop off the packet's life (RFC 1812 5.3.1, RFC 8200 3). Where that was the last one the source
// is told, the packet is gone, and it returns false. What we made ourselves has not been routed yet. id is the tunnel that it was to go
// into, or noTunnel.
func (w *worker) decrement(t *Tables, p *packet, id int) bool {
	if p.flags&pktOriginated != 0 {
		return true
	}
	ip := w.frame(p.chunk)[p.l3:p.end]
	if p.flags&pktV6 != 0 {
		if ip[wire.IPv6OffHopLimit] <= 1 {
			w.expire4or6(t, p, id)
			return false
		}
		ip[wire.IPv6OffHopLimit]--
		return true
	}
	if ip[wire.IPv4OffTTL] <= 1 {
		w.expire4or6(t, p, id)
		return false
	}
	wire.DecTTL4(ip)
	return true
}

// encap puts the tunnel's outer headers in front of the packet, in place, and sends it to the customer endpoint.
func (w *worker) encap(t *Tables, p *packet, id int) {
	if p.mustEncrypt() && !t.encrypts(id) {
		w.drop(p, ESPAnswerInClear)
		return
	}
	if tun := t.esp[id]; tun != nil {
		w.encapESP(t, p, id, tun) // seal.go
		return
	}
	x := &t.tx[id]
	if x.flags&tunSequence != 0 && int(x.owner) != w.id {
		w.handToEncap(t, p, id, int(x.owner))
		return
	}
	f := w.frame(p.chunk)
	inner := uint(p.l3)
	if inner < frameRoom || inner >= uint(p.end) {
		w.drop(p, FrameNoRoom)
		return
	}
	w.sampled(p, id, Forwarded)
	*(*[64]byte)(f[inner-64 : inner]) = x.header // one constant size; what lies before the header is overwritten later
	o := inner - uint(x.hlen)
	h := f[o:p.end]
	first := f[inner]
	tos := f[inner+1]
	if first>>4 == 6 {
		tos = first<<4 | tos>>4
		binary.BigEndian.PutUint16(h[greAt(x.flags)+2:], wire.EtherTypeIPv6)
	}
	x.finishOuter(h, tos)
	if x.flags&(tunChecksum|tunSequence) != 0 {
		w.finishGRE(x, id, h[greAt(x.flags):])
	}
	w.sendOuter(t, p, id, x, nil, w.outerRoute(p, id), o, p.end-p.l3)
}

// finishOuter completes the outer IP header at the start of h, the whole outer packet. DSCP and ECN are copied: uniform
// model of RFC 2983 4.1, normal mode of RFC 6040 4.1.
func (x *txTunnel) finishOuter(h []byte, tos uint8) {
	if x.flags&tunOuter6 != 0 {
		h[0], h[1] = 0x60|tos>>4, tos<<4
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-ip6Len))
		return
	}
	h[1] = tos
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	sum := x.sum + uint32(tos) + uint32(len(h))
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum>>16+sum))
}

// frameRoom is the room in front of a packet that encap needs: 64 bytes of outer header and a tagged link header.
const frameRoom = 64 + ethLen + 4

func greAt(flags uint8) int {
	if flags&tunOuter6 != 0 {
		return ip6Len
	}
	return ip4Len
}

// finishGRE writes the sequence number (RFC 2890 2.2) and then the checksum over header and payload (RFC 2784 2.5).
func (w *worker) finishGRE(x *txTunnel, id int, gre []byte) {
	if x.flags&tunSequence != 0 {
		at := wire.GRELen(x.flags&tunKey != 0, x.flags&tunChecksum != 0, false)
		binary.BigEndian.PutUint32(gre[at:], uint32(w.sequence[id].get()))
		w.sequence[id].add(1)
	}
	if x.flags&tunChecksum != 0 {
		wire.SetGREChecksum(gre)
	}
}

// outerRoute is the way to the customer endpoint for the flow of p, which must still be the inner packet and in clear:
// of an encrypted one each packet would take another way.
func (w *worker) outerRoute(p *packet, id int) Leaf {
	l, _ := w.engine.fwd.tunnels[id].load()
	if LeafKind(l) == KindGroup {
		return w.pick(p, l)
	}
	return l
}

// sendOuter sends an encapsulated packet, whose outer header begins at o, along route l to its customer endpoint. It is
// fragmented where the link is smaller, or where an IPv6 packet of up to 1280 bytes is larger than the tunnel's MTU, which
// its source is never told. x has the outer header, out is the association of an ESP packet, inner the size of what was
// encapsulated.
func (w *worker) sendOuter(t *Tables, p *packet, id int, x *txTunnel, out *esp.Outbound, l Leaf, o uint, inner uint16) {
	_, path := w.engine.fwd.tunnels[id].load()
	c := &w.tunnels[id]
	if LeafKind(l) != KindNeighbour {
		w.countDropInto(p, id, TunnelUnroutable)
		w.drop(p, TunnelUnroutable)
		return
	}
	slot := w.engine.fwd.neighbours[LeafIndex(l)].Load()
	if slot&neighbourResolved == 0 {
		w.countDropInto(p, id, NeighbourUnresolved)
		w.unresolved(p, LeafIndex(l))
		return
	}
	c.txPackets.add(1)
	c.txBytes.add(uint64(inner))
	if p.tunnel != noTunnel && t.rx[p.tunnel].vrf == t.tx[id].vrf {
		w.countLateral(c, p.tunnel, uint64(inner))
	}
	w.count.encapsulated.add(1)
	w.noteOuter(p, o, uint(x.hlen), out != nil)
	lk := &t.links[slot>>neighbourLinkShift&(MaxLinks-1)]
	limit := uint(x.mtu)
	if path != 0 && uint(path) < limit {
		limit = uint(path)
	}
	if out != nil {
		limit = uint(out.PacketLen(int(limit)))
	}
	limit = min(limit+uint(x.hlen), uint(lk.mtu))
	p.flags &^= pktV6
	if x.flags&tunOuter6 != 0 {
		p.flags |= pktV6
	}
	if uint(p.end)-o > limit {
		w.fragmentOuter(p, lk, slot, o, int(limit))
		return
	}
	w.sendLink(p, lk, slot, uint16(o))
}

// sendLink writes the link header in front of the IP header at offset ip and gives the frame to its port.
func (w *worker) sendLink(p *packet, lk *link, slot uint64, ip uint16) {
	f := w.frame(p.chunk)
	start := uint(ip) - ethLen
	typ := uint16(wire.EtherTypeIPv4)
	if p.flags&pktV6 != 0 {
		typ = wire.EtherTypeIPv6
	}
	if lk.vlan != 0 {
		start -= wire.VLANLen
		binary.BigEndian.PutUint32(f[start+12:], wire.EtherTypeVLAN<<16|uint32(lk.vlan))
	}
	h := f[start:ip]
	binary.BigEndian.PutUint16(h[len(h)-2:], typ)
	binary.BigEndian.PutUint64(h, slot>>neighbourMACShift<<16|lk.mac>>32)
	binary.BigEndian.PutUint32(h[8:], uint32(lk.mac))
	w.noteSent(p, lk, slot, start)
	w.emit(int(lk.port), p.chunk, uint16(start), p.end)
}
