package pipeline

import (
	"net/netip"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// A Spec is everything that the workers are told by configuration: what the control side hands to Engine.Apply.
// It holds no routes and no neighbours: those change often and are written in place (see Forwarding).
type Spec struct {
	Endpoints []netip.Addr
	Accounts  []AccountSpec
	Tunnels   []TunnelSpec
	Links     []LinkSpec
	Sampling  uint32 // one packet in so many is sampled (sample.go) where its tunnel does not say otherwise; 0: none
}

// An AccountSpec names an account and those accounts to which its tunnels may send laterally.
type AccountSpec struct {
	Name  string
	Peers []string
}

// A TunnelSpec describes one tunnel. All sizes are in bytes.
type TunnelSpec struct {
	Name             string
	Account          string
	Endpoint         netip.Addr // outer address of ours
	CustomerEndpoint netip.Addr // outer address of the customer's router
	Interface4       netip.Prefix
	Interface6       netip.Prefix
	MTU              int  // largest inner packet
	PathMTU          bool // whether ICMP errors about outer packets lower the MTU
	TTL              uint8
	HasKey           bool
	Key              uint32
	Checksum         bool
	Sequence         bool
	FirstNumber      uint64 // where Sequence begins to count, unless the tunnel numbers its packets already; 32 bits are sent
	MSSClamp         MSSClamp
	ClearDF          bool // fragment IPv4 whatever its DF bit says
	Prefixes         []netip.Prefix
	SA               *SASpec // of ESP in tunnel mode; nil: GRE, unless Negotiated
	Negotiated       bool    // ESP whose associations come and go by Engine.SetChildren
	Owned            bool    // ESP, toward the customer by one node alone: see Engine.SetOwner
	Sampling         uint32  // one packet in so many; 0: as Spec.Sampling says; NeverSampled
	Device           bool    // the host's kernel has a device for the tunnel (device.go)
	Node             bool    // to another node, Negotiated: carries what that node is to encrypt
}

// An SASpec is a child of an IPsec tunnel: an association in each direction under one pair of selectors. The associations are
// the owner worker's from when the engine got them until it has said that they are gone.
type SASpec struct {
	Inbound       []*esp.Inbound // any of which packets from the customer may use
	Outbound      *esp.Outbound  // for packets toward the customer; nil: none yet
	UDP           bool           // encapsulated in UDP (RFC 3948)
	Local, Remote []netip.Prefix // selectors: what is behind us and behind the customer; none: anything

	// Of TunnelSpec.SA all that follows is the tunnel's: its ends, and in UDP packets from anywhere.

	Endpoint netip.Addr     // outer address of ours
	Peer     netip.AddrPort // the other one; the port is that of packets in UDP, which we send from port 4500
	NAT      bool           // packets in UDP may come from anywhere, until they are known to be authentic (RFC 3948 A)
	Either   bool           // packets are taken with UDP and without, whatever is sent (RFC 7296 2.23)
	Source   *PeerSource    // told where packets in UDP come from; may be nil
}

// manual is the child of a tunnel whose associations do not come and go.
func (s *TunnelSpec) manual() SASpec {
	c := *s.SA
	c.Endpoint, c.Peer, c.NAT, c.Either, c.Source = s.Endpoint, netip.AddrPortFrom(s.CustomerEndpoint, natTraversalPort), c.UDP, false, nil
	return c
}

func (s *TunnelSpec) isESP() bool { return s.SA != nil || s.Negotiated }

// MSSClamp is how a tunnel treats the MSS option of TCP SYNs: a positive number is the largest MSS it lets pass.
type MSSClamp int

// The modes of MSSClamp that are not a number of bytes.
const (
	MSSAuto MSSClamp = 0  // exactly what fits the tunnel's MTU
	MSSOff  MSSClamp = -1 // untouched
)

// A LinkSpec is one place where frames leave: a port, or a VLAN on it.
type LinkSpec struct {
	Port  int    // index of the port
	VLAN  uint16 // 0: untagged
	MAC   [6]byte
	MTU   int
	Addr4 netip.Addr // an address of the link, for ICMP errors where no endpoint of the family exists
	Addr6 netip.Addr
}

// Overhead is what the tunnel puts in front of an inner packet or, with IPsec, of the ESP packet: outer IP header and GRE
// or UDP header, the most of all children.
func (s *TunnelSpec) Overhead() int {
	if s.isESP() {
		return s.espOverhead()
	}
	n := 4 // RFC 2784 2.1
	if s.HasKey {
		n += 4
	}
	if s.Sequence {
		n += 4
	}
	if s.Checksum {
		n += 4
	}
	return n + s.outerIP()
}

func (s *TunnelSpec) espOverhead() int {
	if s.Negotiated || s.SA.UDP { // there may be NAT on the way
		return s.outerIP() + wire.UDPLen
	}
	return s.outerIP()
}

func (s *TunnelSpec) outerIP() int {
	if s.Endpoint.Is4() {
		return ip4Len
	}
	return ip6Len
}
