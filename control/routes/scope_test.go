package routes

import (
	"slices"
	"testing"

	"causeway/pipeline"
)

// Where a prefix has routes in other places alone it is dropped by the workers, whatever shorter routes there are: the kernel does not get
// the packets, and no other tunnel.
func TestScope(t *testing.T) {
	e := newEngine(t, 2)
	b := newMirror(e)
	b.kernel()
	const file = `
endpoints: [192.0.2.1]
tunnels:
  - {name: a1, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.0/31, prefixes: [203.0.112.0/23]}
  - {name: a2, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.213.0.2/31}
routes:
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a1, scope: {regions: [weur]}}
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a2, scope: {regions: [apac, enam]}}
`
	wants := func(region, want string) {
		t.Helper()
		c := parse(t, "p2", file)
		c.Node.Region = region
		configure(t, e, b.m, c)
		for _, account := range []string{"acme", ""} {
			l := lookup(e, account, "203.0.113.7")
			if got := b.m.explain(l); got != want {
				t.Errorf("%s: account %q: %q, want %q", region, account, got, want)
			}
			if dropped := want == "blackhole"; dropped != (l == pipeline.MakeLeaf(pipeline.KindBlackhole, pipeline.BlackholeScope)) {
				t.Errorf("%s: account %q: leaf %x", region, account, l)
			}
			if got := b.m.explain(lookup(e, account, "203.0.112.7")); got != "tunnel a1" {
				t.Errorf("%s: the shorter one: %q", region, got)
			}
		}
		if got := b.m.SteerPrefixes(); !slices.Equal(got, prefixes("203.0.112.0/23 203.0.113.0/24")) {
			t.Errorf("%s: steered: %v", region, got)
		}
	}
	wants("weur", "tunnel a1")
	wants("apac", "tunnel a2")
	wants("oc", "blackhole")
	wants("enam", "tunnel a2")
}
