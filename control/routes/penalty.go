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
	m.dirtyRoutesInto(uint32(id))
	m.settle()
	m.reclaim()
}

// dirtyRoutesInto has the prefixes that lead into a tunnel placed again.
func (m *Manager) dirtyRoutesInto(id uint32) {
	t := &m.vias
	t.scratch = (&viaSpec{kind: viaTunnel, id: id}).key(t.scratch)
	i, ok := t.index[string(t.scratch)]
	if !ok {
		return
	}
	for p := t.at(i).first; p != 0; p = m.rib.paths.at(p).viaNext {
		m.dirty(m.rib.paths.at(p).entry)
	}
}

// somePenalised reports whether a path of e has a penalty. Then a group of one is kept: when the others come back its flows stay.
func (m *Manager) somePenalised(e *entry) bool {
	for i := e.first; i != 0; i = m.rib.paths.at(i).next {
		if m.penalty(m.vias.at(m.rib.paths.at(i).via)) > 0 {
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

// effective is a path's priority with the penalty of the tunnel that it leads into.
func (m *Manager) effective(p *path, v *via) uint64 { return uint64(p.priority) + uint64(m.penalty(v)) }

// penalty is that of the tunnel that next hops are.
func (m *Manager) penalty(v *via) uint32 {
	if v.spec.kind != viaTunnel {
		return 0
	}
	if t := m.tunnels[v.spec.id]; t != nil {
		return t.penalty
	}
	return 0
}
