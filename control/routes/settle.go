package routes

import (
	"net/netip"
	"slices"

	"causeway/pipeline"
	"causeway/pipeline/fib"
)

// settleRounds is how often dirty prefixes may make others dirty: a route changes what a gateway resolves through,
// which changes routes, which changes which hosts are on a link, and that is the end. More would be a mistake in here,
// not in the routes.
const settleRounds = 8

// settle brings the forwarding tables in line with all paths.
func (m *Manager) settle() {
	for range settleRounds {
		if len(m.pending.vias)+len(m.pending.entries)+len(m.pending.neighbours) == 0 {
			break
		}
		m.resolveDirty()
		m.placeDirty()
		for h := range m.pending.neighbours {
			m.considerNeighbour(h)
		}
		clear(m.pending.neighbours)
	}
	for id := range m.pending.tunnels {
		m.resolveTunnel(id)
	}
	clear(m.pending.tunnels)
}

func (m *Manager) placeDirty() {
	list := m.pending.entries
	m.pending.entries = nil
	var scratch []uint32
	for _, i := range list {
		e := m.rib.entries.at(i)
		e.dirty = false
		scratch = m.best(e, scratch, nil)
		leaf := m.leafOf(e, scratch)
		if leaf != e.leaf {
			m.place(e, leaf)
		}
		if e.key.vrf == 0 {
			m.steer(e)
			m.watch.within(e.key.prefix(), m.wake)
		}
		if e.first == 0 {
			m.rib.freeEntry(i)
		}
	}
}

// leafOf returns the leaf of the best paths, a group if there are several, and keeps the groups' accounts.
func (m *Manager) leafOf(e *entry, best []uint32) pipeline.Leaf {
	var members []fib.Member
	// Next hops with a group of their own change it in place, and tell no prefix.
	if len(best) > 1 || e.group != 0 && len(best) > 0 && m.vias.at(m.rib.paths.at(best[0]).via).group == 0 {
		members = m.membersOf(best)
	}
	if len(members) > 1 || len(members) == 1 && e.group != 0 && m.somePenalised(e) {
		e.group = m.groups.share(e.group, members)
		return m.groups.leaf(e.group, members)
	}
	m.groups.release(e.group)
	e.group = 0
	switch len(best) {
	case 0:
		return 0
	case 1:
		return m.vias.at(m.rib.paths.at(best[0]).via).leaf
	}
	return members[0].Value
}

func (m *Manager) place(e *entry, leaf pipeline.Leaf) {
	if err := m.vrfs[e.key.vrf].write(e.key, leaf); err != nil {
		m.log.Error("a route could not be written", "prefix", e.key.prefix(), "error", err)
		return
	}
	e.leaf = leaf
	m.stats.Changes++
}

// steer keeps the set of prefixes that the steering program sends to the workers: those of the Internet table that lead
// into tunnels, or would in other places: the kernel must not find another way for them. What is learned lies in one that the configuration has.
func (m *Manager) steer(e *entry) {
	_, was := m.steered[e.key]
	is := m.intoTunnel(e.leaf) && m.configured(e) || m.leadsTo(e.leaf, func(l pipeline.Leaf) bool {
		return pipeline.LeafKind(l) == pipeline.KindBlackhole && pipeline.LeafIndex(l) > 0 // other places', or not learned
	})
	switch {
	case is && !was:
		m.steered[e.key] = struct{}{}
	case was && !is:
		delete(m.steered, e.key)
	default:
		return
	}
	m.pending.steer = true
}

// configured reports whether the configuration has a path to e.
func (m *Manager) configured(e *entry) bool {
	for i := e.first; i != 0; i = m.rib.paths.at(i).next {
		if s := m.rib.paths.at(i).source; s == sourceConfig || s == sourceInterface {
			return true
		}
	}
	return false
}

func (m *Manager) intoTunnel(l pipeline.Leaf) bool {
	return m.leadsTo(l, func(l pipeline.Leaf) bool { return pipeline.LeafKind(l) == pipeline.KindTunnel })
}

// leadsTo reports whether l, or one of those that it stands for, is what is asked for.
func (m *Manager) leadsTo(l pipeline.Leaf, is func(pipeline.Leaf) bool) bool {
	if pipeline.LeafKind(l) != pipeline.KindGroup {
		return is(l)
	}
	return slices.ContainsFunc(m.groups.members(l), func(x fib.Member) bool { return is(x.Value) })
}

// wake tells a watcher that the routes to its address have changed.
func (m *Manager) wake(a netip.Addr, w watcher) {
	switch w.kind {
	case watchVia:
		m.dirtyVia(w.id)
	case watchTunnel:
		m.pending.tunnels[w.id] = struct{}{}
	case watchNeighbour:
		m.pending.neighbours[hostKey{int(w.id), a}] = struct{}{}
	}
}

// reclaim makes what the tables no longer refer to available again, once no worker can still be looking at it.
func (m *Manager) reclaim() {
	m.freeIdle()
	groups, slots, links := m.groups.dying, m.slots.dying, m.devices.retired
	if len(groups)+len(slots)+len(links) > 0 {
		m.groups.dying, m.slots.dying, m.devices.retired = nil, nil, nil
		m.engine.Quiesce()
		m.groups.free(groups)
		m.freeSlots(slots)
		m.devices.spare = append(m.devices.spare, links...)
	}
	m.engine.Reclaim()
}
