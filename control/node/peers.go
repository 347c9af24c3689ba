package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"causeway/config"
	"causeway/control/cluster"
	"causeway/control/ike/sa"
	"causeway/crypto/esp"
	"causeway/pipeline"
)

// Between nodes packets travel in ESP from node address to node address (DESIGN 4.6). Each other node is a tunnel of the workers', which
// no configuration has and no route leads into, with an association in each direction for each epoch. Keys come from the epoch's, and are
// those of two processes: a node that was started again has others.

// peerPrefix is in front of a node's name in the name of its tunnel: no tunnel of a file has a colon.
const peerPrefix = "node:"

func peerTunnel(node string) string { return peerPrefix + node }

func isPeer(tunnel string) bool { return strings.HasPrefix(tunnel, peerPrefix) }

// peerSPI is the SPI of what a process sends in an epoch. All are behind the SPIs that are negotiated (cluster.MaxSPI).
func peerSPI(writer, epoch uint32) uint32 {
	return cluster.MaxSPI + 1 + writer<<8 + epoch&0xff
}

const (
	peerSuite  = esp.AES256GCM16
	peerWindow = 4096 // packets: nodes may be far apart
	peerLook   = 100 * time.Millisecond
	pathTime   = time.Minute // after which nodes are told again what is known of paths: some came late
)

// withPeers is a configuration with a tunnel for each other node.
func withPeers(c *config.Config, known map[string]cluster.Peer) *config.Config {
	if len(known) == 0 {
		return c
	}
	out := *c
	out.Tunnels = slices.Clone(c.Tunnels)
	for _, name := range slices.Sorted(maps.Keys(known)) {
		p := known[name]
		if p.Address.Is4() != c.Node.Address.Is4() {
			continue
		}
		out.Tunnels = append(out.Tunnels, config.Tunnel{Name: peerTunnel(name), Account: config.DefaultAccount, Type: config.IPsecESP, Endpoint: c.Node.Address, CustomerEndpoint: p.Address,
			MTU: 1500, TTL: 64, IPsec: &config.IPsec{ReplayWindow: peerWindow, IKE: &config.IKE{ChildProposals: []string{"aes256gcm16-esn"}}}})
	}
	return &out
}

// peered is a configuration as the workers and routes are told of it.
func (n *Node) peered(c *config.Config) *config.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	return withPeers(c, n.peers)
}

// followPeers keeps the workers' tunnels to other nodes, and who encrypts for tunnels with replay protection, until ctx is done.
func (n *Node) followPeers(ctx context.Context) {
	n.owning.init()
	keyed := map[string]*peerKeys{}
	tick := time.NewTicker(peerLook)
	defer tick.Stop()
	told, paths := "", time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-n.owning.changed:
		}
		if now := time.Now(); now.Sub(paths) > pathTime {
			paths = now
			for _, p := range n.learned.Own(now) {
				n.cluster.TellPath(p)
			}
		}
		err := errors.Join(n.takePeers(keyed), n.takeOwners())
		if err != nil && err.Error() != told {
			n.log.Warn("traffic between nodes", "error", err)
		}
		told = text(err)
	}
}

// takePeers makes tunnels for nodes that came, removes those of nodes that are gone or were started again, and gives all their keys.
func (n *Node) takePeers(keyed map[string]*peerKeys) error {
	self, ok := n.cluster.Self()
	if !ok {
		return nil
	}
	now := map[string]cluster.Peer{}
	for _, p := range n.cluster.Peers() {
		now[p.Name] = p
	}
	if !maps.EqualFunc(now, n.peers, sameProcess) {
		if err := n.changePeers(now, keyed); err != nil {
			return err
		}
	}
	var errs []error
	var writers []uint32
	n.owning.takes = map[string]bool{}
	open := map[string]bool{}
	for name, p := range now {
		k := keyed[name]
		if k == nil {
			k = new(peerKeys)
			keyed[name] = k
		}
		turned, err := k.follow(n.children, self, p, n.cluster.NodeKey)
		errs = append(errs, err)
		if turned {
			n.log.Info("another node can forward to this one", "node", name, "address", p.Address, "process", p.Writer, "epoch", self.Epoch)
		}
		if k.installed == self.Epoch {
			writers = append(writers, p.Writer)
		}
		n.owning.takes[name] = p.Takes != 0 && k.used != 0
		open[name] = n.owning.takes[name] && p.Messages
	}
	n.ways.setOpen(open)
	n.cluster.SetKeyed(self.Epoch, writers)
	return errors.Join(errs...)
}

