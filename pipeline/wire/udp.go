package wire

import "encoding/binary"

// RFC 768:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source port          |        Destination port       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|             Length            |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

// Sizes and offsets of a UDP header, in bytes.
const (
	UDPLen         = 8
	UDPOffSrcPort  = 0
	UDPOffDstPort  = 2
	UDPOffLength   = 4
	UDPOffChecksum = 6
)

// UDP ports of IKE and of ESP in UDP (RFC 7296 section 2, RFC 3948 section 2).
const (
	PortIKE    = 500
	PortIKENAT = 4500
)

// CheckUDP checks the header at the start of b, the payload of an unfragmented
// datagram, and returns the length of header and data. The checksum is not
// verified.
func CheckUDP(b []byte) (total int, f Fault) {
	if len(b) < UDPLen {
		return 0, UDPShort
	}
	total = int(binary.BigEndian.Uint16(b[UDPOffLength:]))
	if total < UDPLen {
		return 0, UDPLengthSmall
	}
	if total > len(b) {
		return 0, UDPLengthLong
	}
	return total, OK
}

// What follows the UDP header on port 4500 (RFC 3948 section 2):
//
//	four zero bytes: the non-ESP marker, IKE behind it
//	one byte 0xff:   NAT keepalive
//	else:            ESP, which starts with its SPI, never zero

const (
	nonESPMarkerLen = 4
	natKeepalive    = 0xff
)

// IsESPInUDP reports whether payload, the data of a datagram to or from port
// 4500, is an ESP packet: its SPI is not zero. Whether ESP is whole is for ESP to
// say.
func IsESPInUDP(payload []byte) bool {
	return len(payload) >= nonESPMarkerLen && binary.BigEndian.Uint32(payload) != 0
}

// IsIKEInUDP reports whether payload of port 4500 starts with the non-ESP marker.
func IsIKEInUDP(payload []byte) bool {
	return len(payload) >= nonESPMarkerLen && binary.BigEndian.Uint32(payload) == 0
}

// IsNATKeepalive reports whether payload of port 4500 is a NAT keepalive, to be
// dropped without an answer (RFC 3948 section 2.3).
func IsNATKeepalive(payload []byte) bool {
	return len(payload) == 1 && payload[0] == natKeepalive
}

// ESPLen is the length of an ESP header: SPI and sequence number (RFC 4303 section 2).
const ESPLen = 8

// SetUDP6Checksum computes the checksum of a UDP datagram in the IPv6 packet ip, which has no extension headers. Over IPv6
// it may not be left out (RFC 8200 section 8.1).
func SetUDP6Checksum(ip []byte) {
	udp := ip[IPv6Len:]
	udp[6], udp[7] = 0, 0
	sum := ^Fold(Sum(udp, PseudoSum6(ip, ProtoUDP, len(udp))))
	if sum == 0 {
		sum = 0xffff // zero means that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
}
