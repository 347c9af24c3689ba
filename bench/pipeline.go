package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"time"

	"causeway/crypto/esp"
	"causeway/pipeline"
	"causeway/pipeline/fib/fibtest"
	"causeway/xsk"
)

// The pipeline scenario drives the daemon's own worker over memory, every check and counter on. What the port itself
// costs (putting the packet into the frame, descriptors, free list) is measured in the same rounds by a loop that does
// nothing but rewrite the link header, and taken off ns_per_packet; ratio is that of the whole.

const frames = 4096

type pipelineCase struct {
	kind    string // decap, encap, lateral, forward
	size    int    // inner IP packet
	tunnels int
	routes  int
	goal    float64

	sampling uint32 // one packet in so many, against the same without sampling; 0: against the bare loop
}

func pipelineCases() []pipelineCase {
	var cs []pipelineCase
	goals := map[string][3]float64{"encap": {26, 30, 36}, "decap": {30, 36, 44}, "lateral": {0, 0, 0}}
	for _, kind := range []string{"encap", "decap", "lateral"} {
		for k, tunnels := range []int{1, 1000, 10000} {
			for _, size := range []int{64, 1400} {
				routes := 10
				if tunnels == 10000 {
					routes = 1000000
				}
				cs = append(cs, pipelineCase{kind: kind, size: size, tunnels: tunnels, routes: routes, goal: goals[kind][k]})
			}
		}
	}
	for _, routes := range []int{10, 1000000} {
		goal := 15.0
		if routes > 10 {
			goal = 0
		}
		cs = append(cs, pipelineCase{kind: "forward", size: 64, tunnels: 1, routes: routes, goal: goal})
	}
	for _, kind := range []string{"decap", "encap", "lateral"} {
		for _, tunnels := range []int{1, 1000, 10000} {
			cs = append(cs, pipelineCase{kind: kind, size: 64, tunnels: tunnels, routes: 10, sampling: 1000})
		}
	}
	return cs
}

func (c pipelineCase) name() string {
	name := fmt.Sprintf("pipeline/%s/%dB/tunnels=%d/routes=%d", c.kind, c.size, c.tunnels, c.routes)
	if c.sampling > 0 {
		name += fmt.Sprintf("/sampling=%d", c.sampling)
	}
	return name
}

func pipelineScenario(o options, report func(Result)) error {
	return measureEach(pipelineCases(), o, report, measurePipeline)
}

// world is the node that is measured, and what the oracle knows of it.
type world struct {
	engine   *pipeline.Engine
	spec     *pipeline.Spec // of a configuration file
	prefixes []netip.Prefix // routes to the plain next hop
	rng      *rand.Rand
}

var (
	endpoint = netip.MustParseAddr("203.0.113.1")
	ownMAC   = [6]byte{2, 0, 0, 0, 0, 1}
	hopMAC   = [6]byte{2, 0, 0, 0, 0, 2}
)

func customer(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 70, byte(i >> 8), byte(i)})
}

// inside is the /24 behind tunnel i; 11/8 and what follows is nobody's in the synthetic table's first routes.
func inside(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
}

func newWorld(c pipelineCase, q pipeline.Queue, u *xsk.UMEM) (*world, error) {
	return newWorldWith(c, []pipeline.Queue{q}, u, nil, func(*pipeline.Spec) error { return nil })
}

// newWorldWith is newWorld with a worker for each queue, IVs for IPsec and a last word about the tunnels.
func newWorldWith(c pipelineCase, queues []pipeline.Queue, u *xsk.UMEM, ivs *esp.IVSource, change func(*pipeline.Spec) error) (*world, error) {
	w := &world{rng: rand.New(rand.NewPCG(1, 2))}
	var workers []pipeline.WorkerConfig
	for _, q := range queues {
		workers = append(workers, pipeline.WorkerConfig{CPU: -1, Queues: []pipeline.QueueConfig{{Port: 0, Queue: q}}})
	}
	var err error
	w.engine, err = pipeline.NewEngine(pipeline.EngineConfig{UMEM: u, Ports: 1, IVs: ivs, Workers: workers})
	if err != nil {
		return nil, err
	}
	if w.spec, err = specOf(configuration(c.tunnels), []pipeline.LinkSpec{{Port: 0, MAC: ownMAC, MTU: 1600}}); err != nil {
		return nil, err
	}
	if err := change(w.spec); err != nil {
		return nil, err
	}
	if err := w.engine.Apply(w.spec); err != nil {
		return nil, err
	}
	return w, w.fill(c)
}

func (w *world) fill(c pipelineCase) error {
	f := w.engine.Forwarding()
	f.SetNeighbour(0, 0, hopMAC, true)
	hop := pipeline.MakeLeaf(pipeline.KindNeighbour, 0)
	internet, _ := w.engine.VRF("")
	account, _ := w.engine.VRF("default")
	if c.routes > 10 {
		w.prefixes = fibtest.SyntheticBGP4(c.routes, 1)
	} else {
		for i := range c.routes {
			w.prefixes = append(w.prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i), 0, 0, 0}), 8))
		}
	}
	for _, p := range w.prefixes {
		if err := internet.V4.Insert(p, hop); err != nil {
			return err
		}
	}
	for i := range c.tunnels {
		id, _ := w.engine.TunnelID(w.spec.Tunnels[i].Name)
		f.SetTunnelRoute(id, hop)
		l := pipeline.MakeLeaf(pipeline.KindTunnel, id)
		for _, v := range []*pipeline.VRF{internet, account} {
			if err := v.V4.Insert(inside(i), l); err != nil {
				return err
			}
		}
	}
	return nil
}