func sameProcess(a, b cluster.Peer) bool { return a.Writer == b.Writer && a.Address == b.Address }

// changePeers tells workers and routes which other nodes there are.
func (n *Node) changePeers(now map[string]cluster.Peer, keyed map[string]*peerKeys) error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	for name, p := range n.peers {
		if after, stays := now[name]; !stays || !sameProcess(p, after) {
			n.children.Remove(peerTunnel(name), n.children.spisOf(peerTunnel(name))...)
			delete(keyed, name)
		}
	}
	n.mu.Lock()
	n.peers = now
	n.mu.Unlock()
	n.owning.stale.Store(true)
	with := n.peered(n.Config())
	if err := n.children.prepare(with); err != nil {
		return err
	}
	err := n.takeTables(func(l []pipeline.LinkSpec) *pipeline.Spec { return specOf(with, l, n.sas.of) })
	n.children.retain(with, nil)
	return errors.Join(err, n.routes.Apply(with))
}

// peerKeys are the epochs of the associations with another node; 0: there are none.
type peerKeys struct {
	installed uint32 // the newest
	before    uint32 // the one before, of which packets may be on their way
	used      uint32 // the one that we send in
}

// follow installs the associations of a new epoch, and sends by them when the other node says that it has them too: in each moment, what
// either sends the other can open. It reports whether we send in another epoch than before. keyOf is Cluster.NodeKey.
func (k *peerKeys) follow(c *children, self, p cluster.Peer, keyOf func(epoch, from, to uint32, size int) []byte) (turned bool, err error) {
	if p.Address.Is4() != self.Address.Is4() {
		return false, fmt.Errorf("node %s has the address %v, and this one %v: nothing can be forwarded between them; give all nodes addresses of one family", p.Name, p.Address, self.Address)
	}
	tunnel, spi := peerTunnel(p.Name), peerSPI(p.Writer, self.Epoch)
	if k.installed != self.Epoch {
		in, out := keyOf(self.Epoch, p.Writer, self.Writer, peerSuite.KeySize()), keyOf(self.Epoch, self.Writer, p.Writer, peerSuite.KeySize())
		defer clear(in)
		defer clear(out)
		if in == nil || out == nil {
			return false, nil
		}
		c.Remove(tunnel, spi) // epochs of which the numbers differ by a multiple of 256 have the same
		if err := c.Adopt(spi); err != nil {
			return false, err
		}
		if err := c.Install(&sa.Child{Tunnel: tunnel, SPIIn: spi, SPIOut: peerSPI(self.Writer, self.Epoch), Suite: peerSuite, ESN: true, KeyIn: in, KeyOut: out,
			Endpoint: self.Address, Peer: netip.AddrPortFrom(p.Address, 0)}); err != nil {
			c.ReleaseSPI(spi)
			return false, err
		}
		k.before, k.installed = k.installed, self.Epoch
	}
	if k.used == self.Epoch || p.Takes != self.Epoch {
		return false, nil
	}
	if err := c.Use(tunnel, spi); err != nil {
		return false, err
	}
	k.used = self.Epoch
	old := slices.DeleteFunc(c.spisOf(tunnel), func(o uint32) bool { return o == spi || o == peerSPI(p.Writer, k.before) })
	c.Remove(tunnel, old...)
	return true, nil
}
