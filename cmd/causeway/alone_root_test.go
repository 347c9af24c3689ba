package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
)

// applied asks the daemon to apply a document of tunnels, and returns what it printed and whether it succeeded.
func (b *bed) applied(tunnels []string, flags ...string) (out string, ok bool) {
	b.t.Helper()
	file := filepath.Join(b.dir, "tunnels.yaml")
	if err := os.WriteFile(file, []byte("tunnels:\n  - "+strings.Join(tunnels, "\n  - ")+"\n"), 0o644); err != nil {
		b.t.Fatal(err)
	}
	out, err := b.node.Run(append([]string{b.causeway, "apply", "-f", file, "--socket", b.socket()}, flags...)...)
	b.t.Logf("apply:\n%s", out)
	return out, err == nil
}

func (b *bed) state() string { return filepath.Join(b.dir, "state") }

// configureState is configure with a state directory.
func (b *bed) configureState(tunnels ...string) {
	b.t.Helper()
	b.configure(tunnels...)
	text, err := os.ReadFile(b.file())
	if err == nil {
		err = os.WriteFile(b.file(), []byte(strings.Replace(string(text), "name: edge-1", "name: edge-1, state_dir: "+b.state(), 1)), 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// listens lists the sockets at which a process can be reached.
func (b *bed) listens(pid int) (list []string) {
	b.t.Helper()
	for line := range strings.Lines(b.node.MustRun("ss", "-Hlntuxp")) {
		if strings.Contains(line, fmt.Sprintf("pid=%d,", pid)) {
			list = append(list, strings.Join(strings.Fields(line)[:5], " "))
		}
	}
	return list
}

// runs checks which document the node has and works with, and what it says of itself.
func (b *bed) runs(serial uint64) {
	b.t.Helper()
	f := show[api.Fleet](b, "fleet")
	if f.Clustered || f.Serial != serial || len(f.Nodes) != 1 || f.Nodes[0].Name != "edge-1" || f.Nodes[0].State != "self" || f.Nodes[0].Runs != serial || f.Nodes[0].Refused != 0 {
		b.t.Errorf("want serial %d: %+v", serial, f)
	}
	if list := show[[]api.ClusterNode](b, "nodes"); len(list) != 1 || list[0].Name != "edge-1" || list[0].State != "self" || len(list[0].NotReady) > 0 {
		b.t.Errorf("nodes: %+v", list)
	}
	await(b.t, "the engine does not start", func() bool { return show[api.Cluster](b, "cluster").Why == "" })
	if c := show[api.Cluster](b, "cluster"); c.State != "alone" || c.Nodes != 1 || c.Numbered || c.Epoch != 0 {
		b.t.Errorf("cluster: %+v", c)
	}
}

// TestRootAlone: a node without a cluster has tunnels that are applied, and begins with them when it is started again. It listens nowhere
// for that.
func TestRootAlone(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configureState()
	d := b.run()
	b.runs(0)
	if list := b.listens(d.PID()); len(list) != 2 || !strings.Contains(list[0]+list[1], "127.0.0.1:9150") || !strings.Contains(list[0]+list[1], b.socket()) {
		t.Errorf("the node listens at %q", list)
	}
	if out, ok := b.applied([]string{strings.Replace(custA, "192.0.2.1,", "192.0.2.77,", 1)}); ok || !strings.Contains(out, "tunnels[0].endpoint: 192.0.2.77 is not one of the endpoints") {
		t.Error("a document with a mistake is applied, or nothing is said of it")
	}
	if out, ok := b.applied([]string{custA}, "--dry-run"); !ok || !strings.Contains(out, "would be: 1 tunnel added, 0 removed") {
		t.Error("the document is not tried rightly")
	}
	if list := b.files(); list != "causeway.yaml s tunnels.yaml" {
		t.Errorf("before something is applied there are files: %s", list)
	}

	if out, ok := b.applied([]string{custA}); !ok || !strings.Contains(out, "stored as 1: 1 tunnel added") || !strings.Contains(out, "1 node with 1") {
		t.Fatal("not applied")
	}
	first, second := b.peer("198.51.100.2", 42, "203.0.113.9"), b.peer("198.51.100.3", 0, "203.0.113.200")
	first.works(0)
	if info, err := os.Stat(filepath.Join(b.state(), "fleet.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("what was applied is not kept, or not closed: %v, %v", info, err)
	}
	lost := make(chan int)
	go func() { lost <- first.exchange(1000, 2000, time.Millisecond, time.Second) }()
	for serial := 2; serial <= 5; serial++ { // the second tunnel comes, goes, and comes
		if out, ok := b.applied([]string{custA, custB}[:2-serial%2]); !ok || !strings.Contains(out, fmt.Sprintf("stored as %d:", serial)) {
			t.Error("not applied")
		}
	}
	if _, ok := b.applied([]string{custA, custB}); !ok {
		t.Error("not applied")
	}
	second.works(0)
	if n := <-lost; n > 0 {
		t.Errorf("%d of 2000 packets of the tunnel that stayed were lost: %v", n, dropped(b))
	}
	b.runs(6)
	if _, page := b.get("/metrics"); !strings.Contains(page, `causeway_cluster_fleet_serial{which="runs"} 6`) || strings.Contains(page, "causeway_cluster_joined") {
		t.Error("/metrics has not the document's serial, or what only a cluster has")
	}
	b.ownTunnels()

	// Started again, after SIGTERM and after kill -9, it has all, and serials go on.
	if err := d.Stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
	d = b.run()
	b.runs(7)
	first.works(10000)
	second.works(10000)
	if out, ok := b.applied([]string{custB}); !ok || !strings.Contains(out, "stored as 8: 0 tunnels added, 1 removed") {
		t.Error("not applied")
	}
	d.Kill()
	d = b.run()
	b.runs(8)
	second.works(20000)
	if out, ok := b.applied([]string{custA, custB}); !ok || !strings.Contains(out, "stored as 9: 1 tunnel added") {
		t.Error("not applied")
	}
	first.works(20000)
	b.balanced()
	if list := b.files(); list != "causeway.yaml s state state/fleet.json tunnels.yaml" {
		t.Errorf("there are files: %s", list)
	}
	if err := d.Stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if strings.Contains(d.Log(), "level=ERROR") {
		t.Errorf("something did not work:\n%s", d.Log())
	}
	b.stateUnusable(first)
}

// files lists what is in the bed's directory.
func (b *bed) files() string {
	b.t.Helper()
	var list []string
	err := filepath.WalkDir(b.dir, func(path string, _ os.DirEntry, err error) error {
		if rest, below := strings.CutPrefix(path, b.dir+"/"); below && !strings.HasPrefix(rest, "log") {
			list = append(list, rest)
		}
		return err
	})
	if err != nil {
		b.t.Error(err)
	}
	return strings.Join(list, " ")
}

// ownTunnels: a node whose file has tunnels works with those, and says so; without them it follows again, what was applied meanwhile too.
func (b *bed) ownTunnels() {
	b.t.Helper()
	b.configureState(custB)
	b.reload()
	if f := show[api.Fleet](b, "fleet").Nodes[0]; f.Runs != 0 || f.Refused != 6 || !strings.Contains(f.Why, "this node's own file has tunnels") {
		b.t.Errorf("with tunnels of its own: %+v", f)
	}
	if n := len(show[[]api.Tunnel](b, "tunnels")); n != 1 {
		b.t.Errorf("%d tunnels, its file has one", n)
	}
	if out, ok := b.applied([]string{custA, custB}); ok || !strings.Contains(out, "stored as 7:") || !strings.Contains(out, "edge-1 refuses 7: this node's own file has tunnels") {
		b.t.Error("it does not refuse what is applied")
	}
	if n := len(show[[]api.Tunnel](b, "tunnels")); n != 1 {
		b.t.Errorf("%d tunnels, its file has one", n)
	}
	b.configureState()
	b.reload()
	b.runs(7)
}

// stateUnusable: whatever is wrong with the state directory, tunnels of the node's file carry packets, and apply says what to do. A node
// that has no other tunnels than those that it cannot read is not ready.
func (b *bed) stateUnusable(p *peer) {
	b.t.Helper()
	if err := os.Chmod(b.state(), 0o777); err != nil {
		b.t.Fatal(err)
	}
	b.configureState(custA)
	d := b.run()
	p.works(30000)
	if out, ok := b.applied([]string{custA}); ok || !strings.Contains(out, "chmod 700 "+b.state()) || !strings.Contains(out, "start it again") {
		b.t.Error("applied although it cannot be kept, or nothing is said of it")
	}
	if s := show[api.Status](b, "status"); !s.Ready {
		b.t.Errorf("not ready: %v", s.NotReady)
	}
	_ = d.Stop()
	b.configureState()
	d = b.run()
	if s := show[api.Status](b, "status"); s.Ready || !strings.Contains(strings.Join(s.NotReady, ""), "what was applied to this node cannot be read, and its file has no tunnels") {
		b.t.Errorf("ready without its tunnels: %v", s.NotReady)
	}
	_ = d.Stop()

	// What is no directory at all is of no interest until something is applied.
	if err := os.RemoveAll(b.state()); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(b.state(), nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.configureState(custA)
	d = b.run()
	p.works(40000)
	if out, ok := b.applied([]string{custA}); ok || !strings.Contains(out, "what was applied is kept there: mkdir "+b.state()+": not a directory; name a directory that the daemon can make and write") {
		b.t.Error("applied although it cannot be kept, or nothing is said of it")
	}
	_ = d.Stop()
}

// await waits for something that must become true.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
