package config

import (
	"slices"
	"strings"
	"testing"
)

// base is a file without mistakes; the cases change it or add to it.
const base = `interfaces: [{name: eth0}]
endpoints: [192.0.2.1, "2001:db8::1"]
tunnels:
  - name: a
    account: acme
    endpoint: 192.0.2.1
    customer_endpoint: 198.51.100.2
    interface_address: 10.213.0.10/31
`

// swap replaces part of base.
func swap(old, new string) string {
	if !strings.Contains(base, old) {
		panic("base does not contain " + old)
	}
	return strings.Replace(base, old, new, 1)
}

// field adds a field to the tunnel of base: line 9.
func field(text string) string { return base + "    " + text + "\n" }

// second adds a tunnel of account acme to base: line 9.
func second(text string) string {
	if !strings.Contains(text, "account:") {
		text += "\n    account: acme"
	}
	return base + "  - endpoint: 192.0.2.1\n    " + text + "\n"
}

// top adds a section to base: line 9.
func top(text string) string { return base + text + "\n" }

func TestBaseIsGood(t *testing.T) {
	if _, err := Parse("c.yaml", []byte(base)); err != nil {
		t.Fatal(err)
	}
}

// TestMistakes compares all errors of a file, to the letter.
func TestMistakes(t *testing.T) {
	for _, m := range slices.Concat(mistakes, tunnelMistakes, ikeMistakes) {
		t.Run(m.name, func(t *testing.T) {
			c, err := Parse("c.yaml", []byte(m.text))
			if err == nil {
				t.Fatalf("accepted; want\n%s", m.want)
			}
			if c != nil {
				t.Error("a configuration beside the errors")
			}
			if got := err.Error(); got != m.want {
				t.Errorf("got\n%s\nwant\n%s\nof\n%s", got, m.want, m.text)
			}
		})
	}
}

