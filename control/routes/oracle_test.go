package routes

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"causeway/config"
	"causeway/pipeline"
)

// The oracle keeps what was said, forgets nothing and shares nothing: it answers each question by going through all of it.
type oracle struct {
	up         map[int]bool // ports by ifindex
	routes     map[kernelKey]routeMessage
	objects    map[uint32]objectMessage
	neighbours map[hostKey]bool // usable
	config     *config.Config
	penalties  map[string]uint32 // by tunnel
}

// kernelKey is what the kernel knows a route by.
type kernelKey struct {
	table, metric uint32
	prefix        netip.Prefix
}

// devices are those of tunnels t0, t1 and t2, if they have one.
const firstDevice = 100

// tunnel is the tunnel whose device an interface is; nil: it is none's.
func (o *oracle) tunnel(ifindex int) *config.Tunnel {
	for i := range o.config.Tunnels {
		if t := &o.config.Tunnels[i]; t.KernelInterface != "" && t.Name == fmt.Sprintf("t%d", ifindex-firstDevice) {
			return t
		}
	}
	return nil
}

// choice is one path: where it comes from and what its hops lead to, in words.
type choice struct {
	account  string
	prefix   netip.Prefix
	source   source
	priority uint32
	members  map[string]uint32
}

func (o *oracle) hop(h hop) string {
	up, known := o.up[h.ifindex]
	switch t := o.tunnel(h.ifindex); {
	case known && !up:
		return ""
	case t != nil:
		return "tunnel " + t.Name
	case !known || h.ifindex >= firstDevice:
		return "kernel"
	case !h.gateway.IsValid():
		return fmt.Sprintf("glean %d", h.ifindex)
	}
	return fmt.Sprintf("%s%%%d", h.gateway, h.ifindex)
}

func (o *oracle) hops(list []hop) map[string]uint32 {
	out := map[string]uint32{}
	for _, h := range list {
		if s := o.hop(h); s != "" {
			out[s] += uint32(h.weight)
		}
	}
	return out
}

func (o *oracle) object(id uint32) map[string]uint32 {
	x, ok := o.objects[id]
	switch {
	case !ok:
		return nil
	case len(x.members) == 0 && x.blackhole:
		return map[string]uint32{"blackhole": 1}
	case len(x.members) == 0:
		return o.hops([]hop{x.hop})
	}
	out := map[string]uint32{}
	for _, y := range x.members {
		if z, ok := o.objects[y.id]; ok && len(z.members) == 0 {
			for s := range o.object(y.id) {
				out[s] += uint32(y.weight)
			}
		}
	}
	return out
}

// hopsOf lists the hops of a route, by way of objects too.
func (o *oracle) hopsOf(r *routeMessage) (out []hop) {
	x, ok := o.objects[r.nexthop]
	switch {
	case r.nexthop == 0:
		return r.hops
	case !ok || x.blackhole:
		return nil
	case len(x.members) == 0:
		return []hop{x.hop}
	}
	for _, y := range x.members {
		if z, ok := o.objects[y.id]; ok && len(z.members) == 0 && !z.blackhole {
			h := z.hop
			h.weight = y.weight
			out = append(out, h)
		}
	}
	return out
}

// learned lists what a route over the device of a tunnel means; led: it is one.
func (o *oracle) learned(r *routeMessage) (out []choice, led bool) {
	var first *config.Tunnel
	hops := o.hopsOf(r)
	for _, h := range hops {
		if t := o.tunnel(h.ifindex); t != nil && first == nil {
			first = t
		}
	}
	if first == nil || r.kind != unix.RTN_UNICAST || r.protocol == unix.RTPROT_KERNEL {
		return nil, first != nil
	}
	least := uint32(1 << 30)
	for _, h := range hops {
		if t := o.tunnel(h.ifindex); t != nil && t.Account == first.Account && o.up[h.ifindex] {
			least = min(least, o.penalties[t.Name])
		}
	}
	members := map[string]uint32{}
	for _, h := range hops {
		if t := o.tunnel(h.ifindex); t != nil && t.Account == first.Account && o.up[h.ifindex] && o.penalties[t.Name] == least {
			members["tunnel "+t.Name] += uint32(h.weight)
		}
	}
	c := choice{first.Account, r.prefix, sourceLearned, r.metric + least, members}
	out = append(out, c)
	if slices.ContainsFunc(first.Prefixes, func(p netip.Prefix) bool { return p.Bits() <= r.prefix.Bits() && p.Contains(r.prefix.Addr()) }) {
		if config.Public(r.prefix) {
			c.account = ""
			out = append(out, c)
		}
		for _, a := range o.config.Accounts {
			if slices.Contains(a.Peers, first.Account) {
				c.account = a.Name
				out = append(out, c)
			}
		}
	}
	return out, true
}

