package dataset

// Traffic is exact: what the workers counted.
var Traffic = &Dataset{
	Name: "magicTransitTunnelTrafficAdaptiveGroups", Type: "AccountMagicTransitTunnelTrafficAdaptiveGroups", Table: TrafficTable,
	Doc: "traffic of tunnels, counted exactly",
	Dimensions: joined(
		times("date", "datetime", "datetimeTenSeconds", "datetimeMinute", "datetimeFiveMinutes", "datetimeFifteenMinutes", "datetimeHour"),
		ways, places("edgeColo"),
		[]Dimension{text("edgePopName", "node", "node that counted"), text("tunnelName", "tunnel", "the tunnel")}),
	Measures: append(append(averages(), exact...),
		Measure{Sum, "bits", Uint64, "bits of inner IP packets", Bits, 0},
		Measure{Sum, "packets", Uint64, "packets", PacketCount, 0},
		Measure{Sum, "droppedPackets", Uint64, "packets that came out of the tunnel, or were to go into it, and were dropped", DroppedPackets, 0}),
}

// exact are what averages hide.
var exact = []Measure{
	{Max, "bitRate", Uint64, "highest rate of bits in one interval of the resolution that the answer names", Bits, 0},
	{Max, "packetRate", Uint64, "highest rate of packets in one interval of the resolution that the answer names", PacketCount, 0},
	{P95, "bitRate", Uint64, "95th percentile, nearest rank, of the rates of bits in all intervals of the resolution that the answer names", Bits, 0},
	{P95, "packetRate", Uint64, "95th percentile, nearest rank, of the rates of packets in all intervals of the resolution that the answer names", PacketCount, 0},
}

// ways say by which tunnels packets came and went.
var ways = []Dimension{
	text("direction", "direction", "ingress: into the tunnel; egress: out of the tunnel; lateral: out of one tunnel into another"),
	text("egressTunnelID", "out_id", "id of the tunnel that packets went into"),
	text("egressTunnelName", "out_name", "tunnel that packets went into"),
	text("ingressTunnelID", "in_id", "id of the tunnel that packets came out of; of lateral traffic only samples know it"),
	text("ingressTunnelName", "in_name", "tunnel that packets came out of; of lateral traffic only samples know it"),
	text("offRamp", "off_ramp", "kind of the tunnel that packets went into: GRE or IPSec"),
	text("onRamp", "on_ramp", "kind of the tunnel that packets came out of: GRE or IPSec"),
}

// Drops is exact as well, and by reason.
var Drops = &Dataset{
	Name: "magicTransitTunnelDropsAdaptiveGroups", Type: "AccountMagicTransitTunnelDropsAdaptiveGroups", Table: DropsTable,
	Doc: "packets that were dropped, by tunnel and reason, counted exactly",
	Dimensions: joined(
		times("date", "datetime", "datetimeTenSeconds", "datetimeMinute", "datetimeFiveMinutes", "datetimeFifteenMinutes", "datetimeHour"),
		places("edgeColo"),
		[]Dimension{
			text("edgePopName", "node", "node that counted"),
			text("tunnelName", "tunnel", "the tunnel; empty: no tunnel was found"),
			text("direction", "direction", "egress: the packet came out of the tunnel; ingress: it was to go into it; none: neither"),
			text("dropReason", "reason", "label of the drop reason, as `causeway show drops` has it"),
		}),
	Measures: []Measure{{Sum, "packets", Uint64, "packets", PacketCount, 0}},
}

// Health is what probes of tunnels found.
var Health = &Dataset{
	Name: "magicTransitTunnelHealthChecksAdaptiveGroups", Type: "AccountMagicTransitTunnelHealthChecksAdaptiveGroups", Table: HealthTable,
	Doc: "states of tunnels, and their probes",
	Dimensions: joined(
		[]Dimension{number("active", Uint8, "active", "1: the tunnel carried traffic at that node in the minute")},
		times("date", "datetime", "datetimeMinute", "datetimeFiveMinutes", "datetimeFifteenMinutes", "datetimeHalfOfHour", "datetimeHour"),
		[]Dimension{
			text("edgeColoCity", "city", "city of the data center, if the configuration names it"),
			text("edgeColoCode", "datacenter", "data center, as node.datacenter names it"),
			text("edgeColoCountry", "country", "country of the data center, if the configuration names it"),
			text("edgeColoName", "datacenter", "data center, as node.datacenter names it"),
			text("edgeColoRegion", "region", "region, as node.region names it"),
			text("edgePopName", "node", "node that probed"),
			text("remoteTunnelIPv4", "remote", "customer endpoint"),
			text("resultStatus", "state", "healthy, degraded or down"),
			text("siteName", "''", "empty: there are no sites"),
			text("tunnelName", "tunnel", "the tunnel"),
		}),
	Measures: []Measure{
		{NoBlock, "count", Uint64, "minutes of nodes that the group is made of", Rows, 0},
		{Avg, "tunnelState", Float32, "mean of 1 for healthy, 0.5 for degraded and 0 for down", TunnelState, 0},
		{Avg, "sampleInterval", Float32, "always 1: nothing is sampled", SampleInterval, 0},
		{Avg, "rttMicroseconds", Float32, "mean round trip of the probes that were answered", RTT, 0},
		{Sum, "probes", Uint64, "probes sent", Probes, 0},
		{Sum, "probesLost", Uint64, "probes without an answer", Lost, 0},
	},
}
