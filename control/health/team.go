package health

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"time"
)

// The nodes of a data center share the probing of its tunnels: each probes each tunnel in its turn, all together once an interval, and tells
// the others what became of its probes.
//
//   - At once when something has changed for it: a probe had no answer, the first in a row, or had one though the tunnel was down. Then the
//     others do not wait for their turns. But each asks for itself: that a tunnel is down it believes by its own probes alone. So a node whose
//     own way is broken neither deceives the others, nor is it deceived.
//   - Each second how many were answered and how many not: a tunnel is degraded by what all have lost together.
//
// Data centers do not share: the way to a customer is another one from each. They tell each other how it is, and there are the fewer probes
// of each the more there are.

const (
	// tellTime is the time between two tellings, and heardTime how long a node that has told something counts as one of those that share.
	tellTime  = time.Second
	heardTime = 3 * tellTime

	// urgentTime is the time between two tellings that do not wait for tellTime: when many tunnels break they are told together.
	urgentTime = 10 * time.Millisecond

	// summaryTime is the time between two tellings of a data center, and summaryKept how long it counts.
	summaryTime = 10 * time.Second
	summaryKept = 3 * summaryTime

	// FleetRate is how many probes a second a tunnel gets at most, however many data centers there are; askRate how many it gets besides while
	// something has changed, from all nodes together.
	FleetRate = 20
	askRate   = 50

	// maxMembers bounds the nodes of a data center.
	maxMembers = 1024
)

// A team are the nodes that share.
type team struct {
	members     []string             // by name, with this one
	turn        int                  // of this one among them
	heard       map[string]time.Time // when the others have told something the last time
	knows       map[string]bool      // of them, those that know the others
	datacenters map[string]*datacenter
	told        time.Time // when this node has told something the last time
	summed      time.Time // and what its data center has
	urgent      bool      // it is to tell something at once
	apart       bool      // it reaches nobody: who shares is not known, but who did
	left        bool      // it shares no more
	version     uint64    // of members and datacenters
}

// A view is how another node finds a tunnel.
type view struct {
	state State
	at    time.Time // zero: it has not said
}

// A datacenter is what another one has told.
type datacenter struct {
	at      time.Time
	teller  string // the node that has told it
	tunnels map[uint64]Summary
}

// cycle is the time between two probes of a tunnel by this node, and each that between two of all nodes of the data center. Nodes that do not
// reach each other each probe for themselves: no more of them than before.
func (p *Prober) cycle(x *probed) (cycle, each time.Duration) {
	nodes, centers := time.Duration(len(p.team.members)), time.Duration(p.datacenterCount())
	if p.team.apart {
		cycle = max(x.Interval, nodes*centers*time.Second/FleetRate)
		return cycle, cycle
	}
	each = max(x.Interval, centers*time.Second/FleetRate)
	return each * nodes, each
}

// datacenterCount is how many probe, with this one's.
func (p *Prober) datacenterCount() int { return 1 + len(p.team.datacenters) }

// askGap is the time between two nodes' probes when all of them ask.
func (p *Prober) askGap() time.Duration {
	return time.Duration(p.datacenterCount()) * time.Second / askRate
}

// myTurn is when this node probes a tunnel the next time, at least after. Turns follow the clock, which nodes have in common: if they do not,
// probes are not spread evenly.
func (p *Prober) myTurn(x *probed, now time.Time, after time.Duration) time.Time {
	cycle, each := p.cycle(x)
	mine := (time.Duration(x.tag%uint64(cycle)) + each*time.Duration(p.team.turn)) % cycle
	wait := (mine - time.Duration(now.UnixNano()%int64(cycle)) + cycle) % cycle
	if wait <= after {
		wait += cycle
	}
	return now.Add(wait)
}

// next is when this node probes a tunnel again after now. While it is not clear what to think of the tunnel it does not wait for its turn.
func (p *Prober) next(x *probed, now time.Time) time.Time {
	cycle, each := p.cycle(x)
	if x.unsettled() {
		return now.Add(max(each, time.Duration(len(p.team.members))*p.askGap()))
	}
	return p.myTurn(x, now, cycle/8) // a timer is not early, but the clock may have been set
}

// unsettled reports whether the last probes speak against the state.
func (x *probed) unsettled() bool {
	if x.machine.state == Down {
		return x.machine.row > 0
	}
	return x.machine.lost > 0
}

