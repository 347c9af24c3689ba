package wire

import (
	"encoding/binary"
	"math/bits"
)

// RFC 791 section 3.1:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version|  IHL  |  DSCP     |ECN|          Total length         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Identification        |0|D|M|     Fragment offset     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Time to live |    Protocol   |        Header checksum        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Source address                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Destination address                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                  Options, 0 to 40 bytes                       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

// Sizes and offsets of an IPv4 header, in bytes.
const (
	IPv4Len         = 20 // without options
	IPv4MaxLen      = 60 // with 40 bytes of options
	IPv4OffVerIHL   = 0
	IPv4OffTOS      = 1 // DSCP in the upper six bits, ECN in the lower two
	IPv4OffTotal    = 2
	IPv4OffID       = 4
	IPv4OffFrag     = 6 // flags in the upper three bits, offset/8 below
	IPv4OffTTL      = 8
	IPv4OffProto    = 9
	IPv4OffChecksum = 10
	IPv4OffSrc      = 12
	IPv4OffDst      = 16
)

// Flags and mask of the 16-bit word at IPv4OffFrag.
const (
	IPv4Reserved = 0x8000
	IPv4DF       = 0x4000
	IPv4MF       = 0x2000
	IPv4FragMask = 0x1fff // offset in units of 8 bytes
)

// ipv4MaxTotal is the longest datagram that the total length field can name.
const ipv4MaxTotal = 0xffff

// Protocol numbers (IANA), shared by IPv4 and IPv6.
const (
	ProtoICMP   = 1
	ProtoIPv4   = 4
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoIPv6   = 41
	ProtoGRE    = 47
	ProtoESP    = 50
	ProtoICMPv6 = 58
)

// CheckIPv4 checks the header at the start of b and returns its length and the
// length of the datagram. b may be longer than the datagram (Ethernet padding).
// Fields of fragmentation and options are checked by CheckIPv4Fragment and
// CheckIPv4Options, which only few packets need.
func CheckIPv4(b []byte) (hlen, total int, f Fault) {
	if len(b) < IPv4Len {
		return 0, 0, IPv4Short
	}
	first := binary.LittleEndian.Uint64(b[0:8])
	total = int(bits.ReverseBytes16(uint16(first >> (8 * IPv4OffTotal))))
	if first&0xff != 0x45 {
		return checkIPv4Uncommon(b, total)
	}
	if total < IPv4Len {
		return 0, 0, IPv4TotalSmall
	}
	if total > len(b) {
		return 0, 0, IPv4TotalLong
	}
	// The sum of Sum, written out for 20 bytes.
	s, carry := bits.Add64(first, binary.LittleEndian.Uint64(b[8:16]), 0)
	s, carry = bits.Add64(s, uint64(binary.LittleEndian.Uint32(b[16:20])), carry)
	s += carry
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	if Fold(uint32(s)) != 0xffff {
		return 0, 0, IPv4Checksum
	}
	return IPv4Len, total, OK
}

// checkIPv4Uncommon is CheckIPv4 for a first byte other than 0x45: options, or a
// fault. b holds at least IPv4Len bytes.
func checkIPv4Uncommon(b []byte, total int) (int, int, Fault) {
	hlen := int(b[IPv4OffVerIHL]&0x0f) * 4
	switch {
	case b[IPv4OffVerIHL]>>4 != 4:
		return 0, 0, IPv4Version
	case hlen < IPv4Len:
		return 0, 0, IPv4HeaderSmall
	case hlen > len(b):
		return 0, 0, IPv4HeaderLong
	case total < hlen:
		return 0, 0, IPv4TotalSmall
	case total > len(b):
		return 0, 0, IPv4TotalLong
	case Checksum(b[:hlen]) != 0:
		return 0, 0, IPv4Checksum
	}
	return hlen, total, OK
}

// IPv4IsFragment reports whether the checked header b belongs to a fragment, or
// has the reserved flag set: whether CheckIPv4Fragment has something to look at.
func IPv4IsFragment(b []byte) bool {
	return binary.BigEndian.Uint16(b[IPv4OffFrag:IPv4OffTTL])&^IPv4DF != 0
}

// IPv4Fragment returns the fragmentation fields of the checked header b. off is
// in bytes.
func IPv4Fragment(b []byte) (id uint16, off int, more, df bool) {
	w := binary.BigEndian.Uint32(b[IPv4OffID:IPv4OffTTL])
	return uint16(w >> 16), int(w&IPv4FragMask) * 8, w&IPv4MF != 0, w&IPv4DF != 0
}

// CheckIPv4Fragment checks the fragmentation fields of a datagram whose header
// CheckIPv4 has accepted with these lengths.
func CheckIPv4Fragment(b []byte, hlen, total int) Fault {
	w := binary.BigEndian.Uint16(b[IPv4OffFrag:])
	if w&IPv4Reserved != 0 {
		return IPv4ReservedFlag
	}
	off, more, payload := int(w&IPv4FragMask)*8, w&IPv4MF != 0, total-hlen
	switch {
	case off == 0 && !more:
		return OK
	case payload == 0:
		return IPv4FragmentEmpty
	case more && payload%8 != 0:
		return IPv4FragmentLength
	case hlen+off+payload > ipv4MaxTotal:
		return IPv4FragmentBeyond
	}
	return OK
}

// DecTTL4 takes one from the time to live of the checked header b and corrects
// the checksum. The caller has seen that the TTL is above one.
func DecTTL4(b []byte) {
	_ = b[IPv4OffChecksum+1]
	b[IPv4OffTTL]--
	// The word of TTL and protocol went down by 0x0100, so the complement of the
	// sum goes up by it, end-around. 0xffff becomes 0x0000 as RFC 1624 section 3
	// asks.
	c := uint32(b[IPv4OffChecksum])<<8 + uint32(b[IPv4OffChecksum+1]) + 0x0100
	c += (c + 1) >> 16
	b[IPv4OffChecksum], b[IPv4OffChecksum+1] = byte(c>>8), byte(c)
}

// IPv4Header is what PutIPv4 writes; the rest of the header follows from it.
type IPv4Header struct {
	Src, Dst uint32
	Total    int    // length of the datagram in bytes, at most 65535
	ID       uint16 // identification
	Frag     uint16 // the word of flags and fragment offset, for example IPv4DF
	TOS      uint8  // DSCP and ECN
	TTL      uint8
	Proto    uint8
}

// PutIPv4 writes a header without options, checksum included, to the first
// IPv4Len bytes of b.
func PutIPv4(b []byte, h IPv4Header) {
	_ = b[IPv4Len-1]
	b[IPv4OffVerIHL], b[IPv4OffTOS] = 0x45, h.TOS
	binary.BigEndian.PutUint16(b[IPv4OffTotal:], uint16(h.Total))
	binary.BigEndian.PutUint16(b[IPv4OffID:], h.ID)
	binary.BigEndian.PutUint16(b[IPv4OffFrag:], h.Frag)
	b[IPv4OffTTL], b[IPv4OffProto] = h.TTL, h.Proto
	binary.BigEndian.PutUint16(b[IPv4OffChecksum:], 0)
	binary.BigEndian.PutUint32(b[IPv4OffSrc:], h.Src)
	binary.BigEndian.PutUint32(b[IPv4OffDst:], h.Dst)
	binary.BigEndian.PutUint16(b[IPv4OffChecksum:], Checksum(b[:IPv4Len]))
}
