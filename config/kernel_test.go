package config

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestKernelInterface(t *testing.T) {
	for text, want := range map[string]string{"": "", "kernel_interface: false": "", "kernel_interface: true": "a", "kernel_interface: cust-a.bgp": "cust-a.bgp"} {
		if got := mustParse(t, field(text)).Tunnels[0].KernelInterface; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"kernel_interface: 7":                "must be true, or the name of the device that the host shall have for the tunnel, got 7",
		"kernel_interface: sixteen-letters.": `"sixteen-letters." is no name of a device: 1 to 15 letters`,
		"kernel_interface: eth0":             `"eth0" is the name of another interface (interfaces[0].name on`,
		"kernel_interface: causeway-any":     `"causeway-any" is taken by the host, or by the daemon itself: write another name`,
		"kernel_interface: a/b":              `"a/b" is no name of a device`,
		"mtu: 1000\n    interface_address6: fd00:213::a/127\n    kernel_interface: true": "IPv6 needs a device of 1280 bytes at least, and the tunnel's mtu is 1000",
	} {
		_, err := Parse("c.yaml", []byte(field(text)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// learning is two tunnels of an account to two sites that announce one prefix.
const learning = `
interfaces: [{name: eth0}]
endpoints: [192.0.2.1]
tunnels:
  - {name: a, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.0.0.0/31, kernel_interface: true, prefixes: [203.0.113.0/24, 10.0.0.0/8]}
  - {name: b, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.0.0.2/31, kernel_interface: true, prefixes: [203.0.113.0/24, 198.18.0.0/24]}
  - {name: c, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.4, interface_address: 10.0.0.4/31, prefixes: [10.0.0.0/8]}
routes:
  - {prefix: 198.18.0.0/24, nexthop: b, priority: 7}
`

// The prefixes of a tunnel with a device are not led into it: that is for its router to say. What it does not announce goes nowhere else.
func TestUnlearned(t *testing.T) {
	got := mustParse(t, learning).EffectiveRoutes()
	want := []Route{
		{Prefix: prefix("198.18.0.0/24"), Account: "acme", Tunnel: "b", Priority: 7, Weight: 1},
		{Prefix: prefix("203.0.113.0/24"), Account: "acme", Tunnel: "a", Priority: math.MaxUint32, Weight: 1, Unlearned: true},
		{Prefix: prefix("10.0.0.0/8"), Account: "acme", Tunnel: "a", Priority: math.MaxUint32, Weight: 1, Unlearned: true},
		{Prefix: prefix("10.0.0.0/8"), Account: "acme", Tunnel: "c", Priority: 100, Weight: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	changed := Diff(mustParse(t, learning), mustParse(t, strings.Replace(learning, "kernel_interface: true", "kernel_interface: cw-a", 1)))
	if len(changed.TunnelsChanged) != 1 || !slices.Equal(changed.TunnelsChanged[0].Fields, []string{"kernel_interface"}) {
		t.Errorf("changes: %+v", changed)
	}
}

// Two accounts may have the same addresses, and tunnels any names, but one host has each once.
func TestSameDevices(t *testing.T) {
	for second, want := range map[string]string{
		"name: b\n    customer_endpoint: 198.51.100.3\n    interface_address: 10.213.7.0/31\n    kernel_interface: a":     `tunnels[1].kernel_interface: "a" is the name of another interface (tunnels[0].kernel_interface on line 9)`,
		"name: b\n    customer_endpoint: 198.51.100.3\n    interface_address: 10.213.0.10/31\n    kernel_interface: true": "tunnels[1].kernel_interface: the host cannot tell the routers of two tunnels apart that have interface addresses in 10.213.0.10/31 (tunnels[0].kernel_interface on line 9)",
		"name: b\n    customer_endpoint: 198.51.100.3\n    interface_address: 10.213.0.10/31":                             "",
	} {
		text := base + "    kernel_interface: true\n  - endpoint: 192.0.2.1\n    account: globex\n    " + second + "\n"
		if _, err := Parse("c.yaml", []byte(text)); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s:\ngot  %v\nwant %s", second, err, want)
		}
	}
}

// A device that is new takes its tunnel's prefixes away, which is said; one that stays, or goes, does not.
func TestDeviceIsNew(t *testing.T) {
	without, with := field("prefixes: [203.0.113.0/24]"), field("prefixes: [203.0.113.0/24]\n    kernel_interface: true")
	for _, c := range []struct{ old, new, want string }{
		{without, with, "tunnel a: its prefixes are not led into it by themselves any more, but by what is learned through device a, and by routes"},
		{with, without, ""},
		{with, field("prefixes: [203.0.113.0/24]\n    kernel_interface: b"), ""},
		{base, field("kernel_interface: true"), ""},
	} {
		got := strings.Join(Diff(mustParse(t, c.old), mustParse(t, c.new)).Warnings(), "\n")
		if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// The host is nobody's router inside a tunnel: neither a /30 of two tunnels, nor its own addresses.
func TestDeviceSubnets(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{strings.Replace(base, "10.213.0.10/31", "10.213.0.9/30", 1) + "    kernel_interface: true\n  - {name: b, account: globex, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.9, interface_address: 10.213.0.10/31, kernel_interface: true}\n",
			"apart that have interface addresses in 10.213.0.10/31 (tunnels[0].kernel_interface on line 9)"},
		{"node: {address: 10.213.0.11}\n" + base + "    kernel_interface: true\n", "node.address or an endpoint lies in the subnet 10.213.0.10/31"},
		{"node: {address: 10.213.0.12}\n" + base + "    kernel_interface: true\n", ""},
	} {
		if _, err := Parse("c.yaml", []byte(c.text)); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}
