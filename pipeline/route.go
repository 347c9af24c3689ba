package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/wire"
)

// route finds the leaf of each packet's destination: a packet from a tunnel looks into its account's table first,
// and then, like one from outside, into the Internet's. Addresses are looked up a batch at a time, so that the misses
// of one overlap with those of the next.
func (w *worker) route(t *Tables, b *batch) {
	if b.own4.n > 0 {
		routeOwn4(t, b)
	}
	if l := &b.net4; l.n > 0 {
		t.vrfs[0].V4.LookupBatch(l.dst[:l.n], l.leaf[:l.n])
	}
	if b.all6.n > 0 {
		w.route6(t, b)
	}
}

// routeOwn4 looks up the packets out of tunnels in their accounts' tables, those of one account that follow each other at
// once. What has no route there joins the packets that wait for the Internet's table.
func routeOwn4(t *Tables, b *batch) {
	own := &b.own4
	found := 0
	for from := 0; from < own.n; {
		vrf := b.packets[own.at[from]].vrf
		to := from + 1
		for to < own.n && b.packets[own.at[to]].vrf == vrf {
			to++
		}
		t.vrfs[vrf].V4.LookupBatch(own.dst[from:to], own.leaf[from:to])
		for k := from; k < to; k++ {
			if own.leaf[k] == 0 {
				b.net4.add4(int(own.at[k]), own.dst[k])
				continue
			}
			own.at[found], own.leaf[found] = own.at[k], own.leaf[k]
			found++
		}
		from = to
	}
	own.n = found
}

func (w *worker) route6(t *Tables, b *batch) {
	n := 0
	for k, i := range b.all6.list() {
		p := &b.packets[i]
		dst := addr6(w.frame(p.chunk)[p.l3+24:])
		if p.vrf != 0 {
			if b.all6.leaf[k] = t.vrfs[p.vrf].V6.Lookup(dst[0], dst[1]); b.all6.leaf[k] != 0 {
				continue
			}
		}
		w.dst6hi[n], w.dst6lo[n], w.asked6[n] = dst[0], dst[1], uint8(k)
		n++
	}
	if n == 0 {
		return
	}
	t.vrfs[0].V6.LookupBatch(w.dst6hi[:n], w.dst6lo[:n], w.leaves6[:n])
	for j, k := range w.asked6[:n] {
		b.all6.leaf[k] = w.leaves6[j]
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
