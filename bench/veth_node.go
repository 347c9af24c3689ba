package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"causeway/pipeline"
	"causeway/xsk"
	"causeway/xsk/bpf"
)

// A forwarder of the veth scenario runs in a process of its own, which this program starts in the node's namespace as
//
//	bench forwarder causeway|bare|asavie CORE
//
// It takes frames from a1, sends them out of b1, ends on SIGTERM, and then says what it did as JSON.
const forwarderCommand = "forwarder"

// forwarderReport is a forwarder's account of frames.
type forwarderReport struct {
	Received  uint64
	Forwarded uint64
	Dropped   map[string]uint64 `json:",omitempty"` // by reason
}

// forwarders run until stop is done.
var forwarders = map[string]func(stop context.Context, core int) (forwarderReport, error){
	"causeway": forwardCauseway,
	"bare":     forwardBare,
	"asavie":   forwardAsavie,
}

// runForwarder is the whole of such a process.
func runForwarder(args []string, out io.Writer) int {
	if len(args) != 2 || forwarders[args[0]] == nil {
		fmt.Fprintf(os.Stderr, "bench: usage: bench %s causeway|bare|asavie CORE\n", forwarderCommand)
		return 2
	}
	core, err := strconv.Atoi(args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: core:", err)
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM, os.Interrupt)
	defer cancel()
	report, err := forwarders[args[0]](ctx, core)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if err := json.NewEncoder(out).Encode(report); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// beyond is where packets without a tunnel go: the network behind b0.
var beyond = netip.MustParsePrefix("198.18.0.0/15")

// vethFrames is the packet memory of one worker with two queues: what the daemon plans for it.
const vethFrames = 16384

// rings are the two ports of a forwarder over one packet memory, opened as the daemon opens them.
type rings struct {
	umem    *xsk.UMEM
	filter  *bpf.Filter
	ports   []*xsk.Port
	in, out *xsk.Socket
}

func openRings() (*rings, error) {
	r := &rings{}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.in, r.out = r.ports[0].Sockets()[0], r.ports[1].Sockets()[0]
	return r, nil
}

func (r *rings) open() (err error) {
	if r.umem, err = xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: vethFrames, HugePages: true}); err != nil {
		return err
	}
	if r.filter, err = bpf.NewFilter(); err != nil {
		return err
	}
	for _, name := range []string{"a1", "b1"} {
		p, err := xsk.OpenPort(r.umem, r.filter, xsk.PortConfig{Name: name, BusyPoll: true})
		if err != nil {
			return err
		}
		r.ports = append(r.ports, p)
	}
	return errors.Join(r.filter.SetEndpoints([]netip.Addr{endpoint}), r.filter.SetPrefixes([]netip.Prefix{beyond, inside(0)}))
}

func (r *rings) close() error {
	var errs []error
	for _, p := range r.ports {
		errs = append(errs, p.Close())
	}
	if r.filter != nil {
		errs = append(errs, r.filter.Close())
	}
	if r.umem != nil {
		errs = append(errs, r.umem.Close())
	}
	return errors.Join(errs...)
}

// forwardCauseway is the daemon's worker with one tunnel: plain packets for inside(0) leave encapsulated, GRE packets from
// customer(0) leave plain, all others are routed.
func forwardCauseway(stop context.Context, core int) (report forwarderReport, err error) {
	r, err := openRings()
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	e, err := newVethEngine(r, core)
	if err != nil {
		return report, err
	}
	err = e.Run(stop)
	total := e.Total()
	if in, out := total.Balance(); in != out {
		err = errors.Join(err, fmt.Errorf("%d frames went in and %d are accounted for", in, out))
	}
	return forwarderReport{total.Received, total.Forwarded, dropped(e)}, err
}

func newVethEngine(r *rings, core int) (*pipeline.Engine, error) {
	w := pipeline.WorkerConfig{CPU: core}
	for i, s := range []*xsk.Socket{r.in, r.out} {
		w.Queues = append(w.Queues, pipeline.QueueConfig{Port: i, Queue: s, FillSize: s.RingSize()})
	}
	set := xsk.PollSet([]*xsk.Socket{r.in, r.out})
	w.Wait = func(timeout time.Duration) { _, _ = xsk.Poll(set, timeout) }
	e, err := pipeline.NewEngine(pipeline.EngineConfig{UMEM: r.umem, Ports: 2, Workers: []pipeline.WorkerConfig{w}})
	if err != nil {
		return nil, err
	}
	spec, err := specOf(configuration(1), []pipeline.LinkSpec{{Port: 0, MAC: macA1, MTU: 1500}, {Port: 1, MAC: macB1, MTU: 1500}})
	if err != nil {
		return nil, err
	}
	if err := e.Apply(spec); err != nil {
		return nil, err
	}
	return e, fillVethRoutes(e)
}

// fillVethRoutes leads everything to b0.
func fillVethRoutes(e *pipeline.Engine) error {
	f := e.Forwarding()
	f.SetNeighbour(0, 1, macB0, true)
	hop := pipeline.MakeLeaf(pipeline.KindNeighbour, 0)
	id, _ := e.TunnelID("t0")
	f.SetTunnelRoute(id, hop)
	internet, _ := e.VRF("")
	return errors.Join(internet.V4.Insert(beyond, hop), internet.V4.Insert(inside(0), pipeline.MakeLeaf(pipeline.KindTunnel, id)))
}

// forwardBare does the least that a forwarder can do on the same rings: it receives a batch, rewrites the link addresses
// and transmits. It shares ports, modes, sizes and batch with the worker.
func forwardBare(stop context.Context, core int) (report forwarderReport, err error) {
	r, err := openRings()
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := pinThread(core); err != nil {
		return report, err
	}
	b := &bareLoop{rings: r, pool: r.umem.Pool(0)}
	for range r.in.RingSize() / len(b.addrs) {
		b.refill(len(b.addrs))
	}
	var stopped atomic.Bool
	context.AfterFunc(stop, func() { stopped.Store(true) })
	for !stopped.Load() {
		b.round()
	}
	return b.report, nil
}

type bareLoop struct {
	*rings
	pool   *xsk.Pool
	descs  [pipeline.BatchSize]xsk.Desc
	addrs  [pipeline.BatchSize]uint64
	report forwarderReport
}

// round is the one of package xsk's documentation.
func (b *bareLoop) round() {
	n := b.in.Receive(b.descs[:])
	mem := b.umem.Bytes()
	for i := range b.descs[:n] {
		h := mem[b.descs[i].Addr:][:12]
		copy(h, macB0[:])
		copy(h[6:], macB1[:])
	}
	sent := b.out.Transmit(b.descs[:n])
	b.out.Kick()
	k := b.out.Reap(b.addrs[:])
	b.pool.Put(b.addrs[:k])
	for i := range b.descs[sent:n] {
		b.pool.Put([]uint64{b.descs[sent+i].Addr})
	}
	b.refill(n)
	b.report.Received += uint64(n)
	b.report.Forwarded += uint64(sent)
}

func (b *bareLoop) refill(n int) {
	n = b.pool.Get(b.addrs[:n])
	k := b.in.Refill(b.addrs[:n])
	b.pool.Put(b.addrs[k:n])
}

// pinThread keeps the calling goroutine on a core from now on.
func pinThread(core int) error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("core %d: %w", core, err)
	}
	return nil
}
