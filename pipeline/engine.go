package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"causeway/crypto/esp"
	"causeway/pipeline/fib"
	"causeway/xsk"
)

// A Queue is one queue of a port as its worker sees it: descriptors in batches, no meaning of packets. A *xsk.Socket
// is one; pcap files and memory are others. Only the worker that owns the queue calls it.
type Queue interface {
	Receive([]xsk.Desc) int  // frames that came, owned by the caller from then on
	Transmit([]xsk.Desc) int // how many were taken; they come back through Reap
	Kick()                   // makes the kernel look at what was transmitted
	Reap([]uint64) int       // addresses of frames that have left
	Refill([]uint64) int     // how many free frames were taken for receiving
}

// EngineConfig says what an Engine is made of.
type EngineConfig struct {
	UMEM    *xsk.UMEM
	Ports   int
	Workers []WorkerConfig
	Punt    *PuntQueue    // nil: packets for the kernel are dropped with a reason
	Nodes   *NodeQueue    // nil: there are no messages between nodes
	Probes  *TunnelQueue  // nil: tunnels are not probed
	Devices *TunnelQueue  // nil: no tunnel has a device
	IVs     *esp.IVSource // for ESP with counter modes; nil: such packets are dropped with a reason
}

// WorkerConfig describes one worker.
type WorkerConfig struct {
	CPU    int // the core it is pinned to; -1: not pinned
	Queues []QueueConfig
	// Wait blocks until one of the queues has something to receive or the time is up; nil: the worker never sleeps.
	Wait func(timeout time.Duration)
}

// QueueConfig gives a worker one queue of a port.
type QueueConfig struct {
	Port     int
	Queue    Queue
	FillSize int // frames that its fill ring holds
}

// An Engine is the packet path of one node: workers, tables and forwarding state.
type Engine struct {
	mu       sync.Mutex // guards names, children and the making of tables
	names    registry
	children children
	changes  childChanges

	ports   int
	umem    *xsk.UMEM
	workers []*worker
	punt    *PuntQueue
	nodes   *NodeQueue
	probes  *TunnelQueue
	devices *TunnelQueue
	ivs     *esp.IVSource
	fwd     Forwarding
	tables  atomic.Pointer[Tables]

	samplingShift atomic.Uint32
	capture       atomic.Pointer[Capture] // nil: none runs
	captureNumber atomic.Uint32           // of the last one
	retired       retirement
}

// NewEngine makes the workers; Run starts them.
func NewEngine(c EngineConfig) (*Engine, error) {
	if len(c.Workers) == 0 || len(c.Workers) > maxWorkers {
		return nil, fmt.Errorf("%d workers: 1 to %d are possible", len(c.Workers), maxWorkers)
	}
	if c.Ports < 1 || c.Ports > maxPorts {
		return nil, fmt.Errorf("%d ports: 1 to %d are possible", c.Ports, maxPorts)
	}
	e := &Engine{ports: c.Ports, umem: c.UMEM, punt: c.Punt, nodes: c.Nodes, probes: c.Probes, devices: c.Devices, ivs: c.IVs}
	if e.ivs == nil {
		e.ivs = new(esp.IVSource) // with nothing reserved
	}
	e.names = registry{tunnels: map[string]int{}, accounts: map[string]int{"": 0}}
	e.children = children{of: map[int][]SASpec{}, owners: map[int]Owner{}, nodes: map[int]bool{}}
	e.fwd = Forwarding{
		neighbours: make([]atomic.Uint64, MaxNeighbours),
		groups:     make([]atomic.Pointer[fib.Group], MaxGroups),
		tunnels:    make([]tunnelState, MaxTunnels),
	}
	e.fwd.vrfs = []*VRF{e.newVRF("", 0)}
	e.tables.Store(&Tables{vrfs: e.fwd.vrfs, links: new([MaxLinks]link), index: tunnelIndex{buckets: make([]tunnelBucket, 1)}})
	for i, w := range c.Workers {
		e.workers = append(e.workers, newWorker(e, i, w))
	}
	if err := e.connect(); err != nil {
		return nil, err
	}
	for _, w := range e.workers {
		w.recycle() // frames that come before Run find room to wait in
	}
	return e, nil
}

// Forwarding returns the routes and neighbours, for their one writer.
func (e *Engine) Forwarding() *Forwarding { return &e.fwd }

