package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/api"
	"causeway/control/cluster/seal"
)

// binary is the command, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "causeway-test-")
	if err == nil {
		binary = filepath.Join(dir, "causeway")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// Scripts rely on these: 0 good, 1 failed, 2 wrong use.
func TestExitStatus(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", "interfaces: [{name: eth0}]\n")
	bad := file("bad.yaml", "interfaces: [{name: eth0, quues: all}]\nendpoint: 192.0.2.1\n")
	files := "tokens: {file: " + dir + "/no-tokens}, geo: {asn: " + dir + "/no-asn, country: " + bad + "}"
	pages := file("pages.yaml", "interfaces: [{name: eth0, quues: all}]\nanalytics: {sampling: 0, "+files+"}\n")
	right := file("right.yaml", "interfaces: [{name: eth0}]\nanalytics: {"+files+"}\n")
	unread := []string{"analytics.tokens.file: open " + dir + "/no-tokens", "analytics.geo.asn: " + dir + "/no-asn: ", "analytics.geo.country: " + bad + ": "}
	missing := file("missing.yaml", "interfaces: [{name: nosuch0}]\ncontrol: {socket: "+filepath.Join(dir, "s")+"}\n")
	for _, c := range []struct {
		args   []string
		status int
		says   []string // on either output
	}{
		{[]string{"--help"}, 0, []string{"show", "reload", "doctor"}},
		{[]string{"version"}, 0, []string{"causeway "}},
		{[]string{"--version"}, 0, []string{"causeway "}},
		{[]string{"show", "--help"}, 0, []string{"neighbours  ", "the reasons that packets were dropped for"}},
		{[]string{"check", "-c", good}, 0, []string{good + ": good: 1 interface, 0 endpoints, 0 tunnels, 0 routes"}},
		{[]string{"check", "-c", bad}, 1, []string{bad + ":1:27: interfaces[0]: unknown field \"quues\"", bad + ":2:1: unknown field \"endpoint\""}},
		{[]string{"check", "-c", pages}, 1, append([]string{pages + ":1:27: interfaces[0]: unknown field \"quues\"", "analytics.sampling: must be off, or a whole number"}, unread...)},
		{[]string{"check", "-c", right}, 1, unread},
		{[]string{"check", "-c", filepath.Join(dir, "none.yaml")}, 1, []string{"none.yaml: cannot be read: no such file or directory"}},
		{[]string{"run", "-c", bad}, 1, []string{"unknown field \"quues\""}},
		{[]string{"run", "-c", missing}, 1, []string{"nosuch0"}},
		{[]string{"doctor", "-c", bad}, 1, []string{"unknown field \"quues\""}},
		{[]string{"show", "tunnels", "--socket", filepath.Join(dir, "none")}, 1, []string{"no daemon answers there"}},
		{[]string{"reload", "--socket", filepath.Join(dir, "none")}, 1, []string{"no daemon answers there"}},
		{nil, 2, []string{"a command is missing"}},
		{[]string{"stop"}, 2, []string{`unknown command "stop": causeway wants one of apply, capture, check, cluster, doctor, drain, `}},
		{[]string{"cluster"}, 2, []string{"causeway cluster wants one of identity"}},
		{[]string{"cluster", "join"}, 2, []string{`unknown command "join": causeway cluster wants one of identity`}},
		{[]string{"cluster", "identity", "edge-1"}, 2, []string{"causeway cluster identity takes no arguments"}},
		{[]string{"cluster", "identity", "--state-dir", good}, 1, []string{good}},
		{[]string{"stop", "--socket", "x"}, 2, []string{`unknown command "stop"`}},
		{[]string{"--socket", "x"}, 2, []string{"unknown flag: --socket"}},
		{[]string{"ike"}, 2, []string{"causeway ike wants one of export-keys, initiate, rekey, terminate"}},
		{[]string{"ike", "foo", "acme-1", "--socket", "x"}, 2, []string{`unknown command "foo": causeway ike wants one of export-keys, initiate, rekey, terminate`}},
		{[]string{"ike", "foo"}, 2, []string{`unknown command "foo"`}},
		{[]string{"ike", "--foo"}, 2, []string{"unknown flag: --foo"}},
		{[]string{"ike", "initiate"}, 2, []string{"causeway ike initiate wants the name of one tunnel"}},
		{[]string{"ike", "export-keys", "acme-1", "--for", "0s"}, 2, []string{`"0s" for "--for" flag: from 1s to 1h are possible`}},
		{[]string{"ike", "export-keys", "acme-1", "--for", "-5m"}, 2, []string{`"-5m" for "--for" flag: from 1s to 1h are possible`}},
		{[]string{"ike", "export-keys", "acme-1", "--for", "61m"}, 2, []string{`"61m" for "--for" flag: from 1s to 1h are possible`}},
		{[]string{"ike", "export-keys", "acme-1"}, 2, []string{`required flag(s) "for" not set`}},
		{[]string{"ike", "export-keys", "acme-1", "--for", "1h", "--socket", filepath.Join(dir, "none")}, 1, []string{"no daemon answers there"}},
		{[]string{"show"}, 2, []string{`show wants one of tunnels, routes`, `got ""`}},
		{[]string{"show", "everything"}, 2, []string{`show wants one of tunnels`, `got "everything"`, "causeway show --help"}},
		{[]string{"show", "tunnels", "routes"}, 2, []string{`got "tunnels routes"`}},
		{[]string{"show", "tunnels", "-o", "xml"}, 2, []string{`output "xml": table and json are possible`}},
		{[]string{"run", "now"}, 2, []string{`causeway run takes no arguments, got "now"`, "-c now"}},
		{[]string{"check", "--colour"}, 2, []string{"unknown flag: --colour"}},
	} {
		out, err := exec.Command(binary, c.args...).CombinedOutput()
		if status := exitStatus(err); status != c.status {
			t.Errorf("causeway %s: status %d, want %d\n%s", strings.Join(c.args, " "), status, c.status, out)
		}
		for _, want := range c.says {
			if !strings.Contains(string(out), want) {
				t.Errorf("causeway %s does not say %q:\n%s", strings.Join(c.args, " "), want, out)
			}
		}
	}
}

func TestTablesAreAligned(t *testing.T) {
	var out bytes.Buffer
	tunnelTable(&out, []api.Tunnel{
		{Name: "a", Account: "acme", Type: "gre", Endpoint: "192.0.2.1", CustomerEndpoint: "198.51.100.2", MTU: 1476, EffectiveMTU: 1376, MSS4: 1336, MSS6: 1316, RXPackets: 12345, RXBytes: 67890, RXDrops: 1, TXDrops: 2, Route: "via 198.51.100.2 dev eth1"},
		{Name: "a-longer-name", Account: "globex", Type: "gre", Endpoint: "2001:db8::1", CustomerEndpoint: "2001:db8:9::2", MTU: 1456, EffectiveMTU: 1456, Route: "no route"},
	})
	want := `NAME           ACCOUNT  TYPE  ENDPOINT     CUSTOMER       MTU                  MSS        RX PACKETS  RX BYTES  TX PACKETS  TX BYTES  DROPS  ROUTE
a              acme     gre   192.0.2.1    198.51.100.2   1476 (1376 by path)  1336/1316  12345       67890     0           0         3      via 198.51.100.2 dev eth1
a-longer-name  globex   gre   2001:db8::1  2001:db8:9::2  1456                 off        0           0         0           0         0      no route
`
	if out.String() != want {
		t.Errorf("table\n%s\nwant\n%s", out.String(), want)
	}
}

// The device of a tunnel has a column where there is one.
func TestDeviceColumn(t *testing.T) {
	for want, d := range map[string]*api.KernelInterface{
		"-": nil, "cwa: 7 routes learned, edge-2 speaks": {Name: "cwa", Node: "edge-2", Learned: 7}, "cwa: 0 routes learned, nobody speaks yet": {Name: "cwa"},
		"cwa: there is an interface of that name already": {Name: "cwa", Problem: "there is an interface of that name already"},
	} {
		var out bytes.Buffer
		tunnelTable(&out, []api.Tunnel{{Name: "a", Route: "no route", KernelInterface: d}, {Name: "b", Route: "no route", KernelInterface: &api.KernelInterface{Name: "cwb", Node: "edge-1"}}})
		lines := strings.Split(out.String(), "\n")
		if !strings.HasSuffix(lines[0], "DEVICE") || !strings.HasSuffix(lines[1], "  "+want) {
			t.Errorf("want %q\n%s", want, out.String())
		}
	}
}

// A session of BFD that was never heard of is told from one that has been lost, and a data center that has a single node from this node's own.
func TestHealthWords(t *testing.T) {
	one := func(h api.Health) string {
		var out bytes.Buffer
		h.Tunnel, h.State = "a", "healthy"
		healthTable(&out, []api.Health{h})
		return out.String()
	}
	for _, c := range []struct {
		h    api.Health
		want string
	}{
		{api.Health{BFD: &api.HealthBFD{State: "down", Remote: "admin-down", Sent: 4}}, "a: BFD is down since 0s, and the router has never said anything: is BFD configured there? sent 4, received 0"},
		{api.Health{BFD: &api.HealthBFD{State: "down", Remote: "up", Received: 9}}, "the last that the router said was up;"},
		{api.Health{BFD: &api.HealthBFD{State: "up", Remote: "up", Received: 9, Detection: 0.3}}, "and down after 300ms without a packet;"},
		{api.Health{Fleet: "degraded", Datacenters: []api.HealthDatacenter{{Datacenter: "ams1", State: "healthy", Healthy: 1}, {Datacenter: "fra1", State: "down", Down: 1}}},
			"a in all data centers together: degraded\na in fra1: down: 0 nodes find it healthy, 0 degraded, 1 down\n"},
		{api.Health{Fleet: "degraded", Datacenters: []api.HealthDatacenter{{Datacenter: "ams1", State: "degraded", Healthy: 1, Down: 1, Disagree: []string{"n1", "n2"}}}}, "a in ams1: degraded: 1 nodes find it healthy, 0 degraded, 1 down; those that do not agree: n1, n2\n"},
	} {
		if got := one(c.h); !strings.Contains(got, c.want) {
			t.Errorf("want %q\n%s", c.want, got)
		}
	}
	if got := one(api.Health{Fleet: "down", Datacenters: []api.HealthDatacenter{{Datacenter: "ams1", State: "down", Down: 1}}}); strings.Contains(got, "in ams1") {
		t.Errorf("a node alone says twice how it is:\n%s", got)
	}
}

// A tunnel of ike that is not up is not called none.
func TestAssociationsOfNoTunnel(t *testing.T) {
	for _, c := range []struct {
		ike  []api.IKE
		want string
	}{
		{nil, "there are no IPsec tunnels\n"},
		{[]api.IKE{{Tunnel: "acme-1"}}, "no tunnel has associations now; what IKE does for each:\n"},
	} {
		var out bytes.Buffer
		if saTable(&out, nil, c.ike); out.String() != c.want {
			t.Errorf("%d tunnels of ike: %q, want %q", len(c.ike), out.String(), c.want)
		}
	}
}

func TestRoutesAreSortedByAccountAndPrefix(t *testing.T) {
	var out bytes.Buffer
	routeTable(&out, []api.Route{
		{Prefix: "10.0.0.0/8", Account: "globex", Source: "interface"},
		{Prefix: "2001:db8::/32", Source: "kernel"},
		{Prefix: "192.0.2.0/24", Source: "kernel", Priority: 20},
		{Prefix: "10.0.0.0/8", Account: "acme", Source: "interface"},
		{Prefix: "192.0.2.0/25", Source: "kernel"},
		{Prefix: "192.0.2.0/24", Source: "static", Priority: 10},
		{Prefix: "9.0.0.0/8", Source: "kernel"},
	})
	var got []string
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		got = append(got, f[1]+" "+f[0]+" "+f[2])
	}
	want := []string{"ACCOUNT PREFIX SOURCE", "(internet) 9.0.0.0/8 kernel", "(internet) 192.0.2.0/24 static", "(internet) 192.0.2.0/24 kernel",
		"(internet) 192.0.2.0/25 kernel", "(internet) 2001:db8::/32 kernel", "acme 10.0.0.0/8 interface", "globex 10.0.0.0/8 interface"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDropTableShowsWhatHappened(t *testing.T) {
	var out bytes.Buffer
	dropTable(&out, []api.Drop{{Reason: "no_route", Stage: "route", Sentence: "no route leads to the destination"}})
	if out.String() != "nothing was dropped\n" {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	dropTable(&out, []api.Drop{
		{Reason: "no_route", Stage: "route", Packets: 3, Sentence: "no route leads to the destination", RFC: "RFC 1812 5.2.4"},
		{Reason: "gre_key", Stage: "decap", Sentence: "not shown"},
	})
	if !strings.Contains(out.String(), "3        route  no_route  no route leads to the destination  RFC 1812 5.2.4") || strings.Contains(out.String(), "not shown") {
		t.Errorf("%s", out.String())
	}
}

func TestLogIsLimitedPerMessage(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1_700_000_000, 0)
	log := slog.New(&limited{slog.NewTextHandler(&out, nil), &windows{now: func() time.Time { return now }, byMessage: map[string]*window{}}})
	for i := range logBurst + 100 {
		log.Info("flood", "i", i)
	}
	log.With("port", "eth0").Info("rare")
	if n := strings.Count(out.String(), "msg=flood"); n != logBurst {
		t.Errorf("%d lines of a flood, want %d", n, logBurst)
	}
	if !strings.Contains(out.String(), "msg=rare port=eth0") {
		t.Error("another message was suppressed with the flood")
	}
	now = now.Add(logWindow)
	log.With("port", "eth0").Info("flood", "i", -1) // the limit is the message's, whoever logs it
	if !strings.Contains(out.String(), "msg=flood port=eth0 i=-1 suppressed=100") {
		t.Errorf("the end of the flood is not told:\n%s", out.String())
	}
}

func TestNotifyTellsTheServiceManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	notify("READY=1")
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	notify("READY=1") // no manager: nothing happens
}

// The line for the roster is the same each time, also while the daemon has the directory.
func TestIdentityStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var lines []string
	for range 2 {
		out, err := exec.Command(binary, "cluster", "identity", "--state-dir", dir, "--name", "edge-1").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		lines = append(lines, string(out))
		if len(lines) == 1 {
			lock(t, dir)
		}
	}
	if lines[0] != lines[1] {
		t.Errorf("%q, and then %q", lines[0], lines[1])
	}
	if r, err := seal.ParseRoster(lines[0]); err != nil || r["edge-1"] == "" {
		t.Errorf("%q is no line of a roster: %v", lines[0], err)
	}
}

