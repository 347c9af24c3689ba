package flow

import "net/netip"

// A Header is the first bytes of an IP packet taken apart. What the packet does not have, or what lies behind the end of
// what was captured, is zero, and the has field that speaks of it is false.
type Header struct {
	Version     uint8 // 4 or 6; 0: no IP packet that could be read, and everything else is zero
	Src, Dst    netip.Addr
	Protocol    uint8 // of what the IP header, or the last extension header, carries
	TTL         uint8 // or hop limit
	DSCP        uint8
	ECN         uint8
	Length      int // total length in bytes that the header states
	HeaderBytes int // of the IP header, with options or extension headers

	Checksum       uint16     // IPv4
	DontFragment   bool       // IPv4
	Identification uint32     // IPv4, and IPv6 with a fragment header
	Options        []byte     // IPv4; lies in what was taken apart
	FlowLabel      uint32     // IPv6
	Extensions     Extensions // IPv6
	FragmentOffset int        // bytes
	MoreFragments  bool

	HasPorts         bool
	SrcPort, DstPort uint16

	HasTCP bool
	TCP    TCP

	HasUDP      bool
	UDPLength   uint16 // payload: without the UDP header
	UDPChecksum uint16

	HasICMP      bool // ICMP or ICMPv6
	ICMPType     uint8
	ICMPCode     uint8
	ICMPChecksum uint16

	HasGRE bool
	GRE    GRE
}

// Extensions are the kinds of IPv6 extension headers, in order. They have a place of their own, so that a Header can be copied, and
// filled without an allocation.
type Extensions struct {
	Count int
	Kinds [8]uint8 // the first Count of them; as many as pipeline/wire walks at most
}

// All are the kinds. The slice lies in e.
func (e *Extensions) All() []uint8 { return e.Kinds[:e.Count] }

// TCP is what a TCP header says (RFC 9293 3.1), and its options (RFC 7323, RFC 2018).
type TCP struct {
	Seq, Ack                             uint32
	DataOffset                           uint8 // 32-bit words
	Flags                                uint8 // CWR, ECE, URG, ACK, PSH, RST, SYN, FIN from the top bit down
	Window                               uint16
	Checksum                             uint16
	Urgent                               uint16
	Options                              []byte // lie in what was taken apart
	MSS                                  uint16
	WindowScale                          uint8
	SACKPermitted                        bool
	SACKBlocks                           int // how many
	HasMSS, HasWindowScale, HasTimestamp bool
	TSValue, TSEcho                      uint32
}

// GRE is what a GRE header says (RFC 2784, RFC 2890).
type GRE struct {
	Bytes                            uint8 // of the header
	Version                          uint8
	EtherType                        uint16
	Checksum                         uint16
	Key                              uint32
	Sequence                         uint32
	HasChecksum, HasKey, HasSequence bool
}
