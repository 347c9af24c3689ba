package config

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func TestPublic(t *testing.T) {
	for p, want := range map[string]bool{
		"203.0.113.0/24":  true,
		"10.0.0.0/8":      false,
		"10.1.2.0/24":     false,
		"172.15.0.0/16":   true,
		"172.31.255.0/24": false,
		"172.32.0.0/16":   true,
		"100.64.0.0/10":   false,
		"8.0.0.0/6":       false, // 10.0.0.0/8 lies in it
		"0.0.0.0/0":       false,
		"::/0":            false,
		"2001:db8::/32":   true,
		"fd00::/8":        false,
	} {
		if got := Public(prefix(p)); got != want {
			t.Errorf("%s: got %v, want %v", p, got, want)
		}
	}
}

const sharing = `
interfaces: [{name: eth0}]
endpoints: [192.0.2.1]
tunnels:
  - {name: a, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.0.0.0/31, prefixes: [203.0.113.0/24, 10.0.0.0/8]}
  - {name: b, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.0.0.2/31, prefixes: [203.0.113.0/24]}
  - {name: c, account: globex, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.4, interface_address: 10.0.0.0/31, prefixes: [10.0.0.0/8]}
routes:
  - {prefix: 203.0.113.0/24, nexthop: a, weight: 3}
  - {prefix: 203.0.113.0/24, nexthop: 10.0.0.3, priority: 7}
  - {prefix: 0.0.0.0/0, nexthop: c}
  - {prefix: 10.0.0.0/8, nexthop: 192.0.2.254, interface: eth0, account: globex}
`

// TestEffectiveRoutes: routes replace what exactly the same prefix would have
// made, in their own account only.
func TestEffectiveRoutes(t *testing.T) {
	got := mustParse(t, sharing).EffectiveRoutes()
	want := []Route{
		{Prefix: prefix("203.0.113.0/24"), Account: "acme", Tunnel: "a", Priority: 100, Weight: 3},
		{Prefix: prefix("203.0.113.0/24"), Account: "acme", Tunnel: "b", Priority: 7, Weight: 1},
		{Prefix: prefix("0.0.0.0/0"), Account: "globex", Tunnel: "c", Priority: 100, Weight: 1},
		{Prefix: prefix("10.0.0.0/8"), Account: "globex", NextHop: addr("192.0.2.254"), Interface: "eth0", Priority: 100, Weight: 1},
		{Prefix: prefix("10.0.0.0/8"), Account: "acme", Tunnel: "a", Priority: 100, Weight: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// TestOverlaps compares the pass with the stack to the comparison of all pairs,
// on prefixes of few bits so that most overlap.
func TestOverlaps(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		claims := make([]claim, random.IntN(12))
		for i := range claims {
			claims[i] = claim{
				prefix:  netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(random.IntN(16)) << 4}), 1+random.IntN(4)).Masked(),
				account: string(rune('a' + random.IntN(3))),
				at:      position{line: 1 + i, column: 1},
			}
		}
		want := clashing(claims)
		var got []position
		overlaps(slices.Clone(claims), func(first, second claim) {
			if !first.prefix.Overlaps(second.prefix) || first.account == second.account || !second.at.after(first.at) {
				t.Fatalf("reported %+v and %+v", first, second)
			}
			got = append(got, first.at, second.at)
		})
		for _, at := range got {
			if !want[at] {
				t.Fatalf("%v is reported and clashes with none of %+v", at, claims)
			}
		}
		if (len(got) > 0) != (len(want) > 0) {
			t.Fatalf("got %v, want %v of %+v", got, want, claims)
		}
		// of those in a clash, every one that is inside or equal to another is reported
		for _, at := range innermost(claims) {
			if !slices.Contains(got, at) {
				t.Fatalf("%v is missing in %v of %+v", at, got, claims)
			}
		}
	}
}

// clashing returns the positions of all claims that overlap another account's.
func clashing(claims []claim) map[position]bool {
	in := map[position]bool{}
	for _, a := range claims {
		for _, b := range claims {
			if a.account != b.account && a.prefix.Overlaps(b.prefix) {
				in[a.at] = true
			}
		}
	}
	return in
}

// innermost returns the claims that lie strictly inside one of another account.
func innermost(claims []claim) []position {
	var list []position
	for _, a := range claims {
		if slices.ContainsFunc(claims, func(b claim) bool {
			return a.account != b.account && a.prefix.Overlaps(b.prefix) && a.prefix.Bits() > b.prefix.Bits()
		}) {
			list = append(list, a.at)
		}
	}
	return list
}

// TestCovering compares the index with a search of all claims.
func TestCovering(t *testing.T) {
	claims := []claim{{prefix: prefix("203.0.113.0/24")}, {prefix: prefix("203.0.0.0/16")}, {prefix: prefix("203.0.113.8/29")}, {prefix: prefix("2001:db8::/32")}}
	x := indexClaims(claims)
	for a, want := range map[string]string{
		"203.0.113.9": "203.0.113.8/29", "203.0.113.16": "203.0.113.0/24", "203.0.9.9": "203.0.0.0/16",
		"203.1.0.0": "", "2001:db8::1": "2001:db8::/32", "2001:db9::1": "",
	} {
		c, ok := x.covering(addr(a))
		if ok != (want != "") || ok && c.prefix != prefix(want) {
			t.Errorf("%s: got %v %v, want %s", a, c.prefix, ok, want)
		}
	}
	if _, ok := x.covering(netip.Addr{}); ok {
		t.Error("found a claim around no address")
	}
}
