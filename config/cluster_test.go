package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	leaf = `servers: ["tls://hub1.example.net:4222"]`
	hub  = `hub: {listen: "0.0.0.0:4222"}`

	noTLS    = `tls is missing: write {certificate: FILE, key: FILE, ca: FILE}: nodes know each other's connections by them`
	noRoster = "roster is missing: write the path of a file with a line for each node that is admitted: its name, and what `causeway cluster identity` prints there"
	noServer = ` is not the URL of a server: write tls://, a host and a port, and nothing else, as in tls://hub1.example.net:4222 or tls://[2001:db8::1]:4222`
	noUser   = `has a user before the host, and nodes know each other by certificates: write tls://, a host and a port alone`
	noListen = ` is not an address and a port: write one such as 127.0.0.1:9150 or [::1]:9150`

	tlsLines   = "  tls:\n    certificate: DIR/cert.pem\n    key: DIR/key.pem\n    ca: DIR/ca.pem\n"
	rosterLine = "  roster: DIR/roster\n"
)

// inCluster is base in a cluster: line 10 has the section.
func inCluster(section string) string {
	return top("node: {address: 192.0.2.11}\ncluster: " + section)
}

// clustered puts what text says into a cluster, with files in DIR that are good.
// With base line 9 is the node, 10 the cluster, 12 to 15 the files, 16 the section's other fields.
func clustered(text, section string) string {
	return text + "node: {address: 192.0.2.11}\ncluster:\n" + tlsLines + rosterLine + "  " + section + "\n"
}

// clusterFilesAnywhere names in place of DIR files that each process has, and
// alone may read where they are private. So what the fuzzer keeps is good at its next run.
var clusterFilesAnywhere = strings.NewReplacer("DIR/key.pem", "/proc/self/auxv",
	"DIR/cert.pem", "/proc/self/status", "DIR/ca.pem", "/proc/self/status", "DIR/roster", "/proc/self/status")

// clusterDir makes the files that clustered names, and returns what puts their directory in place of DIR.
func clusterDir(t *testing.T) *strings.Replacer {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"cert.pem": 0o644, "key.pem": 0o600, "ca.pem": 0o644, "roster": 0o644, "shared": 0o664,
		"open.pem": 0o640, "closed.pem": 0o400,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("not looked at"), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, pemLimit+1), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("DIR/", dir+"/")
}

// TestClusterMistakes is TestMistakes of what needs files.
func TestClusterMistakes(t *testing.T) {
	files := clusterDir(t)
	for _, m := range clusterMistakes {
		t.Run(m.name, func(t *testing.T) {
			text, want := files.Replace(m.text), files.Replace(m.want)
			c, err := Parse("c.yaml", []byte(text))
			if err == nil {
				t.Fatalf("accepted; want\n%s", want)
			}
			if c != nil {
				t.Error("a configuration beside the errors")
			}
			if got := err.Error(); got != want {
				t.Errorf("got\n%s\nwant\n%s\nof\n%s", got, want, text)
			}
		})
	}
}

// servers is a section with a list of servers: its first element is at column 13 of line 16.
func servers(list string) string { return clustered(base, "servers: ["+list+"]") }

