package config

import (
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

//go:embed example.yaml
var example []byte

//go:embed testdata/contract.yaml
var contract []byte

// mustParse fails the test when text has mistakes.
func mustParse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

// TestDefaults is what the shortest file with a tunnel means, field by field.
func TestDefaults(t *testing.T) {
	c := mustParse(t, `
interfaces: [{name: eth0}]
endpoints: [192.0.2.1]
tunnels: [{name: a, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.10/31}]
routes: [{prefix: 203.0.113.0/24, nexthop: a}]
`)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		File:       "c.yaml",
		Node:       Node{Name: host},
		Interfaces: []Interface{{Name: "eth0", Queues: nil, Mode: ModeAuto}},
		Workers:    Workers{CPUs: nil, BusyPoll: true},
		Steering:   Steering{Stay: time.Minute},
		Endpoints:  []netip.Addr{addr("192.0.2.1")},
		Accounts:   []Account{{Name: "default"}},
		Tunnels: []Tunnel{{
			Name: "a", Account: "default", Type: GRE,
			Endpoint: addr("192.0.2.1"), CustomerEndpoint: addr("198.51.100.2"),
			InterfaceAddress: prefix("10.213.0.10/31"),
			MTU:              1476, PMTU: true, TTL: 64,
			MSSClamp: MSSClamp{Mode: ClampAuto}, DF: DFHonour,
		}},
		Routes: []Route{{
			Prefix: prefix("203.0.113.0/24"), Account: "default", Tunnel: "a", Priority: 100, Weight: 1,
		}},
		Control: Control{Socket: "/run/causeway.sock"},
	}
	want.where, want.text = c.where, c.text
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
}

// TestContract reads the good example of the configuration contract, without
// what this version refuses.
func TestContract(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cust-c.psk", "cert.pem", "key.pem", "ca.pem", "roster"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("0123456789abcdef\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := mustParse(t, strings.ReplaceAll(string(contract), "/etc/causeway", dir))
	custA := Tunnel{
		Name: "cust-a", Account: "acme",
		Endpoint: addr("192.0.2.1"), CustomerEndpoint: addr("198.51.100.2"),
		InterfaceAddress: prefix("10.213.0.10/31"), InterfaceAddress6: prefix("fd00:213::a/127"),
		MTU: 1472, PMTU: true, TTL: 64, HasKey: true, Key: 42,
		Prefixes: []netip.Prefix{prefix("203.0.113.0/24")},
	}
	custC := Tunnel{
		Name: "cust-c", Account: "default", Type: IPsecESP,
		Endpoint: addr("192.0.2.1"), InterfaceAddress: prefix("10.213.0.14/31"),
		MTU: 1438, PMTU: true, TTL: 64, Prefixes: []netip.Prefix{prefix("203.0.115.0/24")},
		IPsec: &IPsec{ReplayWindow: 1024, IKE: &IKE{
			PSK: Secret("0123456789abcdef"), LocalID: "edge.example.net", RemoteID: "cust-c.example.net",
			Proposals: []string{"aes256gcm16-prfsha384-ecp384"}, ChildProposals: []string{"aes256gcm16-ecp384-noesn"},
			Lifetime: Lifetime{IKE: 8 * time.Hour, Child: time.Hour}, DPD: 30 * time.Second,
		}},
	}
	if want := []Tunnel{custA, custC}; !reflect.DeepEqual(c.Tunnels, want) {
		t.Errorf("tunnels: got\n%+v\nwant\n%+v", c.Tunnels, want)
	}
	routes := []Route{
		{Prefix: prefix("203.0.113.0/24"), Account: "acme", Tunnel: "cust-a", Priority: 100, Weight: 1},
		{Prefix: prefix("0.0.0.0/0"), NextHop: addr("192.0.2.254"), Interface: "eth0", Priority: 100, Weight: 1},
	}
	if !reflect.DeepEqual(c.Routes, routes) {
		t.Errorf("routes: got\n%+v\nwant\n%+v", c.Routes, routes)
	}
	node := Node{Name: "edge-1", Address: addr("192.0.2.11"), Datacenter: "ams1", Region: "WEUR", StateDir: "/var/lib/causeway"}
	if c.Node != node {
		t.Errorf("node: got %+v, want %+v", c.Node, node)
	}
	cluster := &Cluster{
		Servers: []string{"tls://hub1.example.net:4222"}, Hub: netip.MustParseAddrPort("0.0.0.0:4222"),
		TLS: ClusterTLS{Certificate: dir + "/cert.pem", Key: dir + "/key.pem", CA: dir + "/ca.pem"}, Roster: dir + "/roster",
	}
	if !reflect.DeepEqual(c.Cluster, cluster) {
		t.Errorf("cluster: got %+v, want %+v", c.Cluster, cluster)
	}
	if c.Metrics.Listen != netip.MustParseAddrPort("127.0.0.1:9150") {
		t.Errorf("metrics.listen: got %v", c.Metrics.Listen)
	}
}

