package health

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/rand"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Tunnel is one to be probed, and how.
type Tunnel struct {
	Name           string
	Silent         bool // no probes are sent: others say how it is, see Signal
	BFD            bool // one node of the fleet has a session of BFD with its router, see Speaker
	Kind           Kind
	Source, Target netip.Addr // our interface address, and where requests go; replies go to Source
	Interval       time.Duration
	Retry          int // probes at once after one that failed, while the tunnel is not down
	Thresholds     Thresholds
}

// Options are what a Prober works with.
type Options struct {
	Node, Datacenter string
	Send             func(tunnel string, packet []byte) bool // into that tunnel, whatever the routes say; false: there was no room for it
	OnState          func(Report)                            // the state of a tunnel is another; it must not call the Prober

	Received func(tunnel string) uint64 // how many packets have come out of that tunnel; nil: it is not known

	// Tell gives a message to the Hear of the other nodes of the data center, or of all nodes. It may be lost. Tell must neither wait nor call
	// the Prober. Nil: there are no other nodes.
	Tell func(message []byte, all bool)

	// OnVerdict is told that the nodes of this data center together find a tunnel otherwise than before, as verdict says, on the one of
	// them that tells it.
	OnVerdict func(was State, now Summary, r Report)

	// Apart reports whether what is told reaches nobody.
	Apart func() bool
}

// A Report says how a tunnel is.
type Report struct {
	Tunnel               string
	State, Was           State // and before
	Since                time.Time
	Why, Leg             string        // why it is so, and, while probes are lost, which part of the way is broken
	Sent, Answered, Lost uint64        // probes of this node
	Every                time.Duration // between two of them, as many as there are nodes that share
	RTT                  time.Duration // smoothed; 0: no answer yet
	LastAnswer, LastLoss time.Time     // zero: none yet
}

// A Prober probes tunnels. Its methods may be called by any goroutine, Run once.
type Prober struct {
	opts Options
	node uint64
	key  []byte // of probes' codes: who has not seen a probe cannot answer it

	mu      sync.Mutex
	tunnels map[string]*probed
	byTag   map[uint64]*probed
	queue   dueQueue
	wake    chan struct{}
	meet    time.Time     // when the others of the data center are known
	known   time.Time     // and those of all data centers
	awaited time.Time     // when turn was to be called at the latest
	stood   time.Duration // for how long this process stood still, all in all
	team    team
	untold  []*probed // of which the others are to be told something
	judged  []*probed // of which somebody's state is another
}

// probed is a tunnel, with what is known of it.
type probed struct {
	Tunnel
	tag     uint64
	at      int       // in the queue
	due     time.Time // the next probe, but for those that follow one that was lost
	next    time.Time // that, or the end of the patience with one that was sent
	number  uint64    // of the last probe
	retried uint64    // number of the last one that was sent at once after one that was lost
	pending []pending // oldest first
	machine machine
	rtt     estimator
	report  Report
	views   []view    // of the members of the team
	asked   time.Time // when another node's finding has had this one probe the last time
	told    untold

	total   Counts // of the data center's probes, since this node probes the tunnel so
	signals [sources]signal
	state   State // by all that is known
	was     State // before
	since   time.Time
	why     string
	verdict State // of the data center

	received uint64 // Options.Received when probes began to be lost
	check    check
}

// pending is a probe that was sent.
type pending struct {
	number      uint64
	sent, until time.Time
	stood       time.Duration // Prober.stood when it was sent
	lost        bool          // and given up: an answer still says how long the way is
}

// New makes a Prober without tunnels.
func New(o Options) *Prober {
	p := &Prober{opts: o, node: tag(o.Node), key: make([]byte, 32), tunnels: map[string]*probed{}, byTag: map[uint64]*probed{}, wake: make(chan struct{}, 1)}
	p.team = team{members: []string{o.Node}, heard: map[string]time.Time{}, knows: map[string]bool{}, datacenters: map[string]*datacenter{}}
	rand.Read(p.key)
	if o.Tell != nil { // else all nodes that start together would probe all tunnels
		p.meet = time.Now().Add(tellTime + tellTime/4)
		p.known = time.Now().Add(summaryTime + 2*tellTime)
	}
	return p
}