// kernel lists what the kernel said.
func (o *oracle) kernel() (out []choice) {
	for k, r := range o.routes {
		if list, led := o.learned(&r); led {
			out = append(out, list...)
			continue
		}
		source := map[uint32]source{unix.RT_TABLE_MAIN: sourceKernel, unix.RT_TABLE_LOCAL: sourceLocal}[k.table]
		if k.table != unix.RT_TABLE_MAIN && k.table != unix.RT_TABLE_LOCAL {
			continue
		}
		c := choice{prefix: r.prefix, source: source, priority: r.metric}
		switch {
		case r.nexthop != 0:
			c.members = o.object(r.nexthop)
		case r.kind == unix.RTN_BLACKHOLE:
			c.members = map[string]uint32{"blackhole": 1}
		case r.kind == unix.RTN_LOCAL:
			c.members = map[string]uint32{"kernel": 1}
		default:
			c.members = o.hops(r.hops)
		}
		out = append(out, c)
	}
	return out
}

// keepPenalties forgets those of tunnels that there are not.
func (o *oracle) keepPenalties() {
	maps.DeleteFunc(o.penalties, func(name string, _ uint32) bool {
		return !slices.ContainsFunc(o.config.Tunnels, func(t config.Tunnel) bool { return t.Name == name })
	})
}

// direct lists all but neighbours and gateways without an interface.
func (o *oracle) direct() []choice {
	out := o.kernel()
	for _, t := range o.config.Tunnels {
		p := t.InterfaceAddress
		self := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		out = append(out,
			choice{t.Account, p.Masked(), sourceInterface, 0, map[string]uint32{"tunnel " + t.Name: 1}},
			choice{t.Account, self, sourceInterface, 0, map[string]uint32{"tunnel-address " + t.Name: 1}})
	}
	for _, r := range o.config.EffectiveRoutes() {
		c := choice{account: r.Account, prefix: r.Prefix, source: sourceConfig, priority: r.Priority}
		switch {
		case r.Unlearned:
			c.members = map[string]uint32{"unlearned": 1}
		case r.Tunnel != "":
			c.members = map[string]uint32{"tunnel " + r.Tunnel: uint32(r.Weight)}
			c.priority += o.penalties[r.Tunnel]
		case r.Interface != "":
			c.members = o.hops([]hop{{int(r.Interface[1] - '0'), r.NextHop, uint16(r.Weight)}})
		default:
			continue
		}
		out = append(out, c)
		if r.Tunnel != "" && config.Public(r.Prefix) {
			c.account = ""
			out = append(out, c)
		}
		for _, a := range o.config.Accounts {
			if r.Tunnel != "" && r.Prefix.Bits() > 0 && slices.Contains(a.Peers, r.Account) {
				c.account = a.Name
				out = append(out, c)
			}
		}
	}
	return out
}

// all lists every path.
func (o *oracle) all() []choice {
	direct := o.direct()
	out := slices.Clone(direct)
	for _, r := range o.config.Routes {
		if r.NextHop.IsValid() && r.Interface == "" {
			members := map[string]uint32{}
			for s, w := range o.best(direct, "", r.NextHop) {
				var ifindex int
				if _, err := fmt.Sscanf(s, "glean %d", &ifindex); err == nil {
					s = fmt.Sprintf("%s%%%d", r.NextHop, ifindex)
				}
				members[s] += w * uint32(r.Weight)
			}
			out = append(out, choice{r.Account, r.Prefix, sourceConfig, r.Priority, members})
		}
	}
	static := slices.Clone(out)
	for h, usable := range o.neighbours {
		if usable && o.best(static, "", h.addr)[fmt.Sprintf("glean %d", h.ifindex)] > 0 {
			out = append(out, choice{"", netip.PrefixFrom(h.addr, h.addr.BitLen()), sourceNeighbour, uint32(h.ifindex), o.hops([]hop{{h.ifindex, h.addr, 1}})})
		}
	}
	return out
}