// Run starts the workers, each on a locked thread, and returns when ctx is done and all have stopped. A worker that
// stops first transmits what it has taken, so that no frame is lost between the rings.
func (e *Engine) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(e.workers))
	for i, w := range e.workers {
		wg.Go(func() {
			runtime.LockOSThread() // for good: a pinned thread ends with its goroutine, and pins nobody else
			name(fmt.Sprintf("cw-worker-%d", i))
			errs[i] = w.run(ctx)
		})
	}
	wg.Wait()
	e.settle()
	return errors.Join(errs...)
}

// name gives the calling thread a name, for whoever looks with top or ps. At most 15 bytes of it are kept.
func name(text string) {
	b, err := unix.BytePtrFromString(text)
	if err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0) // without a name it works as well
	}
}

// settle empties the rings between the workers when all have stopped, so that no frame is left between two.
func (e *Engine) settle() {
	e.mu.Lock() // the workers are parked, and yet use the tables
	defer e.mu.Unlock()
	for range 6 { // a frame crosses five times at most: fragment, decap, encap, transmit, and home
		for _, w := range e.workers {
			w.drain()
		}
	}
}

// Quiesce returns when every worker has begun a new batch since it was called, so that none still uses what was
// taken out of the tables before.
func (e *Engine) Quiesce() { e.quiesce() }

func (e *Engine) quiesce() {
	for _, w := range e.workers {
		w.awaitBoundary()
	}
}

// Counters returns each worker's counters.
func (e *Engine) Counters() []Counters {
	out := make([]Counters, len(e.workers))
	for i, w := range e.workers {
		out[i] = w.count.read()
	}
	return out
}

// Total sums the counters of all workers, and adds the frames between them to Held.
func (e *Engine) Total() Counters {
	var sum Counters
	for _, w := range e.workers {
		c := w.count.read()
		sum.Add(&c)
		sum.Held += w.inFlight()
	}
	return sum
}

// TunnelCounters sums the workers' counters of tunnel id.
func (e *Engine) TunnelCounters(id int) TunnelCounters {
	var sum TunnelCounters
	for _, w := range e.workers {
		c := &w.tunnels[id]
		sum.RXPackets += c.rxPackets.get()
		sum.RXBytes += c.rxBytes.get()
		sum.TXPackets += c.txPackets.get()
		sum.TXBytes += c.txBytes.get()
		sum.RXDrops += w.tunnelDrops[id].rx.get()
		sum.TXDrops += w.tunnelDrops[id].tx.get()
		sum.LateralRXPackets += c.lateralRXPackets.get()
		sum.LateralRXBytes += c.lateralRXBytes.get()
		sum.LateralTXPackets += c.lateralTXPackets.get()
		sum.LateralTXBytes += c.lateralTXBytes.get()
	}
	return sum
}

// LastPoll returns when worker i last looked at its queues; a worker that sleeps in poll(2) counts as looking.
func (e *Engine) LastPoll(i int) time.Time {
	return e.workers[i].started.Add(time.Duration(e.workers[i].lastPoll.Load()))
}

// Workers is the number of workers.
func (e *Engine) Workers() int { return len(e.workers) }

// ResolveRequests calls f for each neighbour that the workers asked for since the last call; f is called at most
// resolveRing times per worker.
func (e *Engine) ResolveRequests(f func(ResolveRequest)) {
	for _, w := range e.workers {
		w.resolve.drain(f)
	}
}

// retirement collects what was taken out of forwarding tables and may be used again after a batch boundary.
type retirement struct {
	mu    sync.Mutex
	frees []func()
}

func (e *Engine) retire(free func()) {
	e.retired.mu.Lock()
	e.retired.frees = append(e.retired.frees, free)
	e.retired.mu.Unlock()
}

// Reclaim waits for a batch boundary of every worker and then recycles what the forwarding tables have retired. The
// routes' writer calls it after a burst of changes.
func (e *Engine) Reclaim() {
	e.retired.mu.Lock()
	frees := e.retired.frees
	e.retired.frees = nil
	e.retired.mu.Unlock()
	if len(frees) == 0 {
		return
	}
	e.quiesce()
	for _, free := range frees {
		free()
	}
}

// Poll runs one turn of worker i on the calling goroutine and returns how many frames it took in. It is for harnesses
// that are their own clock, over memory or pcap files; it must not run beside Run, or from two goroutines for one worker.
func (e *Engine) Poll(i int) int {
	w := e.workers[i]
	w.parked.Store(false)
	n := w.poll()
	w.parked.Store(true)
	return n
}

// Close frees the forwarding tables, which lie outside the Go heap. The workers must have stopped, and nobody may look
// anything up any more.
func (e *Engine) Close() {
	for _, v := range e.fwd.vrfs {
		v.V4.Close()
		v.V6.Close()
	}
}
