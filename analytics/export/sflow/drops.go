package sflow

import "strings"

// Reasons for drops: those below 256 are ICMP's codes, the others are of sFlow 5, section 5, "interface", and of "sFlow Dropped
// Packet Notification Structures".
const (
	netUnreachable  = 0
	hostUnreachable = 1
	netUnknown      = 6
	netProhibited   = 9
	adminProhibited = 13
	unknown         = 256
	ttlExceeded     = 257
	acl             = 258
	noBufferSpace   = 259
	trafficShaping  = 261
	packetTooBig    = 262
	blackholeRoute  = 269
	headerCorrupted = 275
	unresolved      = 279
	reversePath     = 280
	nonRoutable     = 281
	decapsulation   = 282
	unknownTunnel   = 288
	unknownL4       = 289
)

// dropReasons are the reasons of sFlow, by the labels of ours, where one says more than that the packet was dropped.
var dropReasons = map[string]uint32{
	"ip_martian":          nonRoutable,
	"fragment_table_full": noBufferSpace,

	"tunnel_unknown":     unknownTunnel,
	"gre_key":            unknownTunnel,
	"esp_no_sa":          unknownTunnel,
	"esp_source":         decapsulation,
	"esp_short":          decapsulation,
	"esp_left_of_window": decapsulation,
	"esp_replayed":       decapsulation,
	"esp_below_floor":    decapsulation,
	"esp_forged":         decapsulation,
	"esp_padding":        decapsulation,
	"esp_protocol":       decapsulation,
	"esp_selector":       decapsulation,
	"esp_expired":        decapsulation,
	"ecn_conflict":       decapsulation,

	"inner_source":      reversePath,
	"inner_destination": nonRoutable,

	"no_route":             netUnknown,
	"route_blackhole":      blackholeRoute,
	"route_scope":          netUnreachable,
	"route_unlearned":      netUnreachable,
	"route_unreachable":    netUnreachable,
	"route_leaves_account": netProhibited,
	"ttl_exceeded":         ttlExceeded,
	"neighbour_unresolved": unresolved,
	"host_address":         adminProhibited,

	"too_big":               packetTooBig,
	"fragment_no_frame":     noBufferSpace,
	"fragment_not_possible": packetTooBig,

	"tunnel_unroutable":     hostUnreachable,
	"esp_outbound_selector": acl,
	"owner_away":            hostUnreachable,

	"tx_ring_full":    noBufferSpace,
	"hand_over_full":  noBufferSpace,
	"punt_queue_full": noBufferSpace,
	"answer_rate":     trafficShaping,
	"device_rate":     trafficShaping,
}

// DropReason is sFlow's number for the label of a drop reason.
func DropReason(label string) uint32 {
	if r, ok := dropReasons[label]; ok {
		return r
	}
	// Each malformation has a label of its own, which begins with the header.
	fault := strings.TrimPrefix(label, "inner_")
	switch {
	case strings.HasPrefix(fault, "ipv4_"), strings.HasPrefix(fault, "ipv6_"):
		return headerCorrupted
	case strings.HasPrefix(fault, "gre_"):
		return decapsulation
	case strings.HasPrefix(fault, "tcp_"):
		return unknownL4
	}
	return unknown
}
