package health

import (
	"fmt"
	"time"
)

// A State is how well a tunnel carries packets.
type State uint8

// The states. A tunnel begins as healthy: nothing is known against it.
const (
	Healthy State = iota
	Degraded
	Down
)

// String is the word that JSON and metrics have.
func (s State) String() string { return [...]string{"healthy", "degraded", "down"}[s] }

// Thresholds say what makes a state. Those of a file that says nothing are Magic Transit's (package config).
type Thresholds struct {
	// From healthy to degraded: this share of the probes of the last Over failed, and at least Failures of them.
	Loss     float64
	Over     time.Duration
	Failures int

	// To down: so many probes in a row failed, that were sent within a time.
	Samples int
	Within  time.Duration

	// From down to degraded: so many in a row were answered.
	Successes int

	// From degraded to healthy: so many in a row were answered, and it was degraded for that long.
	Clean int
	Hold  time.Duration
}

// MaxSamples bounds Thresholds.Samples. Package config has the same figure.
const MaxSamples = 16

// windowParts is into how many parts Thresholds.Over is divided: what was longer ago by less than one of them may still count.
const windowParts = 60

// A machine is the state of one tunnel at one node, as the answers to its probes say. It needs to be told of each of this node's probes once,
// when it was answered or given up, and of those of other nodes: these count for what is lost now and then, and not for whether the
// tunnel is down. That a node believes by its own probes alone.
type machine struct {
	Thresholds
	state  State
	since  time.Time
	why    string                // it is in its state
	row    int                   // probes of this node in a row that were answered
	clean  int                   // probes in a row that were answered, of all nodes
	failed [MaxSamples]time.Time // when those that failed in a row were sent, the last at lost%MaxSamples-1
	lost   int                   // in a row
	window [windowParts]part
}

// A part counts the probes of one part of the window.
type part struct {
	number    int64 // since 1970, in parts
	ok, tries int
}

// notProbedYet is why a tunnel begins as healthy.
const notProbedYet = "not probed yet"

func newMachine(t Thresholds, now time.Time) machine {
	return machine{Thresholds: t, since: now, why: notProbedYet}
}

// take takes the end of a probe that was sent at a time, and reports whether the state is another.
func (m *machine) take(sent, now time.Time, answered bool) bool {
	if answered {
		m.count(now, 1, 0)
		m.row++
		m.lost = 0
	} else {
		m.count(now, 0, 1)
		m.failed[m.lost%MaxSamples] = sent
		m.row = 0
		m.lost++
	}
	return m.turn(now)
}

// hear takes what became of probes of another node, and reports whether the state is another.
func (m *machine) hear(now time.Time, answered, lost int) bool {
	m.count(now, answered, lost)
	return m.turn(now)
}

// turn goes into the state that follows, if it is another one.
func (m *machine) turn(now time.Time) bool {
	next, why := m.next(now)
	if next == m.state {
		return false
	}
	m.state, m.since, m.why = next, now, why
	m.window = [windowParts]part{} // else what made it degraded would do so again when it is healthy
	return true
}

// next is the state that follows, and why.
func (m *machine) next(now time.Time) (State, string) {
	if m.state != Down && m.allFail() {
		return Down, fmt.Sprintf("%d probes in a row had no answer", m.lost)
	}
	switch m.state {
	case Down:
		if m.row >= m.Successes {
			return Degraded, fmt.Sprintf("was down, and %d probes in a row were answered", m.row)
		}
	case Healthy:
		if failures, tries := m.recent(now); failures >= m.Failures && float64(failures) >= m.Loss*float64(tries) {
			return Degraded, fmt.Sprintf("%d of %d probes had no answer", failures, tries)
		}
	case Degraded:
		if m.clean >= m.Clean && now.Sub(m.since) >= m.Hold {
			return Healthy, fmt.Sprintf("%d probes in a row were answered", m.clean)
		}
	}
	return m.state, ""
}

// allFail reports whether each of the last probes failed, as many as it takes, sent within the time.
func (m *machine) allFail() bool {
	if m.lost < m.Samples {
		return false
	}
	first, last := m.failed[(m.lost-m.Samples)%MaxSamples], m.failed[(m.lost-1)%MaxSamples]
	return last.Sub(first) <= m.Within
}

func (m *machine) count(now time.Time, answered, lost int) {
	p := m.part(now)
	p.tries += answered + lost
	p.ok += answered
	if m.clean += answered; lost > 0 { // in which order is not known of those of others
		m.clean = 0
	}
}

// part is the one of a time.
func (m *machine) part(now time.Time) *part {
	number := now.UnixNano() / (int64(m.Over) / windowParts)
	p := &m.window[number%windowParts]
	if p.number != number {
		*p = part{number: number}
	}
	return p
}

// recent counts what was in the window.
func (m *machine) recent(now time.Time) (failures, tries int) {
	number := m.part(now).number
	for i := range m.window {
		if p := &m.window[i]; p.number > number-windowParts {
			failures, tries = failures+p.tries-p.ok, tries+p.tries
		}
	}
	return failures, tries
}
