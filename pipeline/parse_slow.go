package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/wire"
)

// parseSlow does what parse does for every other frame: tags, options, extension headers, IPv6, fragments and
// whatever is malformed. h is the frame, which begins at offset at of its chunk.
func (w *worker) parseSlow(t *Tables, b *batch, i int, h []byte, at uint) {
	p := &b.packets[i]
	e, f := wire.ParseEthernet(h)
	if f != wire.OK {
		w.drop(p, outerFault(f))
		return
	}
	if !t.macs[p.port].is(h) {
		w.drop(p, LinkAddress)
		return
	}
	p.l3 = uint16(at) + uint16(e.L3)
	switch e.Type {
	case wire.EtherTypeIPv4:
		w.parseIPv4(t, b, i, h[e.L3:])
	case wire.EtherTypeIPv6:
		w.parseIPv6(t, b, i, h[e.L3:])
	default:
		w.drop(p, LinkType)
	}
}

func (w *worker) parseIPv4(t *Tables, b *batch, i int, ip []byte) {
	p := &b.packets[i]
	hlen, total, f := wire.CheckIPv4(ip)
	if f != wire.OK {
		w.drop(p, outerFault(f))
		return
	}
	if f = checkIPv4Rest(ip, hlen, total); f != wire.OK {
		w.drop(p, outerFault(f))
		return
	}
	p.end = p.l3 + uint16(total)
	p.l4 = p.l3 + uint16(hlen)
	p.proto = ip[9]
	p.outerECN = ip[1] & 3
	p.src, p.dst = binary.BigEndian.Uint32(ip[12:]), binary.BigEndian.Uint32(ip[16:])
	_, offset, more, _ := wire.IPv4Fragment(ip)
	if offset != 0 || more {
		if t.isEndpoint4(p.dst) {
			w.collect(p)
			return
		}
		if offset != 0 {
			p.flags |= pktLaterFragment
		}
	}
	w.classify(t, b, i, t.isEndpoint4(p.dst), martian4(p.src, p.dst))
}

// checkIPv4Rest checks what most packets lack: options and the marks of a fragment.
func checkIPv4Rest(ip []byte, hlen, total int) wire.Fault {
	if f := wire.CheckIPv4Options(ip[:hlen]); f != wire.OK {
		return f
	}
	return wire.CheckIPv4Fragment(ip, hlen, total)
}

// walkIPv6 is wire.WalkIPv6, which takes longer, for packets that may have no extension headers.
func walkIPv6(ip []byte) (wire.IPv6Chain, wire.Fault) {
	if !wire.IsIPv6Extension(ip[wire.IPv6OffNext]) {
		return wire.IPv6Chain{Proto: ip[wire.IPv6OffNext], Offset: ip6Len}, wire.OK
	}
	return wire.WalkIPv6(ip)
}

func (w *worker) parseIPv6(t *Tables, b *batch, i int, ip []byte) {
	p := &b.packets[i]
	p.flags |= pktV6
	total, f := wire.CheckIPv6(ip)
	if f != wire.OK {
		w.drop(p, outerFault(f))
		return
	}
	p.end = p.l3 + uint16(total)
	chain, f := walkIPv6(ip[:total])
	endpoint := t.isEndpoint6(ip[wire.IPv6OffDst:])
	if f == wire.OK && endpoint && chain.Offset != ip6Len {
		f = wire.CheckIPv6Destination(ip[:total])
	}
	if f != wire.OK {
		w.drop(p, outerFault(f))
		return
	}
	p.l4 = p.l3 + uint16(chain.Offset)
	p.proto = chain.Proto
	p.outerECN = ip[1] >> 4 & 3
	if chain.Fragmented {
		if endpoint {
			w.collect(p)
			return
		}
		if chain.FragOff != 0 {
			p.flags |= pktLaterFragment
		}
	}
	w.classify(t, b, i, endpoint, bad6(ip[8:24]) || bad6(ip[24:40]))
}

