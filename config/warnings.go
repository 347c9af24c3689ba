package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// Warning is something that works, but perhaps not as its author expects. It
// has the same fields as an Error.
type Warning Error

// String returns "file:line:column: path: message".
func (w Warning) String() string { return Error(w).Error() }

// Warnings returns what an operator should know about a configuration without
// mistakes, in the order of the file.
func (c *Config) Warnings() []Warning {
	d := &decoder{file: c.File, where: c.where}
	d.warnNode(c)
	if len(c.Tunnels) == 0 {
		d.warn("tunnels", "there are none: the node only forwards by its routes")
	}
	for i, t := range c.Tunnels {
		d.warnTunnel(i, t)
	}
	d.warnScopes(c)
	d.warnSharedPSKs(c)
	d.warnAccounts(c)
	d.warnRoutes(c)
	if c.open && c.inline != "" {
		d.warn(c.inline, "a key stands here, and all users of this machine may read the file: chmod 600, or write all keys as {file: PATH}")
	}
	if l := c.Metrics.Listen; l.IsValid() && !l.Addr().IsLoopback() {
		d.warn("metrics.listen", "%s can be reached from other machines, and metrics ask for no password: use a loopback address, or a firewall", l)
	}
	d.warnAnalytics(c)
	var list []Warning
	for _, e := range d.errs.sorted() {
		list = append(list, Warning(e))
	}
	return list
}

func (d *decoder) warn(path, format string, args ...any) {
	d.failAt(d.at(path), path, format, args...)
}

func (d *decoder) warnNode(c *Config) {
	if c.Node.Address.IsValid() && c.Cluster == nil {
		d.warn("node.address", "%s is not used: it is for traffic between nodes, and there is no section cluster", c.Node.Address)
	}
}

// warnScopes says so of a node that is in no place, so that it has no route of some.
func (d *decoder) warnScopes(c *Config) {
	for i, r := range c.Routes {
		if r.Scope != (Scope{}) && c.Node.Region == "" && c.Node.Datacenter == "" {
			d.warn(routePath(i, "scope"), "this node is in none of %s, since it has neither node.region nor node.datacenter: it does not have this route", r.Scope)
			return
		}
	}
}

func (d *decoder) warnTunnel(i int, t Tunnel) {
	if t.Sequence {
		d.warn(tunnelPath(i, "sequence"), "numbers come from one counter, so one worker sends all packets of this tunnel; "+
			"several nodes on one endpoint count each for itself, and a router that checks the order drops what they send")
	}
	if t.DF == DFClear {
		d.warn(tunnelPath(i, "df"), "clear fragments packets whose senders asked for none: a lost fragment loses the packet, "+
			"and senders never learn the path's mtu; honour is safer")
	}
	if t.MTU < ipv6MinMTU && t.carriesIPv6() {
		d.warn(tunnelPath(i, "mtu"), "%d is less than the %d bytes that IPv6 demands of every link: larger IPv6 packets leave as outer fragments",
			t.MTU, ipv6MinMTU)
	}
	if t.IPsec != nil {
		d.warnSelectors(i, t)
		d.warnIKE(i, t)
	}
	if len(t.Prefixes) == 0 {
		d.warn(tunnelPath(i, "prefixes"), "there are none: what the customer sends to others is dropped, since its sources are not known")
	}
}

// warnSelectors names prefixes of which the selectors let nothing through.
func (d *decoder) warnSelectors(i int, t Tunnel) {
	for k, p := range t.Prefixes {
		path := fmt.Sprintf("%s[%d]", tunnelPath(i, "prefixes"), k)
		if remote := t.IPsec.Remote; len(remote) > 0 && !slices.ContainsFunc(remote, p.Overlaps) {
			d.warn(path, "%s has no address in common with selectors.remote: all packets of its hosts are dropped", p)
		}
		if local := t.IPsec.Local; len(local) > 0 && !slices.ContainsFunc(local, func(l netip.Prefix) bool { return l.Addr().Is4() == p.Addr().Is4() }) {
			d.warn(path, "%s is %s, and selectors.local has no such prefix: all packets of its hosts are dropped", p, family(p.Addr()))
		}
	}
}

func (t Tunnel) carriesIPv6() bool {
	return t.InterfaceAddress6.IsValid() ||
		slices.ContainsFunc(t.Prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// warnAccounts names accounts without a tunnel.
func (d *decoder) warnAccounts(c *Config) {
	used := map[string]bool{}
	for _, t := range c.Tunnels {
		used[t.Account] = true
	}
	for i, a := range c.Accounts {
		if !used[a.Name] {
			d.warn(fmt.Sprintf("accounts[%d].name", i), "%s has no tunnel", quote(a.Name))
		}
	}
}

// warnRoutes names routes to tunnels that would not let the answers back.
func (d *decoder) warnRoutes(c *Config) {
	prefixes := make(map[string][]netip.Prefix, len(c.Tunnels))
	for _, t := range c.Tunnels {
		prefixes[t.Name] = t.Prefixes
	}
	for i, r := range c.Routes {
		if r.Tunnel == "" || r.Prefix.Bits() == 0 || covered(r.Prefix, prefixes[r.Tunnel]) {
			continue
		}
		d.warn(routePath(i, "prefix"), "%s is not among the prefixes of tunnel %s: packets go out, but those that come back through it are dropped",
			r.Prefix, quote(r.Tunnel))
	}
}

func covered(p netip.Prefix, by []netip.Prefix) bool {
	return slices.ContainsFunc(by, func(b netip.Prefix) bool { return b.Overlaps(p) && b.Bits() <= p.Bits() })
}
