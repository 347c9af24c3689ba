package sflow

import (
	"encoding/binary"
	"net/netip"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
)

// Formats of samples and of what is in them (sFlow 5, section 5; "sFlow Tunnel Structures").
const (
	formatFlowSample    = 1
	formatCounterSample = 2

	formatSampledHeader = 1
	headerEthernet      = 1 // header_protocol
	headerIPv4          = 11
	headerIPv6          = 12

	// Interfaces of which sFlow knows more than a number (sFlow 5, section 5, "interface").
	internal     = 0x3fffffff // none: the packet's way ended, or began, in the node
	dropped      = 1 << 30    // with the reason
	unknownIndex = 0
)

// ends are the formats of a tunnel's records, for where a packet came out of it and where it went into it.
type ends struct{ ipv4, ipv6, vni uint32 }

var (
	egressTunnel  = ends{1023, 1025, 1029}
	ingressTunnel = ends{1024, 1026, 1030}
)

// ipVersion is 4 or 6, or 0 for what is no IP packet.
func ipVersion(header []byte) int {
	if len(header) == 0 {
		return 0
	}
	if v := int(header[0] >> 4); v == 4 || v == 6 {
		return v
	}
	return 0
}

// sampledHeader appends the record of the packet itself.
func (e *Encoder) sampledHeader(s *flow.Sample, version int) uint32 {
	header := s.Header[:min(len(s.Header), flow.HeaderLen)]
	length := max(s.Length, len(header))
	protocol, etherType := uint32(headerIPv4), uint16(0x0800)
	if version == 6 {
		protocol, etherType = headerIPv6, 0x86dd
	}
	link := 0
	if e.opts.Ethernet {
		protocol, link = headerEthernet, 14
	}
	padded := (link + len(header) + 3) &^ 3
	e.buf = appendUints(e.buf, formatSampledHeader, uint32(16+padded), protocol, uint32(length+link), 0, uint32(link+len(header)))
	if e.opts.Ethernet {
		e.buf = append(e.buf, make([]byte, 12)...)
		e.buf = binary.BigEndian.AppendUint16(e.buf, etherType)
	}
	e.buf = pad(append(e.buf, header...), link+len(header))
	return 1
}

// tunnel appends what is known of the outer header that a packet of so many bytes had, or gets, and returns how many records that
// takes.
func (e *Encoder) tunnel(i *ifindex.Interface, src, dst netip.Addr, length int, class uint32, end ends) (records uint32) {
	ports := [2]uint32{uint32(i.Ports[0]), uint32(i.Ports[1])}
	if end == ingressTunnel {
		ports[0], ports[1] = ports[1], ports[0]
	}
	if src, dst = src.Unmap(), dst.Unmap(); src.IsValid() && dst.IsValid() && src.Is4() == dst.Is4() {
		format, size := end.ipv4, uint32(32)
		if src.Is6() {
			format, size = end.ipv6, 56
		}
		e.buf = appendUints(e.buf, format, size, uint32(length+i.Overhead), uint32(i.Protocol))
		e.buf = append(e.buf, src.AsSlice()...)
		e.buf = append(e.buf, dst.AsSlice()...)
		e.buf = appendUints(e.buf, ports[0], ports[1], 0, class) // between them: TCP flags
		records++
	}
	if i.HasKey {
		e.buf = appendUints(e.buf, end.vni, 4, i.Key)
		records++
	}
	return records
}

// trafficClass is the packet's TOS or traffic class, whose upper six bits the outer header gets as well.
func trafficClass(header []byte) uint32 {
	switch {
	case len(header) < 2:
		return 0
	case header[0]>>4 == 4:
		return uint32(header[1])
	}
	return uint32(binary.BigEndian.Uint16(header)) >> 4 & 0xff
}

func input(in *ifindex.Interface) uint32 {
	if in == nil {
		return unknownIndex
	}
	return in.Index
}

func output(s *flow.Sample, out *ifindex.Interface) uint32 {
	switch {
	case s.Verdict == flow.Dropped:
		return dropped | DropReason(s.Reason)
	case s.Verdict != flow.Forwarded:
		return internal
	case out == nil:
		return unknownIndex
	}
	return out.Index
}
