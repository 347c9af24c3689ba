package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/wire"
)

// route finds the leaf of each packet's destination: a packet from a tunnel looks into its account's table first,
// and then, like one from outside, into the Internet's. Addresses are looked up a batch at a time, so that the misses
// of one overlap with those of the next.
func (w *worker) route(t *Tables, b *batch) {
	if b.routed.n == 0 {
		return
	}
	v4, v6, own := 0, 0, 0
	for _, i := range b.routed.list() {
		p := &b.packets[i]
		switch {
		case p.flags&pktV6 != 0:
			w.order6[v6] = i
			v6++
		case p.vrf != 0:
			w.own4[own] = i
			own++
		default:
			w.dst4[v4], w.order[v4] = p.dst, i
			v4++
		}
	}
	for from := 0; from < own; {
		from, v4 = w.routeOwn4(t, b, from, own, v4)
	}
	if v4 > 0 {
		t.vrfs[0].V4.LookupBatch(w.dst4[:v4], w.leaves[:v4])
		for k, i := range w.order[:v4] {
			b.packets[i].leaf = w.leaves[k]
		}
	}
	if v6 > 0 {
		w.route6(t, b, w.order6[:v6])
	}
}

// routeOwn4 looks up a run of packets of one account, own4[from:to] at most, in the account's table. What has no route
// there joins the v4 packets that wait for the Internet table. It returns where the run ended and how many wait.
func (w *worker) routeOwn4(t *Tables, b *batch, from, to, v4 int) (int, int) {
	vrf := b.packets[w.own4[from]].vrf
	n := 0
	for from+n < to && b.packets[w.own4[from+n]].vrf == vrf {
		w.ownDst4[n] = b.packets[w.own4[from+n]].dst
		n++
	}
	t.vrfs[vrf].V4.LookupBatch(w.ownDst4[:n], w.leaves[:n])
	for k, i := range w.own4[from : from+n] {
		p := &b.packets[i]
		if p.leaf = w.leaves[k]; p.leaf == 0 {
			w.dst4[v4], w.order[v4] = p.dst, i
			v4++
		}
	}
	return from + n, v4
}

func (w *worker) route6(t *Tables, b *batch, list []uint8) {
	n := 0
	for _, i := range list {
		p := &b.packets[i]
		dst := addr6(w.frame(p.chunk)[p.l3+24:])
		if p.vrf != 0 {
			if p.leaf = t.vrfs[p.vrf].V6.Lookup(dst[0], dst[1]); p.leaf != 0 {
				continue
			}
		}
		w.dst6hi[n], w.dst6lo[n] = dst[0], dst[1]
		list[n] = i
		n++
	}
	if n == 0 {
		return
	}
	t.vrfs[0].V6.LookupBatch(w.dst6hi[:n], w.dst6lo[:n], w.leaves[:n])
	for k, i := range list[:n] {
		b.packets[i].leaf = w.leaves[k]
	}
}

// flowHash spreads flows over equal-cost members: addresses and protocol, and ports where every packet of the flow
// has them. Fragments of one datagram go one way, and so do the errors about them.
func (w *worker) flowHash(p *packet) uint32 {
	f := w.frame(p.chunk)
	var h uint64
	if p.flags&pktV6 != 0 {
		ip := f[p.l3:p.end]
		src, dst := addr6(ip[8:]), addr6(ip[24:])
		h = hash6(src, dst, uint32(p.proto), 0)
	} else {
		h = hash4(uint64(p.src)<<32|uint64(p.dst), uint32(p.proto), 0)
	}
	if (p.proto == wire.ProtoTCP || p.proto == wire.ProtoUDP) && p.flags&pktLaterFragment == 0 && !w.isFirstFragment(p) {
		if int(p.l4)+4 <= int(p.end) {
			h = hash4(h, binary.BigEndian.Uint32(f[p.l4:]), 1)
		}
	}
	return uint32(h >> 32)
}

// isFirstFragment reports whether later fragments without ports follow the packet. An IPv6 fragment is known by its
// transport header not standing where the next-header field of the fixed header says.
func (w *worker) isFirstFragment(p *packet) bool {
	ip := w.bytes(p)
	if p.flags&pktV6 != 0 {
		return ip[6] == wire.NextFragment
	}
	return binary.BigEndian.Uint16(ip[6:])&wire.IPv4MF != 0
}
