package routes

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"causeway/pipeline"
	"causeway/pipeline/fib"
)

// viaKind says how next hops are described.
type viaKind uint8

const (
	viaHops        viaKind = iota // interfaces and gateways
	viaObject                     // a next hop object of the kernel, by id
	viaNamed                      // a gateway on an interface, by name; the configuration's
	viaAddress                    // a gateway wherever it is; the configuration's
	viaTunnel                     // a tunnel, by id
	viaTunnelSelf                 // our own address inside a tunnel, by id
	viaKernel                     // the host itself
	viaBlackhole                  // RTN_BLACKHOLE
	viaUnreachable                // RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW
	viaUncovered                  // a prefix that has routes in other places alone, or none that was learned, by id; the configuration's
)

// fixedLeaves are those of kinds that depend on nothing.
var fixedLeaves = map[viaKind]pipeline.Kind{
	viaKernel: pipeline.KindKernel, viaBlackhole: pipeline.KindBlackhole, viaUnreachable: pipeline.KindUnreachable,
	viaTunnel: pipeline.KindTunnel, viaTunnelSelf: pipeline.KindTunnelAddress, viaUncovered: pipeline.KindBlackhole,
}

// viaSpec describes next hops.
type viaSpec struct {
	kind    viaKind
	hops    []hop      // viaHops
	id      uint32     // viaObject, viaTunnel, viaTunnelSelf; viaUncovered: index of the leaf
	account uint16     // viaHops, viaObject: the table whose tunnels' devices the hops are, see learn.go; 0: they are no tunnel's
	name    string     // viaNamed: interface; viaTunnel: tunnel, for people
	addr    netip.Addr // viaNamed, viaAddress
}

// key makes equal next hops equal: most of a million routes lead to a few of them.
func (s *viaSpec) key(b []byte) []byte {
	b = append(b[:0], byte(s.kind))
	switch s.kind {
	case viaObject, viaTunnel, viaTunnelSelf, viaUncovered:
		return binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint32(b, s.id), s.account)
	case viaNamed, viaAddress:
		return append(append(b, s.addr.AsSlice()...), s.name...)
	}
	b = binary.NativeEndian.AppendUint16(b, s.account)
	for i := range s.hops {
		h := &s.hops[i]
		b = binary.NativeEndian.AppendUint32(b, uint32(h.ifindex))
		b = binary.NativeEndian.AppendUint16(b, h.weight)
		b = append(b, uint8(h.gateway.BitLen()))
		b = append(b, h.gateway.AsSlice()...)
	}
	return b
}

// A via is next hops that any number of paths share, resolved to one leaf. Its leaf changes in one place, and with
// several hops even that does not: its equal-cost group is updated in place, so a million routes over two uplinks
// survive the loss of one without a single change to the table.
type via struct {
	spec    viaSpec
	first   uint32        // path
	leaf    pipeline.Leaf // 0: unusable now
	members []fib.Member  // what leaf stands for: one, or those of group
	penalty uint32        // by which priorities are worse, see SetPenalty
	learned uint32        // paths of the table spec.account
	group   uint32        // own equal-cost group, 0: none
	slots   []uint32      // neighbours that it holds
	dirty   bool          // is in pending.vias
	idle    bool          // is in pending.idle
	live    bool
}

// viaTable finds next hops by what they are.
type viaTable struct {
	arena[via]
	index   map[string]uint32
	scratch []byte
}

func newViaTable() viaTable { return viaTable{index: map[string]uint32{}} }

// via returns the number of next hops s, resolved. s is not kept. If they are new and several, their group begins as a
// copy of group from (0: none), that of the path which they replace, so that the flows of hops in both stay where they
// are.
func (m *Manager) via(s *viaSpec, from uint32) uint32 {
	t := &m.vias
	t.scratch = s.key(t.scratch)
	if i, ok := t.index[string(t.scratch)]; ok {
		return i
	}
	i, v := t.alloc()
	*v = via{spec: *s, live: true}
	v.spec.hops = slices.Clone(s.hops)
	t.index[string(t.scratch)] = i
	if s.kind == viaAddress {
		m.watch.add(s.addr, watcher{watchVia, i})
	}
	m.resolve(v, from)
	m.rest(i) // until a path takes it
	return i
}

