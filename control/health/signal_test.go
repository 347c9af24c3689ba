package health

import (
	"slices"
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
