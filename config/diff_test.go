package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// summary writes changes one a line.
func summary(c Changes) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	route := func(sign string, r Route) {
		line("%sroute %s %s %s%s %d/%d", sign, r.Account, r.Prefix, r.Tunnel, r.Interface, r.Priority, r.Weight)
	}
	for _, a := range c.EndpointsAdded {
		line("+endpoint %s", a)
	}
	for _, a := range c.EndpointsRemoved {
		line("-endpoint %s", a)
	}
	for _, t := range c.TunnelsAdded {
		line("+tunnel %s", t.Name)
	}
	for _, t := range c.TunnelsRemoved {
		line("-tunnel %s", t.Name)
	}
	for _, t := range c.TunnelsChanged {
		line("~tunnel %s: %s", t.New.Name, strings.Join(t.Fields, " "))
	}
	for _, r := range c.RoutesAdded {
		route("+", r)
	}
	for _, r := range c.RoutesRemoved {
		route("-", r)
	}
	for _, p := range c.PeersChanged {
		line("~peers %s", p)
	}
	for _, r := range c.Restart {
		if r.Reason == "" {
			line("no reason for %s", r.Path)
		}
		line("restart %s", r.Path)
	}
	return b.String()
}

const diffBase = `
node: {name: n}
interfaces: [{name: eth0}, {name: eth1, queues: [0, 1]}]
endpoints: [192.0.2.1, 192.0.2.2]
accounts: [{name: acme, peers: [globex]}, {name: globex, peers: [acme]}]
tunnels:
  - {name: a, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.0.0.0/31, prefixes: [203.0.113.0/24, 30.0.0.0/24]}
  - {name: b, account: globex, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.0.0.2/31}
routes: [{prefix: 203.0.113.0/25, nexthop: a}]
`

func TestDiff(t *testing.T) {
	for _, d := range []struct{ name, old, new, want string }{
		{"nothing", "", "", ""},
		{"order", "[192.0.2.1, 192.0.2.2]", "[192.0.2.2, 192.0.2.1]", ""},
		{"order of prefixes", "[203.0.113.0/24, 30.0.0.0/24]", "[30.0.0.0/24, 203.0.113.0/24]", ""},
		{"order of interfaces", "[{name: eth0}, {name: eth1, queues: [0, 1]}]", "[{name: eth1, queues: [1, 0]}, {name: eth0}]", ""},
		{"a default written out", "interface_address: 10.0.0.2/31", "interface_address: 10.0.0.2/31, mtu: 1476, ttl: 64", ""},
		{"endpoint", ", 192.0.2.2", ", 192.0.2.3", "+endpoint 192.0.2.3\n-endpoint 192.0.2.2\n"},
		{"tunnel renamed", "name: b,", "name: c,", "+tunnel c\n-tunnel b\n"},
		{"key changes mtu", "interface_address: 10.0.0.2/31", "interface_address: 10.0.0.2/31, key: 0", "~tunnel b: mtu key\n"},
		{"everything of a tunnel",
			"name: b, account: globex, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.0.0.2/31",
			"name: b, account: acme, endpoint: 192.0.2.2, customer_endpoint: 198.51.100.4, interface_address: 10.0.0.4/31, " +
				"interface_address6: fd00::/127, mtu: 1400, pmtu: off, ttl: 9, key: 9, checksum: true, sequence: true, mss_clamp: off, df: clear, prefixes: [40.0.0.0/8]",
			"~tunnel b: account endpoint customer_endpoint interface_address interface_address6 mtu pmtu ttl key checksum sequence mss_clamp df prefixes\n" +
				"+route acme 40.0.0.0/8 b 100/1\n"},
		{"prefix", "30.0.0.0/24", "30.0.1.0/24", "~tunnel a: prefixes\n+route acme 30.0.1.0/24 a 100/1\n-route acme 30.0.0.0/24 a 100/1\n"},
		{"weight", "nexthop: a}", "nexthop: a, weight: 2}", "+route acme 203.0.113.0/25 a 100/2\n-route acme 203.0.113.0/25 a 100/1\n"},
		{"route takes a prefix over", "203.0.113.0/25, nexthop: a", "203.0.113.0/24, nexthop: a, priority: 5",
			"+route acme 203.0.113.0/24 a 5/1\n-route acme 203.0.113.0/25 a 100/1\n-route acme 203.0.113.0/24 a 100/1\n"},
		{"peers", "accounts: [{name: acme, peers: [globex]}, {name: globex, peers: [acme]}]", "", "~peers acme\n~peers globex\n"},
		{"account with peers leaves", "accounts: [{name: acme, peers: [globex]}, {name: globex, peers: [acme]}]",
			"accounts: [{name: acme}, {name: globex}]", "~peers acme\n~peers globex\n"},
		{"node", "name: n", "name: m, address: 192.0.2.9, datacenter: d, region: r, state_dir: /s",
			"restart node.name\nrestart node.address\nrestart node.datacenter\nrestart node.region\nrestart node.state_dir\n"},
		{"interface", "{name: eth0},", "", "restart interfaces\n"},
		{"queues to all", ", queues: [0, 1]", "", "restart interfaces\n"},
		{"mode", "name: eth0", "name: eth0, mode: copy", "restart interfaces\n"},
		{"workers", "node: {name: n}", "node: {name: n}\nworkers: {cpus: [1], busy_poll: false}", "restart workers.cpus\nrestart workers.busy_poll\n"},
		{"listeners", "node: {name: n}", "node: {name: n}\nmetrics: {listen: \"[::1]:1\"}\ncontrol: {socket: /s}", "restart metrics.listen\nrestart control.socket\n"},
	} {
		t.Run(d.name, func(t *testing.T) {
			if !strings.Contains(diffBase, d.old) {
				t.Fatalf("%q is not in the file", d.old)
			}
			c := Diff(mustParse(t, diffBase), mustParse(t, strings.Replace(diffBase, d.old, d.new, 1)))
			if got := summary(c); got != d.want {
				t.Errorf("got\n%swant\n%s", got, d.want)
			}
			if c.Empty() != (d.want == "") {
				t.Errorf("Empty is %v", c.Empty())
			}
		})
	}
}

