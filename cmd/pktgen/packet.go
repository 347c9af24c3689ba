package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A packet is what the sink needs of a received frame: the innermost IP packet, behind an optional VLAN tag and any
// GRE header, and its transport header. All slices point into the frame.
type packet struct {
	ip      []byte // from the IP header to the end of the IP packet
	l4      []byte // from the transport header on; empty when there is none
	proto   uint8  // of l4
	payload []byte // of UDP, or of TCP
}

// parse finds them. It believes nothing: what does not fit ends the search, and ok says whether there is an IP packet.
func parse(frame []byte) (p packet, ok bool) {
	if len(frame) < etherLen {
		return p, false
	}
	etherType, b := binary.BigEndian.Uint16(frame[12:]), frame[etherLen:]
	if etherType == typeVLAN && len(b) >= vlanLen {
		etherType, b = binary.BigEndian.Uint16(b[2:]), b[vlanLen:]
	}
	for depth := 0; depth < 3; depth++ { // GRE in GRE at most
		inner := packet{}
		switch etherType {
		case typeIPv4:
			inner, ok = parseIPv4(b)
		case typeIPv6:
			inner, ok = parseIPv6(b)
		default:
			ok = false
		}
		if !ok {
			return p, p.ip != nil
		}
		p = inner
		if p.proto != unix.IPPROTO_GRE {
			break
		}
		if etherType, b, ok = parseGRE(p.l4); !ok {
			return p, true
		}
	}
	p.findPayload()
	return p, true
}

func parseIPv4(b []byte) (p packet, ok bool) {
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return p, false
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4Len || total < header || total > len(b) {
		return p, false
	}
	p.ip, p.proto = b[:total], b[9]
	if binary.BigEndian.Uint16(b[6:])&0x3fff == 0 { // no fragment
		p.l4 = p.ip[header:]
	}
	return p, true
}

// parseIPv6 skips destination options and hop-by-hop options: Linux puts the former before GRE.
func parseIPv6(b []byte) (p packet, ok bool) {
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return p, false
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return p, false
	}
	p.ip, p.proto, p.l4 = b[:total], b[6], b[ipv6Len:total]
	for p.proto == unix.IPPROTO_DSTOPTS || p.proto == unix.IPPROTO_HOPOPTS {
		if len(p.l4) < 8 || len(p.l4) < 8+int(p.l4[1])*8 {
			p.l4 = nil
			return p, true
		}
		p.proto, p.l4 = p.l4[0], p.l4[8+int(p.l4[1])*8:]
	}
	return p, true
}

// parseGRE skips checksum, key and sequence number (RFC 2784, RFC 2890).
func parseGRE(b []byte) (etherType uint16, rest []byte, ok bool) {
	if len(b) < greLen || b[1]&7 != 0 {
		return 0, nil, false
	}
	n := greLen
	for _, flag := range []byte{0x80, 0x20, 0x10} {
		if b[0]&flag != 0 {
			n += 4
		}
	}
	if len(b) < n {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(b[2:]), b[n:], true
}

func (p *packet) findPayload() {
	switch {
	case p.proto == unix.IPPROTO_UDP && len(p.l4) >= udpLen:
		p.payload = p.l4[udpLen:]
	case p.proto == unix.IPPROTO_TCP && len(p.l4) >= tcpLen:
		if n := int(p.l4[12]>>4) * 4; n >= tcpLen && n <= len(p.l4) {
			p.payload = p.l4[n:]
		}
	}
}

// checksumsGood verifies the IPv4 header checksum, and the checksum of TCP or UDP, of the innermost packet. A UDP
// checksum of zero is good over IPv4 only (RFC 8200 section 8.1).
func (p *packet) checksumsGood() bool {
	var sum uint32
	if p.ip[0]>>4 == 4 {
		if finish(sumBytes(p.ip[:int(p.ip[0]&15)*4], 0)) != 0 {
			return false
		}
		sum = sumBytes(p.ip[12:20], 0)
	} else {
		sum = sumBytes(p.ip[8:40], 0)
	}
	switch {
	case p.proto == unix.IPPROTO_UDP && len(p.l4) >= udpLen:
		if binary.BigEndian.Uint16(p.l4[6:]) == 0 {
			return p.ip[0]>>4 == 4
		}
	case p.proto != unix.IPPROTO_TCP || len(p.l4) < tcpLen:
		return true
	}
	return finish(sumBytes(p.l4, sum+uint32(len(p.l4))+uint32(p.proto))) == 0
}
