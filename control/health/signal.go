package health

import (
	"fmt"
	"time"
)

// Beside probes there are others who know whether a tunnel carries packets. What they say counts at once.

// A Source is who says how a tunnel is.
type Source uint8

// The sources: BFD with the customer's router, and IKE, whose peer does not answer.
const (
	BFD Source = iota
	IKE
	sources
)

// A signal is what a source has said.
type signal struct {
	said  bool // it has, in this process
	down  bool
	since time.Time
	until time.Time // it was down: the tunnel is degraded until then
	why   string
}

// Signal says how a tunnel is, as a source sees it. When it is down no more the tunnel is degraded for a time: what comes and goes does not take
// the routes with it.
func (p *Prober) Signal(tunnel string, from Source, down bool, why string, hold time.Duration) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.tunnels[tunnel]; x != nil {
		p.signal(x, from, down, why, hold, now)
	}
}

// Release takes back what this node's session of BFD has said of a tunnel: it is another node's now. A tunnel without probes goes on with that, until
// the other one says something.
func (p *Prober) Release(tunnel string) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.tunnels[tunnel]; x != nil && !x.Silent {
		p.signal(x, BFD, false, "", 0, now)
	}
}

func (p *Prober) signal(x *probed, from Source, down bool, why string, hold time.Duration, now time.Time) {
	s := &x.signals[from]
	if s.said = true; s.down == down {
		return
	}
	*s = signal{said: true, down: down, since: now, why: why}
	if !down {
		s.until = now.Add(hold)
	}
	p.evaluate(x, now)
	p.toTell(x)
	x.told.worse, x.told.better = down, !down // others probe at once
	p.schedule(x)
	p.poke()
}

// known is the state of a tunnel by all that is known of it, since when, and why.
func (x *probed) known(now time.Time) (state State, since time.Time, why string) {
	state, since, why = x.machine.state, x.machine.since, x.machine.why
	for i := range x.signals {
		s := &x.signals[i]
		switch {
		case s.down && state != Down:
			state, since, why = Down, s.since, s.why
		case !s.down && s.until.After(now) && state == Healthy:
			state, since, why = Degraded, s.since, s.why
		case !s.until.IsZero() && !s.until.After(now):
			s.until = time.Time{}
		}
	}
	return state, since, why
}

// evaluate says so if the state of a tunnel is another.
func (p *Prober) evaluate(x *probed, now time.Time) {
	state, since, why := x.known(now)
	if state == x.state {
		return
	}
	x.was = x.state
	if since.Before(x.since) && state != Healthy { // what was worse is over, and what was before is still so
		why = fmt.Sprintf("%s no more (%s); as before: %s", x.was, x.why, why)
	}
	x.state, x.since, x.why = state, now, why
	p.opts.OnState(p.reportOf(x))
	p.judged = append(p.judged, x)
	p.poke()
	p.toTell(x)
	p.team.urgent = true
}

// nextSignal is when a signal does not count any more, if that is before at.
func (x *probed) nextSignal(at time.Time) time.Time {
	for i := range x.signals {
		if s := &x.signals[i]; !s.until.IsZero() && s.until.Before(at) {
			at = s.until
		}
	}
	return at
}
