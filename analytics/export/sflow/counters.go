package sflow

import (
	"encoding/binary"
	"time"

	"causeway/analytics/export/ifindex"
)

const (
	formatIfCounters = 1
	formatPortName   = 1005

	ifTypeTunnel = 131 // IANAifType

	notKnown = 0xffffffff // of a counter (sFlow 5, section 5.1)
)

// Counters are those of a tunnel since the node's start. In is out of the tunnel, from the customer; octets are those of inner IP
// packets.
type Counters struct {
	InOctets, InPackets, InDiscards    uint64
	OutOctets, OutPackets, OutDiscards uint64
	Down                               bool
}

// Counters adds a counter sample of a tunnel: the generic interface counters, and its name.
func (e *Encoder) Counters(i *ifindex.Interface, c *Counters, now time.Time) {
	src, index := e.source(i, nil)
	src.counters++
	status := uint32(3) // bit 0: ifAdminStatus, bit 1: ifOperStatus
	if c.Down {
		status = 1
	}
	mark := len(e.buf)
	e.buf = appendUints(e.buf, formatCounterSample, 0, src.counters, index, 2)
	e.buf = appendUints(e.buf, formatIfCounters, 88, index, ifTypeTunnel, 0, 0, 0, status) // speed and duplex: a tunnel has none
	e.half(c.InOctets, c.InPackets, c.InDiscards)
	e.buf = appendUints(e.buf, notKnown) // ifInUnknownProtos
	e.half(c.OutOctets, c.OutPackets, c.OutDiscards)
	e.buf = appendUints(e.buf, 2) // ifPromiscuousMode: false (RFC 2863 TruthValue)
	name := i.Tunnel.Name[:min(len(i.Tunnel.Name), maxName)]
	e.buf = appendUints(e.buf, formatPortName, uint32(4+(len(name)+3)&^3))
	e.buf = appendString(e.buf, name)
	e.commit(mark, now)
}

// half appends the six counters of a direction: multicast and broadcast are among the unicast packets, errors among the discards.
func (e *Encoder) half(octets, packets, discards uint64) {
	e.buf = binary.BigEndian.AppendUint64(e.buf, octets)
	e.buf = appendUints(e.buf, uint32(packets), notKnown, notKnown, uint32(discards), notKnown)
}
