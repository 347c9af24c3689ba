package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A clusterCase is a cluster of some size, and how much is asked of it.
type clusterCase struct {
	nodes, tunnels int
	delay          time.Duration // each way between the hub and each other node, once they have joined
	atOnce         int           // pairs that are installed at once, where as many as possible are
	single         int           // replacements one after the other
	busy           time.Duration // for how long pairs are replaced without a pause
	lates          int           // how often a late node starts
	idle           time.Duration // for how long nothing is done
	fill           time.Duration // after which no more tunnels are set up
}

func (c clusterCase) name() string {
	name := fmt.Sprintf("cluster/nodes=%d/tunnels=%d", c.nodes, c.tunnels)
	if c.delay > 0 {
		name += fmt.Sprintf("/delay=%v", c.delay)
	}
	return name
}

// clusterCases are those of a kind of run.
func clusterCases(o options) []clusterCase {
	if o.quick {
		return []clusterCase{{nodes: 2, tunnels: 20, delay: time.Millisecond, atOnce: 4, single: 10, busy: 200 * time.Millisecond, lates: 1, idle: 600 * time.Millisecond, fill: time.Minute}}
	}
	cases := []clusterCase{
		{nodes: 3, tunnels: 2000, atOnce: 32, single: 300, busy: 10 * time.Second, idle: 5 * time.Second, lates: 5, fill: 40 * time.Second},
		{nodes: 20, tunnels: 500, atOnce: 32, single: 200, busy: 10 * time.Second, idle: 5 * time.Second, lates: 3, fill: 40 * time.Second},
		{nodes: 3, tunnels: 60, delay: 40 * time.Millisecond, atOnce: 3, single: 60, busy: 10 * time.Second, idle: 5 * time.Second, lates: 3, fill: 30 * time.Second},
	}
	if o.full {
		cases = append(cases,
			clusterCase{nodes: 50, tunnels: 2500, atOnce: 32, single: 100, busy: 15 * time.Second, idle: 5 * time.Second, lates: 1, fill: 90 * time.Second},
			clusterCase{nodes: 3, tunnels: 100000, atOnce: 32, single: 100, busy: 15 * time.Second, idle: 5 * time.Second, lates: 1, fill: 170 * time.Second},
			clusterCase{nodes: 100, tunnels: 5000, atOnce: 8, single: 100, busy: 15 * time.Second, idle: 5 * time.Second, lates: 1, fill: 260 * time.Second})
	}
	return cases
}

func clusterScenario(o options, report func(Result)) error {
	var errs []error
	for _, c := range clusterCases(o) {
		if !strings.Contains(c.name(), o.only) {
			continue
		}
		if err := c.measure(report); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name(), err)) // the others say something all the same
		}
	}
	return errors.Join(errs...)
}

// A clusterBench is a case that is being measured.
type clusterBench struct {
	clusterCase
	fleet   *fleet
	report  func(Result)
	disk    float64          // ns that a write takes to reach the disk
	tunnels []*clusterTunnel // that are set up
	late    uint64           // acknowledgements that were late, as far as they were reported
}

func (c clusterCase) measure(report func(Result)) error {
	b := &clusterBench{clusterCase: c, report: report}
	var err error
	if b.fleet, err = newFleet(c.nodes, c.delay > 0); err != nil {
		return err
	}
	time.Sleep(b.idle) // what starting has left behind goes
	b.fleet.moveAway(c.delay)
	for _, step := range []func() error{b.syncs, b.set, b.rest, b.oneByOne, b.sustained, b.lateNodes} {
		if err == nil {
			err = step()
		}
	}
	if closed := b.fleet.close(); err == nil {
		err = closed
	}
	return err
}

