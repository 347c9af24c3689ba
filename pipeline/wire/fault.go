package wire

// Fault says in which way a header is wrong. The zero value OK means that it is
// not. A Fault is a number and costs nothing on the packet path; its text is for
// counters, traces and documentation.
type Fault uint8

// The faults, in packet order.
const (
	OK Fault = iota

	EthernetShort
	VLANShort
	VLANStacked
	VLANReserved

	IPv4Short
	IPv4Version
	IPv4HeaderSmall
	IPv4HeaderLong
	IPv4TotalSmall
	IPv4TotalLong
	IPv4Checksum
	IPv4ReservedFlag
	IPv4FragmentEmpty
	IPv4FragmentLength
	IPv4FragmentBeyond
	IPv4OptionCut
	IPv4OptionLength
	IPv4OptionPointer
	IPv4OptionRepeated
	IPv4OptionSourceRoute

	IPv6Short
	IPv6Version
	IPv6PayloadLong
	IPv6PayloadZero
	IPv6Jumbogram
	IPv6HeaderCut
	IPv6HeaderCount
	IPv6HopByHopPlace
	IPv6OptionCut
	IPv6OptionLength
	IPv6OptionUnknown
	IPv6RoutingType0
	IPv6RoutingSegments
	IPv6FragmentEmpty
	IPv6FragmentLength
	IPv6FragmentBeyond
	IPv6FragmentNested
	IPv6FragmentChain

	GREShort
	GREVersion
	GRERouting
	GREStrictRoute
	GRERecursion
	GREChecksumCut
	GREKeyCut
	GRESequenceCut

	UDPShort
	UDPLengthSmall
	UDPLengthLong

	TCPShort
	TCPOffsetSmall
	TCPOffsetLong
	TCPOptionCut
	TCPOptionLength
	TCPOptionMSS

	ICMPShort
	ICMPChecksum
	ICMPNotEcho
	ICMPNotError
	ICMPFragmented
	ICMPQuoteShort
	ICMPQuoteMalformed

	FragmentForbidden
	FragmentMTU
	FragmentCount

	// FaultCount is the number of faults, OK included: the size of an array that
	// a Fault indexes.
	FaultCount
)

