package dataset

// Tops is made of all samples, and says of each kind which values were the most frequent: see analytics/top.
var Tops = &Dataset{
	Name: "magicTransitTopTalkersAdaptiveGroups", Type: "AccountMagicTransitTopTalkersAdaptiveGroups", Table: TopTable,
	Doc: "the most frequent values of each kind, estimated from all samples of a minute or an hour; one kind has to be asked for, " +
		"or grouped by",
	Dimensions: joined(
		times("date", "datetime", "datetimeMinute", "datetimeFiveMinutes", "datetimeFifteenMinutes", "datetimeHour"),
		places("edgeColo"),
		[]Dimension{
			text("edgePopName", "node", "node that sampled"),
			text("tunnelName", "tunnel", "the tunnel that packets went into, or else came out of; empty: none"),
			text("direction", "direction", "ingress: into the tunnel; egress: out of the tunnel; lateral: out of one tunnel into another"),
			Kind,
			text("value", "value", "as the dimension of samples has it; of kind total empty; `other`: all values that are not listed"),
		}),
	Measures: []Measure{
		{Sum, "bits", Uint64, "bits of IP packets", Bits, 0},
		{Sum, "packets", Uint64, "packets", PacketCount, 0},
		{Sum, "samples", Uint64, "samples that bits and packets are estimated from", SampleCount, 0},
		{Sum, "bitsError", Uint64, "bits that the lists may have missed of the value in the intervals where it is listed; " +
			"of `other`: that one value which is not listed can have had", BitsError, 0},
		{Sum, "packetsError", Uint64, "the same of packets", PacketsError, 0},
		{Max, "distinctSources", Uint64, "most distinct source addresses among the samples of one interval of the resolution, tunnel, " +
			"direction and node; of kind total", DistinctSources, 0},
	},
}

// Kind is the dimension of Tops that says what values are. Rows of different kinds tell of the same packets: they are never to be added up.
var Kind = Dimension{Name: "kind", Type: String, SQL: "kind",
	Doc: "what the values are of: total, or a dimension of magicTransitNetworkAnalyticsAdaptiveGroups: ipSourceAddress, " +
		"ipDestinationAddress, sourcePort, destinationPort, " +
		"ipProtocolName, tcpFlagsString, ipTotalLengthBuckets, sourceCountry, destinationCountry, sourceAsn, destinationAsn"}
