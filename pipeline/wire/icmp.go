package wire

import "encoding/binary"

// RFC 792, RFC 4443 section 2.1. The second word depends on the type: identifier
// and sequence number of an echo, the next-hop MTU (RFC 1191 section 4: in the
// lower half; RFC 4443 section 3.2: all of it), else unused.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    MTU, or id and sequence                    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      data of the echo, or the packet that an error is about   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

// Sizes and offsets of an ICMP message, in bytes.
const (
	ICMPLen         = 8
	ICMPOffType     = 0
	ICMPOffCode     = 1
	ICMPOffChecksum = 2
	ICMPOffMTU      = 4 // 32 bits; in ICMPv4 the upper half is zero
)

// Types and codes of ICMPv4 (RFC 792; code 13 RFC 1812 section 5.2.7.1).
const (
	ICMP4EchoReply        = 0
	ICMP4Unreachable      = 3
	ICMP4SourceQuench     = 4
	ICMP4Redirect         = 5
	ICMP4Echo             = 8
	ICMP4TimeExceeded     = 11
	ICMP4ParameterProblem = 12

	ICMP4CodeNet        = 0
	ICMP4CodeHost       = 1
	ICMP4CodeProtocol   = 2
	ICMP4CodePort       = 3
	ICMP4CodeFragNeeded = 4
	ICMP4CodeAdmin      = 13
	ICMP4CodeTTL        = 0 // time exceeded in transit
	ICMP4CodeReassembly = 1 // time exceeded in reassembly
)

// Types and codes of ICMPv6 (RFC 4443). Types below 128 are errors.
const (
	ICMP6Unreachable      = 1
	ICMP6TooBig           = 2
	ICMP6TimeExceeded     = 3
	ICMP6ParameterProblem = 4
	ICMP6Echo             = 128
	ICMP6EchoReply        = 129
	ICMP6Redirect         = 137

	ICMP6CodeNoRoute    = 0
	ICMP6CodeAdmin      = 1
	ICMP6CodeAddress    = 3
	ICMP6CodePort       = 4
	ICMP6CodeHopLimit   = 0 // time exceeded in transit
	ICMP6CodeReassembly = 1 // time exceeded in reassembly
)

const (
	icmp6Info = 128 // types from here on are informational

	// icmp4MaxError is the most that an error datagram may measure (RFC 1812
	// section 4.3.2.3).
	icmp4MaxError = 576

	// icmpTOS is precedence 6, internetwork control (RFC 1812 section 4.3.2.5).
	icmpTOS = 0xc0

	// icmpTTL is that of everything that we originate (RFC 1700 "IP time to live
	// parameter").
	icmpTTL = 64
)

// ICMPError says which error to send.
type ICMPError struct {
	Type, Code uint8
	MTU        uint32 // next-hop MTU in bytes: fragmentation needed, packet too big
}

// MaxICMP4Error and MaxICMP6Error are the longest results of AppendICMP4Error and
// AppendICMP6Error, in bytes.
const (
	MaxICMP4Error = icmp4MaxError
	MaxICMP6Error = IPv6MinMTU
)

// AppendICMP4Error writes to dst a whole datagram from src with error e about
// pkt, and returns its length, at most MaxICMP4Error. pkt is the datagram as it
// came, header checked, cut to its total length; as much of it is quoted as the
// limit and dst allow. The caller has asked MayError4. dst and pkt do not
// overlap; a dst that cannot hold the headers and a quote of header and 8 bytes
// yields 0.
func AppendICMP4Error(dst []byte, src uint32, e ICMPError, pkt []byte) int {
	n, ok := quoteLen(len(dst), icmp4MaxError, IPv4Len+ICMPLen, len(pkt),
		int(pkt[IPv4OffVerIHL]&0x0f)*4+8)
	if !ok {
		return 0
	}
	total := IPv4Len + ICMPLen + n
	PutIPv4(dst, IPv4Header{
		Src:   src,
		Dst:   binary.BigEndian.Uint32(pkt[IPv4OffSrc:]),
		Total: total,
		// Atomic, so the identification may be anything (RFC 6864 section 4.1).
		Frag:  IPv4DF,
		TOS:   icmpTOS,
		TTL:   icmpTTL,
		Proto: ProtoICMP,
	})
	icmp := dst[IPv4Len:total]
	putICMPError(icmp, e, pkt[:n])
	binary.BigEndian.PutUint16(icmp[ICMPOffChecksum:], Checksum(icmp))
	return total
}

