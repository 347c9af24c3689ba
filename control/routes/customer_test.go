package routes

import (
	"net/netip"
	"slices"
	"testing"

	"causeway/pipeline"
)

// TestCustomerMoves: the way of a tunnel's packets follows its customer, whom the file may not know, also over reloads and when routes
// to it come and go.
func TestCustomerMoves(t *testing.T) {
	const text = `
endpoints: [192.0.2.1]
tunnels:
  - {name: fixed, type: ipsec, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.0/31, ike: {psk: a key that nobody guesses}}
  - {name: roams, type: ipsec, endpoint: 192.0.2.1, interface_address: 10.213.0.2/31, ike: {psk: a key that nobody guesses, remote_id: roams.example.net}}
`
	b := newMirror(newEngine(t, 2))
	b.kernel()
	c := parse(t, "p2", text)
	configure(t, b.engine, b.m, c)
	is := func(tunnel, customer string, has bool) {
		t.Helper()
		list := b.m.Tunnels()
		i := slices.IndexFunc(list, func(r TunnelRoute) bool { return r.Tunnel == tunnel })
		if i < 0 {
			t.Fatalf("tunnel %s is not there", tunnel)
		}
		want := netip.Addr{}
		if customer != "" {
			want = netip.MustParseAddr(customer)
		}
		r := list[i]
		id, _ := b.engine.TunnelID(tunnel)
		if r.CustomerEndpoint != want || (r.Leaf != 0) != has || (r.Problem == "") != has || b.engine.Forwarding().TunnelRoute(id) != r.Leaf {
			t.Errorf("%s: %+v, the workers have %x; want %s", tunnel, r, b.engine.Forwarding().TunnelRoute(id), customer)
		}
	}
	is("fixed", "198.51.100.2", true)
	is("roams", "", false)
	b.m.SetCustomer("nobody", netip.MustParseAddr("198.51.100.3"))
	b.m.SetCustomer("roams", netip.MustParseAddr("198.51.100.3"))
	is("roams", "198.51.100.3", true)
	far := b.m.Tunnels()[1].Leaf
	b.m.SetCustomer("roams", netip.MustParseAddr("192.0.2.77")) // on the link
	is("roams", "192.0.2.77", true)
	if near := b.m.Tunnels()[1].Leaf; near == far || pipeline.LeafKind(near) != pipeline.KindNeighbour {
		t.Errorf("leaf %x as before", near)
	}
	b.m.SetCustomer("fixed", netip.MustParseAddr("2001:db8::9")) // no route leads there
	is("fixed", "2001:db8::9", false)
	configure(t, b.engine, b.m, c)
	is("fixed", "2001:db8::9", false)
	is("roams", "192.0.2.77", true)
	b.m.SetCustomer("fixed", netip.Addr{})
	is("fixed", "198.51.100.2", true)
	b.m.SetCustomer("roams", netip.Addr{})
	is("roams", "", false)
	if n := len(b.m.watch.list); n != 1 {
		t.Errorf("%d addresses of tunnels are watched, want 1", n)
	}
	configure(t, b.engine, b.m, parse(t, "p2", "endpoints: [192.0.2.1]\n"))
	if len(b.m.Tunnels()) != 0 || len(b.m.watch.list) != 0 {
		t.Error("something is left")
	}
}
