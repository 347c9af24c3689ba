package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/cluster/seal"
	"causeway/control/ike"
)

// A tunnel with replay protection has an owner, the one node that encrypts toward the customer (DESIGN 4.2). Who it is stands in the
// store, with the sequence numbers that it has reserved: numbers are used after they are reserved, and a successor begins at what was.
// The owner stays the owner as long as it lives, so that numbers jump when a node dies and not when one comes.

// ownerVersion is the version of ownerRecord that this release writes. Later ones add fields.
const ownerVersion = 1

// An ownerRecord is who encrypts for a tunnel.
type ownerRecord struct {
	Version int               `json:"v"`
	Tunnel  string            `json:"tunnel"`
	Node    string            `json:"node"`
	Writer  uint32            `json:"w"`
	Marks   map[uint32]uint64 `json:"marks"` // by our SPI of each child: sequence numbers below are reserved
}

func parseOwner(b []byte) (*ownerRecord, error) {
	r := new(ownerRecord)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, errors.New("record of an owner: it is none")
	}
	if r.Version != ownerVersion {
		return nil, fmt.Errorf("record of an owner: version %d, this release reads %d", r.Version, ownerVersion)
	}
	return r, nil
}

// ownerKey is the key of a tunnel's record: names may have what keys may not.
func ownerKey(tunnel string) string {
	h := sha256.Sum256([]byte(tunnel))
	return hex.EncodeToString(h[:16])
}

// An owned tunnel is what a node knows of the owner of one.
type owned struct {
	revision uint64
	by       process
	marks    map[uint32]uint64
	sealed   []byte
}

// An Ownership is who encrypts for a tunnel.
type Ownership struct {
	Tunnel string
	Node   string // "": nobody yet
	Here   bool
	Marks  map[uint32]uint64 // by our SPI of each child
}

// SetOwned names the tunnels that have an owner.
func (c *Cluster) SetOwned(tunnels []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ownable = map[string]string{}
	for _, t := range tunnels {
		c.ownable[ownerKey(t)] = t
	}
}

// Owners lists who encrypts for the tunnels of SetOwned.
func (c *Cluster) Owners() (list []Ownership) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, tunnel := range c.ownable {
		o := Ownership{Tunnel: tunnel}
		if e := c.owners[key]; e != nil {
			o.Node, o.Here, o.Marks = e.by.node, e.by == c.own() && !c.leaving, maps.Clone(e.marks)
		}
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b Ownership) int { return strings.Compare(a.Tunnel, b.Tunnel) })
	return list
}

// claimTime is how long after it has joined a node leaves a tunnel without an owner to others that join at the same time.
const claimTime = 2 * time.Second

// sealedAnewTime is how long after it has joined a node waits for the records that it cannot open: nodes that live seal theirs anew when there
// is a new epoch, as after a hub was started again.
const sealedAnewTime = 5 * time.Second

// claimOwners takes tunnels whose owner is gone, or that have none, and whose turn is this node's.
func (c *Cluster) claimOwners(ctx context.Context, s *session, now time.Time) error {
	c.mu.Lock()
	var keys []string
	candidates := c.candidates(c.now())
	for key, tunnel := range c.ownable {
		e := c.owners[key]
		opened := e != nil && (e.by.node != "" || now.Sub(c.joined) > sealedAnewTime)
		free := opened && c.ownerless(e) || (e == nil || c.misplaced(e)) && now.Sub(c.joined) > claimTime
		if free && winner(candidates, tunnel) == c.opts.Member.Name {
			keys = append(keys, key)
		}
	}
	c.mu.Unlock()
	for _, key := range keys {
		if err := c.writeOwner(ctx, s.buckets.owners, key, nil); err != nil && !errors.Is(err, ike.ErrTaken) {
			return err
		}
	}
	return nil
}

// ownerless reports whether nobody encrypts for a tunnel any more. A record that cannot be opened yet may be of a node that lives, and has
// the numbers that are used. It is called with the lock held.
func (c *Cluster) ownerless(e *owned) bool {
	if e.by.node == "" {
		return seal.EpochOf(e.sealed) < c.keys.Oldest() // nobody has its key any more, nor the children that it is about
	}
	return c.where(e.by) == ike.Vacant
}

// misplaced reports whether a tunnel's owner yields to this node. It is called with the lock held.
func (c *Cluster) misplaced(e *owned) bool {
	l := c.members[e.by.node]
	return l != nil && l.member.Yields > c.yields
}

// Drain has the other nodes take the tunnels that this one encrypts for.
func (c *Cluster) Drain() {
	c.mu.Lock()
	c.yields = Draining
	c.mu.Unlock()
	c.beatNow.Store(true)
	c.wake()
}