// Hear takes what another node has told. It reports an error if that is nothing that a node tells.
func (p *Prober) Hear(text []byte) error {
	switch {
	case len(text) > 0 && text[0] == kindSummary:
		return p.hearSummary(text)
	case len(text) > 0 && text[0] == kindCounts:
		return p.hearCounts(text)
	}
	e, err := parseEvidence(text)
	if err != nil {
		return err
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.node == p.opts.Node {
		return nil
	}
	if e.leaving {
		delete(p.team.heard, e.node)
		p.gather(now)
		return nil
	}
	_, known := p.team.heard[e.node]
	if !known && len(p.team.heard) >= maxMembers {
		return nil
	}
	if p.team.heard[e.node] = now; !known {
		p.gather(now)
	}
	if p.team.knows[e.node] != e.knows {
		p.team.knows[e.node] = e.knows
		p.team.version++
	}
	from, shares := slices.BinarySearch(p.team.members, e.node)
	if !shares { // this node reached nobody a moment ago, and those who share are still those of before
		return nil
	}
	for _, f := range e.findings {
		if x := p.byTag[f.tunnel]; x != nil {
			p.takeFinding(x, from, f, now)
		}
	}
	return nil
}

// takeFinding takes what another node, the one with that turn, has found of a tunnel.
func (p *Prober) takeFinding(x *probed, from int, f finding, now time.Time) {
	if x.views[from].state != f.state {
		p.judged = append(p.judged, x)
		p.poke()
	}
	x.views[from] = view{f.state, now}
	x.total.Answered, x.total.Lost = x.total.Answered+uint64(f.answered), x.total.Lost+uint64(f.lost)
	if !x.Silent && f.state != Down && (f.answered > 0 || f.lost > 0) { // what has no way at all says nothing of how good that of the others is
		if x.machine.hear(now, int(f.answered), int(f.lost)) {
			p.evaluate(x, now)
		}
	}
	if f.speaks && x.Silent {
		p.signal(x, BFD, f.state == Down, "node "+p.team.members[from]+" has no session of BFD with its router", x.Thresholds.Hold, now)
	}
	if _, each := p.cycle(x); (f.worse && x.machine.state != Down || f.better && x.machine.state == Down) && now.Sub(x.asked) >= each {
		x.asked = now
		turns := (p.team.turn - from + len(p.team.members)) % len(p.team.members)
		if ask := now.Add(time.Duration(turns-1) * p.askGap()); ask.Before(x.due) {
			x.due = ask
			p.schedule(x)
			p.poke()
		}
	}
}

// gather finds who shares now. Turns change with it.
func (p *Prober) gather(now time.Time) {
	was := p.team.apart
	if p.team.apart = p.opts.Apart != nil && p.opts.Apart(); p.team.apart {
		if !was {
			p.takeTurns(now, p.team.members)
		}
		return
	}
	if was { // nobody could be heard: that says nothing of them
		for name := range p.team.heard {
			p.team.heard[name] = now
		}
		for _, d := range p.team.datacenters {
			d.at = now
		}
	}
	centers := len(p.team.datacenters)
	if maps.DeleteFunc(p.team.datacenters, func(_ string, d *datacenter) bool { return now.Sub(d.at) > summaryKept }); len(p.team.datacenters) != centers {
		p.team.version++
	}
	maps.DeleteFunc(p.team.heard, func(_ string, at time.Time) bool { return now.Sub(at) > heardTime })
	maps.DeleteFunc(p.team.knows, func(name string, _ bool) bool { _, there := p.team.heard[name]; return !there })
	members := append(slices.Collect(maps.Keys(p.team.heard)), p.opts.Node)
	slices.Sort(members)
	if was || !slices.Equal(members, p.team.members) {
		p.takeTurns(now, members)
	}
}

// takeTurns has this node take its turns among these.
func (p *Prober) takeTurns(now time.Time, members []string) {
	before := p.team.members
	p.team.members = members
	p.team.version++
	p.team.turn, _ = slices.BinarySearch(members, p.opts.Node)
	for _, x := range p.tunnels {
		views := make([]view, len(members))
		for i, v := range x.views {
			if at, ok := slices.BinarySearch(members, before[i]); ok {
				views[at] = v
			}
		}
		x.views = views
		if !x.unsettled() {
			x.due = p.myTurn(x, now, max(0, p.meet.Sub(now)))
		}
		x.next = p.nextLook(x)
		p.judged = append(p.judged, x)
	}
	heap.Init(&p.queue)
	p.poke()
}

// tells reports whether there are others, and this node shares with them.
func (p *Prober) tells() bool { return p.opts.Tell != nil && !p.team.left }

// nextTelling is when there is something to tell again.
func (p *Prober) nextTelling() time.Time {
	if p.team.urgent {
		return p.team.told.Add(urgentTime)
	}
	return p.team.told.Add(tellTime)
}

// tell tells the others what there is to tell, if it is time.
func (p *Prober) tell(now time.Time) {
	if !p.tells() || now.Before(p.nextTelling()) {
		return
	}
	if now.Sub(p.team.told) >= tellTime {
		p.gather(now)
	}
	p.team.told, p.team.urgent = now, false
	if now.Sub(p.team.summed) >= summaryTime { // whoever has come later has to know
		for _, x := range p.tunnels {
			if x.BFD && p.speaker(x.tag) == p.opts.Node {
				p.toTell(x)
			}
		}
	}
	e := evidence{node: p.opts.Node, knows: p.knows(now)}
	for _, x := range p.untold {
		e.findings = append(e.findings, finding{x.tag, x.told.answered, x.told.lost, x.state, x.told.worse, x.told.better, x.signals[BFD].said && x.BFD && p.speaker(x.tag) == p.opts.Node})
		x.told = untold{}
	}
	p.untold = p.untold[:0]
	for part := range slices.Chunk(e.findings, maxFindings) {
		p.opts.Tell(evidence{node: e.node, knows: e.knows, findings: part}.marshal(), false)
	}
	if len(e.findings) == 0 {
		p.opts.Tell(e.marshal(), false)
	}
	if now.Sub(p.team.summed) >= summaryTime {
		p.team.summed = now
		if p.team.turn == 0 && e.knows {
			p.tellSummary(now)
		}
	}
}

// Leave tells the others that this node takes no more turns. It goes on for itself.
func (p *Prober) Leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tells() {
		p.team.left = true
		p.opts.Tell(evidence{node: p.opts.Node, leaving: true}.marshal(), false)
	}
}

