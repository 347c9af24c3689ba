package config

import (
	"net/netip"
)

// Header lengths in bytes.
const (
	ipv4Header   = 20
	ipv6Header   = 40
	tcpHeader    = 20
	greBase      = 4 // RFC 2784 2
	greChecksum  = 4 // RFC 2784 2: checksum and reserved1
	greKey       = 4 // RFC 2890 2.1
	greSequence  = 4 // RFC 2890 2.2
	etherHeader  = 14
	vlanTag      = 4
	ipv6MinMTU   = 1280 // RFC 8200 5
	minMTU       = 576  // as the product's API; RFC 1122 3.3.3
	defaultPath  = 1500 // path MTU that the default mtu is made for
	frameLimit   = 1744 // 2048-byte chunk less 304 bytes of headroom, as in package xsk
	maxLinkBytes = etherHeader + vlanTag
	minMSS       = 88 // Linux takes no less (TCP_MIN_MSS)
)

// Overhead returns the bytes that encapsulation adds to an inner packet: outer
// IP header and GRE header with its options, or at the most with ESP. With IKE
// that is the most of all encryptions that may be negotiated, in UDP.
func (t Tunnel) Overhead() int {
	if t.IPsec != nil {
		return t.espOverhead()
	}
	n := ipv4Header
	if t.Endpoint.Is6() {
		n = ipv6Header
	}
	n += greBase
	if t.Checksum {
		n += greChecksum
	}
	if t.HasKey {
		n += greKey
	}
	if t.Sequence {
		n += greSequence
	}
	return n
}

// defaultMTU is what a path of 1500 bytes leaves for the inner packet. With replay
// protection that holds between nodes too, which have a little more in front of it.
func (t Tunnel) defaultMTU() int {
	if t.IPsec != nil && t.IPsec.ReplayProtection {
		return t.Fits(defaultPath) - forwardOverhead
	}
	return t.Fits(defaultPath)
}

// forwardOverhead is how much longer a packet is from node to node than toward the
// customer: a tag, aligned. Package pipeline has the same.
const forwardOverhead = 8

// maxMTU is what a frame leaves for the inner packet, so that a full-sized
// outer packet still lies in one UMEM chunk. ESP has bytes behind the packet too,
// and must fit where a packet lies that came out of the tunnel with the largest headers.
func (t Tunnel) maxMTU() int {
	fits := t.Fits(frameLimit - maxLinkBytes)
	if t.IPsec == nil {
		return fits
	}
	for _, e := range t.IPsec.encryptions() {
		fits = min(fits, frameLimit-maxLinkBytes-largestHeaders-e.espBehind())
	}
	return fits
}

// Fits is the largest inner packet whose outer packet has at most so many
// bytes. With IKE that holds for each encryption that may be negotiated, in UDP.
func (t Tunnel) Fits(outer int) int {
	if t.IPsec != nil {
		return t.espText(outer)
	}
	return outer - t.Overhead()
}

// MSS4 returns the largest TCP payload, in bytes, that a SYN may announce
// through this tunnel inside IPv4; 0 means that the MSS is left alone. A number
// given as mss_clamp never exceeds what fits.
func (t Tunnel) MSS4() uint16 { return t.mss(ipv4Header) }

// MSS6 is MSS4 for TCP inside IPv6.
func (t Tunnel) MSS6() uint16 { return t.mss(ipv6Header) }

func (t Tunnel) mss(ipHeader int) uint16 {
	fits := t.MTU - ipHeader - tcpHeader
	switch t.MSSClamp.Mode {
	case ClampOff:
		return 0
	case ClampBytes:
		return uint16(min(fits, t.MSSClamp.Bytes))
	}
	return uint16(fits)
}

// Peer4 returns the customer's address inside the tunnel: the other usable
// host of the /31 (RFC 3021) or /30.
func (t Tunnel) Peer4() netip.Addr { return otherHost(t.InterfaceAddress) }

// Peer6 returns the customer's IPv6 address inside the tunnel (RFC 6164), or
// the zero Addr when the tunnel has no interface_address6.
func (t Tunnel) Peer6() netip.Addr { return otherHost(t.InterfaceAddress6) }

// otherHost returns the other of the two hosts of a point-to-point subnet.
func otherHost(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	first := p.Masked().Addr()
	if p.Addr().BitLen()-p.Bits() == 2 { // a /30: network, two hosts, broadcast
		first = first.Next()
	}
	if p.Addr() == first {
		return first.Next()
	}
	return first
}
