package main

// tunnels are the types of what a node knows of its tunnels. They are our own: the product has its list in another API.
const tunnels = `
input CausewayTunnelFilter_InputObject {
  """The tunnel."""
  tunnelName: string
}

"""A tunnel as the node that answers knows it now."""
type CausewayTunnel {
  """its name"""
  tunnelName: string!
  """its id, the same on every node"""
  tunnelID: string!
  """whose it is"""
  account: string!
  """GRE or IPSec"""
  kind: string!
  """node that answers"""
  edgePopName: string!
  """our outer address"""
  endpoint: string!
  """outer address of the customer's router, or where IKE has found it; empty: not known yet"""
  customerEndpoint: string!
  """our address inside, with the length of its prefix"""
  interfaceAddress: string!
  """the same for IPv6; empty: there is none"""
  interfaceAddress6: string!
  """what may come out of the tunnel as source"""
  prefixes: [string!]!
  """largest inner packet, in bytes, as configured"""
  mtu: uint32!
  """the same as it is now: less where the path to the customer is narrower"""
  effectiveMtu: uint32!
  """largest inner packet that the path was found to carry; 0: not found"""
  pathMtu: uint32!
  """what the MSS of TCP over IPv4 is lowered to; 0: left alone"""
  mssIPv4: uint32!
  """what the MSS of TCP over IPv6 is lowered to; 0: left alone"""
  mssIPv6: uint32!
  """whether the customer endpoint can be reached by the node's routes: ok, unresolved or none"""
  routeState: string!
  """what probes say; null: it is not probed"""
  health: CausewayTunnelHealth
  """pairs of associations of ESP at this node: 1 of an IPsec tunnel that works, 2 while one is replaced"""
  ipsecPairs: uint32!
  """what went wrong in IKE since a pair was made the last time; empty: nothing"""
  ikeFailure: string!
  """associations of IKE at this node"""
  ikeSas: [CausewayIKESA!]!
  """nodes that have the tunnel's other associations of IKE"""
  ikeElsewhere: [string!]!
  """associations of ESP at this node, negotiated or configured"""
  espSas: [CausewayESPSA!]!
}

"""What probes of a tunnel say."""
type CausewayTunnelHealth {
  """healthy, degraded or down, as this node finds it"""
  state: string!
  """why it is"""
  why: string!
  """the state by all data centers"""
  fleetState: string!
  """seconds that it has been so"""
  sinceSeconds: uint64!
  """probes that this node has sent"""
  probes: uint64!
  """of them, those without an answer"""
  lost: uint64!
  """smoothed round trip; 0: no answer yet"""
  rttMicroseconds: uint64!
  """down, init, up or admin-down; empty: BFD is not spoken"""
  bfdState: string!
}

"""An association of IKE."""
type CausewayIKESA {
  """opening, proving, established, replaced or deleting"""
  state: string!
  """what this node was: initiator or responder"""
  role: string!
  """the algorithms that were agreed on"""
  suite: string!
  """our address and port"""
  localAddress: string!
  """the peer's address and port"""
  peerAddress: string!
  """who we said we are"""
  localIdentity: string!
  """who the peer has proved to be"""
  peerIdentity: string!
  """we are behind a NAT"""
  natLocal: Boolean!
  """the peer is behind a NAT"""
  natPeer: Boolean!
  """seconds since it was established"""
  ageSeconds: uint64!
  """seconds until it is made anew"""
  rekeyInSeconds: uint64!
  """pairs of associations of ESP that it has made"""
  pairs: [CausewayIPsecPair!]!
}

"""Two associations of ESP, one for each direction."""
type CausewayIPsecPair {
  """installed, new, rekeying, replaced or deleting"""
  state: string!
  """the algorithms that were agreed on"""
  suite: string!
  """what is behind us"""
  localSelectors: string!
  """what is behind the peer"""
  peerSelectors: string!
  """SPI of what comes from the customer"""
  spiIn: uint32!
  """SPI of what goes to the customer"""
  spiOut: uint32!
  """seconds since it was made"""
  ageSeconds: uint64!
  """seconds until it is made anew"""
  rekeyInSeconds: uint64!
  """packets that came, and were authentic"""
  packetsIn: uint64!
  """bytes of their inner packets"""
  bytesIn: uint64!
  """packets that were sent"""
  packetsOut: uint64!
  """bytes of their inner packets"""
  bytesOut: uint64!
}

"""One association of ESP. Of keys nothing is told."""
type CausewayESPSA {
  """in: from the customer; out: to the customer"""
  direction: string!
  """the algorithm"""
  encryption: string!
  """its number"""
  spi: uint32!
  """packets that were sent, or came and were authentic"""
  packets: uint64!
  """bytes of their inner packets"""
  bytes: uint64!
  """packets that came and were refused"""
  refusedPackets: uint64!
  """sequence numbers have 64 bits"""
  esn: Boolean!
  """ESP is in UDP, because of a NAT"""
  udpEncapsulation: Boolean!
}
`