var clusterMistakes = []struct{ name, text, want string }{
	{"neither servers nor a hub", clustered(base, ``),
		`c.yaml:11:3: cluster: names nobody: write servers: ["tls://hub1.example.net:4222"], or hub: {listen: "0.0.0.0:4222"} where this node is to serve others`},
	{"no servers in the list", servers(``),
		`c.yaml:16:12: cluster.servers: is empty: list at least one, such as "tls://hub1.example.net:4222", or remove it`},
	{"no servers in the list of a hub", clustered(base, hub+"\n  servers: []"),
		`c.yaml:17:12: cluster.servers: is empty: list at least one, such as "tls://hub1.example.net:4222", or remove it`},
	{"servers is a URL", clustered(base, `servers: "tls://hub1.example.net:4222"`),
		`c.yaml:16:12: cluster.servers: must be a list of URLs, got "tls://hub1.example.net:4222"`},
	{"servers without a value", clustered(base, `servers:`),
		`c.yaml:16:12: cluster.servers: has no value: give one, or remove it`},
	{"server is a number", servers(`4222`),
		`c.yaml:16:13: cluster.servers[0]: must be a URL such as tls://hub1.example.net:4222, got 4222`},
	{"server is a list", servers(`["tls://hub1.example.net:4222"]`),
		`c.yaml:16:13: cluster.servers[0]: must be a URL such as tls://hub1.example.net:4222, got a list`},
	{"server of nothing", servers(`~`),
		`c.yaml:16:13: cluster.servers[0]: has no value: give one, or remove it`},
	{"server without TLS", servers(`"http://hub1.example.net:4222"`),
		`c.yaml:16:13: cluster.servers[0]: "http://hub1.example.net:4222"` + noServer},
	{"server as NATS has it", servers(`"nats://hub1.example.net:4222"`),
		`c.yaml:16:13: cluster.servers[0]: "nats://hub1.example.net:4222"` + noServer},
	{"server without a scheme", servers(`"hub1.example.net:4222"`),
		`c.yaml:16:13: cluster.servers[0]: "hub1.example.net:4222"` + noServer},
	{"server without a port", servers(`"tls://hub1.example.net"`),
		`c.yaml:16:13: cluster.servers[0]: "tls://hub1.example.net"` + noServer},
	{"server of port 0", servers(`"tls://hub1.example.net:0"`),
		`c.yaml:16:13: cluster.servers[0]: "tls://hub1.example.net:0"` + noServer},
	{"server of a port too large", servers(`"tls://hub1.example.net:65536"`),
		`c.yaml:16:13: cluster.servers[0]: "tls://hub1.example.net:65536"` + noServer},
	{"server with a path", servers(`"tls://hub1.example.net:4222/causeway"`),
		`c.yaml:16:13: cluster.servers[0]: "tls://hub1.example.net:4222/causeway"` + noServer},
	{"server with a query", servers(`"tls://hub1.example.net:4222?tls=1"`),
		`c.yaml:16:13: cluster.servers[0]: "tls://hub1.example.net:4222?tls=1"` + noServer},
	{"server with a fragment", servers(`"tls://hub1.example.net:4222#1"`),
		`c.yaml:16:13: cluster.servers[0]: "tls://hub1.example.net:4222#1"` + noServer},
	{"server with a user", servers(`"tls://edge-1@hub1.example.net:4222"`),
		`c.yaml:16:13: cluster.servers[0]: ` + noUser},
	{"server with a password", servers(`"tls://edge-1:correct-horse@hub1.example.net:4222"`),
		`c.yaml:16:13: cluster.servers[0]: ` + noUser},
	{"server with a password that no URL can have", servers(`"tls://edge-1:correct horse%@hub1.example.net:4222"`),
		`c.yaml:16:13: cluster.servers[0]: ` + noUser},
	{"server in IPv6 without brackets", servers(`"tls://2001:db8::9:4222"`),
		`c.yaml:16:13: cluster.servers[0]: "tls://2001:db8::9:4222"` + noServer},
	{"server twice", servers(`"tls://hub1.example.net:4222", "tls://hub2.example.net:4222", "tls://hub1.example.net:4222"`),
		`c.yaml:16:75: cluster.servers[2]: "tls://hub1.example.net:4222" is listed twice, first as cluster.servers[0]: remove one`},
	{"server twice in two ways", servers(`"tls://hub1.example.net:4222", "tls://HUB1.Example.net:04222"`),
		`c.yaml:16:44: cluster.servers[1]: "tls://HUB1.Example.net:04222" is listed twice, first as cluster.servers[0]: remove one`},
	{"server in IPv6 twice in two ways", servers(`"tls://[2001:db8::9]:4222", "tls://[2001:DB8:0::9]:4222"`),
		`c.yaml:16:41: cluster.servers[1]: "tls://[2001:DB8:0::9]:4222" is listed twice, first as cluster.servers[0]: remove one`},
	{"several servers that are none", servers(`"tls://hub1.example.net", "tls://hub2.example.net:4222", 7`),
		`c.yaml:16:13: cluster.servers[0]: "tls://hub1.example.net"` + noServer + `
c.yaml:16:70: cluster.servers[2]: must be a URL such as tls://hub1.example.net:4222, got 7`},
	{"hub without listen", clustered(base, `hub: {}`),
		`c.yaml:16:8: cluster.hub: listen is missing: write the address and port where others find this node, such as "0.0.0.0:4222"`},
	{"hub without a value", clustered(base, `hub:`),
		`c.yaml:16:8: cluster.hub: has no value: give one, or remove it`},
	{"hub is an address", clustered(base, `hub: "0.0.0.0:4222"`),
		`c.yaml:16:8: cluster.hub: must be a mapping with listen or share, got "0.0.0.0:4222"`},
	{"hub, unknown field", clustered(base, `hub: {listen: ":4222", advertise: hub1}`),
		`c.yaml:16:26: cluster.hub: unknown field "advertise": allowed are listen and share`},
	{"share on a relay", clustered(base, `hub: {listen: "0.0.0.0:4222", share: {listen: "0.0.0.0:4223", hubs: ["tls://b:4223", "tls://c:4223"]}}`+"\n  "+leaf),
		`c.yaml:16:40: cluster.hub.share: stands in a node that has servers: such a hub is a relay, and has no store to share; remove one of the two`},
	{"share with one", clustered(base, `hub: {listen: "0.0.0.0:4222", share: {listen: "0.0.0.0:4223", hubs: ["tls://b:4223"]}}`),
		`c.yaml:16:71: cluster.hub.share.hubs: names 1: with this one there are 2 replicas, and 3 or 5 are possible, so that a majority lives when one dies; name 2 or 4`},
	{"share with nobody", clustered(base, `hub: {listen: "0.0.0.0:4222", share: {}}`),
		`c.yaml:16:40: cluster.hub.share: hubs is missing: write the other hubs, such as ["tls://hub2.example.net:4223", "tls://hub3.example.net:4223"]
c.yaml:16:40: cluster.hub.share: listen is missing: write the address and port where the other hubs find this one, such as "0.0.0.0:4223"`},
	{"share at the same port", clustered(base, `hub: {listen: "0.0.0.0:4222", share: {listen: "0.0.0.0:4222", hubs: ["tls://b:4223", "tls://c:4223"]}}`),
		`c.yaml:16:49: cluster.hub.share.listen: "0.0.0.0:4222" is where nodes find this hub: write another port`},
	{"nats without servers", clustered(base, hub+"\n  nats: {domain: ngs}"),
		`c.yaml:17:9: cluster.nats: stands in a node without servers: it says what the servers of a NATS deployment are like; write servers, or remove it`},
	{"nats without a domain", clustered(base, leaf+"\n  nats: {replicas: 7}"),
		`c.yaml:17:9: cluster.nats: domain is missing: write the domain of its JetStream (jetstream { domain: ... } there)
c.yaml:17:20: cluster.nats.replicas: must be a whole number from 1 to 5, got 7`},
	{"hub without a port", clustered(base, `hub: {listen: 192.0.2.11}`),
		`c.yaml:16:17: cluster.hub.listen: "192.0.2.11"` + noListen},
	{"hub of port 0", clustered(base, `hub: {listen: "192.0.2.11:0"}`),
		`c.yaml:16:17: cluster.hub.listen: "192.0.2.11:0"` + noListen},
	{"hub on a host name", clustered(base, `hub: {listen: "hub1.example.net:4222"}`),
		`c.yaml:16:17: cluster.hub.listen: "hub1.example.net:4222"` + noListen},
	{"hub of a URL", clustered(base, `hub: {listen: "tls://192.0.2.11:4222"}`),
		`c.yaml:16:17: cluster.hub.listen: "tls://192.0.2.11:4222"` + noListen},
	{"a cluster without tls", swapIn(clustered(base, leaf), tlsLines, ``),
		`c.yaml:11:3: cluster: ` + noTLS},
	{"tls of nothing", swapIn(clustered(base, leaf), tlsLines, "  tls: {}\n"),
		`c.yaml:11:8: cluster.tls: ca is missing: write the path of a file with the authorities that certify the nodes
c.yaml:11:8: cluster.tls: certificate is missing: write the path of a file with this node's certificate in PEM
c.yaml:11:8: cluster.tls: key is missing: write the path of a file with the certificate's private key, which only its owner may read`},
	{"tls without a certificate", swapIn(clustered(base, leaf), "    certificate: DIR/cert.pem\n", ``),
		`c.yaml:12:5: cluster.tls: certificate is missing: write the path of a file with this node's certificate in PEM`},
	{"tls without a key", swapIn(clustered(base, leaf), "    key: DIR/key.pem\n", ``),
		`c.yaml:12:5: cluster.tls: key is missing: write the path of a file with the certificate's private key, which only its owner may read`},
	{"tls without a ca", swapIn(clustered(base, leaf), "    ca: DIR/ca.pem\n", ``),
		`c.yaml:12:5: cluster.tls: ca is missing: write the path of a file with the authorities that certify the nodes`},
	{"tls, unknown field", swapIn(clustered(base, leaf), tlsLines, tlsLines+"    verify: false\n"),
		`c.yaml:15:5: cluster.tls: unknown field "verify": allowed are certificate, key and ca`},
	{"certificate that is not there", swapIn(clustered(base, leaf), "DIR/cert.pem", "DIR/no"),
		`c.yaml:12:18: cluster.tls.certificate: "DIR/no": no such file or directory`},
	{"key that is not there", swapIn(clustered(base, leaf), "DIR/key.pem", "DIR/no"),
		`c.yaml:13:10: cluster.tls.key: "DIR/no": no such file or directory`},
	{"ca that is not there", swapIn(clustered(base, leaf), "DIR/ca.pem", "DIR/no"),
		`c.yaml:14:9: cluster.tls.ca: "DIR/no": no such file or directory`},
	{"key that others may read", swapIn(clustered(base, leaf), "DIR/key.pem", "DIR/open.pem"),
		`c.yaml:13:10: cluster.tls.key: "DIR/open.pem": others may read it (0640): chmod 600`},
	{"certificate too large", swapIn(clustered(base, leaf), "DIR/cert.pem", "DIR/large"),
		`c.yaml:12:18: cluster.tls.certificate: "DIR/large": not a file with certificates`},
	{"a cluster without a roster", swapIn(clustered(base, leaf), rosterLine, ``),
		`c.yaml:11:3: cluster: ` + noRoster},
	{"roster without a value", swapIn(clustered(base, leaf), rosterLine, "  roster:\n"),
		`c.yaml:15:10: cluster.roster: has no value: give one, or remove it`},
	{"roster that is not there", swapIn(clustered(base, leaf), "DIR/roster", "DIR/no"),
		`c.yaml:15:11: cluster.roster: "DIR/no": no such file or directory`},
	{"roster relative", swapIn(clustered(base, leaf), "DIR/roster", "roster"),
		`c.yaml:15:11: cluster.roster: "roster" is not an absolute path: begin it with /`},
	{"roster is a directory", swapIn(clustered(base, leaf), "DIR/roster", "DIR/"),
		`c.yaml:15:11: cluster.roster: "DIR/": not a file with a line for each node`},
	{"roster too large", swapIn(clustered(base, leaf), "DIR/roster", "DIR/large"),
		`c.yaml:15:11: cluster.roster: "DIR/large": not a file with a line for each node`},
	{"roster that others may write", swapIn(clustered(base, leaf), "DIR/roster", "DIR/shared"),
		`c.yaml:15:11: cluster.roster: "DIR/shared": others may change who is admitted (0664): chmod 644`},
	{"roster in the file itself", swapIn(clustered(base, leaf), "roster: DIR/roster", "roster: [edge-1]"),
		`c.yaml:15:11: cluster.roster: must be an absolute path, got a list`},
	{"cluster, unknown field beside good ones", clustered(base, leaf+"\n  peers: []"),
		`c.yaml:17:3: cluster: unknown field "peers": allowed are servers, tls, hub, nats, roster and while_away`},
	{"while away of no data center", clustered(base, leaf+"\n  while_away: datacenter"),
		`c.yaml:17:15: cluster.while_away: datacenter needs node.datacenter: the nodes of it are told what is negotiated while the store is away; write both, or refuse`},
	{"while away of a region", clustered(base, leaf+"\n  while_away: region"),
		`c.yaml:17:15: cluster.while_away: must be refuse or datacenter, got "region"`},
	{"cluster, servers twice", clustered(base, leaf+"\n  "+leaf),
		`c.yaml:17:3: cluster.servers: given twice, first on line 16: remove one`},
	{"node without an address in a cluster", swapIn(clustered(base, leaf), `address: 192.0.2.11`, `name: edge-1`),
		`c.yaml:9:7: node.address: is missing: in a cluster each node has a unicast address of its own beside the endpoints`},
	{"no node in a cluster", swapIn(clustered(base, leaf), "node: {address: 192.0.2.11}\n", ``),
		`c.yaml:1:1: node.address: is missing: in a cluster each node has a unicast address of its own beside the endpoints`},
	{"node address in a cluster that is none", swapIn(clustered(base, leaf), `192.0.2.11`, `192.0.2.11/24`),
		`c.yaml:9:17: node.address: "192.0.2.11/24" is not an IP address: write it without the prefix length`},
	{"node address in a cluster without a value", swapIn(clustered(base, leaf), `192.0.2.11`, ``),
		`c.yaml:9:16: node.address: has no value: give one, or remove it`},
	{"node address in a cluster is an endpoint", swapIn(clustered(base, leaf), `192.0.2.11`, `192.0.2.1`),
		`c.yaml:9:17: node.address: 192.0.2.1 is an endpoint (endpoints[0] on line 2): every node answers on those; give this node an address of its own`},
	{"node name in a cluster ends in a dot", swapIn(clustered(base, leaf), `{address:`, `{name: edge-1., address:`),
		`c.yaml:9:14: node.name: "edge-1." is not possible in a cluster: dots stand between other characters alone`},
	{"node name in a cluster with two dots", swapIn(clustered(base, leaf), `{address:`, `{name: edge..1, address:`),
		`c.yaml:9:14: node.name: "edge..1" is not possible in a cluster: dots stand between other characters alone`},
	{"sequence numbers in a cluster", clustered(field(`sequence: true`), leaf),
		`c.yaml:9:15: tunnels[0].sequence: true is not possible in a cluster: the numbers of several nodes are not one sequence; remove it`},
	{"keys from the file in a cluster", clustered(ipsec(`lab: true`, sa), leaf),
		`c.yaml:9:17: tunnels[0].manual_sas: are not possible in a cluster: several nodes would use one key without knowing of each other; write ike`},
	{"keys of no counter mode in a cluster", clustered(ipsec(`allow_null_cipher: true`, cbc), leaf),
		`c.yaml:9:17: tunnels[0].manual_sas: are not possible in a cluster: several nodes would use one key without knowing of each other; write ike`},
	{"no keys in a cluster", clustered(ipsec(``, `ttl: 9`), leaf),
		`c.yaml:4:5: tunnels[0]: has no keys: write ike: {psk: {file: PATH}}, or for a lab manual_sas with one pair of associations, such as [{spi_in: 0x1001, spi_out: 0x2001, encryption: aes128gcm16, key_in: HEX, key_out: HEX}]`},
	{"esn in a cluster", clustered(ike(``, `{psk: "0123456789abcdef", child_proposals: [aes256gcm16-ecp384-noesn, aes256gcm16-ecp384-esn, null-sha256-noesn-esn]}`+"\n    allow_null_cipher: true"), leaf),
		`c.yaml:9:53: tunnels[0].ike.child_proposals: "aes256gcm16-ecp384-esn" has esn, which in a cluster needs replay_protection: true, so that one node numbers the packets: a router cannot follow 64 bits of several counters; write that, or noesn
c.yaml:9:53: tunnels[0].ike.child_proposals: "null-sha256-noesn-esn" has esn, which in a cluster needs replay_protection: true, so that one node numbers the packets: a router cannot follow 64 bits of several counters; write that, or noesn`},
	{"two tunnels in a cluster, of a hub too", clustered(field(`sequence: true`)+swapIn(ipsec(`lab: true`, sa), `name: a`, `name: b`)[strings.Index(base, "  - name: a"):], hub),
		`c.yaml:9:15: tunnels[0].sequence: true is not possible in a cluster: the numbers of several nodes are not one sequence; remove it
c.yaml:15:17: tunnels[1].manual_sas: are not possible in a cluster: several nodes would use one key without knowing of each other; write ike`},
}

