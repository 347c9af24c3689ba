package routes

import (
	"causeway/pipeline"
	"causeway/pipeline/fib"
)

// An object is a next hop object of the kernel (`ip nexthop`), which FRR uses: routes name its id only, and it changes
// under them.
type object struct {
	hop       hop
	blackhole bool
	encap     bool
	members   []objectMember // a group if there are any
	seen      uint32
}

// setObject takes over a next hop object and has everything resolved again that uses it.
func (m *Manager) setObject(o *objectMessage) {
	was := m.ledByObject(m.objects[o.id])
	m.objects[o.id] = &object{o.hop, o.blackhole, o.encap, o.members, m.pass.number}
	if len(m.led) > 0 && m.ledByObject(m.objects[o.id]) != was {
		m.verify(verifyDelay) // its routes are another account's
	}
	m.dirtyObject(o.id)
}

func (m *Manager) deleteObject(id uint32) {
	if o := m.objects[id]; o != nil {
		if m.ledByObject(o) != nil {
			m.verify(verifyDelay)
		}
		delete(m.objects, id)
		m.dirtyObject(id)
	}
}

// dirtyObject marks the next hops that are object id, or a group in which it is.
func (m *Manager) dirtyObject(id uint32) {
	m.dirtyObjectVia(id)
	for group, o := range m.objects {
		for i := range o.members {
			if o.members[i].id == id {
				m.dirtyObjectVia(group)
			}
		}
	}
}

func (m *Manager) dirtyObjectVia(id uint32) {
	m.dirtyObjectOf(id, 0)
	for _, l := range m.led {
		m.dirtyObjectOf(id, l.account)
	}
}

func (m *Manager) dirtyObjectOf(id uint32, account uint16) {
	s := viaSpec{kind: viaObject, id: id, account: account}
	m.vias.scratch = s.key(m.vias.scratch)
	if i, ok := m.vias.index[string(m.vias.scratch)]; ok {
		m.dirtyVia(i)
	}
}

// objectMembers resolves a next hop object.
func (m *Manager) objectMembers(v *via, id uint32) []fib.Member {
	o := m.objects[id]
	if o == nil {
		return nil
	}
	if len(o.members) == 0 {
		return addMember(nil, m.objectLeaf(v, o), 1)
	}
	var out []fib.Member
	for _, x := range o.members { // the kernel allows no groups in groups
		if o := m.objects[x.id]; o != nil && len(o.members) == 0 && m.hopPenalty(&o.hop) <= v.penalty {
			out = addMember(out, m.objectLeaf(v, o), uint32(x.weight))
		}
	}
	return out
}

func (m *Manager) objectLeaf(v *via, o *object) pipeline.Leaf {
	switch {
	case m.accountOf(&o.hop) != v.spec.account:
		return 0
	case o.blackhole:
		return pipeline.MakeLeaf(pipeline.KindBlackhole, 0)
	case o.encap:
		return pipeline.MakeLeaf(pipeline.KindKernel, 0)
	}
	return m.hopLeaf(v, &o.hop)
}

// hopsOf are the hops of an object, or of those in it.
func (m *Manager) hopsOf(o *object) []hop {
	if len(o.members) == 0 {
		return []hop{o.hop}
	}
	var hops []hop
	for _, x := range o.members {
		if o := m.objects[x.id]; o != nil && len(o.members) == 0 {
			hops = append(hops, o.hop)
		}
	}
	return hops
}

// hopsOfVia are the hops of next hops, by way of objects too.
func (m *Manager) hopsOfVia(v *via) []hop {
	if o := m.objects[v.spec.id]; v.spec.kind == viaObject && o != nil {
		return m.hopsOf(o)
	}
	return v.spec.hops
}
