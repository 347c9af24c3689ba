package node

import (
	"net/netip"
	"slices"

	"causeway/config"
	"causeway/pipeline"
)

// SpecOf is what the workers are told of a configuration, with the links that their ports have. Its IPsec tunnels have no
// associations.
func SpecOf(c *config.Config, links []pipeline.LinkSpec) *pipeline.Spec {
	return specOf(c, links, newAssociations(nil, nil).of)
}

// specOf is SpecOf with the associations of IPsec tunnels.
func specOf(c *config.Config, links []pipeline.LinkSpec, sas func(config.Tunnel) *pipeline.SASpec) *pipeline.Spec {
	s := &pipeline.Spec{Endpoints: steered(c), Links: slices.Clone(links), Sampling: c.Analytics.SamplingRate()}
	for _, a := range c.Accounts {
		s.Accounts = append(s.Accounts, pipeline.AccountSpec{Name: a.Name, Peers: slices.Clone(a.Peers)})
	}
	for _, t := range c.Tunnels {
		s.Tunnels = append(s.Tunnels, tunnelSpec(t, c.Cluster != nil, sas))
	}
	return s
}

// steered are the addresses whose tunnels the workers take: the endpoints and, in a cluster, the node's own, for what other nodes forward.
func steered(c *config.Config) []netip.Addr {
	list := slices.Clone(c.Endpoints)
	if c.Cluster != nil {
		list = append(list, c.Node.Address)
	}
	return list
}

func tunnelSpec(t config.Tunnel, clustered bool, sas func(config.Tunnel) *pipeline.SASpec) pipeline.TunnelSpec {
	return pipeline.TunnelSpec{
		Name:             t.Name,
		Account:          t.Account,
		Endpoint:         t.Endpoint,
		CustomerEndpoint: t.CustomerEndpoint,
		Interface4:       t.InterfaceAddress,
		Interface6:       t.InterfaceAddress6,
		MTU:              t.MTU,
		PathMTU:          t.PMTU,
		TTL:              t.TTL,
		HasKey:           t.HasKey,
		Key:              t.Key,
		Checksum:         t.Checksum,
		Sequence:         t.Sequence,
		MSSClamp:         mssClamp(t.MSSClamp),
		ClearDF:          t.DF == config.DFClear,
		Prefixes:         slices.Clone(t.Prefixes),
		SA:               sas(t),
		Negotiated:       t.IPsec != nil && t.IPsec.IKE != nil,
		Owned:            clustered && t.IPsec != nil && t.IPsec.ReplayProtection,
		Sampling:         t.Sampling,
		Device:           t.KernelInterface != "",
		Node:             isPeer(t.Name),
	}
}

func mssClamp(m config.MSSClamp) pipeline.MSSClamp {
	switch m.Mode {
	case config.ClampOff:
		return pipeline.MSSOff
	case config.ClampBytes:
		return pipeline.MSSClamp(m.Bytes)
	}
	return pipeline.MSSAuto
}

// union is what the workers must know while routes change from those of old to those of c: everything of c, and what
// only old had, so that no packet meets a route to a tunnel that is not there.
func union(old, c *config.Config, links []pipeline.LinkSpec, sas func(config.Tunnel) *pipeline.SASpec) *pipeline.Spec {
	s := specOf(c, links, sas)
	names, outer, accounts := map[string]bool{}, map[outerKey]bool{}, map[string]bool{}
	for _, t := range c.Tunnels {
		names[t.Name], outer[outerKeyOf(t)] = true, true
	}
	for _, t := range old.Tunnels {
		// A tunnel that was given another name is the new one already: two cannot have the same packets.
		if !names[t.Name] && !outer[outerKeyOf(t)] {
			s.Tunnels = append(s.Tunnels, tunnelSpec(t, old.Cluster != nil, sas))
		}
	}
	for _, a := range s.Accounts {
		accounts[a.Name] = true
	}
	for _, a := range old.Accounts {
		if !accounts[a.Name] {
			s.Accounts = append(s.Accounts, pipeline.AccountSpec{Name: a.Name})
		}
	}
	for _, e := range old.Endpoints {
		if !slices.Contains(s.Endpoints, e) {
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	return s
}

// outerKey is what a received packet is matched with.
type outerKey struct {
	endpoint, customer netip.Addr
	hasKey             bool
	key                uint32
	spi                uint32 // of packets from the customer; 0: GRE
	ike                string // the tunnel, if its SPIs are not known
}

func outerKeyOf(t config.Tunnel) outerKey {
	switch {
	case t.IPsec == nil:
	case t.IPsec.IKE != nil: // the peer's identity decides
		return outerKey{ike: t.Name}
	default:
		return outerKey{spi: t.IPsec.SA.SPIIn}
	}
	return outerKey{endpoint: t.Endpoint, customer: t.CustomerEndpoint, hasKey: t.HasKey, key: t.Key}
}
