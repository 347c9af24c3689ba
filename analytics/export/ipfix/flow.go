package ipfix

import (
	"math"
	"net/netip"
	"time"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
)

// TCP flags (RFC 9293 3.1).
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpACK = 0x10
)

// biflowDirection (RFC 5103 6.3): how forward was told from reverse.
const (
	arbitrary = 0
	initiator = 1
)

func keyOf(s *flow.Sample, h *flow.Header, in, out *ifindex.Interface) key {
	k := key{src: addressOf(h.Src, h.Version), dst: addressOf(h.Dst, h.Version), srcPort: h.SrcPort, dstPort: h.DstPort,
		protocol: h.Protocol, version: h.Version, status: Status(s)}
	if in != nil {
		k.in = in.Index
	}
	if out != nil {
		k.out = out.Index
	}
	return k
}

func addressOf(a netip.Addr, version uint8) (b [16]byte) {
	all := a.As16()
	if version == 6 {
		return all
	}
	copy(b[:], all[12:])
	return b
}

// open begins an entry with the flow's first sample.
func (x *entry) open(s *flow.Sample, h *flow.Header, now time.Time) {
	x.opened, x.first, x.last = now.UnixMilli(), s.Time.UnixMilli(), s.Time.UnixMilli()
	x.class = h.DSCP<<2 | h.ECN
	if h.HasICMP {
		x.icmp = uint16(h.ICMPType)<<8 | uint16(h.ICMPCode)
	}
}

// count adds a sample. Samples of several workers may come out of order.
func (x *entry) count(s *flow.Sample, h *flow.Header, now time.Time) {
	at := s.Time.UnixMilli()
	x.first, x.last, x.touched = min(x.first, at), max(x.last, at), now.UnixMilli()
	x.packets += uint64(s.Every)
	x.octets += uint64(s.Every) * uint64(max(s.Length, 0))
	if x.samples < math.MaxUint32 {
		x.samples++
	}
	if h.HasTCP {
		x.flags |= h.TCP.Flags
		x.initiates = x.initiates || h.TCP.Flags&(tcpSYN|tcpACK) == tcpSYN
	}
}

// forwardOf reports whether x is rather the forward direction than y: who sent the SYN has begun; without one, who was seen first.
func (x *entry) forwardOf(y *entry) bool {
	if x.initiates != y.initiates {
		return x.initiates
	}
	return x.first < y.first
}

func (x *entry) direction() uint8 {
	if x.initiates {
		return initiator
	}
	return arbitrary
}
