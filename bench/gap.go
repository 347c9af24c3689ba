package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"causeway/control/ike"
	"causeway/control/metrics"
	"causeway/control/pmtu"
	"causeway/control/routes"
	"causeway/control/tun"
	"causeway/pipeline"
	"causeway/pipeline/fib"
	"causeway/xsk"
)

// The gap scenario asks how long a worker does not look at its queues. It works without pause over memory, first with
// nothing else to do in the process, then while tables and routes change and metrics are scraped.

// What happens in the second part. A fleet does each of these a hundred times less often.
const (
	gapTunnels   = 1000
	gapRoutes    = 100000 // that stay
	routeRate    = 10000  // changes of other routes per second
	routeBurst   = 50     // that come together
	applyPause   = 50 * time.Millisecond
	scrapePause  = 100 * time.Millisecond
	reclaimPause = 5 * time.Millisecond // the route mirror's
)

// Gaps says how long a worker did not poll.
type Gaps struct {
	MaxNS     uint64      `json:"max_ns"`
	Histogram []GapBucket `json:"histogram"` // without empty buckets
	Applies   int         `json:"table_changes,omitempty"`
	Routes    int         `json:"route_changes,omitempty"`
	Scrapes   int         `json:"scrapes,omitempty"`
}

// A GapBucket counts the gaps below its bound and not below that of the bucket before.
type GapBucket struct {
	BelowNS uint64 `json:"below_ns"` // 0: no bound
	Count   uint64 `json:"count"`
}

// over counts the gaps of at least ns, which is the bound of a bucket.
func (g *Gaps) over(ns uint64) (n uint64) {
	for _, b := range g.Histogram {
		if b.BelowNS == 0 || b.BelowNS > ns {
			n += b.Count
		}
	}
	return n
}

func gapScenario(o options, report func(Result)) error {
	d := 4500 * time.Millisecond
	if o.quick {
		d = 200 * time.Millisecond
	}
	tuneAsDaemon()
	quiet, err := measureGap("gap/quiet", d, func(context.Context, *world) *Gaps { return &Gaps{} })
	if err != nil {
		return err
	}
	changing, err := measureGap("gap/changing", d, disturb)
	if err != nil {
		return err
	}
	changing.Against, changing.AgainstNS, changing.Ratio = "gap/quiet", quiet.NS, changing.NS/quiet.NS
	for _, r := range []Result{quiet, changing} {
		if strings.Contains(r.Name, o.only) {
			report(r)
		}
	}
	return nil
}

// tuneAsDaemon sets the runtime as `causeway run` does for one worker.
func tuneAsDaemon() {
	debug.SetGCPercent(400)
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 3))
}

// measureGap runs a worker for d beside other work, which fills in what it has done.
func measureGap(name string, d time.Duration, others func(context.Context, *world) *Gaps) (Result, error) {
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: frames, HugePages: true})
	if err != nil {
		return Result{}, err
	}
	defer u.Close()
	c := pipelineCase{kind: "encap", size: 64, tunnels: gapTunnels, routes: gapRoutes}
	q := &watchedPort{}
	w, err := newWorld(c, q, u)
	if err != nil {
		return Result{}, err
	}
	q.rotation = *newRotation(u, frames, func(int) []byte { return w.packet(c) })
	runtime.GC()
	w.engine.Poll(0) // the first gap is the time that building took: neither it nor its garbage is to be measured
	q.longest, q.before = 0, w.engine.Total()
	q.last = time.Now()

	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var wg sync.WaitGroup
	var g *Gaps
	wg.Go(func() { g = others(ctx, w) })
	err = w.engine.Run(ctx)
	wg.Wait()
	return gapResult(name, d, w.engine, q, g), err
}

// A watchedPort notices itself how long it was not asked: the worker's own maximum is that since it was made.
type watchedPort struct {
	rotation
	last    time.Time
	longest time.Duration
	before  pipeline.Counters // what was counted before the measurement
}

// Receive is called once in each poll.
func (p *watchedPort) Receive(d []xsk.Desc) int {
	now := time.Now()
	p.longest = max(p.longest, now.Sub(p.last))
	p.last = now
	return p.rotation.Receive(d)
}