// AppendICMP6Error writes to dst a whole packet from src with error e about pkt,
// and returns its length, at most MaxICMP6Error (RFC 4443 section 2.4 (c)). The
// rules for pkt and dst are those of AppendICMP4Error.
func AppendICMP6Error(dst []byte, src *[16]byte, e ICMPError, pkt []byte) int {
	n, ok := quoteLen(len(dst), IPv6MinMTU, IPv6Len+ICMPLen, len(pkt), IPv6Len+8)
	if !ok {
		return 0
	}
	h := IPv6Header{
		Src:      *src,
		Dst:      [16]byte(pkt[IPv6OffSrc:IPv6OffDst]),
		Payload:  ICMPLen + n,
		Next:     ProtoICMPv6,
		HopLimit: icmpTTL,
	}
	PutIPv6(dst, &h)
	icmp := dst[IPv6Len : IPv6Len+h.Payload]
	putICMPError(icmp, e, pkt[:n])
	check := ^Fold(Sum(icmp, PseudoSum6(dst, ProtoICMPv6, len(icmp))))
	binary.BigEndian.PutUint16(icmp[ICMPOffChecksum:], check)
	return IPv6Len + h.Payload
}

// quoteLen returns how many bytes of a packet of length pkt to quote behind hdr
// bytes in room, no more than limit altogether. It is false where not even least
// bytes, or the whole of a shorter packet, would fit.
func quoteLen(room, limit, hdr, pkt, least int) (int, bool) {
	n := min(room, limit) - hdr
	if n < min(least, pkt) {
		return 0, false
	}
	return min(n, pkt), true
}

// putICMPError writes the message with a checksum of zero.
func putICMPError(icmp []byte, e ICMPError, quote []byte) {
	icmp[ICMPOffType], icmp[ICMPOffCode] = e.Type, e.Code
	binary.BigEndian.PutUint16(icmp[ICMPOffChecksum:], 0)
	binary.BigEndian.PutUint32(icmp[ICMPOffMTU:], e.MTU)
	copy(icmp[ICMPLen:], quote)
}

// MayError4 reports whether an ICMP error may be sent about the datagram pkt
// (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7): not about an ICMP error,
// nor a fragment other than the first, nor to or about addresses that are not one
// host's. pkt is a whole datagram, its header checked. That it came as a
// broadcast of the link, or to the broadcast address of a network that we are on,
// the caller must know.
func MayError4(pkt []byte) bool {
	src, dst := binary.BigEndian.Uint32(pkt[IPv4OffSrc:]), binary.BigEndian.Uint32(pkt[IPv4OffDst:])
	if !isHost4(src) || dst>>28 >= 0xe {
		return false
	}
	if _, off, _, _ := IPv4Fragment(pkt); off != 0 {
		return false
	}
	if pkt[IPv4OffProto] != ProtoICMP {
		return true
	}
	at := int(pkt[IPv4OffVerIHL]&0x0f) * 4
	return at < len(pkt) && !isICMP4Error(pkt[at])
}

// isHost4 reports whether addr can be that of one host: not of this network
// (0/8), loopback, multicast, reserved or broadcast (RFC 1122 section 3.2.1.3).
func isHost4(addr uint32) bool {
	return addr>>24 != 0 && addr>>24 != 127 && addr>>28 < 0xe
}

// isICMP4Error reports whether an ICMPv4 message of type t is an error.
func isICMP4Error(t uint8) bool {
	switch t {
	case ICMP4Unreachable, ICMP4SourceQuench, ICMP4Redirect, ICMP4TimeExceeded,
		ICMP4ParameterProblem:
		return true
	}
	return false
}

// MayError6 reports whether an ICMPv6 error may be sent about pkt (RFC 4443
// section 2.4 (e)): not about an error or a redirect, nor about multicast, nor to
// an address that is not one node's. The permission to answer multicast with
// packet too big is not used, since multicast is not forwarded. pkt is a whole
// packet that CheckIPv6 has accepted. Where the ICMPv6 type cannot be seen, an
// error is taken for possible and the answer is no.
func MayError6(pkt []byte) bool {
	if !isHost6(pkt[IPv6OffSrc:IPv6OffDst]) || pkt[IPv6OffDst] == 0xff {
		return false
	}
	if pkt[IPv6OffNext] == ProtoTCP || pkt[IPv6OffNext] == ProtoUDP {
		return true
	}
	c, f := WalkIPv6(pkt)
	if f != OK {
		return false
	}
	if c.Proto != ProtoICMPv6 {
		return true
	}
	if c.FragOff != 0 || c.Offset >= len(pkt) {
		return false
	}
	t := pkt[c.Offset]
	return t >= icmp6Info && t != ICMP6Redirect
}