// best merges the winning paths to a.
func (o *oracle) best(list []choice, account string, a netip.Addr) map[string]uint32 {
	var win []choice
	rank := func(c choice) [4]int {
		class := c.source
		if class == sourceLearned { // by their priorities, like those of the configuration
			class = sourceConfig
		}
		return [4]int{-c.prefix.Bits(), int(class), int(c.priority), int(c.source)}
	}
	for _, c := range list {
		if c.account != account || !c.prefix.Contains(a) || len(c.members) == 0 {
			continue
		}
		d := 1
		if len(win) > 0 {
			x, y := rank(c), rank(win[0])
			d = -slices.Compare(x[:], y[:])
		}
		switch {
		case d > 0:
			win = []choice{c}
		case d == 0:
			win = append(win, c)
		}
	}
	out := map[string]uint32{}
	for _, c := range win {
		for s, w := range c.members {
			out[s] += w
		}
	}
	return out
}

// words writes members with the smallest whole weights.
func words(members map[string]uint32) string {
	var out []string
	d := uint32(0)
	for _, w := range members {
		for d, w = w, d; w != 0; { // the greatest common divisor
			d, w = w, d%w
		}
	}
	for s, w := range members {
		if len(members) == 1 {
			return s
		}
		out = append(out, fmt.Sprintf("%s*%d", s, w/d))
	}
	if len(out) == 0 {
		return "none"
	}
	slices.Sort(out)
	return strings.Join(out, " + ")
}

// customer is what a tunnel's customer endpoint resolves to.
func (o *oracle) customer(list []choice, a netip.Addr) string {
	members := o.best(list, "", a)
	to := words(members)
	for i := 2; i <= 3; i++ {
		if members[fmt.Sprintf("glean %d", i)] > 0 && !strings.Contains(to, "tunnel") {
			return fmt.Sprintf("%s%%%d", a, i)
		}
	}
	if !strings.Contains(to, "%") || strings.Contains(to, "tunnel") {
		return "none" // the host itself, discarded, or round and round
	}
	return to
}

// The world of the test: few prefixes, so that they meet.
var (
	testPrefixes = prefixes("0.0.0.0/0 10.0.0.0/8 10.0.0.0/24 10.0.0.0/30 10.0.0.2/32 10.0.1.0/24 10.0.1.1/32 203.0.113.0/24 203.0.113.0/25 203.0.113.7/32 198.51.100.0/24 " +
		"::/0 2001:db8::/32 2001:db8:1::/64 2001:db8:1::1/128 2001:db8:8000::/33")
	testProbes = addrs("10.0.0.1 10.0.0.2 10.0.0.9 10.0.1.1 10.0.1.9 10.9.9.9 203.0.113.7 203.0.113.100 203.0.113.200 198.51.100.2 198.51.100.9 8.8.8.8 10.213.0.0 10.213.0.1 10.213.0.3 " +
		"2001:db8:1::1 2001:db8:1::2 2001:db8:9::1 2001:db8:8000::1 3000::1")
	testGateways = addrs("10.0.0.1 10.0.0.2 10.0.1.1 203.0.113.7 2001:db8:1::1 2001:db8:1::2")
)

