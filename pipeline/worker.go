package pipeline

import (
	"context"
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"causeway/crypto/esp"
	"causeway/pipeline/reassembly"
	"causeway/pipeline/wire"
	"causeway/xsk"
)

// Limits of one node.
const (
	maxWorkers = 64
	maxPorts   = 64

	// spinPolls is how many polls in a row must find nothing before the worker waits in poll(2).
	spinPolls = 2048
	// waitAlone and waitAmongOthers bound that wait: a worker with others must also look at their rings.
	waitAlone       = 10 * time.Millisecond
	waitAmongOthers = time.Millisecond

	fragmentTimeout = 15 * time.Second // RFC 791 3.2 recommends 15 s; RFC 8200 4.5 allows up to 60 s
)

// A worker is one pinned goroutine. It owns its queues, its part of the UMEM and everything in this struct; others
// read its counters, boundary, parked and lastPoll, and are the far ends of its rings.
type worker struct {
	id     int
	cpu    int
	engine *Engine
	umem   *xsk.UMEM
	memory unsafe.Pointer // start of the UMEM
	alone  bool           // the only worker: no frame has another home
	pool   *xsk.Pool

	queues []boundQueue
	ports  []outPort // by port
	wait   func(time.Duration)

	batch   batch
	again   batch // packets made while the batch was worked on
	descs   [BatchSize]xsk.Desc
	inside  entering          // packets that go into a tunnel
	ids     [BatchSize]uint32 // tunnels that a batch's packets come out of, of GRE packets candidates
	dst6hi  [BatchSize]uint64
	dst6lo  [BatchSize]uint64
	asked6  [BatchSize]uint8
	leaves6 [BatchSize]Leaf
	freed   [BatchSize]uint64
	nfreed  int
	moved   [BatchSize]uint64 // addresses on their way between rings and the pool
	scratch [xsk.FrameSize]byte

	tunnels                  []tunnelCounters // by tunnel id
	tunnelDrops              []tunnelDrops    // by tunnel id
	drops                    *dropTable
	sampler                  sampler
	captured                 *Capture    // that this worker takes part in; nil: none
	capturing                *captureEnd // its part of it
	sequence                 []counter   // next GRE sequence number, by tunnel id; only of tunnels that this worker owns
	count                    workerCounters
	fragments                *reassembly.Table
	joined                   reassembly.Out
	dropTimeout              func(uint64)
	whole                    batch // datagrams whose last fragment has come
	sizeErrors, otherErrors  limiter
	outside                  limiter        // answers to probes by the Internet
	perTunnel                []tunnelLimits // of what comes out of tunnels for us, by tunnel id
	ident                    uint32         // identification of the last packet that was fragmented here
	plan                     [maxPieces]wire.Piece
	innerPieces, outerPieces [maxPieces]packet
	resolve                  *resolveRing

	stray   strayNote
	opener  esp.Opener
	sas     [BatchSize]uint32 // associations of a batch's ESP packets
	opening [BatchSize]uint8  // packets of the batch that opener has, and then those that it opened
	sealer  *esp.Sealer
	sealing [BatchSize]sealedPacket // packets that sealer has
	nseal   int

	toward  []*ring[handover] // by worker; nil toward itself
	from    []*ring[handover]
	taken   [BatchSize]handover // on its way from a ring
	home    []*ring[uint64]     // frames that go home to that worker's part
	coming  []*ring[uint64]     // frames of ours that come home from that worker
	punts   *ring[copySlot]
	inject  *ring[copySlot]
	heard   *ring[copySlot] // messages of other nodes
	told    *ring[copySlot] // messages to other nodes
	probes  tunnelRings     // probes, and answers to them
	devices tunnelRings

	started time.Time
	now     int64 // nanoseconds since started, as of this poll

	_        [64]byte      // others look at what follows all the time
	boundary atomic.Uint64 // batches begun
	parked   atomic.Bool   // not running or asleep: uses no tables
	lastPoll atomic.Int64
}

// tunnelLimits limit what one tunnel may give the control side.
type tunnelLimits struct {
	answers limiter // to probes, and BFD
	device  limiter
}

// boundQueue is one queue that the worker receives from.
type boundQueue struct {
	queue Queue
	port  int
	debt  int // frames that its fill ring lacks
}