// retakeOwners tries again what could not be opened.
func (c *Cluster) retakeOwners() {
	c.mu.Lock()
	again := map[string]*owned{}
	for key, e := range c.owners {
		if e.by.node == "" {
			again[key] = e
			delete(c.owners, key)
		}
	}
	c.mu.Unlock()
	for key, e := range again {
		if err := c.learnOwner(key, e.sealed, e.revision); err != nil {
			c.complain(err)
		}
	}
}

// Reserve reserves sequence numbers for the children of a tunnel that this node encrypts for, and returns when they are in the store. It
// fails with ike.ErrTaken if another node is the owner now. Marks only rise.
func (c *Cluster) Reserve(tunnel string, marks map[uint32]uint64) error {
	c.mu.Lock()
	b := c.buckets
	c.mu.Unlock()
	if b == nil {
		return ike.ErrStoreAway
	}
	return c.writeOwner(context.Background(), b.owners, ownerKey(tunnel), marks)
}

// writeOwner makes this process a tunnel's owner, or, with marks, reserves numbers as the owner that it is. Nobody else's record is
// written over but that of a process that is gone, or that yields.
func (c *Cluster) writeOwner(ctx context.Context, kv jetstream.KeyValue, key string, marks map[uint32]uint64) error {
	c.mu.Lock()
	e, tunnel := c.owners[key], c.ownable[key]
	r := &ownerRecord{Version: ownerVersion, Tunnel: tunnel, Node: c.opts.Member.Name, Writer: c.writer.ID, Marks: marks}
	by := c.own()
	revision := uint64(0)
	if e != nil {
		revision = e.revision
	}
	switch {
	case tunnel == "" || marks != nil && (e == nil || e.by != by):
		c.mu.Unlock()
		return ike.ErrTaken
	case e != nil:
		r.Marks = c.withMarks(e.marks, marks)
	}
	c.mu.Unlock()
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	sealed, err := c.keys.Seal(place(bucketOwners, key), text)
	if err != nil {
		return err
	}
	asking, done := within(ctx)
	defer done()
	var at uint64
	if revision == 0 {
		at, err = kv.Create(asking, key, sealed)
	} else {
		at, err = kv.Update(asking, key, sealed, revision)
	}
	if conflict(err) {
		c.rereadOwner(asking, kv, key)
		return ike.ErrTaken
	}
	if err != nil {
		return fmt.Errorf("owner of tunnel %s: %w", tunnel, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.owners[key]; now == nil || now.revision < at {
		c.owners[key] = &owned{at, by, r.Marks, sealed}
	}
	return nil
}

// maxMarks bounds the marks of children that this node does not know: they may come yet.
const maxMarks = 1024

// withMarks are marks with those before, but for children that are known to be gone. A node that has not heard of a child yet must not
// make its numbers begin anew. It is called with the lock held.
func (c *Cluster) withMarks(before, marks map[uint32]uint64) map[uint32]uint64 {
	out := maps.Clone(marks)
	if out == nil {
		out = map[uint32]uint64{}
	}
	for spi, mark := range before {
		h := c.held[spi]
		if h != nil && h.kind == gone || h == nil && len(out) > maxMarks {
			continue
		}
		out[spi] = max(out[spi], mark)
	}
	return out
}

// rereadOwner learns what the store has in place of what was known: the watch may be late, and an answer of the store may have been lost.
func (c *Cluster) rereadOwner(ctx context.Context, kv jetstream.KeyValue, key string) {
	v, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) { // it was removed long ago, while this node was away
		c.mu.Lock()
		delete(c.owners, key)
		c.mu.Unlock()
	}
	if err != nil {
		return
	}
	if err := c.learnOwner(key, v.Value(), v.Revision()); err != nil {
		c.complain(err)
	}
}

// takeOwner takes over what the store has of a tunnel's owner.
func (c *Cluster) takeOwner(s *session, v jetstream.KeyValueEntry) {
	if v == nil {
		s.ownersRead = true
		return
	}
	if v.Operation() != jetstream.KeyValuePut {
		c.mu.Lock()
		delete(c.owners, v.Key())
		c.mu.Unlock()
		return
	}
	if err := c.learnOwner(v.Key(), slices.Clone(v.Value()), v.Revision()); err != nil {
		c.complain(err)
	}
}

func (c *Cluster) learnOwner(key string, sealed []byte, revision uint64) error {
	text, err := c.keys.Open(place(bucketOwners, key), sealed)
	if err != nil {
		var e seal.EpochError
		if errors.As(err, &e) { // whoever is the owner seals it anew, or another one claims it
			c.mu.Lock()
			defer c.mu.Unlock()
			if old := c.owners[key]; old == nil || revision > old.revision {
				c.owners[key] = &owned{revision: revision, sealed: sealed}
			}
			return nil
		}
		return fmt.Errorf("owner %s: %w", key, err)
	}
	r, err := parseOwner(text)
	if err != nil {
		return err
	}
	if ownerKey(r.Tunnel) != key {
		return fmt.Errorf("owner %s: its record is that of tunnel %q", key, r.Tunnel)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.owners[key]; old == nil || revision > old.revision {
		c.owners[key] = &owned{revision, process{r.Node, r.Writer}, r.Marks, sealed}
	}
	return nil
}

// renewOwners seals anew what is sealed under an epoch before the current one: the owners do, and the keeper for those that are gone. It
// returns how many are left.
func (c *Cluster) renewOwners(ctx context.Context, s *session, current uint32, keeper bool) (left int, err error) {
	c.mu.Lock()
	var again []string
	for key, e := range c.owners {
		if seal.EpochOf(e.sealed) >= current {
			continue
		}
		left++
		if where := c.where(e.by); where == ike.Here || keeper && c.ownerless(e) {
			again = append(again, key)
		}
	}
	c.mu.Unlock()
	for _, key := range again {
		if err := c.stillHere(ctx, s); err != nil {
			return left, err
		}
		if err := c.sealOwnerAgain(ctx, s, key); err != nil && !conflict(err) {
			return left, err
		}
	}
	return left, nil
}

func (c *Cluster) sealOwnerAgain(ctx context.Context, s *session, key string) error {
	c.mu.Lock()
	e := c.owners[key]
	c.mu.Unlock()
	at := place(bucketOwners, key)
	text, err := c.keys.Open(at, e.sealed)
	if err != nil { // nobody can any more
		return c.purge(ctx, s.buckets.owners, key)
	}
	sealed, err := c.keys.Seal(at, text)
	if err != nil {
		return err
	}
	asking, done := within(ctx)
	defer done()
	revision, err := s.buckets.owners.Update(asking, key, sealed, e.revision)
	if err != nil {
		return err
	}
	return c.learnOwner(key, sealed, revision)
}

// A Peer is another node that lives, for traffic between nodes.
type Peer struct {
	Name    string
	Address netip.Addr
	Writer  uint32 // its process
	Epoch   uint32 // the newest of which it has the key
	Takes   uint32 // the epoch in which it can open what this process forwards to it; 0: it cannot

	Messages bool // and it takes messages so
}

// peerKept is how long traffic from a node that is not heard any more is taken: it may be cut off from the store, and not from this node.
const peerKept = time.Hour

// mayLive reports whether a node may live that is not heard. While the store is away nobody is, so nobody is known to be gone. It is called
// with the lock held.
func (c *Cluster) mayLive(l *lease, now time.Time) bool {
	return !l.member.Leaving && (c.trouble != "" || now.Sub(l.sign.Load().heard) < peerKept)
}

// Peers lists them, by name, with those that may live.
func (c *Cluster) Peers() (list []Peer) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.members {
		if c.mayLive(l, now) && l.member.Address.IsValid() {
			p := Peer{Name: name, Address: l.member.Address, Writer: l.member.Writer, Epoch: l.member.Epoch, Messages: l.member.Messages}
			if slices.Contains(l.member.Keyed, c.writer.ID) {
				p.Takes = l.member.KeyedEpoch
			}
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// SetKeyed says of which processes this node can open what they forward, in an epoch.
func (c *Cluster) SetKeyed(epoch uint32, writers []uint32) {
	c.mu.Lock()
	slices.Sort(writers)
	same := epoch == c.keyedEpoch && slices.Equal(writers, c.keyed)
	c.keyed, c.keyedEpoch = writers, epoch
	c.mu.Unlock()
	if !same {
		c.beatNow.Store(true)
		c.wake()
	}
}

// Self is this process as the others see it, and whether it has its number and a key.
func (c *Cluster) Self() (p Peer, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.opts.Member
	p = Peer{Name: m.Name, Address: m.Address, Writer: c.writer.ID, Epoch: c.keys.Newest()}
	return p, c.numbered && p.Epoch != 0
}

// NodeKey is the key of ESP from one process to another in an epoch: size bytes, which the caller should wipe; nil if there is no key
// of the epoch.
func (c *Cluster) NodeKey(epoch uint32, from, to uint32, size int) []byte {
	return c.keys.DeriveAt(epoch, fmt.Sprintf("causeway esp from process %05x to %05x", from, to), size)
}