var mistakes = []struct{ name, text, want string }{
	{"empty file", ``,
		`c.yaml:1:1: the file is empty: it needs interfaces at least`},
	{"comments only", `# nothing
`,
		`c.yaml:1:1: the file is empty: it needs interfaces at least`},
	{"a list", `- eth0
`,
		`c.yaml:1:1: must be a mapping with node, interfaces, workers, endpoints, accounts, tunnels, routes, steering, notify, metrics, control, cluster or analytics, got a list`},
	{"only a word", `hello
`,
		`c.yaml:1:1: must be a mapping with node, interfaces, workers, endpoints, accounts, tunnels, routes, steering, notify, metrics, control, cluster or analytics, got "hello"`},
	{"tab", "node:\n\tname: a\n",
		`c.yaml:2:1: not valid YAML: a tab: indent with spaces`},
	{"unclosed list", `endpoints: [192.0.2.1
tunnels: []
`,
		`c.yaml:2:1: not valid YAML: ',' or ']' must be specified`},
	{"colon in text", `node: {name: a}
control: socket: /x
`,
		`c.yaml:2:10: not valid YAML: mapping value is not allowed in this context`},
	{"not UTF-8", "node:\n  name: \"caf\xe9\"\n",
		`c.yaml:2:13: a byte that is not UTF-8: save the file as UTF-8`},
	{"second document", top(`---
node: {name: b}`),
		`c.yaml:10:1: a second YAML document: put everything into one, without a line of ---`},
	{"unknown section", top(`tunnel: []`),
		`c.yaml:9:1: unknown field "tunnel": did you mean "tunnels"?`},
	{"unknown section, nothing near", top(`firewall: {}`),
		`c.yaml:9:1: unknown field "firewall": allowed are node, interfaces, workers, endpoints, accounts, tunnels, routes, steering, notify, metrics, control, cluster and analytics`},
	{"section twice", top(`endpoints: [192.0.2.7]`),
		`c.yaml:9:1: endpoints: given twice, first on line 2: remove one`},
	{"number as key", top(`7: seven`),
		`c.yaml:9:1: unknown field 7: the names of fields are words`},
	{"merge key", top(`<<: {node: {name: b}}`),
		`c.yaml:9:1: merge keys (<<) are not supported: write the fields out`},
	{"anchor", top(`node: &n {name: b}`),
		`c.yaml:9:7: node: anchors and aliases (& and *) are not supported: write the value out`},
	{"alias", top(`node: *n`),
		`c.yaml:9:7: node: anchors and aliases (& and *) are not supported: write the value out`},
	{"tag", top(`workers: {busy_poll: !!bool true}`),
		`c.yaml:9:22: workers.busy_poll: tags (!) are not supported: write the value alone`},
	{"cluster of servers alone", top(`cluster: {servers: ["tls://hub1.example.net:4222"]}`),
		`c.yaml:1:1: node.address: is missing: in a cluster each node has a unicast address of its own beside the endpoints
c.yaml:9:10: cluster: ` + noRoster + `
c.yaml:9:10: cluster: ` + noTLS},
	{"cluster of nothing", inCluster(`{}`),
		`c.yaml:10:10: cluster: names nobody: write servers: ["tls://hub1.example.net:4222"], or hub: {listen: "0.0.0.0:4222"} where this node is to serve others
c.yaml:10:10: cluster: ` + noRoster + `
c.yaml:10:10: cluster: ` + noTLS},
	{"cluster without a value", inCluster(``),
		`c.yaml:10:10: cluster: has no value: give one, or remove it`},
	{"cluster is a list", inCluster(`["tls://hub1.example.net:4222"]`),
		`c.yaml:10:10: cluster: must be a mapping with servers, tls, hub, nats, roster or while_away, got a list`},
	{"cluster, unknown field", inCluster(`{servers: ["tls://hub1.example.net:4222"], tls: [], roster: 7, name: edge}`),
		`c.yaml:10:58: cluster.tls: must be a mapping with certificate, key or ca, got a list
c.yaml:10:70: cluster.roster: must be an absolute path, got 7
c.yaml:10:73: cluster: unknown field "name": allowed are servers, tls, hub, nats, roster and while_away`},
	{"cluster, fields misspelled", inCluster(`{server: ["tls://hub1.example.net:4222"], tsl: {}, rooster: /x}`),
		`c.yaml:10:11: cluster: unknown field "server": did you mean "servers"?
c.yaml:10:52: cluster: unknown field "tsl": did you mean "tls"?
c.yaml:10:61: cluster: unknown field "rooster": did you mean "roster"?`},
	{"files of a cluster that are not there", inCluster(`{hub: {listen: ":4222"}, tls: {certificate: /nonexistent/cert.pem, key: /nonexistent/key.pem, ca: /nonexistent/ca.pem}, roster: /nonexistent/roster}`),
		`c.yaml:10:54: cluster.tls.certificate: "/nonexistent/cert.pem": no such file or directory
c.yaml:10:82: cluster.tls.key: "/nonexistent/key.pem": no such file or directory
c.yaml:10:108: cluster.tls.ca: "/nonexistent/ca.pem": no such file or directory
c.yaml:10:138: cluster.roster: "/nonexistent/roster": no such file or directory`},
	{"files of a cluster that are none", inCluster(`{hub: {listen: ":4222"}, tls: {certificate: cert.pem, key: /dev/zero, ca: /}, roster: /}`),
		`c.yaml:10:54: cluster.tls.certificate: "cert.pem" is not an absolute path: begin it with /
c.yaml:10:69: cluster.tls.key: "/dev/zero": not a file with a key
c.yaml:10:84: cluster.tls.ca: "/": not a file with certificates
c.yaml:10:96: cluster.roster: "/": not a file with a line for each node`},
	{"ike", top(`ike: {}`),
		`c.yaml:9:1: ike: a tunnel of type ipsec has ike itself: remove the section`},
	{"ipsec", top(`ipsec: {}`),
		`c.yaml:9:1: ipsec: a tunnel of type ipsec has these fields itself: remove the section`},
	{"flow", top(`flow: {export: 192.0.2.9}`),
		`c.yaml:9:1: flow: is part of analytics: write analytics: {sampling: 1000}`},
	{"bgp", top(`bgp: {asn: 65000}`),
		`c.yaml:9:1: bgp: this version does not speak BGP itself, the host's bird or FRR does: write kernel_interface: true in tunnels, and see docs/bgp.md`},
	{"health checks", top(`health_checks: []`),
		`c.yaml:9:1: health_checks: belongs to each tunnel: write health_check: {type: request} there`},
	{"node is a list", top(`node: [edge-1]`),
		`c.yaml:9:7: node: must be a mapping with name, address, datacenter, region or state_dir, got a list`},
	{"node name of a digit", top(`node: {name: 7}`),
		`c.yaml:9:14: node.name: must be text, got 7: put it in quotes`},
	{"node name with a space", top(`node: {name: edge 1}`),
		`c.yaml:9:14: node.name: "edge 1" is not a name: 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit`},
	{"node name without value", top(`node: {name: }`),
		`c.yaml:9:13: node.name: has no value: give one, or remove it`},
	{"node address is a network", top(`node: {address: 192.0.2.11/24}`),
		`c.yaml:9:17: node.address: "192.0.2.11/24" is not an IP address: write it without the prefix length`},
	{"node address is an endpoint", top(`node: {address: 192.0.2.1}`),
		`c.yaml:9:17: node.address: 192.0.2.1 is an endpoint (endpoints[0] on line 2): every node answers on those; give this node an address of its own`},
	{"state directory relative", top(`node: {state_dir: causeway}`),
		`c.yaml:9:19: node.state_dir: "causeway" is not an absolute path: begin it with /`},
	{"datacenter is a list", top(`node: {datacenter: [ams1]}`),
		`c.yaml:9:20: node.datacenter: must be text, got a list`},
	{"no interfaces", `endpoints: [192.0.2.1]
`,
		`c.yaml:1:1: interfaces is missing: write at least one, such as [{name: eth0}]`},
	{"interfaces empty", swap(`[{name: eth0}]`, `[]`),
		`c.yaml:1:13: interfaces: is empty: list at least one, such as [{name: eth0}]`},
	{"interfaces is a word", swap(`[{name: eth0}]`, `eth0`),
		`c.yaml:1:13: interfaces: must be a list of interfaces, got "eth0"`},
	{"interface is a word", swap(`[{name: eth0}]`, `[eth0]`),
		`c.yaml:1:14: interfaces[0]: must be a mapping with name, queues or mode, got "eth0"`},
	{"interface without a name", swap(`{name: eth0}`, `{mode: auto}`),
		`c.yaml:1:14: interfaces[0]: name is missing: write the interface's name, such as eth0`},
	{"interface name too long", swap(`name: eth0`, `name: enp130s0f0np0v12`),
		`c.yaml:1:21: interfaces[0].name: "enp130s0f0np0v12" is not an interface name: 1 to 15 bytes without spaces, '/' and ':'`},
	{"interface twice", swap(`{name: eth0}`, `{name: eth0}, {name: eth0}`),
		`c.yaml:1:35: interfaces[1].name: "eth0" is taken by interfaces[0].name on line 1: an interface is listed once`},
	{"mode unknown", swap(`name: eth0`, `name: eth0, mode: zerocopy`),
		`c.yaml:1:33: interfaces[0].mode: must be auto, zero-copy, copy or generic, got "zerocopy"`},
	{"queues a number", swap(`name: eth0`, `name: eth0, queues: 2`),
		`c.yaml:1:35: interfaces[0].queues: must be all or a list of queues such as [0, 1], got 2`},
	{"queues empty", swap(`name: eth0`, `name: eth0, queues: []`),
		`c.yaml:1:35: interfaces[0].queues: is empty: list the queues, or write all`},
	{"queue twice", swap(`name: eth0`, `name: eth0, queues: [0, 1, 0]`),
		`c.yaml:1:42: interfaces[0].queues[2]: 0 is listed twice, first as interfaces[0].queues[0]: remove one`},
	{"queue negative", swap(`name: eth0`, `name: eth0, queues: [-1]`),
		`c.yaml:1:36: interfaces[0].queues[0]: must be a whole number from 0 to 1023, got -1`},
	{"cpus a number", top(`workers: {cpus: 4}`),
		`c.yaml:9:17: workers.cpus: must be auto or a list of cores such as [0, 1], got 4`},
	{"cpu twice", top(`workers: {cpus: [2, 3, 2]}`),
		`c.yaml:9:24: workers.cpus[2]: 2 is listed twice, first as workers.cpus[0]: remove one`},
	{"cpu out of range", top(`workers: {cpus: [4096]}`),
		`c.yaml:9:18: workers.cpus[0]: must be a whole number from 0 to 1023, got 4096`},
	{"busy_poll yes", top(`workers: {busy_poll: yes}`),
		`c.yaml:9:22: workers.busy_poll: must be true or false, got "yes"`},
	{"endpoint no address", swap(`192.0.2.1, `, `192.0.2.1, edge.example.net, `),
		`c.yaml:2:24: endpoints[1]: "edge.example.net" is not an IP address: write one such as 192.0.2.1 or 2001:db8::1`},
	{"endpoint multicast", swap(`192.0.2.1, `, `192.0.2.1, 224.0.0.5, `),
		`c.yaml:2:24: endpoints[1]: 224.0.0.5 is multicast (224.0.0.0/4): it must be a unicast address that routers reach`},
	{"endpoint link-local", swap(`192.0.2.1, `, `192.0.2.1, 169.254.1.1, `),
		`c.yaml:2:24: endpoints[1]: 169.254.1.1 is link-local (169.254.0.0/16): it must be a unicast address that routers reach`},
	{"endpoint twice", swap(`192.0.2.1, `, `192.0.2.1, 192.0.2.1, `),
		`c.yaml:2:24: endpoints[1]: 192.0.2.1 is listed twice, first as endpoints[0]: remove one`},
	{"endpoint in IPv6 form", swap(`192.0.2.1, `, `192.0.2.1, "::ffff:192.0.2.9", `),
		`c.yaml:2:24: endpoints[1]: "::ffff:192.0.2.9" is an IPv4 address in IPv6 form: write 192.0.2.9`},
	{"endpoint with a zone", swap(`192.0.2.1, `, `192.0.2.1, "fe80::1%eth0", `),
		`c.yaml:2:24: endpoints[1]: "fe80::1%eth0" has a zone: write fe80::1`},
	{"account without tunnels' account", top(`accounts: [{name: acne}]`),
		`c.yaml:5:14: tunnels[0].account: "acme" is not listed under accounts: did you mean "acne"?`},
	{"account twice", top(`accounts: [{name: acme}, {name: acme}]`),
		`c.yaml:9:33: accounts[1].name: "acme" is taken by accounts[0].name on line 9: an account is listed once`},
	{"peer unknown", top(`accounts: [{name: acme, peers: [globex]}]`),
		`c.yaml:9:33: accounts[0].peers[0]: there is no account "globex": allowed are acme`},
	{"peer of itself", top(`accounts: [{name: acme, peers: [acme]}]`),
		`c.yaml:9:33: accounts[0].peers[0]: "acme" is the account itself, whose tunnels reach each other anyway: remove it`},
	{"peer on one side", top(`accounts: [{name: acme, peers: [globex]}, {name: globex}]`),
		`c.yaml:9:33: accounts[0].peers[0]: "globex" does not name "acme" among its peers: peering needs both; add it there, or remove it here`},
	{"peer twice", top(`accounts: [{name: acme, peers: [globex, globex]}, {name: globex, peers: [acme]}]`),
		`c.yaml:9:41: accounts[0].peers[1]: "globex" is taken by accounts[0].peers[0] on line 9: a peer is listed once`},
}

// sa is a pair of associations without a mistake.
// otherKeys changes the keys of sa.
func otherKeys(sa string) string {
	return swapIn(swapIn(sa, `"0001020304`, `"7001020304`), `"1011121314`, `"7111121314`)
}

const cbc = `manual_sas: [{spi_in: 0x1001, spi_out: 0x2001, encryption: null-sha256, key_in: "` + hex64 + `", key_out: "00` + hex62 + `"}]`

const (
	hex62 = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	hex64 = "20" + hex62
)

const sa = `manual_sas: [{spi_in: 0x1001, spi_out: 0x2001, encryption: aes128gcm16, key_in: "000102030405060708090a0b0c0d0e0f10111213", key_out: "101112131415161718191a1b1c1d1e1f20212223"}]`

// ipsec is a file with an IPsec tunnel: the associations, and then more fields.
func ipsec(more, associations string) string {
	first, rest, _ := strings.Cut(associations, "\n")
	if more != "" {
		first += "\n    " + more
	}
	if rest != "" {
		first += "\n" + rest
	}
	return swap(`account: acme`, "type: ipsec") + "    " + first + "\n"
}

func swapIn(text, old, new string) string { return strings.Replace(text, old, new, 1) }
