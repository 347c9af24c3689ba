package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A lease is over after three seconds. That a process has ended is known earlier: each node asks the next one, by name, whether it is
// there, and tells all when it is not. If nobody listens any more, the engine says so at once; a node that does not answer is taken for
// gone after some questions, still before its lease is over.
const (
	askTime    = 200 * time.Millisecond
	askPatient = 8 // questions without an answer: an overloaded node is slow
)

const (
	subjectAsk  = "causeway.ask."
	subjectGone = "causeway.gone"
)

// A death is the process that is gone, as it is told.
type death struct {
	Node   string `json:"node"`
	Writer uint32 `json:"w"`
	Beat   uint64 `json:"beat"` // the last that was heard of it: a later one says that it lives
}

// answerAsked answers the node before this one. Only who has the key of the epoch can.
func (c *Cluster) answerAsked(m *nats.Msg) {
	if b, err := c.keys.Seal("answer|"+c.opts.Member.Name, []byte(m.Reply)); err == nil && m.Reply != "" {
		_ = m.Respond(b)
	}
}

// watchNext asks the next node until ctx is done.
func (c *Cluster) watchNext(ctx context.Context) {
	tick := time.NewTicker(askTime)
	defer tick.Stop()
	var missed int
	var of process
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		next, beat, ok := c.next()
		if !ok {
			continue
		}
		if next != of {
			of, missed = next, 0
		}
		switch err := c.askWhether(ctx, next.node); {
		case ctx.Err() != nil:
			return
		case err == nil:
			missed = 0
			continue
		case errors.Is(err, nats.ErrNoResponders):
			missed = askPatient
		default:
			missed++
		}
		if missed >= askPatient && c.storeAnswers(ctx) { // else it is the way there that is gone
			c.tellGone(death{next.node, next.writer, beat})
			missed = 0
		}
	}
}

// storeAnswers reports whether the store can be reached now.
func (c *Cluster) storeAnswers(ctx context.Context) bool {
	c.mu.Lock()
	b := c.buckets
	c.mu.Unlock()
	if b == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, err := b.nodes.Get(ctx, c.opts.Member.Name)
	return err == nil || errors.Is(err, jetstream.ErrKeyNotFound)
}

// next is the node that lives and follows this one by name, the first one after the last.
func (c *Cluster) next() (p process, beat uint64, ok bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name, l := range c.members {
		if l.live(now) && !l.sign.Load().read { // a hub that starts reads of all, and is reached by them a moment later
			names = append(names, name)
		}
	}
	if len(names) == 0 || c.trouble != "" {
		return p, 0, false
	}
	slices.Sort(names)
	at := slices.IndexFunc(names, func(n string) bool { return strings.Compare(n, c.opts.Member.Name) > 0 })
	l := c.members[names[max(at, 0)]]
	return process{l.member.Name, l.member.Writer}, l.sign.Load().number, true
}

// askWhether asks a node whether it is there.
func (c *Cluster) askWhether(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	m, err := c.engine.Conn.RequestWithContext(ctx, subjectAsk+node, nil)
	if err != nil {
		return err
	}
	_, err = c.keys.Open("answer|"+node, m.Data)
	return err
}

// tellGone tells all nodes, this one included, that a process is gone.
func (c *Cluster) tellGone(d death) {
	b, err := json.Marshal(d)
	if err != nil {
		return
	}
	_ = c.say(subjectGone, subjectGone, b) // else its lease ends
}

// takeGone ends the lease of a process that another node has found gone, unless it was heard since.
func (c *Cluster) takeGone(text []byte) error {
	var d death
	if err := json.Unmarshal(text, &d); err != nil {
		return errors.New("a process is said to be gone, and not which")
	}
	c.mu.Lock()
	l := c.members[d.Node]
	gone := l != nil && l.member.Writer == d.Writer && l.sign.Load().number <= d.Beat && l.live(c.now())
	if gone {
		l.gone.Store(true)
	}
	c.mu.Unlock()
	if gone {
		c.log.Warn("cluster: a node does not answer any more", "node", d.Node)
		now := time.Now()
		c.died.Store(&now)
		c.wake()
	}
	return nil
}
