package node

import (
	"context"
	"hash/fnv"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/health"
	"causeway/control/health/bfd"
	"causeway/pipeline/wire"
)

// setSessions has BFD spoken through the tunnels of c that want it.
func (n *Node) setSessions(c *config.Config) {
	var list []bfd.Tunnel
	names, holds := map[int]string{}, map[string]time.Duration{}
	for _, t := range c.Tunnels {
		id, ok := n.engine.TunnelID(t.Name)
		if t.BFD == nil || !ok {
			continue
		}
		list = append(list, bfd.Tunnel{Name: t.Name, Ends: bfd.Ends{Local: t.BFD.Local, Remote: t.BFD.Remote, Multihop: t.BFD.Multihop, SourcePort: sessionPort(t.Name)},
			Timing: bfd.Timing{Interval: t.BFD.Interval, Multiplier: uint8(t.BFD.Multiplier)}})
		names[id], holds[t.Name] = t.Name, t.BFD.Hold
	}
	n.sessions.Store(&sessions{names, holds})
	n.bfd.SetTunnels(list)
	n.shareSessions()
}

// sessions are what the node has to know of tunnels with BFD.
type sessions struct {
	names map[int]string // by the engine's number
	holds map[string]time.Duration
}

// sessionPort is the source port of a session: one for each, in the range of RFC 5881, section 4.
func sessionPort(tunnel string) uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(tunnel)) // cannot fail
	return 49152 + uint16(h.Sum32()%(65536-49152))
}

// bfdTunnel is the name of a tunnel with BFD, "" if it has none.
func (n *Node) bfdTunnel(id int) string { return n.sessions.Load().names[id] }

func isUDP(packet []byte) bool {
	return len(packet) > wire.IPv4OffProto && (packet[0]>>4 == 4 && packet[wire.IPv4OffProto] == wire.ProtoUDP || packet[0]>>4 == 6 && packet[wire.IPv6OffNext] == wire.ProtoUDP)
}

// maxPassed is how often a packet of BFD is passed on: by a node that has just started to one that knows the data centers, by that one to one
// that knows who speaks there, and to that one.
const maxPassed = 3

// takeBFD takes a packet of BFD that came out of a tunnel here or, passed on, at another node.
func (n *Node) takeBFD(tunnel string, packet []byte, passed byte) {
	if n.bfd.Here(tunnel) {
		n.bfd.Input(tunnel, packet)
		return
	}
	if speaker := n.prober.Speaker(tunnel); n.ways != nil && speaker != "" && speaker != n.Config().Node.Name && passed < maxPassed {
		n.ways.speak(speaker, tunnel, packet, passed+1)
	}
}

// shareInterval is how often is looked whether other nodes speak for tunnels now.
const shareInterval = 100 * time.Millisecond

// followSpeakers has this node speak for the tunnels that are its own, until ctx is done.
func (n *Node) followSpeakers(ctx context.Context) {
	tick := time.NewTicker(shareInterval)
	defer tick.Stop()
	for version := n.prober.Version(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := n.prober.Version(); now != version {
			version = now
			n.shareSessions()
			n.followAllTunnels()
		}
	}
}

func (n *Node) shareSessions() {
	self := n.Config().Node.Name
	n.bfd.SetHere(func(tunnel string) bool { return n.prober.Speaker(tunnel) == self })
	for tunnel := range n.sessions.Load().holds {
		if !n.bfd.Here(tunnel) {
			n.news.add(func() { n.prober.Release(tunnel) })
		}
	}
}

// sessionState is told that a session is up, or is no more.
func (n *Node) sessionState(r bfd.Report) { n.news.add(func() { n.takeSessionState(r) }) }

func (n *Node) takeSessionState(r bfd.Report) {
	why := "BFD: " + r.Diagnostic.String()
	if !n.bfd.Here(r.Tunnel) { // another node's by now
		return
	}
	if r.State == bfd.Up {
		why = "BFD is up again"
	}
	// That the router has ended the session on purpose says nothing of the tunnel (RFC 5880, section 6.8.16; RFC 5882, section 4.2).
	n.prober.Signal(r.Tunnel, health.BFD, r.State != bfd.Up && r.Remote != bfd.AdminDown, why, n.sessions.Load().holds[r.Tunnel])
}

// sessionViews are how the sessions are, by tunnel.
func (n *Node) sessionViews() map[string]*api.HealthBFD {
	out := map[string]*api.HealthBFD{}
	for _, r := range n.bfd.Reports() {
		x := &api.HealthBFD{Node: n.prober.Speaker(r.Tunnel)}
		if r.Here {
			*x = api.HealthBFD{Node: x.Node, State: r.State.String(), Remote: r.Remote.String(), Why: r.Diagnostic.String(), RemoteWhy: r.RemoteDiagnostic.String(), Since: time.Since(r.Since).Seconds(),
				Changes: r.Changes, Detection: r.Detection.Seconds(), Sent: r.Sent, Received: r.Came, Wrong: r.Wrong, WhyWrong: r.WhyWrong}
		}
		out[r.Tunnel] = x
	}
	return out
}
