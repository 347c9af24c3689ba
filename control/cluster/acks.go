package cluster

import (
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// Nodes acknowledge new children: by the cluster's connections, or from node to node while the store is away (neighbours.go).
// By the connections they come to one subject of this process, with a number for each wait: a subscription for each would be told
// to all servers, and taken back, for each child.

// acks are the waits for acknowledgements.
type acks struct {
	inbox string // the number follows

	mu      sync.Mutex
	last    uint64
	waiting map[string]*ackWait // by number
	bySPI   map[uint32]*ackWait // the newest of each
}

// An ackWait is one child that other nodes are to acknowledge.
type ackWait struct {
	reply      string
	spi        uint32
	generation uint64
	missing    map[string]bool // nodes that have not
	all        chan struct{}   // closed when none is missing
}

func newAcks() *acks {
	return &acks{inbox: nats.NewInbox() + ".", waiting: map[string]*ackWait{}, bySPI: map[uint32]*ackWait{}}
}

// expect waits for nodes from now on, until end.
func (a *acks) expect(spi uint32, generation uint64, missing map[string]bool) *ackWait {
	w := &ackWait{spi: spi, generation: generation, missing: missing, all: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	number := strconv.FormatUint(a.last, 36)
	w.reply, a.waiting[number], a.bySPI[spi] = a.inbox+number, w, w
	if len(missing) == 0 {
		close(w.all)
	}
	return w
}

// left are the nodes that have not acknowledged yet.
func (a *acks) left(w *ackWait) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return keysOf(w.missing)
}

// end waits no more, and returns who has not acknowledged.
func (a *acks) end(w *ackWait) (missing []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, strings.TrimPrefix(w.reply, a.inbox))
	if a.bySPI[w.spi] == w {
		delete(a.bySPI, w.spi)
	}
	return keysOf(w.missing)
}

// of is the wait that a message is for; nil: it is over.
func (a *acks) of(subject string) *ackWait {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting[strings.TrimPrefix(subject, a.inbox)]
}

// about is the newest wait for an SPI; nil: there is none.
func (a *acks) about(spi uint32) *ackWait {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bySPI[spi]
}

// note notes that a node has acknowledged.
func (a *acks) note(w *ackWait, node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !w.missing[node] {
		return
	}
	if delete(w.missing, node); len(w.missing) == 0 {
		close(w.all)
	}
}

// acknowledged takes an acknowledgement.
func (c *Cluster) acknowledged(m *nats.Msg) {
	w := c.acks.of(m.Subject)
	if w == nil {
		return
	}
	if node, ok := c.openAck(w.spi, w.generation, m.Data); ok {
		c.acks.note(w, node)
	}
}
