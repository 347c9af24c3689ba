package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/cluster/seal"
)

// An epoch is under which key values are sealed from now on. It stands in the bucket of epochs under keyEpoch; the key itself stands
// beside it once for each node, wrapped.
type epoch struct {
	Version int    `json:"version"`
	Epoch   uint32 `json:"epoch"`
	From    string `json:"from"` // the node that made it
	Key     string `json:"key"`  // seal.Key.ID
}

const keyEpoch = "current"

// is reports whether two are one, whatever else is said of it: the store is not believed.
func (e epoch) is(f epoch) bool { return e.Epoch == f.Epoch && e.Key == f.Key }

// wrapAt is where the key of an epoch stands for a node: a try that failed has left another key's.
func (e epoch) wrapAt(to string) string { return fmt.Sprintf("%s%d/%s/%s", wraps, e.Epoch, e.Key, to) }

const wraps = "wrap/"

// rotateAfter is when the key of an epoch is replaced, by our own clock since we have seen it first: early enough for it to be gone
// within a day.
const rotateAfter = 12 * time.Hour

// orphanAfter is how long a node is waited for that has the key of the current epoch, when none is there.
const orphanAfter = 15 * time.Second

// epochs is what a node knows of the bucket of epochs.
type epochs struct {
	current  epoch
	revision uint64 // of current; 0: there is none
	made     time.Time
	wraps    map[string]*seal.Wrap // by key
	read     bool                  // all that stands in the bucket has been seen
}

// take takes over a value of the bucket.
func (e *epochs) take(v jetstream.KeyValueEntry) error {
	switch {
	case v.Operation() != jetstream.KeyValuePut:
		delete(e.wraps, v.Key())
	case v.Key() == keyEpoch:
		var c epoch
		if err := json.Unmarshal(v.Value(), &c); err != nil || c.Version < 1 || c.Epoch == 0 {
			return errors.New("the current epoch is none")
		}
		if e.revision != 0 && c.Epoch < e.current.Epoch {
			return fmt.Errorf("the current epoch is %d after it was %d: the store is older than it was", c.Epoch, e.current.Epoch)
		}
		e.current, e.revision, e.made = c, v.Revision(), v.Created()
	case strings.HasPrefix(v.Key(), wraps):
		w := new(seal.Wrap)
		if err := json.Unmarshal(v.Value(), w); err != nil {
			return fmt.Errorf("%s is no epoch key", v.Key())
		}
		e.wraps[v.Key()] = w
	}
	return nil
}

// turnEpochs does what there is to be done about epochs: take a key that was given to us, make the first one or the next, give keys to
// those who have none.
func (c *Cluster) turnEpochs(ctx context.Context, s *session) error {
	e := &s.epochs
	if !e.read || !s.membersRead {
		return nil
	}
	defer func() { c.noteKey(c.keys.Has(e.current.Epoch)) }()
	if e.revision != 0 && !c.keys.Has(e.current.Epoch) {
		if err := c.takeKey(s); err != nil {
			return err
		}
	}
	if !c.seen.epoch.is(e.current) {
		c.seen.epoch, c.seen.at = e.current, time.Now()
		if e.made.Before(c.seen.at) { // by the store's clock
			c.seen.at = e.made
		}
	}
	c.given.note(e)
	switch {
	case e.revision == 0:
		return c.rotate(ctx, s)
	case c.keeper(s) != c.opts.Member.Name:
		return nil
	case !c.keys.Has(e.current.Epoch):
		if time.Since(c.seen.at) > c.orphanAfter { // who had it is gone for good
			return c.rotate(ctx, s)
		}
		return nil
	case time.Since(c.seen.at) > c.rotateAfter || time.Since(c.seen.at) > leaveEvery && c.leftWithKey(e) || c.keys.Newest() > e.current.Epoch:
		return c.rotate(ctx, s)
	}
	return c.giveKeys(ctx, s, e.current)
}

