package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/cluster/engine"
	"causeway/control/cluster/seal"
)

// A session is one time that the store is reached: what is known of its buckets.
type session struct {
	link        uint64 // by which it is reached
	buckets     *buckets
	epochs      epochs
	members     map[string]*lease // admitted ones, without us
	membersRead bool
	sasRead     bool
	ikesRead    bool
	ikesSeen    spiSet // until then
	ownersRead  bool
	document    documentWatch
	ready       bool // all is read, and opened as far as there are keys
	watches     [watches]watched
	compared    time.Time
	whole       time.Time // when the store had told all that it has
	swept       time.Time
	beaten      time.Time // when this node has said that it lives the last time
	recorded    time.Time // when it has written its record the last time
	asked       time.Time // when it began to, by its own clock
	answered    time.Time // when the store had it, likewise
	record      string    // and what that says
	misses      []string  // whose beats it has said that do not come
}

// join takes part as long as the store answers. hear has this process hear the others, once it has its number.
func (c *Cluster) join(ctx context.Context, hear func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	link := c.engine.Link()
	b, err := openBuckets(ctx, c.engine.Store, c.storage(), c.engine.Replicas, c.markTime)
	if err != nil {
		return err
	}
	c.apart = !c.parted.IsZero() && time.Since(c.parted) > c.markTime-c.markTime/60 // that it was lost is noticed late
	s := &session{link: link, buckets: b, epochs: epochs{wraps: map[string]*seal.Wrap{}}, members: map[string]*lease{}}
	c.mu.Lock()
	c.leases = s.members
	c.mu.Unlock()
	if !c.alone {
		if err := c.meet(ctx, b, hear); err != nil {
			return err
		}
	}
	var watchers [watches]jetstream.KeyWatcher
	for i, kv := range b.watched() {
		if watchers[i], err = kv.WatchAll(ctx); err != nil {
			return err
		}
	}
	if watchers[watchDocument], err = b.document.Watch(ctx, keyDocument); err != nil {
		return err
	}
	defer func() { // each waits for an answer, which a store that is lost does not give
		for _, w := range watchers {
			go w.Stop()
		}
	}()
	err = c.serve(ctx, s, watchers)
	if s.ready {
		c.parted = time.Now()
	}
	return err
}

