package routes

import (
	"time"

	"causeway/pipeline/fib"
)

// A tunnel that does not carry packets well makes its routes worse, and withdraws none: where all are bad the least bad still forwards.

// SetPenalty adds to the priority of all routes into a tunnel, wherever they come from, from now on; 0 takes it back. A tunnel that is not
// known is passed over, and one that goes away loses what it has.
func (m *Manager) SetPenalty(tunnel string, penalty uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, _ := m.engine.TunnelID(tunnel)
	t := m.tunnels[uint32(id)]
	if t == nil || t.name != tunnel || t.penalty == penalty {
		return
	}
	t.penalty = penalty
	m.dirtyViasInto(uint32(id))
	m.settle()
	m.reclaim()
}

// dirtyViasInto has the next hops that are a tunnel resolved again, or are its device.
func (m *Manager) dirtyViasInto(id uint32) {
	t := &m.vias
	t.scratch = (&viaSpec{kind: viaTunnel, id: id}).key(t.scratch)
	if i, ok := t.index[string(t.scratch)]; ok {
		m.dirtyVia(i)
	}
	for ifindex, l := range m.led {
		if l.tunnel == id {
			m.dirtyDevice(ifindex)
		}
	}
}

// somePenalised reports whether a path of e has a penalty. Then a group of one is kept: when the others come back its flows stay.
func (m *Manager) somePenalised(e *entry) bool {
	for i := e.first; i != 0; i = m.rib.paths.at(i).next {
		if m.vias.at(m.rib.paths.at(i).via).penalty > 0 {
			return true
		}
	}
	return false
}

// Rebalance has all flows go where the members' weights say, now.
func (m *Manager) Rebalance() (moved int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	moved = m.groups.late()
	for i := range m.groups.list {
		if g := &m.groups.list[i]; g.late > 0 {
			g.used = [fib.Buckets]time.Time{}
			m.groups.balance(g)
		}
	}
	return moved
}

// penaltyOf is the penalty of next hops: that of the least bad of the tunnels among them.
func (m *Manager) penaltyOf(s *viaSpec) uint32 {
	switch s.kind {
	case viaTunnel:
		return m.tunnelPenalty(s.id)
	case viaHops:
		return m.leastPenalty(s.account, s.hops)
	case viaObject:
		if o := m.objects[s.id]; o != nil && len(m.led) > 0 {
			return m.leastPenalty(s.account, m.hopsOf(o))
		}
	}
	return 0
}

// leastPenalty leaves out what is not the account's, and devices that are down: nothing goes there.
func (m *Manager) leastPenalty(account uint16, hops []hop) (least uint32) {
	if len(m.led) == 0 {
		return 0
	}
	some := false
	for i := range hops {
		if d := m.devices.byIndex[hops[i].ifindex]; m.accountOf(&hops[i]) != account || account != 0 && (d == nil || !d.up()) {
			continue
		}
		if p := m.hopPenalty(&hops[i]); !some || p < least {
			some, least = true, p
		}
	}
	return least
}

// hopPenalty is that of the tunnel whose device a hop is.
func (m *Manager) hopPenalty(h *hop) uint32 {
	if l := m.led[h.ifindex]; l != nil {
		return m.tunnelPenalty(l.tunnel)
	}
	return 0
}

func (m *Manager) tunnelPenalty(id uint32) uint32 {
	if t := m.tunnels[id]; t != nil {
		return t.penalty
	}
	return 0
}
