package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/health"
	"causeway/pipeline/wire"
)

// The health scenario: nodes of one data center share the probing of many tunnels, in one process. Answers come back after a moment from
// routers that do nothing else; what nodes tell each other is given to the others as it is. Nothing of workers, encryption or NATS is in the
// figures.

const (
	healthRTT   = 20 * time.Millisecond
	healthDelay = 2 * time.Millisecond // until another node has what was told
)

// A healthFleet are the nodes, and the tunnels that are broken.
type healthFleet struct {
	probers []*health.Prober
	tunnels int
	broken  []atomic.Bool
	sent    []atomic.Uint32 // probes, by tunnel
	answers chan delayed    // each in the order in which it is due
	told    chan delayed

	mu   sync.Mutex
	down map[int]map[int]time.Time // when a node found a tunnel down, by tunnel and node
}

// delayed is something that is to be done at a time.
type delayed struct {
	at time.Time
	do func()
}

func healthScenario(o options, report func(Result)) error {
	nodes, tunnels, span := 10, 10_000, 20*time.Second
	if o.quick {
		nodes, tunnels, span = 4, 200, 3*time.Second
	}
	f := &healthFleet{tunnels: tunnels, broken: make([]atomic.Bool, tunnels), sent: make([]atomic.Uint32, tunnels), answers: make(chan delayed, 1<<20), told: make(chan delayed, 1<<16), down: map[int]map[int]time.Time{}}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { deliver(ctx, f.answers) })
	all.Go(func() { deliver(ctx, f.told) })
	f.begin(ctx, &all, nodes)
	if err := f.settle(tunnels, o.quick); err != nil {
		return err
	}

	before := f.total()
	cpu, began := cpuTime(), time.Now()
	time.Sleep(span)
	used, took := cpuTime()-cpu, time.Since(began)
	probes := f.total() - before
	perTunnel := float64(probes) / float64(tunnels) / took.Seconds()
	report(Result{Name: fmt.Sprintf("health/%d tunnels, %d nodes, high: a probe", tunnels, nodes), Unit: "probe", PPS: float64(probes) / used.Seconds(), NS: float64(used) / float64(probes),
		Note: fmt.Sprintf("%.2f probes a second and tunnel, of all nodes; %.1f %% of a core for each node", perTunnel, 100*used.Seconds()/took.Seconds()/float64(nodes))})
	if perTunnel > 1.05 || perTunnel < 0.9 {
		return fmt.Errorf("%.2f probes a second and tunnel, want one", perTunnel)
	}
	if err := f.breakSome(tunnels-1, 1, nodes, report); err != nil {
		return err
	}
	return f.breakSome(0, tunnels/10, nodes, report)
}

// begin starts the nodes.
func (f *healthFleet) begin(ctx context.Context, all *sync.WaitGroup, nodes int) {
	published := health.Thresholds{Loss: 0.001, Over: 5 * time.Minute, Failures: 2, Samples: 3, Within: time.Second, Successes: 3, Clean: 30, Hold: 5 * time.Minute}
	var list []health.Tunnel
	number := map[string]int{}
	for i := range f.tunnels {
		name := fmt.Sprintf("tunnel-%d", i)
		number[name] = i
		own := netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)})
		list = append(list, health.Tunnel{Name: name, Kind: health.Request, Source: own, Target: own.Next(), Interval: time.Second, Retry: 2, Thresholds: published})
	}
	for i := range nodes {
		var p *health.Prober
		p = health.New(health.Options{Node: fmt.Sprintf("edge-%d", i), Datacenter: "bench",
			Send: func(tunnel string, packet []byte) bool {
				n := number[tunnel]
				f.sent[n].Add(1)
				if !f.broken[n].Load() {
					later(f.answers, healthRTT, func() { p.Answer(echoed(packet)) })
				}
				return true
			},
			OnState: func(r health.Report) {
				if r.State == health.Down {
					f.found(number[r.Tunnel], i)
				}
			},
			Tell: func(message []byte, _ bool) {
				later(f.told, healthDelay, func() {
					for j, other := range f.probers {
						if j != i {
							_ = other.Hear(message)
						}
					}
				})
			}})
		f.probers = append(f.probers, p)
	}
	for _, p := range f.probers {
		p.SetTunnels(list)
		all.Go(func() { p.Run(ctx) })
	}
}

// echoed turns an echo request round.
func echoed(packet []byte) []byte {
	b := slices.Clone(packet)
	wire.EchoReply4(b)
	return b
}

// later has do done, or lost if too much waits already, as in a network: nodes that waited for each other here would do so for ever.
func later(list chan<- delayed, after time.Duration, do func()) {
	select {
	case list <- delayed{time.Now().Add(after), do}:
	default:
	}
}

// deliver does what is due, until ctx is done.
func deliver(ctx context.Context, list <-chan delayed) {
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-list:
			if wait := time.Until(x.at); wait > time.Millisecond { // a shorter sleep takes longer
				time.Sleep(wait)
			}
			x.do()
		}
	}
}

func (f *healthFleet) found(tunnel, node int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down[tunnel] == nil {
		f.down[tunnel] = map[int]time.Time{}
	}
	if _, known := f.down[tunnel][node]; !known {
		f.down[tunnel][node] = time.Now()
	}
}

func (f *healthFleet) total() (n uint64) {
	for i := range f.sent {
		n += uint64(f.sent[i].Load())
	}
	return n
}

// settle waits until the nodes know each other, how long answers take, and that no tunnel is down: ten nodes that begin at one moment have two
// cores here.
func (f *healthFleet) settle(tunnels int, quick bool) error {
	step := 5 * time.Second
	if quick {
		step = time.Second
	}
	quiet := 0
	for range 24 {
		before := f.total()
		time.Sleep(step)
		if rate := float64(f.total()-before) / float64(tunnels) / step.Seconds(); rate > 1.05 || rate < 0.9 || f.downs() > 0 {
			quiet = 0
		} else if quiet++; quiet == 4 {
			return nil
		}
	}
	return fmt.Errorf("the nodes do not come to rest: %d times a node finds a tunnel down that is not", f.downs())
}

// downs is how many times a node finds one of the tunnels down.
func (f *healthFleet) downs() (n int) {
	for _, p := range f.probers {
		p.Each(func(r health.Report) {
			if r.State == health.Down {
				n++
			}
		})
	}
	return n
}

// breakSome breaks n tunnels from one on, and reports how long it takes until every node knows of each.
func (f *healthFleet) breakSome(from, n, nodes int, report func(Result)) error {
	f.mu.Lock()
	clear(f.down)
	f.mu.Unlock()
	broken := time.Now()
	for i := range n {
		f.broken[from+i].Store(true)
	}
	var times []float64
	for end := broken.Add(30 * time.Second); len(times) < n*nodes; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d times a node has found one of %d tunnels down", len(times), n*nodes, n)
		}
		times = times[:0]
		f.mu.Lock()
		for i := range n {
			for _, at := range f.down[from+i] {
				times = append(times, float64(at.Sub(broken)))
			}
		}
		f.mu.Unlock()
	}
	slices.Sort(times)
	for i := range n {
		f.broken[from+i].Store(false)
	}
	report(Result{Name: fmt.Sprintf("health/%d of the tunnels break: until a node knows", n), Unit: "tunnel and node", NS: times[len(times)/2], PPS: 1e9 / times[len(times)/2], P99NS: times[len(times)*99/100], Samples: len(times),
		Note: fmt.Sprintf("%v until all nodes know of all", time.Duration(times[len(times)-1]).Round(time.Millisecond))})
	return nil
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