// SetTunnels says which tunnels are probed from now on. What is known of one that stays as it is stays too.
func (p *Prober) SetTunnels(list []Tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, left := time.Now(), p.tunnels
	p.tunnels = make(map[string]*probed, len(list))
	for _, t := range list {
		if t.Silent {
			t.Interval = idle
		}
		if old := left[t.Name]; old != nil && old.Tunnel == t {
			p.tunnels[t.Name] = old
			delete(left, t.Name)
			continue
		}
		x := &probed{Tunnel: t, tag: tag(t.Name), machine: newMachine(t.Thresholds, now), views: make([]view, len(p.team.members)), since: now, why: notProbedYet}
		if x.Silent {
			x.machine.why, x.why = "nothing is known against it", "nothing is known against it"
		}
		if old := left[t.Name]; old != nil { // what others say of it stays
			x.signals = old.signals
			if !t.BFD {
				x.signals[BFD] = signal{}
			}
			x.state, x.since, x.why = x.known(now)
			if x.verdict = old.verdict; x.state != old.state {
				x.was, x.why = old.state, "it begins anew: how it is probed has been changed"
				p.opts.OnState(p.reportOf(x))
			}
			p.judged = append(p.judged, x)
		}
		x.due = p.myTurn(x, now, max(0, p.meet.Sub(now)))
		x.next = p.nextLook(x)
		p.tunnels[t.Name], p.byTag[x.tag] = x, x
		heap.Push(&p.queue, x)
	}
	for _, x := range left {
		heap.Remove(&p.queue, x.at)
		if p.byTag[x.tag] == x {
			delete(p.byTag, x.tag)
			for _, d := range p.team.datacenters {
				delete(d.tunnels, x.tag)
			}
		}
	}
	p.judged = slices.DeleteFunc(p.judged, func(x *probed) bool { return p.tunnels[x.Name] != x })
	p.untold = slices.DeleteFunc(p.untold, func(x *probed) bool { return p.tunnels[x.Name] != x })
	p.poke()
}

// poke has turn called.
func (p *Prober) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// idle is how long Run waits when there is nothing to do.
const idle = time.Hour

// Run probes until ctx is done.
func (p *Prober) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			p.Leave()
			return
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(p.turn(time.Now()))
	}
}

// turn does what is due, and returns how long there is nothing to do.
func (p *Prober) turn(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.excuse(now)
	for len(p.queue) > 0 {
		x := p.queue[0]
		if x.next.After(now) {
			break
		}
		p.giveUp(x, now)
		p.evaluate(x, now)
		if !x.due.After(now) {
			p.send(x, now)
			x.due = p.next(x, now)
		}
		p.schedule(x)
	}
	p.judge(now)
	p.tell(now)
	p.awaited = now.Add(idle)
	if len(p.queue) > 0 {
		p.awaited = p.queue[0].next
	}
	if again := p.nextTelling(); p.tells() && again.Before(p.awaited) {
		p.awaited = again
	}
	return p.awaited.Sub(now)
}

// stallTime is how late turn may be called without that being a reason for answers to be late.
const stallTime = 20 * time.Millisecond

// excuse gives answers more time when this process, and so perhaps the workers, stood still: a machine that is busy does not make its tunnels
// bad.
func (p *Prober) excuse(now time.Time) {
	if stall := now.Sub(p.awaited); !p.awaited.IsZero() && stall >= stallTime {
		p.stood += stall + stallTime // what came meanwhile waits to be read
	}
}

// deadline is until when the answer to a probe is waited for.
func (p *Prober) deadline(w *pending) time.Time { return w.until.Add(p.stood - w.stood) }

// schedule says when a tunnel is to be looked at again.
func (p *Prober) schedule(x *probed) {
	x.next = p.nextLook(x)
	heap.Fix(&p.queue, x.at)
}

// nextLook is when a tunnel is to be looked at again: it is to be probed, a probe is lost, or a signal does not count any more.
func (p *Prober) nextLook(x *probed) time.Time {
	next := x.nextSignal(x.due)
	for i := range x.pending {
		if w := &x.pending[i]; !w.lost && p.deadline(w).Before(next) {
			next = p.deadline(w)
		}
	}
	return next
}

func (p *Prober) send(x *probed, now time.Time) {
	if x.Silent {
		return
	}
	x.number++
	dst := x.Target
	if x.Kind == Reply {
		dst = x.Source
	}
	if !p.opts.Send(x.Name, probe{p.node, x.tag, x.number}.packet(x.Kind, x.Source, dst, p.key)) {
		return // that says nothing of the tunnel
	}
	x.report.Sent++
	x.pending = append(x.pending, pending{number: x.number, sent: now, until: now.Add(x.rtt.patience()), stood: p.stood})
}

// lateTime is how long an answer that comes late still says how long the way is.
const lateTime = 3 * time.Second

