package routes

import (
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// messageKind is what a netlink message is about. Dumps come in this order: each kind refers to those before it.
type messageKind uint8

const (
	kindLink messageKind = iota
	kindAddress
	kindObject
	kindNeighbour
	kindRoute4
	kindRoute6
	messageKinds
)

// takeEvents works off announcements of the kernel.
func (m *Manager) takeEvents(c chunk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for b := c.data; len(b) >= unix.NLMSG_HDRLEN; {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			break
		}
		m.event(binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), b[unix.NLMSG_HDRLEN:n])
		b = b[min((n+3)&^3, len(b)):]
	}
	if c.lost {
		m.stats.Overruns++
		m.loseTrack()
	}
	m.settle()
	if !c.at.IsZero() {
		m.stats.Lag = time.Since(c.at)
		m.stats.MaxLag = max(m.stats.MaxLag, m.stats.Lag)
	}
	m.events.recycle(c)
}

// event takes one message in. One that cannot be decoded is as good as lost.
func (m *Manager) event(typ, flags uint16, body []byte) {
	m.stats.Updates++
	var err error
	switch typ {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if err = m.message.decode(body); err == nil {
			m.routeEvent(&m.message, typ == unix.RTM_DELROUTE, flags)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		var n neighbourMessage
		if err = n.decode(body); err == nil && m.wanted(&n) {
			m.touch(kindNeighbour, hostKey{n.ifindex, n.addr})
			if typ == unix.RTM_DELNEIGH {
				m.deleteNeighbour(hostKey{n.ifindex, n.addr})
			} else {
				m.setNeighbour(&n)
			}
		}
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		var l linkMessage
		if err = l.decode(body); err == nil && l.family == unix.AF_UNSPEC { // bridges speak of their ports with AF_BRIDGE
			m.touch(kindLink, l.ifindex)
			if typ == unix.RTM_DELLINK {
				m.deleteDevice(l.ifindex)
			} else {
				m.setDevice(&l)
			}
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		var a addressMessage
		if err = a.decode(body); err == nil {
			m.touch(kindAddress, a)
			if typ == unix.RTM_DELADDR {
				m.deleteAddress(&a)
			} else {
				m.setAddress(&a)
			}
		}
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		var o objectMessage
		if err = o.decode(body); err == nil {
			m.touch(kindObject, o.id)
			if typ == unix.RTM_DELNEXTHOP {
				m.deleteObject(o.id)
				m.verify(verifyDelay) // its IPv4 routes go without a word
			} else {
				m.setObject(&o)
			}
		}
	}
	if err != nil {
		m.stats.Malformed++
		m.verify(verifyDelay)
	}
}

// wanted picks the neighbours on links of the workers.
func (m *Manager) wanted(n *neighbourMessage) bool {
	d := m.devices.byIndex[n.ifindex]
	return d != nil && d.link >= 0 && (n.family == unix.AF_INET || n.family == unix.AF_INET6) &&
		n.addr.IsValid() && !n.addr.IsMulticast() && n.flags&ntfProxy == 0
}

const ntfProxy = 0x08 // an address that we answer for, not a neighbour

// route picks the routes that are mirrored, and says which path each is and what it leads to. A route over the device of a tunnel, led, is
// that tunnel's account's, whatever table a routing daemon has put it into.
func (m *Manager) route(r *routeMessage) (k pathKey, s viaSpec, led *led, ok bool) {
	k, s, ok = r.route()
	if len(m.led) == 0 {
		return k, s, nil, ok
	}
	if led = m.leads(r); led == nil {
		return k, s, nil, ok
	}
	if r.protocol == unix.RTPROT_KERNEL || r.kind != unix.RTN_UNICAST || !r.wanted() { // the device's own
		return k, s, led, false
	}
	k = pathKey{keyOf(led.account, r.prefix), sourceLearned, r.metric, r.table}
	if s = (viaSpec{kind: viaObject, id: r.nexthop, account: led.account}); r.nexthop == 0 {
		s = viaSpec{kind: viaHops, account: led.account, hops: m.ofAccount(led.account, r.hops)}
	}
	return k, s, led, true
}

// wanted reports whether a route is one that packets can follow.
func (r *routeMessage) wanted() bool {
	if !r.prefix.IsValid() || r.cloned || r.tos != 0 {
		return false
	}
	a := r.prefix.Addr()
	return !a.IsMulticast() && (a.Is4() || !a.IsLinkLocalUnicast() || r.prefix.Bits() == 0) // never routed (RFC 4291 2.5.6)
}

// route is Manager.route, if no tunnel has a device.
func (r *routeMessage) route() (k pathKey, s viaSpec, ok bool) {
	k.priority = r.metric
	switch r.table {
	case unix.RT_TABLE_MAIN:
		k.source = sourceKernel
	case unix.RT_TABLE_LOCAL:
		k.source = sourceLocal
	default:
		return k, s, false
	}
	if !r.wanted() {
		return k, s, false
	}
	k.prefixKey = keyOf(0, r.prefix)
	if r.nexthop != 0 { // whatever it is now, a blackhole for example; the hops repeated for old readers are not looked at
		s.kind, s.id = viaObject, r.nexthop
		return k, s, true
	}
	switch r.kind {
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST:
		s.kind = viaKernel
	case unix.RTN_BLACKHOLE:
		s.kind = viaBlackhole
	case unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		s.kind = viaUnreachable
	case unix.RTN_UNICAST:
		if s.kind, s.hops = viaHops, r.hops; r.encap {
			s = viaSpec{kind: viaKernel}
		}
	default:
		return k, s, false
	}
	return k, s, true
}

// routeEvent takes an announcement about a route in. The kernel may hold several routes that announcements do not tell apart
// (`ip route append`); then the first counts, and a dump is asked for whenever one of them changes.
func (m *Manager) routeEvent(r *routeMessage, del bool, flags uint16) {
	k, s, led, ok := m.route(r)
	if !del && len(m.led) > 0 && m.hasMoved(k, led, ok, flags) {
		m.verify(verifyDelay)
	}
	if !ok {
		return
	}
	mixed := led != nil && s.mixed(r)
	m.takeRoute(k, &s, del, flags, mixed)
	for _, vrf := range led.others(r.prefix) {
		k.vrf = vrf
		m.takeRoute(k, &s, del, flags, mixed)
	}
}

// mixed reports whether s is a part of a route alone, whose other hops are another account's or no tunnel's. When a hop of such a one goes, what it
// is has to be asked.
func (s *viaSpec) mixed(r *routeMessage) bool { return s.kind == viaHops && len(s.hops) < len(r.hops) }

// hasMoved reports whether a route, k if it is mirrored, may have taken the place of one in other tables: of one over another device.
func (m *Manager) hasMoved(k pathKey, led *led, mirrored bool, flags uint16) bool {
	if old := m.kernelPath(k); mirrored && old != 0 {
		return m.ledBy(&m.vias.at(m.rib.paths.at(old).via).spec) != led
	}
	return flags&(unix.NLM_F_REPLACE|unix.NLM_F_APPEND) != 0
}

// takeRoute takes it into one table.
func (m *Manager) takeRoute(k pathKey, s *viaSpec, del bool, flags uint16, mixed bool) {
	m.touch(kindRoute4+messageKind(family(k.v6)), k)
	old := m.kernelPath(k)
	switch {
	case del && old != 0:
		m.removeRoute(old, s, k.v6)
	case del:
	case old != 0 && !k.v6 && flags&unix.NLM_F_APPEND != 0 && flags&unix.NLM_F_REPLACE == 0:
		p := m.rib.paths.at(old)
		p.seen, p.crowded = m.pass.number, true
		m.verify(verifyDelay)
	default:
		before := uint32(0)
		if old != 0 {
			before = m.rib.paths.at(old).via
		}
		p := m.setKernelPath(k, s, old)
		p.crowded = p.crowded || mixed
		// Neither a replacement nor new to us: either the old one went without a word, or there are two now.
		if old != 0 && p.via != before && flags&(unix.NLM_F_REPLACE|unix.NLM_F_APPEND) == 0 {
			p.crowded = true
			m.verify(verifyDelay)
		}
	}
}

func (m *Manager) kernelPath(k pathKey) uint32 {
	e, ok := m.rib.index[k.prefixKey]
	if !ok {
		return 0
	}
	return m.rib.find(e, &k, 0)
}

// setKernelPath adds the path, or changes path old.
func (m *Manager) setKernelPath(k pathKey, s *viaSpec, old uint32) *path {
	from := uint32(0)
	if old != 0 {
		from = m.vias.at(m.rib.paths.at(old).via).group
	}
	return m.setPath(k, m.via(s, from), 1, m.pass.number)
}

// removeRoute takes away path i, or what s names of it: the hops of an IPv6 route are announced one by one when they go.
func (m *Manager) removeRoute(i uint32, s *viaSpec, v6 bool) {
	p := m.rib.paths.at(i)
	v := m.vias.at(p.via)
	if v6 && s.kind == viaHops && v.spec.kind == viaHops {
		rest := slices.DeleteFunc(slices.Clone(v.spec.hops), func(h hop) bool {
			return slices.ContainsFunc(s.hops, func(gone hop) bool { return gone.ifindex == h.ifindex && gone.gateway == h.gateway })
		})
		if n := len(rest); n > 0 {
			if n == len(v.spec.hops) {
				m.verify(verifyDelay) // another route of the same identity
				return
			}
			e := m.rib.entries.at(p.entry)
			m.setPath(pathKey{e.key, p.source, p.priority, p.table}, m.via(&viaSpec{kind: viaHops, account: v.spec.account, hops: rest}, v.group), 1, m.pass.number)
			return
		}
	}
	if p.crowded {
		m.verify(verifyDelay)
		if !v6 && string(v.spec.key(nil)) != string(s.key(nil)) {
			return // another one went
		}
	}
	m.deletePath(i)
}
