package routes

import (
	"context"
	"errors"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	verifyDelay = 20 * time.Millisecond // lets the rest of a burst come in
	retryDelay  = time.Second           // after a dump that failed
	dumpBatch   = 512                   // messages that the writer takes in at a time
)

// pass is one walk over all the kernel's tables. Announcements go on meanwhile, on their own socket; whatever they
// touch is newer than the dump, or about to be touched again.
type pass struct {
	socket  *nl.NetlinkSocket
	number  uint32
	running bool
	wanted  bool
	due     time.Time
	began   time.Time
	took    time.Duration
	touched map[any]struct{}   // hostKey, pathKey ...: what announcements changed during the pass
	changed [messageKinds]bool // whether they did, or were lost
	tables  []uint32           // whose routes are read; RT_TABLE_UNSPEC: all tables
	again   bool               // something was missing but may only have been overlooked
	failed  bool
}

// dumped is a part of a dump: messages of one kind, the end of a kind, or the end of the pass.
type dumped struct {
	kind     messageKind
	messages [][]byte
	done     bool
	err      error
}

// verify asks for a pass soon. Passes take at most a fifth of the time, however often they are asked for.
func (m *Manager) verify(delay time.Duration) {
	due := time.Now().Add(delay)
	if rest := m.pass.began.Add(5 * m.pass.took); rest.After(due) {
		due = rest
	}
	if !m.pass.wanted || due.Before(m.pass.due) {
		m.pass.wanted, m.pass.due = true, due
	}
}

// loseTrack notes that announcements were lost: a new pass is due, and the one that is running sees changes that it
// does not know of.
func (m *Manager) loseTrack() {
	for i := range m.pass.changed {
		m.pass.changed[i] = true
	}
	m.pass.wanted, m.pass.due = true, time.Now()
}

// touch notes a change during a pass.
func (m *Manager) touch(kind messageKind, key any) {
	if m.pass.running {
		m.pass.touched[key] = struct{}{}
		m.pass.changed[kind] = true
	}
}

func (m *Manager) untouched(key any) bool {
	_, ok := m.pass.touched[key]
	return !ok
}

// beginPass reports whether a pass is to be started now.
func (m *Manager) beginPass() bool {
	p := &m.pass
	if p.running || !p.wanted || time.Now().Before(p.due) {
		return false
	}
	p.number++
	p.running, p.wanted, p.again, p.failed = true, false, false, false
	p.changed = [messageKinds]bool{}
	p.touched = map[any]struct{}{}
	p.began = time.Now()
	p.tables = []uint32{unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN}
	if len(m.led) > 0 { // routing daemons may have a table for each tunnel
		p.tables = []uint32{unix.RT_TABLE_UNSPEC}
	}
	m.stats.Resyncs++
	return true
}

// dump reads everything and hands it to the writer.
func (m *Manager) dump(ctx context.Context) {
	send := func(d dumped) bool {
		select {
		case m.dumps <- d:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for kind := range messageKinds {
		d := dumped{kind: kind}
		err := m.request(kind, func(b []byte) bool {
			d.messages = append(d.messages, b)
			if len(d.messages) < dumpBatch {
				return true
			}
			full := d
			d.messages = nil
			return send(full)
		})
		d.done, d.err = true, err
		if !send(d) {
			return
		}
	}
	send(dumped{kind: messageKinds, done: true})
}

// request asks the kernel for all messages of a kind.
func (m *Manager) request(kind messageKind, f func([]byte) bool) error {
	ask := func(get, reply uint16, body nl.NetlinkRequestData, attrs ...nl.NetlinkRequestData) error {
		req := nl.NewNetlinkRequest(int(get), unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: m.pass.socket, Seq: req.Seq}}
		req.AddData(body)
		for _, a := range attrs {
			req.AddData(a)
		}
		return req.ExecuteIter(unix.NETLINK_ROUTE, reply, f)
	}
	switch kind {
	case kindLink:
		const skipStats = 8 // RTEXT_FILTER_SKIP_STATS
		return ask(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC),
			nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	case kindAddress:
		return ask(unix.RTM_GETADDR, unix.RTM_NEWADDR, plain(make([]byte, unix.SizeofIfAddrmsg)))
	case kindObject:
		return ask(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, plain(make([]byte, 8)))
	case kindNeighbour:
		return ask(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, plain(make([]byte, unix.SizeofNdMsg)))
	}
	header := make(plain, unix.SizeofRtMsg)
	header[0] = unix.AF_INET
	if kind == kindRoute6 {
		header[0] = unix.AF_INET6
	}
	for _, table := range m.pass.tables {
		err := ask(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, header, nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(table)))
		if err != nil && !errors.Is(err, unix.ENOENT) { // a namespace without routes has no such table yet
			return err
		}
	}
	return nil
}

// plain is a fixed header as it goes over the wire.
type plain []byte

func (p plain) Len() int          { return len(p) }
func (p plain) Serialize() []byte { return p }