// syncs measures the least that a change of the store takes: one write that is on the disk when it returns.
func (b *clusterBench) syncs() error {
	f, err := os.Create(filepath.Join(b.fleet.dir, "sync"))
	if err != nil {
		return err
	}
	defer f.Close()
	var list []time.Duration
	for range 200 {
		begin := time.Now()
		if _, err := f.Write(make([]byte, 1024)); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		list = append(list, time.Since(begin))
	}
	slices.Sort(list)
	b.disk = float64(list[len(list)/2])
	return nil
}

// result is one of times, against the disk.
func (b *clusterBench) result(what, unit string, list []time.Duration) Result {
	r := timesResult(b.name()+"/"+what, unit, list)
	r.Against, r.AgainstNS, r.Ratio = "1 KiB to the disk", b.disk, r.NS/b.disk
	return r
}

// timesResult sums up times.
func timesResult(name, unit string, list []time.Duration) Result {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	median := float64(list[n/2])
	return Result{Name: name, Unit: unit, NS: median, PPS: 1e9 / median, BestNS: float64(list[0]), P99NS: float64(list[(99*n+99)/100-1]), Samples: n,
		Spread: float64(list[n-1]-list[0]) / median}
}

// set sets up all tunnels, and tells what a pair takes of the memory of a node.
func (b *clusterBench) set() error {
	before := heapInUse()
	queue := make(chan *clusterTunnel, b.clusterCase.tunnels)
	for i := range b.clusterCase.tunnels {
		queue <- &clusterTunnel{name: fmt.Sprintf("customer-%06d", i), node: i % b.nodes}
	}
	samples, took := b.inFlight(queue, b.fill, func(t *clusterTunnel) { b.tunnels = append(b.tunnels, t) })
	if len(samples) < b.nodes {
		return fmt.Errorf("%d tunnels were set up in %v", len(samples), took)
	}
	time.Sleep(b.idle) // what is kept for a moment has gone
	r := b.result("set", "install", usables(samples))
	r.UpdatesSec = float64(len(samples)) / took.Seconds()
	r.Note = fmt.Sprintf("%d at once: %.1f installs/s, all in %.1f s", b.atOnce, r.UpdatesSec, took.Seconds())
	if after := heapInUse(); len(samples) >= leastForMemory {
		r.TunnelMemory = (float64(after) - float64(before)) / float64(b.nodes*len(samples))
		r.Note += fmt.Sprintf("; %.0f bytes a pair and node", r.TunnelMemory)
	}
	if len(samples) < b.clusterCase.tunnels {
		r.Note += fmt.Sprintf("; NOT ALL: %d tunnels, then the time was over", len(samples))
	}
	b.blame(&r)
	b.report(r)
	return nil
}

// leastForMemory is how many pairs take more memory on a node than its server's buffers, which come and go.
const leastForMemory = 2000

// inFlight renews the tunnels of a queue, many at once, for a time or until there are none. done gets each whose pair was replaced.
func (b *clusterBench) inFlight(queue chan *clusterTunnel, limit time.Duration, done func(*clusterTunnel)) (all []clusterSample, took time.Duration) {
	var mu sync.Mutex
	var workers sync.WaitGroup
	begin := time.Now()
	one := func(t *clusterTunnel) {
		s, err := b.fleet.renew(t)
		if err != nil {
			queue <- t // it is counted, and tried again
			return
		}
		mu.Lock()
		defer mu.Unlock()
		all, took = append(all, s), time.Since(begin)
		done(t)
	}
	for range b.atOnce {
		workers.Go(func() {
			for time.Since(begin) < limit {
				select {
				case t := <-queue:
					one(t)
				default:
					return
				}
			}
		})
	}
	workers.Wait()
	return all, took
}

// usables are the times until all nodes could use a pair.
func usables(samples []clusterSample) (list []time.Duration) {
	for _, s := range samples {
		list = append(list, s.usable)
	}
	return list
}

