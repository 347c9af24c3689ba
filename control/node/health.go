package node

import (
	"context"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/health"
	"causeway/control/health/bfd"
	"causeway/control/health/history"
	"causeway/control/notify"
	"causeway/pipeline"
)

// A tunnel that does not carry packets well makes its routes worse by a penalty, so that another one takes its packets if there is one.
const (
	penaltyDegraded = 500_000
	penaltyDown     = 1_000_000
)

// probeDepth is how many probes may wait for the workers, and how many answers for the control side.
const probeDepth = 1024

// openHealth makes what probes tunnels.
func (n *Node) openHealth() error {
	var err error
	if n.probes, err = pipeline.NewTunnelQueue("probes", len(n.plan.Workers), probeDepth); err != nil {
		return err
	}
	c := n.Config()
	o := health.Options{Node: c.Node.Name, Datacenter: c.Node.Datacenter, OnState: n.tunnelState, Send: n.sendInto, Received: func(tunnel string) uint64 {
		if id, ok := n.engine.TunnelID(tunnel); ok {
			return n.engine.TunnelCounters(id).RXPackets
		}
		return 0
	}}
	if c.Notify.Webhook != "" {
		n.notifier = notify.New(notify.Options{URL: c.Notify.Webhook, Secret: c.Notify.Secret, Log: n.log})
		o.OnVerdict = n.tellVerdict
	}
	n.changes, _ = history.Open(nil) // cannot fail
	n.news = newNews()
	n.sessions.Store(&sessions{})
	if n.cluster != nil {
		o.Tell, o.Apart = n.cluster.TellHealth, func() bool { return !n.cluster.Linked() }
	}
	n.prober = health.New(o)
	n.bfd = bfd.New(bfd.Options{Send: o.Send, OnState: n.sessionState})
	return nil
}

// sendInto gives the workers a probe, or a packet of BFD, for a tunnel.
func (n *Node) sendInto(tunnel string, packet []byte) bool {
	id, ok := n.engine.TunnelID(tunnel)
	return ok && n.probes.Send(id, packet)
}

// probed are the tunnels of c that are probed, and how.
func probed(c *config.Config) (list []health.Tunnel) {
	for _, t := range c.Tunnels {
		h := t.HealthCheck
		if h == nil {
			if t.BFD != nil {
				list = append(list, health.Tunnel{Name: t.Name, Silent: true, BFD: true, Thresholds: health.Thresholds{Over: time.Hour, Samples: 1, Hold: t.BFD.Hold}})
			}
			continue
		}
		list = append(list, health.Tunnel{Name: t.Name, BFD: t.BFD != nil, Kind: [...]health.Kind{config.HealthReply: health.Reply, config.HealthRequest: health.Request}[h.Type],
			Source: h.Source, Target: h.Target, Interval: h.Interval, Retry: h.Retry, Thresholds: health.Thresholds{
				Loss: h.Loss, Over: h.Over, Failures: h.Failures, Samples: h.Samples, Within: h.Within, Successes: h.Successes, Clean: h.Clean, Hold: h.Hold}})
	}
	return list
}

// setProbed has the tunnels of c probed, once the workers and the routes have them. A tunnel that is not probed any more, or is probed
// otherwise, begins as healthy.
func (n *Node) setProbed(c *config.Config) {
	n.prober.SetTunnels(probed(c))
	n.setSessions(c)
	n.keepHistory(c)
	ike := map[string]bool{}
	for _, t := range c.Tunnels {
		ike[t.Name] = t.IPsec != nil && t.IPsec.IKE != nil
		if t.HealthCheck == nil && t.BFD == nil {
			n.news.add(func() { n.routes.SetPenalty(t.Name, 0) })
		}
	}
	n.prober.Each(func(r health.Report) { n.news.add(func() { n.routes.SetPenalty(r.Tunnel, penaltyOf(r.State)) }) })
	for name, is := range ike {
		n.signalIKE(name, is && len(n.children.spisOf(name)) == 0)
	}
}

// signalIKE says whether a tunnel has no IPsec SA though it needs one.
func (n *Node) signalIKE(tunnel string, without bool) {
	n.prober.Signal(tunnel, health.IKE, without, "there is no IPsec SA: the peer has ended it, or did not answer (causeway show ike)", 0)
}

