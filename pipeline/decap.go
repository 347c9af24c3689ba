package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/wire"
)

// decap finds the tunnel of each GRE packet, and the association of each ESP packet, and takes the outer headers off: from
// here on the packet is the inner one. The contexts and counters of tunnels are fetched ahead for the whole batch,
// which is what keeps ten thousand as fast as one.
func (w *worker) decap(t *Tables, b *batch) {
	if n := b.gre.n; n > 0 {
		t.index.candidates(b, w.ids[:n])
		w.fetchLeaving(t, w.ids[:n])
		w.leaveTunnels(t, b, b.gre.list(), w.ids[:n], false)
	}
	if b.esp.n > 0 {
		w.openESP(t, b) // open.go
	}
}

// leaveTunnel is what leaveTunnels does, for a packet that is not as most are.
func (w *worker) leaveTunnel(t *Tables, b *batch, i int, opened bool) {
	w.count.general.add(1)
	p := &b.packets[i]
	if opened { // and its tunnel known
		w.enter(t, b, i)
		return
	}
	if p.tunnel = w.findTunnel(t, p); p.tunnel < 0 {
		w.noTunnel(t, p)
		return
	}
	w.enter(t, b, i)
}

// candidates finds for each GRE packet the first tunnel whose tag is that of the packet's hash: nearly always it is the
// right one. It is some number if there is none.
func (x *tunnelIndex) candidates(b *batch, ids []uint32) {
	buckets, mask := x.buckets, uint64(len(x.buckets)-1)
	for k, i := range b.gre.at[:len(ids)] {
		h := b.packets[i&(BatchSize-1)].hash
		bucket := &buckets[h&mask]
		ids[k] = bucket.id[bucket.slot(tagOf(h))&(len(bucket.id)-1)]
	}
}

// matches4 verifies that the packet's outer IPv4 addresses and key are the tunnel's.
func (r *rxTunnel) matches4(p *packet) bool {
	return r.customer4 == p.src && r.endpoint4 == p.dst && r.key == p.key &&
		r.flags&(tunLive|tunOuter6|tunKey) == tunLive|keyFlag(p) && p.flags&pktOuter6 == 0
}

func (r *rxTunnel) matches6(p *packet, customer, endpoint [2]uint64) bool {
	return r.customer6 == customer && r.endpoint6 == endpoint && r.key == p.key &&
		r.flags&(tunLive|tunOuter6|tunKey) == tunLive|tunOuter6|keyFlag(p)
}

// keyFlag is tunKey if the packet has a key.
func keyFlag(p *packet) uint8 {
	if p.flags&pktKeyed != 0 {
		return tunKey
	}
	return 0
}

// findTunnel looks at every tunnel in the bucket, for both outer families.
func (w *worker) findTunnel(t *Tables, p *packet) int32 {
	var customer, endpoint [2]uint64
	outer6 := p.flags&pktOuter6 != 0
	if outer6 {
		ip := w.frame(p.chunk)[p.l3:]
		customer, endpoint = addr6(ip[8:]), addr6(ip[24:])
	}
	b := &t.index.buckets[uint32(p.hash)&t.index.mask]
	for s, id := range b.id {
		if b.tag(s) != tagOf(p.hash) {
			continue
		}
		r := &t.rx[id]
		if outer6 && r.matches6(p, customer, endpoint) || !outer6 && r.matches4(p) {
			return int32(id)
		}
	}
	return noTunnel
}

// noTunnel drops a GRE packet to an endpoint that belongs to no tunnel, with a reason that tells a wrong key from an
// unknown customer.
func (w *worker) noTunnel(t *Tables, p *packet) {
	p.tunnel = noTunnel
	if w.knownPair(t, p) {
		w.drop(p, TunnelKeyMismatch)
		return
	}
	w.drop(p, TunnelUnknown)
}

// knownPair reports whether some tunnel has the packet's outer addresses. Only packets that are dropped come here, so
// a map will do.
func (w *worker) knownPair(t *Tables, p *packet) bool {
	outer6 := p.flags&pktOuter6 != 0
	ip := w.frame(p.chunk)[p.l3:]
	if outer6 {
		return t.pairs[pairOf6(ip)]
	}
	return t.pairs[pairOf4(p.src, p.dst)]
}

// pair is an outer address pair, IPv4 addresses in the last four octets.
type pair [32]byte

func pairOf4(customer, endpoint uint32) (k pair) {
	binary.BigEndian.PutUint32(k[12:], customer)
	binary.BigEndian.PutUint32(k[28:], endpoint)
	return k
}

func pairOf6(ip []byte) (k pair) {
	copy(k[:], ip[8:40])
	return k
}

// enter makes the inner packet the one that is looked at, after it has been checked.
func (w *worker) enter(t *Tables, b *batch, i int) {
	p := &b.packets[i]
	r := &t.rx[p.tunnel]
	p.vrf = r.vrf
	p.l3 = p.l4
	if p.flags&pktCaptured != 0 {
		w.noteInner(t, p, p.proto)
	}
	f := w.frame(p.chunk)
	if p.flags&pktV6 != 0 {
		w.enter6(t, b, i)
		return
	}
	ip := f[p.l3:p.end]
	if len(ip) < ip4Len || ip[0] != 0x45 || !headerSumOK(ip) || binary.BigEndian.Uint16(ip[wire.IPv4OffFrag:])&^wire.IPv4DF != 0 {
		w.enterSlow4(t, b, i, ip)
		return
	}
	total := uint(binary.BigEndian.Uint16(ip[2:]))
	if total < ip4Len || total > uint(len(ip)) {
		w.enterSlow4(t, b, i, ip)
		return
	}
	p.end = p.l3 + uint16(total)
	p.l4 = p.l3 + ip4Len
	w.admit4(t, b, i, ip)
}

// admit4 checks what a sound inner IPv4 header says, and queues the packet for route.
func (w *worker) admit4(t *Tables, b *batch, i int, ip []byte) {
	p := &b.packets[i]
	r := &t.rx[p.tunnel]
	_ = ip[19]
	p.proto = ip[9]
	p.src, p.dst = binary.BigEndian.Uint32(ip[12:]), binary.BigEndian.Uint32(ip[16:])
	if p.src&r.mask4 != r.net4 && !w.mayUseSource4(t, p) {
		return
	}
	if bad4(p.dst) {
		w.drop(p, InnerDestination)
		return
	}
	if p.outerECN != 0 && !w.decapECN4(p, ip) {
		return
	}
	if p.proto == wire.ProtoTCP || binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
		w.noteTransport4(p, ip)
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

func (w *worker) noteTransport4(p *packet, ip []byte) {
	if binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
		p.flags |= pktLaterFragment
		return
	}
	w.noteSYN(p)
}
