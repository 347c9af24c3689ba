package bfd

import (
	"cmp"
	"container/heap"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A Tunnel is one with a session.
type Tunnel struct {
	Name string
	Ends
	Timing
}

// Options are what a Manager works with. Its functions must neither wait nor call the Manager.
type Options struct {
	Send    func(tunnel string, packet []byte) bool // into that tunnel, whatever the routes say
	OnState func(Report)                            // a session is up, or is no more
}

// A Report says how a session is.
type Report struct {
	Tunnel           string
	Here             bool // this node has the session; else it is another node's
	State, Remote    State
	Diagnostic       Diagnostic // why it left Up the last time
	RemoteDiagnostic Diagnostic
	Since            time.Time
	Changes          uint64
	Detection        time.Duration // nothing for so long, and it is down; 0: the other end has not said
	Sent, Came       uint64
	Wrong            uint64 // packets that were discarded
	WhyWrong         string // the last of them
}

// A Manager has the sessions of a node. Its methods may be called by any goroutine, Run once.
type Manager struct {
	opts Options

	mu       sync.Mutex
	sessions map[string]*entry
	queue    queue
	wake     chan struct{}
}

// entry is a tunnel with its session.
type entry struct {
	Tunnel
	session
	here     bool
	at       int // in the queue; -1: it is not there
	whyWrong string
}

// New makes a Manager without sessions.
func New(o Options) *Manager {
	return &Manager{opts: o, sessions: map[string]*entry{}, wake: make(chan struct{}, 1)}
}

// SetTunnels says which tunnels have sessions from now on. One that stays as it is goes on; of one that goes the other end is told.
func (m *Manager) SetTunnels(list []Tunnel) {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := m.sessions
	m.sessions = make(map[string]*entry, len(list))
	for _, t := range list {
		if x := left[t.Name]; x != nil && x.Tunnel == t {
			m.sessions[t.Name] = x
			delete(left, t.Name)
			continue
		}
		m.sessions[t.Name] = &entry{Tunnel: t, at: -1, session: newSession(t.Timing, 0, time.Now())}
	}
	for _, x := range left {
		m.retire(x, time.Now())
	}
	m.poke()
}

// SetHere says which sessions are this node's: of several nodes on one address one alone has a session.
func (m *Manager) SetHere(here func(tunnel string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, x := range m.sessions {
		switch is := here(x.Name); {
		case is && !x.here:
			x.here = true
			x.session = newSession(x.Tunnel.Timing, rand.Uint32N(1<<32-1)+1, now)
			heap.Push(&m.queue, x)
		case !is && x.here:
			m.leave(x)
			x.session = newSession(x.Tunnel.Timing, 0, now)
		}
	}
	m.poke()
}

// Here reports whether this node has the session of a tunnel.
func (m *Manager) Here(tunnel string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.sessions[tunnel]
	return x != nil && x.here
}

// retire ends a session on purpose.
func (m *Manager) retire(x *entry, now time.Time) {
	if x.here {
		x.stop(now)
		m.send(x, x.control())
		m.leave(x)
	}
}

func (m *Manager) leave(x *entry) {
	x.here = false
	heap.Remove(&m.queue, x.at)
	x.at = -1
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// idle is how long Run waits when there is nothing to do.
const idle = time.Hour

// Run has sessions until ctx is done.
func (m *Manager) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-timer.C:
		}
		timer.Reset(m.turn(time.Now()))
	}
}

// turn does what is due, and returns how long there is nothing to do.
func (m *Manager) turn(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.queue) > 0 {
		x := m.queue[0]
		if wait := x.due().Sub(now); wait > 0 {
			return wait
		}
		if before := x.state; !x.detect.IsZero() && !x.detect.After(now) && x.expire(now) && before == Up { // one that never was says nothing
			m.opts.OnState(x.report())
		}
		if !x.next.After(now) {
			if !x.silent() {
				m.send(x, x.control())
			}
			x.say(now)
		}
		heap.Fix(&m.queue, x.at)
	}
	return idle
}

func (m *Manager) send(x *entry, c Control) { m.opts.Send(x.Name, x.packet(&c)) }

// Input takes a packet that came out of a tunnel to our address.
func (m *Manager) Input(tunnel string, packet []byte) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.sessions[tunnel]
	if x == nil || !x.here {
		return
	}
	c, err := x.parsePacket(packet)
	if err == nil && c.Yours != 0 && c.Yours != x.mine {
		err = errSession
	}
	if err != nil {
		x.wrong++
		x.whyWrong = err.Error()
		return
	}
	before := x.state
	changed, reply := x.take(&c, now)
	if reply {
		answer := x.control()
		answer.Poll, answer.Final = false, true // section 6.5
		m.send(x, answer)
		x.sent++
	}
	if changed && (before == Up || x.state == Up) {
		m.opts.OnState(x.report())
	}
	heap.Fix(&m.queue, x.at)
	m.poke()
}

func (x *entry) due() time.Time {
	if !x.detect.IsZero() && x.detect.Before(x.next) {
		return x.detect
	}
	return x.next
}

func (x *entry) report() Report {
	r := Report{Tunnel: x.Name, Here: x.here, State: x.state, Remote: x.remoteState, Diagnostic: x.diagnostic, RemoteDiagnostic: x.remoteDiagnostic, Since: x.since, Changes: x.changes,
		Sent: x.sent, Came: x.came, Wrong: x.wrong, WhyWrong: x.whyWrong}
	if x.came > 0 {
		r.Detection = x.detectionTime()
	}
	return r
}

// Reports are of all sessions, by tunnel.
func (m *Manager) Reports() (list []Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.sessions {
		list = append(list, x.report())
	}
	slices.SortFunc(list, func(a, b Report) int { return cmp.Compare(a.Tunnel, b.Tunnel) })
	return list
}

// A queue is a heap of sessions, by when something is to be done.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due().Before(q[j].due()) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push and Pop: see heap.Interface.
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.at = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}
