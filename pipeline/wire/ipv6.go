package wire

import "encoding/binary"

// RFC 8200 section 3:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version| Traffic class |              Flow label               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Payload length        |  Next header  |   Hop limit   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                    Source address, 16 bytes                   +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                 Destination address, 16 bytes                 +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

// Sizes and offsets of an IPv6 header, in bytes.
const (
	IPv6Len         = 40
	IPv6OffFlow     = 0 // version, traffic class, flow label
	IPv6OffPayload  = 4
	IPv6OffNext     = 6
	IPv6OffHopLimit = 7
	IPv6OffSrc      = 8
	IPv6OffDst      = 24
)

// IPv6MinMTU is the least MTU of a link that carries IPv6 (RFC 8200 section 5).
const IPv6MinMTU = 1280

// Next header values of extension headers (IANA).
const (
	NextHopByHop    = 0
	NextRouting     = 43
	NextFragment    = 44
	NextNone        = 59
	NextDestination = 60
)

// CheckIPv6 checks the header at the start of b and returns the length of the
// packet. b may be longer than the packet (Ethernet padding).
func CheckIPv6(b []byte) (total int, f Fault) {
	if len(b) < IPv6Len {
		return 0, IPv6Short
	}
	if b[IPv6OffFlow]>>4 != 6 {
		return 0, IPv6Version
	}
	total = IPv6Len + int(binary.BigEndian.Uint16(b[IPv6OffPayload:]))
	if total > len(b) {
		return 0, IPv6PayloadLong
	}
	if total == IPv6Len {
		f = noPayloadFault(b[IPv6OffNext])
	}
	return
}

// noPayloadFault judges a payload length of zero by the next header. It is right
// only where no header follows either (RFC 8200 section 4.7).
func noPayloadFault(next uint8) Fault {
	switch next {
	case NextNone:
		return OK
	case NextHopByHop:
		return IPv6Jumbogram // RFC 2675 section 3: the length is in an option
	}
	return IPv6PayloadZero
}

// IPv6Header is what PutIPv6 writes.
type IPv6Header struct {
	Src, Dst [16]byte
	Payload  int    // bytes behind the header, at most 65535
	Flow     uint32 // traffic class and flow label, the lower 28 bits
	Next     uint8
	HopLimit uint8
}

// PutIPv6 writes a header to the first IPv6Len bytes of b.
func PutIPv6(b []byte, h *IPv6Header) {
	_ = b[IPv6Len-1]
	binary.BigEndian.PutUint32(b[IPv6OffFlow:], 6<<28|h.Flow&(1<<28-1))
	binary.BigEndian.PutUint16(b[IPv6OffPayload:], uint16(h.Payload))
	b[IPv6OffNext], b[IPv6OffHopLimit] = h.Next, h.HopLimit
	copy(b[IPv6OffSrc:IPv6OffDst], h.Src[:])
	copy(b[IPv6OffDst:IPv6Len], h.Dst[:])
}
