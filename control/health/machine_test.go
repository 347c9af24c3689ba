package health

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A slowMachine keeps every probe, and judges by all of them.
type slowMachine struct {
	Thresholds
	state  State
	since  time.Time
	probes []end // since the beginning
	from   int   // the first of this state
}

// An end is one of a probe, of this node's or another's.
type end struct {
	sent, at time.Time
	answered bool
	others   bool
}

func (m *slowMachine) take(e end) {
	m.probes = append(m.probes, e)
	if next := m.next(e.at); next != m.state {
		m.state, m.since, m.from = next, e.at, len(m.probes)
	}
}

// inRow is how many of the last probes ended so, of all or of this node.
func (m *slowMachine) inRow(all, answered bool) (list []end) {
	for i := len(m.probes) - 1; i >= 0; i-- {
		if e := m.probes[i]; !all && e.others {
			continue
		} else if e.answered != answered {
			break
		} else {
			list = append(list, e)
		}
	}
	return list
}

func (m *slowMachine) next(now time.Time) State {
	if lost := m.inRow(false, false); m.state != Down && len(lost) >= m.Samples && lost[0].sent.Sub(lost[m.Samples-1].sent) <= m.Within {
		return Down
	}
	number := func(t time.Time) int64 { return t.UnixNano() / (int64(m.Over) / windowParts) }
	failures, tries := 0, 0
	for _, e := range m.probes[m.from:] {
		if number(e.at) > number(now)-windowParts {
			tries++
			if !e.answered {
				failures++
			}
		}
	}
	switch {
	case m.state == Down && len(m.inRow(false, true)) >= m.Successes:
		return Degraded
	case m.state == Healthy && failures >= m.Failures && float64(failures) >= m.Loss*float64(tries):
		return Degraded
	case m.state == Degraded && len(m.inRow(true, true)) >= m.Clean && now.Sub(m.since) >= m.Hold:
		return Healthy
	}
	return m.state
}

// published are the thresholds of Magic Transit.
func published() Thresholds {
	return Thresholds{Loss: 0.001, Over: 5 * time.Minute, Failures: 2, Samples: 3, Within: time.Second, Successes: 3, Clean: 30, Hold: 5 * time.Minute}
}

// The machine says what one says that remembers everything.
func TestMachine(t *testing.T) {
	seen := map[State]int{}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		th := published()
		if seed%3 > 0 {
			th = Thresholds{Loss: []float64{0.001, 0.02, 0.3}[r.IntN(3)], Over: time.Duration(10+r.IntN(300)) * time.Second, Failures: 1 + r.IntN(4), Samples: 1 + r.IntN(MaxSamples),
				Within: time.Duration(100+r.IntN(5000)) * time.Millisecond, Successes: 1 + r.IntN(5), Clean: 1 + r.IntN(40), Hold: time.Duration(1+r.IntN(100)) * time.Second}
		}
		now := time.Unix(1_800_000_000, 0)
		m, slow := newMachine(th, now), &slowMachine{Thresholds: th, since: now}
		loss, interval := 0.0, time.Second
		for range 3000 {
			if r.IntN(200) == 0 {
				loss, interval = []float64{0, 0, 0.001, 0.01, 0.3, 1}[r.IntN(6)], []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second}[r.IntN(3)]
			}
			sent := now.Add(-time.Duration(r.Int64N(int64(900 * time.Millisecond))))
			answered := r.Float64() >= loss
			before := m.state
			others := seed%2 == 0 && r.IntN(3) == 0
			var changed bool
			if others {
				changed = m.hear(now, map[bool]int{true: 1}[answered], map[bool]int{false: 1}[answered])
			} else {
				changed = m.take(sent, now, answered)
			}
			slow.take(end{sent, now, answered, others})
			if m.state != slow.state || !m.since.Equal(slow.since) || changed != (before != m.state) {
				t.Fatalf("seed %d: %v since %v, want %v since %v", seed, m.state, m.since, slow.state, slow.since)
			}
			if changed && m.why == "" {
				t.Fatal("it does not say why")
			}
			seen[m.state]++
			now = now.Add(time.Duration(r.Int64N(int64(2 * interval))))
		}
	}
	for s := Healthy; s <= Down; s++ {
		if seen[s] < 1000 {
			t.Errorf("%v was seen %d times: the test shows nothing", s, seen[s])
		}
	}
}

// The published thresholds, step by step.
func TestPublishedThresholds(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	m := newMachine(published(), now)
	after := func(wait time.Duration, answered bool, want State) {
		t.Helper()
		now = now.Add(wait)
		if m.take(now, now, answered); m.state != want {
			t.Fatalf("%v (%s), want %v", m.state, m.why, want)
		}
	}
	for range 100 {
		after(time.Second, true, Healthy)
	}
	after(time.Second, false, Healthy) // one of a hundred is more than 0.1 %, and not two
	after(time.Second, true, Healthy)
	after(time.Second, false, Degraded)
	for range 299 {
		after(time.Second, true, Degraded) // thirty were clean, and five minutes are not over
	}
	after(time.Second, true, Healthy)
	after(time.Second, false, Healthy) // what was before does not count twice
	after(300*time.Millisecond, false, Degraded)
	after(300*time.Millisecond, false, Down) // all three of the last second
	after(time.Second, true, Down)
	after(time.Second, true, Down)
	after(time.Second, false, Down)
	after(time.Second, true, Down)
	after(time.Second, true, Down)
	after(time.Second, true, Degraded)
	after(time.Second, false, Degraded)
	after(time.Second, false, Degraded)
	after(time.Second, false, Degraded) // three, and not within a second
}
