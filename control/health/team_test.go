package health

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A fleet are nodes, with the ways of each to one customer.
type fleetBed struct {
	t       *testing.T
	mu      sync.Mutex // guards what follows
	probers map[string]*Prober
	stops   map[string]context.CancelFunc
	centers map[string]string // node -> data center
	cut     map[string]bool   // nodes whose way to the customer is broken
	lose    func(n int) bool  // whether the n-th probe is lost
	sent    []sentProbe
	states  map[string][]State
	at      map[string]time.Time // the last change of a node's state
	delay   time.Duration        // of what they tell each other
	told    time.Duration        // a nanosecond for each that was told
}

type sentProbe struct {
	node string
	at   time.Time
}

func newFleet(t *testing.T) *fleetBed {
	return &fleetBed{t: t, probers: map[string]*Prober{}, stops: map[string]context.CancelFunc{}, centers: map[string]string{}, cut: map[string]bool{}, states: map[string][]State{},
		at: map[string]time.Time{}, delay: 5 * time.Millisecond}
}

// add starts a node.
func (f *fleetBed) add(name, center string, tunnel Tunnel) {
	o := Options{Node: name, Datacenter: center}
	o.Send = func(_ string, packet []byte) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		n := len(f.sent)
		f.sent = append(f.sent, sentProbe{name, time.Now()})
		if f.cut[name] || f.lose != nil && f.lose(n) {
			return true
		}
		answer, p := answerTo(packet), f.probers[name]
		time.AfterFunc(20*time.Millisecond, func() { p.Answer(answer) })
		return true
	}
	o.OnState = func(r Report) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.states[name], f.at[name] = append(f.states[name], r.State), time.Now()
	}
	o.Tell = func(message []byte, all bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for other, p := range f.probers {
			if other != name && (all || f.centers[other] == center) {
				f.told++
				time.AfterFunc(f.delay+f.told, func() { // in order
					if err := p.Hear(message); err != nil {
						f.t.Error(err)
					}
				})
			}
		}
	}
	p := New(o)
	ctx, stop := context.WithCancel(f.t.Context())
	f.mu.Lock()
	f.probers[name], f.centers[name], f.stops[name] = p, center, stop
	f.mu.Unlock()
	p.SetTunnels([]Tunnel{tunnel})
	go p.Run(ctx)
}

// remove has nothing given to a node any more.
func (f *fleetBed) remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.probers, name)
}

func (f *fleetBed) end() {
	for _, stop := range f.stops {
		stop()
	}
	time.Sleep(time.Minute)
}

// rate counts the probes of some seconds.
func (f *fleetBed) rate(seconds int) float64 {
	before := len(f.sent)
	time.Sleep(time.Duration(seconds) * time.Second)
	return float64(len(f.sent)-before) / float64(seconds)
}

// However many nodes a data center has, and data centers the fleet, a tunnel gets no more probes than is said.
func TestTeamRate(t *testing.T) {
	for _, c := range []struct {
		nodes, centers int
		interval       time.Duration
		want           float64
	}{{1, 1, time.Second, 1}, {10, 1, time.Second, 1}, {3, 4, time.Second, 4}, {2, 40, time.Second, 20}, {3, 1, 100 * time.Millisecond, 10}, {4, 5, 100 * time.Millisecond, 20}} {
		t.Run(fmt.Sprintf("%d nodes in each of %d data centers", c.nodes, c.centers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				tunnel := tunnelOf(Request, false, func(t *Tunnel) { t.Interval = c.interval })
				for i := range c.nodes * c.centers {
					f.add(fmt.Sprintf("edge-%d", i), fmt.Sprintf("dc-%d", i%c.centers), tunnel)
				}
				time.Sleep(30 * time.Second) // until they know each other
				from := len(f.sent)
				if rate := f.rate(60); rate < c.want*0.9 || rate > c.want*1.05 {
					t.Errorf("%.1f probes a second, want %v", rate, c.want)
				}
				if c.centers == 1 { // one an interval, of another node each time
					for i, s := range f.sent[from+1:] {
						if gap := s.at.Sub(f.sent[from+i].at); gap < c.interval*9/10 || gap > c.interval*11/10 || c.nodes > 1 && s.node == f.sent[from+i].node {
							t.Fatalf("%v after %v", s, f.sent[from+i])
						}
					}
				}
				quiet := len(f.sent)
				f.lose = func(int) bool { return true }
				time.Sleep(10 * time.Second)
				f.lose = nil
				time.Sleep(10 * time.Second)
				// In no second are there more than the regular ones, what they ask because of the change, and the retries of both.
				for i, s := range f.sent[quiet:] {
					n, _ := slices.BinarySearchFunc(f.sent[quiet+i:], s.at.Add(time.Second), func(s sentProbe, at time.Time) int { return s.at.Compare(at) })
					if limit := (FleetRate+askRate)*(1+tunnel.Retry) + c.nodes*c.centers; n > limit {
						t.Fatalf("%d probes in a second, want %d at most", n, limit)
					}
				}
				f.end()
			})
		})
	}
}

