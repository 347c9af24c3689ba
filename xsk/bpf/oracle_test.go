package bpf

import (
	"encoding/binary"
	"net/netip"
)

// oracle is the steering decision in slow and obvious Go: linear searches, one
// slice per header. It shares nothing with the C program but the list of classes.
type oracle struct {
	endpoints []netip.Addr
	prefixes  []netip.Prefix
}

func (o oracle) classify(frame []byte) Class {
	if len(frame) < 14 {
		return Malformed
	}
	if frame[0]%2 == 1 {
		return GroupMAC
	}
	etherType, rest := frame[12:14], frame[14:]
	if string(etherType) == "\x81\x00" {
		if len(rest) < 4 {
			return Malformed
		}
		etherType, rest = rest[2:4], rest[4:]
	}
	switch string(etherType) {
	case "\x08\x00":
		return o.ipv4(rest)
	case "\x86\xdd":
		return o.ipv6(rest)
	}
	return NotIP
}

func (o oracle) ipv4(b []byte) Class {
	if len(b) < 20 || b[0]/16 != 4 {
		return Malformed
	}
	dst := netip.AddrFrom4([4]byte(b[16:20]))
	if !o.isEndpoint(dst) {
		return o.elsewhere(dst)
	}
	moreFragments := b[6]&0x20 != 0
	offset := int(b[6]%32)*256 + int(b[7])
	if moreFragments || offset != 0 {
		return Fragment
	}
	headerLen := int(b[0]%16) * 4
	if headerLen > len(b) {
		headerLen = len(b)
	}
	if b[9] == 17 && headerLen < 20 {
		return Malformed
	}
	return upper(b[9], b[headerLen:])
}

func (o oracle) ipv6(b []byte) Class {
	if len(b) < 40 || b[0]/16 != 6 {
		return Malformed
	}
	dst := netip.AddrFrom16([16]byte(b[24:40]))
	if !o.isEndpoint(dst) {
		return o.elsewhere(dst)
	}
	return chain(b[6], b[40:], 8)
}

// chain follows extension headers; left is how many more are allowed.
func chain(next byte, b []byte, left int) Class {
	switch next {
	case 44:
		return Fragment
	case 0, 43, 60:
	default:
		return upper(next, b)
	}
	if left == 0 || len(b) < 8 {
		return Malformed
	}
	size := 8 + 8*int(b[1])
	if size > len(b) {
		size = len(b)
	}
	return chain(b[0], b[size:], left-1)
}

func upper(proto byte, b []byte) Class {
	switch {
	case proto == 47:
		return GRE
	case proto == 50:
		return ESP
	case proto == 1 || proto == 58:
		reply := map[byte]byte{1: 0, 58: 129}[proto]
		if len(b) >= 12 && b[0] == reply && string(b[8:12]) == "cwhp" {
			return Probe
		}
		return EndpointOther
	case proto != 17:
		return EndpointOther
	case len(b) < 8:
		return Malformed
	}
	port, length := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:])
	switch {
	case port == 500:
		return IKE
	case port != 4500:
		return EndpointOther
	case length < 12:
		return IKE
	case len(b) < 12:
		return Malformed
	case string(b[8:12]) == "\x00\x00\x00\x00":
		return IKE
	}
	return ESPInUDP
}

func (o oracle) isEndpoint(dst netip.Addr) bool {
	for _, e := range o.endpoints {
		if e == dst {
			return true
		}
	}
	return false
}

func (o oracle) elsewhere(dst netip.Addr) Class {
	if dst.IsMulticast() || dst.IsLinkLocalUnicast() || dst.IsLoopback() || dst.IsUnspecified() {
		return Other
	}
	if dst.Is4() && (dst.As4()[0] == 0 || dst.As4()[0] >= 240) {
		return Other
	}
	for _, p := range o.prefixes {
		// Contains tells a mapped IPv6 address from IPv4, as the wire does.
		if p.Contains(dst) {
			return Prefix
		}
	}
	return Other
}