// rest notes that a via has no path; if that is still so at the next tick it goes.
func (m *Manager) rest(i uint32) {
	if v := m.vias.at(i); !v.idle {
		v.idle = true
		m.pending.idle = append(m.pending.idle, i)
	}
}

// freeIdle releases the next hops that no path uses any more.
func (m *Manager) freeIdle() {
	for _, i := range m.pending.idle {
		v := m.vias.at(i)
		v.idle = false
		if v.first != 0 {
			continue
		}
		m.vias.scratch = v.spec.key(m.vias.scratch)
		delete(m.vias.index, string(m.vias.scratch))
		if v.spec.kind == viaAddress {
			m.watch.remove(v.spec.addr, watcher{watchVia, i})
		}
		m.releaseSlots(v.slots)
		m.groups.release(v.group)
		m.vias.free(i)
	}
	m.pending.idle = m.pending.idle[:0]
}

// link enters path i into the list of those with next hops v.
func (m *Manager) link(i, v uint32) {
	p, t := m.rib.paths.at(i), m.vias.at(v)
	p.via, p.viaPrev, p.viaNext = v, 0, t.first
	if p.source == sourceLearned && m.rib.entries.at(p.entry).key.vrf == t.spec.account {
		t.learned++
	}
	if t.first != 0 {
		m.rib.paths.at(t.first).viaPrev = i
	}
	t.first = i
}

func (m *Manager) unlink(i uint32) {
	p := m.rib.paths.at(i)
	v := m.vias.at(p.via)
	if p.source == sourceLearned && m.rib.entries.at(p.entry).key.vrf == v.spec.account {
		v.learned--
	}
	if p.viaNext != 0 {
		m.rib.paths.at(p.viaNext).viaPrev = p.viaPrev
	}
	if p.viaPrev != 0 {
		m.rib.paths.at(p.viaPrev).viaNext = p.viaNext
	} else if v.first = p.viaNext; v.first == 0 {
		m.rest(p.via)
	}
}

// dirtyVias marks the next hops that accept likes for another resolution.
func (m *Manager) dirtyVias(accept func(*via) bool) {
	for i := uint32(1); i <= m.vias.made; i++ {
		if v := m.vias.at(i); v.live && accept(v) {
			m.dirtyVia(i)
		}
	}
}

func (m *Manager) dirtyVia(i uint32) {
	if v := m.vias.at(i); v.live && !v.dirty {
		v.dirty = true
		m.pending.vias = append(m.pending.vias, i)
	}
}

// resolveDirty resolves next hops again and marks the prefixes that see a difference.
func (m *Manager) resolveDirty() {
	list := m.pending.vias
	m.pending.vias = nil
	for _, i := range list {
		v := m.vias.at(i)
		v.dirty = false
		if !v.live {
			continue
		}
		before, members, penalty := v.leaf, v.members, v.penalty
		m.resolve(v, 0)
		changed, worse := !slices.Equal(members, v.members), penalty != v.penalty
		if before == v.leaf && !changed && !worse {
			continue
		}
		if before == v.leaf && changed { // a group that changed in place: no prefix becomes dirty, and none would wake these
			m.dirtyVias(func(v *via) bool { return v.spec.kind == viaAddress })
		}
		// Where the leaf stays, only those see a difference who look behind it: prefixes that merge several paths, and hosts
		// and tunnels on a connected link.
		glean := gleans(members) || gleans(v.members)
		for p := v.first; p != 0; p = m.rib.paths.at(p).viaNext {
			at := m.rib.paths.at(p)
			if before == v.leaf && !glean && !worse && at.source.rank() != sourceConfig {
				break // so are all of them: next hops of the configuration, and of what is learned, are no others'
			}
			m.dirty(at.entry)
		}
	}
}

func gleans(list []fib.Member) bool {
	return slices.ContainsFunc(list, func(x fib.Member) bool { return pipeline.LeafKind(x.Value) == pipeline.KindGlean })
}

