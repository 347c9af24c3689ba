package routes

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"causeway/pipeline"
)

// Stats says how large the mirror is and what it went through. Counters count since New.
type Stats struct {
	Routes4, Routes6 int // of the kernel's main table
	Local            int // of its local table
	Static           int // of the configuration, in all accounts
	Learned          int // over devices of tunnels, in all tables that they are in
	Prefixes         int // in all tables
	Neighbours       int // of the kernel, on our links
	Slots            int // neighbours that routes use
	Groups           int // equal-cost groups
	Late             int // buckets of theirs whose flows are elsewhere than the weights say

	Updates    uint64        // messages received
	Malformed  uint64        // of those, not understood
	Changes    uint64        // forwarding table writes
	Overruns   uint64        // announcements were lost
	Resyncs    uint64        // dumps of everything, the first included
	Swept      uint64        // routes that a dump showed to be gone
	ResyncTime time.Duration // how long the last dump took
	Lag        time.Duration // from receiving the last change to the forwarding tables
	MaxLag     time.Duration

	Asked          uint64 // questions to the kernel about neighbours
	AskSuppressed  uint64 // not asked because of limits
	AskFailed      uint64
	SlotsExhausted uint64 // a next hop had to be left out
	GroupExhausted uint64 // an equal-cost group had to be left out: its first member carries all
}

// Stats returns the statistics as of now.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	n := &m.rib.counts
	s.Routes4, s.Routes6 = n[sourceKernel][0], n[sourceKernel][1]
	s.Local = n[sourceLocal][0] + n[sourceLocal][1]
	s.Static = n[sourceConfig][0] + n[sourceConfig][1]
	s.Learned = n[sourceLearned][0] + n[sourceLearned][1]
	s.Prefixes, s.Neighbours = len(m.rib.index), len(m.neighbours)
	s.Slots, s.Groups, s.Late = len(m.slots.byHost), m.groups.inUse(), m.groups.late()
	s.Asked, s.AskSuppressed, s.AskFailed = m.asks.asked.Load(), m.asks.suppressed.Load(), m.asks.failed.Load()
	s.SlotsExhausted, s.GroupExhausted = m.slots.exhausted, m.groups.exhausted
	return s
}

// Links returns the links for pipeline.Spec, by number.
func (m *Manager) Links() []pipeline.LinkSpec {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.devices.specs()
}

// SteerPrefixes returns the prefixes of the Internet table that lead into tunnels, sorted.
func (m *Manager) SteerPrefixes() []netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steerPrefixes()
}

