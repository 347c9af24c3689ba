package main

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"causeway/xsk"
)

// How much faster two workers are with two associations, one owned by each, than one worker with one. The packets come by
// their owner's queue, or in turn by both: then half of them are handed over.

type espCores struct {
	kind   string
	spread bool
}

func (c espCores) name() string {
	where := "own-queue"
	if c.spread {
		where = "both-queues"
	}
	return fmt.Sprintf("esp/two-cores/%s/aes128gcm16/64B/%s", c.kind, where)
}

func espCoresScenario(o options, report func(Result)) error {
	if runtime.NumCPU() < 2 || runtime.GOMAXPROCS(0) < 2 {
		return nil // nothing to compare
	}
	return measureEach([]espCores{{"decap", false}, {"encap", false}, {"decap", true}, {"encap", true}}, o, report, measureCores)
}

// twoCores is a node with two workers, each driven by a thread of its own.
type twoCores struct {
	*espWorld
	c      espCase
	stages [2]*stage
	own    [2]int // a customer whose association each worker owns
	spread bool   // frames come by both queues
	failed error  // to fill
	turn   atomic.Uint32
	_      [64]byte
	ready  atomic.Int32
	done   atomic.Int32
}

func measureCores(c espCores, quick bool) (Result, error) {
	if err := pinThread(0); err != nil {
		return Result{}, err
	}
	defer runtime.UnlockOSThread()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 2, FramesPerPart: espFrames, HugePages: true})
	if err != nil {
		return Result{}, err
	}
	defer u.Close()
	w := &twoCores{c: espCase{kind: c.kind, size: 64, sas: 16}}
	for k := range w.stages {
		w.stages[k] = newStage(u, k, espFrames)
	}
	if w.espWorld, err = newESPWorld(w.c, u, w.stages[:]...); err != nil {
		return Result{}, err
	}
	w.packets(w.c)
	for i, t := range w.spec.Tunnels {
		spi := t.SA.Outbound.SPI()
		if c.kind == "decap" {
			spi = t.SA.Inbound[0].SPI()
		}
		w.own[w.engine.OwnerOfSPI(spi)] = i
	}
	if w.own[0] == w.own[1] {
		return Result{}, fmt.Errorf("one worker owns all of %d associations", w.c.sas)
	}
	n, passes := 15, 200
	if quick {
		n, passes = 1, 2
	}
	var failed error
	contender := func(workers int, spread bool) func() float64 {
		return leastOf(passes, &failed, func() (float64, error) { return w.pass(workers, spread) })
	}
	stop := w.start()
	m := rounds(n, contender(2, c.spread), contender(1, false))
	stop()
	if failed != nil {
		return Result{}, failed
	}
	if err := w.vault.Close(); err != nil {
		return Result{}, err
	}
	return Result{Name: c.name(), PPS: 1e9 / m.a, NS: m.a, BestNS: m.bestA, Spread: m.spread, Against: "one core with one", AgainstNS: m.b, Ratio: m.a / m.b,
		Note: fmt.Sprintf("%.2f times the rate of one core", m.b/m.a)}, nil
}

// start runs a thread for worker 1, which fills or drives its stage when it is told to. Worker 0 is the caller's.
func (w *twoCores) start() (stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := pinThread(1); err != nil {
			panic(err)
		}
		for seen := uint32(0); ; {
			turn := w.turn.Load()
			if turn == seen {
				continue
			}
			seen = turn
			switch command(turn & 3) {
			case fillStage:
				w.failed = w.fillStage(1)
			case driveStage:
				w.drive(1, 2)
			case endThread:
				return
			}
			w.ready.Add(1)
		}
	})
	return func() {
		w.tell(endThread)
		wg.Wait()
	}
}

// A command is what the thread of worker 1 does next.
type command uint32

const (
	fillStage command = iota
	driveStage
	endThread
)

func (w *twoCores) tell(c command) {
	w.ready.Store(0)
	w.turn.Store(w.turn.Load()&^3 + 4 | uint32(c))
}

func (w *twoCores) await() {
	for w.ready.Load() == 0 {
	}
}

// fillStage fills a stage on the core that will take the frames.
func (w *twoCores) fillStage(k int) error {
	w.port, w.chosen = w.stages[k], []int{w.own[k]}
	if w.spread {
		w.chosen = w.own[:]
	}
	return w.fill(w.c)
}

// drive lets worker k poll until all frames of that many workers have left.
func (w *twoCores) drive(k, workers int) {
	mine := 0
	for began := time.Now(); w.done.Load() < int32(workers*espFrames) && time.Since(began) < time.Second; {
		w.engine.Poll(k)
		if n := len(w.stages[k].sent); n-mine >= espFrames/2 || n > mine && w.spread {
			w.done.Add(int32(n - mine))
			mine = n
		}
	}
}

// pass fills the stages and returns the wall-clock ns per packet.
func (w *twoCores) pass(workers int, spread bool) (float64, error) {
	w.spread = spread
	w.stages[1].sent = w.stages[1].sent[:0]
	if err := w.fillStage(0); err != nil {
		return 0, err
	}
	if workers == 2 {
		w.tell(fillStage)
		if w.await(); w.failed != nil {
			return 0, w.failed
		}
	}
	w.done.Store(0)
	start := time.Now()
	if workers == 2 {
		w.tell(driveStage)
	}
	w.drive(0, workers)
	if workers == 2 {
		w.await()
	}
	took := time.Since(start)
	if got := int(w.done.Load()); got != workers*espFrames {
		return 0, fmt.Errorf("%d of %d frames came out: %+v", got, workers*espFrames, dropped(w.engine))
	}
	return float64(took.Nanoseconds()) / float64(workers*espFrames), nil
}
