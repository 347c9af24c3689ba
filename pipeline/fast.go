package pipeline

import (
	"encoding/binary"
	"sync/atomic"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
	"causeway/xsk"
)

// The ways that most packets go, each in one loop: an IPv4 packet with nothing to clamp, no error to send and nothing
// to cut, out of a tunnel over IPv4, to a neighbour whose address is known, or into a tunnel over IPv4. A loop does all
// of it, or has changed nothing that matters and calls the general steps of decap.go and forward.go, which do the same.
// TestFastEqualsGeneral holds the two against each other.

// unusual are the flags of packets that forward.go has to look at.
const unusual = pktV6 | pktSYN | pktOriginated | pktInterfaceSource | watched

// leaveTunnels makes the inner packet of each packet in the list the one that is looked at and admits it for route. ids are
// the tunnels that GRE packets seem to belong to, and those that opened packets do.
func (w *worker) leaveTunnels(t *Tables, b *batch, list []uint8, ids []uint32, opened bool) {
	rx, counters := t.rx, (*[MaxTunnels]tunnelCounters)(w.tunnels)
	var admitted uint64
	for k, i := range list[:len(ids)] {
		p := &b.packets[i&(BatchSize-1)]
		id := ids[k]
		if id >= uint32(len(rx)) {
			w.leaveTunnel(t, b, int(i), opened)
			continue
		}
		r := &rx[id]
		at, end := uint(p.l4), uint(p.end)
		if !opened && !r.matches4(p) || p.flags&(pktV6|pktCaptured) != 0 || p.outerECN != 0 || at > xsk.FrameSize-ip4Len-wire.TCPLen || at+ip4Len > end {
			w.leaveTunnel(t, b, int(i), opened)
			continue
		}
		f := w.frame(p.chunk)
		ip := (*[ip4Len + wire.TCPLen]byte)(f[at : at+ip4Len+wire.TCPLen])
		total := uint(binary.BigEndian.Uint16(ip[wire.IPv4OffTotal:]))
		src, dst := binary.BigEndian.Uint32(ip[wire.IPv4OffSrc:]), binary.BigEndian.Uint32(ip[wire.IPv4OffDst:])
		if ip[0] != 0x45 || !headerSumOK(ip[:]) || total < ip4Len || at+total > end || src&r.mask4 != r.net4 || bad4(dst) ||
			binary.BigEndian.Uint16(ip[wire.IPv4OffFrag:])&^wire.IPv4DF != 0 {
			w.leaveTunnel(t, b, int(i), opened)
			continue
		}
		p.tunnel, p.vrf, p.proto, p.src, p.dst = int32(id), r.vrf, ip[wire.IPv4OffProto], src, dst
		p.l3, p.l4, p.end = uint16(at), uint16(at+ip4Len), uint16(at+total)
		if p.proto == wire.ProtoTCP && total >= ip4Len+wire.TCPLen && ip[ip4Len+wire.TCPOffFlags]&wire.TCPFlagSYN != 0 {
			p.flags |= pktSYN
		}
		c := &counters[id&(MaxTunnels-1)]
		c.rxPackets.add(1)
		c.rxBytes.add(uint64(total))
		admitted++
		b.own4.add4(int(i), dst)
	}
	w.count.decapsulated.add(admitted)
}

// forward4 sends IPv4 packets to the neighbours that their leaves name, and notes those that go into a tunnel.
func (w *worker) forward4(t *Tables, b *batch, list *lookups) {
	neighbours := (*[MaxNeighbours]atomic.Uint64)(w.engine.fwd.neighbours)
	links := t.links
	for k, i := range list.list() {
		p := &b.packets[i&(BatchSize-1)]
		l := list.leaf[k&(BatchSize-1)]
		if LeafKind(l) == KindGroup {
			l = w.pick(p, l)
		}
		if LeafKind(l) == KindTunnel {
			w.inside.addTo(int(i), LeafIndex(l))
			continue
		}
		slot := neighbours[l&(MaxNeighbours-1)].Load()
		lk := &links[slot>>neighbourLinkShift&(MaxLinks-1)]
		f := w.frame(p.chunk)
		at := uint(p.l3)
		if LeafKind(l) != KindNeighbour || p.flags&unusual != 0 || slot&neighbourResolved == 0 || uint32(p.end-p.l3) > lk.mtu ||
			lk.vlan != 0 || at < ethLen || at > xsk.FrameSize-ip4Len || f[at+wire.IPv4OffTTL] <= 1 {
			w.toLeaf(t, b, int(i), l)
			continue
		}
		h := (*[ethLen + ip4Len]byte)(f[at-ethLen : at+ip4Len])
		decTTL((*[ip4Len]byte)(h[ethLen:]))
		putLink(h[:ethLen], slot, lk.mac, wire.EtherTypeIPv4)
		w.put(lk.port, p.chunk+uint64(at-ethLen), uint32(uint(p.end)+ethLen-at))
	}
}

