package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/cluster/seal"
	"causeway/control/ike/sa"
	"causeway/crypto/esp"
)

// A Dataplane is a node's, for children that it negotiates itself and for those of others.
type Dataplane interface {
	sa.Dataplane

	// Adopt reserves an SPI that was reserved in the cluster. It fails if this node has it for something else.
	Adopt(spi uint32) error

	// Received calls f for each child with the highest sequence number of an authentic packet that this node has received.
	Received(f func(spi uint32, highest uint64))
	// Limited calls f for each child with a lifetime in packets or bytes, or whose lifetime or numbers are over, with what this node has
	// done with it.
	Limited(f func(spi uint32, u sa.Usage))
	// Moved calls f for each child whose newest authentic packet, the one with the highest number, came from elsewhere than its peer is
	// thought to be.
	Moved(f func(spi uint32, highest uint64, from netip.AddrPort))
	// SetFloor has packets of a child refused whose numbers are more than a window below floor. It only rises.
	SetFloor(spi uint32, floor uint64)
}

// A held record is what a node knows of an SPI.
type held struct {
	spi        uint32
	at         int // in index.ends
	generation uint64
	kind       kind
	own        bool // written by this process
	node       string
	writer     uint32
	tunnel     string
	used       int64
	selectors  string
	expires    time.Time
	sealed     []byte              // as it stands, or should stand, in the store
	stored     uint64              // generation that the store has
	failed     error               // why the dataplane did not take it
	life       esp.Life            // in packets and bytes
	elsewhere  map[string]sa.Usage // what other nodes have done with a child, by name
	source     source              // where one of them has got its newest packet from
}

// digestOf is what a record adds to the digest of all: two nodes with the same children have the same sum, in whatever order they came.
func digestOf(spi uint32, h *held) (d uint64) {
	if h == nil || h.kind != child {
		return 0
	}
	var b [12]byte
	binary.BigEndian.PutUint32(b[:], spi)
	binary.BigEndian.PutUint64(b[4:], h.generation)
	sum := sha256.Sum256(b[:])
	return binary.BigEndian.Uint64(sum[:])
}

func digestText(d uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], d)
	return hex.EncodeToString(b[:])
}

// set notes what is known of an SPI. It is called with the lock held.
func (c *Cluster) set(spi uint32, h *held) {
	old := c.held[spi]
	c.digest ^= digestOf(spi, old) ^ digestOf(spi, h)
	if old != nil {
		c.index.remove(old)
	}
	if old != nil && old.kind == child {
		c.children--
	}
	if h == nil {
		delete(c.held, spi)
		return
	}
	if h.kind == child {
		c.children++
	}
	c.held[spi] = h
	c.index.add(spi, h)
}

// take takes a sealed record that came, from the store (stored) or from another node. What is not newer than what is known changes
// nothing.
func (c *Cluster) take(key string, sealed []byte, stored bool) error {
	spi, err := parseSPIKey(key)
	if err != nil {
		return err
	}
	text, err := c.keys.Open(place(bucketSAs, key), sealed)
	if err != nil {
		var e seal.EpochError
		if errors.As(err, &e) {
			return c.keepUnopened(key, sealed, e)
		}
		if stored {
			c.storeAgain(spi)
		}
		return fmt.Errorf("spi %s: %w", key, err)
	}
	r, err := parseRecord(text)
	clear(text)
	if err != nil {
		return fmt.Errorf("spi %s: %w", key, err)
	}
	defer r.wipe()
	c.applying.Lock()
	defer c.applying.Unlock()
	c.mu.Lock()
	delete(c.unopened, key) // what could not be opened was older, or is this
	c.mu.Unlock()
	h, before := c.learn(spi, r, sealed, stored)
	if h == nil || h.own {
		return nil
	}
	err = c.apply(spi, r, before)
	c.mu.Lock()
	h.failed = err
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("tunnel %s: spi %s: %w", r.Tunnel, key, err)
	}
	return nil
}

// purged notes that a record is not in the store any more. Ours is stored again, unless it is a tombstone whose time is over, here too in a
// moment; others' children stay, whoever has purged them.
func (c *Cluster) purged(spi uint32) {
	c.mu.Lock()
	h := c.held[spi]
	delete(c.unopened, spiKey(spi))
	over := h != nil && h.kind != child && (!h.own || h.kind == gone && c.clock.common().After(h.expires))
	if over {
		c.set(spi, nil)
	}
	c.mu.Unlock()
	if !over {
		c.storeAgain(spi)
	}
}