// packet makes the i-th packet of the rotation and what must become of it.
func (w *world) packet(c pipelineCase) (frame []byte) {
	from, to := w.rng.IntN(c.tunnels), w.rng.IntN(c.tunnels)
	far := w.covered()
	src, dst := far, hostIn(inside(to), w.rng)
	if c.kind != "encap" {
		src = hostIn(inside(from), w.rng)
	}
	if c.kind == "decap" || c.kind == "forward" {
		dst = far
	}
	if c.kind == "forward" {
		src = w.covered()
	}
	inner := udpPacket(src, dst, c.size)
	if c.kind == "decap" || c.kind == "lateral" {
		return ethernet(hopMAC, ownMAC, grePacket(customer(from), endpoint, inner))
	}
	return ethernet(hopMAC, ownMAC, inner)
}

// covered is a random address that a route to the plain next hop covers and no tunnel's prefix does.
func (w *world) covered() netip.Addr {
	for {
		a := hostIn(w.prefixes[w.rng.IntN(len(w.prefixes))], w.rng)
		if b := a.As4(); b[0] != 10 && b[0] != 0 && b[0] != 127 && b[0] < 224 && a != endpoint {
			return a
		}
	}
}

func hostIn(p netip.Prefix, rng *rand.Rand) netip.Addr {
	b := p.Addr().As4()
	v := binary.BigEndian.Uint32(b[:]) | rng.Uint32()&(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func measurePipeline(c pipelineCase, quick bool) (Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: frames, HugePages: true})
	if err != nil {
		return Result{}, err
	}
	defer u.Close()
	w := &world{}
	var packets [][]byte
	q := &rotation{}
	if w, err = newWorld(c, q, u); err != nil {
		return Result{}, err
	}
	*q = *newRotation(u, frames, func(int) []byte {
		packets = append(packets, w.packet(c))
		return packets[len(packets)-1]
	})
	total, n := 60*time.Millisecond, 15
	if quick {
		total, n = 5*time.Millisecond, 3
	}
	if c.sampling > 0 {
		r, err := measureSampling(c, w, total, n)
		return r, errors.Join(err, verify(w, q, u, packets, c))
	}
	allocs := allocations(func() { whole(w.engine, total/10) })
	m := rounds(n,
		func() float64 { return whole(w.engine, total) },
		func() float64 { return bare(q, total) })
	if err := verify(w, q, u, packets, c); err != nil {
		return Result{}, err
	}
	ns := m.a - m.b
	return Result{Name: c.name(), PPS: 1e9 / ns, NS: ns, BestNS: m.bestA - m.bestB, Spread: m.spread, Against: "bare rewrite loop", AgainstNS: m.b,
		Ratio: m.a / m.b, GoalNS: c.goal, Allocs: allocs}, nil
}

// measureSampling holds the worker that samples against itself when it does not. Who takes the samples has another core.
func measureSampling(c pipelineCase, w *world, total time.Duration, n int) (Result, error) {
	var failed error
	with := func(every uint32) func() float64 {
		return func() float64 {
			w.engine.Samples(func(time.Time, *pipeline.Sample) {})
			w.spec.Sampling = every
			failed = errors.Join(failed, w.engine.Apply(w.spec))
			return whole(w.engine, total)
		}
	}
	with(c.sampling)()
	allocs := allocations(func() { whole(w.engine, total/10) })
	m := rounds(2*n, with(c.sampling), with(0))
	if lost := w.engine.Total().SamplesLost; lost > 0 {
		failed = errors.Join(failed, fmt.Errorf("%d samples did not fit the ring", lost))
	}
	return Result{Name: c.name(), PPS: 1e9 / m.a, NS: m.a, BestNS: m.bestA, Spread: m.spread, Against: "without sampling", AgainstNS: m.b,
		Ratio: m.a / m.b, Allocs: allocs}, failed
}

// whole polls the worker for d and returns ns per packet.
func whole(e *pipeline.Engine, d time.Duration) float64 {
	start := time.Now()
	n := 0
	for {
		for range 32 {
			n += e.Poll(0)
		}
		if t := time.Since(start); t >= d {
			return float64(t.Nanoseconds()) / float64(n)
		}
	}
}

// bare is the least that a forwarder does: receive, rewrite the link addresses, transmit, reap, refill.
func bare(q *rotation, d time.Duration) float64 {
	var descs [pipeline.BatchSize]xsk.Desc
	var addrs [pipeline.BatchSize]uint64
	start := time.Now()
	total := 0
	for {
		for range 32 {
			n := q.Receive(descs[:])
			for i := range descs[:n] {
				h := q.umem[descs[i].Addr:][:14]
				copy(h, hopMAC[:])
				copy(h[6:], ownMAC[:])
			}
			q.Transmit(descs[:n])
			q.Kick()
			k := q.Reap(addrs[:])
			q.Refill(addrs[:k])
			total += n
		}
		if t := time.Since(start); t >= d {
			return float64(t.Nanoseconds()) / float64(total)
		}
	}
}

func allocations(f func()) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}