// TestCluster: what a good section becomes, field by field.
func TestCluster(t *testing.T) {
	files := clusterDir(t)
	at := files.Replace
	withFiles := func(c Cluster) *Cluster {
		c.TLS, c.Roster = ClusterTLS{Certificate: at("DIR/cert.pem"), Key: at("DIR/key.pem"), CA: at("DIR/ca.pem")}, at("DIR/roster")
		return &c
	}
	for _, good := range []struct {
		name, section string
		want          Cluster
	}{
		{"leaf that refuses", leaf + "\n  while_away: refuse", Cluster{Servers: []string{"tls://hub1.example.net:4222"}}},
		{"leaf", leaf, Cluster{Servers: []string{"tls://hub1.example.net:4222"}}},
		{"relay", leaf + "\n  " + hub, Cluster{Servers: []string{"tls://hub1.example.net:4222"}, Hub: netip.MustParseAddrPort("0.0.0.0:4222")}},
		{"one of three hubs", `hub: {listen: "0.0.0.0:4222", share: {listen: "0.0.0.0:4223", hubs: ["tls://b:4223", "tls://c:4223"]}}`,
			Cluster{Hub: netip.MustParseAddrPort("0.0.0.0:4222"), Share: Share{Listen: netip.MustParseAddrPort("0.0.0.0:4223"), Hubs: []string{"tls://b:4223", "tls://c:4223"}}}},
		{"in a NATS deployment", leaf + "\n  nats: {domain: ngs}", Cluster{Servers: []string{"tls://hub1.example.net:4222"}, NATS: &NATS{Domain: "ngs", Replicas: 3}}},
		{"leaf of several", `servers: ["tls://hub2:1", "tls://hub1:65535", "tls://hub1:1"]`, Cluster{Servers: []string{"tls://hub2:1", "tls://hub1:65535", "tls://hub1:1"}}},
		{"leaf by addresses", `servers: ["tls://192.0.2.11:4222", "tls://[2001:db8::11]:4222", "tls://[2001:db8::11]:4223"]`,
			Cluster{Servers: []string{"tls://192.0.2.11:4222", "tls://[2001:db8::11]:4222", "tls://[2001:db8::11]:4223"}}},
		{"leaf in a block", "servers:\n    - tls://hub1.example.net:4222\n    - 'tls://[::1]:4222'", Cluster{Servers: []string{"tls://hub1.example.net:4222", "tls://[::1]:4222"}}},
		{"hub", hub, Cluster{Hub: netip.MustParseAddrPort("0.0.0.0:4222")}},
		{"hub at any address", `hub: {listen: ":4222"}`, Cluster{Hub: netip.MustParseAddrPort("[::]:4222")}},
		{"hub in IPv6", `hub: {listen: "[2001:db8::11]:4222"}`, Cluster{Hub: netip.MustParseAddrPort("[2001:db8::11]:4222")}},
		{"hub and leaf", hub + "\n  " + leaf, Cluster{Hub: netip.MustParseAddrPort("0.0.0.0:4222"), Servers: []string{"tls://hub1.example.net:4222"}}},
	} {
		t.Run(good.name, func(t *testing.T) {
			c := mustParse(t, at(clustered(base, good.section)))
			if want := withFiles(good.want); !reflect.DeepEqual(c.Cluster, want) {
				t.Errorf("got\n%+v\nwant\n%+v", c.Cluster, want)
			}
			if c.Node.Address != addr("192.0.2.11") {
				t.Errorf("node.address %v", c.Node.Address)
			}
		})
	}
	if c := mustParse(t, base); c.Cluster != nil {
		t.Errorf("without a section: %+v", c.Cluster)
	}
}

