package node

import (
	"fmt"
	"net/netip"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/pmtu"
	"causeway/pipeline"
	"causeway/pipeline/wire"
)

// What the rest of the node does with the associations that IKE negotiates.

// prepare takes up the tunnels of a configuration beside those that there are. What manual SPIs it has IKE does not choose from
// now on.
func (c *children) prepare(cfg *config.Config) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range cfg.Tunnels {
		if t.IPsec == nil || t.IPsec.IKE != nil {
			continue
		}
		spi := t.IPsec.SA.SPIIn
		if _, taken := c.spis[spi]; taken {
			return fmt.Errorf("tunnel %s: spi_in %#x is one that IKE has chosen in the meantime: choose another, or restart the daemon", t.Name, spi)
		}
		c.manual[spi] = t.Name
	}
	for _, t := range cfg.Tunnels {
		if t.IPsec == nil || t.IPsec.IKE == nil {
			continue
		}
		if c.tunnels[t.Name] == nil {
			c.tunnels[t.Name] = &negotiated{of: t}
		}
	}
	return nil
}

// retain leaves what cfg has, without the children of the tunnels whose names are in renewed: for these IKE has to begin anew. The
// workers have the tables of cfg already.
func (c *children) retain(cfg *config.Config, renewed map[string]bool) {
	has, tunnels := map[string]bool{}, map[string]config.Tunnel{}
	manual := map[uint32]string{}
	for _, t := range cfg.Tunnels {
		switch {
		case t.IPsec == nil:
		case t.IPsec.IKE != nil:
			has[t.Name], tunnels[t.Name] = !renewed[t.Name], t
		default:
			manual[t.IPsec.SA.SPIIn] = t.Name
		}
	}
	for name, spis := range c.others(has) {
		c.Remove(name, spis...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.manual = manual
	for name, n := range c.tunnels {
		if t, stays := tunnels[name]; stays {
			n.of = t
		} else if len(n.list) == 0 {
			delete(c.tunnels, name)
		}
	}
}

// others are the SPIs of the children of all tunnels that keep does not name.
func (c *children) others(keep map[string]bool) map[string][]uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string][]uint32{}
	for name, n := range c.tunnels {
		if keep[name] {
			continue
		}
		for _, k := range n.list {
			out[name] = append(out[name], k.SPIIn)
		}
	}
	return out
}

// tunnelMoved tells routes and path MTU discovery what a tunnel's packets look like now, and where they go.
func (n *Node) tunnelMoved(tunnel string) {
	n.moving.Lock()
	defer n.moving.Unlock()
	id, ok := n.engine.TunnelID(tunnel)
	if !ok {
		return
	}
	n.owning.wake()
	peer, paths := n.children.paths(tunnel, id)
	n.routes.SetCustomer(tunnel, peer)
	n.learned.SetTunnel(id, paths)
	n.signalIKE(tunnel, len(paths) == 0)
}

// paths are the ways of a tunnel's packets, one of each child. Its peer is that of the first child, or not valid.
func (c *children) paths(tunnel string, id int) (peer netip.Addr, out []pmtu.Tunnel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tunnels[tunnel]
	if n == nil {
		return peer, nil
	}
	for i, k := range n.list {
		if i == 0 {
			peer = k.Peer.Addr()
		}
		out = append(out, pmtu.Tunnel{ID: id, Name: tunnel, Endpoint: k.Endpoint, CustomerEndpoint: k.Peer.Addr(), SPI: k.SPIOut,
			UDP: k.UDP, Port: k.Peer.Port(), MTU: n.of.MTU, Overhead: n.of.Overhead(), Believe: n.of.PMTU, Fits: k.fits})
	}
	return peer, out
}

// fits is the largest inner packet whose outer one has at most so many bytes.
func (k *child) fits(outer int) int {
	headers := wire.IPv4Len
	if k.Endpoint.Is6() {
		headers = wire.IPv6Len
	}
	if k.UDP {
		headers += wire.UDPLen
	}
	return k.Suite.MaxText(outer - headers)
}

// close wipes all keys. The workers must have stopped.
func (c *children) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, n := range c.tunnels {
		for _, k := range n.list {
			k.in.Wipe()
			k.out.Wipe()
		}
	}
	clear(c.tunnels)
	clear(c.spis)
}

// show lists a tunnel's associations, those first by which packets leave.
func (c *children) show(tunnel string, owner func(spi uint32) int) (out []api.SA) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tunnels[tunnel]
	if n == nil {
		return nil
	}
	for _, k := range n.list {
		common := api.SA{Tunnel: tunnel, Encryption: k.Suite.String(), ESN: k.ESN, UDPEncap: k.UDP}
		in, sender := common, common
		in.KeyID, sender.KeyID = k.inKey, k.outKey
		in.Direction, in.SPI, in.Worker, in.ReplayWindow, in.SoftExpired = "in", k.SPIIn, owner(k.SPIIn), k.window, k.in.Soft()
		sender.Direction, sender.SPI, sender.Worker, sender.Sequence, sender.SoftExpired = "out", k.SPIOut, owner(k.SPIOut), k.out.Next(), k.out.Soft()
		in.Sequence, in.Packets, in.Bytes, in.Refused = k.in.Received(), k.in.Packets(), k.in.Bytes(), refused(k.in.Refused, pipeline.OpenReason)
		sender.Packets, sender.Bytes, sender.Refused = k.out.Packets(), k.out.Bytes(), refused(k.out.Refused, pipeline.SealReason)
		out = append(out, in, sender)
	}
	return out
}
