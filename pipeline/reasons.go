package pipeline

import (
	"strings"

	"causeway/pipeline/wire"
)

// A Reason says why a frame was not forwarded. Each dropped frame counts exactly one.
type Reason uint8

// Stage names the part of the packet's way in which a drop happens.
type Stage string

// The stages, in packet order.
const (
	StageParse      Stage = "parse"
	StageReassembly Stage = "reassembly"
	StageDecap      Stage = "decap"
	StageInner      Stage = "inner"
	StageRoute      Stage = "route"
	StageSize       Stage = "size"
	StageEncap      Stage = "encap"
	StageTransmit   Stage = "transmit"
	StagePunt       Stage = "punt"
)

// ReasonInfo describes a Reason: counters, metric labels, trace text and docs/operations.md are made from it.
type ReasonInfo struct {
	Stage    Stage
	Label    string // metric label and JSON name: never changes once released
	Sentence string // for people
	RFC      string // where the rule stands, or ""
}

// The drop reasons of the pipeline's own. Behind them come two for each fault that package wire finds, one for outer
// headers and one for inner ones, so that every malformation has a counter of its own.
const (
	ReasonNone Reason = iota

	// parse
	LinkType
	LinkAddress
	OuterMartian

	// reassembly
	FragmentOverlap
	FragmentEnd
	FragmentTooMany
	FragmentTooBig
	FragmentTimeout
	FragmentTableFull
	FragmentDuplicate

	// decap
	TunnelUnknown
	TunnelKeyMismatch
	GREChecksum
	GREProtocol
	ESPNoSA
	ESPSource
	ESPShort
	ESPLeftOfWindow
	ESPReplayed
	ESPBelowFloor
	ESPForged
	ESPPadding
	ESPDummy
	ESPProtocol
	ESPSelector
	ESPExpired
	ECNConflict

	// inner
	InnerSource
	InnerDestination

	// route
	NoRoute
	RouteBlackhole
	RouteScope
	RouteUnlearned
	RouteUnreachable
	RouteLeavesAccount
	TTLExceeded
	NeighbourUnresolved
	TunnelAddressProtocol
	HostAddress
	HostForeignError
	HostLoop

	// size
	TooBig
	FragmentNoFrame
	FragmentNotAllowed

	// encap
	TunnelUnroutable
	FrameNoRoom
	ESPNoOutbound
	ESPSequenceExhausted
	ESPSequenceNotReserved
	ESPIVExhausted
	ESPOutboundExpired
	ESPOutboundSelector
	ESPAnswerInClear
	OwnerLoop
	OwnerAway
	OwnerTunnel

	// transmit
	TXRingFull
	HandOverFull

	// punt
	PuntQueueFull
	AnswerRate
	DeviceRate
	PuntNoDevice

	ownReasons
)

const (
	outerFaults = ownReasons
	innerFaults = outerFaults + Reason(wire.FaultCount)

	// Reasons is the number of drop reasons, ReasonNone and those of faults that no stage looks for included.
	Reasons = int(innerFaults) + int(wire.FaultCount)
)

// outerFault and innerFault are the reasons for what package wire finds wrong.
func outerFault(f wire.Fault) Reason { return outerFaults + Reason(f) }
func innerFault(f wire.Fault) Reason { return innerFaults + Reason(f) }