// storeAgain has a record of ours stored: what stands in its place is not it.
func (c *Cluster) storeAgain(spi uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.held[spi]; h != nil && h.own {
		h.stored = 0
		c.index.noteStored(h)
		c.wake()
	}
}

// storeUnseen has all records of ours stored that the store does not show: it may be older than it was.
func (c *Cluster) storeUnseen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.held {
		h.stored = 0
		c.index.noteStored(h)
	}
}

// maxUnopened bounds what is kept of values without a key: whoever can write to the store could make up epochs.
const maxUnopened = 1 << 16

// keepUnopened keeps a value whose key may come.
func (c *Cluster) keepUnopened(key string, sealed []byte, e seal.EpochError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unopened) >= maxUnopened && c.unopened[key] == nil {
		return fmt.Errorf("spi %s: %w, and %d such values are kept already", key, e, maxUnopened)
	}
	c.unopened[key] = sealed
	return nil
}

// learn notes a record; nil if it is not newer than what is known.
func (c *Cluster) learn(spi uint32, r *record, sealed []byte, stored bool) (h, before *held) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before = c.held[spi]
	if before != nil && stored {
		before.stored = r.Generation // if it is less than what we have, somebody has put it there
		c.index.noteStored(before)
	}
	if before != nil && r.Generation <= before.generation {
		if r.Generation == before.generation && seal.EpochOf(sealed) > seal.EpochOf(before.sealed) {
			before.sealed = sealed // the same under the key of a new epoch
		}
		return nil, nil
	}
	h = &held{generation: r.Generation, kind: r.Kind, own: r.Writer == c.writer.ID && c.numbered, node: r.Node, writer: r.Writer, tunnel: r.Tunnel, used: r.Used,
		selectors: fmt.Sprint(r.Local, r.Remote), expires: r.ExpiresAt, life: r.Life, sealed: sealed}
	if before != nil {
		h.elsewhere = before.elsewhere
	}
	if stored {
		h.stored = r.Generation
	}
	c.set(spi, h)
	return h, before
}

// apply has the dataplane do what a record says that another node has written.
func (c *Cluster) apply(spi uint32, r *record, before *held) error {
	installed := before != nil && before.kind == child && before.failed == nil
	switch {
	case r.Kind == gone && installed:
		c.plane.Remove(before.tunnel, spi)
	case r.Kind != child:
	case installed:
		c.plane.Move(r.Tunnel, spi, r.Peer)
		if r.Used > before.used {
			return c.useIfLatest(spi, r)
		}
	default:
		k, err := r.child(spi)
		if err != nil {
			return err
		}
		k.Expires = c.clock.toOwn(k.Expires)
		if err := c.plane.Adopt(spi); err != nil {
			return err
		}
		if err := c.plane.Install(k); err != nil {
			c.plane.ReleaseSPI(spi)
			return err
		}
		c.plane.SetFloor(spi, c.floorOf(spi))
		if r.Used > 0 {
			return c.useIfLatest(spi, r)
		}
	}
	return nil
}

// useIfLatest has packets leave by a child, unless another one with its selectors came into use later: a node that comes late hears of
// them in any order.
func (c *Cluster) useIfLatest(spi uint32, r *record) error {
	c.mu.Lock()
	h := c.held[spi]
	leave := h == nil || c.usedLater(h) // nil: it is taken again in a moment, by Retake
	c.mu.Unlock()
	if leave {
		return nil
	}
	return c.plane.Use(r.Tunnel, spi)
}

// usedLater reports whether another child with the selectors of one came into use later. It is called with the lock held.
func (c *Cluster) usedLater(h *held) bool {
	return slices.ContainsFunc(c.index.children[h.tunnel], func(spi uint32) bool {
		o := c.held[spi]
		return o != h && o.selectors == h.selectors && o.used > h.used && o.failed == nil
	})
}

