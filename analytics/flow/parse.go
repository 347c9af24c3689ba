package flow

import (
	"encoding/binary"
	"net/netip"

	"causeway/pipeline/wire"
)

// Parse takes apart the first bytes of an IP packet, which may be cut anywhere and hold anything. Options lie in b; beside that
// nothing of b is kept. It does not allocate.
//
// pipeline/wire reads whole packets and refuses what is wrong with them. Here a packet may end early and be wrong, and what can be
// said of it is said.
func Parse(b []byte) (h Header) {
	if len(b) == 0 {
		return
	}
	switch b[0] >> 4 {
	case 4:
		h.ipv4(b)
	case 6:
		h.ipv6(b)
	}
	return
}

// ipv4 reads an IPv4 header (RFC 791 3.1) and what follows.
func (h *Header) ipv4(b []byte) {
	if len(b) < wire.IPv4Len {
		return
	}
	size := int(b[wire.IPv4OffVerIHL]&0x0f) * 4
	if size < wire.IPv4Len {
		return
	}
	h.Version, h.HeaderBytes = 4, size
	h.DSCP, h.ECN = b[wire.IPv4OffTOS]>>2, b[wire.IPv4OffTOS]&3 // RFC 2474 3, RFC 3168 5
	h.Length = int(binary.BigEndian.Uint16(b[wire.IPv4OffTotal:]))
	id, off, more, df := wire.IPv4Fragment(b)
	h.Identification, h.FragmentOffset, h.MoreFragments, h.DontFragment = uint32(id), off, more, df
	h.TTL, h.Protocol = b[wire.IPv4OffTTL], b[wire.IPv4OffProto]
	h.Checksum = binary.BigEndian.Uint16(b[wire.IPv4OffChecksum:])
	h.Src = netip.AddrFrom4([4]byte(b[wire.IPv4OffSrc:]))
	h.Dst = netip.AddrFrom4([4]byte(b[wire.IPv4OffDst:]))
	h.Options = part(b, wire.IPv4Len, size)
	h.payload(part(b, size, h.Length))
}

// ipv6 reads an IPv6 header (RFC 8200 3), the extension headers and what follows. A jumbogram (RFC 2675) has a length of zero, and
// nothing behind its first header is read.
func (h *Header) ipv6(b []byte) {
	if len(b) < wire.IPv6Len {
		return
	}
	first := binary.BigEndian.Uint32(b[wire.IPv6OffFlow:])
	h.Version, h.HeaderBytes = 6, wire.IPv6Len
	h.DSCP, h.ECN, h.FlowLabel = uint8(first>>22&0x3f), uint8(first>>20&3), first&0xfffff
	h.Length = wire.IPv6Len + int(binary.BigEndian.Uint16(b[wire.IPv6OffPayload:]))
	h.TTL, h.Protocol = b[wire.IPv6OffHopLimit], b[wire.IPv6OffNext]
	h.Src = netip.AddrFrom16([16]byte(b[wire.IPv6OffSrc:]))
	h.Dst = netip.AddrFrom16([16]byte(b[wire.IPv6OffDst:]))
	h.payload(h.extensions(part(b, wire.IPv6Len, h.Length)))
}

// extUnit is what the sizes of extension headers are multiples of (RFC 8200 4).
const extUnit = 8

// extensions reads the extension headers at the start of b, as many as fit into Extensions, and returns what is behind them. Of
// several fragment headers the last one counts.
func (h *Header) extensions(b []byte) []byte {
	e := &h.Extensions
	for len(b) >= extUnit && h.FragmentOffset == 0 && wire.IsIPv6Extension(h.Protocol) && e.Count < len(e.Kinds) {
		size := extUnit
		if h.Protocol == wire.NextFragment { // RFC 8200 4.5
			w := binary.BigEndian.Uint16(b[2:])
			h.FragmentOffset, h.MoreFragments = int(w&^7), w&1 != 0
			h.Identification = binary.BigEndian.Uint32(b[4:])
		} else {
			size += int(b[1]) * extUnit
		}
		e.Kinds[e.Count] = h.Protocol
		e.Count++
		h.Protocol = b[0]
		h.HeaderBytes += size
		b = part(b, size, len(b))
	}
	return b
}