var reasonTable = [ownReasons]ReasonInfo{
	ReasonNone: {"", "none", "not dropped", ""},

	LinkAddress:  {StageParse, "link_address", "the frame is for another link address than the port's", "RFC 1812 3.3.2"},
	LinkType:     {StageParse, "link_type", "the EtherType is neither IPv4 nor IPv6", ""},
	OuterMartian: {StageParse, "ip_martian", "the source or destination can not be on a wire: loopback, multicast source, unspecified", "RFC 1812 5.3.7"},

	FragmentOverlap:   {StageReassembly, "fragment_overlap", "fragments of one datagram overlap", "RFC 5722"},
	FragmentEnd:       {StageReassembly, "fragment_end", "fragments disagree about where the datagram ends", "RFC 791 3.2"},
	FragmentTooMany:   {StageReassembly, "fragment_too_many", "a datagram came in more fragments than are kept", ""},
	FragmentTooBig:    {StageReassembly, "fragment_too_big", "the reassembled datagram does not fit a frame", ""},
	FragmentTimeout:   {StageReassembly, "fragment_timeout", "the rest of the datagram did not come in time", "RFC 791 3.2, RFC 8200 4.5"},
	FragmentTableFull: {StageReassembly, "fragment_table_full", "the datagram was given up: too many wait for fragments, or its identification came again", ""},
	FragmentDuplicate: {StageReassembly, "fragment_duplicate", "the fragment had already come", "RFC 8200 4.5"},

	TunnelUnknown:     {StageDecap, "tunnel_unknown", "no tunnel has this endpoint and customer endpoint", ""},
	TunnelKeyMismatch: {StageDecap, "gre_key", "the GRE key is not the tunnel's, or one of the two has none", "RFC 2890 2.1"},
	GREChecksum:       {StageDecap, "gre_checksum", "the GRE checksum is wrong", "RFC 2784 2.5"},
	GREProtocol:       {StageDecap, "gre_protocol", "the GRE payload is neither IPv4 nor IPv6", "RFC 2784 2.4"},
	ESPNoSA:           {StageDecap, "esp_no_sa", "no security association has this SPI", "RFC 4303 3.4.2"},
	ESPSource:         {StageDecap, "esp_source", "the outer addresses, or the UDP encapsulation, are not those of the security association", "RFC 4301 5.2"},
	ESPShort:          {StageDecap, "esp_short", "the ESP packet is shorter than its algorithm's least, or its length is no multiple of a block", "RFC 4303 2"},
	ESPLeftOfWindow:   {StageDecap, "esp_left_of_window", "the sequence number is left of the replay window", "RFC 4303 3.4.3"},
	ESPReplayed:       {StageDecap, "esp_replayed", "the sequence number was received before", "RFC 4303 3.4.3"},
	ESPBelowFloor:     {StageDecap, "esp_below_floor", "the sequence number is more than a window below what nodes of the cluster had received two seconds ago", ""},
	ESPForged:         {StageDecap, "esp_forged", "the integrity check value is wrong", "RFC 4303 3.4.4"},
	ESPPadding:        {StageDecap, "esp_padding", "the padding is longer than the packet, or not 1, 2, 3 and so on", "RFC 4303 2.4"},
	ESPDummy:          {StageDecap, "esp_dummy", "a dummy packet, made to hide how much traffic there is", "RFC 4303 2.6"},
	ESPProtocol:       {StageDecap, "esp_protocol", "the ESP payload is neither IPv4 nor IPv6", "RFC 4303 2.6"},
	ESPSelector:       {StageDecap, "esp_selector", "the inner addresses are not within the security association's selectors", "RFC 4301 5.2"},
	ESPExpired:        {StageDecap, "esp_expired", "the hard lifetime of the security association for receiving is over", "RFC 4301 4.4.2.1"},
	ECNConflict:       {StageDecap, "ecn_conflict", "the outer header says congestion experienced, the inner one that ECN is not supported", "RFC 6040 4.2"},

	InnerSource:      {StageInner, "inner_source", "the inner source is not in the tunnel's prefixes", "RFC 2827"},
	InnerDestination: {StageInner, "inner_destination", "the inner destination is loopback, multicast, broadcast or unspecified", "RFC 1812 5.3.7"},

	NoRoute:               {StageRoute, "no_route", "no route leads to the destination", "RFC 1812 5.2.4"},
	RouteBlackhole:        {StageRoute, "route_blackhole", "a blackhole route covers the destination", ""},
	RouteScope:            {StageRoute, "route_scope", "the destination's routes are those of other regions or data centers alone (`scope`)", ""},
	RouteUnlearned:        {StageRoute, "route_unlearned", "the destination lies in the `prefixes` of a tunnel with `kernel_interface`, and no route was learned from the customer's router", ""},
	RouteUnreachable:      {StageRoute, "route_unreachable", "an unreachable or prohibit route covers the destination", "RFC 1812 5.2.7.1"},
	RouteLeavesAccount:    {StageRoute, "route_leaves_account", "the Internet table leads to a tunnel of another account that is no peer", ""},
	TTLExceeded:           {StageRoute, "ttl_exceeded", "the TTL or hop limit reached zero", "RFC 1812 5.3.1, RFC 8200 3"},
	NeighbourUnresolved:   {StageRoute, "neighbour_unresolved", "the next hop's link address is not known yet; the kernel was asked for it", "RFC 1812 3.3.2"},
	HostAddress:           {StageRoute, "host_address", "a packet from a tunnel is for the host or a network behind it, and not for an endpoint", ""},
	HostForeignError:      {StageRoute, "host_foreign_error", "an ICMP error from a tunnel is about a packet that was not sent into it", "RFC 5927 4"},
	HostLoop:              {StageRoute, "host_loop", "the kernel sent a packet into the TUN device that is for the kernel", ""},
	TunnelAddressProtocol: {StageRoute, "tunnel_address_protocol", "the packet is for our interface address in a tunnel and is not an echo request", ""},

	TooBig:             {StageSize, "too_big", "the packet is larger than the tunnel's or link's MTU and may not be fragmented", "RFC 1191 4, RFC 8201 3"},
	FragmentNoFrame:    {StageSize, "fragment_no_frame", "no free frame was left for a fragment", ""},
	FragmentNotAllowed: {StageSize, "fragment_not_possible", "the MTU is too small to carry a fragment", "RFC 791 3.2"},

	TunnelUnroutable: {StageEncap, "tunnel_unroutable", "no route leads to the tunnel's customer endpoint", ""},
	FrameNoRoom:      {StageEncap, "frame_no_room", "the frame has no room for the headers in front of the packet", ""},

	ESPNoOutbound:          {StageEncap, "esp_no_outbound", "the tunnel has no security association for sending", "RFC 4301 5.1"},
	ESPSequenceExhausted:   {StageEncap, "esp_sequence_exhausted", "all sequence numbers of the security association were used", "RFC 4303 3.3.3"},
	ESPSequenceNotReserved: {StageEncap, "esp_sequence_not_reserved", "the next sequence number is not reserved yet, on disk or in the cluster's store", ""},
	ESPIVExhausted:         {StageEncap, "esp_iv_exhausted", "no IV is reserved for this process, on disk or in the cluster's store", "RFC 4106 3.1"},
	ESPOutboundSelector:    {StageEncap, "esp_outbound_selector", "a packet for the customer lies outside of the selectors of its tunnel", "RFC 4301 5.1"},
	ESPAnswerInClear:       {StageEncap, "esp_answer_in_clear", "our answer to what came through an IPsec tunnel would have left unencrypted: no route leads its source into a tunnel that encrypts", "RFC 4301 5.1"},
	OwnerLoop:              {StageEncap, "owner_loop", "another node forwarded the packet to this one, which is not the owner of its tunnel", ""},
	OwnerAway:              {StageEncap, "owner_away", "the node that encrypts for the tunnel, or that a message is for, is not known, or cannot be reached", ""},
	OwnerTunnel:            {StageEncap, "owner_tunnel", "another node forwarded the packet for a tunnel that this one does not have", ""},
	ESPOutboundExpired:     {StageEncap, "esp_outbound_expired", "the hard lifetime of the security association for sending is over", "RFC 4301 4.4.2.1"},

	TXRingFull:   {StageTransmit, "tx_ring_full", "the transmit ring stayed full", ""},
	HandOverFull: {StageTransmit, "hand_over_full", "the ring to another worker was full", ""},

	AnswerRate:    {StagePunt, "answer_rate", "more answers to probes, or packets of BFD, came out of one tunnel, or from the Internet, than the control side takes", ""},
	DeviceRate:    {StagePunt, "device_rate", "more packets for our interface address came out of a tunnel with `kernel_interface` than the host's kernel is given of one tunnel", ""},
	PuntQueueFull: {StagePunt, "punt_queue_full", "the queue to the kernel, or that of messages from other nodes, was full", ""},
	PuntNoDevice:  {StagePunt, "punt_no_device", "the packet is for the kernel, and the daemon has no TUN device", ""},
}

