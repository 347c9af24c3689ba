package config

import (
	"fmt"
	"net/netip"
	"slices"
)

func routePath(i int, field string) string { return fmt.Sprintf("routes[%d].%s", i, field) }

// checkRoutes resolves each route's next hop and finds routes given twice.
func (k *checker) checkRoutes() {
	far := k.farEnds()
	first := make(map[Route]int, len(k.c.Routes))
	for i := range k.c.Routes {
		r := &k.c.Routes[i]
		switch {
		case r.Tunnel != "":
			k.tunnelRoute(i, r)
		case r.NextHop.IsValid() && r.Interface == "":
			k.farRoute(i, r, far)
		case r.NextHop.IsValid():
			k.linkRoute(i, r)
		}
		if r.Account != "" && r.Tunnel == "" && !k.known[r.Account] {
			k.fail(routePath(i, "account"), "there is no account %s: %s", quote(r.Account), suggest(r.Account, k.accounts))
		}
		k.sameRoute(i, *r, first)
	}
}

// farEnds maps the customers' addresses inside their tunnels to the tunnels.
func (k *checker) farEnds() map[netip.Addr][]int {
	far := make(map[netip.Addr][]int, len(k.c.Tunnels))
	for i, t := range k.c.Tunnels {
		for _, a := range []netip.Addr{t.Peer4(), t.Peer6()} {
			if a.IsValid() {
				far[a] = append(far[a], i)
			}
		}
	}
	return far
}

func (k *checker) tunnelRoute(i int, r *Route) {
	path := routePath(i, "nexthop")
	n, ok := k.tunnels[r.Tunnel]
	if !ok {
		names := make([]string, 0, len(k.c.Tunnels))
		for _, t := range k.c.Tunnels {
			names = append(names, t.Name)
		}
		hint := "write a tunnel's name or a router's address"
		if near, ok := nearest(r.Tunnel, names); ok {
			hint = "did you mean " + quote(near) + "?"
		}
		k.fail(path, "there is no tunnel %s: %s", quote(r.Tunnel), hint)
		return
	}
	if r.Interface != "" {
		k.fail(routePath(i, "interface"), "%s: a route into a tunnel has none; remove it", quote(r.Interface))
	}
	account := k.c.Tunnels[n].Account
	if account != "" && r.Account != "" && r.Account != account {
		k.fail(routePath(i, "account"), "%s is not the account of tunnel %s, which belongs to %s: remove the field, or choose another tunnel",
			quote(r.Account), quote(r.Tunnel), quote(account))
		return
	}
	r.Account = account
}

// farRoute turns a next hop that is the customer's side of a tunnel into a
// route to that tunnel; the product's API names next hops in this way.
func (k *checker) farRoute(i int, r *Route, far map[netip.Addr][]int) {
	path := routePath(i, "nexthop")
	var found []int
	for _, n := range far[r.NextHop] {
		if r.Account == "" || r.Account == k.c.Tunnels[n].Account {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		k.fail(path, "%s is not the customer's side of a tunnel: for a router on a link add interface", r.NextHop)
	case 1:
		if !k.sameFamily(i, r) {
			return
		}
		t := k.c.Tunnels[found[0]]
		r.Tunnel, r.Account, r.NextHop = t.Name, t.Account, netip.Addr{}
	default:
		k.fail(path, "%s is the customer's side of several tunnels, %s and %s among them: write the tunnel's name",
			r.NextHop, quote(k.c.Tunnels[found[0]].Name), quote(k.c.Tunnels[found[1]].Name))
	}
}

func (k *checker) linkRoute(i int, r *Route) {
	names := make([]string, 0, len(k.c.Interfaces))
	for _, f := range k.c.Interfaces {
		names = append(names, f.Name)
	}
	if !slices.Contains(names, r.Interface) {
		k.fail(routePath(i, "interface"), "%s is not one of the interfaces: %s", quote(r.Interface), suggest(r.Interface, names))
	}
	if slices.Contains(k.c.Endpoints, r.NextHop) || r.NextHop == k.c.Node.Address {
		k.fail(routePath(i, "nexthop"), "%s is an address of our own: write the address of a router", r.NextHop)
		return
	}
	k.sameFamily(i, r)
}

func (k *checker) sameFamily(i int, r *Route) bool {
	if !r.Prefix.IsValid() || r.Prefix.Addr().Is4() == r.NextHop.Is4() {
		return true
	}
	k.fail(routePath(i, "nexthop"), "%s is %s, but prefix %s is %s: use a next hop of the same family, or a tunnel's name",
		r.NextHop, family(r.NextHop), r.Prefix, family(r.Prefix.Addr()))
	return false
}

// sameRoute finds a prefix that is sent twice to the same next hop.
func (k *checker) sameRoute(i int, r Route, first map[Route]int) {
	if !r.Prefix.IsValid() || (r.Tunnel == "" && !r.NextHop.IsValid()) {
		return
	}
	r.Priority, r.Weight = 0, 0
	if before, twice := first[r]; twice {
		k.fail(routePath(i, "prefix"), "%s has this next hop already in %s: remove one, or change the weight",
			r.Prefix, k.there(fmt.Sprintf("routes[%d]", before)))
		return
	}
	first[r] = i
}
