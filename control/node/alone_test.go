package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"causeway/config"
	"causeway/control/cluster"
	"causeway/control/ike"
)

// aloneFile is a node's own file without a cluster, with more sections.
func aloneFile(t *testing.T, dir, more string) *config.Config {
	t.Helper()
	c, err := config.Parse("c.yaml", []byte("node: {name: edge-1, state_dir: "+dir+"}\ninterfaces: [{name: eth0}]\nendpoints: [192.0.2.1]\n"+more))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// begun is a node without a cluster that has read what it has kept, and its store, of which the engine does not run.
func begun(t *testing.T, own *config.Config) (*Node, *config.Config, error) {
	t.Helper()
	n := &Node{state: stateDir{path: StateDir(own)}, log: slog.New(slog.DiscardHandler), opts: Options{Version: "test"}}
	t.Cleanup(n.state.close)
	c, err := n.beginFleet(own)
	if err == nil {
		err = n.openAlone(own)
	}
	return n, c, err
}

// A node that is alone begins with what it has kept as one in a cluster does, and each with what it has kept as the other.
func TestBeginAlone(t *testing.T) {
	for _, x := range append(beginnings(), beginning{name: "damaged beside tunnels of its own", file: oneTunnel, damage: "{", tunnels: 1}) {
		t.Run(x.name, func(t *testing.T) {
			dir := t.TempDir()
			own := aloneFile(t, dir, x.file)
			x.lay(t, dir)
			n, c, err := begun(t, own)
			if x.fault != "" {
				if err == nil || !strings.Contains(err.Error(), x.fault) {
					t.Fatalf("error %v, want %s", err, x.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := n.store.Status()
			if len(c.Tunnels) != x.tunnels || s.Runs != x.runs || n.fleet.refused != x.refused || s.Document != x.runs+x.refused {
				t.Errorf("%d tunnels, runs %d, refused %d, the store begins with %d", len(c.Tunnels), s.Runs, n.fleet.refused, s.Document)
			}
			again, serial, err := WithKept(own)
			if err != nil || len(again.Tunnels) != x.tunnels || serial != x.runs {
				t.Errorf("check sees %d tunnels of %d, %v", len(again.Tunnels), serial, err)
			}
			if n.cluster != nil || n.children != nil {
				t.Error("there is a cluster")
			}
		})
	}
}

// A node to which nothing was applied touches no state directory, be it one that cannot be.
func TestAloneTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{filepath.Join(dir, "state"), filepath.Join(file, "state"), dir} {
		n, _, err := begun(t, aloneFile(t, state, ""))
		if err != nil || n.fleet.unread != nil || len(n.aloneReady()) > 0 {
			t.Errorf("%s: %v, %v, %v", state, err, n.fleet.unread, n.aloneReady())
		}
		if n.state.root != nil {
			t.Errorf("%s is taken", state)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was made: %v", err)
	}
}

// A directory with something that was applied and cannot be used keeps a node from being ready, if it has no other tunnels, and from being
// applied anything.
func TestAloneCannotRead(t *testing.T) {
	for what, spoil := range map[string]func(dir string) error{
		"in use":  func(dir string) error { return inUse(t, dir) },
		"mode 07": func(dir string) error { return os.Chmod(dir, 0o777) },
	} {
		dir := t.TempDir()
		kept(t, dir, oneTunnel)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"", strings.Replace(oneTunnel, "name: a", "name: b", 1)} {
			n, c, err := begun(t, aloneFile(t, dir, file))
			if err != nil {
				t.Fatalf("%s: it does not start: %v", what, err)
			}
			if why := n.aloneReady(); (len(why) == 0) != (file != "") || len(c.Tunnels) != strings.Count(file, "name: b") {
				t.Errorf("%s, %d tunnels: not ready because of %q", what, len(c.Tunnels), why)
			}
			if err := n.mayKeep(); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "start it again") {
				t.Errorf("%s: it may keep: %v", what, err)
			}
		}
	}
}

// inUse has another daemon take a directory.
func inUse(t *testing.T, dir string) error {
	other := &stateDir{path: dir}
	t.Cleanup(other.close)
	return other.take()
}

// What has come into the directory since the start is not written over: serials would begin anew.
func TestAloneOverwritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	n, _, err := begun(t, aloneFile(t, dir, ""))
	if err != nil {
		t.Fatal(err)
	}
	kept(t, dir, oneTunnel)
	if err := n.mayKeep(); err == nil || !strings.Contains(err.Error(), "has come since this node started") {
		t.Errorf("it may be written over: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, fleetFile)); err != nil {
		t.Fatal(err)
	}
	if err := n.mayKeep(); err != nil {
		t.Error(err)
	}
	n.store.SetDocument(cluster.Document{Serial: 1}) // and its own is
	err = n.keepFleet(cluster.Document{Serial: 1})
	if err := errors.Join(err, n.mayKeep()); err != nil {
		t.Error(err)
	}
}

// What a node that is alone says of itself is what it has, and nothing that only a cluster has.
func TestAloneShows(t *testing.T) {
	n, _, err := begun(t, aloneFile(t, t.TempDir(), ""))
	if err != nil {
		t.Fatal(err)
	}
	n.engine, n.ike = memoryEngine(t), ike.New(ike.Options{})
	n.children = &children{tunnels: map[string]*negotiated{"a": {list: []*child{{}, {}}}, peerTunnel("edge-2"): {list: []*child{{}}}}}
	list := n.Nodes()
	if len(list) != 1 || list[0].Name != "edge-1" || list[0].State != "self" || list[0].Release != "test" || list[0].SAs != 2 || list[0].Writer != 0 || list[0].Epoch != 0 {
		t.Errorf("nodes: %+v", list)
	}
	if c := n.Cluster(); c.State != "alone" || c.Why != "the engine starts" || c.Nodes != 1 || c.SAs != 2 || c.Numbered || c.Generation != "" || c.Epoch != 0 {
		t.Errorf("cluster: %+v", c)
	}
	if f := n.Fleet(true); f.Clustered || f.Serial != 0 || len(f.Nodes) != 1 || f.Nodes[0].Name != "edge-1" {
		t.Errorf("fleet: %+v", f)
	}
}

// That a document is in effect and not kept is said where it was applied.
func TestNotKeptIsSaid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	n, c, err := begun(t, aloneFile(t, dir, ""))
	if err == nil {
		err = n.mayKeep()
	}
	if err != nil {
		t.Fatal(err)
	}
	n.engine = memoryEngine(t)
	n.settleFleet(cluster.Document{Serial: 1}, c, nil)
	if f := n.Fleet(false).Nodes[0]; f.Runs != 1 || f.Why != "" {
		t.Errorf("kept: %+v", f)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	n.settleFleet(cluster.Document{Serial: 2}, c, nil)
	if f := n.Fleet(false).Nodes[0]; f.Runs != 2 || f.Refused != 0 || !strings.Contains(f.Why, "in effect and not kept, started again this node begins with the one of before: ") {
		t.Errorf("not kept: %+v", f)
	}
}

// What is applied to a node with tunnels of its own it refuses, and does not keep: what is in effect is its file.
func TestOwnTunnelsAreNotTheDocument(t *testing.T) {
	dir := t.TempDir()
	n, c, err := begun(t, aloneFile(t, dir, oneTunnel))
	if err != nil {
		t.Fatal(err)
	}
	n.cfg, n.engine = c, memoryEngine(t)
	n.store.SetDocument(cluster.Document{Serial: 1, Digest: "d"})
	n.follow()
	if f := n.Fleet(false).Nodes[0]; f.Runs != 0 || f.Refused != 1 || f.Why != errOwnTunnels.Error() {
		t.Errorf("it runs %d and refuses %d: %s", f.Runs, f.Refused, f.Why)
	}
	if _, err := os.Stat(filepath.Join(dir, fleetFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is kept: %v", err)
	}
}
