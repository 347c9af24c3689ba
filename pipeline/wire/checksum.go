package wire

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum is the ones-complement sum of 16-bit big-endian words
// (RFC 1071). A partial sum here is a uint32 whose two halves are still to be
// added; Fold does that. Partial sums may be added in any order.

// Sum adds the 16-bit words of b to the partial sum acc. An odd last byte counts
// as if a zero byte followed (RFC 1071 section 1), so of several pieces of one
// message only the last may be odd.
func Sum(b []byte, acc uint32) uint32 {
	// Ones-complement addition does not care for byte order (RFC 1071 section 2
	// (B)): add in the order that the machine loads, exchange the bytes once at
	// the end.
	var s, carry uint64
	for len(b) >= 32 {
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[0:8]), 0)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[8:16]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[16:24]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[24:32]), carry)
		s += carry // cannot wrap again: after a carry s is at most 2^64-2
		b = b[32:]
	}
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[0:8]), 0)
		s += carry
		b = b[8:]
	}
	// At most seven bytes are left: they are one more word with zeros behind.
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(binary.LittleEndian.Uint32(b[0:4]))
		b = b[4:]
		tail |= tailBytes(b) << 32
	} else {
		tail = tailBytes(b)
	}
	s, carry = bits.Add64(s, tail, 0)
	s += carry

	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	word := bits.ReverseBytes16(Fold(uint32(s)))
	sum := uint64(acc) + uint64(word)
	return uint32(sum) + uint32(sum>>32)
}

// tailBytes loads the up to three bytes of b as a little-endian number.
func tailBytes(b []byte) uint64 {
	switch len(b) {
	case 3:
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
	case 2:
		return uint64(b[0]) | uint64(b[1])<<8
	case 1:
		return uint64(b[0])
	}
	return 0
}

// Fold reduces a partial sum to 16 bits. The result is not inverted.
func Fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum + sum>>16)
}

// Checksum returns the value of a checksum field that makes b correct, where the
// field itself lies in b as zero. Over a message that carries its checksum it
// returns 0 if the message is correct.
func Checksum(b []byte) uint16 { return ^Fold(Sum(b, 0)) }

// Update16 returns what becomes of the checksum field check when one aligned
// 16-bit word of the message changes from old to new. It is RFC 1624 equation 3,
// HC' = ~(~HC + ~m + m'): unlike that of RFC 1141, it never makes 0xffff of a
// sum that must be 0x0000. It is exact unless the changed message is all zero,
// which nothing with an IP header or a pseudo-header before it can be.
func Update16(check, old, new uint16) uint16 {
	return ^Fold(uint32(^check) + uint32(^old) + uint32(new))
}

// Update32 is Update16 for an aligned 32-bit field such as an IPv4 address.
func Update32(check uint16, old, new uint32) uint16 {
	return ^Fold(uint32(^check) + ^old>>16 + ^old&0xffff + new>>16 + new&0xffff)
}

// PseudoSum4 returns the partial sum of the IPv4 pseudo-header of UDP and TCP
// (RFC 768, RFC 9293 section 3.1): addresses, protocol, and the length in bytes
// of transport header and payload.
func PseudoSum4(src, dst uint32, proto uint8, length int) uint32 {
	return src>>16 + src&0xffff + dst>>16 + dst&0xffff + uint32(proto) + uint32(length)
}

// PseudoSum6 returns the partial sum of the IPv6 pseudo-header (RFC 8200 section
// 8.1). hdr starts with the IPv6 header; proto is the protocol behind all
// extension headers, length the bytes of upper-layer header and payload.
func PseudoSum6(hdr []byte, proto uint8, length int) uint32 {
	return Sum(hdr[IPv6OffSrc:IPv6Len], uint32(length)>>16+uint32(length)&0xffff+uint32(proto))
}
