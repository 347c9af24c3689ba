package routes

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"causeway/config"
	"causeway/pipeline"
)

// A tunnelRoute is the way to the customer endpoint of a tunnel.
type tunnelRoute struct {
	name       string
	configured netip.Addr // customer endpoint of the file; not valid: none
	customer   netip.Addr // where packets go now
	slots      []uint32
	leaf       pipeline.Leaf
	problem    string // why there is none
	penalty    uint32 // see SetPenalty
	seen       uint32
}

// configure takes over the routes and tunnels of c: first everything is set that it has, then what no longer is in it goes.
func (m *Manager) configure(c *config.Config) error {
	m.config++
	m.groups.stay = c.Steering.Stay
	vrfs, err := m.accounts(c)
	errs := []error{err}
	peers := peersOf(c, vrfs)
	tunnels := make(map[string]uint32, len(c.Tunnels))
	for i := range c.Tunnels {
		t := &c.Tunnels[i]
		id, ok := m.engine.TunnelID(t.Name)
		if !ok {
			errs = append(errs, fmt.Errorf("tunnel %q: the workers do not have it yet; give it to them first", t.Name))
			continue
		}
		tunnels[t.Name] = uint32(id)
		m.setTunnel(uint32(id), t)
		m.setInterface(vrfs[t.Account], uint32(id), t.Name, t.InterfaceAddress)
		m.setInterface(vrfs[t.Account], uint32(id), t.Name, t.InterfaceAddress6)
	}
	m.lead(c, vrfs, peers, tunnels)
	for _, r := range c.EffectiveRoutes() {
		errs = append(errs, m.setStatic(&r, vrfs, peers, tunnels))
	}
	if err := errors.Join(errs...); err != nil {
		return err // what was there before stays
	}
	m.sweepPaths(func(p *path) bool {
		return (p.source == sourceConfig || p.source == sourceInterface) && p.seen != m.config
	})
	for id, t := range m.tunnels {
		if t.seen != m.config {
			m.forgetTunnel(id, t)
		}
	}
	return nil
}

// accounts returns the numbers of the accounts' tables.
func (m *Manager) accounts(c *config.Config) (map[string]uint16, error) {
	vrfs := map[string]uint16{"": 0}
	for _, a := range c.Accounts {
		v, ok := m.engine.VRF(a.Name)
		if !ok {
			return vrfs, fmt.Errorf("account %q: the workers do not have it yet; give it to them first", a.Name)
		}
		for len(m.vrfs) <= v.ID() {
			m.vrfs = append(m.vrfs, table{})
		}
		m.vrfs[v.ID()] = table{a.Name, v.V4, v.V6}
		vrfs[a.Name] = uint16(v.ID())
	}
	return vrfs, nil
}

// setInterface adds the subnet of a tunnel's interface: our address and the customer's.
func (m *Manager) setInterface(vrf uint16, id uint32, name string, p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	through := m.via(&viaSpec{kind: viaTunnel, id: id, name: name}, 0)
	m.setPath(pathKey{keyOf(vrf, p), sourceInterface, id, 0}, through, 1, m.config)
	self := m.via(&viaSpec{kind: viaTunnelSelf, id: id, name: name}, 0)
	m.setPath(pathKey{addrKey(vrf, p.Addr()), sourceInterface, id, 0}, self, 1, m.config)
}

// peersOf returns, for each account, the tables of the accounts that may send to it.
func peersOf(c *config.Config, vrfs map[string]uint16) map[string][]uint16 {
	peers := map[string][]uint16{}
	for _, a := range c.Accounts {
		for _, p := range a.Peers {
			peers[p] = append(peers[p], vrfs[a.Name])
		}
	}
	return peers
}

// setStatic adds a route of the file to its account's table. One into a tunnel stands in the tables of the account's
// peers too, and if it is public in the Internet's.
func (m *Manager) setStatic(r *config.Route, vrfs map[string]uint16, peers map[string][]uint16, tunnels map[string]uint32) error {
	vrf, ok := vrfs[r.Account]
	if !ok {
		return fmt.Errorf("route %s: account %q has no routing table", r.Prefix, r.Account)
	}
	s := viaSpec{kind: viaNamed, name: r.Interface, addr: r.NextHop}
	switch {
	case r.Tunnel != "":
		id, ok := tunnels[r.Tunnel]
		if !ok {
			return fmt.Errorf("route %s: tunnel %q does not exist", r.Prefix, r.Tunnel)
		}
		s = viaSpec{kind: viaTunnel, id: id, name: r.Tunnel}
	case r.Interface == "":
		s.kind = viaAddress
	}
	intoTunnel := s.kind == viaTunnel
	switch {
	case r.Uncovered:
		s = viaSpec{kind: viaUncovered, id: pipeline.BlackholeScope}
	case r.Unlearned:
		s = viaSpec{kind: viaUncovered, id: pipeline.BlackholeUnlearned}
	}
	v := m.via(&s, 0)
	m.setPath(pathKey{keyOf(vrf, r.Prefix), sourceConfig, r.Priority, 0}, v, uint16(r.Weight), m.config)
	if !intoTunnel || vrf == 0 || r.Prefix.Bits() == 0 {
		return nil // a default route into a tunnel is the account's own affair
	}
	also := peers[r.Account]
	if config.Public(r.Prefix) {
		also = append(slices.Clip(also), 0)
	}
	for _, table := range also {
		m.setPath(pathKey{keyOf(table, r.Prefix), sourceConfig, r.Priority, 0}, v, uint16(r.Weight), m.config)
	}
	return nil
}

