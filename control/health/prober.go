package health

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Tunnel is one to be probed, and how.
type Tunnel struct {
	Name           string
	Kind           Kind
	Source, Target netip.Addr // our interface address, and where requests go; replies go to Source
	Interval       time.Duration
	Retry          int // probes at once after one that failed, while the tunnel is not down
	Thresholds     Thresholds
}

// Options are what a Prober works with.
type Options struct {
	Node    string
	Send    func(tunnel string, packet []byte) bool // into that tunnel, whatever the routes say; false: there was no room for it
	OnState func(Report)                            // the state of a tunnel is another; it must not call the Prober
}

// A Report says how a tunnel is.
type Report struct {
	Tunnel               string
	State                State
	Since                time.Time
	Why                  string
	Sent, Answered, Lost uint64
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
	awaited time.Time // when turn was to be called at the latest
}

// probed is a tunnel, with what is known of it.
type probed struct {
	Tunnel
	tag     uint64
	at      int       // in the queue
	due     time.Time // the next regular probe
	next    time.Time // that, or the end of the patience with one that was sent
	number  uint64    // of the last probe
	pending []pending // oldest first
	machine machine
	rtt     estimator
	report  Report
}

// pending is a probe that was sent.
type pending struct {
	number      uint64
	sent, until time.Time
	lost        bool // and given up: an answer still says how long the way is
}

// New makes a Prober without tunnels.
func New(o Options) *Prober {
	p := &Prober{opts: o, node: tag(o.Node), key: make([]byte, 32), tunnels: map[string]*probed{}, byTag: map[uint64]*probed{}, wake: make(chan struct{}, 1)}
	rand.Read(p.key)
	return p
}

// SetTunnels says which tunnels are probed from now on. What is known of one that stays as it is stays too.
func (p *Prober) SetTunnels(list []Tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, left := time.Now(), p.tunnels
	p.tunnels = make(map[string]*probed, len(list))
	for _, t := range list {
		if old := left[t.Name]; old != nil && old.Tunnel == t {
			p.tunnels[t.Name] = old
			delete(left, t.Name)
			continue
		}
		x := &probed{Tunnel: t, tag: tag(t.Name), machine: newMachine(t.Thresholds, now)}
		x.due = now.Add(mathrand.N(t.Interval)) // not all at one time
		x.next = x.due
		p.tunnels[t.Name], p.byTag[x.tag] = x, x
		heap.Push(&p.queue, x)
	}
	for _, x := range left {
		heap.Remove(&p.queue, x.at)
		if p.byTag[x.tag] == x {
			delete(p.byTag, x.tag)
		}
	}
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
		if wait := x.next.Sub(now); wait > 0 {
			p.awaited = x.next
			return wait
		}
		p.giveUp(x, now)
		if !x.due.After(now) {
			p.send(x, now)
			x.due = x.due.Add(x.Interval)
			if x.due.Before(now) { // it could not keep up
				x.due = now.Add(x.Interval)
			}
		}
		p.schedule(x)
	}
	p.awaited = now.Add(idle)
	return idle
}

// stallTime is how late turn may be called without that being a reason for answers to be late.
const stallTime = 20 * time.Millisecond

// excuse gives answers more time when this process, and so perhaps the workers, stood still: a machine that is busy does not make its tunnels
// bad.
func (p *Prober) excuse(now time.Time) {
	stall := now.Sub(p.awaited)
	if p.awaited.IsZero() || stall < stallTime {
		return
	}
	for _, x := range p.queue {
		for i := range x.pending {
			x.pending[i].until = x.pending[i].until.Add(stall + stallTime) // what came meanwhile waits to be read
		}
	}
	for _, x := range p.tunnels {
		p.schedule(x)
	}
}

// schedule says when a tunnel is to be looked at again.
func (p *Prober) schedule(x *probed) {
	x.next = x.due
	for i := range x.pending {
		if w := &x.pending[i]; !w.lost && w.until.Before(x.next) {
			x.next = w.until
		}
	}
	heap.Fix(&p.queue, x.at)
}

func (p *Prober) send(x *probed, now time.Time) {
	x.number++
	dst := x.Target
	if x.Kind == Reply {
		dst = x.Source
	}
	if !p.opts.Send(x.Name, probe{p.node, x.tag, x.number}.packet(x.Kind, x.Source, dst, p.key)) {
		return // that says nothing of the tunnel
	}
	x.report.Sent++
	x.pending = append(x.pending, pending{number: x.number, sent: now, until: now.Add(x.rtt.patience())})
}

// lateTime is how long an answer that comes late still says how long the way is.
const lateTime = 3 * time.Second

// giveUp notes which probes have had no answer in time, and sends others at once.
func (p *Prober) giveUp(x *probed, now time.Time) {
	x.pending = slices.DeleteFunc(x.pending, func(w pending) bool { return w.lost && now.Sub(w.sent) > lateTime })
	again := false
	for i := range x.pending {
		w := &x.pending[i]
		if w.lost || w.until.After(now) {
			continue
		}
		w.lost = true
		x.report.Lost++
		x.report.LastLoss = now
		again = again || x.machine.lost == 0 // the first in a row
		p.take(x, w.sent, now, false)
	}
	if again && x.machine.state != Down {
		for range x.Retry {
			p.send(x, now)
		}
	}
}

// take tells the machine of a probe's end.
func (p *Prober) take(x *probed, sent, now time.Time, answered bool) {
	if x.machine.take(sent, now, answered) {
		p.opts.OnState(x.reportNow())
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
		p.take(x, w.sent, now, true)
		p.schedule(x)
	}
	return nil
}

func (x *probed) reportNow() Report {
	r := x.report
	r.Tunnel, r.State, r.Since, r.Why, r.RTT = x.Name, x.machine.state, x.machine.since, x.machine.why, x.rtt.smoothed
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
		f(x.reportNow())
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