// storage is where the store has what is to outlive its process, if anything is.
func (c *Cluster) storage() jetstream.StorageType {
	if c.alone {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

// meet begins what there is to do with other nodes.
func (c *Cluster) meet(ctx context.Context, b *buckets, hear func() error) error {
	if err := c.number(ctx, b); err != nil {
		return err
	}
	if err := hear(); err != nil {
		return err
	}
	if err := c.notOlder(ctx, b); err != nil {
		return err
	}
	go c.watchNext(ctx)
	c.storeUnseen()
	return nil
}

// number takes the number of this process, the first time.
func (c *Cluster) number(ctx context.Context, b *buckets) error {
	c.mu.Lock()
	numbered, w := c.numbered, c.writer
	c.mu.Unlock()
	if numbered {
		if w.Generation != b.generation {
			return strangeStore{fmt.Errorf("the store is another one than before (generation %016x, it was %016x): restart this node, it needs a new number for its IVs", b.generation, w.Generation)}
		}
		return nil
	}
	if err := c.supersede(ctx, b); err != nil {
		return err
	}
	asking, done := within(ctx)
	defer done()
	w, err := c.takeWriter(asking, b)
	if err != nil {
		return err
	}
	if c.opts.OnWriter != nil {
		if err := c.opts.OnWriter(w); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.writer, c.numbered = w, true
	c.mu.Unlock()
	c.log.Info("cluster: this process has its number", "writer", w.ID, "generation", fmt.Sprintf("%016x", w.Generation))
	return nil
}

// serve handles what comes, until the store is lost.
func (c *Cluster) serve(ctx context.Context, s *session, w [watches]jetstream.KeyWatcher) error {
	tick := time.NewTicker(beatTime / 4)
	defer tick.Stop()
	if err := c.sayBeat(ctx, s); err != nil {
		return err
	}
	if err := c.compareClocks(ctx, s); err != nil {
		return err
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case v, ok := <-w[watchNodes].Updates():
			if !ok {
				return errors.New("the store has ended the watch of nodes")
			}
			s.watches[watchNodes].note(v)
			c.takeMember(s, v)
			err = c.turnEpochs(ctx, s)
		case v, ok := <-w[watchEpochs].Updates():
			if !ok {
				return errors.New("the store has ended the watch of epochs")
			}
			s.watches[watchEpochs].note(v)
			if err = c.takeEpoch(s, v); err == nil {
				err = c.turnEpochs(ctx, s)
			}
		case v, ok := <-w[watchSAs].Updates():
			if !ok {
				return errors.New("the store has ended the watch of child SAs")
			}
			s.watches[watchSAs].note(v)
			c.takeStored(s, v)
		case v, ok := <-w[watchIKEs].Updates():
			if !ok {
				return errors.New("the store has ended the watch of IKE SAs")
			}
			s.watches[watchIKEs].note(v)
			c.takeIKE(s, v)
		case v, ok := <-w[watchOwners].Updates():
			if !ok {
				return errors.New("the store has ended the watch of owners")
			}
			s.watches[watchOwners].note(v)
			c.takeOwner(s, v)
		case v, ok := <-w[watchDocument].Updates():
			if !ok {
				return errors.New("the store has ended the watch of the configuration")
			}
			s.watches[watchDocument].note(v)
			c.takeDocument(s, v)
			if s.ready {
				err = c.turnDocument(ctx, s)
			}
		case <-c.anew:
			return errRoster
		case <-c.work:
			if !s.ready { // what there is to do is done when it is
				continue
			}
			err = c.turnAtOnce(ctx, s, time.Now())
		case now := <-tick.C:
			if link := c.engine.Link(); link == 0 {
				return engine.ErrAway
			} else if link != s.link {
				return errors.New("the connection to the store was lost, and is there again: all is read again")
			}
			if c.beatDue(s, now) {
				err = c.sayBeat(ctx, s)
			}
			if err == nil {
				err = c.turn(ctx, s, now)
			}
		}
		if err != nil {
			return err
		}
	}
}

// turn does what is due.
func (c *Cluster) turn(ctx context.Context, s *session, now time.Time) error {
	if err := c.turnEpochs(ctx, s); err != nil {
		return err
	}
	if c.keys.Current() == 0 || !s.sasRead || !s.ikesRead || !s.ownersRead {
		return nil
	}
	c.ready(s)
	if err := c.turnAtOnce(ctx, s, now); err != nil {
		return err
	}
	if !c.alone {
		c.turnFloors(now)
		c.tellUsage(now)
		c.tellSources(now)
	}
	if err := c.turnDocument(ctx, s); err != nil {
		return err
	}
	if err := c.bury(ctx, s, c.clock.common()); err != nil {
		return err
	}
	if err := c.renew(ctx, s); err != nil {
		return err
	}
	if err := c.sweep(ctx, s, now); err != nil {
		return err
	}
	err := c.compare(ctx, s, now)
	c.mu.Lock()
	c.compared = s.whole
	c.mu.Unlock()
	return err
}

// turnAtOnce does what does not wait for the next turn: somebody waits for it. Who is gone leaves what others go on with.
func (c *Cluster) turnAtOnce(ctx context.Context, s *session, now time.Time) error {
	if err := c.storeAll(ctx, s); err != nil {
		return err
	}
	if err := c.eraseIKEs(ctx, s); err != nil {
		return err
	}
	if err := c.fillStock(ctx, s); err != nil {
		return err
	}
	if c.beatNow.Swap(false) {
		if err := c.sayBeat(ctx, s); err != nil {
			return err
		}
	}
	if err := c.sayGoodbye(ctx, s); err != nil {
		return err
	}
	c.adoptIKEs(now)
	return c.claimOwners(ctx, s, now)
}

// completeTime is how long a node that has joined the first time waits for what it has no key of: whoever has written it seals it anew.
const completeTime = 15 * time.Second

// ready says that this node can share and take.
func (c *Cluster) ready(s *session) {
	c.mu.Lock()
	first, children := c.trouble != "", c.children
	if first {
		c.joined = time.Now()
	}
	c.trouble, c.buckets, c.members = "", s.buckets, s.members
	s.ready = true
	if len(c.unopened)+len(c.unopenedIKEs) == 0 || time.Since(c.joined) > completeTime || !s.someHaveFormer(c.keys.Oldest()) {
		c.complete = true
	}
	c.mu.Unlock()
	if first {
		c.beatNow.Store(true) // the others give nothing to a node of which they do not know that it has the key
		c.log.Info("cluster: joined", "nodes", len(s.members)+1, "child_sas", children, "epoch", c.keys.Current())
	}
}

// takeEpoch takes over a value of the bucket of epochs.
func (c *Cluster) takeEpoch(s *session, v jetstream.KeyValueEntry) error {
	if v == nil {
		s.epochs.read = true
		return nil
	}
	if err := s.epochs.take(v); err != nil {
		c.complain(err)
	}
	return nil
}