func prefixes(s string) (out []netip.Prefix) {
	for f := range strings.FieldsSeq(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func addrs(s string) (out []netip.Addr) {
	for f := range strings.FieldsSeq(s) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

// drawHops draws hops over ports 2 and 3, over 4, which is no port, and over devices that tunnels may have.
func drawHops(t *rapid.T, v6 bool) (out []hop) {
	for range rapid.IntRange(1, 3).Draw(t, "hops") {
		h := hop{ifindex: rapid.SampledFrom([]int{2, 3, 4, firstDevice, firstDevice + 1, firstDevice + 2}).Draw(t, "ifindex"), weight: uint16(rapid.IntRange(1, 3).Draw(t, "weight"))}
		if rapid.Bool().Draw(t, "gateway") {
			g := rapid.SampledFrom(testGateways).Draw(t, "address")
			if g.Is6() == v6 {
				h.gateway = g
			}
		}
		out = append(out, h)
	}
	return out
}

func drawConfig(t *rapid.T) *config.Config {
	c := &config.Config{Accounts: []config.Account{{Name: "a"}, {Name: "b"}}}
	for i, account := range []string{"a", "a", "b"} {
		if !rapid.Bool().Draw(t, "tunnel") {
			continue
		}
		c.Tunnels = append(c.Tunnels, config.Tunnel{
			Name: fmt.Sprintf("t%d", i), Account: account, Endpoint: netip.MustParseAddr("192.0.2.1"),
			CustomerEndpoint: netip.MustParseAddr(rapid.SampledFrom([]string{"198.51.100.2", "10.0.0.2", "203.0.113.7"}).Draw(t, "customer")),
			InterfaceAddress: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, 0, byte(2 * i)}), 31), MTU: 1476,
			Prefixes:        []netip.Prefix{rapid.SampledFrom(testPrefixes).Draw(t, "prefix")},
			KernelInterface: rapid.SampledFrom([]string{"", "device"}).Draw(t, "device"),
		})
	}
	if rapid.Bool().Draw(t, "peers") {
		c.Accounts[0].Peers, c.Accounts[1].Peers = []string{"b"}, []string{"a"}
	}
	type identity struct {
		account, to string
		prefix      netip.Prefix
		priority    uint32
	}
	said := map[identity]bool{}
	for range rapid.IntRange(0, 4).Draw(t, "routes") {
		r := config.Route{Prefix: rapid.SampledFrom(testPrefixes).Draw(t, "prefix"),
			Priority: uint32(rapid.IntRange(1, 2).Draw(t, "priority")), Weight: rapid.IntRange(1, 3).Draw(t, "weight")}
		switch kind := rapid.IntRange(0, 2).Draw(t, "kind"); {
		case kind == 0 && len(c.Tunnels) > 0:
			x := rapid.SampledFrom(c.Tunnels).Draw(t, "to")
			r.Tunnel, r.Account = x.Name, x.Account
		case kind == 1:
			r.Interface = rapid.SampledFrom([]string{"p2", "p3", "p4"}).Draw(t, "interface")
			fallthrough
		default:
			r.NextHop = rapid.SampledFrom(testGateways).Draw(t, "gateway")
			if r.NextHop.Is6() != r.Prefix.Addr().Is6() {
				continue
			}
		}
		id := identity{r.Account, r.Tunnel + r.NextHop.String() + r.Interface, r.Prefix, r.Priority}
		if !said[id] { // the file may not say a thing twice
			said[id] = true
			c.Routes = append(c.Routes, r)
		}
	}
	return c
}

// TestTablesEqualOracle changes everything at random and compares every answer of the forwarding tables.
func TestTablesEqualOracle(t *testing.T) {
	e := newEngine(t, 2) // one for all runs: each leaves its tables empty
	rapid.Check(t, func(t *rapid.T) {
		b := newMirror(e)
		defer b.empty(t)
		o := &oracle{up: map[int]bool{2: true, 3: true, firstDevice: true, firstDevice + 1: true, firstDevice + 2: true}, routes: map[kernelKey]routeMessage{},
			objects: map[uint32]objectMessage{}, neighbours: map[hostKey]bool{}, config: &config.Config{}, penalties: map[string]uint32{}}
		t.Repeat(map[string]func(*rapid.T){
			"route":     func(t *rapid.T) { b.drawRoute(t, o) },
			"object":    func(t *rapid.T) { b.drawObject(t, o) },
			"neighbour": func(t *rapid.T) { b.drawNeighbour(t, o) },
			"link": func(t *rapid.T) {
				i := rapid.SampledFrom([]int{2, 3, firstDevice, firstDevice + 1}).Draw(t, "ifindex")
				o.up[i] = !o.up[i]
				b.device(i, o.up[i])
			},
			"config": func(t *rapid.T) {
				o.config = drawConfig(t)
				devices := map[string]int{}
				for i, x := range o.config.Tunnels {
					if x.KernelInterface != "" {
						devices[x.Name] = firstDevice + int(o.config.Tunnels[i].Name[1]-'0')
					}
				}
				b.m.SetDevices(devices)
				before := len(b.m.led)
				b.apply(t, o.config)
				o.keepPenalties()
				if before+len(b.m.led) > 0 {
					b.dump(o)
				}
			},
			"penalty": func(t *rapid.T) {
				name := fmt.Sprintf("t%d", rapid.IntRange(0, 2).Draw(t, "tunnel"))
				penalty := uint32(rapid.IntRange(0, 2).Draw(t, "penalty"))
				b.m.SetPenalty(name, penalty)
				o.penalties[name] = penalty
				o.keepPenalties()
			},
			"reclaim": func(*rapid.T) { b.m.reclaim() },
			"": func(t *rapid.T) {
				if len(b.m.led) > 0 && b.m.pass.wanted {
					b.dump(o)
				}
				b.compare(t, o)
			},
		})
	})
}

// mirror is a Manager without a kernel: ports p2 and p3, and p4, which is no port.
type mirror struct {
	m      *Manager
	engine *pipeline.Engine
}

