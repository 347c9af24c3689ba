package health

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// What BFD and IKE say counts at once, beside probes and without them; and when they take it back, after a while.
func TestSignals(t *testing.T) {
	for _, silent := range []bool{false, true} {
		onRouter(t, tunnelOf(Request, false, func(t *Tunnel) { t.Silent = silent }), func(t *testing.T, r *router) {
			time.Sleep(time.Minute)
			if silent && len(r.sent) > 0 {
				t.Fatalf("%d probes are sent", len(r.sent))
			}
			states := func(want ...State) {
				t.Helper()
				time.Sleep(time.Millisecond)
				if !slices.Equal(r.states, want) {
					t.Errorf("silent %v: %v, want %v: %+v", silent, r.states, want, r.prober.Reports()[0])
				}
				r.states = nil
			}
			say := func(from Source, down bool) {
				r.prober.Signal("cust-a", from, down, "somebody says so", 30*time.Second)
			}
			say(BFD, false)
			states()
			say(BFD, true)
			say(BFD, true)
			states(Down)
			if s := r.prober.Reports()[0]; s.Why != "somebody says so" || s.Was != Healthy {
				t.Errorf("%+v", s)
			}
			say(IKE, true)
			say(BFD, false)
			states() // IKE says so still
			say(IKE, false)
			states(Degraded)
			time.Sleep(29 * time.Second)
			states()
			time.Sleep(2 * time.Second)
			states(Healthy)
			say(IKE, true)
			r.prober.Signal("cust-a", IKE, false, "", 0)
			states(Down, Healthy)
			r.prober.Signal("nobody", IKE, true, "", 0)
			states()
		})
	}
}

// What others say of a tunnel outlasts a change of how it is probed; what says nothing any more does not.
func TestSignalsOutlastAChange(t *testing.T) {
	onRouter(t, tunnelOf(Request, false, func(t *Tunnel) { t.BFD = true }), func(t *testing.T, r *router) {
		time.Sleep(time.Minute)
		r.prober.Signal("cust-a", BFD, true, "BFD says so", 0)
		set := func(change ...func(*Tunnel)) State {
			r.prober.SetTunnels([]Tunnel{tunnelOf(Request, false, change...)})
			time.Sleep(time.Second)
			return r.prober.Reports()[0].State
		}
		bfd := func(t *Tunnel) { t.BFD = true }
		if s := set(bfd, func(t *Tunnel) { t.Interval = 2 * time.Second }); s != Down {
			t.Errorf("another interval: %v", s)
		}
		if s := set(bfd, func(t *Tunnel) { t.Silent = true }); s != Down {
			t.Errorf("without probes: %v", s)
		}
		if s := set(func(t *Tunnel) { t.Interval = 3 * time.Second }); s != Healthy {
			t.Errorf("without BFD: %v", s)
		}
		r.prober.Signal("cust-a", IKE, true, "IKE says so", 0)
		if s := set(); s != Down {
			t.Errorf("IKE: %v", s)
		}
		r.prober.Signal("cust-a", IKE, false, "", 0)
		if s := r.prober.Reports()[0].State; s != Healthy {
			t.Errorf("and no more: %v", s)
		}
		set(bfd)
		r.prober.Signal("cust-a", BFD, true, "BFD says so", 0)
		r.prober.Release("cust-a")
		if s := r.prober.Reports()[0].State; s != Healthy {
			t.Errorf("another node has the session: %v", s)
		}
	})
}

// A tunnel that BFD has found down while its probes found it degraded is degraded again when BFD is up: from then on, and for both reasons.
func TestDegradedAgain(t *testing.T) {
	onRouter(t, tunnelOf(Request, false, func(t *Tunnel) { t.BFD, t.Thresholds.Hold = true, time.Hour }), func(t *testing.T, r *router) {
		r.lose = func(n int) bool { return n > 20 && n < 26 }
		time.Sleep(10 * time.Minute)
		if s := r.prober.Reports()[0]; s.State != Degraded {
			t.Fatalf("%+v", s)
		}
		r.prober.Signal("cust-a", BFD, true, "BFD: nothing came in time", 0)
		time.Sleep(time.Minute)
		r.prober.Signal("cust-a", BFD, false, "BFD is up again", 30*time.Second)
		s := r.prober.Reports()[0]
		if s.State != Degraded || time.Since(s.Since) > time.Second || !strings.HasPrefix(s.Why, "down no more (BFD: nothing came in time); as before: was down, and") {
			t.Errorf("since %v: %q, %v", time.Since(s.Since), s.Why, s.State)
		}
	})
}

// A tunnel that is probed otherwise begins anew, and whoever wants to know is told so.
func TestBeginsAnew(t *testing.T) {
	onRouter(t, tunnelOf(Request, false), func(t *testing.T, r *router) {
		var verdicts []State
		r.prober.mu.Lock()
		r.prober.opts.OnVerdict = func(_ State, s Summary, _ Report) { verdicts = append(verdicts, s.State) }
		r.prober.mu.Unlock()
		time.Sleep(time.Minute)
		if why := r.prober.Reports()[0].Why; why != "its probes are answered" {
			t.Errorf("it is healthy, because %q", why)
		}
		r.lose = func(int) bool { return true }
		time.Sleep(time.Minute)
		r.states, r.lose = nil, nil
		r.prober.SetTunnels([]Tunnel{tunnelOf(Request, false, func(t *Tunnel) { t.Interval = 2 * time.Second })})
		time.Sleep(time.Second)
		if s := r.prober.Reports()[0]; s.Was != Down || s.Why != "it begins anew: how it is probed has been changed" || !slices.Equal(r.states, []State{Healthy}) {
			t.Errorf("%+v, %v", s, r.states)
		}
		if !slices.Equal(verdicts, []State{Degraded, Down, Healthy}) && !slices.Equal(verdicts, []State{Down, Healthy}) {
			t.Errorf("told: %v", verdicts)
		}
		r.prober.SetTunnels([]Tunnel{tunnelOf(Request, false, func(t *Tunnel) { t.Interval = 3 * time.Second })})
		if len(r.states) != 1 {
			t.Errorf("one that was healthy: %v", r.states)
		}
	})
}