// Retake tries again what could not be opened for lack of a key, and what the dataplane did not take: its tunnel may be there now.
func (c *Cluster) Retake() {
	c.mu.Lock()
	again := c.unopened
	c.unopened = map[string][]byte{}
	for spi, h := range c.held {
		if h.kind == child && !h.own && (h.failed != nil || c.missing(spi, h)) {
			again[spiKey(spi)] = h.sealed
			c.set(spi, nil)
		}
	}
	c.mu.Unlock()
	for key, sealed := range again {
		if err := c.take(key, sealed, false); err != nil {
			c.complain(err)
		}
	}
	c.retakeIKEs()
	c.retakeOwners()
}

// missing reports whether the dataplane does not have a child that it was given: its tunnel was changed, or away for a while.
func (c *Cluster) missing(spi uint32, h *held) bool {
	_, has := c.plane.Usage(h.tunnel, spi)
	return !has
}

// expire removes children whose time is over although nobody said so, and forgets tombstones that nothing can come after: the keeper at once,
// and others a while later, if it has not removed them from the store by then.
func (c *Cluster) expire(now time.Time, keeper bool) (over []uint32) {
	c.applying.Lock()
	defer c.applying.Unlock()
	var ended []*held
	c.mu.Lock()
	for h := c.index.nextOver(now); h != nil; h = c.index.nextOver(now) {
		if h.kind == child {
			if h.failed == nil {
				ended = append(ended, h)
			}
			tombstone := *h
			tombstone.kind = gone
			c.set(h.spi, &tombstone)
			h = &tombstone
		}
		c.index.putAside(h)
	}
	for spi, h := range c.index.over {
		if keeper || now.After(h.expires.Add(expireGrace+keeperTime)) {
			c.set(spi, nil)
			over = append(over, spi)
		}
	}
	c.mu.Unlock()
	for _, h := range ended {
		c.plane.Remove(h.tunnel, h.spi)
	}
	return over
}

// keeperTime is how long the keeper, or the next one, has to remove what is over from the store.
const keeperTime = 5 * time.Minute

// bury removes from the store what is over.
func (c *Cluster) bury(ctx context.Context, s *session, now time.Time) error {
	for _, spi := range c.expire(now, c.keeper(s) == c.opts.Member.Name) {
		if err := c.purge(ctx, s.buckets.sas, spiKey(spi)); err != nil {
			return err
		}
	}
	return nil
}

// expireGrace is how much later than its own node the others forget a child.
const expireGrace = time.Minute

// takeStored takes over a record of the store.
func (c *Cluster) takeStored(s *session, v jetstream.KeyValueEntry) {
	if v == nil {
		s.sasRead = true
		return
	}
	if v.Operation() != jetstream.KeyValuePut {
		if spi, err := parseSPIKey(v.Key()); err == nil {
			c.purged(spi)
		}
		return
	}
	if c.hasAlready(v.Key(), v.Value()) {
		return
	}
	if err := c.take(v.Key(), slices.Clone(v.Value()), true); err != nil {
		c.complain(err)
	}
}

// hasAlready reports whether what the store has is, byte for byte, what this node has: mostly it was told before.
func (c *Cluster) hasAlready(key string, sealed []byte) bool {
	spi, err := parseSPIKey(key)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[spi]
	if h == nil || !bytes.Equal(h.sealed, sealed) {
		return false
	}
	delete(c.unopened, key) // it was older
	h.stored = h.generation
	c.index.noteStored(h)
	return true
}

// heard takes a record that another node tells, and acknowledges it.
func (c *Cluster) heard(m *nats.Msg) {
	key := m.Subject[len(subjectSAs):]
	if err := c.take(key, m.Data, false); err != nil {
		c.complain(err)
		return
	}
	if m.Reply == "" {
		return
	}
	spi, err := parseSPIKey(key)
	if err != nil {
		return
	}
	if ack := c.ackOf(spi); ack != nil {
		_ = c.engine.Conn.Publish(m.Reply, ack) // lost with the connection, as others are
	}
}

// ackOf says that this node has another's record as it knows it; nil: it has none, or its dataplane did not take it.
func (c *Cluster) ackOf(spi uint32) []byte {
	c.mu.Lock()
	h := c.held[spi]
	has := h != nil && !h.own && h.failed == nil
	var generation uint64
	if has {
		generation = h.generation
	}
	c.mu.Unlock()
	if !has {
		return nil
	}
	ack, err := c.ack(spi, generation)
	if err != nil {
		return nil
	}
	return ack
}
