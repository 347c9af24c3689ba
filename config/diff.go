package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Changes is what turns one configuration into another. All but Restart can
// be applied while packets flow.
type Changes struct {
	EndpointsAdded   []netip.Addr
	EndpointsRemoved []netip.Addr

	TunnelsAdded   []Tunnel
	TunnelsRemoved []Tunnel
	TunnelsChanged []TunnelChange // tunnels are known by their names

	// The routes are effective ones: a tunnel's new prefix is a route added.
	// A route whose priority or weight changed is both removed and added.
	RoutesAdded   []Route
	RoutesRemoved []Route

	// PeersChanged names the accounts whose peers are not the same.
	PeersChanged []string

	// Settings names what else is another.
	Settings []string

	// Restart lists what a running daemon cannot take over.
	Restart []Restart
}

// TunnelChange is one tunnel in both configurations, and the names of the
// fields that differ as the file spells them.
type TunnelChange struct {
	Old, New Tunnel
	Fields   []string
}

// Restart is a setting that takes effect at the next start only.
type Restart struct {
	Path   string // such as workers.cpus
	Reason string
}

// Warnings says what of the changes works, but perhaps not as its author expects.
func (c Changes) Warnings() []string {
	var out []string
	for _, t := range c.TunnelsChanged {
		if t.Old.KernelInterface == "" && t.New.KernelInterface != "" && len(t.New.Prefixes) > 0 {
			out = append(out, fmt.Sprintf("tunnel %s: its prefixes are not led into it by themselves any more, but by what is learned through device %s, and by routes: what has neither is dropped (route_unlearned)",
				t.New.Name, t.New.KernelInterface))
		}
		was, is := t.Old.IPsec, t.New.IPsec
		if was == nil || is == nil {
			continue
		}
		for _, k := range []struct {
			key, spi string
			same     bool
		}{
			{"key_in", "spi_in", was.SA.SPIIn != is.SA.SPIIn || string(was.SA.KeyIn) == string(is.SA.KeyIn)},
			{"key_out", "spi_out", was.SA.SPIOut != is.SA.SPIOut || string(was.SA.KeyOut) == string(is.SA.KeyOut)},
		} {
			if !k.same {
				out = append(out, fmt.Sprintf("tunnel %s: %s is another one under the same %s: an end that still has the old key drops all packets, as forged or as replayed; "+
					"new keys should have new SPIs", t.New.Name, k.key, k.spi))
			}
		}
	}
	return out
}

// Empty reports whether the two configurations mean the same.
func (c Changes) Empty() bool {
	return len(c.EndpointsAdded)+len(c.EndpointsRemoved)+
		len(c.TunnelsAdded)+len(c.TunnelsRemoved)+len(c.TunnelsChanged)+
		len(c.RoutesAdded)+len(c.RoutesRemoved)+len(c.PeersChanged)+len(c.Settings)+len(c.Restart) == 0
}

// Diff returns the changes from old to new. Lists keep the order of the file
// that their entries come from; order within the files makes no difference.
func Diff(old, new *Config) Changes {
	var c Changes
	c.EndpointsAdded = missingFrom(old.Endpoints, new.Endpoints)
	c.EndpointsRemoved = missingFrom(new.Endpoints, old.Endpoints)
	c.diffTunnels(old.Tunnels, new.Tunnels)
	oldRoutes, newRoutes := old.EffectiveRoutes(), new.EffectiveRoutes()
	c.RoutesAdded = missingFrom(oldRoutes, newRoutes)
	c.RoutesRemoved = missingFrom(newRoutes, oldRoutes)
	c.diffPeers(old.Accounts, new.Accounts)
	if old.Steering != new.Steering {
		c.Settings = append(c.Settings, "steering")
	}
	if old.Analytics.SamplingRate() != new.Analytics.SamplingRate() {
		c.Settings = append(c.Settings, "analytics.sampling")
	}
	c.diffRestart(old, new)
	return c
}

// missingFrom returns the elements of list that are not in set.
func missingFrom[T comparable](set, list []T) []T {
	in := make(map[T]bool, len(set))
	for _, e := range set {
		in[e] = true
	}
	var missing []T
	for _, e := range list {
		if !in[e] {
			missing = append(missing, e)
		}
	}
	return missing
}

func (c *Changes) diffTunnels(old, new []Tunnel) {
	was := make(map[string]Tunnel, len(old))
	for _, t := range old {
		was[t.Name] = t
	}
	for _, t := range new {
		before, ok := was[t.Name]
		if !ok {
			c.TunnelsAdded = append(c.TunnelsAdded, t)
			continue
		}
		delete(was, t.Name)
		if fields := before.differences(t); len(fields) > 0 {
			c.TunnelsChanged = append(c.TunnelsChanged, TunnelChange{before, t, fields})
		}
	}
	for _, t := range old {
		if _, left := was[t.Name]; left {
			c.TunnelsRemoved = append(c.TunnelsRemoved, t)
		}
	}
}

