// The dimensions of sampled packets that can be explored. Times are not among them, and those that are always empty.

// Each is [name, words]; # before the name: a number.
export const groups = [
  [
    "Addresses and networks",
    [
      ["ipSourceAddress", "Source address"],
      ["ipSourceSubnet", "Source network"],
      ["sourceCountry", "Source country"],
      ["#sourceAsn", "Source AS number"],
      ["sourceAsnName", "Source AS name"],
      ["#sourcePort", "Source port"],
      ["ipDestinationAddress", "Destination address"],
      ["ipDestinationSubnet", "Destination network"],
      ["destinationCountry", "Destination country"],
      ["#destinationAsn", "Destination AS number"],
      ["destinationAsnName", "Destination AS name"],
      ["#destinationPort", "Destination port"],
    ],
  ],
  [
    "Tunnels",
    [
      ["direction", "Direction"],
      ["ingressTunnelName", "Tunnel it came out of"],
      ["egressTunnelName", "Tunnel it went into"],
      ["onRamp", "Kind of the tunnel it came out of"],
      ["offRamp", "Kind of the tunnel it went into"],
      ["ingressTunnelID", "ID of the tunnel it came out of"],
      ["egressTunnelID", "ID of the tunnel it went into"],
      ["trafficType", "Health check or not"],
    ],
  ],
  [
    "Result",
    [
      ["outcome", "Outcome"],
      ["verdict", "Verdict"],
      ["dropReason", "Drop reason"],
      ["#sampleInterval", "Sampling, 1 of"],
    ],
  ],
  [
    "Place",
    [
      ["edgePopName", "Node"],
      ["coloCode", "Data center"],
      ["coloName", "Data center name"],
      ["coloCity", "City"],
      ["coloCountry", "Country"],
      ["coloGeohash", "Geohash"],
    ],
  ],
  [
    "Packet",
    [
      ["ipProtocolName", "Protocol"],
      ["#ipProtocol", "Protocol number"],
      ["ethertype", "IPv4 or IPv6"],
      ["#ipTotalLengthBuckets", "Packet size, hundreds"],
      ["#ipTotalLength", "Packet size"],
      ["#ipTtlBuckets", "TTL, tens"],
      ["#ipTtl", "TTL"],
      ["#ipHeaderLength", "IP header length"],
      ["#ipMoreFragments", "More fragments"],
      ["#ipFragmentOffset", "Fragment offset"],
      ["#ipv4DontFragment", "IPv4 don't fragment"],
      ["#ipv4Dscp", "IPv4 DSCP"],
      ["#ipv4Ecn", "IPv4 ECN"],
      ["#ipv4Identification", "IPv4 identification"],
      ["ipv4Options", "IPv4 options"],
      ["#ipv4Checksum", "IPv4 checksum"],
      ["#ipv6Dscp", "IPv6 DSCP"],
      ["#ipv6Ecn", "IPv6 ECN"],
      ["ipv6ExtensionHeaders", "IPv6 extension headers"],
      ["#ipv6FlowLabel", "IPv6 flow label"],
      ["#ipv6Identification", "IPv6 identification"],
    ],
  ],
  [
    "TCP, UDP and ICMP",
    [
      ["tcpFlagsString", "TCP flags"],
      ["#tcpFlags", "TCP flags, number"],
      ["#tcpMss", "TCP MSS"],
      ["#tcpWindowSize", "TCP window"],
      ["#tcpWindowScale", "TCP window scale"],
      ["tcpOptions", "TCP options"],
      ["#tcpDataOffset", "TCP data offset"],
      ["#tcpSackPermitted", "TCP SACK permitted"],
      ["#tcpSackBlocks", "TCP SACK blocks"],
      ["#tcpSequenceNumber", "TCP sequence number"],
      ["#tcpAcknowledgementNumber", "TCP acknowledgement number"],
      ["#tcpTimestampValue", "TCP timestamp"],
      ["#tcpTimestampEcr", "TCP timestamp echo"],
      ["#tcpUrgentPointer", "TCP urgent pointer"],
      ["#tcpChecksum", "TCP checksum"],
      ["#udpPayloadLength", "UDP payload length"],
      ["#udpChecksum", "UDP checksum"],
      ["#icmpType", "ICMP type"],
      ["#icmpCode", "ICMP code"],
      ["#icmpChecksum", "ICMP checksum"],
    ],
  ],
  [
    "GRE",
    [
      ["#greKey", "GRE key"],
      ["#greEthertype", "GRE ethertype"],
      ["#greHeaderLength", "GRE header length"],
      ["#greVersion", "GRE version"],
      ["#greChecksum", "GRE checksum"],
      ["#greSequenceNumber", "GRE sequence number"],
    ],
  ],
];

export const dimensions = Object.fromEntries(
  groups.flatMap(([, list]) => list.map(([n, words]) => [n.replace("#", ""), { words, number: n.startsWith("#") }])),
);

export const options = groups.map(([group, list]) => [group, list.map(([n, words]) => [n.replace("#", ""), words])]);

const empty = {
  dropReason: "Not dropped",
  ingressTunnelName: "No tunnel",
  egressTunnelName: "No tunnel",
  onRamp: "No tunnel",
  offRamp: "No tunnel",
  ingressTunnelID: "No tunnel",
  egressTunnelID: "No tunnel",
  trafficType: "No health check",
  sourceAsnName: "Unknown",
  destinationAsnName: "Unknown",
  sourceCountry: "Unknown",
  destinationCountry: "Unknown",
  tcpFlagsString: "No flags, or no TCP",
};

// shown is a value in words.
export function shown(dim, value) {
  if (value === "" || value === null) return empty[dim] ?? "None";
  if (dim === "direction" && value === "none") return "Non-tunnel traffic";
  return String(value);
}

// condition is a filter of the address as the API wants it, or null: a number is wanted and none was written.
export function condition({ dim, op, value }, suffix) {
  if (!Object.hasOwn(dimensions, dim)) return null;
  const d = dimensions[dim];
  if (!d.number) return { [dim + suffix]: value };
  return /^\d{1,10}$/.test(value) && suffix !== "_like" && suffix !== "_notlike" ? { [dim + suffix]: Number(value) } : null;
}
