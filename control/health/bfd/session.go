package bfd

import (
	"math/rand/v2"
	"time"
)

// slowInterval is how often a session that is not up says something at most (RFC 5880, section 6.8.3).
const slowInterval = time.Second

// Timing is what this end of a session wants.
type Timing struct {
	Interval   time.Duration // between packets, each way
	Multiplier uint8         // after so many that did not come the session is down
}

// session is the state of RFC 5880, section 6.8.1, without demand mode, echo and authentication. The names are the RFC's.
type session struct {
	Timing
	state             State
	diagnostic        Diagnostic
	mine, yours       uint32 // bfd.LocalDiscr, bfd.RemoteDiscr
	remoteState       State
	remoteDiagnostic  Diagnostic
	remoteMinRX       time.Duration // bfd.RemoteMinRxInterval: 0: it wants none
	remoteMinTX       time.Duration // the last DesiredMinTxInterval of the other end
	remoteMultiplier  uint8
	minTX             time.Duration // bfd.DesiredMinTxInterval
	polling           bool          // a Poll Sequence goes on: the other end has not confirmed minTX
	detect            time.Time     // when the session is down, if nothing comes; zero: it waits for nothing
	next              time.Time     // when it says something
	since             time.Time     // it is in its state
	changes           uint64
	sent, came, wrong uint64
}

func newSession(t Timing, mine uint32, now time.Time) session {
	return session{Timing: t, state: Down, mine: mine, remoteMinRX: time.Microsecond, minTX: max(slowInterval, t.Interval), next: now, since: now}
}

// control is what the session says now.
func (s *session) control() Control {
	return Control{Diagnostic: s.diagnostic, State: s.state, Poll: s.polling, Multiplier: s.Multiplier, Mine: s.mine, Yours: s.yours, MinTX: s.minTX, MinRX: s.Interval}
}

// interval is the time until it says something again, with jitter (section 6.8.7).
func (s *session) interval() time.Duration {
	every := max(s.minTX, s.remoteMinRX)
	if s.Multiplier == 1 { // between 75 and 90 %
		return every*3/4 + rand.N(every*3/20+1)
	}
	return every*3/4 + rand.N(every/4+1)
}

// silent reports whether the other end wants no packets (section 6.8.7).
func (s *session) silent() bool { return s.remoteMinRX == 0 }

// detectionTime is how long nothing may come (section 6.8.4).
func (s *session) detectionTime() time.Duration {
	return time.Duration(s.remoteMultiplier) * max(s.Interval, s.remoteMinTX)
}

// say notes that the session has said something.
func (s *session) say(now time.Time) {
	s.sent++
	s.next = now.Add(s.interval())
}

// expire is called when detect has passed (section 6.8.4). It reports whether the state is another.
func (s *session) expire(now time.Time) bool {
	s.detect, s.yours = time.Time{}, 0 // section 6.8.1, bfd.RemoteDiscr
	s.remoteMinRX = time.Microsecond
	if s.state != Init && s.state != Up {
		return false
	}
	s.enter(Down, DetectionExpired, now)
	return true
}

// take takes a packet for this session (section 6.8.6, from where the session is found). reply says whether an answer with Final is due at once.
func (s *session) take(c *Control, now time.Time) (changed, reply bool) {
	s.came++
	s.yours, s.remoteState, s.remoteDiagnostic, s.remoteMinRX, s.remoteMinTX, s.remoteMultiplier = c.Mine, c.State, c.Diagnostic, c.MinRX, c.MinTX, c.Multiplier
	if c.Final {
		s.polling = false
	}
	if s.state == AdminDown {
		return false, false
	}
	before := s.state
	switch {
	case c.State == AdminDown:
		if s.state != Down {
			s.enter(Down, NeighborSaidDown, now)
		}
	case s.state == Down && c.State == Down:
		s.enter(Init, s.diagnostic, now)
	case s.state == Down && c.State == Init, s.state == Init && c.State >= Init:
		s.enter(Up, NoDiagnostic, now)
	case s.state == Up && c.State == Down:
		s.enter(Down, NeighborSaidDown, now)
	}
	s.detect = now.Add(s.detectionTime())
	if latest := now.Add(s.interval()); latest.Before(s.next) { // it may be told more often now
		s.next = latest
	}
	return s.state != before, c.Poll
}

// enter goes into a state, and says so at once. Only a session that is up is fast (section 6.8.3).
func (s *session) enter(state State, why Diagnostic, now time.Time) {
	s.state, s.diagnostic, s.since, s.next = state, why, now, now
	s.changes++
	minTX := s.Interval
	if state != Up {
		minTX = max(slowInterval, s.Interval)
	}
	if minTX != s.minTX { // section 6.8.3: a Poll Sequence
		s.minTX, s.polling = minTX, true
	}
}

// stop says that this end ends the session on purpose (section 6.8.16).
func (s *session) stop(now time.Time) { s.enter(AdminDown, AdministrativelyDown, now) }
