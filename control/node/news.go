package node

import (
	"context"
	"sync"
)

// news are things that have happened to tunnels, in their order. Whoever finds them has no time: it reads packets, and others wait for its lock.
// What follows from them, routes that change and files that are written, may take a while.
type news struct {
	mu   sync.Mutex
	list []func()
	bell chan struct{}
}

func newNews() *news { return &news{bell: make(chan struct{}, 1)} }

// add has f called after all that was added before. There is no bound but that of what can happen: a change of a state for each tunnel at most, while
// one waits for probes' ends.
func (n *news) add(f func()) {
	n.mu.Lock()
	n.list = append(n.list, f)
	n.mu.Unlock()
	select {
	case n.bell <- struct{}{}:
	default:
	}
}

// take does what there is to do.
func (n *news) take() {
	n.mu.Lock()
	list := n.list
	n.list = nil
	n.mu.Unlock()
	for _, f := range list {
		f()
	}
}

// run does what there is to do, until ctx is done.
func (n *news) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.bell:
			n.take()
		}
	}
}
