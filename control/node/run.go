package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"causeway/control/api"
	"causeway/control/metrics"
)

// Bounds of a node's last two seconds.
const (
	drainLeast = 20 * time.Millisecond  // frames that the steering program took before the change reach the rings
	drainMost  = 500 * time.Millisecond // then what is left on the RX rings is lost

	// mirrorLimit is how long the first dump of the kernel's tables may take: some millions of routes.
	mirrorLimit = 2 * time.Minute
)

// group runs the parts of the node; the first error stops all.
type group struct {
	wg   sync.WaitGroup
	once sync.Once
	err  error
	fail context.CancelFunc
}

func (g *group) start(what string, f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.once.Do(func() { g.err = fmt.Errorf("%s: %w", what, err) })
			g.fail()
		}
	})
}

// Run forwards until ctx is done, then lets the workers finish what is on the rings, and returns. started is called
// once packets are being forwarded.
func (n *Node) Run(ctx context.Context, started func()) error {
	n.ran = true
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	// The parts outlive ctx: the workers empty the rings, and whoever asks meanwhile is told that the node drains.
	workersCtx, stopWorkers := context.WithCancel(context.Background())
	defer stopWorkers()
	controlCtx, stopControl := context.WithCancel(context.Background())
	defer stopControl()
	workers, control := &group{fail: fail}, &group{fail: fail}
	workers.start("workers", func() error { return n.engine.Run(workersCtx) })
	n.startControl(controlCtx, control)
	sharing, stopSharing := context.WithCancel(context.Background())
	defer stopSharing()
	shared := &group{fail: fail}
	n.startCluster(sharing, shared)

	negotiating, stopIKE := context.WithCancel(context.Background())
	defer stopIKE()
	ike, announcing := &group{fail: fail}, &group{fail: fail}
	err := n.begin(ctx)
	if err == nil && n.cluster == nil { // packets do not wait for it
		n.startStore(sharing, shared)
	}
	if err == nil && ctx.Err() == nil {
		err = n.startIKE(negotiating, ike)
	}
	if err == nil && ctx.Err() == nil {
		announcing.start("announcement", func() error { n.announce(ctx); return nil })
		started()
		select {
		case <-ctx.Done():
		case <-n.stop:
			fail() // ends what else waits for ctx
		}
	}
	announcing.wg.Wait() // the endpoints are withdrawn
	stopIKE()            // the peers are told while packets are still taken
	ike.wg.Wait()
	n.leaveCluster()
	stopSharing()
	shared.wg.Wait()
	n.drain()
	n.reloading.Lock() // one that has begun ends first, and no other begins
	defer n.reloading.Unlock()
	stopWorkers()
	workers.wg.Wait()
	stopControl()
	control.wg.Wait()
	return errors.Join(err, ike.err, n.sockets.Close(), shared.err, workers.err, control.err, n.numbers.settle(), n.sas.settle())
}

func (n *Node) startControl(ctx context.Context, g *group) {
	g.start("routes", func() error { return n.routes.Run(ctx) })
	g.start("tun", func() error { n.tun.Run(ctx, n.punt); return nil })
	g.start("path MTU discovery", func() error { return n.errors.Run(ctx, n.learned) })
	g.start("sequence numbers", func() error { n.keepNumbers(ctx); return nil })
	g.start("probes", func() error { n.prober.Run(ctx); return nil })
	g.start("BFD", func() error { n.bfd.Run(ctx); return nil })
	if n.notifier != nil {
		g.start("notices", func() error { n.notifier.Run(ctx); return nil })
	}
	g.start("news of tunnels", func() error { n.news.run(ctx); return nil })
	g.start("who speaks BFD", func() error { n.followSpeakers(ctx); return nil })
	g.start("answers to probes", func() error { n.takeAnswers(ctx); return nil })
	g.start("packets for devices", func() error { n.takeForDevices(ctx); return nil })
	g.start("stray packets", func() error { n.tellStrays(ctx); return nil })
	g.start("interfaces", func() error { return n.watch(ctx) })
	g.start("control", func() error { return api.Serve(ctx, n.control, n) })
	if n.metrics != nil {
		g.start("metrics", func() error { return metrics.Serve(ctx, n.metrics, n.metricsSource()) })
	}
}