// untold is what is to be told of a tunnel.
type untold struct {
	answered, lost uint16
	worse, better  bool
	is             bool
}

// note notes what became of a probe, to tell it. news: it is not what the one before became, and not what the state says.
func (p *Prober) note(x *probed, answered, news bool) {
	p.toTell(x)
	if answered {
		x.told.answered++
		x.total.Answered++
	} else {
		x.told.lost++
		x.total.Lost++
	}
	if news {
		x.told.worse, x.told.better = x.told.worse || !answered, x.told.better || answered
		p.team.urgent = true
	}
}

// toTell has the next telling say how a tunnel is.
func (p *Prober) toTell(x *probed) {
	if p.tells() && !x.told.is {
		x.told.is = true
		p.untold = append(p.untold, x)
	}
}

// A Summary is how a tunnel is in a data center.
type Summary struct {
	Datacenter              string
	State                   State
	Healthy, Degraded, Down int // nodes that find it so
	RTT                     time.Duration
	Disagree                []string // nodes that do not find it so; of this node's data center alone
	Counts                           // as the node knows that has told it, since it probes the tunnel so
}

// Counts are of probes.
type Counts struct{ Answered, Lost uint64 }

// verdict is the state where so many find it so. The bounds are those of Magic Transit's dashboard for the share of its data centers that pass, of
// which one that is degraded is half a one here: healthy above 80 %, down below 40 %.
func verdict(healthy, degraded, down int) State {
	switch share := float64(2*healthy+degraded) / float64(2*(healthy+degraded+down)); {
	case share > 0.8:
		return Healthy
	case share >= 0.4:
		return Degraded
	}
	return Down
}

// judge finds whether the data center finds tunnels otherwise than before.
func (p *Prober) judge(now time.Time) {
	for _, x := range p.judged {
		s := p.here(x, now)
		if s.State == x.verdict {
			continue
		}
		was := x.verdict
		x.verdict = s.State
		if p.opts.OnVerdict != nil && p.team.turn == 0 {
			p.opts.OnVerdict(was, s, p.reportOf(x))
		}
	}
	p.judged = p.judged[:0]
}

// here is how a tunnel is in this data center.
func (p *Prober) here(x *probed, now time.Time) Summary {
	s := Summary{Datacenter: p.opts.Datacenter, RTT: x.rtt.smoothed, Counts: x.total}
	states := make([]State, 0, len(p.team.members))
	names := make([]string, 0, len(p.team.members))
	cycle, _ := p.cycle(x)
	for i, name := range p.team.members {
		v := x.views[i]
		if i == p.team.turn {
			v = view{x.state, now}
		}
		if now.Sub(v.at) > 2*cycle+heardTime {
			continue
		}
		*[...]*int{&s.Healthy, &s.Degraded, &s.Down}[v.state]++
		states, names = append(states, v.state), append(names, name)
	}
	s.State = verdict(s.Healthy, s.Degraded, s.Down)
	for i, state := range states {
		if state != s.State {
			s.Disagree = append(s.Disagree, names[i])
		}
	}
	return s
}

// everywhere is how a tunnel is in each data center, this one's first.
func (p *Prober) everywhere(x *probed, now time.Time) []Summary {
	list := []Summary{p.here(x, now)}
	for _, d := range p.team.datacenters {
		if s, ok := d.tunnels[x.tag]; ok {
			list = append(list, s)
		}
	}
	slices.SortFunc(list[1:], func(a, b Summary) int { return cmp.Compare(a.Datacenter, b.Datacenter) })
	return list
}

// Fleet is how a tunnel is by what its data centers say.
func Fleet(list []Summary) State {
	var n [3]int
	for _, s := range list {
		n[s.State]++
	}
	return verdict(n[Healthy], n[Degraded], n[Down])
}

// Everywhere says of each tunnel how it is in each data center, this one's first.
func (p *Prober) Everywhere() map[string][]Summary {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string][]Summary, len(p.tunnels))
	for name, x := range p.tunnels {
		out[name] = p.everywhere(x, now)
	}
	return out
}