// When a tunnel carries nothing any more all nodes know it soon, each by its own probes; likewise when it is back.
func TestTeamNoticesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for i := range 10 {
			f.add(fmt.Sprintf("edge-%d", i), "fra", tunnelOf(Request, false))
		}
		time.Sleep(time.Minute)
		f.lose = func(int) bool { return true }
		dead := time.Now()
		time.Sleep(10 * time.Second)
		for name := range f.probers {
			if s := f.states[name]; len(s) == 0 || s[len(s)-1] != Down || f.at[name].Sub(dead) > 1900*time.Millisecond {
				t.Errorf("%s: %v, %v after", name, s, f.at[name].Sub(dead))
			}
		}
		f.lose = nil
		back := time.Now()
		time.Sleep(30 * time.Second)
		for name := range f.probers {
			if s := f.states[name]; s[len(s)-1] != Degraded || f.at[name].Sub(back) > 5*time.Second {
				t.Errorf("%s: %v, %v after it was back", name, s, f.at[name].Sub(back))
			}
		}
		time.Sleep(10 * time.Minute)
		for name := range f.probers {
			if s := f.states[name]; s[len(s)-1] != Healthy {
				t.Errorf("%s: %v", name, s)
			}
		}
		f.end()
	})
}

// A node whose own way is broken finds the tunnel down, and the others do not; each says so.
func TestTeamOneNodeIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for i := range 5 {
			f.add(fmt.Sprintf("edge-%d", i), "fra", tunnelOf(Request, false))
		}
		time.Sleep(time.Minute)
		f.cut["edge-3"] = true
		cut := time.Now()
		time.Sleep(time.Minute)
		for name := range f.probers {
			s := f.states[name]
			if name == "edge-3" {
				if len(s) == 0 || s[len(s)-1] != Down || f.at[name].Sub(cut) > 6*time.Second {
					t.Errorf("%s: %v", name, s)
				}
			} else if len(s) > 0 {
				t.Errorf("%s: %v", name, s)
			}
			h := f.probers[name].Everywhere()["cust-a"][0]
			if h.Down != 1 || h.Healthy != 4 || h.State != Degraded || !slices.Contains(h.Disagree, "edge-3") {
				t.Errorf("%s shows %+v", name, h)
			}
		}
		f.cut["edge-3"] = false
		time.Sleep(20 * time.Minute)
		for name := range f.probers {
			if h := f.probers[name].Everywhere()["cust-a"][0]; h.State != Healthy || h.Healthy != 5 || len(h.Disagree) > 0 {
				t.Errorf("afterwards %s shows %+v", name, h)
			}
		}
		f.end()
	})
}

// What is lost now and then all nodes see together: a node's own probes would be too few.
func TestTeamLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for i := range 10 {
			f.add(fmt.Sprintf("edge-%d", i), "fra", tunnelOf(Request, false, func(t *Tunnel) { t.Thresholds.Failures = 3 }))
		}
		time.Sleep(time.Minute)
		f.lose = func(n int) bool { return n%50 == 0 }
		time.Sleep(4 * time.Minute)
		for name := range f.probers {
			if s := f.states[name]; !slices.Equal(s, []State{Degraded}) {
				t.Errorf("%s: %v", name, s)
			}
		}
		f.end()
	})
}

