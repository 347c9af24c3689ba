package query

import (
	"encoding/hex"
	"net/netip"
	"strconv"

	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// A Column is a column of samples that the packet itself fills. Numbers are int64.
type Column struct {
	Name   string
	Number func(*store.Sample) int64  // nil: Text
	Text   func(*store.Sample) string // nil: Number
}

// Value is the column's value of a sample: int64 or string.
func (c *Column) Value(s *store.Sample) any {
	if c.Number != nil {
		return c.Number(s)
	}
	return c.Text(s)
}

// SampleColumns are those of the packet; a store has columns for the time, the place, the account and the tunnels beside them.
var SampleColumns = []Column{
	{"every", func(s *store.Sample) int64 { return int64(s.Every) }, nil},
	{"length", func(s *store.Sample) int64 { return int64(s.Length) }, nil},
	{"length_bucket", func(s *store.Sample) int64 { return int64(s.Length - s.Length%100) }, nil},
	{"src", nil, func(s *store.Sample) string { return address(s.Packet.Src) }},
	{"src_net", nil, func(s *store.Sample) string { return subnet(s.Packet.Src) }},
	{"src_port", func(s *store.Sample) int64 { return int64(s.Packet.SrcPort) }, nil},
	{"src_asn", func(s *store.Sample) int64 { return int64(s.Src.ASN) }, nil},
	{"src_as_name", nil, func(s *store.Sample) string { return s.Src.ASName }},
	{"src_country", nil, func(s *store.Sample) string { return s.Src.Country }},
	{"dst", nil, func(s *store.Sample) string { return address(s.Packet.Dst) }},
	{"dst_net", nil, func(s *store.Sample) string { return subnet(s.Packet.Dst) }},
	{"dst_port", func(s *store.Sample) int64 { return int64(s.Packet.DstPort) }, nil},
	{"dst_asn", func(s *store.Sample) int64 { return int64(s.Dst.ASN) }, nil},
	{"dst_as_name", nil, func(s *store.Sample) string { return s.Dst.ASName }},
	{"dst_country", nil, func(s *store.Sample) string { return s.Dst.Country }},
	{"ethertype", nil, func(s *store.Sample) string { return map[uint8]string{4: "IPv4", 6: "IPv6"}[s.Packet.Version] }},
	{"protocol", func(s *store.Sample) int64 { return int64(s.Packet.Protocol) }, nil},
	{"protocol_name", nil, protocolName},
	{"header_bytes", func(s *store.Sample) int64 { return int64(s.Packet.HeaderBytes) }, nil},
	{"ttl", func(s *store.Sample) int64 { return int64(s.Packet.TTL) }, nil},
	{"ttl_bucket", func(s *store.Sample) int64 { return int64(s.Packet.TTL - s.Packet.TTL%10) }, nil},
	{"frag_offset", func(s *store.Sample) int64 { return int64(s.Packet.FragmentOffset) }, nil},
	{"more_frags", func(s *store.Sample) int64 { return bit(s.Packet.MoreFragments) }, nil},
	{"ip_checksum", func(s *store.Sample) int64 { return int64(s.Packet.Checksum) }, nil},
	{"df", func(s *store.Sample) int64 { return bit(s.Packet.DontFragment) }, nil},
	{"dscp4", func(s *store.Sample) int64 { return of(4, s, int64(s.Packet.DSCP)) }, nil},
	{"ecn4", func(s *store.Sample) int64 { return of(4, s, int64(s.Packet.ECN)) }, nil},
	{"ident4", func(s *store.Sample) int64 { return of(4, s, int64(s.Packet.Identification)) }, nil},
	{"options4", nil, func(s *store.Sample) string { return hex.EncodeToString(s.Packet.Options) }},
	{"dscp6", func(s *store.Sample) int64 { return of(6, s, int64(s.Packet.DSCP)) }, nil},
	{"ecn6", func(s *store.Sample) int64 { return of(6, s, int64(s.Packet.ECN)) }, nil},
	{"ident6", func(s *store.Sample) int64 { return of(6, s, int64(s.Packet.Identification)) }, nil},
	{"extensions", nil, extensions},
	{"flow_label", func(s *store.Sample) int64 { return int64(s.Packet.FlowLabel) }, nil},
	{"gre_bytes", func(s *store.Sample) int64 { return int64(s.Packet.GRE.Bytes) }, nil},
	{"gre_version", func(s *store.Sample) int64 { return int64(s.Packet.GRE.Version) }, nil},
	{"gre_ethertype", func(s *store.Sample) int64 { return int64(s.Packet.GRE.EtherType) }, nil},
	{"gre_checksum", func(s *store.Sample) int64 { return int64(s.Packet.GRE.Checksum) }, nil},
	{"gre_key", func(s *store.Sample) int64 { return int64(s.Packet.GRE.Key) }, nil},
	{"gre_sequence", func(s *store.Sample) int64 { return int64(s.Packet.GRE.Sequence) }, nil},
	{"icmp_type", func(s *store.Sample) int64 { return int64(s.Packet.ICMPType) }, nil},
	{"icmp_code", func(s *store.Sample) int64 { return int64(s.Packet.ICMPCode) }, nil},
	{"icmp_checksum", func(s *store.Sample) int64 { return int64(s.Packet.ICMPChecksum) }, nil},
	{"tcp_seq", func(s *store.Sample) int64 { return int64(s.Packet.TCP.Seq) }, nil},
	{"tcp_ack", func(s *store.Sample) int64 { return int64(s.Packet.TCP.Ack) }, nil},
	{"tcp_offset", func(s *store.Sample) int64 { return int64(s.Packet.TCP.DataOffset) }, nil},
	{"tcp_flags", func(s *store.Sample) int64 { return int64(s.Packet.TCP.Flags) }, nil},
	{"tcp_flags_text", nil, func(s *store.Sample) string { return flow.TCPFlagNames(s.Packet.TCP.Flags) }},
	{"tcp_window", func(s *store.Sample) int64 { return int64(s.Packet.TCP.Window) }, nil},
	{"tcp_checksum", func(s *store.Sample) int64 { return int64(s.Packet.TCP.Checksum) }, nil},
	{"tcp_urgent", func(s *store.Sample) int64 { return int64(s.Packet.TCP.Urgent) }, nil},
	{"tcp_options", nil, func(s *store.Sample) string { return hex.EncodeToString(s.Packet.TCP.Options) }},
	{"tcp_mss", func(s *store.Sample) int64 { return int64(s.Packet.TCP.MSS) }, nil},
	{"tcp_scale", func(s *store.Sample) int64 { return int64(s.Packet.TCP.WindowScale) }, nil},
	{"tcp_sack_ok", func(s *store.Sample) int64 { return bit(s.Packet.TCP.SACKPermitted) }, nil},
	{"tcp_sacks", func(s *store.Sample) int64 { return int64(s.Packet.TCP.SACKBlocks) }, nil},
	{"tcp_ts", func(s *store.Sample) int64 { return int64(s.Packet.TCP.TSValue) }, nil},
	{"tcp_ts_echo", func(s *store.Sample) int64 { return int64(s.Packet.TCP.TSEcho) }, nil},
	{"udp_length", func(s *store.Sample) int64 { return int64(s.Packet.UDPLength) }, nil},
	{"udp_checksum", func(s *store.Sample) int64 { return int64(s.Packet.UDPChecksum) }, nil},
}

func bit(set bool) int64 {
	if set {
		return 1
	}
	return 0
}

// of leaves a number out of packets of another version.
func of(version uint8, s *store.Sample, n int64) int64 {
	if s.Packet.Version == version {
		return n
	}
	return 0
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// subnet is the /24 or /48 that an address lies in.
func subnet(a netip.Addr) string {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil || !a.IsValid() {
		return ""
	}
	return p.String()
}

func protocolName(s *store.Sample) string {
	if s.Packet.Version == 0 {
		return ""
	}
	return flow.ProtocolName(s.Packet.Protocol)
}

func extensions(s *store.Sample) string {
	var b []byte
	for i, kind := range s.Packet.Extensions.All() {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendUint(b, uint64(kind), 10)
	}
	return string(b)
}