// setTunnel notes a tunnel, or what has changed about it. The number of one that went away may be another's now.
func (m *Manager) setTunnel(id uint32, c *config.Tunnel) {
	t, penalty := m.tunnels[id], uint32(0)
	if t != nil && (t.name != c.Name || t.configured != c.CustomerEndpoint) {
		if t.name == c.Name {
			penalty = t.penalty
		}
		m.forgetTunnel(id, t)
		t = nil
	}
	if t == nil {
		t = &tunnelRoute{name: c.Name, configured: c.CustomerEndpoint, penalty: penalty}
		m.tunnels[id] = t
		m.goTo(id, t, c.CustomerEndpoint)
		m.fwd.SetTunnelRoute(int(id), 0)
	}
	t.seen = m.config
	m.pending.tunnels[id] = struct{}{}
}

func (m *Manager) forgetTunnel(id uint32, t *tunnelRoute) {
	delete(m.tunnels, id)
	m.goTo(id, t, netip.Addr{})
	m.releaseSlots(t.slots)
}

// goTo changes the address that a tunnel's packets go to; one that is not valid means that nobody knows it.
func (m *Manager) goTo(id uint32, t *tunnelRoute, customer netip.Addr) {
	if t.customer.IsValid() {
		m.watch.remove(t.customer, watcher{watchTunnel, id})
	}
	if t.customer = customer; customer.IsValid() {
		m.watch.add(customer, watcher{watchTunnel, id})
	}
}

// SetCustomer says where the other end of a tunnel is, which may move while it is negotiated; an address that is not valid means
// that it is where the file says. A tunnel that is not known is passed over.
func (m *Manager) SetCustomer(tunnel string, customer netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, _ := m.engine.TunnelID(tunnel)
	t := m.tunnels[uint32(id)]
	if t == nil || t.name != tunnel {
		return
	}
	if !customer.IsValid() {
		customer = t.configured
	}
	if customer == t.customer {
		return
	}
	m.goTo(uint32(id), t, customer)
	m.resolveTunnel(uint32(id))
	m.reclaim()
}

// resolveTunnel finds the way to a tunnel's customer endpoint in the Internet table and tells the workers.
func (m *Manager) resolveTunnel(id uint32) {
	t := m.tunnels[id]
	if t == nil {
		return
	}
	held := t.slots
	t.slots = nil
	leaf, problem := m.customerLeaf(t)
	if leaf != t.leaf {
		m.fwd.SetTunnelRoute(int(id), leaf)
		t.leaf = leaf
	}
	if problem != t.problem && problem != "" && t.customer.IsValid() {
		m.log.Warn("a tunnel has no way to its customer endpoint", "tunnel", t.name, "customer_endpoint", t.customer, "reason", problem)
	}
	t.problem = problem
	m.releaseSlots(held)
}

// customerLeaf returns the leaf for encapsulated packets, or says why there is none.
func (m *Manager) customerLeaf(t *tunnelRoute) (leaf pipeline.Leaf, problem string) {
	if !t.customer.IsValid() {
		return 0, "nobody has negotiated this tunnel, so it is not known where its other end is"
	}
	e := m.rib.lookup(addrKey(0, t.customer), func(e *entry) bool { return e.leaf != 0 })
	if e == nil {
		return 0, "no route"
	}
	to := e.key.prefix()
	if m.intoTunnel(e.leaf) {
		return 0, fmt.Sprintf("the route to %s leads into a tunnel", to) // encapsulated packets would go round
	}
	if link := m.gleanLink(e.leaf); link >= 0 {
		if leaf = m.holdSlot(&t.slots, hostKey{m.devices.links[link].ifindex, t.customer}); leaf == 0 {
			return 0, "too many neighbours"
		}
		return leaf, ""
	}
	switch pipeline.LeafKind(e.leaf) {
	case pipeline.KindNeighbour, pipeline.KindGroup:
		return e.leaf, ""
	case pipeline.KindKernel:
		return 0, fmt.Sprintf("the route to %s leads to this host or over an interface that is not among `interfaces`", to)
	}
	return 0, fmt.Sprintf("the route to %s discards", to)
}

// gleanLink returns the link that a connected route leads to, the lowest if there are several, or -1.
func (m *Manager) gleanLink(l pipeline.Leaf) int {
	link := -1
	for _, x := range m.groups.members(l) {
		if i := pipeline.LeafIndex(x.Value); pipeline.LeafKind(x.Value) == pipeline.KindGlean && (link < 0 || i < link) {
			link = i
		}
	}
	return link
}