// blame says what went wrong since it was asked the last time.
func (b *clusterBench) blame(r *Result) {
	before := b.late
	b.late = b.fleet.late()
	r.LateAcks = b.late - before
	r.Note += fmt.Sprintf("; %d acknowledgements late, %d installs failed, %d not usable everywhere in time, %d waited for an SPI",
		r.LateAcks, b.fleet.failed.Swap(0), b.fleet.lost.Swap(0), b.fleet.noSPI.Swap(0))
}

// rest is what the nodes do when nothing happens: mostly they hear that the others live.
func (b *clusterBench) rest() error {
	u, err := b.usage(func() error {
		time.Sleep(b.idle)
		return nil
	})
	if err != nil {
		return err
	}
	beats := b.idle.Seconds() * float64(b.nodes*(b.nodes-1))
	each := float64(u.core) / beats
	b.report(Result{Name: b.name() + "/rest", Unit: "sign of life heard", NS: each, PPS: 1e9 / each, Samples: int(beats),
		Note: fmt.Sprintf("%.1f %% of a core for all nodes; %s", 100*u.core.Seconds()/b.idle.Seconds(), u.traffic(b.idle.Seconds(), "second"))})
	return nil
}

// A clusterUsage is what something took: processor time of the whole process, and bytes through the relays, in both directions.
type clusterUsage struct {
	core    time.Duration
	bytes   uint64
	relayed bool
}

func (b *clusterBench) usage(f func() error) (u clusterUsage, err error) {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return u, err
	}
	core, err := processorTime(self)
	if err != nil {
		return u, err
	}
	bytes := b.fleet.relayed()
	if err := f(); err != nil {
		return u, err
	}
	u.core, err = processorTime(self)
	u.core -= core
	u.bytes, u.relayed = b.fleet.relayed()-bytes, b.delay > 0
	return u, err
}

// traffic says how much went to and from the hub.
func (u clusterUsage) traffic(n float64, unit string) string {
	if !u.relayed {
		return "traffic not counted"
	}
	return fmt.Sprintf("%.0f bytes between the hub and all others a %s", float64(u.bytes)/n, unit)
}

// oneByOne replaces pairs one after the other.
func (b *clusterBench) oneByOne() error {
	var all []clusterSample
	u, err := b.usage(func() error {
		for i := range b.single {
			if s, err := b.fleet.renew(b.tunnels[i*7919%len(b.tunnels)]); err == nil { // else it is counted
				all = append(all, s)
			}
			time.Sleep(b.pause())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no pair was replaced")
	}
	r := b.result("usable", "install", usables(all))
	r.Note = "one at a time, until usable on all; " + u.traffic(float64(len(all)), "rekeying, what goes on at rest with it") + b.byOrigin(all)
	b.blame(&r)
	b.report(r)
	returned := b.result("answered", "install", returneds(all))
	returned.Note = "until Install returns, and IKE answers"
	b.report(returned)
	return nil
}

// pause is between two that are timed one by one, so that none meets what the one before has left: a few changes that the store has to
// answer.
func (b *clusterBench) pause() time.Duration { return 50*time.Millisecond + 10*b.delay }

// byOrigin tells pairs of the hub from those of other nodes, where they are far.
func (b *clusterBench) byOrigin(all []clusterSample) string {
	if b.delay == 0 {
		return ""
	}
	var at [2][]time.Duration
	for _, s := range all {
		at[min(s.node, 1)] = append(at[min(s.node, 1)], s.usable)
	}
	text := ""
	for i, where := range []string{"the hub", "others"} {
		if len(at[i]) > 0 {
			r := timesResult("", "", at[i])
			text += fmt.Sprintf("; installed at %s: median %.1f ms, p99 %.1f ms", where, r.NS/1e6, r.P99NS/1e6)
		}
	}
	return text
}

// returneds are the times until Install returned.
func returneds(samples []clusterSample) (list []time.Duration) {
	for _, s := range samples {
		list = append(list, s.returned)
	}
	return list
}

// sustained replaces as many pairs as possible.
func (b *clusterBench) sustained() error {
	queue := make(chan *clusterTunnel, len(b.tunnels))
	for _, t := range b.tunnels {
		queue <- t
	}
	var all []clusterSample
	var took time.Duration
	watch := b.watchLeases()
	u, err := b.usage(func() error {
		all, took = b.inFlight(queue, b.busy, func(t *clusterTunnel) { queue <- t })
		return nil
	})
	fewest := watch()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no pair was replaced in %v", b.busy)
	}
	r := b.result("sustained", "rekeying", usables(all))
	r.UpdatesSec = float64(len(all)) / took.Seconds()
	r.Note = fmt.Sprintf("%d at once: %.1f rekeyings/s in %.1f s, times until usable on all; %.0f µs of processor a rekeying and node, %.0f %% of a core; %s; the hub saw %d of %d nodes live at worst",
		b.atOnce, r.UpdatesSec, took.Seconds(), u.core.Seconds()*1e6/float64(len(all)*b.nodes), 100*u.core.Seconds()/took.Seconds(), u.traffic(float64(len(all)), "rekeying"), fewest, b.nodes)
	b.blame(&r)
	if err := b.settled(); err != nil {
		r.Note += "; AFTERWARDS NODES DIFFER: " + err.Error()
	}
	b.report(r)
	return nil
}

// watchLeases looks at how many nodes the hub takes for alive, until the function that it returns is called.
func (b *clusterBench) watchLeases() (fewest func() int) {
	stop, least := make(chan struct{}), make(chan int)
	go func() {
		few := b.nodes
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				few = min(few, b.fleet.nodes[0].Status().Nodes)
			case <-stop:
				least <- few
				return
			}
		}
	}()
	return func() int {
		close(stop)
		return <-least
	}
}

