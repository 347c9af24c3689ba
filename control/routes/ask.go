package routes

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"causeway/pipeline"
)

// Limits of what the kernel is asked.
const (
	askInterval     = time.Second      // between two questions about one host
	refreshInterval = 15 * time.Second // where the kernel cannot keep neighbours fresh by itself: half of its base_reachable_time
	askMemory       = 8192             // hosts whose last question is remembered
	askQueue        = 1024
	gleansPerTick   = 8 // new hosts on connected prefixes: packets to addresses that nobody has are an attack on the kernel's table
)

// asker has the kernel resolve neighbours, on a goroutine of its own because the kernel answers each request.
type asker struct {
	handle *netlink.Handle
	queue  chan question
	last   map[hostKey]time.Time // guarded by Manager.mu
	kept   map[hostKey]struct{}  // whom the kernel may have been asked to keep fresh; guarded by Manager.mu
	gleans int                   // in this tick

	asked, suppressed, failed atomic.Uint64
}

type question struct {
	hostKey
	keep bool // the kernel shall keep the answer fresh: it sees none of the traffic that uses it
}

func newAsker() *asker {
	return &asker{queue: make(chan question, askQueue), last: map[hostKey]time.Time{}, kept: map[hostKey]struct{}{}}
}

func (a *asker) close() { a.handle.Close() }

func (a *asker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-a.queue:
			if err := a.ask(q); err != nil {
				a.failed.Add(1) // the link is down, or the kernel's table full: the next wish tries again
			}
		}
	}
}

// ask says that the neighbour is in use (as a packet to it would) and since Linux 5.16 also that it shall stay fresh.
func (a *asker) ask(q question) error {
	n := netlink.Neigh{
		LinkIndex: q.ifindex, IP: q.addr.AsSlice(), Family: unix.AF_INET, State: netlink.NUD_NONE, Flags: netlink.NTF_USE,
	}
	if q.addr.Is6() {
		n.Family = unix.AF_INET6
	}
	if q.keep {
		n.FlagsExt = netlink.NTF_EXT_MANAGED
	}
	a.asked.Add(1)
	return a.handle.NeighSet(&n)
}

// admit limits questions per host and remembers a bounded number of hosts.
func (a *asker) admit(h hostKey, now time.Time) bool {
	if now.Sub(a.last[h]) < askInterval {
		return false
	}
	if len(a.last) >= askMemory {
		for k, t := range a.last {
			if now.Sub(t) >= askInterval {
				delete(a.last, k)
			}
		}
	}
	if len(a.last) >= askMemory {
		return false
	}
	a.last[h] = now
	return true
}

func (a *asker) put(q question) bool {
	select {
	case a.queue <- q:
		return true
	default:
		a.suppressed.Add(1)
		return false
	}
}

// forget lets the kernel forget a host that no route uses any more. An entry that is known and not managed is left
// alone: somebody has replaced it, or the kernel's announcement of the mark is on its way and comes here again. One that
// is not known is being resolved, which the kernel does not announce.
func (a *asker) forget(h hostKey, n *neighbour) {
	_, ours := a.kept[h]
	if ours && (n == nil || n.managed) && a.put(question{h, false}) {
		delete(a.kept, h)
	}
	delete(a.last, h)
}

// release takes the managed marks back that the kernel was asked for: it would keep these neighbours fresh for ever. It
// is called when run has returned. The kernel is asked once more which are managed, because an entry that somebody has
// replaced meanwhile is his: the question would make a permanent one ordinary.
func (a *asker) release() error {
	if len(a.kept) == 0 {
		return nil
	}
	all, err := a.handle.NeighList(0, unix.AF_UNSPEC)
	for _, n := range all {
		addr, ok := netip.AddrFromSlice(n.IP)
		h := hostKey{n.LinkIndex, addr.Unmap()}
		if _, ours := a.kept[h]; ok && ours && n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
			err = errors.Join(err, a.ask(question{h, false}))
		}
	}
	return err
}

// ask has the kernel resolve a host, of which n is known, or nil.
func (m *Manager) ask(h hostKey, n *neighbour) {
	const fixed = netlink.NUD_PERMANENT | netlink.NUD_NOARP
	if n != nil && (n.state&fixed != 0 || n.flags&netlink.NTF_EXT_LEARNED != 0) {
		return // somebody else's entry: a question would change it
	}
	if d := m.devices.byIndex[h.ifindex]; d == nil || !d.up() {
		return
	}
	if !m.asks.admit(h, time.Now()) {
		m.asks.suppressed.Add(1)
		return
	}
	_, used := m.slots.byHost[h]
	if m.asks.put(question{h, used}) && used {
		m.asks.kept[h] = struct{}{}
	}
}

// wish is called for each wish of a worker.
func (m *Manager) wish(r pipeline.ResolveRequest) {
	if !r.Addr.IsValid() {
		if r.Slot >= 0 && r.Slot < len(m.slots.list) && m.slots.list[r.Slot].users > 0 {
			h := m.slots.list[r.Slot].host
			m.ask(h, m.neighbours[h])
		}
		return
	}
	if r.Link < 0 || r.Link >= len(m.devices.links) || m.devices.links[r.Link].ifindex == 0 {
		return
	}
	h := hostKey{m.devices.links[r.Link].ifindex, r.Addr}
	if m.asks.gleans++; m.asks.gleans > gleansPerTick {
		m.asks.suppressed.Add(1)
		return
	}
	m.ask(h, m.neighbours[h])
}

// refresh runs once a second: next hops in use are asked for again while they are unresolved, and now and then where
// the kernel does not keep them fresh.
func (m *Manager) refresh() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for i := range m.slots.list {
		s := &m.slots.list[i]
		if s.users == 0 {
			continue
		}
		n := m.neighbours[s.host]
		if !n.usable() || !n.managed && now.Sub(m.asks.last[s.host]) >= refreshInterval {
			m.ask(s.host, n)
		}
	}
	if m.devices.retry {
		m.devices.retry, m.pending.links = false, true
	}
}
