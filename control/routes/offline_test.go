package routes

import (
	"testing"

	"causeway/config"
	"causeway/pipeline"
)

// Offline routes as the daemon does, with a router where the kernel's routes would be, and everybody answers.
func TestOffline(t *testing.T) {
	c, err := config.Parse("test.yaml", []byte("node: {name: edge-1}\ninterfaces: [{name: p2}, {name: p3}]"+threeTunnels+`
  - {prefix: 198.51.100.0/24, nexthop: 198.18.0.1, interface: p2}
  - {prefix: 198.51.100.0/24, nexthop: 198.18.0.2, interface: p2, priority: 200}
`))
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, 2)
	defer e.Close()
	o := NewOffline(e, []string{"p2", "p3"}, 1)
	for i, l := range o.Links() {
		if l != (pipeline.LinkSpec{Port: i, MTU: OfflineMTU}) {
			t.Errorf("link %d: %+v", i, l)
		}
	}
	s := pipeline.Spec{Endpoints: c.Endpoints, Links: o.Links()}
	for _, x := range c.Tunnels {
		s.Tunnels = append(s.Tunnels, pipeline.TunnelSpec{
			Name: x.Name, Account: x.Account, Endpoint: x.Endpoint, CustomerEndpoint: x.CustomerEndpoint, MTU: x.MTU, Prefixes: x.Prefixes,
		})
	}
	if err := e.Apply(&s); err != nil {
		t.Fatal(err)
	}
	if err := o.Apply(c); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ account, addr, want string }{
		{"", "8.8.8.8", "192.0.0.8%2"}, {"", "2001:db8::8", "100::8%2"}, {"", "192.0.2.1", "kernel"},
		{"", "198.51.100.9", "198.18.0.1%1"}, {"", "203.0.112.1", "tunnel a2"}, {"", "203.0.113.9", "tunnel a1*1 + tunnel a2*1"},
		{"acme", "10.7.1.1", "tunnel a1"}, {"bolt", "10.7.1.1", "tunnel b1"}, {"acme", "10.213.0.2", "tunnel-address a2"},
	} {
		if got := o.m.at(x.account, x.addr); got != x.want {
			t.Errorf("account %q, %s: %q, want %q", x.account, x.addr, got, x.want)
		}
	}
	macs := map[[6]byte]bool{}
	for _, n := range o.m.Neighbours() {
		if !n.Usable || !n.Used || macs[n.MAC] {
			t.Errorf("neighbour %+v", n)
		}
		macs[n.MAC] = true
	}
	for _, x := range o.m.Tunnels() {
		if o.m.explain(x.Leaf) != "198.18.0.1%1" {
			t.Errorf("tunnel %s: %s %s", x.Tunnel, o.m.explain(x.Leaf), x.Problem)
		}
	}
}
