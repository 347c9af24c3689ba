package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// nodeFile is a node's own file: its routes are two, and tunnels are the fleet's.
const nodeFile = `node: {name: edge-1, address: 198.51.100.11}
interfaces: [{name: eth0}]
endpoints: [192.0.2.1]
routes:
  - {prefix: 0.0.0.0/0, nexthop: 192.0.2.254, interface: eth0}
  - {prefix: 10.9.0.0/16, nexthop: a}
`

const fleetText = `tunnels:
  - name: a
    account: acme
    endpoint: 192.0.2.1
    customer_endpoint: 198.51.100.2
    interface_address: 10.213.0.10/31
    prefixes: [203.0.113.0/24, 10.9.0.0/16]
routes:
  - {prefix: 10.8.0.0/16, nexthop: a}
`

// ownFileAlone is nodeFile without the route into a tunnel that it does not have.
func ownFileAlone(t *testing.T) *Config {
	t.Helper()
	return mustParse(t, strings.Replace(nodeFile, "  - {prefix: 10.9.0.0/16, nexthop: a}\n", "", 1))
}

// A node that reads its file and the fleet's document is as one whose file has both.
func TestFleetIsAsOneFile(t *testing.T) {
	own := ownFileAlone(t)
	own.text = []byte(nodeFile)
	got, err := own.WithFleet(&Fleet{Name: "f.yaml", Text: []byte(fleetText)})
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Replace(fleetText, "routes:\n", nodeFile, 1)
	want := mustParse(t, whole)
	for _, c := range []*Config{got, want} {
		c.where, c.text = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if own.HasTunnels() || got.HasTunnels() {
		t.Error("the node's own file is said to have tunnels")
	}
	for _, text := range []string{whole, nodeFile[:strings.Index(nodeFile, "routes")] + "accounts: [{name: acme}]\n"} {
		if !mustParse(t, text).HasTunnels() {
			t.Errorf("no tunnels or accounts in\n%s", text)
		}
	}
	if d := Diff(want, got); !d.Empty() {
		t.Errorf("they differ: %+v", d)
	}
}

// Mistakes are told with their places, in the text where they stand.
func TestFleetMistakes(t *testing.T) {
	for _, m := range []struct{ name, own, fleet, want string }{
		{"an endpoint that the node does not have", nodeFile, strings.Replace(fleetText, "endpoint: 192.0.2.1", "endpoint: 192.0.2.9", 1),
			"f.yaml:4:15: tunnels[0].endpoint: 192.0.2.9 is not one of the endpoints (192.0.2.1): add it there, or use one of them"},
		{"routes have their own numbers", nodeFile, strings.Replace(fleetText, "nexthop: a", "nexthop: b", 1),
			`f.yaml:9:36: routes[0].nexthop: there is no tunnel "b": write a tunnel's name or a router's address`},
		{"a route of the node's own", strings.Replace(nodeFile, "nexthop: a", "nexthop: b", 1), fleetText,
			`c.yaml:6:36: routes[1].nexthop: there is no tunnel "b": write a tunnel's name or a router's address`},
		{"a route of both", strings.Replace(nodeFile, "10.9.0.0", "10.8.0.0", 1), fleetText,
			"f.yaml:9:14: routes[0].prefix: 10.8.0.0/16 has this next hop already in routes[1] on line 6 of c.yaml: remove one, or change the weight"},
		{"what is a node's own", nodeFile, fleetText + "endpoints: [192.0.2.2]\n",
			"f.yaml:10:1: endpoints: is each node's own: it belongs into the file that the node is started with"},
		{"a link of one node", nodeFile, fleetText + "  - {prefix: 10.0.0.0/8, nexthop: 192.0.2.254, interface: eth0}\n",
			`f.yaml:10:59: routes[1].interface: "eth0" is an interface of one node: write routes to routers on its links into that node's own file`},
		{"an unknown field", nodeFile, fleetText + "tunnel: []\n", `f.yaml:10:1: unknown field "tunnel": did you mean "tunnels"?`},
		{"nothing", nodeFile, "", "f.yaml:1:1: the document is empty: `tunnels: []` takes all tunnels away"},
		{"accounts alone", strings.Replace(nodeFile, "  - {prefix: 10.9.0.0/16, nexthop: a}\n", "", 1), "accounts: [{name: acme}]\nroutes: []\n", "f.yaml:1:1: tunnels is missing: write those that all nodes have; `tunnels: []` takes all away"},
		{"a key in the text", nodeFile, ikeFleet("0123456789abcdef"),
			"f.yaml:8:12: tunnels[0].ike.psk: stands here, and the document is shown to whoever asks for it: write {file: PATH} or {env: NAME}, of the machine where it is applied"},
		{"a key that was not carried", nodeFile, ikeFleet("{file: /etc/causeway/a.psk}"),
			`f.yaml:8:19: tunnels[0].ike.psk.file: "file:/etc/causeway/a.psk" was not carried with the document: apply it again`},
		{"nested too deeply", nodeFile, strings.Repeat("[", 100), "f.yaml:1:1: is nested too deeply for a configuration: at most 64 levels are read"},
	} {
		t.Run(m.name, func(t *testing.T) {
			own := ownFileAlone(t)
			own.text = []byte(m.own)
			c, err := own.WithFleet(&Fleet{Name: "f.yaml", Text: []byte(m.fleet)})
			if err == nil || c != nil {
				t.Fatalf("accepted; want\n%s", m.want)
			}
			if first, _, _ := strings.Cut(err.Error(), "\n"); first != m.want {
				t.Errorf("got\n%s\nwant\n%s", err, m.want)
			}
		})
	}
}

// ikeFleet is a document of one IPsec tunnel with a pre-shared key.
func ikeFleet(psk string) string {
	return fmt.Sprintf(`tunnels:
  - name: a
    type: ipsec
    endpoint: 192.0.2.1
    customer_endpoint: 198.51.100.2
    interface_address: 10.213.0.10/31
    ike:
      psk: %s
    prefixes: [10.9.0.0/16]
`, psk)
}

// Keys are read where the document is applied, and nowhere else.
func TestFleetCarriesKeys(t *testing.T) {
	dir := t.TempDir()
	key, text := filepath.Join(dir, "a.psk"), filepath.Join(dir, "f.yaml")
	if err := errors.Join(os.WriteFile(key, []byte("0123456789abcdef\n"), 0o600), os.WriteFile(text, []byte(ikeFleet("{file: "+key+"}")), 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := LoadFleet(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CAUSEWAY_TEST_PSK", "fedcba9876543210")
	if err := os.WriteFile(text, []byte(ikeFleet("{env: CAUSEWAY_TEST_PSK}")), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := LoadFleet(text)
	if err != nil {
		t.Fatal(err)
	}
	os.Unsetenv("CAUSEWAY_TEST_PSK")
	if err := os.Remove(key); err != nil { // as on another node
		t.Fatal(err)
	}
	for f, want := range map[*Fleet]string{f: "0123456789abcdef", g: "fedcba9876543210"} {
		c, err := ownFileAlone(t).WithFleet(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(c.Tunnels[0].IPsec.IKE.PSK); got != want {
			t.Errorf("the key is %q, want %q", got, want)
		}
		if slices.ContainsFunc(c.Warnings(), func(w Warning) bool { return strings.Contains(w.Message, "the key stands here") }) {
			t.Error("a key that is carried is said to stand in the text")
		}
		if strings.Contains(fmt.Sprintf("%v %+v", f, f), want) {
			t.Error("a document is printed with its keys")
		}
	}
	if f.Same(g) || !f.Same(&Fleet{Name: "other", Text: f.Text, Secrets: f.Secrets}) || f.Same(&Fleet{Text: f.Text}) {
		t.Error("documents are compared by text and keys")
	}
	if _, err := LoadFleet(text); err == nil || !strings.Contains(err.Error(), "not in the environment") {
		t.Errorf("a key that is not there: %v", err)
	}
	if _, err := LoadFleet(filepath.Join(dir, "none")); err == nil || !strings.HasSuffix(err.Error(), "none: cannot be read: no such file or directory") {
		t.Errorf("a document that is not there: %v", err)
	}
}

func FuzzFleet(f *testing.F) {
	f.Add([]byte(fleetText))
	f.Add([]byte(ikeFleet("{file: /etc/causeway/a.psk}")))
	f.Add([]byte("routes: [{prefix: 10.8.0.0/16, nexthop: 10.213.0.11}]\naccounts: [{name: a, peers: [b]}]"))
	own, err := Parse("c.yaml", []byte(strings.Replace(nodeFile, "  - {prefix: 10.9.0.0/16, nexthop: a}\n", "", 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := own.WithFleet(&Fleet{Name: "f.yaml", Text: text})
		if (c == nil) == (err == nil) {
			t.Fatalf("a configuration and an error, or neither: %v", err)
		}
		if c != nil {
			c.Warnings()
			c.EffectiveRoutes()
		}
	})
}
