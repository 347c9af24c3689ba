package node

import (
	"math"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/health"
	"causeway/control/health/history"
	"causeway/control/notify"
)

// keepHistory has what becomes of tunnels' health kept in the state directory, if there are tunnels whose health is known.
func (n *Node) keepHistory(c *config.Config) {
	if len(probed(c)) == 0 || n.changes.Kept() {
		return
	}
	err := n.takeStateFor("the history of tunnels' health is kept there")
	if err == nil {
		if err = n.changes.Keep(n.state.root); err == nil {
			n.rememberStart(c)
		}
	}
	if err != nil {
		n.log.Warn("what becomes of tunnels' health is kept in memory alone", "error", err)
	}
}

// rememberStart notes that tunnels begin anew that were not healthy when the daemon ended.
func (n *Node) rememberStart(c *config.Config) {
	for _, e := range anew(n.changes.Last(time.Now().AddDate(0, 0, -history.Days), math.MaxInt), probed(c)) {
		_ = n.changes.Add(e) // what cannot be written is said with the next
	}
}

// anew are what there is to note of those of tunnels that past leaves in another state than healthy.
func anew(past []history.Event, tunnels []health.Tunnel) (list []history.Event) {
	last := map[string]string{}
	for _, e := range past {
		last[e.Tunnel] = e.State
	}
	for _, t := range tunnels {
		if was := last[t.Name]; was != "" && was != health.Healthy.String() {
			list = append(list, history.Event{Time: time.Now().UTC(), Tunnel: t.Name, Was: was, State: health.Healthy.String(), Why: "it begins anew: the daemon was started"})
		}
	}
	return list
}

// maxShown bounds the events that are shown.
const maxShown = 1000

// History lists the last changes of tunnels' states, oldest first.
func (n *Node) History() []api.HealthEvent {
	out := []api.HealthEvent{}
	for _, e := range n.changes.Last(time.Now().AddDate(0, 0, -history.Days), maxShown) {
		out = append(out, api.HealthEvent{Time: e.Time, Tunnel: e.Tunnel, Was: e.Was, State: e.State, Why: e.Why, Leg: e.Leg})
	}
	return out
}

// remember keeps a change of a tunnel's state.
func (n *Node) remember(r health.Report) {
	err := n.changes.Add(history.Event{Time: time.Now().UTC(), Tunnel: r.Tunnel, Was: r.Was.String(), State: r.State.String(), Why: r.Why, Leg: r.Leg})
	if err != nil {
		n.log.Warn("what becomes of tunnels' health is kept in memory alone, until it can be written again", "error", err)
	}
}

// TellAttack tells the web server of the file of an attack, if there is one.
func (n *Node) TellAttack(x notify.AttackNotice) {
	if n.notifier == nil {
		return
	}
	c := n.Config()
	x.Type, x.Time, x.Node, x.Datacenter = "attack", time.Now().UTC(), c.Node.Name, c.Node.Datacenter
	n.notifier.TellAttack(x)
}

// tellVerdict tells the web server of the file that the data center finds a tunnel otherwise than before.
func (n *Node) tellVerdict(was health.State, s health.Summary, r health.Report) {
	c := n.Config()
	x := notify.Notice{Type: "tunnel_health", Time: time.Now().UTC(), Node: c.Node.Name, Datacenter: c.Node.Datacenter, Tunnel: r.Tunnel, Was: was.String(), State: s.State.String(),
		Why: r.Why, Leg: r.Leg, Healthy: s.Healthy, Degraded: s.Degraded, Down: s.Down, Disagree: s.Disagree}
	for _, t := range c.Tunnels {
		if t.Name == r.Tunnel {
			x.Account = t.Account
		}
	}
	n.notifier.Tell(x)
}
