package node

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/config"
	"causeway/control/cluster"
)

// clustered is a node's own file in a cluster, with more sections.
func clusteredFile(t *testing.T, dir, more string) *config.Config {
	t.Helper()
	for name, text := range map[string]string{"roster": "", "a.pem": "", "a.key": "", "ca.pem": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Parse("c.yaml", []byte(strings.ReplaceAll(`node: {name: edge-1, address: 198.51.100.11, state_dir: DIR}
interfaces: [{name: eth0}]
endpoints: [192.0.2.1]
cluster: {servers: ["tls://192.0.2.12:4222"], roster: DIR/roster, tls: {certificate: DIR/a.pem, key: DIR/a.key, ca: DIR/ca.pem}}
`+more, "DIR", dir)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const oneTunnel = `tunnels: [{name: a, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.10/31, prefixes: [10.8.0.0/16]}]
`

// kept has a node keep a document.
func kept(t *testing.T, dir, text string) {
	t.Helper()
	body, err := json.Marshal(&config.Fleet{Name: "f.yaml", Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{state: stateDir{path: dir}}
	defer n.state.close()
	if err := n.takeState(); err != nil {
		t.Fatal(err)
	}
	if err := n.keepFleet(cluster.Document{Serial: 7, Digest: "d", Body: body}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, fleetFile))
	if err != nil || info.Mode().Perm() != 0o600 { // it has keys
		t.Errorf("kept with mode %v, %v", info.Mode(), err)
	}
}

// A beginning is what a node finds that is started: its own file has more, something was kept or is damaged, and what comes of that.
type beginning struct {
	name, file, text, damage string
	tunnels                  int
	runs, refused            uint64
	fault                    string
}

// beginnings are those of nodes in a cluster and of nodes that are alone.
func beginnings() []beginning {
	return []beginning{
		{name: "nothing kept"},
		{name: "kept", text: oneTunnel, tunnels: 1, runs: 7},
		{name: "tunnels of its own", file: strings.ReplaceAll(oneTunnel, "name: a", "name: own"), text: oneTunnel, tunnels: 1, refused: 7},
		{name: "another endpoint", text: strings.Replace(oneTunnel, "192.0.2.1", "192.0.2.9", 1), fault: "the fleet's configuration 7, which this node had last, does not fit its file any more"},
		{name: "damaged", damage: "{", fault: "fleet.json: it is damaged"},
	}
}

// lay puts what was kept into a state directory.
func (x *beginning) lay(t *testing.T, dir string) {
	t.Helper()
	if x.text != "" {
		kept(t, dir, x.text)
	}
	if x.damage != "" {
		if err := os.WriteFile(filepath.Join(dir, fleetFile), []byte(x.damage), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A node begins with what it has kept, if its own file has no tunnels; what does not fit, or is damaged, ends the start with advice.
func TestBeginFleet(t *testing.T) {
	for _, x := range append(beginnings(), beginning{name: "without a serial", damage: "{}", fault: "fleet.json: it is damaged"}) {
		t.Run(x.name, func(t *testing.T) {
			dir := t.TempDir()
			own := clusteredFile(t, dir, x.file)
			x.lay(t, dir)
			n := &Node{state: stateDir{path: dir}, log: slog.New(slog.DiscardHandler)}
			defer n.state.close()
			c, err := n.beginFleet(own)
			if x.fault != "" {
				if err == nil || !strings.Contains(err.Error(), x.fault) {
					t.Fatalf("error %v, want %s", err, x.fault)
				}
				if _, _, err := WithKept(own); err == nil {
					t.Error("check says nothing")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Tunnels) != x.tunnels || n.fleet.running.Serial != x.runs || n.fleet.refused != x.refused {
				t.Errorf("%d tunnels, runs %d, refused %d", len(c.Tunnels), n.fleet.running.Serial, n.fleet.refused)
			}
			again, serial, err := WithKept(own)
			if err != nil || len(again.Tunnels) != x.tunnels || serial != x.runs {
				t.Errorf("check sees %d tunnels of %d, %v", len(again.Tunnels), serial, err)
			}
		})
	}
}

// A node that is announced takes over the first configuration without being withdrawn for it, unless that takes long. One that starts waits.
func TestLacking(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var l lacking
	for _, x := range []struct {
		after  time.Duration
		served bool
		lacks  bool
		want   bool
	}{
		{0, false, true, true}, {time.Second, false, true, true}, {0, true, false, false},
		{time.Hour, true, true, false}, {takeTime, true, true, false}, {time.Millisecond, true, true, true},
		{0, true, false, false}, {0, true, true, false},
	} {
		now = now.Add(x.after)
		l.served.Store(x.served)
		if got := l.yes(now, x.lacks); got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
	}
}