// resolve finds out what next hops lead to now.
func (m *Manager) resolve(v *via, from uint32) {
	held := v.slots
	v.penalty = m.penaltyOf(&v.spec)
	v.slots = nil // the new ones are taken before the old ones are given back, so that what stays keeps its number
	v.members = m.leaves(v)
	switch {
	case len(v.members) == 0:
		v.leaf = 0
	case v.group != 0: // also with one member left: then no prefix changes
		m.groups.update(v.group, v.members)
		v.leaf = m.groups.leaf(v.group, v.members)
	case len(v.members) == 1:
		v.leaf = v.members[0].Value
	default:
		v.group = m.groups.make(from, v.members)
		v.leaf = m.groups.leaf(v.group, v.members)
	}
	m.releaseSlots(held)
}

// leaves returns what the usable hops lead to, each once.
func (m *Manager) leaves(v *via) []fib.Member {
	s := &v.spec
	switch s.kind {
	case viaHops:
		return m.hopMembers(v, s.hops)
	case viaObject:
		return m.objectMembers(v, s.id)
	case viaNamed:
		if d := m.devices.named(s.name); d != nil {
			return m.hopMembers(v, []hop{{ifindex: d.ifindex, gateway: s.addr, weight: 1}})
		}
		return nil
	case viaAddress:
		return m.gatewayMembers(v, s.addr)
	}
	return []fib.Member{{Value: pipeline.MakeLeaf(fixedLeaves[s.kind], int(s.id)), Weight: 1}}
}

func (m *Manager) hopMembers(v *via, hops []hop) []fib.Member {
	var out []fib.Member
	for i := range hops {
		if m.hopPenalty(&hops[i]) > v.penalty { // the others are better
			continue
		}
		out = addMember(out, m.hopLeaf(v, &hops[i]), uint32(hops[i].weight))
	}
	return out
}

// hopLeaf resolves one hop; 0 if its interface is away or down.
func (m *Manager) hopLeaf(v *via, h *hop) pipeline.Leaf {
	d := m.devices.byIndex[h.ifindex]
	switch {
	case d == nil || !d.up():
		return 0
	case m.led[h.ifindex] != nil:
		return pipeline.MakeLeaf(pipeline.KindTunnel, int(m.led[h.ifindex].tunnel))
	case d.link < 0:
		return pipeline.MakeLeaf(pipeline.KindKernel, 0)
	case !m.devices.links[d.link].live:
		return 0 // the workers do not know the link yet
	case !h.gateway.IsValid():
		return pipeline.MakeLeaf(pipeline.KindGlean, d.link)
	}
	return m.holdSlot(&v.slots, hostKey{h.ifindex, h.gateway})
}

// gatewayMembers resolves a gateway that is given without an interface, through routes that are not of this kind
// themselves: so there are no loops. Where it is on a link, it is a neighbour whether or not it is resolved.
func (m *Manager) gatewayMembers(v *via, gateway netip.Addr) []fib.Member {
	var through []uint32
	m.rib.lookup(addrKey(0, gateway), func(e *entry) bool {
		through = m.best(e, nil, func(p *path, v *via) bool { return p.source != sourceNeighbour && v.spec.kind != viaAddress })
		return len(through) > 0
	})
	var out []fib.Member
	for _, x := range m.membersOf(through) {
		l := x.Value
		if pipeline.LeafKind(l) == pipeline.KindGlean {
			l = m.holdSlot(&v.slots, hostKey{m.devices.links[pipeline.LeafIndex(l)].ifindex, gateway})
		} else if pipeline.LeafKind(l) == pipeline.KindNeighbour {
			l = m.holdSlot(&v.slots, m.slots.list[pipeline.LeafIndex(l)].host)
		}
		out = addMember(out, l, x.Weight)
	}
	return out
}

// addMember adds weight to the member of that leaf; leaf 0 is left out.
func addMember(list []fib.Member, l pipeline.Leaf, weight uint32) []fib.Member {
	if l == 0 || weight == 0 {
		return list
	}
	for i := range list {
		if list[i].Value == l {
			list[i].Weight += weight
			return list
		}
	}
	return append(list, fib.Member{Value: l, Weight: weight})
}
