package node

import (
	"fmt"
	"slices"
	"strings"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/ike/sa"
	"causeway/pipeline"
)

// What the rest of the node does with the associations that IKE negotiates.

// Dataplane is the node as IKE sees it.
func (n *Node) Dataplane() sa.Dataplane { return n.children }

// tunnelHooks tell who has to know which tunnels there are.
type tunnelHooks struct {
	list []func(*config.Config) // guarded by Node.reloading
}

// OnTunnels has f told the configuration: now, and whenever another one is in effect. Calls do not overlap. Children of tunnels
// that are gone, or negotiate otherwise or elsewhere than before, have been removed then.
func (n *Node) OnTunnels(f func(*config.Config)) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	f(n.Config())
	n.hooks.list = append(n.hooks.list, f)
}

// tell is called while a reload is under way.
func (h *tunnelHooks) tell(c *config.Config) {
	for _, f := range h.list {
		f(c)
	}
}

// renewed names the tunnels whose associations were negotiated for something else than what the configuration says now.
func renewed(changes config.Changes) map[string]bool {
	out := map[string]bool{}
	for _, t := range changes.TunnelsChanged {
		for _, field := range t.Fields {
			if strings.HasPrefix(field, "ike") || slices.Contains([]string{"endpoint", "customer_endpoint", "selectors", "allow_null_cipher"}, field) {
				out[t.New.Name] = true
			}
		}
	}
	return out
}

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
			c.tunnels[t.Name] = &negotiated{window: t.IPsec.ReplayWindow}
		}
	}
	return nil
}

// retain leaves what cfg has, without the children of the tunnels whose names are in renewed: for these IKE has to begin anew. The
// workers have the tables of cfg already.
func (c *children) retain(cfg *config.Config, renewed map[string]bool) {
	has, windows := map[string]bool{}, map[string]int{}
	manual := map[uint32]string{}
	for _, t := range cfg.Tunnels {
		switch {
		case t.IPsec == nil:
		case t.IPsec.IKE != nil:
			has[t.Name], windows[t.Name] = !renewed[t.Name], t.IPsec.ReplayWindow
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
		if _, stays := has[name]; !stays && len(n.list) == 0 {
			delete(c.tunnels, name)
			continue
		}
		n.window = windows[name]
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