func (m *Manager) steerPrefixes() []netip.Prefix {
	out := make([]netip.Prefix, 0, len(m.steered))
	for k := range m.steered {
		out = append(out, k.prefix())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// A Route is one path as `causeway show routes` prints it.
type Route struct {
	Prefix   netip.Prefix
	Account  string // "" for the Internet table
	Source   string // local, neighbour, interface, static, learned, kernel
	Kind     string // what the prefix leads to now, see pipeline.Kind; none while the path is not usable
	NextHop  string
	Priority uint32
	Penalty  uint32 // that the priority is worse by now, for the state of the tunnel
	Weight   int
	Active   bool // it is, or is one of, the best
}

var sourceNames = [sources]string{"local", "neighbour", "interface", "static", "learned", "kernel"}

// Routes returns all paths in no particular order. The tables may change meanwhile: each path is as it was when it was
// reached, and the writer is never held up for more than a few hundred.
func (m *Manager) Routes() iter.Seq[Route] {
	return func(yield func(Route) bool) {
		for from := uint32(1); from != 0; {
			var list []Route
			list, from = m.routesFrom(from)
			for _, r := range list {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// routesFrom returns the paths of some entries, and the number to go on with: 0 at the end.
func (m *Manager) routesFrom(i uint32) (list []Route, next uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for end := i + 256; i < end; i++ {
		if i > m.rib.entries.made {
			return list, 0
		}
		e := m.rib.entries.at(i)
		best := m.best(e, nil, nil)
		for j := e.first; j != 0; j = m.rib.paths.at(j).next {
			list = append(list, m.show(e, m.rib.paths.at(j), slices.Contains(best, j)))
		}
	}
	return list, i
}

func (m *Manager) show(e *entry, p *path, active bool) Route {
	v := m.vias.at(p.via)
	return Route{
		Prefix: e.key.prefix(), Account: m.vrfs[e.key.vrf].account, Source: sourceNames[p.source],
		Kind: pipeline.LeafKind(v.leaf).String(), NextHop: m.describe(&v.spec), Priority: p.priority, Penalty: v.penalty, Weight: int(p.weight),
		Active: active,
	}
}

// describe writes next hops as they were given.
func (m *Manager) describe(s *viaSpec) string {
	switch s.kind {
	case viaHops:
		list := make([]string, len(s.hops))
		for i := range s.hops {
			list[i] = m.describeHop(&s.hops[i])
			if len(s.hops) > 1 {
				list[i] += fmt.Sprintf(" weight %d", s.hops[i].weight)
			}
		}
		return strings.Join(list, ", ")
	case viaObject:
		if o := m.objects[s.id]; o != nil && !o.blackhole {
			return m.describe(&viaSpec{kind: viaHops, hops: m.hopsOf(o)}) + fmt.Sprintf(" (nhid %d)", s.id)
		}
		return fmt.Sprintf("nhid %d", s.id)
	case viaNamed:
		return fmt.Sprintf("via %s dev %s", s.addr, s.name)
	case viaAddress:
		return fmt.Sprintf("via %s", s.addr)
	case viaTunnel:
		return "tunnel " + s.name
	case viaTunnelSelf:
		return "self, tunnel " + s.name
	case viaUncovered:
		if s.id == pipeline.BlackholeUnlearned {
			return "dropped: the customer's router has announced no route"
		}
		return "dropped: its routes are those of other places (scope)"
	}
	return fixedLeaves[s.kind].String()
}

func (m *Manager) describeHop(h *hop) string {
	name := m.interfaceName(h.ifindex)
	if !h.gateway.IsValid() {
		return "dev " + name
	}
	return fmt.Sprintf("via %s dev %s", h.gateway, name)
}

// A Neighbour is a host on a link as `causeway show neighbours` prints it.
type Neighbour struct {
	Interface string
	Addr      netip.Addr
	MAC       [6]byte // zero while it is not known
	State     string  // the kernel's, lower case; none if it has no entry
	Usable    bool
	Used      bool // by a route or tunnel
	Managed   bool // the kernel keeps it fresh
}

// Neighbours returns the hosts that the kernel knows on our links or that routes need, sorted.
func (m *Manager) Neighbours() []Neighbour {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Neighbour, 0, len(m.neighbours))
	for h, n := range m.neighbours {
		_, used := m.slots.byHost[h]
		out = append(out, Neighbour{
			Interface: m.interfaceName(h.ifindex), Addr: h.addr, MAC: n.mac, State: stateName(n.state),
			Usable: n.usable(), Used: used, Managed: n.managed,
		})
	}
	for h := range m.slots.byHost {
		if m.neighbours[h] == nil {
			out = append(out, Neighbour{Interface: m.interfaceName(h.ifindex), Addr: h.addr, State: stateName(0), Used: true})
		}
	}
	slices.SortFunc(out, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), a.Addr.Compare(b.Addr))
	})
	return out
}

func (m *Manager) interfaceName(ifindex int) string {
	if d := m.devices.byIndex[ifindex]; d != nil {
		return d.name
	}
	return fmt.Sprintf("if%d", ifindex)
}

func stateName(s uint16) string {
	switch s {
	case netlink.NUD_INCOMPLETE:
		return "incomplete"
	case netlink.NUD_REACHABLE:
		return "reachable"
	case netlink.NUD_STALE:
		return "stale"
	case netlink.NUD_DELAY:
		return "delay"
	case netlink.NUD_PROBE:
		return "probe"
	case netlink.NUD_FAILED:
		return "failed"
	case netlink.NUD_NOARP:
		return "noarp"
	case netlink.NUD_PERMANENT:
		return "permanent"
	}
	return "none"
}

// A TunnelRoute says how a tunnel reaches its customer endpoint.
type TunnelRoute struct {
	Tunnel           string
	CustomerEndpoint netip.Addr    // not valid: not known yet
	Leaf             pipeline.Leaf // 0: it does not
	Problem          string        // why not
}

// Tunnels returns the ways to all customer endpoints, sorted by tunnel.
func (m *Manager) Tunnels() []TunnelRoute {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]TunnelRoute, 0, len(m.tunnels))
	for _, t := range m.tunnels {
		out = append(out, TunnelRoute{t.name, t.customer, t.leaf, t.problem})
	}
	slices.SortFunc(out, func(a, b TunnelRoute) int { return strings.Compare(a.Tunnel, b.Tunnel) })
	return out
}