// leaveEvery is how old an epoch is at least that ends because a node has left: while rosters are changed one after the other, a node with the
// former one may give the next key too to who has left.
const leaveEvery = 5 * time.Second

// givenKeys are who was given the key of an epoch, as far as this process has seen: what is removed from the store nobody forgets.
type givenKeys struct {
	epoch epoch
	to    map[string]map[string]bool // fingerprints, by the node's name: there may be one after the other
}

// note takes up what stands in the store.
func (g *givenKeys) note(e *epochs) {
	if !g.epoch.is(e.current) {
		g.epoch, g.to = e.current, map[string]map[string]bool{}
	}
	for key, w := range e.wraps {
		name, current := strings.CutPrefix(key, e.current.wrapAt(""))
		if !current {
			continue
		}
		if g.to[name] == nil {
			g.to[name] = map[string]bool{}
		}
		g.to[name][w.To] = true
	}
}

// leftWithKey reports whether somebody has the current key who is not admitted any more.
func (c *Cluster) leftWithKey(e *epochs) bool {
	roster := c.admitted()
	for name, identities := range c.given.to {
		for identity := range identities {
			if roster[name] != identity {
				c.log.Info("cluster: a node has left the roster: its epoch ends", "node", name, "epoch", e.current.Epoch)
				return true
			}
		}
	}
	return false
}

// someHaveFormer reports whether there is a node, be it not heard yet, that may have the key of an epoch before one.
func (s *session) someHaveFormer(epoch uint32) bool {
	for _, l := range s.members {
		if m := l.member; m.Epoch != 0 && m.Oldest < epoch { // 0 may be any
			return true
		}
	}
	return false
}

// destroyAfter is how long after a new epoch a value under the one before may still be on its way.
const destroyAfter = time.Minute

// forGoneAfter is how long the keeper has for what nodes that are gone have written.
const forGoneAfter = 3 * time.Second

// renew seals anew what is sealed under an epoch before the current one: each node what it has written, the keeper what is of nodes that
// are gone. When nothing is left the old keys are destroyed.
func (c *Cluster) renew(ctx context.Context, s *session) error {
	current := c.keys.Current()
	if oldest := c.keys.Oldest(); oldest == 0 || oldest == current {
		return nil
	}
	keeper := c.keeper(s) == c.opts.Member.Name
	// The keeper seals anew what is of nodes that are gone. It may not have the former key, when it was started since: then who has it does.
	forGone := keeper || time.Since(c.seen.at) > forGoneAfter
	left := 0
	for spi, h := range c.sealedBefore(current) {
		if h.kind == reserved && !h.own {
			continue // its own process seals it anew, or it is swept
		}
		if !h.own && (!forGone || c.writes(s, h)) {
			left++ // its node does
			continue
		}
		if err := c.stillHere(ctx, s); err != nil {
			return err
		}
		if err := c.sealAgain(ctx, s, spi, h); err != nil {
			return err
		}
	}
	ikes, err := c.renewIKEs(ctx, s, current, forGone)
	if err != nil {
		return err
	}
	owners, err := c.renewOwners(ctx, s, current, forGone)
	if err != nil {
		return err
	}
	document, err := c.renewDocument(ctx, s, current, forGone)
	if err != nil {
		return err
	}
	left += ikes + owners + document
	if left > 0 || time.Since(c.seen.at) < c.destroyAfter {
		return nil
	}
	c.keys.Destroy(current)
	c.log.Info("cluster: the keys of former epochs are destroyed", "before", current)
	if keeper {
		return c.purgeFormer(ctx, s, current)
	}
	return nil
}

// writes reports whether the process that has written a record lives.
func (c *Cluster) writes(s *session, h *held) bool {
	l := s.members[h.node]
	return l != nil && l.live(c.now()) && l.member.Writer == h.writer
}

// sealedBefore are the records that are sealed under epochs before one.
func (c *Cluster) sealedBefore(epoch uint32) map[uint32]*held {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[uint32]*held{}
	for spi, h := range c.held {
		if seal.EpochOf(h.sealed) < epoch {
			out[spi] = h
		}
	}
	return out
}

