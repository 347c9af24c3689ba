package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/cluster"
)

// A node without a cluster has the engine all the same, for what is applied. It needs no state directory for anything else, so it touches
// that only when something was applied, or is to be: whatever is wrong with it ends neither the node nor its packets.

// openAlone makes what a node that is alone has by its engine.
func (n *Node) openAlone(c *config.Config) error {
	a, err := cluster.NewAlone(cluster.AloneOptions{
		Member:  cluster.Member{Name: c.Node.Name, Address: c.Node.Address, Datacenter: c.Node.Datacenter, Region: c.Node.Region, Release: n.opts.Version},
		Scratch: filepath.Dir(c.Control.Socket), // which a daemon can write that has made its socket there
		Log:     n.log, OnDocument: n.hearDocument, NotReady: n.NotReady,
	})
	if err != nil {
		return err
	}
	n.store = a
	n.store.SetDocument(n.fleet.last)
	n.tellFleet()
	return nil
}

// What the state directory is for, in messages.
const keepsApplied = "what was applied is kept there"

// readKeptAlone reads what a node that is alone had when it ended. It says that there is nothing where that cannot be known: see
// following.unread.
func (n *Node) readKeptAlone() (d cluster.Document, err error) {
	if _, err := os.Lstat(n.state.file(fleetFile)); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return d, fs.ErrNotExist
	}
	if err = n.takeStateFor(keepsApplied); err == nil {
		d, err = readFleet(&n.state)
		if err == nil || !n.fleet.own.HasTunnels() { // one that is damaged ends the start of a node that has nothing else
			return d, err
		}
	}
	n.log.Error("what was applied to this node cannot be read", "error", err)
	n.fleet.unread = err
	return d, fs.ErrNotExist
}

// mayKeep says why what is applied to a node that is alone would not be there when it is started again.
func (n *Node) mayKeep() error {
	if n.fleet.unread != nil {
		return fmt.Errorf("what was applied before could not be read when this node started: put that right and start it again: %w", n.fleet.unread)
	}
	if err := n.takeStateFor(keepsApplied); err != nil {
		return err
	}
	if _, err := n.state.root.Lstat(fleetFile); n.store.Document().Serial == 0 && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has come since this node started, and would be written over: start it again, and it begins with that, or remove it", n.state.file(fleetFile))
	}
	return nil
}

// aloneReady says why a node that is alone has no tunnels. The engine has no part in that.
func (n *Node) aloneReady() []string {
	if n.fleet.unread == nil || n.hasTunnels.Load() {
		return nil
	}
	return []string{"what was applied to this node cannot be read, and its file has no tunnels: " + n.fleet.unread.Error()}
}

// showAlone is Cluster on a node that is alone: what there is without others.
func (n *Node) showAlone() api.Cluster {
	s, sas := n.store.Status(), n.ike.Stats().SAs
	return api.Cluster{State: "alone", Why: s.Trouble, Nodes: s.Nodes, SAs: n.children.count(), IKESAs: sas, IKEHere: sas, Replicas: []api.StoreReplica{}}
}
