package pipeline

import (
	"encoding/binary"
	"net/netip"

	"causeway/pipeline/wire"
)

// putOuter writes an outer IP header in front of n bytes, which are zero and which it returns.
func (x *txTunnel) putOuter(src, dst netip.Addr, proto uint8, n int) (rest []byte) {
	at := ip6Len
	if src.Is4() {
		at = ip4Len
	}
	x.hlen = uint8(at + n)
	clear(x.header[:])
	h := x.header[len(x.header)-int(x.hlen):]
	if src.Is4() {
		h[0] = 0x45
		// DF: the path MTU of the tunnel is learned, not hidden in fragments (RFC 2003 3.1 for the choice). An atomic
		// datagram needs no identification (RFC 6864 4.1).
		binary.BigEndian.PutUint16(h[6:], 0x4000)
		h[8], h[9] = x.ttl, proto
		binary.BigEndian.PutUint32(h[12:], word4(src))
		binary.BigEndian.PutUint32(h[16:], word4(dst))
		x.sum = uint32(wire.Fold(wire.Sum(h[:20], 0)))
		return h[at:]
	}
	h[0], h[6], h[7] = 0x60, proto, x.ttl
	from, to := src.As16(), dst.As16()
	copy(h[8:], from[:])
	copy(h[24:], to[:])
	return h[at:]
}

// putGREFlags writes the flag word, the protocol of an IPv4 packet and the key; checksum and sequence number are the
// packet's.
func putGREFlags(g []byte, s *TunnelSpec) {
	binary.BigEndian.PutUint16(g[wire.GREOffProto:], wire.EtherTypeIPv4)
	at := wire.GREMinLen
	if s.Checksum {
		g[0] |= 0x80
		at += 4
	}
	if s.HasKey {
		g[0] |= 0x20
		binary.BigEndian.PutUint32(g[at:], s.Key)
	}
	if s.Sequence {
		g[0] |= 0x10
	}
}