// newMirror makes one with an empty table.
func newMirror(e *pipeline.Engine) *mirror {
	b := &mirror{newManager(e, Options{Ports: []Port{{0, 2, "p2"}, {1, 3, "p3"}}, Log: slog.New(slog.DiscardHandler)}), e}
	for _, i := range []int{2, 3, 4, firstDevice, firstDevice + 1, firstDevice + 2} {
		b.device(i, true)
	}
	return b
}

// dump does what a pass does with the kernel's routes.
func (b *mirror) dump(o *oracle) {
	b.m.settle()
	b.m.verify(0)
	b.m.pass.due = time.Now()
	if !b.m.beginPass() {
		panic("no pass begins")
	}
	for _, r := range o.routes {
		r.hops = slices.Clone(r.hops)
		b.m.dumpedRoute(&r)
	}
	b.m.sweep(kindRoute4)
	b.m.sweep(kindRoute6)
	b.m.endPass()
}

func (b *mirror) device(i int, up bool) {
	l := linkMessage{ifindex: i, name: fmt.Sprintf("p%d", i), mtu: 1500}
	if up {
		l.flags = unix.IFF_UP | unix.IFF_RUNNING
	}
	b.m.setDevice(&l)
}

func (b *mirror) apply(t *rapid.T, c *config.Config) {
	s := pipeline.Spec{Links: b.m.Links()}
	for _, a := range c.Accounts {
		s.Accounts = append(s.Accounts, pipeline.AccountSpec{Name: a.Name, Peers: a.Peers})
	}
	for _, x := range c.Tunnels {
		s.Tunnels = append(s.Tunnels, pipeline.TunnelSpec{Name: x.Name, Account: x.Account, Endpoint: x.Endpoint, CustomerEndpoint: x.CustomerEndpoint})
	}
	if err := b.engine.Apply(&s); err != nil {
		t.Fatal(err)
	}
	if err := b.m.Apply(c); err != nil {
		t.Fatal(err)
	}
}

func (b *mirror) drawRoute(t *rapid.T, o *oracle) {
	p := rapid.SampledFrom(testPrefixes).Draw(t, "prefix")
	r := routeMessage{prefix: p, table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST, metric: uint32(rapid.IntRange(0, 2).Draw(t, "metric"))}
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		r.kind = unix.RTN_BLACKHOLE
	case 1:
		r.kind, r.table = unix.RTN_LOCAL, unix.RT_TABLE_LOCAL
	case 2:
		r.nexthop = uint32(rapid.IntRange(1, 4).Draw(t, "object"))
		if rapid.Bool().Draw(t, "was blackhole") { // the type that the object gave the route when it was announced
			r.kind = unix.RTN_BLACKHOLE
		}
	default:
		r.hops = drawHops(t, p.Addr().Is6())
	}
	if r.table == unix.RT_TABLE_MAIN && rapid.Bool().Draw(t, "another table") {
		r.table = 101
	}
	if rapid.IntRange(0, 9).Draw(t, "protocol") == 0 {
		r.protocol = unix.RTPROT_KERNEL
	}
	k := kernelKey{r.table, r.metric, r.prefix}
	old, ok := o.routes[k]
	if ok && p.Addr().Is6() && len(old.hops) > 1 && rapid.Bool().Draw(t, "one hop") {
		gone := old.hops[0]
		left := slices.DeleteFunc(slices.Clone(old.hops), func(h hop) bool { return h.ifindex == gone.ifindex && h.gateway == gone.gateway })
		if part := old; len(left) > 0 {
			part.hops = []hop{gone}
			b.m.routeEvent(&part, true, 0)
			old.hops = left
			o.routes[k] = old
			return
		}
	}
	if ok && rapid.Bool().Draw(t, "delete") {
		old.hops = slices.Clone(old.hops)
		b.m.routeEvent(&old, true, 0)
		delete(o.routes, k)
		return
	}
	flags := uint16(unix.NLM_F_CREATE)
	if ok {
		flags = unix.NLM_F_REPLACE
	}
	o.routes[k] = r
	r.hops = slices.Clone(r.hops)
	b.m.routeEvent(&r, false, flags)
}

