package bfd

import (
	"testing"
	"time"
)

// transitions is the diagram of RFC 5880, section 6.2, and the rules of section 6.8.6: what a session in a state becomes when the other end
// says its own.
var transitions = map[State]map[State]State{
	AdminDown: {AdminDown: AdminDown, Down: AdminDown, Init: AdminDown, Up: AdminDown},
	Down:      {AdminDown: Down, Down: Init, Init: Up, Up: Down},
	Init:      {AdminDown: Down, Down: Init, Init: Up, Up: Up},
	Up:        {AdminDown: Down, Down: Down, Init: Up, Up: Up},
}

func TestTransitions(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for from, row := range transitions {
		for said, want := range row {
			s := newSession(Timing{100 * time.Millisecond, 3}, 7, now)
			s.state = from
			changed, reply := s.take(&Control{State: said, Mine: 9, Multiplier: 3, MinRX: time.Second, MinTX: time.Second, Poll: true}, now)
			if s.state != want || changed != (from != want) || s.yours != 9 || reply != (from != AdminDown) {
				t.Errorf("%v, and the other end says %v: %v, want %v", from, said, s.state, want)
			}
			if changed && s.next != now {
				t.Errorf("%v, and the other end says %v: it does not say at once that it is %v", from, said, s.state)
			}
		}
	}
	for from, want := range map[State]State{AdminDown: AdminDown, Down: Down, Init: Down, Up: Down} {
		s := newSession(Timing{100 * time.Millisecond, 3}, 7, now)
		s.state, s.yours = from, 9
		if changed := s.expire(now); s.state != want || changed != (from != want) || s.yours != 0 || changed && s.diagnostic != DetectionExpired {
			t.Errorf("%v, and nothing came: %v", from, s.state)
		}
	}
}

// Times are those that both ends want (sections 6.8.2 to 6.8.7).
func TestTimes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const ms = time.Millisecond
	s := newSession(Timing{100 * ms, 3}, 7, now)
	between := func(what string, low, high time.Duration) {
		t.Helper()
		for range 1000 {
			if d := s.interval(); d < low || d > high {
				t.Fatalf("%s: %v, want %v to %v", what, d, low, high)
			}
		}
	}
	between("before it is up", 750*ms, 1000*ms)
	s.take(&Control{State: Init, Mine: 9, Multiplier: 5, MinRX: 300 * ms, MinTX: 50 * ms}, now)
	if s.state != Up || !s.polling {
		t.Errorf("up: %v, polling %v", s.state, s.polling)
	}
	between("the other end wants fewer", 225*ms, 300*ms)
	if d := s.detectionTime(); d != 500*ms { // five of what we want
		t.Errorf("detection time %v", d)
	}
	s.take(&Control{State: Up, Mine: 9, Yours: 7, Multiplier: 2, MinRX: 10 * ms, MinTX: 400 * ms, Final: true}, now)
	between("we want fewer", 75*ms, 100*ms)
	if d := s.detectionTime(); d != 800*ms || s.polling || s.detect != now.Add(d) {
		t.Errorf("detection time %v, polling %v", d, s.polling)
	}
	s.Multiplier = 1
	between("a multiplier of one", 75*ms, 90*ms)
	if s.take(&Control{State: Up, Mine: 9, Yours: 7, Multiplier: 2, MinRX: 0, MinTX: 400 * ms}, now); !s.silent() {
		t.Error("it says something to who wants nothing")
	}
	s.take(&Control{State: Down, Mine: 9, Yours: 7, Multiplier: 2, MinRX: time.Microsecond, MinTX: 400 * ms}, now)
	between("down again", 750*ms, 1000*ms)
}