// A node that leaves, or dies, is not waited for; another takes its turns.
func TestTeamChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for i := range 3 {
			f.add(fmt.Sprintf("edge-%d", i), "fra", tunnelOf(Request, false))
		}
		time.Sleep(10 * time.Second)
		f.stops["edge-1"]()
		f.remove("edge-1")
		time.Sleep(100 * time.Millisecond)
		if got := f.probers["edge-0"].team.members; !slices.Equal(got, []string{"edge-0", "edge-2"}) {
			t.Errorf("after a goodbye: %v", got)
		}
		silent := f.probers["edge-2"]
		silent.opts.Tell = func([]byte, bool) {}
		time.Sleep(5 * time.Second)
		if got := f.probers["edge-0"].team.members; !slices.Equal(got, []string{"edge-0"}) {
			t.Errorf("of one that says nothing: %v", got)
		}
		if rate := f.rate(60); rate < 1.4 || rate > 1.6 { // the silent one thinks that it shares
			t.Errorf("%.2f probes a second", rate)
		}
		f.end()
	})
}

// A node that has left goes on for itself, and does not wake up all the time.
func TestLeft(t *testing.T) {
	onRouter(t, tunnelOf(Request, false), func(t *testing.T, r *router) {
		told := 0
		r.prober.mu.Lock()
		r.prober.opts.Tell = func([]byte, bool) { told++ }
		r.prober.mu.Unlock()
		time.Sleep(10 * time.Second)
		r.prober.Leave()
		before := told
		r.lose = func(int) bool { return true }
		time.Sleep(time.Minute)
		if told != before || r.prober.Reports()[0].State != Down {
			t.Errorf("%d messages after the goodbye: %+v", told-before, r.prober.Reports()[0])
		}
		for range 5 {
			if wait := r.prober.turn(time.Now()); wait <= 0 {
				t.Errorf("it is to be called again after %v", wait)
			}
		}
	})
}

// Each data center knows how the others find a tunnel.
func TestDatacenters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for i := range 6 {
			f.add(fmt.Sprintf("edge-%d", i), []string{"fra", "lis", "ams"}[i%3], tunnelOf(Request, false))
		}
		time.Sleep(time.Minute)
		f.cut["edge-1"], f.cut["edge-4"] = true, true // lis
		time.Sleep(time.Minute)
		for name, p := range f.probers {
			list := p.Everywhere()["cust-a"]
			if len(list) != 3 || list[0].Datacenter != f.centers[name] {
				t.Fatalf("%s: %+v", name, list)
			}
			for _, s := range list {
				want := Healthy
				if s.Datacenter == "lis" {
					want = Down
				}
				if s.State != want || s.Healthy+s.Degraded+s.Down != 2 {
					t.Errorf("%s: %+v", name, s)
				}
				if s.Answered < 40 || s.Answered > 130 || s.Lost > 0 != (s.Datacenter == "lis") { // one probe a second, and retries
					t.Errorf("%s: probes of %s: %+v", name, s.Datacenter, s.Counts)
				}
			}
			if got := Fleet(list); got != Degraded { // two of three pass
				t.Errorf("the fleet: %v", got)
			}
		}
		f.end()
	})
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		healthy, degraded, down int
		want                    State
	}{{1, 0, 0, Healthy}, {0, 1, 0, Degraded}, {0, 0, 1, Down}, {9, 0, 1, Healthy}, {8, 0, 2, Degraded}, {4, 0, 6, Degraded}, {3, 1, 6, Down}, {0, 10, 0, Degraded}, {7, 3, 0, Healthy}, {6, 4, 0, Degraded}} {
		if got := verdict(c.healthy, c.degraded, c.down); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// FuzzHear: nothing that is told stops a node, and what is read is what was written.
func FuzzHear(f *testing.F) {
	f.Add(evidence{node: "edge-2", leaving: true, knows: true}.marshal())
	f.Add(evidence{node: "edge-2", findings: []finding{{7, 1, 2, Degraded, true, false, false}, {8, 0, 0, Down, false, true, true}}}.marshal())
	f.Add(appendSummary([]byte{kindSummary, 0, 3, 'f', 'r', 'a', 2, 'n', '1'}, tag("cust-a"), Summary{Healthy: 3, Down: 1}))
	f.Add(appendCounts([]byte{kindCounts, 0, 3, 'f', 'r', 'a', 2, 'n', '1'}, tag("cust-a"), Counts{1, 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := New(Options{Node: "edge-1", Datacenter: "lis", OnState: func(Report) {}, Send: func(string, []byte) bool { return true }})
		p.SetTunnels([]Tunnel{tunnelOf(Reply, false)})
		_ = p.Hear(b)
		p.turn(time.Now())
		p.Everywhere()
		if e, err := parseEvidence(b); err == nil {
			again, err := parseEvidence(e.marshal())
			if err != nil || again.node != e.node || again.leaving != e.leaving || !slices.Equal(again.findings, e.findings) {
				t.Errorf("%+v, %v, want %+v", again, err, e)
			}
		}
	})
}

// A change is told to whoever wants to know by one node of each data center, and once.
func TestVerdictsAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var told []string
		for i := range 6 {
			name, center := fmt.Sprintf("edge-%d", i), []string{"fra", "lis"}[i%2]
			f.add(name, center, tunnelOf(Request, false))
			f.probers[name].opts.OnVerdict = func(was State, s Summary, r Report) {
				f.mu.Lock()
				defer f.mu.Unlock()
				told = append(told, fmt.Sprint(s.Datacenter, " ", was, " ", s.State))
			}
		}
		time.Sleep(time.Minute)
		f.lose = func(int) bool { return true }
		time.Sleep(time.Minute)
		f.lose = nil
		time.Sleep(20 * time.Minute)
		for _, center := range []string{"fra", "lis"} {
			var states []string
			for _, s := range told {
				if rest, ok := strings.CutPrefix(s, center+" "); ok {
					states = append(states, rest)
				}
			}
			if len(states) < 2 || states[len(states)-1] != "degraded healthy" || !slices.ContainsFunc(states, func(s string) bool { return strings.HasSuffix(s, " down") }) || len(states) > 4 {
				t.Errorf("%s: %q", center, states)
			}
		}
		f.end()
	})
}