// settled waits until all nodes have the same, and the store has all.
func (b *clusterBench) settled() error {
	return eventually("of one state", func() bool {
		first := b.fleet.nodes[0].Status()
		for _, n := range b.fleet.nodes {
			if s := n.Status(); s.Digest != first.Digest || s.NotStored > 0 || s.SAs != len(b.tunnels) || s.Trouble != "" {
				return false
			}
		}
		return true
	})
}

// lateNodes starts one more node, and waits until it can use all pairs that there are.
func (b *clusterBench) lateNodes() error {
	var list []time.Duration
	var bytes uint64
	missing := 0
	for range b.lates {
		n, err := b.fleet.start(lateNode, false, true)
		if err != nil {
			return err
		}
		n.relay.delay.Store(int64(b.delay))
		took, lacks := b.catchesUp(n)
		list, missing, bytes = append(list, took), max(missing, lacks), n.relay.bytes.Load()
		n.Leave(time.Second)
		n.stop()
	}
	r := b.result("late", "start", list)
	r.Bytes = bytes
	r.Note = fmt.Sprintf("from its start until it can use all %d pairs; %.0f bytes a pair, with floors, SPIs held ahead and tombstones of what was replaced before", len(b.tunnels), float64(bytes)/float64(len(b.tunnels)))
	if missing > 0 {
		r.Note += fmt.Sprintf("; NOT ALL: %d are missing, and none came for %v", missing, clusterStalled)
	}
	b.report(r)
	return nil
}

// clusterStalled is how long a late node may take no pair before it is said to lack what it lacks.
const clusterStalled = 20 * time.Second

// catchesUp waits until a node has all pairs, or none comes any more. The time is that of the last one.
func (b *clusterBench) catchesUp(n *clusterNode) (took time.Duration, missing int) {
	begin := n.started
	for had, last := 0, time.Now(); ; time.Sleep(time.Millisecond) {
		has := n.plane.count()
		if has > had {
			had, last = has, time.Now()
			took = last.Sub(begin)
		}
		if has == len(b.tunnels) || time.Since(last) > clusterStalled {
			return took, len(b.tunnels) - has
		}
	}
}
