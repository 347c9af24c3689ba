package ike

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// contain keeps a defect of ours from ending the process, which has all tunnels' packets. It is deferred.
func (d *Daemon) contain() {
	if v := recover(); v != nil {
		d.defect(v)
	}
}

// defect counts and tells of a panic.
func (d *Daemon) defect(v any, about ...any) {
	d.counts.defects.Add(1)
	if d.strangers.allow(time.Now(), logBurst, logRate) {
		d.log.Error("ike: a defect of causeway; please report these lines", append(about, "panic", v, "stack", string(debug.Stack()))...)
	}
}

// counters count what no SA counts.
type counters struct {
	malformed, unknownSPI, cookieWrong, overload, tooManyHalfOpen, unauthentic, forwardLoop, storeAway atomic.Uint64

	forwardedIn, forwardedOut, answeredFor, takenOver, notStored atomic.Uint64 // in a fleet

	cookiesSent, retransmissions, established, failed, rekeyedIKE, rekeyedChildren, unlogged, defects atomic.Uint64
}

// Stats is what the daemon has counted since its start, and how many SAs it has now.
type Stats struct {
	SAs, HalfOpen int

	Established, Failed         uint64 // negotiations
	RekeyedIKE, RekeyedChildren uint64
	CookiesSent                 uint64
	Retransmissions             uint64
	ForwardedIn, ForwardedOut   uint64            // datagrams from other nodes, and to them
	AnsweredFor                 uint64            // requests that ask whether we live, of SAs that other nodes have
	TakenOver                   uint64            // IKE SAs of nodes that are gone
	NotStored                   uint64            // writes to the fleet's store that failed, and are tried again
	Defects                     uint64            // panics, each of which ended one IKE SA at most
	Dropped                     map[string]uint64 // datagrams, by reason
}

// Stats returns the counters. Any goroutine may ask.
func (d *Daemon) Stats() Stats {
	c := &d.counts
	st := Stats{Established: c.established.Load(), Failed: c.failed.Load(), RekeyedIKE: c.rekeyedIKE.Load(), RekeyedChildren: c.rekeyedChildren.Load(),
		ForwardedIn: c.forwardedIn.Load(), ForwardedOut: c.forwardedOut.Load(), AnsweredFor: c.answeredFor.Load(), TakenOver: c.takenOver.Load(), NotStored: c.notStored.Load(),
		CookiesSent: c.cookiesSent.Load(), Retransmissions: c.retransmissions.Load(), Defects: c.defects.Load(),
		Dropped: map[string]uint64{
			"malformed":          c.malformed.Load(),       // is no message, or no request that begins something
			"unknown_spi":        c.unknownSPI.Load(),      // of no SA that is known
			"wrong_cookie":       c.cookieWrong.Load(),     // asked for a cookie, and it was not the one
			"overload":           c.overload.Load(),        // the pool's queues were full
			"too_many_half_open": c.tooManyHalfOpen.Load(), // of all, or of one source
			"forward_loop":       c.forwardLoop.Load(),     // another node thought that we have its SA
			"store_away":         c.storeAway.Load(),       // would begin something that no other node would have
			"unauthentic":        c.unauthentic.Load(),     // its integrity check value was wrong
		}}
	d.mu.Lock()
	defer d.mu.Unlock()
	st.HalfOpen = d.half
	for _, list := range d.byTunnel {
		st.SAs += len(list)
	}
	return st
}

// Lines that anybody on the Internet can cause are bounded: so many at once, and so many in a second.
const (
	logBurst = 50
	logRate  = 5
)

// A throttle bounds lines of the log.
type throttle struct {
	mu     sync.Mutex
	tokens float64
	last   time.Time
}

// allow reports whether a line may be written.
func (t *throttle) allow(now time.Time, burst, rate float64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.IsZero() {
		t.tokens = burst
	} else {
		t.tokens = min(t.tokens+rate*now.Sub(t.last).Seconds(), burst)
	}
	t.last = now
	if t.tokens < 1 {
		return false
	}
	t.tokens--
	return true
}

// warnStranger writes a line about somebody who has not shown who it is.
func (d *Daemon) warnStranger(what string, args ...any) {
	if !d.strangers.allow(time.Now(), logBurst, logRate) {
		d.counts.unlogged.Add(1)
		return
	}
	if n := d.counts.unlogged.Swap(0); n > 0 {
		args = append(args, "not_logged_before", n)
	}
	d.log.Warn("ike: "+what, args...)
}