func penaltyOf(s health.State) uint32 {
	return [...]uint32{health.Healthy: 0, health.Degraded: penaltyDegraded, health.Down: penaltyDown}[s]
}

// tunnelState is told that the state of a tunnel is another.
func (n *Node) tunnelState(r health.Report) { n.news.add(func() { n.takeTunnelState(r) }) }

func (n *Node) takeTunnelState(r health.Report) {
	n.routes.SetPenalty(r.Tunnel, penaltyOf(r.State))
	log := n.log.Warn
	if r.State < r.Was { // for the better
		log = n.log.Info
	}
	n.remember(r)
	log("tunnel is "+r.State.String(), "tunnel", r.Tunnel, "why", r.Why, "leg", r.Leg, "probes", r.Sent, "answered", r.Answered)
}

// answerWait bounds how long takeAnswers takes to notice that it shall end, in milliseconds.
const answerWait = 100

// takeAnswers takes what comes back of probes until ctx is done.
func (n *Node) takeAnswers(ctx context.Context) {
	for ctx.Err() == nil {
		n.probes.Wait(answerWait)
		n.probes.Drain(n.takeAnswer)
	}
}

// takeAnswer takes one. On anycast it may have come to another node than the one that has sent the probe.
func (n *Node) takeAnswer(tunnel int, packet []byte) {
	if name := n.bfdTunnel(tunnel); name != "" && isUDP(packet) {
		n.takeBFD(name, packet, 0)
		return
	}
	if isUDP(packet) { // BFD that the host's daemon speaks
		n.takeForDevice(tunnel, packet)
		return
	}
	if of := n.prober.Answer(packet); of != nil && n.ways != nil {
		n.ways.answer(of, packet)
	}
}

// Health lists the tunnels that are probed.
func (n *Node) Health() []api.Health {
	out := []api.Health{}
	how := map[string]*config.HealthCheck{}
	for _, t := range n.Config().Tunnels {
		how[t.Name] = t.HealthCheck
	}
	everywhere, sessions := n.prober.Everywhere(), n.sessionViews()
	ways := n.customerWays()
	for _, r := range n.prober.Reports() {
		h := how[r.Tunnel]
		if r.State != health.Healthy {
			if words, state := routeWords(ways[r.Tunnel], n.routes.Hops(ways[r.Tunnel].Leaf), func(string) string { return "" }); state != "ok" {
				r.Leg = "what goes into it does not leave this node: " + words
			}
		}
		x := api.Health{Tunnel: r.Tunnel, State: r.State.String(), Why: r.Why, Leg: r.Leg, Since: time.Since(r.Since).Seconds(), Penalty: penaltyOf(r.State),
			Probes: r.Sent, Answered: r.Answered, Lost: r.Lost, RTT: r.RTT.Seconds(), LastAnswer: ago(r.LastAnswer), LastLoss: ago(r.LastLoss), BFD: sessions[r.Tunnel]}
		if h != nil {
			x.Type, x.Direction, x.Source, x.Target = h.Type.String(), h.Direction.String(), h.Source.String(), h.Target.String()
			x.Interval, x.Every = h.Interval.Seconds(), r.Every.Seconds()
			if h.Type == config.HealthReply {
				x.Target = x.Source
			}
		}
		list := everywhere[r.Tunnel]
		x.Fleet, x.Datacenters = health.Fleet(list).String(), []api.HealthDatacenter{}
		for _, s := range list {
			x.Datacenters = append(x.Datacenters, api.HealthDatacenter{Datacenter: s.Datacenter, State: s.State.String(), Healthy: s.Healthy, Degraded: s.Degraded, Down: s.Down,
				RTT: s.RTT.Seconds(), Answered: s.Answered, Lost: s.Lost, Disagree: append([]string{}, s.Disagree...)})
		}
		out = append(out, x)
	}
	return out
}

// ago is how long a moment is over; never: -1.
func ago(t time.Time) float64 {
	if t.IsZero() {
		return -1
	}
	return time.Since(t).Seconds()
}

// Rebalance has flows go where the weights of routes say.
func (n *Node) Rebalance() api.Rebalanced { return api.Rebalanced{Parts: n.routes.Rebalance()} }
