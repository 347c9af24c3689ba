package main

import (
	"slices"

	"causeway/analytics/graph"
	"causeway/config"
	"causeway/control/api"
	"causeway/control/node"
)

// shownTunnels is what `causeway show` tells of tunnels, their health and their associations, for customers who ask for it in GraphQL.
// They are told nothing of keys, of next hops and of other tunnels.
func shownTunnels(n *node.Node) []graph.Tunnel {
	return tunnelsFor(n.Config().Node.Name, n.Tunnels(), n.Health(), n.IKE(), n.SAs())
}

// tunnelsFor puts together what there is of each tunnel.
func tunnelsFor(name string, tunnels []api.Tunnel, health []api.Health, negotiated []api.IKE, sas []api.SA) []graph.Tunnel {
	out := make([]graph.Tunnel, len(tunnels))
	place := map[string]*graph.Tunnel{}
	for i, t := range tunnels {
		out[i] = tunnelOf(name, t)
		place[t.Name] = &out[i]
	}
	for _, h := range health {
		if t := place[h.Tunnel]; t != nil {
			t.Health = healthFor(h)
		}
	}
	for _, a := range sas {
		if t := place[a.Tunnel]; t != nil {
			t.EspSas = append(t.EspSas, associationOf(a))
			if a.Direction == "out" {
				t.IpsecPairs++
			}
		}
	}
	for _, x := range negotiated {
		t := place[x.Tunnel]
		if t == nil { // it has come since
			continue
		}
		t.IkeFailure = graph.Text(x.Failure)
		for _, o := range x.Elsewhere {
			t.IkeElsewhere = append(t.IkeElsewhere, graph.Text(o.Node))
		}
		for _, s := range x.SAs {
			t.IkeSas = append(t.IkeSas, negotiatedBy(s, t.EspSas))
		}
	}
	return out
}

// tunnelOf has the lists empty, and not null.
func tunnelOf(name string, t api.Tunnel) graph.Tunnel {
	out := graph.Tunnel{TunnelName: graph.Text(t.Name), TunnelID: graph.Text(tunnelID(t.Account, t.Name)), Account: graph.Text(t.Account),
		Kind: graph.Text(tunnelKind(t.Type)), EdgePopName: graph.Text(name), Endpoint: graph.Text(t.Endpoint), CustomerEndpoint: graph.Text(t.CustomerEndpoint),
		InterfaceAddress: graph.Text(t.InterfaceAddress), InterfaceAddress6: graph.Text(t.InterfaceAddress6), Prefixes: []graph.Text{},
		Mtu: graph.Number(t.MTU), EffectiveMtu: graph.Number(t.EffectiveMTU), PathMtu: graph.Number(t.PathMTU),
		MssIPv4: graph.Number(t.MSS4), MssIPv6: graph.Number(t.MSS6), RouteState: graph.Text(t.RouteState),
		IkeSas: []graph.IKESA{}, IkeElsewhere: []graph.Text{}, EspSas: []graph.ESPSA{}}
	for _, p := range t.Prefixes {
		out.Prefixes = append(out.Prefixes, graph.Text(p))
	}
	return out
}

// healthFor leaves out the leg: it may name the operator's routers.
func healthFor(h api.Health) *graph.TunnelHealth {
	out := &graph.TunnelHealth{State: graph.Text(h.State), Why: graph.Text(h.Why), FleetState: graph.Text(h.Fleet),
		SinceSeconds: whole(h.Since),
		Probes:       graph.Number(h.Probes), Lost: graph.Number(h.Lost), RttMicroseconds: whole(h.RTT * 1e6)}
	if h.BFD != nil {
		out.BfdState = graph.Text(h.BFD.State)
	}
	return out
}

func associationOf(a api.SA) graph.ESPSA {
	out := graph.ESPSA{Direction: graph.Text(a.Direction), Encryption: graph.Text(a.Encryption), Spi: graph.Number(a.SPI),
		Packets: graph.Number(a.Packets), Bytes: graph.Number(a.Bytes), Esn: a.ESN, UdpEncapsulation: a.UDPEncap}
	for _, n := range a.Refused {
		out.RefusedPackets += graph.Number(n)
	}
	return out
}

// negotiatedBy is an IKE SA, whose pairs have their counts from the associations of the tunnel.
func negotiatedBy(s api.IKESA, sas []graph.ESPSA) graph.IKESA {
	out := graph.IKESA{State: graph.Text(s.State), Role: graph.Text(s.Role), Suite: graph.Text(s.Suite), LocalAddress: graph.Text(s.Local),
		PeerAddress: graph.Text(s.Remote), LocalIdentity: graph.Text(s.LocalID), PeerIdentity: graph.Text(s.RemoteID), NatLocal: s.NATLocal,
		NatPeer: s.NATRemote, AgeSeconds: whole(s.Age), RekeyInSeconds: whole(s.RekeyIn), Pairs: []graph.IPsecPair{}}
	for _, c := range s.Children {
		p := graph.IPsecPair{State: graph.Text(c.State), Suite: graph.Text(c.Suite), LocalSelectors: graph.Text(c.Local), PeerSelectors: graph.Text(c.Remote),
			SpiIn: graph.Number(c.SPIIn), SpiOut: graph.Number(c.SPIOut), AgeSeconds: whole(c.Age), RekeyInSeconds: whole(c.RekeyIn)}
		for _, a := range sas {
			switch {
			case a.Direction == "in" && a.Spi == p.SpiIn:
				p.PacketsIn, p.BytesIn = a.Packets, a.Bytes
			case a.Direction == "out" && a.Spi == p.SpiOut:
				p.PacketsOut, p.BytesOut = a.Packets, a.Bytes
			}
		}
		out.Pairs = append(out.Pairs, p)
	}
	return out
}

// whole cuts a number that is not below 0: what is overdue is due now.
func whole(x float64) graph.Number { return graph.Number(max(0, x)) }

// accountNames are the accounts of a configuration: those that it lists, and those that tunnels name without that.
func accountNames(c *config.Config) (names []string) {
	for _, a := range c.Accounts {
		names = append(names, a.Name)
	}
	for _, t := range c.Tunnels {
		names = append(names, t.Account)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
