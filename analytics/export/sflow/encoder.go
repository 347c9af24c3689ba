// Package sflow makes datagrams of sFlow version 5 (sflow.org/sflow_version_5.txt, "sFlow 5" below): sampled packets and counters of
// tunnels. Everything is XDR (RFC 4506): big-endian, in units of four bytes.
//
// A tunnel is an interface, and a source of data with a sampling rate, a pool and sequence numbers of its own: a packet belongs to the
// tunnel that it came out of, otherwise to the one that it went into, otherwise to source 0. What is sampled begins with the IP
// header; which outer headers the packet had, or gets, is told by the records of "sFlow Tunnel Structures".
package sflow

import (
	"encoding/binary"
	"net/netip"
	"time"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
)

const (
	// MaxDatagram is the size in bytes that no datagram exceeds, so that none is fragmented.
	MaxDatagram = 1400

	version   = 5
	maxSample = 512 // no sample is longer
	maxName   = 128 // bytes of a tunnel's name that are told
)

// Options say who the agent is.
type Options struct {
	Agent    netip.Addr // the node's address
	SubAgent uint32     // tells apart several encoders of one agent
	Start    time.Time  // of the agent: uptimes count from there

	// Ethernet puts a made-up Ethernet header in front of sampled packets, with addresses of zero, for collectors that take nothing
	// else: FastNetMon 1.2 passes over IPv6 packets without one. Its 14 bytes count in the length of the packet.
	Ethernet bool
}

// An Encoder collects samples in a datagram. It is for one goroutine.
type Encoder struct {
	opts     Options
	send     func(datagram []byte)
	buf      []byte // header and samples
	header   int    // bytes of the header
	samples  uint32 // in buf
	sequence uint32 // of the last datagram
	sources  map[uint32]*source
}

// A source is what is remembered of a source of data.
type source struct {
	flows    uint32 // sequence number of the last flow sample
	counters uint32 // and of the last counter sample
	pool     uint32 // packets that could have been sampled
	drops    uint32 // samples that were lost
}

// NewEncoder makes an encoder. Send gets each datagram, which is its only during the call.
func NewEncoder(o Options, send func(datagram []byte)) *Encoder {
	e := &Encoder{opts: o, send: send, sources: make(map[uint32]*source), buf: make([]byte, 0, MaxDatagram+maxSample)}
	e.buf = appendUints(e.buf, version)
	e.buf = appendAddress(e.buf, o.Agent)
	e.buf = appendUints(e.buf, o.SubAgent, 0, 0, 0) // sequence number, uptime and number of samples: see emit
	e.header = len(e.buf)
	return e
}

// Flow adds a sampled packet. In and out are what the sample's tunnels are to collectors, nil for none. It reports whether the packet
// was one: of what does not begin as an IP packet does, nothing is told.
func (e *Encoder) Flow(s *flow.Sample, in, out *ifindex.Interface, now time.Time) bool {
	version := ipVersion(s.Header)
	if version == 0 {
		return false
	}
	src, index := e.source(in, out)
	src.flows++
	src.pool += s.Every
	mark := len(e.buf)
	e.buf = appendUints(e.buf, formatFlowSample, 0, src.flows, index, s.Every, src.pool, src.drops, input(in), output(s, out))
	count := len(e.buf)
	e.buf = appendUints(e.buf, 0)
	records := e.sampledHeader(s, version)
	if in != nil {
		records += e.tunnel(in, in.Remote, in.Local, s.Length, 0, ingressTunnel)
	}
	if out != nil && s.Verdict != flow.Dropped {
		records += e.tunnel(out, out.Local, out.Remote, s.Length, trafficClass(s.Header), egressTunnel)
	}
	binary.BigEndian.PutUint32(e.buf[count:], records)
	e.commit(mark, now)
	return true
}

// Lost counts samples that were taken and could not be told, of packets from or to a tunnel. Nil: not known of which.
func (e *Encoder) Lost(i *ifindex.Interface, n uint64) {
	src, _ := e.source(i, nil)
	src.drops += uint32(n)
}

// Flush sends what was collected. Samples must not wait for longer than a second (sFlow 5, section 3.1), so it is to be called at
// least that often.
func (e *Encoder) Flush(now time.Time) {
	if e.samples == 0 {
		return
	}
	e.emit(len(e.buf), now)
	e.buf = e.buf[:e.header]
}

// source returns what is remembered of a packet's source of data, and its number: class 0, an ifIndex.
func (e *Encoder) source(in, out *ifindex.Interface) (*source, uint32) {
	var index uint32
	switch {
	case in != nil:
		index = in.Index
	case out != nil:
		index = out.Index
	}
	src := e.sources[index]
	if src == nil {
		src = &source{}
		e.sources[index] = src
	}
	return src, index
}

// commit takes the sample from mark on into the datagram, or into the next one if it is too much for this one.
func (e *Encoder) commit(mark int, now time.Time) {
	binary.BigEndian.PutUint32(e.buf[mark+4:], uint32(len(e.buf)-mark-8))
	if len(e.buf) > MaxDatagram {
		e.emit(mark, now)
		e.buf = append(e.buf[:e.header], e.buf[mark:]...)
	}
	e.samples++
}

// emit sends the first bytes of the buffer as a datagram.
func (e *Encoder) emit(size int, now time.Time) {
	e.sequence++
	h := e.buf[e.header-12:]
	binary.BigEndian.PutUint32(h, e.sequence)
	binary.BigEndian.PutUint32(h[4:], uint32(now.Sub(e.opts.Start).Milliseconds()))
	binary.BigEndian.PutUint32(h[8:], e.samples)
	e.samples = 0
	e.send(e.buf[:size])
}

func appendUints(b []byte, list ...uint32) []byte {
	for _, x := range list {
		b = binary.BigEndian.AppendUint32(b, x)
	}
	return b
}

// appendAddress appends a union address: its type, and 4 or 16 bytes. An agent without an address is unknown (type 0, no bytes).
func appendAddress(b []byte, a netip.Addr) []byte {
	switch a = a.Unmap(); {
	case a.Is4():
		b = appendUints(b, 1)
	case a.Is6():
		b = appendUints(b, 2)
	default:
		b = appendUints(b, 0)
	}
	return append(b, a.AsSlice()...)
}

// appendString appends string<>: its length, and bytes up to a multiple of four.
func appendString(b []byte, text string) []byte {
	return pad(append(appendUints(b, uint32(len(text))), text...), len(text))
}

// pad makes opaque data of n bytes a multiple of four long.
func pad(b []byte, n int) []byte {
	for ; n%4 != 0; n++ {
		b = append(b, 0)
	}
	return b
}