// differences names the fields in which t and u differ, in the order in which
// the contract lists them.
func (t Tunnel) differences(u Tunnel) []string {
	var fields []string
	note := func(name string, same bool) {
		if !same {
			fields = append(fields, name)
		}
	}
	note("account", t.Account == u.Account)
	note("endpoint", t.Endpoint == u.Endpoint)
	note("customer_endpoint", t.CustomerEndpoint == u.CustomerEndpoint)
	note("interface_address", t.InterfaceAddress == u.InterfaceAddress)
	note("interface_address6", t.InterfaceAddress6 == u.InterfaceAddress6)
	note("mtu", t.MTU == u.MTU)
	note("pmtu", t.PMTU == u.PMTU)
	note("ttl", t.TTL == u.TTL)
	note("key", t.HasKey == u.HasKey && t.Key == u.Key)
	note("checksum", t.Checksum == u.Checksum)
	note("sequence", t.Sequence == u.Sequence)
	note("mss_clamp", t.MSSClamp == u.MSSClamp)
	note("df", t.DF == u.DF)
	note("type", t.Type == u.Type)
	note("replay_protection", t.IPsec.sameProtection(u.IPsec))
	note("replay_window", t.IPsec.sameWindow(u.IPsec))
	note("selectors", t.IPsec.sameSelectors(u.IPsec))
	note("manual_sas", t.IPsec.sameSAs(u.IPsec))
	fields = append(fields, t.IPsec.ikeDifferences(u.IPsec)...)
	note("health_check", sameHealthCheck(t.HealthCheck, u.HealthCheck))
	note("bfd", sameBFD(t.BFD, u.BFD))
	note("kernel_interface", t.KernelInterface == u.KernelInterface)
	note("sampling", t.Sampling == u.Sampling)
	note("prefixes", sameSet(t.Prefixes, u.Prefixes))
	return fields
}

// sameSet reports whether a and b, neither with duplicates, have the same
// elements in any order.
func sameSet[T comparable](a, b []T) bool {
	return len(a) == len(b) && len(missingFrom(a, b)) == 0
}

func (c *Changes) diffPeers(old, new []Account) {
	was := make(map[string][]string, len(old))
	for _, a := range old {
		was[a.Name] = a.Peers
	}
	for _, a := range new {
		if !sameSet(was[a.Name], a.Peers) {
			c.PeersChanged = append(c.PeersChanged, a.Name)
		}
		delete(was, a.Name)
	}
	for _, a := range old {
		if len(was[a.Name]) > 0 {
			c.PeersChanged = append(c.PeersChanged, a.Name)
		}
	}
}

func (c *Changes) diffRestart(old, new *Config) {
	note := func(path string, same bool, reason string) {
		if !same {
			c.Restart = append(c.Restart, Restart{path, reason})
		}
	}
	const identity = "the node is known by it to metrics since its start"
	note("node.name", old.Node.Name == new.Node.Name, identity)
	note("node.address", old.Node.Address == new.Node.Address, identity)
	note("node.datacenter", old.Node.Datacenter == new.Node.Datacenter, identity)
	note("node.region", old.Node.Region == new.Node.Region, identity)
	note("node.state_dir", old.Node.StateDir == new.Node.StateDir, "files are opened at the start")
	note("interfaces", sameInterfaces(old.Interfaces, new.Interfaces),
		"sockets and their part of the packet memory are made at the start")
	note("workers.cpus", sameSet(old.Workers.CPUs, new.Workers.CPUs),
		"workers, and the queues that each owns, are fixed at the start")
	note("workers.busy_poll", old.Workers.BusyPoll == new.Workers.BusyPoll,
		"it is an option of sockets that are made at the start")
	note("metrics.listen", old.Metrics == new.Metrics, "the address is bound at the start")
	note("cluster", old.Cluster.same(new.Cluster), "the node joins at the start")
	note("notify", old.Notify.Webhook == new.Notify.Webhook && string(old.Notify.Secret) == string(new.Notify.Secret), "what is told meanwhile waits in a queue that is made at the start")
	note("analytics", old.Analytics.same(new.Analytics), "its files, addresses and collectors are opened at the start")
	note("analytics.attacks", old.Analytics.sameAttacks(new.Analytics), "who looks for attacks remembers by the old thresholds")
	note("control.socket", old.Control == new.Control, "the socket is made at the start")
}

func sameInterfaces(old, new []Interface) bool {
	byName := func(a, b Interface) int { return cmp.Compare(a.Name, b.Name) }
	old, new = slices.SortedFunc(slices.Values(old), byName), slices.SortedFunc(slices.Values(new), byName)
	return slices.EqualFunc(old, new, func(a, b Interface) bool {
		return a.Name == b.Name && a.Mode == b.Mode && sameSet(a.Queues, b.Queues)
	})
}