// payload reads the header behind the IP headers, if b starts with it.
func (h *Header) payload(b []byte) {
	if h.FragmentOffset != 0 {
		return
	}
	switch h.Protocol {
	case wire.ProtoTCP:
		h.ports(b)
		h.tcp(b)
	case wire.ProtoUDP:
		h.ports(b)
		h.udp(b)
	case wire.ProtoICMP, wire.ProtoICMPv6:
		h.icmp(b)
	case wire.ProtoGRE:
		h.gre(b)
	}
}

// ports reads the ports, which TCP and UDP have at the same place.
func (h *Header) ports(b []byte) {
	if len(b) < 4 {
		return
	}
	h.HasPorts = true
	h.SrcPort = binary.BigEndian.Uint16(b[wire.UDPOffSrcPort:])
	h.DstPort = binary.BigEndian.Uint16(b[wire.UDPOffDstPort:])
}

// udp reads a UDP header (RFC 768).
func (h *Header) udp(b []byte) {
	if len(b) < wire.UDPLen {
		return
	}
	h.HasUDP = true
	if n := binary.BigEndian.Uint16(b[wire.UDPOffLength:]); n > wire.UDPLen {
		h.UDPLength = n - wire.UDPLen
	}
	h.UDPChecksum = binary.BigEndian.Uint16(b[wire.UDPOffChecksum:])
}

// icmp reads what all ICMP (RFC 792) and ICMPv6 (RFC 4443 2.1) messages start with.
func (h *Header) icmp(b []byte) {
	if len(b) < 4 {
		return
	}
	h.HasICMP = true
	h.ICMPType, h.ICMPCode, h.ICMPChecksum = b[0], b[1], binary.BigEndian.Uint16(b[2:])
}

const (
	greField    = 4      // bytes of checksum with Reserved1, of key and of sequence number
	greRouting  = 0x4000 // RFC 1701: the field of the checksum is there with it too
	greVersions = 0x0007
)

// gre reads a GRE header (RFC 2784 2, RFC 2890 2). Of other versions, as PPTP's, only the first word is known; the routes of RFC 1701
// do not count as header.
func (h *Header) gre(b []byte) {
	if len(b) < wire.GREMinLen {
		return
	}
	flags := binary.BigEndian.Uint16(b[wire.GREOffFlags:])
	g := &h.GRE
	h.HasGRE = true
	g.Version, g.EtherType, g.Bytes = uint8(flags&greVersions), binary.BigEndian.Uint16(b[wire.GREOffProto:]), wire.GREMinLen
	if g.Version != 0 {
		return
	}
	// Each field is read where it is captured, and counts where it is announced.
	field := func(present bool) (v uint32, ok bool) {
		if !present {
			return 0, false
		}
		if at := int(g.Bytes); len(b) >= at+greField {
			v, ok = binary.BigEndian.Uint32(b[at:]), true
		}
		g.Bytes += greField
		return
	}
	checksum, ok := field(flags&(wire.GREFlagChecksum|greRouting) != 0)
	if flags&wire.GREFlagChecksum != 0 {
		g.Checksum, g.HasChecksum = uint16(checksum>>16), ok
	}
	g.Key, g.HasKey = field(flags&wire.GREFlagKey != 0)
	g.Sequence, g.HasSequence = field(flags&wire.GREFlagSequence != 0)
}

// part is b[from:to], less what lies behind the end of b: it may be nothing.
func part(b []byte, from, to int) []byte {
	to = min(to, len(b))
	if from >= to {
		return nil
	}
	return b[from:to]
}