// sealAgain seals a record under the current epoch, and stores it.
func (c *Cluster) sealAgain(ctx context.Context, s *session, spi uint32, h *held) error {
	at := place(bucketSAs, spiKey(spi))
	c.mu.Lock()
	text, err := c.keys.Open(at, h.sealed)
	var sealed []byte
	if err == nil {
		sealed, err = c.keys.Seal(at, text)
	}
	clear(text)
	if err != nil || c.held[spi] != h {
		c.mu.Unlock()
		return err
	}
	h.sealed = sealed
	c.mu.Unlock()
	ctx, cancel := within(ctx)
	defer cancel()
	if _, err := s.buckets.sas.Put(ctx, spiKey(spi), sealed); err != nil {
		return fmt.Errorf("spi %s: sealed anew and not stored: %w", spiKey(spi), err)
	}
	return nil
}

// purgeFormer removes the wraps of former epochs from the store.
func (c *Cluster) purgeFormer(ctx context.Context, s *session, current uint32) error {
	for key, w := range s.epochs.wraps {
		if w.Epoch < current {
			if err := c.purge(ctx, s.buckets.epochs, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// unreadableAfter is how long after a new epoch a node that has the keys of before, and was cut off or is slow, may still seal anew what
// it has written.
const unreadableAfter = 10 * time.Minute

// purgeUnreadable removes from the store what nobody can open any more: values of former epochs that no node has sealed anew.
func (c *Cluster) purgeUnreadable(ctx context.Context, s *session) error {
	current := c.keys.Current()
	if time.Since(c.seen.at) < c.unreadableAfter || c.keys.Oldest() != current {
		return nil
	}
	children, ikes := c.unreadable(current)
	for _, key := range children {
		if err := c.purge(ctx, s.buckets.sas, key); err != nil {
			return err
		}
	}
	for _, spi := range ikes {
		if err := c.purge(ctx, s.buckets.ikes, ikeKey(spi)); err != nil {
			return err
		}
	}
	return nil
}

// unreadable forgets what could not be opened and is of epochs before the current one, and returns what of it stands in the store still.
func (c *Cluster) unreadable(current uint32) (children []string, ikes []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, sealed := range c.unopened {
		if seal.EpochOf(sealed) >= current {
			continue
		}
		if spi, err := parseSPIKey(key); err != nil || c.held[spi] == nil { // else something newer stands there
			children = append(children, key)
		}
		delete(c.unopened, key)
	}
	for spi, x := range c.unopenedIKEs {
		if seal.EpochOf(x.sealed) >= current {
			continue
		}
		if c.ikes[spi] == nil {
			ikes = append(ikes, spi)
		}
		delete(c.unopenedIKEs, spi)
	}
	return children, ikes
}

// takeKey takes the key of the current epoch if it was given to us.
func (c *Cluster) takeKey(s *session) error {
	e := &s.epochs
	w := e.wraps[e.current.wrapAt(c.opts.Member.Name)]
	if w == nil {
		return nil
	}
	// Whoever has the key may have given it, not only who made it.
	for name, public := range c.receivers(s) {
		if public.Fingerprint() != w.From {
			continue
		}
		k, err := c.opts.Identity.Unwrap(w, public)
		if err != nil {
			return fmt.Errorf("epoch %d: %w", w.Epoch, err)
		}
		if w.Epoch != e.current.Epoch || k.ID() != e.current.Key {
			return fmt.Errorf("epoch %d with key %s: the key that was given is %s of epoch %d", e.current.Epoch, e.current.Key, k.ID(), w.Epoch)
		}
		first := c.keys.Current() == 0
		c.keys.Add(w.Epoch, k)
		c.keys.Use(w.Epoch)
		c.log.Info("cluster: epoch key received", "epoch", w.Epoch, "from", name)
		if first {
			c.askFloors()
		}
		c.Retake()
		return nil
	}
	return nil // its record may come, or another node gives the key
}

// receivers are all nodes that are to have the keys of epochs.
func (c *Cluster) receivers(s *session) map[string]seal.Public {
	out := map[string]seal.Public{c.opts.Member.Name: c.opts.Member.Public}
	for name, l := range s.members {
		out[name] = l.member.Public
	}
	return out
}

// keeper is the node that makes epochs and gives keys: the first by name, of those that live, with the current one before those without. At
// first it is who has made the current one: of the others it is not known yet that they have its key.
func (c *Cluster) keeper(s *session) string {
	if from := s.epochs.current.From; time.Since(c.seen.at) < forGoneAfter {
		if maker := s.members[from]; maker != nil && maker.live(c.now()) || from == c.opts.Member.Name && c.keys.Has(s.epochs.current.Epoch) {
			return from
		}
	}
	best, has := c.opts.Member.Name, c.keys.Has(s.epochs.current.Epoch)
	now := c.now()
	for name, l := range s.members {
		if !l.live(now) {
			continue
		}
		if its := l.member.Epoch >= s.epochs.current.Epoch; its && !has || its == has && name < best {
			best, has = name, its
		}
	}
	return best
}

// rotate makes the next epoch: first its key goes to all that are there, then it becomes the current one, unless another node was faster.
func (c *Cluster) rotate(ctx context.Context, s *session) error {
	e := &s.epochs
	k := seal.NewKey()
	// A hub that starts again knows of no epoch: by the time of day, the first is higher than those before, unless it has begun one within
	// this very second. What was sealed under that is then damaged to everybody.
	number := max(e.current.Epoch+1, c.keys.Newest()+1, uint32(time.Now().Unix()))
	next := epoch{1, number, c.opts.Member.Name, k.ID()}
	c.keys.Add(next.Epoch, k)
	err := c.giveKeys(ctx, s, next)
	if err == nil {
		err = c.makeCurrent(ctx, s, next)
	}
	if err != nil {
		c.keys.Drop(next.Epoch)
		if conflict(err) {
			return nil // another node was faster: its key comes
		}
		return fmt.Errorf("epoch %d: %w", next.Epoch, err)
	}
	c.keys.Use(next.Epoch)
	c.seen.epoch, c.seen.at = next, time.Now() // what is under way under the former key may be still
	c.log.Info("cluster: new epoch", "epoch", next.Epoch)
	return nil
}

// makeCurrent makes an epoch the current one, if the one that we know still is.
func (c *Cluster) makeCurrent(ctx context.Context, s *session, next epoch) error {
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	var revision uint64
	if s.epochs.revision == 0 {
		revision, err = s.buckets.epochs.Create(ctx, keyEpoch, b)
	} else {
		revision, err = s.buckets.epochs.Update(ctx, keyEpoch, b, s.epochs.revision)
	}
	if err == nil { // the watch tells it later: until then it would be made again
		s.epochs.current, s.epochs.revision, s.epochs.made = next, revision, time.Now()
	}
	return err
}

// giveKeys gives the key of an epoch to all nodes that have it not yet.
func (c *Cluster) giveKeys(ctx context.Context, s *session, e epoch) error {
	for name, public := range c.receivers(s) {
		key := e.wrapAt(name)
		if s.epochs.wraps[key] != nil {
			continue
		}
		w, err := c.keys.Wrap(e.Epoch, c.opts.Identity, public)
		if err != nil {
			c.log.Warn("cluster: no epoch key for a node", "node", name, "error", err)
			continue
		}
		b, err := json.Marshal(w)
		if err != nil {
			return err
		}
		ctx, cancel := within(ctx)
		_, err = s.buckets.epochs.Create(ctx, key, b)
		cancel()
		if err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return fmt.Errorf("epoch key for %s: %w", name, err)
		}
		s.epochs.wraps[key] = w
	}
	return nil
}
