package routes

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"causeway/pipeline"
)

// A device is a network interface of the kernel.
type device struct {
	linkMessage
	link  int // number of the workers' link; -1: not a port and not a VLAN on one
	addrs []deviceAddr
	seen  uint32
}

type deviceAddr struct {
	prefix netip.Prefix
	seen   uint32
}

// up reports whether frames can leave: administratively up and with a carrier.
func (d *device) up() bool { return d.flags&unix.IFF_UP != 0 && d.flags&unix.IFF_RUNNING != 0 }

// deviceTable knows the kernel's interfaces and gives numbers to those that are links of the workers: first the ports
// in their order, then VLANs as they come.
type deviceTable struct {
	ports   []Port
	byIndex map[int]*device
	links   []linkRef
	retired []int // links that went away; their numbers are free after a batch boundary
	spare   []int
	retry   bool // OnLinks has failed
}

type linkRef struct {
	ifindex int // 0: went away
	spec    pipeline.LinkSpec
	live    bool // the workers know it
}

func newDeviceTable(ports []Port) deviceTable {
	t := deviceTable{ports: slices.Clone(ports), byIndex: map[int]*device{}}
	for _, p := range ports {
		t.links = append(t.links, linkRef{ifindex: p.Ifindex, spec: pipeline.LinkSpec{Port: p.Index}, live: true})
	}
	return t
}

func (t *deviceTable) named(name string) *device {
	for _, d := range t.byIndex {
		if d.name == name {
			return d
		}
	}
	return nil
}

// specs describes the links for the engine. One that went away keeps its place until the number is used again.
func (t *deviceTable) specs() []pipeline.LinkSpec {
	out := make([]pipeline.LinkSpec, len(t.links))
	for i := range t.links {
		out[i] = t.links[i].spec
	}
	return out
}

// enliven notes that the workers know the first n links, and reports whether that is news for any.
func (t *deviceTable) enliven(n int) bool {
	news := false
	for i := range t.links[:n] {
		news = news || !t.links[i].live
		t.links[i].live = true
	}
	return news
}

// assign finds the link of a new device: a port, a VLAN on a port, or -1.
func (t *deviceTable) assign(d *device) int {
	for i, p := range t.ports {
		if p.Ifindex == d.ifindex {
			return i
		}
	}
	if !d.isVLAN {
		return -1
	}
	for _, p := range t.ports {
		if p.Ifindex == d.parent {
			return t.add(linkRef{ifindex: d.ifindex, spec: pipeline.LinkSpec{Port: p.Index, VLAN: d.vlan}})
		}
	}
	return -1
}

func (t *deviceTable) add(l linkRef) int {
	if n := len(t.spare); n > 0 {
		i := t.spare[n-1]
		t.spare = t.spare[:n-1]
		t.links[i] = l
		return i
	}
	if len(t.links) == pipeline.MaxLinks {
		return -1 // more VLANs than that go through the kernel
	}
	t.links = append(t.links, l)
	return len(t.links) - 1
}

// describe brings the link of d up to date and reports whether the workers must be told.
func (t *deviceTable) describe(d *device) bool {
	if d.link < 0 {
		return false
	}
	l := &t.links[d.link]
	s := pipeline.LinkSpec{Port: l.spec.Port, VLAN: l.spec.VLAN, MAC: d.mac, MTU: d.mtu}
	for _, a := range d.addrs {
		switch addr := a.prefix.Addr(); {
		case addr.Is4() && !s.Addr4.IsValid():
			s.Addr4 = addr
		case addr.Is6() && !s.Addr6.IsValid():
			s.Addr6 = addr
		}
	}
	changed := l.spec != s || !l.live
	l.spec = s
	return changed
}

// setDevice takes over what the kernel says about an interface.
func (m *Manager) setDevice(msg *linkMessage) {
	t := &m.devices
	d := t.byIndex[msg.ifindex]
	fresh := d == nil
	if fresh {
		d = &device{}
		t.byIndex[msg.ifindex] = d
	}
	before := *d
	d.linkMessage, d.seen = *msg, m.pass.number
	if fresh {
		d.link = t.assign(d)
	}
	m.pending.links = t.describe(d) || m.pending.links
	if !fresh && before.up() == d.up() && before.name == d.name {
		return
	}
	m.dirtyDevice(d.ifindex)
	if before.up() && !d.up() {
		m.verify(verifyDelay)
	}
}

func (m *Manager) deleteDevice(ifindex int) {
	t := &m.devices
	d := t.byIndex[ifindex]
	if d == nil {
		return
	}
	delete(t.byIndex, ifindex)
	if d.link >= len(t.ports) {
		t.links[d.link].ifindex = 0
		t.links[d.link].live = false
		t.retired = append(t.retired, d.link)
	}
	m.dirtyDevice(ifindex)
	m.verify(verifyDelay)
}

// dirtyDevice has everything resolved again that may lead over an interface.
func (m *Manager) dirtyDevice(ifindex int) {
	m.dirtyVias(func(v *via) bool {
		switch v.spec.kind {
		case viaHops:
			return slices.ContainsFunc(v.spec.hops, func(h hop) bool { return h.ifindex == ifindex })
		case viaObject, viaNamed, viaAddress:
			return true
		}
		return false
	})
	for h := range m.neighbours {
		if h.ifindex == ifindex {
			m.pending.neighbours[h] = struct{}{}
		}
	}
}

func (m *Manager) setAddress(a *addressMessage) {
	d := m.devices.byIndex[a.ifindex]
	if d == nil || a.scope != unix.RT_SCOPE_UNIVERSE || a.addr.Addr().IsLinkLocalUnicast() {
		return
	}
	i := slices.IndexFunc(d.addrs, func(x deviceAddr) bool { return x.prefix == a.addr })
	if i < 0 {
		i = len(d.addrs)
		d.addrs = append(d.addrs, deviceAddr{prefix: a.addr})
	}
	d.addrs[i].seen = m.pass.number
	m.pending.links = m.devices.describe(d) || m.pending.links
}

func (m *Manager) deleteAddress(a *addressMessage) {
	d := m.devices.byIndex[a.ifindex]
	if d == nil {
		return
	}
	d.addrs = slices.DeleteFunc(d.addrs, func(x deviceAddr) bool { return x.prefix == a.addr })
	m.pending.links = m.devices.describe(d) || m.pending.links
	m.verify(verifyDelay) // routes that preferred it as their source go without a word
}
