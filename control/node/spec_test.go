package node

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"causeway/config"
	"causeway/control/cluster"
	"causeway/pipeline"
)

const head = "interfaces: [{name: eth0}]\nendpoints: [192.0.2.1, \"2001:db8::1\"]\n"

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var equal = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmpopts.EquateEmpty(),
}

func TestSpecOfEverythingThatATunnelCanSay(t *testing.T) {
	c := parse(t, head+`
accounts: [{name: acme, peers: [globex]}, {name: globex, peers: [acme]}]
tunnels:
  - {name: plain, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.0.0.0/31, prefixes: [203.0.113.0/24]}
  - name: full
    account: globex
    endpoint: 2001:db8::1
    customer_endpoint: 2001:db8:9::2
    interface_address: 10.0.0.0/31
    interface_address6: fd00::/127
    mtu: 1400
    pmtu: off
    ttl: 200
    key: 0
    checksum: true
    sequence: true
    mss_clamp: 1200
    df: clear
    prefixes: [198.18.0.0/24, "2001:db8:5::/48"]
  - {name: unclamped, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.0.0.2/31, mss_clamp: off, prefixes: [203.0.114.0/24]}
`)
	links := []pipeline.LinkSpec{{Port: 0, MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1500}}
	addr, pfx := netip.MustParseAddr, netip.MustParsePrefix
	want := &pipeline.Spec{
		Endpoints: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")},
		Accounts:  []pipeline.AccountSpec{{Name: "acme", Peers: []string{"globex"}}, {Name: "globex", Peers: []string{"acme"}}},
		Tunnels: []pipeline.TunnelSpec{
			{Name: "plain", Account: "acme", Endpoint: addr("192.0.2.1"), CustomerEndpoint: addr("198.51.100.2"), Interface4: pfx("10.0.0.0/31"),
				MTU: 1476, PathMTU: true, TTL: 64, Prefixes: []netip.Prefix{pfx("203.0.113.0/24")}},
			{Name: "full", Account: "globex", Endpoint: addr("2001:db8::1"), CustomerEndpoint: addr("2001:db8:9::2"), Interface4: pfx("10.0.0.0/31"),
				Interface6: pfx("fd00::/127"), MTU: 1400, TTL: 200, HasKey: true, Checksum: true, Sequence: true, MSSClamp: 1200, ClearDF: true,
				Prefixes: []netip.Prefix{pfx("198.18.0.0/24"), pfx("2001:db8:5::/48")}},
			{Name: "unclamped", Account: "acme", Endpoint: addr("192.0.2.1"), CustomerEndpoint: addr("198.51.100.3"), Interface4: pfx("10.0.0.2/31"),
				MTU: 1476, PathMTU: true, TTL: 64, MSSClamp: pipeline.MSSOff, Prefixes: []netip.Prefix{pfx("203.0.114.0/24")}},
		},
		Links: links,
	}
	got := SpecOf(c, links)
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	for i := range got.Tunnels {
		if a, b := got.Tunnels[i].Overhead(), c.Tunnels[i].Overhead(); a != b {
			t.Errorf("tunnel %s: the pipeline adds %d bytes, the configuration says %d", c.Tunnels[i].Name, a, b)
		}
	}
}

// During a reload the workers know the tunnels that go as well as those that come.
func TestUnionHasOldAndNew(t *testing.T) {
	tunnel := func(name, customer, prefix string) string {
		return "  - {name: " + name + ", account: " + name + ", endpoint: 192.0.2.1, customer_endpoint: " + customer +
			", interface_address: 10.0.0.0/31, prefixes: [" + prefix + "]}\n"
	}
	old := parse(t, head+"tunnels:\n"+tunnel("stays", "198.51.100.1", "203.0.113.0/24")+tunnel("goes", "198.51.100.2", "203.0.114.0/24")+
		tunnel("renamed", "198.51.100.3", "203.0.115.0/24"))
	c := parse(t, "interfaces: [{name: eth0}]\nendpoints: [192.0.2.1]\ntunnels:\n"+tunnel("stays", "198.51.100.9", "203.0.113.0/24")+
		tunnel("comes", "198.51.100.4", "203.0.116.0/24")+tunnel("other-name", "198.51.100.3", "203.0.115.0/24"))
	s := union(old, c, nil, newAssociations(nil, nil).of)
	customers := map[string]string{}
	for _, u := range s.Tunnels {
		customers[u.Name] = u.CustomerEndpoint.String()
	}
	want := map[string]string{"stays": "198.51.100.9", "comes": "198.51.100.4", "other-name": "198.51.100.3", "goes": "198.51.100.2"}
	if diff := cmp.Diff(want, customers); diff != "" {
		t.Errorf("tunnels, want -, got +:\n%s", diff)
	}
	accounts := map[string]bool{}
	for _, a := range s.Accounts {
		accounts[a.Name] = true
	}
	if !accounts["goes"] || !accounts["comes"] {
		t.Errorf("accounts %v", accounts)
	}
	if len(s.Endpoints) != 2 {
		t.Errorf("endpoints %v: the one that goes is still needed", s.Endpoints)
	}
}

// What config takes off the size of a tunnel with replay protection is what the pipeline puts in front of its packets between nodes.
func TestForwardOverhead(t *testing.T) {
	tunnel := config.Tunnel{Endpoint: netip.MustParseAddr("192.0.2.1"), IPsec: &config.IPsec{ReplayProtection: true, IKE: &config.IKE{ChildProposals: []string{"aes256gcm16-noesn"}}}}
	c := &config.Config{Cluster: &config.Cluster{}, Node: config.Node{Address: netip.MustParseAddr("172.31.1.1")}, Tunnels: []config.Tunnel{tunnel}}
	if s := SpecOf(c, nil); !s.Tunnels[0].Owned || s.Endpoints[len(s.Endpoints)-1] != c.Node.Address {
		t.Errorf("in a cluster: %+v, %v", s.Tunnels[0], s.Endpoints)
	}
	c.Cluster = nil
	if s := SpecOf(c, nil); s.Tunnels[0].Owned || len(s.Endpoints) > 0 {
		t.Errorf("alone: %+v, %v", s.Tunnels[0], s.Endpoints)
	}
	with := withPeers(&config.Config{Node: config.Node{Address: netip.MustParseAddr("172.31.1.1")}}, map[string]cluster.Peer{
		"edge-2": {Name: "edge-2", Address: netip.MustParseAddr("172.31.3.1")}, "edge-6": {Name: "edge-6", Address: netip.MustParseAddr("2001:db8::1")}})
	if s := SpecOf(with, nil); len(s.Tunnels) != 1 || s.Tunnels[0].Name != "node:edge-2" || !s.Tunnels[0].Node || !s.Tunnels[0].Negotiated || s.Tunnels[0].Owned {
		t.Errorf("other nodes: %+v", s.Tunnels)
	}
	// A full-sized packet between nodes over IPv4: outer header, ESP header, IV, tag, text, padding, trailer, check value.
	mtu := 1500 - 20 - 8 - 8 - 8 - 2 - 16 // of ESP in UDP toward the customer
	mtu -= mtu % 4
	if between := 20 + 8 + 8 + 4 + mtu - pipeline.ForwardOverhead + 2 + 3 + 16; between > 1500 {
		t.Errorf("%d bytes between nodes", between)
	}
}