// TestDiffAccountGone: an account that is no longer there has no peers either.
func TestDiffAccountGone(t *testing.T) {
	old := mustParse(t, diffBase)
	new := mustParse(t, `interfaces: [{name: eth0}]`)
	if got := Diff(old, new).PeersChanged; !reflect.DeepEqual(got, []string{"acme", "globex"}) {
		t.Errorf("got %v", got)
	}
}

// TestDiffSeesEveryField changes each field of a tunnel by reflection: a field
// added to Tunnel and forgotten in the comparison fails here.
func TestDiffSeesEveryField(t *testing.T) {
	base := Tunnel{HasKey: true}
	for i := range reflect.TypeFor[Tunnel]().NumField() {
		changed := base
		name := reflect.TypeFor[Tunnel]().Field(i).Name
		switch f := reflect.ValueOf(&changed).Elem().Field(i).Addr().Interface().(type) {
		case *string:
			*f = "x"
		case *bool:
			*f = !*f
		case *int:
			*f = 7
		case *uint8:
			*f = 7
		case *uint32:
			*f = 7
		case *netip.Addr:
			*f = addr("192.0.2.9")
		case *netip.Prefix:
			*f = prefix("192.0.2.9/32")
		case *[]netip.Prefix:
			*f = []netip.Prefix{prefix("192.0.2.9/32")}
		case *MSSClamp:
			f.Mode = ClampOff
		case *DFMode:
			*f = DFClear
		case *TunnelType:
			*f = IPsecESP
		case **IPsec:
			*f = &IPsec{ReplayWindow: 7}
		case **HealthCheck:
			*f = &HealthCheck{Retry: 7}
		case **BFD:
			*f = &BFD{Multiplier: 7}
		default:
			t.Fatalf("%s: no change for a %T", name, f)
		}
		if name != "Name" && len(base.differences(changed)) == 0 {
			t.Errorf("%s is not compared", name)
		}
	}
}

// TestNewKeysUnderOldSPIs: the other end cannot tell them from a forgery or a replay.
func TestNewKeysUnderOldSPIs(t *testing.T) {
	file := ipsec("lab: true", sa)
	old := mustParse(t, file)
	newIn := swapIn(file, `"0001020304`, `"7001020304`)
	for _, c := range []struct{ file, want string }{
		{file, ""},
		{newIn, "tunnel a: key_in is another one under the same spi_in"},
		{swapIn(newIn, "0x1001", "0x1002"), ""},
		{swapIn(file, `"1011121314`, `"7111121314`), "tunnel a: key_out is another one under the same spi_out"},
		{base, ""},
	} {
		got := strings.Join(Diff(old, mustParse(t, c.file)).Warnings(), "\n")
		if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
