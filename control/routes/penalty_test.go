package routes

import (
	"fmt"
	"strings"
	"testing"
)

// A penalty makes a tunnel's routes worse, of whatever kind they are, moves no flow of those that stay, and is kept by a reload.
func TestPenalty(t *testing.T) {
	e := newEngine(t, 2)
	b := newMirror(e)
	b.kernel()
	const file = `
endpoints: [192.0.2.1]
tunnels:
  - {name: a1, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.0/31, prefixes: [203.0.113.0/24, 198.18.0.0/24]}
  - {name: a2, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.213.0.2/31, prefixes: [203.0.113.0/24]}
  - {name: a3, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.4, interface_address: 10.213.0.4/31, prefixes: [203.0.113.0/24]}
routes:
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a1, priority: 100}
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a2, priority: 200}
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a3, priority: 200, weight: 3}
`
	configure(t, e, b.m, parse(t, "p2", file))
	wants := func(what, want string) {
		t.Helper()
		for _, account := range []string{"acme", ""} {
			if got := b.m.explain(lookup(e, account, "203.0.113.7")); got != want {
				t.Errorf("%s: account %q: %q, want %q", what, account, got, want)
			}
		}
		if got := b.m.explain(lookup(e, "acme", "198.18.0.7")); got != "tunnel a1" {
			t.Errorf("%s: the prefix with one tunnel: %q", what, got)
		}
	}
	both := "tunnel a2*1 + tunnel a3*3"
	wants("at first", "tunnel a1")
	b.m.SetPenalty("a1", 500_000)
	wants("the first is degraded", both)
	b.m.SetPenalty("a2", 1_000_000)
	wants("and the second is down", "tunnel a3")
	b.m.SetPenalty("a3", 1_000_000)
	wants("all are bad", "tunnel a1")
	b.m.SetPenalty("a1", 1_000_000)
	wants("all are down", "tunnel a1")
	configure(t, e, b.m, parse(t, "p2", strings.ReplaceAll(file, "198.51.100.2,", "198.51.100.9,")))
	b.m.SetPenalty("a3", 0)
	wants("after a reload with another customer_endpoint", "tunnel a3")
	b.m.SetPenalty("a2", 0)
	wants("two are good", both)
	b.m.SetPenalty("a1", 0)
	wants("at last", "tunnel a1")
	b.m.SetPenalty("nobody", 7)
	for r := range b.m.Routes() {
		if r.Penalty != 0 {
			t.Errorf("%+v", r)
		}
	}
}

// BenchmarkPenalty: a tunnel with ten thousand prefixes is down, and back. The workers have it when SetPenalty returns.
func BenchmarkPenalty(b *testing.B) {
	e := newEngine(b, 2)
	m := newMirror(e)
	m.kernel()
	var text strings.Builder
	text.WriteString(twoTunnels)
	for i := range 10_000 {
		for _, name := range []string{"a1", "a2"} {
			fmt.Fprintf(&text, "  - {prefix: 10.%d.%d.0/24, account: acme, nexthop: %s}\n", i>>8, i&255, name)
		}
	}
	configure(b, e, m.m, parse(b, "p2", text.String()))
	for b.Loop() {
		m.m.SetPenalty("a1", 1_000_000)
		m.m.SetPenalty("a1", 0)
	}
}