func (b *mirror) drawObject(t *rapid.T, o *oracle) {
	x := objectMessage{id: uint32(rapid.IntRange(1, 4).Draw(t, "id"))}
	if _, ok := o.objects[x.id]; ok && rapid.Bool().Draw(t, "delete") {
		b.m.deleteObject(x.id)
		delete(o.objects, x.id)
		return
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		x.blackhole = true
	case 1:
		for range rapid.IntRange(1, 3).Draw(t, "members") {
			x.members = append(x.members, objectMember{uint32(rapid.IntRange(1, 4).Draw(t, "id")), uint16(rapid.IntRange(1, 3).Draw(t, "weight"))})
		}
	default:
		x.hop = drawHops(t, false)[0]
		x.hop.weight = 1
	}
	b.m.setObject(&x)
	o.objects[x.id] = x
}

func (b *mirror) drawNeighbour(t *rapid.T, o *oracle) {
	n := neighbourMessage{ifindex: rapid.IntRange(2, 3).Draw(t, "ifindex"), addr: rapid.SampledFrom(testGateways).Draw(t, "address"), hasMAC: true}
	h := hostKey{n.ifindex, n.addr}
	if _, ok := o.neighbours[h]; ok && rapid.Bool().Draw(t, "delete") {
		b.m.deleteNeighbour(h)
		delete(o.neighbours, h)
		return
	}
	n.state = rapid.SampledFrom([]uint16{2, 4, 8, 16, 128, 1, 32, 0}).Draw(t, "state")
	o.neighbours[h] = n.state&(2|4|8|16|128) != 0
	b.m.setNeighbour(&n)
}

// empty takes everything away and checks that nothing is left, in the tables or in the books.
func (b *mirror) empty(t *rapid.T) {
	m := b.m
	b.apply(t, &config.Config{Accounts: []config.Account{{Name: "a"}, {Name: "b"}}})
	for h := range m.neighbours {
		m.deleteNeighbour(h)
	}
	m.settle()
	m.sweepPaths(func(*path) bool { return true })
	m.settle()
	m.reclaim()
	vias := int(m.vias.made) - len(m.vias.spare)
	paths := int(m.rib.paths.made) - len(m.rib.paths.spare)
	entries := int(m.rib.entries.made) - len(m.rib.entries.spare)
	if n := vias + paths + entries + len(m.rib.index) + len(m.vias.index) + len(m.watch.list) + len(m.slots.byHost) + m.groups.inUse() + len(m.steered); n != 0 {
		t.Errorf("left over: %d next hops, %d paths, %d prefixes, %d watchers, %d slots, %d groups, %d steered",
			vias, paths, entries, len(m.watch.list), len(m.slots.byHost), m.groups.inUse(), len(m.steered))
	}
	for _, name := range []string{"", "a", "b"} {
		if v, _ := b.engine.VRF(name); v.V4.Len()+v.V6.Len() != 0 {
			t.Errorf("account %q: %d and %d routes are left in the tables", name, v.V4.Len(), v.V6.Len())
		}
	}
}

// compare asks tables and oracle the same questions, and checks what is counted.
func (b *mirror) compare(t *rapid.T, o *oracle) {
	b.m.settle()
	list := o.all()
	for _, account := range []string{"", "a", "b"} {
		for _, a := range testProbes {
			got := b.m.explain(lookup(b.engine, account, a.String()))
			if want := words(o.best(list, account, a)); got != want {
				t.Fatalf("account %q, %s: tables %q, oracle %q", account, a, got, want)
			}
		}
	}
	for _, x := range o.config.Tunnels {
		id, _ := b.engine.TunnelID(x.Name)
		got, want := b.m.explain(b.m.fwd.TunnelRoute(id)), o.customer(list, x.CustomerEndpoint)
		if !strings.Contains(got, "%") {
			got = "none" // leads to no neighbour: the workers drop
		}
		if got != want {
			t.Fatalf("tunnel %s to %s: %q, want %q", x.Name, x.CustomerEndpoint, got, want)
		}
	}
	var steered []netip.Prefix
	for _, p := range testPrefixes {
		var at []choice
		for _, c := range list {
			if c.prefix == p {
				at = append(at, c)
			}
		}
		best := words(o.best(at, "", p.Addr()))
		own := slices.ContainsFunc(at, func(c choice) bool { return c.account == "" && c.source == sourceConfig })
		if strings.Contains(best, "tunnel ") && own || strings.Contains(best, "unlearned") {
			steered = append(steered, p)
		}
	}
	slices.SortFunc(steered, netip.Prefix.Compare)
	if got := b.m.SteerPrefixes(); !slices.Equal(got, steered) {
		t.Fatalf("steered prefixes %v, want %v", got, steered)
	}
}
