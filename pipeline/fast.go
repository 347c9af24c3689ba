package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/wire"
	"causeway/xsk"
)

// The ways that most packets go, each in one piece: an IPv4 packet with nothing to clamp, no error to send and nothing
// to cut, out of a tunnel over IPv4, into one, or to a neighbour whose address is known. A function here does all of it,
// or has changed nothing that matters and returns false; then decap.go and forward.go do the same by their general
// steps. TestFastEqualsGeneral holds the two against each other.

// unusual are the flags of packets that forward.go has to look at.
const unusual = pktV6 | pktSYN | pktOriginated | pktInterfaceSource

// fastEnter makes the inner packet of p the one that is looked at and admits it for route.
func (w *worker) fastEnter(t *Tables, b *batch, i int) bool {
	p := &b.packets[i]
	r := &t.rx[p.tunnel]
	at, end := uint(p.l4), uint(p.end)
	if p.flags&(pktV6|pktOuter6) != 0 || p.outerECN != 0 || at > xsk.FrameSize-ip4Len || at+ip4Len > end {
		return false
	}
	ip := (*[ip4Len]byte)(w.frame(p.chunk)[at : at+ip4Len])
	total := uint(binary.BigEndian.Uint16(ip[wire.IPv4OffTotal:]))
	src, dst := binary.BigEndian.Uint32(ip[wire.IPv4OffSrc:]), binary.BigEndian.Uint32(ip[wire.IPv4OffDst:])
	if ip[0] != 0x45 || !headerSumOK(ip[:]) || total < ip4Len || at+total > end ||
		src&r.mask4 != r.net4 || bad4(dst) || ip[wire.IPv4OffProto] == wire.ProtoTCP ||
		binary.BigEndian.Uint16(ip[wire.IPv4OffFrag:])&^wire.IPv4DF != 0 {
		return false
	}
	p.vrf, p.proto, p.src, p.dst = r.vrf, ip[wire.IPv4OffProto], src, dst
	p.l3, p.l4, p.end = uint16(at), uint16(at+ip4Len), uint16(at+total)
	c := &w.tunnels[p.tunnel]
	c.rxPackets.add(1)
	c.rxBytes.add(uint64(total))
	w.count.decapsulated.add(1)
	b.routed.add(i)
	return true
}

// fastToNeighbour forwards a packet as it is.
func (w *worker) fastToNeighbour(t *Tables, p *packet) bool {
	slot := w.engine.fwd.neighbours[LeafIndex(p.leaf)&(MaxNeighbours-1)].Load()
	lk := &t.links[slot>>neighbourLinkShift&(MaxLinks-1)]
	f := w.frame(p.chunk)
	at := uint(p.l3)
	if p.flags&unusual != 0 || slot&neighbourResolved == 0 || uint32(p.end-p.l3) > lk.mtu || lk.vlan != 0 ||
		at < ethLen || at > xsk.FrameSize-ip4Len || f[at+wire.IPv4OffTTL] <= 1 {
		return false
	}
	h := (*[ethLen + ip4Len]byte)(f[at-ethLen : at+ip4Len])
	decTTL((*[ip4Len]byte)(h[ethLen:]))
	putLink(h[:ethLen], slot, lk.mac, wire.EtherTypeIPv4)
	w.emit(int(lk.port), p.chunk, uint16(at-ethLen), p.end)
	return true
}

// fastToTunnel encapsulates a packet.
func (w *worker) fastToTunnel(t *Tables, p *packet) bool {
	id := LeafIndex(p.leaf)
	at := uint(p.l3)
	if id >= len(t.tx) || p.flags&unusual != 0 || at < frameRoom || at > xsk.FrameSize-ip4Len {
		return false
	}
	x := &t.tx[id]
	route, path := w.engine.fwd.tunnels[id].load()
	if x.flags&(tunLive|tunOuter6|tunChecksum|tunSequence) != tunLive || p.vrf != x.vrf && p.vrf != 0 ||
		LeafKind(route) != KindNeighbour {
		return false
	}
	slot := w.engine.fwd.neighbours[LeafIndex(route)&(MaxNeighbours-1)].Load()
	lk := &t.links[slot>>neighbourLinkShift&(MaxLinks-1)]
	f := w.frame(p.chunk)
	size := uint(p.end) - at
	total := size + uint(x.hlen)
	if slot&neighbourResolved == 0 || lk.vlan != 0 || size > uint(x.mtu) || path != 0 && size > uint(path) ||
		total > uint(lk.mtu) || f[at+wire.IPv4OffTTL] <= 1 {
		return false
	}
	inner := (*[ip4Len]byte)(f[at : at+ip4Len])
	decTTL(inner)
	*(*[maxHeader4]byte)(f[at-maxHeader4 : at]) = [maxHeader4]byte(x.header[64-maxHeader4:])
	start := (at - uint(x.hlen) - ethLen) & (xsk.FrameSize - 1)
	h := (*[ethLen + ip4Len]byte)(f[start : start+ethLen+ip4Len])
	outer := h[ethLen:]
	tos := inner[wire.IPv4OffTOS]
	outer[wire.IPv4OffTOS] = tos
	binary.BigEndian.PutUint16(outer[wire.IPv4OffTotal:], uint16(total))
	sum := x.sum + uint32(tos) + uint32(total)
	binary.BigEndian.PutUint16(outer[wire.IPv4OffChecksum:], ^uint16(sum>>16+sum))
	putLink(h[:ethLen], slot, lk.mac, wire.EtherTypeIPv4)
	c := &w.tunnels[id]
	c.txPackets.add(1)
	c.txBytes.add(uint64(size))
	w.count.encapsulated.add(1)
	w.emit(int(lk.port), p.chunk, uint16(start), p.end)
	return true
}

// decTTL takes one off the TTL and corrects the checksum (RFC 1624 3: what would become 0xffff is 0).
func decTTL(ip *[ip4Len]byte) {
	ip[wire.IPv4OffTTL]--
	sum := uint32(binary.BigEndian.Uint16(ip[wire.IPv4OffChecksum:])) + 0x100
	binary.BigEndian.PutUint16(ip[wire.IPv4OffChecksum:], uint16(sum+(sum+1)>>16))
}

// putLink writes an untagged link header to h.
func putLink(h []byte, slot, mac uint64, etherType uint16) {
	_ = h[ethLen-1]
	binary.BigEndian.PutUint64(h, slot>>neighbourMACShift<<16|mac>>32)
	binary.BigEndian.PutUint32(h[8:], uint32(mac))
	binary.BigEndian.PutUint16(h[12:], etherType)
}