// takeDump works off a part of a dump.
func (m *Manager) takeDump(d dumped) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range d.messages {
		m.dumpedMessage(d.kind, b)
	}
	switch {
	case d.kind == messageKinds:
		m.endPass()
	case d.err != nil:
		m.pass.again, m.pass.failed = true, true
		if !errors.Is(d.err, nl.ErrDumpInterrupted) {
			m.log.Error("the kernel's tables cannot be read; trying again", "error", d.err)
		}
	case d.done:
		m.sweep(d.kind)
	}
	m.settle()
}

func (m *Manager) dumpedMessage(kind messageKind, b []byte) {
	var err error
	switch kind {
	case kindLink:
		var l linkMessage
		if err = l.decode(b); err == nil && m.untouched(l.ifindex) {
			m.setDevice(&l)
		}
	case kindAddress:
		var a addressMessage
		if err = a.decode(b); err == nil && m.untouched(a) {
			m.setAddress(&a)
		}
	case kindObject:
		var o objectMessage
		if err = o.decode(b); err == nil && m.untouched(o.id) {
			m.setObject(&o)
		}
	case kindNeighbour:
		var n neighbourMessage
		if err = n.decode(b); err == nil && m.wanted(&n) && m.untouched(hostKey{n.ifindex, n.addr}) {
			m.setNeighbour(&n)
		}
	default:
		if err = m.message.decode(b); err == nil {
			m.dumpedRoute(&m.message)
		}
	}
	if err != nil {
		m.stats.Malformed++
	}
}

// dumpedRoute takes a route of a dump in. Of several with one identity the first is the one that the kernel uses.
func (m *Manager) dumpedRoute(r *routeMessage) {
	k, s, led, ok := m.route(r)
	if !ok {
		return
	}
	mixed := led != nil && s.mixed(r)
	m.takeDumped(k, &s, mixed)
	for _, vrf := range led.others(r.prefix) {
		k.vrf = vrf
		m.takeDumped(k, &s, mixed)
	}
}

// takeDumped takes it into one table.
func (m *Manager) takeDumped(k pathKey, s *viaSpec, mixed bool) {
	if len(m.pass.touched) > 0 && !m.untouched(k) {
		return
	}
	old := m.kernelPath(k)
	if old != 0 {
		if p := m.rib.paths.at(old); p.seen == m.pass.number {
			p.crowded = true
			return
		}
	}
	m.setKernelPath(k, s, old).crowded = mixed
}

// sweep withdraws what the kernel no longer has. What is missing may only have been overlooked if the table changed
// while it was read; then it goes when the next pass has not seen it either.
func (m *Manager) sweep(kind messageKind) {
	limit := m.pass.number // gone: last seen before this pass
	if m.pass.changed[kind] {
		limit--
	}
	gone := func(seen uint32) bool {
		m.pass.again = m.pass.again || seen == limit && seen != m.pass.number
		return seen < limit
	}
	switch kind {
	case kindLink:
		for i, d := range m.devices.byIndex {
			if gone(d.seen) {
				m.deleteDevice(i)
			}
		}
	case kindAddress:
		m.sweepAddresses(gone)
	case kindObject:
		for id, o := range m.objects {
			if gone(o.seen) {
				m.deleteObject(id)
			}
		}
	case kindNeighbour:
		for h, n := range m.neighbours {
			if gone(n.seen) {
				m.deleteNeighbour(h)
			}
		}
	default:
		v6 := kind == kindRoute6
		m.stats.Swept += uint64(m.sweepPaths(func(p *path) bool {
			return (p.source == sourceKernel || p.source == sourceLocal || p.source == sourceLearned) && m.rib.entries.at(p.entry).key.v6 == v6 && gone(p.seen)
		}))
	}
}

func (m *Manager) sweepAddresses(gone func(uint32) bool) {
	for _, d := range m.devices.byIndex {
		kept := d.addrs[:0]
		for _, a := range d.addrs {
			if !gone(a.seen) {
				kept = append(kept, a)
			}
		}
		d.addrs = kept
		m.pending.links = m.devices.describe(d) || m.pending.links
	}
}

func (m *Manager) endPass() {
	p := &m.pass
	p.running, p.touched = false, nil
	p.took = time.Since(p.began)
	m.stats.ResyncTime = p.took
	switch {
	case p.failed:
		m.verify(retryDelay)
	case p.again:
		m.verify(verifyDelay)
	}
	if !p.failed {
		select {
		case <-m.ready:
		default:
			close(m.ready)
		}
	}
}

// readLinks fills the link table once, before there is anything else.
func (m *Manager) readLinks() error {
	for _, kind := range []messageKind{kindLink, kindAddress} {
		err := m.request(kind, func(b []byte) bool {
			m.dumpedMessage(kind, b)
			return true
		})
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	for i := range m.devices.links {
		m.devices.links[i].live = true // Links tells them, and the daemon applies them before it calls anything else
	}
	m.pending.links = false
	return nil
}