// isHost6 reports whether addr can be that of one node: not unspecified,
// loopback or multicast.
func isHost6(addr []byte) bool {
	hi, lo := binary.BigEndian.Uint64(addr), binary.BigEndian.Uint64(addr[8:])
	return hi>>56 != 0xff && (hi != 0 || lo > 1)
}

// EchoReply4 turns the echo request pkt into its reply, in place. pkt is a whole
// datagram, its header checked, cut to its total length, sent to an address of
// ours. Type of service, identification and options stay (RFC 1122 section
// 3.2.2.6). Where it returns a fault, pkt is unchanged.
func EchoReply4(pkt []byte) Fault {
	hlen := int(pkt[IPv4OffVerIHL]&0x0f) * 4
	if IPv4IsFragment(pkt) {
		return ICMPFragmented
	}
	icmp := pkt[hlen:]
	if f := checkEcho(icmp, ICMP4Echo, 0); f != OK {
		return f
	}
	setICMPType(icmp, ICMP4EchoReply, 0)

	src, dst := binary.BigEndian.Uint32(pkt[IPv4OffSrc:]), binary.BigEndian.Uint32(pkt[IPv4OffDst:])
	binary.BigEndian.PutUint32(pkt[IPv4OffSrc:], dst)
	binary.BigEndian.PutUint32(pkt[IPv4OffDst:], src)
	// The sum does not see that the addresses changed places.
	old := binary.BigEndian.Uint16(pkt[IPv4OffTTL:])
	pkt[IPv4OffTTL] = icmpTTL
	check := binary.BigEndian.Uint16(pkt[IPv4OffChecksum:])
	check = Update16(check, old, binary.BigEndian.Uint16(pkt[IPv4OffTTL:]))
	binary.BigEndian.PutUint16(pkt[IPv4OffChecksum:], check)
	return OK
}

// EchoReply6 turns the echo request pkt into its reply, in place. pkt is a whole
// packet that CheckIPv6 has accepted, cut to its length, without extension
// headers, sent to a unicast address of ours (RFC 4443 section 4.2). Where it
// returns a fault, pkt is unchanged.
func EchoReply6(pkt []byte) Fault {
	switch pkt[IPv6OffNext] {
	case ProtoICMPv6:
	case NextFragment:
		return ICMPFragmented
	default:
		return ICMPNotEcho
	}
	icmp := pkt[IPv6Len:]
	pseudo := PseudoSum6(pkt, ProtoICMPv6, len(icmp)) // either way the same
	if f := checkEcho(icmp, ICMP6Echo, pseudo); f != OK {
		return f
	}
	setICMPType(icmp, ICMP6EchoReply, pseudo)
	src := [16]byte(pkt[IPv6OffSrc:IPv6OffDst])
	copy(pkt[IPv6OffSrc:IPv6OffDst], pkt[IPv6OffDst:IPv6Len])
	copy(pkt[IPv6OffDst:IPv6Len], src[:])
	pkt[IPv6OffHopLimit] = icmpTTL
	return OK
}

// checkEcho checks that icmp is an echo request of type want, with code zero and
// a right checksum over pseudo, the partial sum of the pseudo-header.
func checkEcho(icmp []byte, want uint8, pseudo uint32) Fault {
	switch {
	case len(icmp) < ICMPLen:
		return ICMPShort
	case icmp[ICMPOffType] != want || icmp[ICMPOffCode] != 0:
		return ICMPNotEcho
	case Fold(Sum(icmp, pseudo)) != 0xffff:
		return ICMPChecksum
	}
	return OK
}

// setICMPType changes the type of icmp, a message with a right checksum, and
// computes the checksum anew over pseudo. Not incrementally: the reply to an
// echo of zeros is all zero in ICMPv4, the one message that RFC 1624 gets wrong.
func setICMPType(icmp []byte, t uint8, pseudo uint32) {
	icmp[ICMPOffType] = t
	binary.BigEndian.PutUint16(icmp[ICMPOffChecksum:], 0)
	binary.BigEndian.PutUint16(icmp[ICMPOffChecksum:], ^Fold(Sum(icmp, pseudo)))
}
