package ike

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Depths of the pool's two queues. What does not fit is lost, as on a network, and sent again.
const (
	knownDepth = 4096 // of datagrams and times of SAs
	freshDepth = 256  // of peers that nobody knows: some 100 ms of key exchanges
)

// poolNice makes the kernel prefer the dataplane's workers where there are not enough cores for both: a key exchange gets a third
// of what a worker gets.
const poolNice = 5

// A pool does the work that takes time, and what belongs to SAs. Half of its workers do nothing for peers that nobody knows, so
// that a flood of these does not hold up the others; the rest do it when there is nothing else.
type pool struct {
	known, fresh chan func()
	contain      func() // deferred around all work
	wg           sync.WaitGroup
}

func newPool(contain func()) *pool {
	return &pool{contain: contain, known: make(chan func(), knownDepth), fresh: make(chan func(), freshDepth)}
}

// run starts the workers, at least two, and waits for them to end.
func (p *pool) run(ctx context.Context, workers int) {
	for i := range max(workers, 2) {
		fresh := p.fresh
		if i%2 == 0 {
			fresh = nil
		}
		p.wg.Go(func() { p.work(ctx, fresh) })
	}
	p.wg.Wait()
}

func (p *pool) work(ctx context.Context, fresh chan func()) {
	runtime.LockOSThread() // which ends with the worker, because it is not unlocked
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), poolNice)
	for ctx.Err() == nil {
		select {
		case f := <-p.known:
			p.do(f)
			continue
		default:
		}
		select {
		case f := <-p.known:
			p.do(f)
		case f := <-fresh:
			p.do(f)
		case <-ctx.Done():
		}
	}
}

func (p *pool) do(f func()) {
	defer p.contain()
	f()
}

// try queues work, unless the queue is full.
func try(queue chan func(), f func()) bool {
	select {
	case queue <- f:
		return true
	default:
		return false
	}
}
