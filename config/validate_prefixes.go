package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// claim is a prefix that an account leads to one of its tunnels.
type claim struct {
	prefix  netip.Prefix
	account string
	tunnel  string
	path    string
	at      position
}

// checkPrefixes finds prefixes that more than one tunnel or account claims,
// and those that would swallow the tunnels' own outer packets.
func (k *checker) checkPrefixes() {
	k.sharedPrefixes()
	var public []claim
	private := map[string][]claim{}
	for _, c := range k.claims() {
		if Public(c.prefix) {
			public = append(public, c)
		} else {
			private[c.account] = append(private[c.account], c)
		}
	}
	overlaps(public, func(first, second claim) {
		k.failAt(second.at, second.path,
			"%s overlaps %s of account %s (%s): a public prefix belongs to one account; this is %s",
			second.prefix, first.prefix, quote(first.account), k.there(first.path), quote(second.account))
	})
	k.peerPrefixes(private)
	k.ownAddresses(public)
}

// sharedPrefixes finds prefixes of several tunnels of an account without a
// route that says how these share it. Routers that announce it say so themselves.
func (k *checker) sharedPrefixes() {
	said := map[accountPrefix]bool{}
	for _, r := range k.c.Routes {
		said[accountPrefix{r.Account, r.Prefix}] = true
	}
	first := map[accountPrefix]int{}
	for i, t := range k.c.Tunnels {
		for j, p := range t.Prefixes {
			ap := accountPrefix{t.Account, p}
			before, twice := first[ap]
			if !twice {
				first[ap] = i
			}
			if !p.IsValid() || !twice || said[ap] || t.KernelInterface != "" || k.c.Tunnels[before].KernelInterface != "" {
				continue
			}
			other := k.c.Tunnels[before].Name
			k.fail(tunnelPath(i, fmt.Sprintf("prefixes[%d]", j)),
				"%s is also a prefix of tunnel %s (%s): write a route for it to each of the two, with priorities or weights",
				p, quote(other), k.there(tunnelPath(before, "prefixes")))
		}
	}
}

// claims lists the tunnels' prefixes and the routes to tunnels.
func (k *checker) claims() []claim {
	var list []claim
	for i, t := range k.c.Tunnels {
		for j, p := range t.Prefixes {
			if p.IsValid() {
				path := tunnelPath(i, fmt.Sprintf("prefixes[%d]", j))
				list = append(list, claim{p, t.Account, t.Name, path, k.at(path)})
			}
		}
	}
	for i, r := range k.c.Routes {
		if r.Tunnel != "" && r.Account != "" && r.Prefix.IsValid() {
			path := routePath(i, "prefix")
			list = append(list, claim{r.Prefix, r.Account, r.Tunnel, path, k.at(path)})
		}
	}
	return list
}

// overlaps calls report for each claim that overlaps one of another account,
// with the one that stands first in the file first. Prefixes are nested or
// apart, so one pass in their order with a stack of those around is enough.
func overlaps(claims []claim, report func(first, second claim)) {
	slices.SortStableFunc(claims, func(a, b claim) int { return a.prefix.Compare(b.prefix) })
	var around []claim
	for _, c := range claims {
		for len(around) > 0 && !around[len(around)-1].prefix.Overlaps(c.prefix) {
			around = around[:len(around)-1]
		}
		if i := slices.IndexFunc(around, func(o claim) bool { return o.account != c.account }); i >= 0 {
			first, second := around[i], c
			if first.at.after(second.at) {
				first, second = second, first
			}
			report(first, second)
		}
		if n := len(around); n == 0 || around[n-1].prefix != c.prefix || around[n-1].account != c.account {
			around = append(around, c)
		}
	}
}

// peerPrefixes finds addresses that two peers both use: neither could be
// reached from the other.
func (k *checker) peerPrefixes(private map[string][]claim) {
	for _, a := range k.c.Accounts {
		for _, p := range a.Peers {
			if p <= a.Name { // each pair once
				continue
			}
			both := slices.Concat(private[a.Name], private[p])
			both = slices.DeleteFunc(both, func(c claim) bool { return c.prefix.Bits() == 0 })
			overlaps(both, func(first, second claim) {
				k.failAt(second.at, second.path,
					"%s overlaps %s of account %s (%s), which is a peer of %s: end the peering, or use other addresses",
					second.prefix, first.prefix, quote(first.account), k.there(first.path), quote(second.account))
			})
		}
	}
}

// ownAddresses finds public prefixes that contain an outer address: the packets
// that a tunnel sends would be routed into a tunnel again.
func (k *checker) ownAddresses(public []claim) {
	index := indexClaims(public)
	for i, e := range k.c.Endpoints {
		if c, ok := index.covering(e); ok {
			k.failAt(c.at, c.path, "%s contains the endpoint %s (%s): the fleet's own addresses cannot lie behind a tunnel",
				c.prefix, e, k.there(fmt.Sprintf("endpoints[%d]", i)))
		}
	}
	if c, ok := index.covering(k.c.Node.Address); ok {
		k.failAt(c.at, c.path, "%s contains node.address %s: the fleet's own addresses cannot lie behind a tunnel",
			c.prefix, k.c.Node.Address)
	}
	for i, t := range k.c.Tunnels {
		if c, ok := index.covering(t.CustomerEndpoint); ok {
			k.fail(tunnelPath(i, "customer_endpoint"),
				"%s lies in %s (%s), which leads into tunnel %s: packets to it would be encapsulated again; use an address outside",
				t.CustomerEndpoint, c.prefix, k.there(c.path), quote(c.tunnel))
		}
	}
}

// claimIndex finds the claims around an address.
type claimIndex struct {
	claims  map[netip.Prefix]claim
	lengths map[int]bool // that occur, so that few are tried
}

func indexClaims(claims []claim) claimIndex {
	x := claimIndex{make(map[netip.Prefix]claim, len(claims)), map[int]bool{}}
	for _, c := range claims {
		if _, there := x.claims[c.prefix]; !there {
			x.claims[c.prefix] = c
		}
		x.lengths[c.prefix.Bits()] = true
	}
	return x
}

// covering returns the longest claim that contains a.
func (x claimIndex) covering(a netip.Addr) (claim, bool) {
	for n := a.BitLen(); n > 0; n-- {
		if !x.lengths[n] {
			continue
		}
		p, _ := a.Prefix(n)
		if c, ok := x.claims[p]; ok {
			return c, true
		}
	}
	return claim{}, false
}
