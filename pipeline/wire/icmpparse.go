package wire

import (
	"encoding/binary"
	"net/netip"
)

// ICMPReport is a received ICMP error together with the headers that it quotes.
// It is for the control side, which learns path MTUs from it (RFC 1191, RFC 8201),
// and is not meant for the packet path.
//
// An ICMP error is not authenticated. Whoever acts on it compares what is quoted
// with what was sent (RFC 5927 section 4).
type ICMPReport struct {
	Type, Code uint8
	MTU        uint32 // next-hop MTU in bytes; 0 where the error has none

	// Of the quoted packet, which was ours:
	Src, Dst netip.Addr
	Proto    uint8  // IPv4 protocol, or what stands behind the IPv6 extension headers
	Total    int    // its length as its header had it, in bytes
	ID       uint32 // IPv4 identification, or that of the IPv6 fragment header
	FragOff  int    // bytes; not 0 if the quote is a later fragment
	Payload  []byte // what is quoted of Proto's header and data; part of the message
}

// Code 4 of ICMPv4 and type 2 of ICMPv6 carry the MTU; RFC 4884 section 5.1 keeps
// it where it was and puts a length before it.
const (
	icmp4OffQuoteWords = 5 // quote length in 32-bit words, 0 = all (RFC 4884 section 4.1)
	icmp6OffQuoteWords = 4 // quote length in 64-bit words, 0 = all (RFC 4884 section 4.4)

	// quoteLeast is what RFC 792 makes every host quote behind the IP header.
	quoteLeast = 8
)

// ParseICMPError4 reads icmp, the payload of an IPv4 datagram with protocol
// ProtoICMP: an error with a right checksum that quotes an IPv4 header and at
// least 8 bytes, or the whole of a shorter datagram.
func ParseICMPError4(icmp []byte) (r ICMPReport, f Fault) {
	if len(icmp) < ICMPLen {
		return r, ICMPShort
	}
	if !isICMP4Error(icmp[ICMPOffType]) {
		return r, ICMPNotError
	}
	if Checksum(icmp) != 0 {
		return r, ICMPChecksum
	}
	r.Type, r.Code = icmp[ICMPOffType], icmp[ICMPOffCode]
	if r.Type == ICMP4Unreachable && r.Code == ICMP4CodeFragNeeded {
		r.MTU = uint32(binary.BigEndian.Uint16(icmp[ICMPOffMTU+2:]))
	}
	words := 0
	switch r.Type {
	case ICMP4Unreachable, ICMP4TimeExceeded, ICMP4ParameterProblem:
		words = int(icmp[icmp4OffQuoteWords])
	}
	q := originalDatagram(icmp[ICMPLen:], words*4)
	return r, r.quote4(q)
}

// quote4 fills r from the quoted datagram q, which may end early.
func (r *ICMPReport) quote4(q []byte) Fault {
	if len(q) < IPv4Len {
		return ICMPQuoteShort
	}
	hlen := int(q[IPv4OffVerIHL]&0x0f) * 4
	r.Total = int(binary.BigEndian.Uint16(q[IPv4OffTotal:]))
	if q[IPv4OffVerIHL]>>4 != 4 || hlen < IPv4Len || r.Total < hlen {
		return ICMPQuoteMalformed
	}
	q = q[:min(len(q), r.Total)]
	if len(q) < min(hlen+quoteLeast, r.Total) {
		return ICMPQuoteShort
	}
	id, off, _, _ := IPv4Fragment(q)
	r.ID, r.FragOff, r.Proto = uint32(id), off, q[IPv4OffProto]
	r.Src = netip.AddrFrom4([4]byte(q[IPv4OffSrc:]))
	r.Dst = netip.AddrFrom4([4]byte(q[IPv4OffDst:]))
	r.Payload = q[hlen:]
	return OK
}

// ParseICMPError6 reads icmp, the ICMPv6 message of the packet whose IPv6 header
// is hdr: an error with a right checksum that quotes an IPv6 header and at least
// 8 bytes, or the whole of a shorter packet.
func ParseICMPError6(hdr, icmp []byte) (r ICMPReport, f Fault) {
	if len(icmp) < ICMPLen {
		return r, ICMPShort
	}
	if icmp[ICMPOffType] >= icmp6Info {
		return r, ICMPNotError
	}
	if Fold(Sum(icmp, PseudoSum6(hdr, ProtoICMPv6, len(icmp)))) != 0xffff {
		return r, ICMPChecksum
	}
	r.Type, r.Code = icmp[ICMPOffType], icmp[ICMPOffCode]
	words := 0
	switch r.Type {
	case ICMP6TooBig:
		r.MTU = binary.BigEndian.Uint32(icmp[ICMPOffMTU:])
	case ICMP6Unreachable, ICMP6TimeExceeded:
		words = int(icmp[icmp6OffQuoteWords])
	}
	q := originalDatagram(icmp[ICMPLen:], words*8)
	return r, r.quote6(q)
}

// quote6 fills r from the quoted packet q, which may end early.
func (r *ICMPReport) quote6(q []byte) Fault {
	if len(q) < IPv6Len {
		return ICMPQuoteShort
	}
	if q[IPv6OffFlow]>>4 != 6 {
		return ICMPQuoteMalformed
	}
	r.Total = IPv6Len + int(binary.BigEndian.Uint16(q[IPv6OffPayload:]))
	q = q[:min(len(q), r.Total)]
	if len(q) < min(IPv6Len+quoteLeast, r.Total) {
		return ICMPQuoteShort
	}
	// A chain that the router cut off is short, not malformed; and the lengths of
	// a fragment are not checked, since the quote need not hold all of its data.
	var c IPv6Chain
	switch c.walk(q) {
	case OK:
	case IPv6HeaderCut, IPv6FragmentChain:
		return ICMPQuoteShort
	default:
		return ICMPQuoteMalformed
	}
	r.Proto, r.ID, r.FragOff = c.Proto, c.FragID, c.FragOff
	r.Src = netip.AddrFrom16([16]byte(q[IPv6OffSrc:]))
	r.Dst = netip.AddrFrom16([16]byte(q[IPv6OffDst:]))
	r.Payload = q[c.Offset:]
	return OK
}

// originalDatagram cuts the extensions of RFC 4884 from what an error quotes. n
// is the length field in bytes; 0 and lengths that do not fit mean no extension.
func originalDatagram(q []byte, n int) []byte {
	if n == 0 || n > len(q) {
		return q
	}
	return q[:n]
}