// TestExample keeps the example in step with the schema: it is free of mistakes
// and of warnings, and shows every field there is.
func TestExample(t *testing.T) {
	c, err := Parse("example.yaml", example)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings() {
		t.Errorf("warning: %v", w)
	}
	for _, s := range []schema{
		rootSchema, nodeSchema, interfaceSchema, workersSchema, accountSchema, tunnelSchema, ipsecSchema, ikeSchema, lifetimeSchema, sharedSchema,
		selectorSchema, manualSchema, keyFileSchema, routeSchema, metricsSchema, controlSchema, clusterSchema, tlsSchema, hubSchema, shareSchema, natsSchema,
		healthSchema, degradedSchema, downSchema, recoverySchema, scopeSchema, steeringSchema, bfdSchema, notifySchema,
	} {
		for _, f := range s.fields {
			if !regexp.MustCompile(`\b` + f + `:`).Match(example) {
				t.Errorf("the example does not show %s", f)
			}
		}
	}
}

// TestExampleIPsec: the tunnels that are commented out for want of files are good too.
func TestExampleIPsec(t *testing.T) {
	dir := t.TempDir()
	var lines []string
	for _, line := range strings.Split(string(example), "\n") {
		if !strings.Contains(line, "umask") {
			line = regexp.MustCompile(`^  # (- name|  )`).ReplaceAllString(line, "  $1")
		}
		lines = append(lines, line)
	}
	text := strings.ReplaceAll(strings.Join(lines, "\n"), "/etc/causeway", dir)
	for _, path := range regexp.MustCompile(`\{file: (\S+)\}`).FindAllStringSubmatch(text, -1) {
		if err := os.WriteFile(path[1], fmt.Appendf(nil, "%040x\n", len(path[1])), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := mustParse(t, text)
	for _, w := range c.Warnings() {
		t.Errorf("warning: %v", w)
	}
	mtus := map[string]int{}
	for _, tn := range c.Tunnels {
		if tn.IPsec != nil {
			mtus[tn.Name] = tn.Fits(1500) - tn.MTU
		}
	}
	if !reflect.DeepEqual(mtus, map[string]int{"umbrella-1": 0, "hooli-1": 0}) {
		t.Errorf("tunnels and how far their mtu is from the default: %v", mtus)
	}
}

func TestForms(t *testing.T) {
	c := mustParse(t, `
interfaces:
  - {name: eth0, queues: [1, 0], mode: zero-copy}
  - {name: eth1, mode: generic}
  - {name: eth2, mode: copy}
workers: {cpus: [3, 2], busy_poll: false}
endpoints: [2001:db8::1]
tunnels:
  - name: a
    endpoint: 2001:db8::1
    customer_endpoint: 2001:db8:ffff::2
    interface_address: 10.0.0.1/30
    key: 0
    pmtu: off
    ttl: 0xff
    checksum: true
    sequence: true
    mss_clamp: 1_200
    df: clear
    prefixes: [10.0.0.0/8, "2001:db8:1::/48", fc00::/7]
metrics: {listen: ":9150"}
`)
	wantPorts := []Interface{
		{"eth0", []int{1, 0}, ModeZeroCopy}, {"eth1", nil, ModeGeneric}, {"eth2", nil, ModeCopy},
	}
	if !reflect.DeepEqual(c.Interfaces, wantPorts) {
		t.Errorf("interfaces: got %+v", c.Interfaces)
	}
	if !reflect.DeepEqual(c.Workers, Workers{CPUs: []int{3, 2}}) {
		t.Errorf("workers: got %+v", c.Workers)
	}
	want := Tunnel{
		Name: "a", Account: "default", Endpoint: addr("2001:db8::1"), CustomerEndpoint: addr("2001:db8:ffff::2"),
		InterfaceAddress: prefix("10.0.0.1/30"), MTU: 1444, TTL: 255, HasKey: true, Checksum: true, Sequence: true,
		MSSClamp: MSSClamp{ClampBytes, 1200}, DF: DFClear,
		Prefixes: []netip.Prefix{prefix("10.0.0.0/8"), prefix("2001:db8:1::/48"), prefix("fc00::/7")},
	}
	if !reflect.DeepEqual(c.Tunnels[0], want) {
		t.Errorf("tunnel: got\n%+v\nwant\n%+v", c.Tunnels[0], want)
	}
	if got := c.Metrics.Listen.String(); got != "[::]:9150" {
		t.Errorf("metrics.listen: got %s", got)
	}
	for _, s := range []fmt.Stringer{c.Interfaces[0].Mode, c.Tunnels[0].DF, c.Tunnels[0].Type} {
		if !slices.Contains([]string{"zero-copy", "clear", "gre"}, s.String()) {
			t.Errorf("%T prints %q", s, s)
		}
	}
}

func TestByteOrderMarkAndCRLF(t *testing.T) {
	mustParse(t, "\ufeff"+strings.ReplaceAll(base, "\n", "\r\n"))
	_, err := Parse("c.yaml", []byte("\ufeff"+strings.ReplaceAll(field("ttl: 0"), "\n", "\r\n")))
	want := "c.yaml:9:10: tunnels[0].ttl: must be a whole number from 1 to 255, got 0"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(base), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.File != path {
		t.Errorf("got %v, %v", c, err)
	}
	for mode, want := range map[os.FileMode]string{0o600: "", 0o640: "", 0o644: "a key stands here, and all users of this machine may read the file"} {
		if err := errors.Join(os.WriteFile(path, []byte(ipsec("lab: true", sa)), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		warnings := fmt.Sprint(c.Warnings())
		if strings.Contains(warnings, "a key stands here") != (want != "") || !strings.Contains(warnings, want) {
			t.Errorf("mode %04o: %s", mode, warnings)
		}
	}
	_, err := Load(path + "x")
	if want := path + "x: cannot be read: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var es Errors
	if !errors.As(err, &es) || len(es) != 1 || es[0].File != path+"x" {
		t.Errorf("got %#v, want Errors", err)
	}
}

func TestErrorFields(t *testing.T) {
	_, err := Parse("c.yaml", []byte(field("mtu: 2000")))
	var es Errors
	if !errors.As(err, &es) || len(es) != 1 {
		t.Fatalf("got %v", err)
	}
	e := es[0]
	if e.File != "c.yaml" || e.Line != 9 || e.Column != 10 || e.Path != "tunnels[0].mtu" || !strings.HasPrefix(e.Message, "2000 is too large") {
		t.Errorf("got %+v", e)
	}
}

// TestManyTunnels holds the checks to what is linear: ten thousand tunnels and
// routes are read in seconds, mistakes in all of them too.
func TestManyTunnels(t *testing.T) {
	const n = 10000
	var b strings.Builder
	b.WriteString("interfaces: [{name: eth0}]\nendpoints: [192.0.2.1]\ntunnels:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - name: t%d\n    account: a%d\n    endpoint: 192.0.2.1\n    customer_endpoint: 198.18.%d.%d\n"+
			"    interface_address: 10.%d.%d.%d/31\n    prefixes: [30.%d.%d.0/24, 10.0.0.0/8]\n",
			i, i/2, i>>8, i&255, i>>15, i>>7&255, i<<1&255, i>>8, i&255)
	}
	b.WriteString("routes:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {prefix: 10.0.0.0/8, nexthop: t%d}\n", i)
	}
	start := time.Now()
	c := mustParse(t, b.String())
	if len(c.Tunnels) != n || len(c.EffectiveRoutes()) != 2*n || len(c.Accounts) != n/2 {
		t.Errorf("got %d tunnels, %d routes, %d accounts", len(c.Tunnels), len(c.EffectiveRoutes()), len(c.Accounts))
	}
	_, err := Parse("c.yaml", []byte(strings.ReplaceAll(b.String(), "[30.", "[239.")))
	var es Errors
	if !errors.As(err, &es) || len(es) != n {
		t.Errorf("got %d errors, want %d", len(es), n)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	} else {
		t.Logf("took %v", d)
	}
}