// giveUp notes which probes have had no answer in time, and sends others at once.
func (p *Prober) giveUp(x *probed, now time.Time) {
	x.pending = slices.DeleteFunc(x.pending, func(w pending) bool { return w.lost && now.Sub(w.sent) > lateTime })
	again := 0 // probes to send at once
	for i := range x.pending {
		w := &x.pending[i]
		if w.lost || p.deadline(w).After(now) {
			continue
		}
		w.lost = true
		x.report.Lost++
		x.report.LastLoss = now
		first := x.machine.lost == 0 // in a row
		if first {
			again = x.Retry
		}
		p.note(x, false, first && x.machine.state != Down)
		p.noteLoss(x, first, now)
		p.take(x, w.sent, now, false)
		if w.number >= x.retried && x.machine.lost >= x.Thresholds.Samples { // enough, but those at once came late, or there was no room for them
			again = x.Thresholds.Samples
		}
	}
	if again > 0 && x.machine.state != Down {
		for range again {
			p.send(x, now)
		}
		x.retried = x.number
	}
}

// take tells the machine of a probe's end.
func (p *Prober) take(x *probed, sent, now time.Time, answered bool) {
	was := x.unsettled()
	if x.machine.take(sent, now, answered) {
		p.evaluate(x, now)
	}
	if x.unsettled() != was {
		x.due = p.next(x, now)
	}
}

// Answer takes a packet that the workers have taken for the answer to a probe. If it answers one of another node it returns what says
// whether a node of some name is that, else nil.
func (p *Prober) Answer(packet []byte) (of func(node string) bool) {
	now := time.Now()
	a, payload, ok := parseAnswer(packet)
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.byTag[a.tunnel]
	switch {
	case ok && a.node != p.node:
		return func(node string) bool { return tag(node) == a.node }
	case !ok || x == nil || !signed(payload, p.key):
		return nil
	}
	if a.number == x.check.number {
		x.check.answered = now
		return nil
	}
	i := slices.IndexFunc(x.pending, func(w pending) bool { return w.number == a.number })
	if i < 0 { // it came twice, or much too late
		return nil
	}
	w := x.pending[i]
	x.pending = slices.Delete(x.pending, i, i+1)
	x.rtt.take(now.Sub(w.sent))
	if !w.lost {
		x.report.Answered++
		x.report.LastAnswer = now
		p.note(x, true, x.machine.state == Down && x.machine.row == 0)
		p.take(x, w.sent, now, true)
		if p.schedule(x); p.team.urgent || x.unsettled() {
			p.poke()
		}
	}
	return nil
}

func (p *Prober) reportOf(x *probed) Report {
	r := x.report
	r.Tunnel, r.State, r.Was, r.Since, r.Why, r.RTT = x.Name, x.state, x.was, x.since, x.why, x.rtt.smoothed
	if x.state == Healthy && x.report.Answered > 0 && x.why == notProbedYet {
		r.Why = "its probes are answered"
	}
	r.Every, _ = p.cycle(x)
	r.Leg = p.leg(x)
	return r
}

// Reports are of all tunnels, by name.
func (p *Prober) Reports() (list []Report) {
	p.Each(func(r Report) { list = append(list, r) })
	slices.SortFunc(list, func(a, b Report) int { return cmp.Compare(a.Tunnel, b.Tunnel) })
	return list
}

// Each calls f for each tunnel. No state changes meanwhile; f must not call the Prober.
func (p *Prober) Each(f func(Report)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.tunnels {
		f(p.reportOf(x))
	}
}

// An estimator knows how long answers take, as TCP does (RFC 6298 section 2).
type estimator struct{ smoothed, variance time.Duration }

// Bounds of the patience with a probe.
const (
	leastPatience = 200 * time.Millisecond // routers answer when they have nothing better to do
	mostPatience  = 900 * time.Millisecond // with the next ones at once, three are lost within a second
)

func (e *estimator) take(rtt time.Duration) {
	if e.smoothed == 0 {
		e.smoothed, e.variance = rtt, rtt/2
		return
	}
	e.variance = (3*e.variance + (e.smoothed - rtt).Abs()) / 4
	e.smoothed = (7*e.smoothed + rtt) / 8
}

// patience is how long an answer is waited for.
func (e *estimator) patience() time.Duration {
	if e.smoothed == 0 {
		return mostPatience
	}
	return min(max(e.smoothed+4*e.variance, leastPatience), mostPatience)
}

// A dueQueue is a heap of tunnels, by when something is to be done.
type dueQueue []*probed

func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(i, j int) bool { return q[i].next.Before(q[j].next) }
func (q dueQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push and Pop: see heap.Interface.
func (q *dueQueue) Push(x any) {
	t := x.(*probed)
	t.at = len(*q)
	*q = append(*q, t)
}

func (q *dueQueue) Pop() any {
	t := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return t
}
