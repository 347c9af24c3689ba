package dataset

// Attacks is a list, and not grouped.
var Attacks = &Dataset{
	Name: "dosdAttackAnalyticsGroups", Type: "AccountDosdAttackAnalyticsGroups", Table: AttackTable,
	Doc: "attacks that were detected",
	Dimensions: joined([]Dimension{
		text("attackId", "id", "names the attack"),
		text("attackType", "type", "flood, reflection, scan or anomaly"),
		text("attackVector", "vector", "the detector that found it, for example SYN flood"),
		text("commonTcpFlagsNames", "tcp_flags_text", "TCP flags that most packets had, by name"),
		number("commonTcpFlags", Uint8, "tcp_flags", "TCP flags that most packets had"),
		text("sourceIp", "src", "source of most packets"),
		number("sourcePort", Uint16, "src_port", "source port of most packets"),
		text("destinationIp", "dst", "what was attacked"),
		number("destinationPort", Uint16, "dst_port", "destination port of most packets"),
		number("ipProtocol", Uint8, "protocol", "protocol of most packets"),
		text("ipProtocolName", "protocol_name", "its name"),
		text("mitigationReason", "''", "empty: nothing mitigates yet"),
		text("mitigationScope", "''", "empty: nothing mitigates yet"),
		text("mitigationType", "mitigation", "none: nothing mitigates yet"),
		text("ruleId", "vector", "the detector"),
		text("ruleName", "vector", "the detector"),
		text("rulesetId", "''", "empty: there are no rulesets"),
		text("rulesetOverrideId", "''", "empty: there are no rulesets"),
		{Name: "startDatetime", Type: Time, SQL: "t", Bucket: 1, Doc: "when it began"},
		{Name: "endDatetime", Type: Time, SQL: "ended", Bucket: 1, Nullable: true, Doc: "when it ended; null: it goes on, and then endDatetime_geq and _gt hold whatever the time"},
	}, places("colo")),
	Measures: []Measure{
		{NoBlock, "bits", Uint64, "bits, estimated", Bits, 0},
		{NoBlock, "packets", Uint64, "packets, estimated", PacketCount, 0},
		{NoBlock, "droppedBits", Uint64, "bits that were dropped, estimated", DroppedBits, 0},
		{NoBlock, "droppedPackets", Uint64, "packets that were dropped, estimated", DroppedPackets, 0},
	},
}