// numbersInterval is how often is looked for tunnels that need more sequence numbers: a tenth of a second is half a block
// at 20 million packets a second.
const numbersInterval = 100 * time.Millisecond

// wantedInterval is how often is looked whether an IPsec tunnel asks for more: its first block is half used after 13 ms at
// 10 million packets a second.
const wantedInterval = 5 * time.Millisecond

func (n *Node) keepNumbers(ctx context.Context) {
	tick := time.NewTicker(wantedInterval)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !n.sas.ivs.Wanted() && time.Since(last) < numbersInterval {
			continue
		}
		last = time.Now()
		if err := n.numbers.extend(); err != nil {
			n.log.Error("sequence numbers are used that are not reserved: after a crash some will come again", "error", err)
		}
		if err := n.sas.extend(); err != nil {
			n.log.Error("IVs and sequence numbers of IPsec tunnels are not reserved: what is reserved will be used up, and then packets dropped", "error", err)
		}
	}
}

func (n *Node) nextNumber(tunnel string) (uint64, bool) {
	id, ok := n.engine.TunnelID(tunnel)
	if !ok {
		return 0, false
	}
	return n.engine.NextNumber(id)
}

// begin completes the tables and then takes frames from the kernel. The kernel's routes come before the
// configuration's, because tunnels are resolved through them.
func (n *Node) begin(ctx context.Context) error {
	if err := n.awaitMirror(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	n.reloading.Lock() // a reload may have begun already
	defer n.reloading.Unlock()
	n.setDevices(n.Config())
	if err := n.routes.Apply(n.peered(n.Config())); err != nil {
		return err
	}
	n.setProbed(n.Config())
	n.awaitPublished() // start then takes all customer prefixes at once
	n.loaded.Store(true)
	return n.steer.start()
}

// publishLimit is how long the steering program may take to learn customer prefixes: 100,000 take 1.5 s.
const publishLimit = 30 * time.Second

// awaitPublished returns when the steering program has the prefixes of the routes that were applied last.
func (n *Node) awaitPublished() {
	select {
	case <-n.routes.Published():
	case <-time.After(publishLimit):
		n.log.Warn("customer prefixes are still being given to the steering program", "after", publishLimit)
	}
}

// awaitMirror returns when the kernel's routes are in the workers' tables, or the node is to stop.
func (n *Node) awaitMirror(ctx context.Context) error {
	select {
	case <-n.routes.Ready():
	case <-ctx.Done():
	case <-time.After(mirrorLimit):
		return fmt.Errorf("the kernel's routes were not read within %v", mirrorLimit)
	}
	return nil
}

// drain leaves new frames to the kernel, and waits a short time until the workers have taken what is on the rings.
func (n *Node) drain() {
	n.draining.Store(true)
	if err := n.steer.stop(); err != nil {
		n.log.Error("the steering program still takes frames", "error", err)
	}
	n.log.Info("draining")
	begin := time.Now()
	for time.Since(begin) < drainLeast || n.waiting() > 0 && time.Since(begin) < drainMost {
		time.Sleep(time.Millisecond)
	}
	n.log.Info("drained", "after", time.Since(begin).Round(time.Millisecond), "left", n.waiting())
}

// waiting is the number of frames that the workers have still to do something about.
func (n *Node) waiting() int {
	left := int(n.engine.Total().Held)
	for _, p := range n.ports {
		for _, s := range p.Sockets() {
			st := s.Stats()
			left += int(st.RxLevel + st.TxLevel)
		}
	}
	return left
}

// pollLimit is how long a worker may not have looked at its queues before the node is not ready.
const pollLimit = 300 * time.Millisecond

// NotReady says why the node should get no traffic; it is empty when it should.
func (n *Node) NotReady() []string {
	var why []string
	if n.draining.Load() {
		why = append(why, "draining")
	} else if n.leaving.Load() {
		why = append(why, "draining: the operator wants it")
	}
	if !n.loaded.Load() {
		why = append(why, "the kernel's routes are not loaded yet")
	}
	why = append(why, n.clusterReady()...)
	if n.withoutLink() {
		why = append(why, "no port has a link")
	}
	for i := range n.engine.Workers() {
		if ago := time.Since(n.engine.LastPoll(i)); ago > pollLimit {
			why = append(why, fmt.Sprintf("worker %d has not polled for %v", i, ago.Round(time.Millisecond)))
		}
	}
	return why
}
