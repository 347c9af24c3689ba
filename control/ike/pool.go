package ike

import (
	"context"
	"sync"
)

// Depths of the pool's two queues. What does not fit is lost, as on a network, and sent again.
const (
	knownDepth = 4096 // of datagrams and times of SAs
	newDepth   = 256  // of peers that nobody knows: some 100 ms of key exchanges
)

// A pool does the work that takes time, and what belongs to SAs: first that of SAs that are known.
type pool struct {
	known, fresh chan func()
	wg           sync.WaitGroup
}

func newPool() *pool {
	return &pool{known: make(chan func(), knownDepth), fresh: make(chan func(), newDepth)}
}

// run starts the workers and waits for them to end.
func (p *pool) run(ctx context.Context, workers int) {
	for range workers {
		p.wg.Go(func() { p.work(ctx) })
	}
	p.wg.Wait()
}

func (p *pool) work(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case f := <-p.known:
			f()
			continue
		default:
		}
		select {
		case f := <-p.known:
			f()
		case f := <-p.fresh:
			f()
		case <-ctx.Done():
		}
	}
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