// enterTunnels encapsulates the packets that go into a tunnel.
func (w *worker) enterTunnels(t *Tables, b *batch) {
	in := &w.inside
	if in.n == 0 {
		return
	}
	w.fetchEntering(t, in.id[:in.n])
	neighbours := (*[MaxNeighbours]atomic.Uint64)(w.engine.fwd.neighbours)
	links, tx, outbound, counters := t.links, t.tx, t.out, (*[MaxTunnels]tunnelCounters)(w.tunnels)
	var entered uint64
	for k, i := range in.list() {
		p := &b.packets[i&(BatchSize-1)]
		id := in.id[k&(BatchSize-1)] & (MaxTunnels - 1)
		at := uint(p.l3)
		if id >= uint32(len(tx)) || id >= uint32(len(outbound)) || p.flags&unusual != 0 || at < frameRoom+esp.MaxBefore || at > xsk.FrameSize-ip4Len {
			w.toTunnel(t, p, int(id))
			continue
		}
		x := &tx[id]
		route, path := w.engine.fwd.tunnels[id].load()
		if LeafKind(route) == KindGroup {
			route = w.pick(p, route)
		}
		slot := neighbours[route&(MaxNeighbours-1)].Load()
		lk := &links[slot>>neighbourLinkShift&(MaxLinks-1)]
		f := w.frame(p.chunk)
		size := uint(p.end) - at
		total := size + uint(x.hlen)
		if x.way > wayGRE {
			if int(x.owner) != w.id { // before the association is read: its owner writes that line for each packet
				w.toTunnel(t, p, int(id))
				continue
			}
			total = uint(outbound[id].PacketLen(int(size))) + uint(x.hlen)
		}
		if x.way == wayGeneral || p.vrf != x.vrf && p.vrf != 0 ||
			LeafKind(route) != KindNeighbour || slot&neighbourResolved == 0 || lk.vlan != 0 || size > uint(x.mtu) ||
			path != 0 && size > uint(path) || total > uint(lk.mtu) || f[at+wire.IPv4OffTTL] <= 1 {
			w.toTunnel(t, p, int(id))
			continue
		}
		inner := (*[ip4Len]byte)(f[at : at+ip4Len])
		decTTL(inner)
		if x.way > wayGRE {
			w.makeRoomToSeal(t)
			from, _, v := w.sealer.Add(outbound[id], f[:], int(at), int(p.end), esp.NextIPv4)
			if v != esp.OK {
				w.refuseESP(p, int(id), SealReason(v))
				continue
			}
			at = uint(from) & (xsk.FrameSize - 1)
		}
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
		c := &counters[id]
		c.txPackets.add(1)
		c.txBytes.add(uint64(size))
		if p.tunnel != noTunnel && p.vrf == x.vrf {
			w.countLateral(c, p.tunnel, uint64(size))
		}
		entered++
		if x.way == wayGRE {
			w.put(lk.port, p.chunk+uint64(start), uint32(total+ethLen))
			continue
		}
		if x.way == wayESPInUDP {
			binary.BigEndian.PutUint16(f[at-wire.UDPLen+4:], uint16(total-ip4Len))
		}
		w.sealAndSend(lk.port, p.chunk+uint64(start), uint32(total+ethLen))
	}
	w.count.encapsulated.add(entered)
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
