package health

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"net/netip"

	"causeway/pipeline"
	"causeway/pipeline/wire"
)

// A Kind is what a probe is.
type Kind uint8

// Reply is an ICMP echo reply from and to our interface address, which the customer's router routes back; Request an echo request to
// the target, which answers.
const (
	Reply Kind = iota
	Request
)

// What follows the ICMP header of a probe, big endian:
//
//	 0  pipeline.ProbeMagic
//	 4  version 1, three bytes of zero
//	 8  tag of the node that probes
//	16  tag of the tunnel
//	24  number of the probe
//	32  the first 16 bytes of HMAC-SHA256 over what is in front of it
const (
	payloadLen = 48
	macAt      = 32
	version    = 1

	messageLen = wire.ICMPLen + payloadLen
	probeLen4  = wire.IPv4Len + messageLen
	probeLen6  = wire.IPv6Len + messageLen
)

// probeTTL is that of a probe: the customer's network may have some hops before the target.
const probeTTL = 64

// A probe is what a packet says of itself.
type probe struct {
	node, tunnel, number uint64
}

// tag names a node or a tunnel in a probe.
func tag(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // cannot fail
	return h.Sum64()
}

// packet makes a probe from src to dst, both of one family.
func (p probe) packet(kind Kind, src, dst netip.Addr, key []byte) []byte {
	if src.Is4() {
		return p.packet4(kind, src, dst, key)
	}
	return p.packet6(kind, src, dst, key)
}

func (p probe) packet4(kind Kind, src, dst netip.Addr, key []byte) []byte {
	b := make([]byte, probeLen4)
	b[wire.IPv4OffVerIHL], b[wire.IPv4OffTTL], b[wire.IPv4OffProto] = 0x45, probeTTL, wire.ProtoICMP
	binary.BigEndian.PutUint16(b[wire.IPv4OffTotal:], probeLen4)
	binary.BigEndian.PutUint16(b[wire.IPv4OffFrag:], wire.IPv4DF) // and so no identification (RFC 6864 4.1)
	s, d := src.As4(), dst.As4()
	copy(b[wire.IPv4OffSrc:], s[:])
	copy(b[wire.IPv4OffDst:], d[:])
	binary.BigEndian.PutUint16(b[wire.IPv4OffChecksum:], wire.Checksum(b[:wire.IPv4Len]))
	icmp := b[wire.IPv4Len:]
	p.fill(icmp, [...]byte{Reply: wire.ICMP4EchoReply, Request: wire.ICMP4Echo}[kind], key)
	binary.BigEndian.PutUint16(icmp[wire.ICMPOffChecksum:], wire.Checksum(icmp))
	return b
}

func (p probe) packet6(kind Kind, src, dst netip.Addr, key []byte) []byte {
	b := make([]byte, probeLen6)
	b[0], b[wire.IPv6OffNext], b[wire.IPv6OffHopLimit] = 0x60, wire.ProtoICMPv6, probeTTL
	binary.BigEndian.PutUint16(b[wire.IPv6OffPayload:], messageLen)
	s, d := src.As16(), dst.As16()
	copy(b[wire.IPv6OffSrc:], s[:])
	copy(b[wire.IPv6OffDst:], d[:])
	icmp := b[wire.IPv6Len:]
	p.fill(icmp, [...]byte{Reply: wire.ICMP6EchoReply, Request: wire.ICMP6Echo}[kind], key)
	binary.BigEndian.PutUint16(icmp[wire.ICMPOffChecksum:], ^wire.Fold(wire.Sum(icmp, wire.PseudoSum6(b, wire.ProtoICMPv6, len(icmp)))))
	return b
}

// fill writes an ICMP message but for its checksum.
func (p probe) fill(icmp []byte, icmpType byte, key []byte) {
	icmp[wire.ICMPOffType] = icmpType
	binary.BigEndian.PutUint16(icmp[4:], uint16(p.tunnel)) // identifier and sequence number, for people who capture
	binary.BigEndian.PutUint16(icmp[6:], uint16(p.number))
	b := icmp[wire.ICMPLen:]
	binary.BigEndian.PutUint32(b, pipeline.ProbeMagic)
	b[4] = version
	binary.BigEndian.PutUint64(b[8:], p.node)
	binary.BigEndian.PutUint64(b[16:], p.tunnel)
	binary.BigEndian.PutUint64(b[24:], p.number)
	copy(b[macAt:], mac(b[:macAt], key))
}

func mac(b, key []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write(b) // cannot fail
	return h.Sum(nil)[:payloadLen-macAt]
}

// parseAnswer reads an echo reply, an IP packet whose header the workers have checked, that answers a probe or is one that came back. It
// is not known to be authentic: see probe.signed.
func parseAnswer(packet []byte) (p probe, payload []byte, ok bool) {
	icmp, sum, want := packet, uint32(0), byte(wire.ICMP4EchoReply)
	if len(packet) > 0 && packet[0]>>4 == 6 {
		if len(packet) < probeLen6 || packet[wire.IPv6OffNext] != wire.ProtoICMPv6 {
			return p, nil, false
		}
		icmp = packet[wire.IPv6Len:]
		sum, want = wire.PseudoSum6(packet, wire.ProtoICMPv6, len(icmp)), wire.ICMP6EchoReply
	} else {
		if len(packet) < probeLen4 || packet[wire.IPv4OffProto] != wire.ProtoICMP || wire.IPv4IsFragment(packet) {
			return p, nil, false
		}
		icmp = packet[min(len(packet), int(packet[0]&15)*4):]
	}
	if len(icmp) != messageLen || icmp[wire.ICMPOffType] != want || icmp[wire.ICMPOffCode] != 0 || wire.Fold(wire.Sum(icmp, sum)) != 0xffff {
		return p, nil, false
	}
	b := icmp[wire.ICMPLen:]
	if binary.BigEndian.Uint32(b) != pipeline.ProbeMagic || b[4] != version {
		return p, nil, false
	}
	p = probe{node: binary.BigEndian.Uint64(b[8:]), tunnel: binary.BigEndian.Uint64(b[16:]), number: binary.BigEndian.Uint64(b[24:])}
	return p, b, true
}

// signed reports whether a payload is one that was made with key.
func signed(payload, key []byte) bool { return hmac.Equal(payload[macAt:], mac(payload[:macAt], key)) }
