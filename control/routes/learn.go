package routes

import (
	"maps"
	"net/netip"
	"slices"

	"causeway/config"
)

// Some tunnels have a device of the kernel's (`kernel_interface`), by which a routing daemon speaks BGP with the customer's router. What it
// learns it gives to the kernel as routes over that device, in whatever table, and here they are routes into the tunnel: of the tunnel's account,
// however the daemon came by them. What others believe of them is bounded by the tunnel's `prefixes`: they alone are learned into the tables of
// the account's peers and, if they are public, of the Internet. So no customer's router attracts what is not its own.

// led is the tunnel that a device is of, and who learns from its routes.
type led struct {
	tunnel  uint32
	account uint16 // its table
	peers   []uint16
	within  []netip.Prefix
}

// equal reports whether the same is learned in the same tables.
func (l *led) equal(o *led) bool {
	return l.tunnel == o.tunnel && l.account == o.account && slices.Equal(l.peers, o.peers) && slices.Equal(l.within, o.within)
}

// others are the tables, beside the account's, that learn a route to p.
func (l *led) others(p netip.Prefix) []uint16 {
	if l == nil || l.account == 0 || !slices.ContainsFunc(l.within, func(w netip.Prefix) bool { return w.Bits() <= p.Bits() && w.Contains(p.Addr()) }) {
		return nil
	}
	if config.Public(p) {
		return append(slices.Clip(l.peers), 0)
	}
	return l.peers
}

// SetDevices says which tunnels have a device, by their names, and which. It is in effect with the next Apply.
func (m *Manager) SetDevices(ifindexes map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.named = maps.Clone(ifindexes)
}

// lead takes over which devices are of which tunnels of c.
func (m *Manager) lead(c *config.Config, vrfs map[string]uint16, peers map[string][]uint16, tunnels map[string]uint32) {
	before := m.led
	m.led = make(map[int]*led, len(m.named))
	for i := range c.Tunnels {
		t := &c.Tunnels[i]
		id, known := tunnels[t.Name]
		if ifindex, has := m.named[t.Name]; has && known {
			m.led[ifindex] = &led{id, vrfs[t.Account], peers[t.Account], t.Prefixes}
		}
	}
	changed := false
	for _, list := range []map[int]*led{before, m.led} {
		for ifindex := range list {
			if was, is := before[ifindex], m.led[ifindex]; was == nil || is == nil || !was.equal(is) {
				changed = true
				m.dirtyDevice(ifindex)
			}
		}
	}
	if !changed {
		return
	}
	m.sweepPaths(func(p *path) bool {
		switch p.source {
		case sourceLearned: // in a table that does not learn it any more
			k := &m.rib.entries.at(p.entry).key
			l := m.ledBy(&m.vias.at(p.via).spec)
			return l == nil || k.vrf != l.account && !slices.Contains(l.others(k.prefix()), k.vrf)
		case sourceKernel: // taken in as if the device were any
			return m.ledBy(&m.vias.at(p.via).spec) != nil
		}
		return false
	})
	m.verify(0) // finds those that other tables have now, and that its addresses are the device's alone
}

// leads is the tunnel over whose device a route goes, the first if there are several; nil: it goes over none.
func (m *Manager) leads(r *routeMessage) *led {
	if o := m.objects[r.nexthop]; r.nexthop != 0 && o != nil {
		return m.ledByObject(o)
	}
	return m.ledByHops(r.hops)
}

// ledBy is that of next hops.
func (m *Manager) ledBy(s *viaSpec) *led {
	if s.kind == viaObject {
		return m.ledByObject(m.objects[s.id])
	}
	return m.ledByHops(s.hops)
}

func (m *Manager) ledByHops(hops []hop) *led {
	for i := range hops {
		if l := m.led[hops[i].ifindex]; l != nil {
			return l
		}
	}
	return nil
}

func (m *Manager) ledByObject(o *object) *led {
	switch {
	case o == nil:
		return nil
	case len(o.members) == 0:
		return m.led[o.hop.ifindex]
	}
	for _, x := range o.members { // the kernel allows no groups in groups
		if o := m.objects[x.id]; o != nil && len(o.members) == 0 && m.led[o.hop.ifindex] != nil {
			return m.led[o.hop.ifindex]
		}
	}
	return nil
}

// accountOf is the table of the account whose tunnel's device a hop is over; 0: it is over none.
func (m *Manager) accountOf(h *hop) uint16 {
	if l := m.led[h.ifindex]; l != nil {
		return l.account
	}
	return 0
}

// ofAccount leaves those of hops, in place, that are an account's: others have nothing to do with its routes.
func (m *Manager) ofAccount(vrf uint16, hops []hop) []hop {
	return slices.DeleteFunc(hops, func(h hop) bool { return m.accountOf(&h) != vrf })
}

// Learned counts the prefixes that accounts have learned over the device of each tunnel, by the engine's number of it.
func (m *Manager) Learned() map[uint32]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[uint32]int{}
	if len(m.led) == 0 {
		return out
	}
	for i := uint32(1); i <= m.vias.made; i++ {
		v := m.vias.at(i)
		for _, h := range m.hopsOfVia(v) {
			if l := m.led[h.ifindex]; l != nil && l.account == v.spec.account {
				out[l.tunnel] += int(v.learned)
			}
		}
	}
	return out
}