func gapResult(name string, d time.Duration, e *pipeline.Engine, q *watchedPort, g *Gaps) Result {
	k := e.Total()
	g.MaxNS = uint64(q.longest)
	for i := range k.PollGap {
		n := k.PollGap[i] - q.before.PollGap[i]
		if n == 0 {
			continue
		}
		b := GapBucket{BelowNS: pipeline.PollGapBound(i), Count: n}
		if i == len(k.PollGap)-1 {
			b.BelowNS = 0
		}
		g.Histogram = append(g.Histogram, b)
	}
	ns := float64(d.Nanoseconds()) / float64(k.Received-q.before.Received)
	const long = 1 << 17 // ns
	note := fmt.Sprintf("longest gap %v, %d of %v or more", time.Duration(g.MaxNS), g.over(long), time.Duration(long))
	if g.Applies > 0 {
		note += fmt.Sprintf("; %d table changes, %d route changes, %d scrapes", g.Applies, g.Routes, g.Scrapes)
	}
	return Result{Name: name, PPS: 1e9 / ns, NS: ns, Note: note, Gaps: g}
}

// disturb is what the control side does, more often than it ever would.
func disturb(ctx context.Context, w *world) *Gaps {
	g := &Gaps{}
	var wg sync.WaitGroup
	wg.Go(func() { g.Applies = changeTables(ctx, w) })
	wg.Go(func() { g.Routes = changeRoutes(ctx, w) })
	wg.Go(func() { g.Scrapes = scrape(ctx, w) })
	wg.Wait()
	return g
}

// changeTables applies the configuration with and without its last tunnel in turn.
func changeTables(ctx context.Context, w *world) (n int) {
	smaller := *w.spec
	smaller.Tunnels = smaller.Tunnels[:len(smaller.Tunnels)-1]
	for every(ctx, applyPause) {
		spec := w.spec
		if n%2 == 0 {
			spec = &smaller
		}
		must(w.engine.Apply(spec))
		n++
	}
	return n
}

// changeRoutes is the routes' one writer: host routes of a network that is not in the table come and go.
func changeRoutes(ctx context.Context, w *world) (n int) {
	internet, _ := w.engine.VRF("")
	hop := pipeline.MakeLeaf(pipeline.KindNeighbour, 0)
	start, reclaimed := time.Now(), time.Now()
	for every(ctx, time.Second*routeBurst/routeRate) {
		for n < int(time.Since(start).Seconds()*routeRate) && ctx.Err() == nil {
			changeRoute(internet.V4, n, hop)
			n++
		}
		if time.Since(reclaimed) >= reclaimPause {
			w.engine.Reclaim()
			reclaimed = time.Now()
		}
	}
	return n
}

// changeRoute inserts routeRate routes, takes them out, and so on.
func changeRoute(t *fib.Table4, n int, hop fib.Value) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 240<<24|uint32(n%routeRate)*64)
	p := netip.PrefixFrom(netip.AddrFrom4(b), 28)
	if n/routeRate%2 == 0 {
		must(t.Insert(p, hop))
	} else {
		t.Delete(p)
	}
}

// scrape reads the page that Prometheus reads.
func scrape(ctx context.Context, w *world) (n int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- metrics.Serve(serving, l, metricsOf(w)) }()
	for every(ctx, scrapePause) {
		resp, err := http.Get("http://" + l.Addr().String() + "/metrics")
		must(err)
		page, err := io.ReadAll(resp.Body)
		must(errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != http.StatusOK || len(page) == 0 {
			panic("bench: metrics: " + resp.Status)
		}
		n++
	}
	stop()
	must(<-served)
	return n
}

// metricsOf is a node without ports: what a scrape costs is its tunnels.
func metricsOf(w *world) metrics.Source {
	var tunnels []metrics.Tunnel
	for i := range w.spec.Tunnels[:len(w.spec.Tunnels)-1] { // the last one comes and goes
		t := &w.spec.Tunnels[i]
		id, _ := w.engine.TunnelID(t.Name)
		tunnels = append(tunnels, metrics.Tunnel{ID: id, Name: t.Name, Account: t.Account, EffectiveMTU: t.MTU, Routed: true})
	}
	return metrics.Source{
		Engine: w.engine, Tunnels: func() []metrics.Tunnel { return tunnels },
		Routes: func() routes.Stats { return routes.Stats{} }, PathMTU: func() map[pmtu.Verdict]uint64 { return nil },
		TUN: func() tun.Stats { return tun.Stats{} }, IKE: func() ike.Stats { return ike.Stats{} }, SAs: func() []metrics.SA { return nil }, NotReady: func() []string { return nil },
		Applied: func() (newest, runs uint64) { return 0, 0 },
	}
}

// every waits and says whether to go on.
func every(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
