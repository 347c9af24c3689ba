package routes

import (
	"net/netip"

	"causeway/pipeline"
)

// A Hop is a neighbour that packets are sent to.
type Hop struct {
	Interface string
	Addr      netip.Addr
	Usable    bool // its link address is known
}

// Hops returns the neighbours that a leaf leads to now: one, several for an equal-cost group, none for other leaves.
func (m *Manager) Hops(leaf pipeline.Leaf) []Hop {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Hop
	for _, x := range m.groups.members(leaf) {
		i := pipeline.LeafIndex(x.Value)
		if pipeline.LeafKind(x.Value) != pipeline.KindNeighbour || i >= len(m.slots.list) {
			continue
		}
		h := m.slots.list[i].host
		out = append(out, Hop{m.interfaceName(h.ifindex), h.addr, m.neighbours[h].usable()})
	}
	return out
}
