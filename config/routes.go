package config

import (
	"math"
	"net/netip"
)

// DefaultPriority and DefaultWeight hold for routes that name none, and for
// the routes that tunnels' prefixes make.
const (
	DefaultPriority = 100
	DefaultWeight   = 1
)

// privateRanges are never routed on the Internet: RFC 1918, RFC 6598, RFC 3927,
// RFC 4193, RFC 4291 2.5.6.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"),
}

// Public reports whether no address of p is private. Public prefixes of a
// tunnel belong into the Internet table as well as into their account's; all
// others, the default route among them, into the account's alone.
func Public(p netip.Prefix) bool {
	for _, r := range privateRanges {
		if r.Overlaps(p) {
			return false
		}
	}
	return true
}

// partlyPrivate returns the private range that p covers together with public
// addresses.
func partlyPrivate(p netip.Prefix) (netip.Prefix, bool) {
	for _, r := range privateRanges {
		if r.Overlaps(p) && p.Bits() < r.Bits() {
			return r, true
		}
	}
	return netip.Prefix{}, false
}

// accountPrefix is a prefix in the table of one account.
type accountPrefix struct {
	account string
	prefix  netip.Prefix
}

// EffectiveRoutes returns the routes of the file followed by those that the
// tunnels' prefixes make: one to its tunnel for each prefix, with the default
// priority and weight, unless the account has a route for exactly that prefix.
// Routes whose scope this node is not in are left out. A prefix that has no
// others is Uncovered, once: what is for it must not follow a shorter route.
// So it is with Unlearned prefixes of a tunnel with a device, to which the
// customer's router announces routes, or does not.
func (c *Config) EffectiveRoutes() []Route {
	said := make(map[accountPrefix]bool, len(c.Routes)) // whether it is covered here
	routes := make([]Route, 0, len(c.Routes)+len(c.Tunnels))
	for _, r := range c.Routes {
		key, covers := accountPrefix{r.Account, r.Prefix}, r.Scope.covers(&c.Node)
		said[key] = said[key] || covers
		if covers {
			routes = append(routes, r)
		}
	}
	for _, r := range c.Routes {
		if key := (accountPrefix{r.Account, r.Prefix}); !said[key] {
			said[key] = true
			r.Uncovered, r.Priority = true, math.MaxUint32 // any that is learned is better
			routes = append(routes, r)
		}
	}
	unlearned := map[accountPrefix]bool{}
	for _, t := range c.Tunnels {
		for _, p := range t.Prefixes {
			if _, ok := said[accountPrefix{t.Account, p}]; ok {
				continue
			}
			r := Route{
				Prefix: p, Account: t.Account, Tunnel: t.Name,
				Priority: DefaultPriority, Weight: DefaultWeight,
			}
			if t.KernelInterface != "" {
				r.Priority, r.Unlearned = math.MaxUint32, true
			}
			if key := (accountPrefix{t.Account, p}); !r.Unlearned || !unlearned[key] {
				unlearned[key] = r.Unlearned
				routes = append(routes, r)
			}
		}
	}
	return routes
}
