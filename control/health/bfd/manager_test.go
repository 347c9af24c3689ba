package bfd

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A pair is two ends of a tunnel.
type pair struct {
	ends   [2]*Manager
	cut    [2]bool // what the end says is lost
	said   [2][]time.Time
	states [2][]State
	at     [2]time.Time
	stops  [2]context.CancelFunc
}

const delay = 20 * time.Millisecond

func tunnelsOf(timing [2]Timing) [2]Tunnel {
	return [2]Tunnel{{"t", four, timing[0]}, {"t", four.other(), timing[1]}}
}

func newPair(t *testing.T, timing [2]Timing) *pair {
	p := new(pair)
	for i := range p.ends {
		p.ends[i] = New(Options{
			Send: func(tunnel string, packet []byte) bool {
				p.said[i] = append(p.said[i], time.Now())
				if !p.cut[i] {
					time.AfterFunc(delay, func() { p.ends[1-i].Input(tunnel, packet) })
				}
				return true
			},
			OnState: func(r Report) { p.states[i], p.at[i] = append(p.states[i], r.State), time.Now() },
		})
		ctx, stop := context.WithCancel(t.Context())
		p.stops[i] = stop
		p.ends[i].SetTunnels([]Tunnel{tunnelsOf(timing)[i]})
		p.ends[i].SetHere(func(string) bool { return true })
		go p.ends[i].Run(ctx)
	}
	return p
}

func (p *pair) end() {
	for _, stop := range p.stops {
		stop()
	}
	time.Sleep(time.Minute)
}

func (p *pair) report(i int) Report { return p.ends[i].Reports()[0] }

var quick = Timing{100 * time.Millisecond, 3}

// Two ends come up, notice within the detection time that nothing comes, whichever way is cut, and come up again.
func TestPair(t *testing.T) {
	for cut := range 3 { // this end's way, the other's, both
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, [2]Timing{quick, quick})
			time.Sleep(3 * time.Second)
			for i := range p.ends {
				if r := p.report(i); r.State != Up || r.Detection != 300*time.Millisecond || !slices.Equal(p.states[i], []State{Up}) {
					t.Fatalf("end %d: %+v", i, r)
				}
			}
			before := len(p.said[0])
			time.Sleep(10 * time.Second)
			if n := len(p.said[0]) - before; n < 100 || n > 134 {
				t.Errorf("%d packets in ten seconds", n)
			}
			broken := time.Now()
			p.cut = [2]bool{cut != 1, cut != 0}
			time.Sleep(5 * time.Second)
			for i := range p.ends {
				r := p.report(i)
				if r.State == Up || p.at[i].Sub(broken) > 300*time.Millisecond+3*delay {
					t.Errorf("cut %d: end %d: %+v, after %v", cut, i, r, p.at[i].Sub(broken))
				}
				if hears := cut == i; (r.Diagnostic == NeighborSaidDown) != hears && cut < 2 {
					t.Errorf("cut %d: end %d says %q", cut, i, r.Diagnostic)
				}
			}
			slow := len(p.said[0])
			time.Sleep(10 * time.Second)
			if n := len(p.said[0]) - slow; n > 28 { // its own, and an answer to each Poll of the other end
				t.Errorf("%d packets in ten seconds while it is down", n)
			}
			p.cut = [2]bool{}
			time.Sleep(5 * time.Second)
			for i := range p.ends {
				if r := p.report(i); r.State != Up || r.Changes < 4 {
					t.Errorf("cut %d: end %d afterwards: %+v", cut, i, r)
				}
			}
			p.end()
		})
	}
}

// What ends want differs: each sends as often as both allow, and waits as long as the other end's packets may take.
func TestPairDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, [2]Timing{{50 * time.Millisecond, 4}, {500 * time.Millisecond, 2}})
		time.Sleep(5 * time.Second)
		if a, b := p.report(0), p.report(1); a.State != Up || b.State != Up || a.Detection != time.Second || b.Detection != 2*time.Second {
			t.Errorf("%+v, %+v", a, b)
		}
		before := len(p.said[0])
		time.Sleep(20 * time.Second)
		if n := len(p.said[0]) - before; n < 40 || n > 55 {
			t.Errorf("%d packets in 20 s", n)
		}
		p.end()
	})
}

// A session that is taken out tells the other end, which knows then that it is no failure.
func TestPairEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, [2]Timing{quick, quick})
		time.Sleep(3 * time.Second)
		p.ends[0].SetTunnels(nil)
		time.Sleep(time.Second)
		if r := p.report(1); r.State != Down || r.Remote != AdminDown || r.RemoteDiagnostic != AdministrativelyDown || len(p.ends[0].queue) != 0 {
			t.Errorf("%+v", r)
		}
		p.end()
	})
}

// Of several nodes one has the session. Another one that takes it over is a new session for the other end.
func TestPairMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, [2]Timing{quick, quick})
		time.Sleep(3 * time.Second)
		p.ends[0].SetHere(func(string) bool { return false })
		before := len(p.said[0])
		time.Sleep(2 * time.Second)
		if r := p.report(1); r.State != Down || r.Diagnostic != DetectionExpired || len(p.said[0]) != before || p.ends[0].Here("t") {
			t.Errorf("%+v", r)
		}
		p.ends[0].SetHere(func(string) bool { return true })
		time.Sleep(3 * time.Second)
		if a, b := p.report(0), p.report(1); a.State != Up || b.State != Up || !a.Here {
			t.Errorf("%+v, %+v", a, b)
		}
		p.end()
	})
}

// Packets for other sessions, and those with mistakes, are counted and change nothing.
func TestPairIsNotDeceived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, [2]Timing{quick, quick})
		time.Sleep(3 * time.Second)
		other := four.other()
		far := other.packet(&Control{State: Down, Multiplier: 3, Mine: 1, Yours: p.ends[0].sessions["t"].mine})
		far[8] = 254
		for _, b := range [][]byte{other.packet(&Control{State: Down, Multiplier: 3, Mine: 1, Yours: p.ends[0].sessions["t"].mine + 1}), far, nil, {0x45}} {
			p.ends[0].Input("t", b)
		}
		p.ends[0].Input("another", other.packet(&Control{State: Down, Multiplier: 3, Mine: 1}))
		if r := p.report(0); r.State != Up || r.Wrong != 4 || r.WhyWrong == "" {
			t.Errorf("%+v", r)
		}
		p.end()
	})
}