// faultText holds the phrase and the section of each fault.
var faultText = [FaultCount]struct{ phrase, rfc string }{
	OK: {"no fault", ""},

	EthernetShort: {"ethernet header cut short", "IEEE 802.3 section 3.1.1"},
	VLANShort:     {"vlan tag cut short", "IEEE 802.1Q section 9.3"},
	VLANStacked:   {"more than one vlan tag, or a service tag", "IEEE 802.1Q section 9.5"},
	VLANReserved:  {"vlan id 4095 is reserved", "IEEE 802.1Q section 9.6"},

	IPv4Short:             {"ipv4 header cut short", "RFC 791 section 3.1"},
	IPv4Version:           {"ipv4 version is not 4", "RFC 1122 section 3.2.1.1"},
	IPv4HeaderSmall:       {"ipv4 header length below 20 bytes", "RFC 791 section 3.1"},
	IPv4HeaderLong:        {"ipv4 header length beyond the packet", "RFC 791 section 3.1"},
	IPv4TotalSmall:        {"ipv4 total length below the header length", "RFC 791 section 3.1"},
	IPv4TotalLong:         {"ipv4 total length beyond the packet", "RFC 791 section 3.1"},
	IPv4Checksum:          {"ipv4 header checksum wrong", "RFC 1122 section 3.2.1.2"},
	IPv4ReservedFlag:      {"ipv4 reserved flag set", "RFC 791 section 3.1"},
	IPv4FragmentEmpty:     {"ipv4 fragment without data", "RFC 791 section 3.2"},
	IPv4FragmentLength:    {"ipv4 fragment length not a multiple of 8", "RFC 791 section 3.2"},
	IPv4FragmentBeyond:    {"ipv4 fragment ends beyond 65535 bytes", "RFC 791 section 3.2"},
	IPv4OptionCut:         {"ipv4 option without a length", "RFC 791 section 3.1"},
	IPv4OptionLength:      {"ipv4 option length wrong", "RFC 791 section 3.1"},
	IPv4OptionPointer:     {"ipv4 option pointer wrong", "RFC 791 section 3.1"},
	IPv4OptionRepeated:    {"ipv4 option appears twice", "RFC 791 section 3.1"},
	IPv4OptionSourceRoute: {"ipv4 source route option", "RFC 7126 sections 4.3 and 4.4"},

	IPv6Short:           {"ipv6 header cut short", "RFC 8200 section 3"},
	IPv6Version:         {"ipv6 version is not 6", "RFC 8200 section 3"},
	IPv6PayloadLong:     {"ipv6 payload length beyond the packet", "RFC 8200 section 3"},
	IPv6PayloadZero:     {"ipv6 payload length zero with a header announced", "RFC 8200 section 3"},
	IPv6Jumbogram:       {"ipv6 jumbogram", "RFC 2675 section 3"},
	IPv6HeaderCut:       {"ipv6 extension header cut short", "RFC 8200 section 4"},
	IPv6HeaderCount:     {"ipv6 extension headers more than 8", "RFC 8504 section 5.3"},
	IPv6HopByHopPlace:   {"ipv6 hop-by-hop options not first", "RFC 8200 section 4.1"},
	IPv6OptionCut:       {"ipv6 option without a length", "RFC 8200 section 4.2"},
	IPv6OptionLength:    {"ipv6 option length beyond its header", "RFC 8200 section 4.2"},
	IPv6OptionUnknown:   {"ipv6 option unknown and not to be skipped", "RFC 8200 section 4.2"},
	IPv6RoutingType0:    {"ipv6 routing header of type 0", "RFC 5095 section 3"},
	IPv6RoutingSegments: {"ipv6 routing header with segments left", "RFC 8200 section 4.4"},
	IPv6FragmentEmpty:   {"ipv6 fragment without data", "RFC 8200 section 4.5"},
	IPv6FragmentLength:  {"ipv6 fragment length not a multiple of 8", "RFC 8200 section 4.5"},
	IPv6FragmentBeyond:  {"ipv6 fragment ends beyond 65535 bytes", "RFC 8200 section 4.5"},
	IPv6FragmentNested:  {"ipv6 fragment header twice", "RFC 8200 section 4.1"},
	IPv6FragmentChain:   {"ipv6 first fragment without the whole header chain", "RFC 7112 section 5"},

	GREShort:       {"gre header cut short", "RFC 2784 section 2.1"},
	GREVersion:     {"gre version is not 0", "RFC 2784 section 2.3.1"},
	GRERouting:     {"gre routing bit set", "RFC 2784 section 2.3"},
	GREStrictRoute: {"gre strict source route bit set", "RFC 2784 section 2.3"},
	GRERecursion:   {"gre recursion control bit 5 set", "RFC 2784 section 2.3"},
	GREChecksumCut: {"gre checksum field cut short", "RFC 2784 section 2.5"},
	GREKeyCut:      {"gre key cut short", "RFC 2890 section 2.1"},
	GRESequenceCut: {"gre sequence number cut short", "RFC 2890 section 2.2"},

	UDPShort:       {"udp header cut short", "RFC 768"},
	UDPLengthSmall: {"udp length below 8 bytes", "RFC 768"},
	UDPLengthLong:  {"udp length beyond the packet", "RFC 768"},

	TCPShort:        {"tcp header cut short", "RFC 9293 section 3.1"},
	TCPOffsetSmall:  {"tcp data offset below 20 bytes", "RFC 9293 section 3.1"},
	TCPOffsetLong:   {"tcp data offset beyond the packet", "RFC 9293 section 3.1"},
	TCPOptionCut:    {"tcp option without a length", "RFC 9293 section 3.2"},
	TCPOptionLength: {"tcp option length wrong", "RFC 9293 section 3.2"},
	TCPOptionMSS:    {"tcp maximum segment size option not 4 bytes long", "RFC 9293 section 3.2"},

	ICMPShort:          {"icmp header cut short", "RFC 792"},
	ICMPChecksum:       {"icmp checksum wrong", "RFC 792"},
	ICMPNotEcho:        {"icmp message is not an echo request", "RFC 792"},
	ICMPNotError:       {"icmp message is not an error", "RFC 1122 section 3.2.2"},
	ICMPFragmented:     {"icmp echo request in fragments", "RFC 1122 section 3.2.2.6"},
	ICMPQuoteShort:     {"icmp error quotes less than an ip header and 8 bytes", "RFC 792"},
	ICMPQuoteMalformed: {"icmp error quotes something that is not an ip header", "RFC 792"},

	FragmentForbidden: {"fragmentation forbidden by the don't fragment flag", "RFC 791 section 2.3"},
	FragmentMTU:       {"mtu too small for a header and 8 bytes", "RFC 791 section 3.2"},
	FragmentCount:     {"more fragments than there is room for", "RFC 791 section 3.2"},
}

// String returns a short lower-case phrase, for example "gre version is not 0".
func (f Fault) String() string {
	if f >= FaultCount {
		return "unknown fault"
	}
	return faultText[f].phrase
}

// RFC returns the document and section that the header offends, for example
// "RFC 2784 section 2.3.1"; nothing for OK.
func (f Fault) RFC() string {
	if f >= FaultCount {
		return ""
	}
	return faultText[f].rfc
}
