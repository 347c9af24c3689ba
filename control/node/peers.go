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
	keyed := map[string]uint32{}
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

// takePeers makes tunnels for nodes that came, removes those of nodes that are gone or were started again, and gives all their keys. keyed
// is the epoch in which we send to each.
func (n *Node) takePeers(keyed map[string]uint32) error {
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
	for _, p := range now {
		errs = append(errs, n.keyPeer(self, p, keyed))
	}
	var writers []uint32
	for name := range keyed {
		writers = append(writers, n.peers[name].Writer)
	}
	n.cluster.SetKeyed(writers)
	n.owning.takes = map[string]bool{}
	for name, p := range now {
		n.owning.takes[name] = p.Takes && keyed[name] != 0
	}
	return errors.Join(errs...)
}

func sameProcess(a, b cluster.Peer) bool { return a.Writer == b.Writer && a.Address == b.Address }

// changePeers tells workers and routes which other nodes there are.
func (n *Node) changePeers(now map[string]cluster.Peer, keyed map[string]uint32) error {
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

// keyPeer has the associations with another node that the epochs of both want: of the current one and, for what is on its way, of the one
// before. We send in an epoch of which the other node has the key.
func (n *Node) keyPeer(self, p cluster.Peer, keyed map[string]uint32) error {
	if p.Address.Is4() != self.Address.Is4() {
		return fmt.Errorf("node %s has the address %v, and this one %v: nothing can be forwarded between them; give all nodes addresses of one family", p.Name, p.Address, self.Address)
	}
	if p.Epoch < self.Epoch || keyed[p.Name] == self.Epoch {
		return nil
	}
	in, out := n.cluster.NodeKey(self.Epoch, p.Writer, self.Writer, peerSuite.KeySize()), n.cluster.NodeKey(self.Epoch, self.Writer, p.Writer, peerSuite.KeySize())
	if in == nil || out == nil {
		return nil
	}
	defer clear(in)
	defer clear(out)
	k := &sa.Child{Tunnel: peerTunnel(p.Name), SPIIn: peerSPI(p.Writer, self.Epoch), SPIOut: peerSPI(self.Writer, self.Epoch), Suite: peerSuite, ESN: true, KeyIn: in, KeyOut: out,
		Endpoint: self.Address, Peer: netip.AddrPortFrom(p.Address, 0)}
	before := n.children.spisOf(k.Tunnel)
	if err := n.children.Adopt(k.SPIIn); err != nil {
		return err
	}
	if err := n.children.Install(k); err != nil {
		n.children.ReleaseSPI(k.SPIIn)
		return err
	}
	if err := n.children.Use(k.Tunnel, k.SPIIn); err != nil {
		return err
	}
	keyed[p.Name] = self.Epoch
	n.log.Info("another node can forward to this one", "node", p.Name, "address", p.Address, "process", p.Writer, "epoch", self.Epoch)
	if len(before) > 1 { // of the epoch before the last
		n.children.Remove(k.Tunnel, before[len(before)-1])
	}
	return nil
}