// classify sorts a packet whose outer header is sound and which is whole, or a fragment that only passes through.
func (w *worker) classify(t *Tables, b *batch, i int, endpoint, martian bool) {
	p := &b.packets[i]
	switch {
	case martian:
		w.drop(p, OuterMartian)
		return
	case p.flags&pktLaterFragment != 0:
	case endpoint && p.proto == wire.ProtoGRE:
		w.parseGRE(t, b, i)
		return
	case endpoint && p.proto == wire.ProtoESP:
		w.parseESP(b, i)
		return
	case endpoint && p.proto == wire.ProtoUDP && w.toNATTraversal(p):
		w.parseESPInUDP(b, i)
		return
	case p.proto == wire.ProtoTCP:
		w.noteSYN(p)
	}
	b.toRoute(i)
}

// toNATTraversal reports whether a UDP packet carries ESP (RFC 3948 2.2); IKE on the same port is the kernel's.
func (w *worker) toNATTraversal(p *packet) bool {
	udp := w.frame(p.chunk)[p.l4:p.end]
	return len(udp) >= wire.UDPLen && binary.BigEndian.Uint16(udp[2:]) == natTraversalPort && wire.IsESPInUDP(udp[wire.UDPLen:])
}

// noteSYN marks a TCP packet whose MSS option may have to be clamped.
func (w *worker) noteSYN(p *packet) {
	tcp := w.frame(p.chunk)[p.l4:p.end]
	if len(tcp) >= wire.TCPLen && tcp[13]&wire.TCPFlagSYN != 0 {
		p.flags |= pktSYN
	}
}

// parseGRE parses a GRE header with optional fields, or a malformed one, and queues the packet for decap. A packet
// that is not for an endpoint passes through like any other.
func (w *worker) parseGRE(t *Tables, b *batch, i int) {
	p := &b.packets[i]
	outer6 := p.flags&pktV6 != 0
	ip := w.bytes(p)
	if !outer6 && !t.isEndpoint4(p.dst) {
		if martian4(p.src, p.dst) {
			w.drop(p, OuterMartian)
			return
		}
		b.toRoute(i)
		return
	}
	payload := w.frame(p.chunk)[p.l4:p.end]
	g, f := wire.ParseGRE(payload)
	if f != wire.OK {
		w.drop(p, outerFault(f))
		return
	}
	if g.HasChecksum && !wire.GREChecksumOK(payload) {
		w.drop(p, GREChecksum)
		return
	}
	p.key = g.Key
	keyed := uint32(0)
	if g.HasKey {
		p.flags |= pktKeyed
		keyed = 1
	}
	if outer6 {
		p.hash = hash6(addr6(ip[8:]), addr6(ip[24:]), p.key, keyed)
	} else {
		p.hash = hash4(uint64(p.src)<<32|uint64(p.dst), p.key, keyed)
	}
	if !w.setInnerFamily(p, g.Proto) {
		return
	}
	p.l4 += uint16(g.Len)
	b.gre.add(i)
}

// setInnerFamily notes what the GRE header carries, in pktV6 from here on, and keeps the outer family in src and
// dst: an IPv6 outer header is looked at again when the tunnel is verified.
func (w *worker) setInnerFamily(p *packet, proto uint16) bool {
	outer6 := p.flags & pktV6
	p.flags &^= pktV6 | pktOuter6
	if outer6 != 0 {
		p.flags |= pktOuter6
	}
	switch proto {
	case wire.EtherTypeIPv4:
	case wire.EtherTypeIPv6:
		p.flags |= pktV6
	default:
		w.drop(p, GREProtocol)
		return false
	}
	return true
}

func addr6(b []byte) [2]uint64 {
	return [2]uint64{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// bad6 reports whether an IPv6 address can not be source or destination of a forwarded packet: unspecified,
// loopback, multicast or link-local (RFC 4291 2.5.2, 2.5.3, 2.5.6, 2.7).
func bad6(a []byte) bool {
	w := addr6(a)
	return w[0] == 0 && w[1] <= 1 || w[0]>>56 == 0xff || w[0]>>54 == 0xfe80>>6
}
