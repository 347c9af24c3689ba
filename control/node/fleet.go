package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/cluster"
)

// A node follows the configuration that all of its cluster have in common (causeway apply), unless its own file has tunnels. What it works
// with it keeps, so that it begins with that when it is started while the cluster is away. What does not fit this node it refuses as a
// whole, goes on with the one of before, and tells all others. A node that is alone does the same, and is all.

// fleetFile is where it is kept, in node.state_dir, with the keys that it names.
const fleetFile = "fleet.json"

// following is what a node knows of the fleet's configuration. Guarded by Node.reloading, but heard.
type following struct {
	own     *config.Config   // the node's file alone
	running cluster.Document // that is in effect; serial 0: none
	refused uint64           // serial of the document that this node does not take over; 0: none
	why     string
	last    cluster.Document // which it had when it ended
	unread  error            // why a node that is alone does not know whether it had one; nil: it does
	heard   chan struct{}    // there is another one
	lacking lacking
}

// A lacking is since when a node has no tunnels although there is a configuration of the fleet.
type lacking struct {
	served atomic.Bool  // the node was announced, in this process
	since  atomic.Int64 // nanoseconds since 1970; 0: it does not lack any
}

// takeTime is how long a node that is announced may take over the first configuration of the fleet. It does so in milliseconds, and all nodes
// at one time: to withdraw the endpoints for that would be worse.
const takeTime = 2 * time.Second

// yes reports whether that is to be said, of a node that lacks tunnels now or not.
func (l *lacking) yes(now time.Time, lacks bool) bool {
	if !lacks {
		l.since.Store(0)
		return false
	}
	l.since.CompareAndSwap(0, now.UnixNano())
	return !l.served.Load() || now.UnixNano()-l.since.Load() > int64(takeTime)
}

// errOwnTunnels says why a node does not follow.
var errOwnTunnels = errors.New("this node's own file has tunnels or accounts, which it works with: move them into what is applied, remove them there, and `causeway reload`")

// beginFleet returns what a node begins with: its own file, together with what it had when it ended.
func (n *Node) beginFleet(own *config.Config) (*config.Config, error) {
	n.fleet.own = own
	read := n.readKept
	if own.Cluster == nil {
		read = n.readKeptAlone
	}
	d, err := read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return own, nil
	case err != nil:
		return nil, err
	}
	n.fleet.last = d
	if own.HasTunnels() {
		n.log.Warn("the fleet's configuration is not followed", "serial", d.Serial, "why", errOwnTunnels)
		n.fleet.refused, n.fleet.why = d.Serial, errOwnTunnels.Error()
		return own, nil
	}
	c, err := withDocument(own, d)
	if err != nil {
		return nil, fmt.Errorf("the fleet's configuration %d, which this node had last, does not fit its file any more (or remove %s, and the node begins without tunnels until it has joined):\n%w",
			d.Serial, n.state.file(fleetFile), err)
	}
	n.fleet.running = d
	return c, nil
}

// readKept reads what a node in a cluster had when it ended.
func (n *Node) readKept() (d cluster.Document, err error) {
	if err := n.takeState(); err != nil {
		return d, err
	}
	return readFleet(&n.state)
}

// readFleet reads what a node had when it ended.
func readFleet(dir *stateDir) (d cluster.Document, err error) {
	b, err := dir.read(fleetFile)
	if err != nil {
		return d, err
	}
	defer clear(b)
	if err := json.Unmarshal(b, &d); err != nil || d.Serial == 0 {
		return d, fmt.Errorf("%s: it is damaged: remove it, and the node begins without tunnels until it has joined", dir.file(fleetFile))
	}
	return d, nil
}

// WithKept is a configuration as a node begins with it: together with what it has kept of the fleet's, if this process may read that. It
// changes nothing. serial is that document's; 0: none.
func WithKept(own *config.Config) (c *config.Config, serial uint64, err error) {
	if own.HasTunnels() {
		return own, 0, nil
	}
	dir := &stateDir{path: StateDir(own)}
	if dir.root, err = os.OpenRoot(dir.path); err != nil { // there is none yet, or it is closed to this user
		return own, 0, nil
	}
	defer dir.root.Close()
	d, err := readFleet(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return own, 0, nil
	}
	if err == nil {
		c, err = withDocument(own, d)
	}
	return c, d.Serial, err
}

// withDocument is a node's own file together with a document.
func withDocument(own *config.Config, d cluster.Document) (*config.Config, error) {
	f := new(config.Fleet)
	if err := json.Unmarshal(d.Body, f); err != nil {
		return nil, fmt.Errorf("the fleet's configuration %d is none: %w", d.Serial, err)
	}
	return own.WithFleet(f)
}

// merged is what a node works with that has a file of its own: with the newest document, if it follows. It is called with reloading held.
func (n *Node) merged(own *config.Config) (c *config.Config, d cluster.Document, err error) {
	if d = n.store.Document(); d.Serial == 0 || own.HasTunnels() {
		return own, d, nil
	}
	c, err = withDocument(own, d)
	return c, d, err
}