// lock does to a state directory what a daemon does.
func lock(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

func TestClusterTables(t *testing.T) {
	var out bytes.Buffer
	nodeTable(&out, []api.ClusterNode{
		{Name: "edge-1", State: "self", Address: "192.0.2.11", Datacenter: "ams1", Epoch: 7, SAs: 3, Agrees: true},
		{Name: "edge-2", State: "silent", Address: "192.0.2.12", Epoch: 7, SAs: 2, NotReady: []string{"draining"}, HeardAgo: 3.21},
		{Name: "rogue", State: "refused", Why: "its record is not signed by it"},
	})
	clusterTable(&out, api.Cluster{State: "away", Why: "no server of cluster.servers is reached", Numbered: true, Writer: 5, Generation: "0123456789abcdef", Epoch: 7, SAs: 3, Digest: "00000000000000ff", SPIsReserved: 64, IKESAs: 3, IKEHere: 2, IKEVacant: 1, Compared: 2.31,
		Replicas: []api.StoreReplica{{Name: "edge-1", Current: true, Leads: 5}, {Name: "edge-2", Offline: true, Lag: 7}, {Name: "edge-3", Lag: 1}}})
	away := api.Cluster{State: "away", Local: true, Numbered: true, Generation: "0123456789abcdef", Digest: "0000000000000000"}
	clusterTable(&out, away)
	away.NotTold, away.ClockAhead = 2, -3600.2
	clusterTable(&out, away)
	nodeTable(&out, []api.ClusterNode{{Name: "lone", State: "self", Agrees: true, SAs: 2}})
	clusterTable(&out, api.Cluster{State: "alone", SAs: 2, IKESAs: 1})
	clusterTable(&out, api.Cluster{State: "alone", Why: "the engine starts"})
	fleetTable(&out, api.Fleet{Nodes: []api.FleetNode{{Name: "lone", State: "self"}}})
	fleetTable(&out, api.Fleet{Serial: 3, File: "t.yaml", By: "lone", AppliedAt: "2026-11-30T07:15:32Z", Digest: "00112233445566778899", Nodes: []api.FleetNode{
		{Name: "lone", State: "self", Runs: 3, Why: "in effect and not kept"}, {Name: "other", State: "live", Refused: 3, Why: "no such endpoint"}}})
	want := `NODE    STATE    READY  ADDRESS     DATACENTER  REGION  RELEASE  EPOCH  CHILD SAS  SAME  HEARD
edge-1  self     yes    192.0.2.11  ams1        -       -        7      3          yes   -
edge-2  silent   no     192.0.2.12  -           -       -        7      2          no    3.2s ago
rogue   refused  -      -           -           -       -        -      -          -     -
edge-2 is not ready: draining
rogue is refused: its record is not signed by it
the store is not reached: no server of cluster.servers is reached
tunnels that are up go on; nothing new is negotiated
store of 3 replicas: edge-1 has all, edge-2 is away, edge-3 is behind by 1 change
number for IVs 5, generation of the store 0123456789abcdef
child SAs 3 (digest 00000000000000ff), SPIs reserved ahead 64
IKE SAs 3: 2 here, 1 of nodes that are gone
not stored yet 0, not installed here 0, not opened for lack of a key 0
compared with the store 2.3s ago
acknowledgements that came late 0, values refused 0
the store is not reached: not joined yet
tunnels that are up go on; new tunnels are negotiated for this data center alone
number for IVs 0, generation of the store 0123456789abcdef
child SAs 0 (digest 0000000000000000), SPIs reserved ahead 0
IKE SAs 0: 0 here, 0 of nodes that are gone
not stored yet 0, not installed here 0, not opened for lack of a key 0
acknowledgements that came late 0, values refused 0
the store is not reached: not joined yet
tunnels that are up go on; new tunnels are negotiated for this data center alone, whose nodes have not acknowledged 2 changes yet
this node's clock is 1h0m0s behind the store's: set both, as with NTP
number for IVs 0, generation of the store 0123456789abcdef
child SAs 0 (digest 0000000000000000), SPIs reserved ahead 0
IKE SAs 0: 0 here, 0 of nodes that are gone
not stored yet 0, not installed here 0, not opened for lack of a key 0
acknowledgements that came late 0, values refused 0
NODE  STATE  READY  ADDRESS  DATACENTER  REGION  RELEASE  EPOCH  CHILD SAS  SAME  HEARD
lone  self   yes    -        -           -       -        -      2          yes   -
this node is alone: its configuration has no cluster
child SAs 2, IKE SAs 1
this node is alone: its configuration has no cluster
nothing can be applied: the engine starts
child SAs 0, IKE SAs 0
nothing was applied yet: each node has the tunnels of its own file
NODE  STATE  RUNS  REFUSES
lone  self   -     -
configuration 3: t.yaml, applied at lone, 2026-11-30T07:15:32Z, digest 0011223344556677
NODE   STATE  RUNS  REFUSES
lone   self   3     -
other  live   -     3
lone: in effect and not kept
other refuses 3: no such endpoint
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
