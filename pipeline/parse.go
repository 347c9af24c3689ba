package pipeline

import (
	"encoding/binary"
	"math/bits"

	"causeway/pipeline/wire"
	"causeway/xsk"
)

// Fixed places in a frame without a VLAN tag that carries an IPv4 header without options.
const (
	ethLen = wire.EthernetLen
	ip4Len = 20
	ip6Len = 40

	usualHeaders = ethLen + ip4Len + plainGRE // what is read of every frame at once
	plainGRE     = 4                          // GRE header without optional fields, RFC 2784 2.1

	natTraversalPort = 4500 // RFC 3948 2.1
)

// parse looks at the link and the outer IP header of each frame and sorts the packets: GRE to an endpoint goes to
// decap, fragments to reassembly, the rest to route. What nearly all frames are, IPv4 without options, tag or
// fragments, is decided here; all else goes by parseSlow.
func (w *worker) parse(t *Tables, b *batch, descs []xsk.Desc, port int) {
	b.n = len(descs)
	b.reset()
	prefetchFrames(w.memory, descs)
	mac := t.macs[port]
	for i := range descs {
		d := &descs[i]
		p := &b.packets[i]
		at, size := uint(d.Addr)&(xsk.FrameSize-1), uint(d.Len)
		chunk := d.Addr &^ (xsk.FrameSize - 1)
		p.chunk = chunk
		p.tunnel, p.vrf, p.port = noTunnel, 0, uint8(port)
		p.flags &= watched
		f := w.frame(chunk)
		if size < usualHeaders || at+size > xsk.FrameSize {
			w.parseSlow(t, b, i, f[at:min(at+size, xsk.FrameSize)], at)
			continue
		}
		h := (*[usualHeaders]byte)(f[at : at+usualHeaders])
		if !mac.is(h[:]) {
			w.drop(p, LinkAddress) // the card is promiscuous, and the frame another host's
			continue
		}
		ip := h[ethLen:]
		total := uint(binary.BigEndian.Uint16(ip[wire.IPv4OffTotal:]))
		if binary.BigEndian.Uint32(h[wire.EthernetOffType:])>>8 != wire.EtherTypeIPv4<<8|0x45 || total < ip4Len || ethLen+total > size ||
			binary.BigEndian.Uint16(ip[wire.IPv4OffFrag:])&^wire.IPv4DF != 0 || !headerSumOK(ip) {
			w.parseSlow(t, b, i, f[at:at+size], at)
			continue
		}
		p.proto = ip[wire.IPv4OffProto]
		p.src = binary.BigEndian.Uint32(ip[wire.IPv4OffSrc:])
		p.dst = binary.BigEndian.Uint32(ip[wire.IPv4OffDst:])
		p.l3 = uint16(at + ethLen)
		p.end = uint16(at + ethLen + total)
		p.l4 = uint16(at + ethLen + ip4Len)
		switch p.proto {
		case wire.ProtoGRE:
			gre := binary.BigEndian.Uint32(ip[ip4Len:])
			p.outerECN = ip[1] & 3
			if (gre != wire.EtherTypeIPv4 && gre != wire.EtherTypeIPv6) || total < ip4Len+plainGRE {
				w.parseGRE(t, b, i)
				continue
			}
			if !t.isEndpoint4(p.dst) {
				break // it passes through, like the fragments and the odd packets of its flow
			}
			p.key = 0
			p.l4 += plainGRE
			if gre == wire.EtherTypeIPv6 {
				p.flags |= pktV6
			}
			p.hash = hash4(uint64(p.src)<<32|uint64(p.dst), 0, 0)
			b.gre.add(i)
			continue
		case wire.ProtoTCP:
			if total >= ip4Len+wire.TCPLen && f[p.l4+wire.TCPOffFlags]&wire.TCPFlagSYN != 0 {
				p.flags |= pktSYN
			}
		case wire.ProtoESP:
			if !t.isEndpoint4(p.dst) {
				break
			}
			p.outerECN = ip[1] & 3
			if martian := martian4(p.src, p.dst); martian || total < ip4Len+wire.ESPLen {
				w.classify(t, b, i, true, martian)
				continue
			}
			p.key = binary.BigEndian.Uint32(ip[ip4Len:])
			b.esp.add(i)
			continue
		case wire.ProtoUDP:
			if total >= ip4Len+wire.UDPLen && binary.BigEndian.Uint16(ip[ip4Len+2:]) == natTraversalPort {
				p.outerECN = ip[1] & 3
				w.classify(t, b, i, t.isEndpoint4(p.dst), martian4(p.src, p.dst))
				continue
			}
		}
		if martian4(p.src, p.dst) {
			w.drop(p, OuterMartian)
			continue
		}
		b.net4.add4(i, p.dst)
	}
}

// linkAddress is the address that frames to a port must have: what the first eight bytes of a frame, read little-endian,
// are under the mask. The zero value takes every frame.
type linkAddress struct{ address, mask uint64 }

func linkAddressOf(mac [6]byte) linkAddress {
	if mac == [6]byte{} {
		return linkAddress{}
	}
	var b [8]byte
	copy(b[:], mac[:])
	return linkAddress{binary.LittleEndian.Uint64(b[:]), 1<<48 - 1}
}

func (l linkAddress) is(frame []byte) bool {
	return binary.LittleEndian.Uint64(frame)&l.mask == l.address
}

// headerSumOK verifies the checksum of a 20-byte IPv4 header (RFC 1812 5.2.2): the ones-complement sum of all of it is
// 0xffff, in whichever byte order it is summed (RFC 1071 2). As 2^16 is 1 modulo 65535, the sum of the 64-bit words,
// carries added again, is then a multiple of 65535; and a multiple is what times the inverse of 65535 stays small.
func headerSumOK(h []byte) bool {
	const inverse, quotients = 0xfffefffefffeffff, 0x0001000100010001
	_ = h[19]
	s, carry := bits.Add64(binary.LittleEndian.Uint64(h), binary.LittleEndian.Uint64(h[8:]), 0)
	s, carry = bits.Add64(s, uint64(binary.LittleEndian.Uint32(h[16:])), carry)
	return (s+carry)*inverse <= quotients
}

// martian4 reports whether a packet with these addresses can not be on a wire between hosts (RFC 1812 5.3.7): a
// source or destination in 0/8 or 127/8, a source in 224/4 or 240/4, a destination there.
func martian4(src, dst uint32) bool {
	return bad4(src) || bad4(dst)
}

func bad4(a uint32) bool {
	top := a >> 24
	return top == 0 || top == 127 || top >= 224
}