// outPort collects what leaves by a port during a batch.
type outPort struct {
	queue Queue // nil: the worker has no queue of this port
	via   int   // worker that has one, or -1
	n     int
	descs [2 * BatchSize]xsk.Desc // a batch, and what emit lets stand
}

func newWorker(e *Engine, id int, c WorkerConfig) *worker {
	w := &worker{
		id: id, cpu: c.CPU, engine: e, umem: e.umem, pool: e.umem.Pool(id), wait: c.Wait,
		memory:      unsafe.Pointer(unsafe.SliceData(e.umem.Bytes())),
		ports:       make([]outPort, e.ports),
		tunnels:     make([]tunnelCounters, MaxTunnels),
		tunnelDrops: make([]tunnelDrops, MaxTunnels),
		drops:       newDropTable(),
		sampler:     newSampler(id),
		sequence:    make([]counter, MaxTunnels),
		perTunnel:   make([]tunnelLimits, MaxTunnels),
		resolve:     newResolveRing(),
		sealer:      esp.NewSealer(e.ivs),
		sizeErrors:  fullLimiter(), otherErrors: fullLimiter(), outside: fullLimiter(),
		started: time.Now(),
	}
	for i := range w.perTunnel {
		w.perTunnel[i] = tunnelLimits{fullLimiter(), fullLimiter()}
	}
	for _, q := range c.Queues {
		w.queues = append(w.queues, boundQueue{queue: q.Queue, port: q.Port, debt: q.FillSize})
		if w.ports[q.Port].queue == nil {
			w.ports[q.Port].queue = q.Queue
		}
	}
	w.fragments = newReassembler(e.umem.FramesPerPart())
	w.dropTimeout = func(chunk uint64) {
		w.countLost(FragmentTimeout)
		w.release(chunk)
	}
	w.parked.Store(true)
	return w
}

func (w *worker) run(ctx context.Context) error {
	if w.cpu >= 0 {
		var set unix.CPUSet
		set.Set(w.cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("worker %d: cannot be pinned to core %d: %w; `workers: {cpus: ...}` lists the cores to use", w.id, w.cpu, err)
		}
	}
	w.now = int64(time.Since(w.started)) // what came before is no gap
	w.parked.Store(false)
	defer w.parked.Store(true)
	idle := 0
	for ctx.Err() == nil {
		if w.poll() > 0 {
			idle = 0
			continue
		}
		w.count.emptyPolls.add(1)
		if idle++; idle >= spinPolls && w.wait != nil {
			w.sleep()
		}
	}
	w.drain()
	return nil
}

// sleep waits for traffic. The worker is parked meanwhile, so nobody waits for its next batch.
func (w *worker) sleep() {
	w.count.sleeps.add(1)
	timeout := waitAlone
	if !w.alone || w.fragments.Held() > 0 {
		timeout = waitAmongOthers
	}
	w.parked.Store(true)
	w.wait(timeout)
	w.parked.Store(false)
	w.now = int64(time.Since(w.started)) // asleep is not a gap
}

// poll is one turn at the present time.
func (w *worker) poll() int {
	w.tick()
	return w.turn()
}

// turn takes a batch from each queue and what other workers and the kernel handed over, then the frames that have left,
// and gives the fill rings what they lack. It returns how many frames it took in.
func (w *worker) turn() int {
	w.boundary.Add(1)
	t := w.engine.tables.Load()
	if c := w.engine.capture.Load(); c != w.captured {
		w.followCapture(c)
	}
	work := 0
	for i := range w.queues {
		work += w.receive(t, &w.queues[i])
	}
	if !w.alone {
		work += w.takeOver(t)
		w.welcome()
	}
	work += w.takeInjected(t)
	work += w.takeMessages(t)
	work += w.takeFor(t, w.probes.in)
	work += w.takeFor(t, w.devices.in)
	w.flush()
	w.recycle()
	w.expire()
	w.sampler.ring.show() // nothing more becomes of what was sampled in this turn
	if w.capturing != nil {
		w.capturing.endTurn()
	}
	return work
}

// tick notes the time of this poll and the gap since the last one.
func (w *worker) tick() {
	now := int64(time.Since(w.started))
	gap := uint64(now - w.now)
	w.now = now
	w.lastPoll.Store(now)
	i := min(bits.Len64(gap>>12), PollGapBuckets-1)
	w.count.pollGap[i].add(1)
	if gap > w.count.maxPollGap.get() {
		w.count.maxPollGap.set(gap)
	}
}