// All nodes find alike who speaks BFD for a tunnel; the sessions are spread, and when a node goes only its own move.
func TestSpeakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var tunnels []Tunnel
		for i := range 300 {
			tunnels = append(tunnels, Tunnel{Name: fmt.Sprint("t", i), Silent: true, BFD: true, Thresholds: published()})
		}
		for i := range 6 {
			name := fmt.Sprintf("edge-%d", i)
			f.add(name, []string{"fra", "lis"}[i%2], tunnelOf(Request, false))
			f.probers[name].SetTunnels(tunnels)
		}
		time.Sleep(time.Minute)
		// speaker follows a packet from a node to the one that speaks.
		speaker := func(from, tunnel string) string {
			for range maxHops {
				if to := f.probers[from].Speaker(tunnel); to == from || f.probers[to] == nil {
					return to
				} else {
					from = to
				}
			}
			return "nobody"
		}
		var started time.Time // of the last node
		all := func() map[string]string {
			of := map[string]string{}
			for _, x := range tunnels {
				for name := range f.probers {
					s := speaker(name, x.Name)
					if s == "" && name == "edge-6" && time.Since(started) < 3*time.Second { // it has heard nobody
						continue
					}
					if of[x.Name] == "" {
						of[x.Name] = s
					}
					if s != of[x.Name] || f.probers[s] == nil {
						t.Fatalf("%s: %s finds %s, another one %s", x.Name, name, s, of[x.Name])
					}
				}
			}
			return of
		}
		before := all()
		share := map[string]int{}
		for _, s := range before {
			share[s]++
		}
		for name := range f.probers {
			if share[name] < 20 {
				t.Errorf("%s speaks for %d of 300 tunnels: %v", name, share[name], share)
			}
		}
		started = time.Now()
		f.add("edge-6", "fra", tunnelOf(Request, false)) // one that starts takes nothing from anybody
		f.probers["edge-6"].SetTunnels(tunnels)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			for tunnel, s := range all() {
				if s != before[tunnel] {
					t.Fatalf("%s: %s spoke, and now %s does", tunnel, before[tunnel], s)
				}
			}
		}
		time.Sleep(time.Minute)
		for tunnel, s := range all() {
			if s != before[tunnel] && s != "edge-6" {
				t.Errorf("%s: %s spoke, and now %s does", tunnel, before[tunnel], s)
			}
			before[tunnel] = s
		}
		f.stops["edge-3"]()
		time.Sleep(time.Second)
		f.remove("edge-3")
		time.Sleep(time.Minute)
		for tunnel, s := range all() {
			if before[tunnel] != "edge-3" && s != before[tunnel] {
				t.Errorf("%s: %s spoke, and now %s does", tunnel, before[tunnel], s)
			}
		}
		f.end()
	})
}

// maxHops is how often a packet of BFD is passed on, and one more.
const maxHops = 4
