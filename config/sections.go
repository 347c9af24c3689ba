package config

import (
	"net/netip"
	"os"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Limits of numbers that count things of the machine.
const (
	maxQueue = 1023 // no driver has more channels
	maxCPU   = 1023 // the kernel's CPU_SETSIZE
)

var rootSchema = schema{
	fields: []string{"node", "interfaces", "workers", "endpoints", "accounts", "tunnels", "routes", "steering", "notify", "metrics", "control", "cluster", "analytics"},
	refused: map[string]string{
		"flow":          "is part of analytics: write analytics: {sampling: 1000}",
		"ike":           "a tunnel of type ipsec has ike itself: remove the section",
		"ipsec":         "a tunnel of type ipsec has these fields itself: remove the section",
		"bgp":           "this version does not speak BGP itself, the host's bird or FRR does: write kernel_interface: true in tunnels, and see docs/bgp.md",
		"health_checks": "belongs to each tunnel: write health_check: {type: request} there",
	},
}

// config decodes the whole document; without accounts and tunnels, if they are the fleet's.
func (d *decoder) config(root value, c *Config, fleet bool) {
	f, ok := root.mapping(rootSchema)
	if !ok {
		return
	}
	d.node(f, &c.Node)
	if v, ok := f.need("interfaces", "at least one, such as [{name: eth0}]"); ok {
		c.Interfaces = d.interfaces(v)
	}
	c.Workers = Workers{BusyPoll: true}
	if v, ok := f.get("workers"); ok {
		d.workers(v, &c.Workers)
	}
	if v, ok := f.get("endpoints"); ok {
		c.Endpoints = d.endpoints(v)
	}
	if v, ok := f.get("accounts"); ok && !fleet {
		c.Accounts = d.accounts(v)
	}
	if v, ok := f.get("tunnels"); ok && !fleet {
		c.Tunnels = d.tunnels(v)
	}
	if v, ok := f.get("routes"); ok {
		c.Routes = d.routes(v)
	}
	c.Steering = Steering{Stay: DefaultStay}
	if v, ok := f.get("steering"); ok {
		d.steering(v, &c.Steering)
	}
	if v, ok := f.get("notify"); ok {
		d.notify(v, &c.Notify)
	}
	if v, ok := f.get("metrics"); ok {
		d.metrics(v, &c.Metrics)
	}
	c.Control = Control{Socket: DefaultSocket}
	if v, ok := f.get("control"); ok {
		d.control(v, &c.Control)
	}
	if v, ok := f.get("cluster"); ok {
		c.Cluster = d.cluster(v)
	}
	if v, ok := f.get("analytics"); ok {
		c.Analytics = d.analytics(v)
	}
}

var nodeSchema = schema{fields: []string{"name", "address", "datacenter", "region", "state_dir"}}

func (d *decoder) node(root fields, n *Node) {
	v, given := root.get("node")
	var f fields
	if given {
		var ok bool
		if f, ok = v.mapping(nodeSchema); !ok {
			return
		}
	}
	if v, ok := f.get("name"); ok {
		n.Name, _ = v.name()
	} else if !f.given["name"] {
		d.hostName(root, n)
	}
	if v, ok := f.get("address"); ok {
		n.Address, _ = v.unicast()
	}
	if v, ok := f.get("datacenter"); ok {
		n.Datacenter, _ = v.name()
	}
	if v, ok := f.get("region"); ok {
		n.Region, _ = v.name()
	}
	if v, ok := f.get("state_dir"); ok {
		n.StateDir, _ = v.absolutePath()
	}
}

// hostName is the node's name where the file has none.
func (d *decoder) hostName(root fields, n *Node) {
	name, err := os.Hostname()
	if err != nil || !validName(name) {
		d.failAt(root.at, "node.name", "missing, and the host name %s is not a name either: %s", quote(name), nameRule)
		return
	}
	n.Name = name
}

var interfaceSchema = schema{fields: []string{"name", "queues", "mode"}}

func (d *decoder) interfaces(v value) []Interface {
	elements, ok := v.list("interfaces")
	if ok && len(elements) == 0 {
		v.fail("is empty: list at least one, such as [{name: eth0}]")
	}
	list := make([]Interface, len(elements)) // as long as the file's, for positions
	for i, e := range elements {
		if f, ok := e.mapping(interfaceSchema); ok {
			d.iface(f, &list[i])
		}
	}
	return list
}

func (d *decoder) iface(f fields, i *Interface) {
	if v, ok := f.need("name", "the interface's name, such as eth0"); ok {
		i.Name, _ = v.interfaceName()
	}
	if v, ok := f.get("queues"); ok && !v.isWord("all") {
		i.Queues = v.numbers("all", "queues", maxQueue)
	}
	if v, ok := f.get("mode"); ok {
		m, _ := v.word(modeWords...)
		i.Mode = Mode(m)
	}
}

// numbers returns a list of different numbers from 0 to high.
func (v value) numbers(otherwise, what string, high int64) []int {
	if _, list := v.node.(*ast.SequenceNode); !list {
		v.fail("must be %s or a list of %s such as [0, 1], got %s", otherwise, what, v)
		return nil
	}
	elements, _ := v.list(what)
	if len(elements) == 0 {
		v.fail("is empty: list the %s, or write %s", what, otherwise)
	}
	var numbers []int
	first := map[int]string{}
	for _, e := range elements {
		i, ok := e.integer(0, high)
		n := int(i)
		if !ok {
			continue
		}
		if before, twice := first[n]; twice {
			e.fail("%d is listed twice, first as %s: remove one", n, before)
			continue
		}
		first[n] = e.path
		numbers = append(numbers, n)
	}
	return numbers
}

var workersSchema = schema{fields: []string{"cpus", "busy_poll"}}

func (d *decoder) workers(v value, w *Workers) {
	f, ok := v.mapping(workersSchema)
	if !ok {
		return
	}
	if v, ok := f.get("cpus"); ok && !v.isWord("auto") {
		w.CPUs = v.numbers("auto", "cores", maxCPU)
	}
	if v, ok := f.get("busy_poll"); ok {
		v.boolean(&w.BusyPoll)
	}
}

func (d *decoder) endpoints(v value) []netip.Addr {
	elements, _ := v.list("addresses")
	list := make([]netip.Addr, len(elements))
	first := map[netip.Addr]string{}
	for i, e := range elements {
		a, ok := e.unicast()
		if !ok {
			continue
		}
		if before, twice := first[a]; twice {
			e.fail("%s is listed twice, first as %s: remove one", a, before)
			continue
		}
		first[a], list[i] = e.path, a
	}
	return list
}

var accountSchema = schema{fields: []string{"name", "peers"}}

func (d *decoder) accounts(v value) []Account {
	elements, _ := v.list("accounts")
	list := make([]Account, len(elements))
	for i, e := range elements {
		if f, ok := e.mapping(accountSchema); ok {
			d.account(f, &list[i])
		}
	}
	return list
}

func (d *decoder) account(f fields, a *Account) {
	if v, ok := f.need("name", "the account's name"); ok {
		a.Name, _ = v.name()
	}
	v, ok := f.get("peers")
	if !ok {
		return
	}
	peers, _ := v.list("account names")
	for _, p := range peers {
		name, _ := p.name()
		a.Peers = append(a.Peers, name)
	}
}

var metricsSchema = schema{fields: []string{"listen"}}

func (d *decoder) metrics(v value, m *Metrics) {
	f, ok := v.mapping(metricsSchema)
	if !ok {
		return
	}
	if v, ok := f.need("listen", "an address and port such as 127.0.0.1:9150, or remove the section"); ok {
		m.Listen, _ = v.listen()
	}
}

var controlSchema = schema{fields: []string{"socket"}}

// maxSocketPath is sun_path of struct sockaddr_un less its final zero.
const maxSocketPath = 107

func (d *decoder) control(v value, c *Control) {
	f, ok := v.mapping(controlSchema)
	if !ok {
		return
	}
	v, ok = f.need("socket", "the path of a Unix socket such as "+DefaultSocket)
	if !ok {
		return
	}
	if c.Socket, ok = v.absolutePath(); ok && len(c.Socket) > maxSocketPath {
		v.fail("%s has %d bytes: a Unix socket's path has at most %d", quote(c.Socket), len(c.Socket), maxSocketPath)
	}
}

var routeSchema = schema{fields: []string{"prefix", "nexthop", "interface", "account", "priority", "weight", "scope"}}

// maxPriority leaves room above for penalties in an uint32.
const maxPriority = 1<<31 - 1

const maxWeight = 256

func (d *decoder) routes(v value) []Route {
	elements, _ := v.list("routes")
	list := make([]Route, len(elements))
	for i, e := range elements {
		list[i] = Route{Priority: DefaultPriority, Weight: DefaultWeight}
		if f, ok := e.mapping(routeSchema); ok {
			d.route(f, &list[i])
		}
	}
	return list
}

func (d *decoder) route(f fields, r *Route) {
	if v, ok := f.need("prefix", "a destination such as 203.0.113.0/24"); ok {
		r.Prefix, _ = v.prefix()
	}
	if v, ok := f.need("nexthop", "a tunnel's name, or the address of a router"); ok {
		d.nextHop(v, r)
	}
	if v, ok := f.get("interface"); ok {
		r.Interface, _ = v.interfaceName()
	}
	if v, ok := f.get("account"); ok {
		r.Account, _ = v.name()
	}
	if v, ok := f.get("priority"); ok {
		if i, ok := v.integer(0, maxPriority); ok {
			r.Priority = uint32(i)
		}
	}
	if v, ok := f.get("weight"); ok {
		if i, ok := v.integer(1, maxWeight); ok {
			r.Weight = int(i)
		}
	}
	if v, ok := f.get("scope"); ok {
		r.Scope = v.scope()
	}
}

var steeringSchema = schema{fields: []string{"stay"}}

var stayBounds = durationBounds{time.Second, time.Hour,
	"a flow that pauses would not stay; write off if that is meant", "what ended long ago would count still"}

func (d *decoder) steering(v value, s *Steering) {
	f, ok := v.mapping(steeringSchema)
	if !ok {
		return
	}
	if v, ok := f.get("stay"); ok {
		if v.isWord("off") {
			s.Stay = 0
		} else if t, ok := v.duration(stayBounds, "off, or "); ok {
			s.Stay = t
		}
	}
}

// nextHop tells a tunnel's name from an address: no tunnel has a name that
// reads as an address.
func (d *decoder) nextHop(v value, r *Route) {
	s, ok := v.textLike("a tunnel's name or an IP address")
	if !ok {
		return
	}
	if validName(s) && !isAddress(s) {
		r.Tunnel = s
		return
	}
	a, ok := v.address()
	if !ok {
		return
	}
	if kind, bad := reservedName(netip.PrefixFrom(a, a.BitLen())); bad && !a.IsLinkLocalUnicast() {
		v.fail("%s is %s: it must be a router's unicast address", a, kind)
		return
	}
	r.NextHop = a
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
