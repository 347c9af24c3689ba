package routes

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"causeway/pipeline"
)

// hostKey is a host on a link. IPv6 addresses are without zone.
type hostKey struct {
	ifindex int
	addr    netip.Addr
}

// slotTable owns the neighbour slots that the workers read. Slots are counted: next hops and tunnels hold them.
type slotTable struct {
	list      []slot
	byHost    map[hostKey]uint32
	spare     []uint32
	dying     []uint32 // nobody held them at some moment; free after a batch boundary if that is still so
	exhausted uint64   // how often there was none left
}

type slot struct {
	host  hostKey
	users int
	dying bool // is in the list
	link  int
}

func newSlotTable() slotTable { return slotTable{byHost: map[hostKey]uint32{}} }

// holdSlot takes the slot of a host for one more user, who notes it in held, and returns its leaf: 0 if there is none left.
func (m *Manager) holdSlot(held *[]uint32, h hostKey) pipeline.Leaf {
	t := &m.slots
	i, ok := t.byHost[h]
	if !ok {
		if i, ok = t.take(); !ok {
			return 0
		}
		t.list[i] = slot{host: h, link: m.devices.byIndex[h.ifindex].link}
		t.byHost[h] = i
		m.publishSlot(i)
	}
	if t.list[i].users++; t.list[i].users == 1 {
		m.ask(h, m.neighbours[h]) // also when a link is back: while it is down nobody holds its slots
	}
	*held = append(*held, i)
	return pipeline.MakeLeaf(pipeline.KindNeighbour, int(i))
}

func (t *slotTable) take() (uint32, bool) {
	if n := len(t.spare); n > 0 {
		i := t.spare[n-1]
		t.spare = t.spare[:n-1]
		return i, true
	}
	if len(t.list) == pipeline.MaxNeighbours {
		t.exhausted++
		return 0, false
	}
	t.list = append(t.list, slot{})
	return uint32(len(t.list) - 1), true
}

func (m *Manager) releaseSlots(held []uint32) {
	t := &m.slots
	for _, i := range held {
		s := &t.list[i]
		if s.users--; s.users == 0 && !s.dying {
			s.dying = true
			t.dying = append(t.dying, i)
		}
	}
}

// freeSlots makes slots that nobody took up again available. The workers have passed a batch boundary since.
func (m *Manager) freeSlots(dying []uint32) {
	t := &m.slots
	for _, i := range dying {
		s := &t.list[i]
		s.dying = false
		if s.users > 0 {
			continue
		}
		delete(t.byHost, s.host)
		m.fwd.SetNeighbour(int(i), 0, [6]byte{}, false)
		m.asks.forget(s.host, m.neighbours[s.host])
		*s = slot{}
		t.spare = append(t.spare, i)
	}
}

// publishSlot tells the workers what is known about the host of slot i.
func (m *Manager) publishSlot(i uint32) {
	s := &m.slots.list[i]
	n := m.neighbours[s.host]
	if n.usable() {
		m.fwd.SetNeighbour(int(i), s.link, n.mac, true)
	} else {
		m.fwd.SetNeighbour(int(i), s.link, [6]byte{}, false)
	}
}

// A neighbour is an entry of the kernel's neighbour table on one of our links.
type neighbour struct {
	neighbourMessage
	seen uint32
}

// usable reports whether frames can be sent to it: what the kernel itself would do (NUD_VALID less NUD_NOARP).
func (n *neighbour) usable() bool {
	const ok = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
	return n != nil && n.hasMAC && n.state&ok != 0
}

// setNeighbour takes over what the kernel knows about a host.
func (m *Manager) setNeighbour(msg *neighbourMessage) {
	h := hostKey{msg.ifindex, msg.addr}
	n := m.neighbours[h]
	if n == nil {
		n = &neighbour{}
		m.neighbours[h] = n
		m.watch.add(h.addr, watcher{watchNeighbour, uint32(h.ifindex)})
	}
	n.neighbourMessage, n.seen = *msg, m.pass.number
	m.pending.neighbours[h] = struct{}{}
	if i, ok := m.slots.byHost[h]; ok {
		m.publishSlot(i)
		if n.state&netlink.NUD_STALE != 0 && !n.managed {
			m.ask(h, n) // the kernel sees none of its traffic and would forget it
		}
	} else if _, ours := m.asks.kept[h]; ours {
		m.asks.forget(h, n) // its last user went before the kernel had answered
	}
}

func (m *Manager) deleteNeighbour(h hostKey) {
	if m.neighbours[h] == nil {
		return
	}
	delete(m.neighbours, h)
	if i, ok := m.slots.byHost[h]; ok {
		m.publishSlot(i)
	} else {
		delete(m.asks.kept, h)
	}
	m.watch.remove(h.addr, watcher{watchNeighbour, uint32(h.ifindex)})
	m.pending.neighbours[h] = struct{}{}
}

// considerNeighbour gives a host its route if it is resolved and the routes say that it is on this link, or takes the
// route away.
func (m *Manager) considerNeighbour(h hostKey) {
	k := addrKey(0, h.addr)
	d := m.devices.byIndex[h.ifindex]
	if m.neighbours[h].usable() && !h.addr.IsLinkLocalUnicast() && d != nil && d.link >= 0 && m.connected(k, d.link) {
		v := m.via(&viaSpec{kind: viaHops, hops: []hop{{ifindex: h.ifindex, gateway: h.addr, weight: 1}}}, 0)
		m.setPath(pathKey{k, sourceNeighbour, uint32(h.ifindex), 0}, v, 1, 0)
		return
	}
	if e, ok := m.rib.index[k]; ok {
		if i := m.rib.find(e, &pathKey{k, sourceNeighbour, uint32(h.ifindex), 0}, 0); i != 0 {
			m.deletePath(i)
		}
	}
}

// connected reports whether packets to the host k are for the link itself, neighbours' routes left aside.
func (m *Manager) connected(k prefixKey, link int) bool {
	glean := pipeline.MakeLeaf(pipeline.KindGlean, link)
	on := false
	m.rib.lookup(k, func(e *entry) bool {
		paths := m.best(e, nil, func(p *path, _ *via) bool { return p.source != sourceNeighbour })
		for _, x := range m.membersOf(paths) {
			on = on || x.Value == glean
		}
		return len(paths) > 0
	})
	return on
}