// hearDocument is told that there is another document.
func (n *Node) hearDocument(cluster.Document) {
	select {
	case n.fleet.heard <- struct{}{}:
	default:
	}
}

// followFleet takes over what is applied, until ctx is done.
func (n *Node) followFleet(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.fleet.heard:
			n.follow()
		}
	}
}

// follow takes over the newest document, if it is not in effect.
func (n *Node) follow() {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	if n.draining.Load() {
		return
	}
	c, d, err := n.merged(n.fleet.own)
	if same(d, n.fleet.running) {
		return
	}
	if err == nil && n.fleet.own.HasTunnels() {
		c, err = nil, errOwnTunnels // what is in effect is not the document
	}
	if err == nil {
		_, err = n.takeOver(c, fmt.Sprintf("the fleet's configuration %d", d.Serial))
	}
	n.settleFleet(d, c, err)
}

func same(a, b cluster.Document) bool { return a.Serial == b.Serial && a.Digest == b.Digest }

// settleFleet notes what became of a document, with which the configuration is c, keeps it if it is in effect, and tells the other nodes.
func (n *Node) settleFleet(d cluster.Document, c *config.Config, err error) {
	f := &n.fleet
	if err != nil && !n.inEffect(c) {
		f.refused, f.why = d.Serial, err.Error()
		n.log.Error("the fleet's configuration is not taken over", "serial", d.Serial, "goes_on_with", f.running.Serial, "error", err)
	} else {
		f.running, f.refused = d, 0
		if unkept := n.keepFleet(d); unkept != nil {
			n.log.Error("the fleet's configuration is in effect and not kept: started again, this node begins with the one of before", "serial", d.Serial, "error", unkept)
			err = errors.Join(err, fmt.Errorf("in effect and not kept, started again this node begins with the one of before: %w; %s, and apply again", unkept, advice(unkept)))
		}
		f.why = text(err)
	}
	n.tellFleet()
}

func (n *Node) tellFleet() {
	f := &n.fleet
	n.store.SetRuns(cluster.Runs{Serial: f.running.Serial, Refused: f.refused, Why: f.why})
	n.hasTunnels.Store(f.running.Serial != 0 || f.own.HasTunnels())
}

func (n *Node) keepFleet(d cluster.Document) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	defer clear(b)
	return n.state.write(fleetFile, b)
}

// Apply makes a document what all nodes work with, if it fits this one; with dry, it only says what that would change here.
func (n *Node) Apply(ctx context.Context, f *config.Fleet, dry bool) (api.Applied, error) {
	changes, err := n.tryFleet(f)
	if err != nil || dry {
		return api.Applied{Reload: changes}, err
	}
	if n.cluster == nil {
		if err := n.mayKeep(); err != nil {
			return api.Applied{}, err
		}
	}
	body, err := json.Marshal(f)
	if err != nil {
		return api.Applied{}, err
	}
	serial, err := n.store.Apply(ctx, body)
	if err == nil {
		n.log.Info("the fleet's configuration is applied here", "serial", serial, "file", f.Name)
	}
	return api.Applied{Serial: serial, Reload: changes}, err
}

// tryFleet says what a document would change here.
func (n *Node) tryFleet(f *config.Fleet) (api.Reload, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	c, err := n.fleet.own.WithFleet(f)
	if err != nil {
		return api.Reload{}, err
	}
	_, more, err := ikeTunnels(c)
	if err != nil {
		return api.Reload{}, err
	}
	r := summary(c, config.Diff(n.Config(), c))
	for _, w := range more {
		r.Warnings = append(r.Warnings, w.String())
	}
	return r, nil
}

// Fleet shows what all nodes have in common, with or without its text, and which of them work with it.
func (n *Node) Fleet(text bool) api.Fleet {
	x := api.Fleet{Nodes: []api.FleetNode{}}
	d := n.store.Document()
	x.Clustered, x.Serial, x.By, x.Digest = n.cluster != nil, d.Serial, d.By, d.Digest
	if d.Serial != 0 {
		x.AppliedAt = d.At.Format(time.RFC3339)
		f := new(config.Fleet)
		if text && json.Unmarshal(d.Body, f) == nil {
			x.File, x.Text = f.Name, string(f.Text)
		}
	}
	for _, v := range n.store.Nodes() {
		x.Nodes = append(x.Nodes, api.FleetNode{Name: v.Name, State: string(v.State), Runs: v.Configuration.Serial, Refused: v.Configuration.Refused, Why: v.Configuration.Why})
	}
	return x
}

// fleetReady says why the node has no tunnels yet.
func (n *Node) fleetReady() []string {
	if d := n.cluster.Document(); n.fleet.lacking.yes(time.Now(), d.Serial != 0 && !n.hasTunnels.Load()) {
		return []string{fmt.Sprintf("the fleet's configuration %d is not in effect here, and no other is: causeway show fleet", d.Serial)}
	}
	return nil
}
