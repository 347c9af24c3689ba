package ipfix

import (
	"strings"

	"causeway/analytics/flow"
)

// Values of forwardingStatus (RFC 7270 4.12): two bits say what became of the packet, six bits why.
const (
	forwarded       = 64
	dropped         = 128 // for a reason that has no number
	aclDrop         = 130
	unroutable      = 131
	adjacency       = 132 // no next hop that can be reached
	fragmentation   = 133 // needed, and DF is set
	badChecksum     = 134
	badTotalLength  = 135
	badHeaderLength = 136
	badTTL          = 137
	policer         = 138
	reversePath     = 140
	badOutput       = 142
	consumed        = 192 // for the node's kernel
	consumedForUs   = 195
)

// statuses are the values for drop reasons that have one, by our labels.
var statuses = map[string]uint8{
	"inner_source":      reversePath,
	"esp_source":        reversePath,
	"inner_destination": unroutable,
	"ip_martian":        unroutable,

	"no_route":             unroutable,
	"route_blackhole":      unroutable,
	"route_scope":          unroutable,
	"route_unlearned":      unroutable,
	"route_unreachable":    unroutable,
	"route_leaves_account": aclDrop,
	"host_address":         aclDrop,
	"ttl_exceeded":         badTTL,
	"neighbour_unresolved": adjacency,

	"too_big": fragmentation,

	"tunnel_unroutable":     adjacency,
	"owner_away":            adjacency,
	"esp_selector":          aclDrop,
	"esp_outbound_selector": aclDrop,
	"esp_no_outbound":       badOutput,

	"answer_rate": policer,
	"device_rate": policer,
}

// Status is the forwardingStatus of a sample.
func Status(s *flow.Sample) uint8 {
	switch s.Verdict {
	case flow.Forwarded:
		return forwarded
	case flow.Delivered:
		return consumedForUs
	case flow.Punted:
		return consumed
	}
	if v, ok := statuses[s.Reason]; ok {
		return v
	}
	// Each malformation has a label of its own.
	fault := strings.TrimPrefix(s.Reason, "inner_")
	switch {
	case !strings.HasPrefix(fault, "ipv4_") && !strings.HasPrefix(fault, "ipv6_"):
		return dropped
	case strings.Contains(fault, "checksum"):
		return badChecksum
	case strings.Contains(fault, "total_length"), strings.Contains(fault, "payload_length"):
		return badTotalLength
	case strings.Contains(fault, "header_length"), strings.Contains(fault, "cut_short"):
		return badHeaderLength
	}
	return dropped
}