// Info returns the texts of r.
func (r Reason) Info() ReasonInfo {
	switch {
	case r < ownReasons:
		return reasonTable[r]
	case r < innerFaults:
		return faultInfo(wire.Fault(r-outerFaults), "")
	case int(r) < Reasons:
		return faultInfo(wire.Fault(r-innerFaults), "inner ")
	}
	return ReasonInfo{Label: "invalid", Sentence: "not a reason"}
}

// asLabel makes a label of a phrase.
var asLabel = strings.NewReplacer(" ", "_", "-", "_", ",", "")

func faultInfo(f wire.Fault, where string) ReasonInfo {
	stage := StageParse
	switch {
	case where != "":
		stage = StageInner
	case f >= wire.GREShort && f <= wire.GRESequenceCut:
		stage = StageDecap
	}
	text := where + f.String()
	return ReasonInfo{Stage: stage, Label: asLabel.Replace(text), Sentence: text, RFC: f.RFC()}
}

// AllReasons lists the reasons that a frame can be dropped for, in packet order of their stages' first mention.
func AllReasons() []Reason {
	var all []Reason
	for r := ReasonNone + 1; int(r) < Reasons; r++ {
		f := wire.OK
		switch {
		case r >= innerFaults:
			f = wire.Fault(r - innerFaults)
			if f < wire.IPv4Short || f >= wire.GREShort && f <= wire.TCPShort || f >= wire.IPv6OptionCut && f <= wire.IPv6RoutingSegments {
				continue // not of an inner packet, or for its destination to find
			}
		case r >= outerFaults:
			f = wire.Fault(r - outerFaults)
			if f == wire.OK {
				continue
			}
		}
		if f > wire.TCPOptionMSS || r >= outerFaults && r < innerFaults && f > wire.GRESequenceCut {
			continue // of parsers that drop nothing
		}
		all = append(all, r)
	}
	return all
}

// String returns r's label.
func (r Reason) String() string { return r.Info().Label }