// TestClusterTakes what one may take for a mistake of those that are refused.
func TestClusterTakes(t *testing.T) {
	files := clusterDir(t)
	for name, text := range map[string]string{
		"sequence: false":      clustered(field(`sequence: false`), leaf),
		"ike by default":       clustered(ike(``, `{psk: "0123456789abcdef"}`), leaf),
		"ike with noesn":       clustered(ike(``, `{psk: "0123456789abcdef", child_proposals: [aes256gcm16-ecp384-noesn, aes128gcm16]}`), leaf),
		"esn with one counter": clustered(ike(`replay_protection: true`, `{psk: "0123456789abcdef", child_proposals: [aes256gcm16-ecp384-esn]}`), leaf),
		"a name with dots":     swapIn(clustered(base, leaf), `{address:`, `{name: edge-1.ams.example.net, address:`),
		"a key of mode 0400":   swapIn(clustered(base, leaf), `DIR/key.pem`, `DIR/closed.pem`),
		"a private roster":     swapIn(clustered(base, leaf), `DIR/roster`, `DIR/closed.pem`),
		"no tunnel":            clustered("interfaces: [{name: eth0}]\n", hub),
		"an address in IPv6":   swapIn(clustered(base, leaf), `192.0.2.11`, `"2001:db8::11"`),
		"files at one place":   swapIn(swapIn(clustered(base, leaf), `DIR/cert.pem`, `DIR/key.pem`), `DIR/ca.pem`, `DIR/key.pem`),
		"the section in front": files.Replace("cluster:\n" + tlsLines + rosterLine + "  " + leaf + "\nnode: {address: 192.0.2.11}\n" + base),
	} {
		if _, err := Parse("c.yaml", []byte(files.Replace(text))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// and without a cluster all of it is right
	for _, text := range []string{
		field(`sequence: true`), ipsec(`lab: true`, sa),
		ike(``, `{psk: "0123456789abcdef", child_proposals: [aes256gcm16-ecp384-esn]}`), top(`node: {name: edge..1.}`),
	} {
		mustParse(t, text)
	}
}

// TestComparableServer: the ways to write a server, which are the same one, and what is none.
func TestComparableServer(t *testing.T) {
	for _, same := range [][]string{
		{"tls://hub1.example.net:4222", "tls://HUB1.example.NET:4222", "tls://hub1.example.net:04222"},
		{"tls://192.0.2.11:4222", "tls://[::ffff:192.0.2.11]:4222"},
		{"tls://[2001:db8::9]:4222", "tls://[2001:DB8:0:0::9]:4222"},
		{"tls://hub_1:1"},
		{"tls://1.hub:1"},
		{"tls://hub1:2"},
		{"tls://hub1:1"},
	} {
		first, ok := comparableServer(same[0])
		if !ok || first == "" {
			t.Errorf("%s is refused", same[0])
		}
		for _, other := range same[1:] {
			if got, ok := comparableServer(other); !ok || got != first {
				t.Errorf("%s is %q, %s is %q, %v", same[0], first, other, got, ok)
			}
		}
	}
	different := map[string]bool{}
	for _, s := range []string{"tls://hub1:1", "tls://hub1:2", "tls://hub2:1", "tls://hub11:1", "tls://192.0.2.1:1", "tls://[2001:db8::1]:1"} {
		server, _ := comparableServer(s)
		different[server] = true
	}
	if len(different) != 6 {
		t.Errorf("servers are taken for each other: %v", different)
	}
	for _, s := range []string{
		"", "tls://", "tls://:4222", "tls:hub1:4222", "//hub1:4222", "TLS://hub1:4222", "ws://hub1:4222", "hub1:4222", "hub1",
		"tls://hub1:", "tls://hub1:0", "tls://hub1:00", "tls://hub1:65536", "tls://hub1:-1", "tls://hub1:+1", "tls://hub1: 1", "tls://hub1:nats",
		"tls://hub1:4222/", "tls://hub1:4222//", "tls://hub1:4222?", "tls://hub1:4222#", "tls://hub1:4222?a=b", "tls://hub1:4222;a",
		" tls://hub1:4222", "tls://hub1:4222 ", "tls://hub1:4222\n", "tls://hub 1:4222", "tls://hub\x001:4222",
		"tls://hub1,hub2:4222", "tls://hub1:4222,hub2:4222", "tls://hub1:4222,tls://hub2:4222", "tls://*:4222", "tls://*.example.net:4222", `tls://"hub1":4222`,
		"tls://2001:db8::9:4222", "tls://[2001:db8::9]", "tls://[2001:db8::9]4222", "tls://[2001:db8::9:4222", "tls://[hub1]:4222", "tls://[192.0.2.11]:4222", "tls://[]:4222", "tls://[fe80::1%25eth0]:4222",
		"tls://192.0.2.256:4222", "tls://192.0.2:4222", "tls://hub1.:4222", "tls://.hub1:4222", "tls://hub1..net:4222", "tls://h\u00fcb:4222", "tls://h%C3%BCb:4222", "tls://hub%31:4222",
	} {
		if got, ok := comparableServer(s); ok {
			t.Errorf("%q is taken for %q", s, got)
		}
	}
}

func TestDiffCluster(t *testing.T) {
	at := clusterDir(t).Replace
	two := `servers: ["tls://hub1.example.net:4222", "tls://hub2.example.net:4222"]`
	was := clustered(diffBase, two)
	for _, d := range []struct{ name, old, new, want string }{
		{"the same", was, was, ""},
		{"order of servers", was, swapIn(was, two, `servers: ["tls://hub2.example.net:4222", "tls://hub1.example.net:4222"]`), ""},
		{"order of fields", was, swapIn(swapIn(was, rosterLine, ``), tlsLines, rosterLine+tlsLines), ""},
		{"server", was, swapIn(was, `hub2`, `hub3`), "restart cluster\n"},
		{"server less", was, swapIn(was, two, leaf), "restart cluster\n"},
		{"hub", was, swapIn(was, two, two+"\n  "+hub), "restart cluster\n"},
		{"hub's port", swapIn(was, two, hub), swapIn(was, two, `hub: {listen: "0.0.0.0:4223"}`), "restart cluster\n"},
		{"certificate", was, swapIn(was, "DIR/cert.pem", "DIR/ca.pem"), "restart cluster\n"},
		{"key", was, swapIn(was, "DIR/key.pem", "DIR/closed.pem"), "restart cluster\n"},
		{"ca", was, swapIn(was, "DIR/ca.pem", "DIR/cert.pem"), "restart cluster\n"},
		{"roster", was, swapIn(was, "DIR/roster", "DIR/cert.pem"), "restart cluster\n"},
		{"section", was, swapIn(diffBase, "node: {name: n}", "node: {name: n, address: 192.0.2.11}"), "restart cluster\n"},
		{"section and address", was, diffBase, "restart node.address\nrestart cluster\n"},
	} {
		// diffBase has a node, and what clustered adds is another one
		old, new := mustParse(t, at(oneNode(d.old))), mustParse(t, at(oneNode(d.new)))
		if got := summary(Diff(old, new)); got != d.want {
			t.Errorf("%s: got\n%swant\n%s", d.name, got, d.want)
		}
		if got := summary(Diff(new, old)); got != d.want {
			t.Errorf("%s, back: got\n%swant\n%s", d.name, got, d.want)
		}
		if empty := Diff(old, new).Empty(); empty != (d.want == "") {
			t.Errorf("%s: Empty is %v", d.name, empty)
		}
	}
	restart := Diff(mustParse(t, diffBase), mustParse(t, at(oneNode(was)))).Restart
	if want := (Restart{"cluster", "the node joins at the start"}); !slices.Contains(restart, want) {
		t.Errorf("got %+v, want %+v among them", restart, want)
	}
}

// oneNode joins the section of diffBase and that of clustered.
func oneNode(text string) string {
	if !strings.Contains(text, "node: {address: 192.0.2.11}\n") {
		return text
	}
	return swapIn(swapIn(text, "node: {address: 192.0.2.11}\n", ""), "node: {name: n}", "node: {name: n, address: 192.0.2.11}")
}

// TestClusterChangesAreSeen changes each field by reflection: one that is added and forgotten in the comparison fails here.
func TestClusterChangesAreSeen(t *testing.T) {
	fields := append(reflect.VisibleFields(reflect.TypeFor[Cluster]()), reflect.VisibleFields(reflect.TypeFor[ClusterTLS]())...)
	for i, f := range fields {
		var c Cluster
		v := reflect.ValueOf(&c).Elem()
		if i >= v.NumField() {
			v = v.FieldByName("TLS")
		}
		switch p := v.FieldByIndex(f.Index).Addr().Interface().(type) {
		case *string:
			*p = "x"
		case *[]string:
			*p = []string{"x"}
		case *netip.AddrPort:
			*p = netip.MustParseAddrPort("[::1]:1")
		case *ClusterTLS:
			p.CA = "x"
		case *Share:
			p.Hubs = []string{"x"}
		case *WhileAway:
			*p = AwayDatacenter
		case **NATS:
			*p = &NATS{Domain: "x"}
		default:
			t.Fatalf("%s: no change for a %T", f.Name, p)
		}
		if c.same(&Cluster{}) || (&Cluster{}).same(&c) || !c.same(&c) {
			t.Errorf("%s is not compared", f.Name)
		}
	}
	if c := new(Cluster); c.same(nil) || (*Cluster)(nil).same(c) || !(*Cluster)(nil).same(nil) {
		t.Error("a section that is not there is taken for one")
	}
}

// TestClusterWarnings: the node's address is used in a cluster, and is not without one.
func TestClusterWarnings(t *testing.T) {
	at := clusterDir(t).Replace
	quiet := field("prefixes: [203.0.113.0/24]")
	const unused = "c.yaml:10:17: node.address: 192.0.2.11 is not used: it is for traffic between nodes, and there is no section cluster"
	for text, want := range map[string]string{
		quiet + "node: {address: 192.0.2.11}\n": unused,
		quiet + "node: {name: edge-1}\n":        "",
		at(clustered(quiet, leaf)):              "",
		at(clustered(quiet, hub)):               "",
	} {
		var lines []string
		for _, w := range mustParse(t, text).Warnings() {
			lines = append(lines, w.String())
		}
		if got := strings.Join(lines, "\n"); got != want {
			t.Errorf("got %q, want %q of\n%s", got, want, text)
		}
	}
}

// TestClusterFilesAnywhere: the seeds of the fuzzer are good ones.
func TestClusterFilesAnywhere(t *testing.T) {
	for _, section := range []string{leaf, hub} {
		if c := mustParse(t, clusterFilesAnywhere.Replace(clustered(base, section))); c.Cluster == nil {
			t.Error("no cluster")
		}
	}
}

// TestExampleCluster: the section that is commented out for want of files is good too, as a leaf's and as a hub's.
func TestExampleCluster(t *testing.T) {
	dir := clusterDir(t).Replace("DIR/")
	text := strings.NewReplacer("/etc/causeway/edge-1.pem", dir+"cert.pem", "/etc/causeway/edge-1.key", dir+"key.pem",
		"/etc/causeway/cluster-ca.pem", dir+"ca.pem", "/etc/causeway/roster", dir+"roster", "  # address:", "  address:").Replace(string(example))
	before, section, ok := strings.Cut(text, "\n# cluster:\n")
	if !ok {
		t.Fatal("no section in a comment")
	}
	asLeaf := "cluster:\n" + strings.ReplaceAll("\n"+section, "\n# ", "\n")
	files := Cluster{TLS: ClusterTLS{dir + "cert.pem", dir + "key.pem", dir + "ca.pem"}, Roster: dir + "roster"}
	leafs, hubs := files, files
	leafs.Servers, hubs.Hub = []string{"tls://hub1.example.net:4222"}, netip.MustParseAddrPort("198.51.100.11:4222")
	hubs.Share = Share{Listen: netip.MustParseAddrPort("198.51.100.11:4223"), Hubs: []string{"tls://hub2.example.net:4223", "tls://hub3.example.net:4223"}}
	asHub := strings.ReplaceAll(swapIn(swapIn(asLeaf, "  servers:", "  # servers:"), "  # hub:", "  hub:"), "\n  #   ", "\n    ")
	for section, want := range map[string]Cluster{asLeaf: leafs, asHub: hubs} {
		c := mustParse(t, before+"\n"+section)
		if !reflect.DeepEqual(c.Cluster, &want) {
			t.Errorf("got\n%+v\nwant\n%+v", c.Cluster, want)
		}
		if c.Node.Address != addr("198.51.100.11") {
			t.Errorf("node.address %v", c.Node.Address)
		}
		for _, w := range c.Warnings() {
			t.Errorf("warning: %v", w)
		}
	}
}

// TestWhileAway: a node that goes on without the store names the data center that it does so for.
func TestWhileAway(t *testing.T) {
	file := clusterDir(t).Replace(swapIn(clustered(base, hub+"\n  while_away: datacenter"), "address: 192.0.2.11", "address: 192.0.2.11, datacenter: ams1"))
	if c := mustParse(t, file); c.Cluster.Away != AwayDatacenter || c.Cluster.Away.String() != "datacenter" {
		t.Errorf("got %v", c.Cluster.Away)
	}
}