// receive takes a batch from q through the pipeline.
func (w *worker) receive(t *Tables, q *boundQueue) int {
	n := q.queue.Receive(w.descs[:])
	if n == 0 {
		return 0
	}
	q.debt += n
	w.count.received.add(uint64(n))
	w.count.batches.add(1)
	w.choose(t, &w.batch, n)
	if w.capturing != nil {
		w.capturing.look(w, &w.batch, n, q.port)
	}
	w.process(t, &w.batch, w.descs[:n], q.port)
	w.finishWhole(t)
	w.showHandedOver() // a worker with many queues would fill the rings before flush
	return n
}

// process is the packet path. Every stage works on the whole batch; file order in this package is packet order.
func (w *worker) process(t *Tables, b *batch, descs []xsk.Desc, port int) {
	w.parse(t, b, descs, port) // parse.go
	w.decap(t, b)              // decap.go, inner.go
	w.route(t, b)              // route.go
	w.forward(t, b)            // forward.go: clamp, size, encap, link
	w.sendOriginated(t)
}

// sendOriginated sends what was made while the batch was worked on. Nothing can be made about such a packet in turn.
func (w *worker) sendOriginated(t *Tables) {
	if w.again.n == 0 {
		return
	}
	w.route(t, &w.again)
	w.forward(t, &w.again)
	w.again.n = 0
	w.again.reset()
}

// awaitBoundary returns when the worker has begun a batch after the call, or is parked.
func (w *worker) awaitBoundary() {
	before := w.boundary.Load()
	for wait := time.Microsecond; w.boundary.Load() == before && !w.parked.Load(); wait = min(2*wait, time.Millisecond) {
		time.Sleep(wait)
	}
}

// drop counts why packet p goes no further and gives its frame back.
func (w *worker) drop(p *packet, r Reason) {
	w.countDrop(p, r)
	w.release(p.chunk)
}

// release gives a frame back to the part of the UMEM that it came from.
func (w *worker) release(chunk uint64) {
	if w.nfreed == len(w.freed) {
		w.putFreed()
	}
	w.freed[w.nfreed] = chunk
	w.nfreed++
}

func (w *worker) putFreed() {
	w.giveBack(w.freed[:w.nfreed])
	w.nfreed = 0
}

func (w *worker) giveBack(chunks []uint64) {
	if w.alone {
		w.pool.Put(chunks)
	} else {
		w.sendHome(chunks)
	}
}

// recycle takes back the frames that have left, and gives the fill rings what they lack.
func (w *worker) recycle() {
	for i := range w.queues {
		q := w.queues[i].queue
		for {
			n := q.Reap(w.moved[:])
			w.giveBack(w.reuse(w.moved[:n]))
			if n < len(w.moved) {
				break
			}
		}
		q.Kick() // what an error left on the TX ring goes out with a later round
	}
	if w.nfreed > 0 {
		w.putFreed()
	}
	for i := range w.queues {
		w.refill(&w.queues[i])
	}
}

// reuse gives frames that have just left straight to the fill rings, as many as they lack: the pool would hand out the
// same ones. It returns the others. Where there are several workers a frame may have to go home first.
func (w *worker) reuse(frames []uint64) []uint64 {
	if !w.alone {
		return frames
	}
	for i := range w.queues {
		q := &w.queues[i]
		taken := q.queue.Refill(frames[:min(q.debt, len(frames))])
		q.debt -= taken
		frames = frames[taken:]
	}
	return frames
}

func (w *worker) refill(q *boundQueue) {
	for q.debt > 0 {
		n := w.pool.Get(w.moved[:min(q.debt, len(w.moved))])
		if n == 0 {
			return
		}
		taken := q.queue.Refill(w.moved[:n])
		q.debt -= taken
		if taken < n {
			w.pool.Put(w.moved[taken:n])
			return
		}
	}
}

// drain ends the worker's part: what is held is dropped, what was queued is sent.
func (w *worker) drain() {
	w.flush()
	w.giveUpFragments()
	if !w.alone {
		w.takeOver(w.engine.tables.Load())
		w.flush()
		w.welcome()
	}
	w.recycle()
	w.sampler.ring.show()
}
