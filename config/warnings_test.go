package config

import (
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	quiet := field("prefixes: [203.0.113.0/24]")
	for _, w := range []struct{ name, text, want string }{
		{"none", quiet, ""},
		{"no tunnels", "interfaces: [{name: eth0}]\n", "c.yaml:1:1: tunnels: there are none: the node only forwards by its routes"},
		{"no prefixes", base, "c.yaml:4:5: tunnels[0].prefixes: there are none: what the customer sends to others is dropped, since its sources are not known"},
		{"node", quiet + "node: {address: 192.0.2.11, state_dir: /var/lib/causeway}\n",
			"c.yaml:10:17: node.address: 192.0.2.11 is not used: it is for traffic between nodes, and there is no section cluster"},
		{"sequence", quiet + "    sequence: true\n",
			"c.yaml:10:15: tunnels[0].sequence: numbers come from one counter, so one worker sends all packets of this tunnel; " +
				"several nodes on one endpoint count each for itself, and a router that checks the order drops what they send"},
		{"df", quiet + "    df: clear\n",
			"c.yaml:10:9: tunnels[0].df: clear fragments packets whose senders asked for none: a lost fragment loses the packet, " +
				"and senders never learn the path's mtu; honour is safer"},
		{"small mtu without IPv6", quiet + "    mtu: 1279\n", ""},
		{"small mtu with IPv6", quiet + "    mtu: 1279\n    interface_address6: fd00::/127\n",
			"c.yaml:10:10: tunnels[0].mtu: 1279 is less than the 1280 bytes that IPv6 demands of every link: larger IPv6 packets leave as outer fragments"},
		{"small mtu with an IPv6 prefix", field("prefixes: [2001:db9::/32]\n    mtu: 576"),
			"c.yaml:10:10: tunnels[0].mtu: 576 is less than the 1280 bytes that IPv6 demands of every link: larger IPv6 packets leave as outer fragments"},
		{"selectors", ipsec("lab: true\n    selectors: {local: [0.0.0.0/0], remote: [203.0.113.0/25, 10.0.0.0/8, \"2001:db8::/32\"]}\n    prefixes: [203.0.113.0/24, 198.18.0.0/15, \"2001:db8:1::/48\"]", sa),
			"c.yaml:12:32: tunnels[0].prefixes[1]: 198.18.0.0/15 has no address in common with selectors.remote: all packets of its hosts are dropped\n" +
				"c.yaml:12:47: tunnels[0].prefixes[2]: 2001:db8:1::/48 is IPv6, and selectors.local has no such prefix: all packets of its hosts are dropped"},
		{"scope of a node that is nowhere", quiet + "routes: [{prefix: 203.0.113.0/24, nexthop: a, scope: {regions: [weur]}}, {prefix: 203.0.113.0/25, nexthop: a, scope: {regions: [enam]}}]\n",
			"c.yaml:10:54: routes[0].scope: this node is in none of weur, since it has neither node.region nor node.datacenter: it does not have this route"},
		{"scope of a node that is somewhere", quiet + "node: {region: enam}\nroutes: [{prefix: 203.0.113.0/24, nexthop: a, scope: {regions: [weur]}}]\n", ""},
		{"account", quiet + "accounts: [{name: acme}, {name: globex}]\n", "c.yaml:10:33: accounts[1].name: \"globex\" has no tunnel"},
		{"default route and a part of a prefix", quiet + "routes: [{prefix: 0.0.0.0/0, nexthop: a}, {prefix: 203.0.113.8/29, nexthop: a}]\n", ""},
		{"route beyond the prefixes", quiet + "routes: [{prefix: 203.0.112.0/23, nexthop: a}]\n",
			"c.yaml:10:19: routes[0].prefix: 203.0.112.0/23 is not among the prefixes of tunnel \"a\": packets go out, but those that come back through it are dropped"},
		{"metrics on loopback", quiet + "metrics: {listen: \"localhost:1\"}\n", ""},
		{"metrics on loopback, IPv6", quiet + "metrics: {listen: \"[::1]:1\"}\n", ""},
		{"metrics everywhere", quiet + "metrics: {listen: \":9150\"}\n",
			"c.yaml:10:19: metrics.listen: [::]:9150 can be reached from other machines, and metrics ask for no password: use a loopback address, or a firewall"},
	} {
		t.Run(w.name, func(t *testing.T) {
			var lines []string
			for _, warning := range mustParse(t, w.text).Warnings() {
				lines = append(lines, warning.String())
			}
			if got := strings.Join(lines, "\n"); got != w.want {
				t.Errorf("got\n%s\nwant\n%s", got, w.want)
			}
		})
	}
}
