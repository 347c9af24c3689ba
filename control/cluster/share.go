package cluster

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"causeway/control/ike"
	"causeway/control/ike/sa"
)

// ackTime is how long other nodes are waited for (DESIGN section 4.4).
const ackTime = 500 * time.Millisecond

// Shared is the dataplane for IKE: what is done with it is done on all nodes.
func (c *Cluster) Shared() sa.Dataplane { return shared{c.plane, c} }

type shared struct {
	Dataplane
	c *Cluster
}

// errSpent says why a node that goes on without the store does not any more.
var errSpent = errors.New("the cluster's store is not reached, and the SPIs that were reserved before are used")

// ReserveSPI takes one that was reserved in the store.
func (s shared) ReserveSPI() (uint32, error) {
	for {
		spi, ok := s.c.fromStock()
		if !ok && s.c.Fleet().Local() {
			return 0, errSpent
		}
		if !ok {
			return 0, ike.ErrStoreAway
		}
		if err := s.Dataplane.Adopt(spi); err == nil {
			return spi, nil
		}
	}
}

// ReleaseSPI puts it back.
func (s shared) ReleaseSPI(spi uint32) {
	s.Dataplane.ReleaseSPI(spi)
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if h := s.c.held[spi]; h != nil && h.kind == reserved && h.own && len(s.c.stock) < max(s.c.stocked(), stockSize) {
		s.c.stock = append(s.c.stock, spi)
	}
}

// Install installs a child here, and returns when the store has it and all nodes that are reached have acknowledged it, or after ackTime.
// One that the peer has already is kept if the store does not take it now, and stored later.
func (s shared) Install(k *sa.Child) error {
	if err := s.installHere(k); err != nil {
		return err
	}
	r := recordOf(k)
	r.ExpiresAt = s.c.clock.toCommon(r.ExpiresAt)
	err := s.c.publish(k.SPIIn, &r, true)
	switch {
	case err == nil:
	case k.Agreed && s.c.ours(k.SPIIn, child):
		s.c.log.Warn("cluster: a child SA that the peer has agreed to is not stored yet: should this node stop before that, it is lost for nodes that have not heard of it", "tunnel", k.Tunnel, "spi", spiKey(k.SPIIn), "error", err)
		s.c.wake()
	default:
		s.Remove(k.Tunnel, k.SPIIn) // for all: some may have heard of it
		return err
	}
	return nil
}

// installHere gives a child to this node's dataplane. The SPI of a negotiation that was another process's, which is gone, was reserved by
// that; if it had got as far as installing the child, all nodes have it.
func (s shared) installHere(k *sa.Child) error {
	if s.c.hasSame(k) {
		return nil
	}
	if !s.c.ours(k.SPIIn, reserved) {
		if err := s.Dataplane.Adopt(k.SPIIn); err != nil {
			return err
		}
	}
	return s.Dataplane.Install(k)
}

// hasSame reports whether this node has got a child from another one, with the same keys.
func (c *Cluster) hasSame(k *sa.Child) bool {
	c.mu.Lock()
	h := c.held[k.SPIIn]
	if h == nil || h.kind != child || h.own || h.failed != nil {
		c.mu.Unlock()
		return false
	}
	sealed := h.sealed
	c.mu.Unlock()
	r, err := c.openRecord(k.SPIIn, sealed)
	if err != nil {
		return false
	}
	defer r.wipe()
	return r.Tunnel == k.Tunnel && r.SPIOut == k.SPIOut && subtle.ConstantTimeCompare(r.KeyIn, k.KeyIn)&subtle.ConstantTimeCompare(r.KeyOut, k.KeyOut) == 1
}

// ours reports whether this process has written what an SPI is.
func (c *Cluster) ours(spi uint32, k kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[spi]
	return h != nil && h.kind == k && h.own
}

// Use: see sa.Dataplane.
func (s shared) Use(tunnel string, spi uint32) error {
	err := s.Dataplane.Use(tunnel, spi)
	if err == nil {
		err = s.c.change(spi, func(r *record) { r.Used = s.c.clock.common().UnixNano() })
	}
	return err
}

// Move: see sa.Dataplane.
func (s shared) Move(tunnel string, spi uint32, peer netip.AddrPort) {
	s.Dataplane.Move(tunnel, spi, peer)
	if err := s.c.change(spi, func(r *record) { r.Peer = peer }); err != nil {
		s.c.complain(err)
	}
}

// Usage: see sa.Dataplane. It is that of all nodes.
func (s shared) Usage(tunnel string, spi uint32) (sa.Usage, bool) {
	u, ok := s.Dataplane.Usage(tunnel, spi)
	if ok {
		u = s.c.together(spi, u)
	}
	return u, ok
}

// Remove: see sa.Dataplane.
func (s shared) Remove(tunnel string, spis ...uint32) {
	s.Dataplane.Remove(tunnel, spis...)
	for _, spi := range spis {
		s.c.mu.Lock()
		h := s.c.held[spi]
		s.c.mu.Unlock()
		if h == nil || h.kind != child {
			continue
		}
		if err := s.c.publish(spi, &record{Version: recordVersion, Kind: gone, Tunnel: tunnel, ExpiresAt: h.expires}, false); err != nil {
			s.c.complain(err)
		}
	}
}

// change publishes a child again, changed.
func (c *Cluster) change(spi uint32, f func(*record)) error {
	c.mu.Lock()
	h := c.held[spi]
	c.mu.Unlock()
	if h == nil || h.kind != child {
		return nil // it was removed
	}
	r, err := c.openRecord(spi, h.sealed)
	if err != nil {
		return err
	}
	defer r.wipe()
	f(r)
	return c.publish(spi, r, false)
}

// openRecord reads a record that is held. Whoever gets it should wipe it.
func (c *Cluster) openRecord(spi uint32, sealed []byte) (*record, error) {
	text, err := c.keys.Open(place(bucketSAs, spiKey(spi)), sealed)
	if err != nil {
		return nil, fmt.Errorf("spi %#x: %w", spi, err)
	}
	defer clear(text)
	return parseRecord(text)
}

// publish seals a record of ours, tells all nodes, and has it stored. With wait it returns when both is done, or says why the store
// has it not.
func (c *Cluster) publish(spi uint32, r *record, wait bool) error {
	c.mu.Lock()
	if !c.numbered {
		c.mu.Unlock()
		return ike.ErrStoreAway
	}
	r.Generation, r.Node, r.Writer, r.Store = 1, c.opts.Member.Name, c.writer.ID, c.writer.Generation
	var elsewhere map[string]sa.Usage
	if h := c.held[spi]; h != nil {
		r.Generation, elsewhere = h.generation+1, h.elsewhere
	}
	text := r.marshal()
	sealed, err := c.keys.Seal(place(bucketSAs, spiKey(spi)), text)
	clear(text)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	c.set(spi, &held{generation: r.Generation, kind: r.Kind, own: true, node: r.Node, writer: r.Writer, tunnel: r.Tunnel, used: r.Used, selectors: fmt.Sprint(r.Local, r.Remote),
		expires: r.ExpiresAt, life: r.Life, elsewhere: elsewhere, sealed: sealed})
	local := c.local()
	c.mu.Unlock()
	if local { // it is stored when the store is there again
		_ = c.tell(spi, "", sealed) // hubs that choose who leads pass it on
		c.tellNeighbours(spi, r.Generation, sealed, wait)
		return nil
	}
	if !wait {
		c.wake()
		return c.tell(spi, "", sealed)
	}
	return c.await(spi, r.Generation, sealed)
}

// subjectSAs is where records are told at once; the key follows.
const subjectSAs = "causeway.sas."

// tell tells all nodes of a record. An acknowledgement goes to reply, if there is one.
func (c *Cluster) tell(spi uint32, reply string, sealed []byte) error {
	return c.engine.Conn.PublishMsg(&nats.Msg{Subject: subjectSAs + spiKey(spi), Reply: reply, Data: sealed})
}

// await tells a record and waits for acknowledgements and for the store.
func (c *Cluster) await(spi uint32, generation uint64, sealed []byte) error {
	begin := time.Now()
	w := c.acks.expect(spi, generation, c.others())
	defer c.acks.end(w)
	if err := c.tell(spi, w.reply, sealed); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeLimit)
	defer cancel()
	if err := c.store(ctx, spi); err != nil {
		if errors.Is(err, ike.ErrStoreAway) {
			return err
		}
		return fmt.Errorf("%w: %w", ike.ErrStoreAway, err)
	}
	c.awaitAcks(w, sealed, begin.Add(ackTime))
	if missing := c.acks.end(w); len(missing) > 0 {
		c.counts.late.Add(uint64(len(missing)))
		c.log.Warn("cluster: a new child SA was not acknowledged in time", "spi", spiKey(spi), "by", missing, "after", time.Since(begin).Round(time.Millisecond))
	}
	return nil
}

// An ack is who has installed what, sealed: nobody else can say so.
func (c *Cluster) ack(spi uint32, generation uint64) ([]byte, error) {
	return c.keys.Seal(ackPlace(spi, generation), []byte(c.opts.Member.Name))
}

func (c *Cluster) openAck(spi uint32, generation uint64, b []byte) (name string, ok bool) {
	text, err := c.keys.Open(ackPlace(spi, generation), b)
	return string(text), err == nil
}

func ackPlace(spi uint32, generation uint64) string {
	return fmt.Sprintf("ack|%s|%d", spiKey(spi), generation)
}

// store puts what we hold of an SPI into the store.
func (c *Cluster) store(ctx context.Context, spi uint32) error {
	c.mu.Lock()
	h, b := c.held[spi], c.buckets
	c.mu.Unlock()
	if h == nil {
		return nil
	}
	if b == nil {
		return ike.ErrStoreAway
	}
	if _, err := b.sas.Put(ctx, spiKey(spi), h.sealed); err != nil {
		return err
	}
	c.mu.Lock()
	h.stored = h.generation
	if c.held[spi] == h {
		c.index.noteStored(h)
	}
	c.mu.Unlock()
	return nil
}

// unstored are our records that the store has not.
func (c *Cluster) unstored() []uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.index.unstored))
}

// storeAtOnce is how many records are stored at one time. Each is one SPI's, so that their order says nothing.
const storeAtOnce = 64

// storeAll stores what the store has not yet.
func (c *Cluster) storeAll(ctx context.Context, s *session) error {
	for some := range slices.Chunk(c.unstored(), storeAtOnce) {
		if err := c.stillHere(ctx, s); err != nil {
			return err
		}
		if err := atOnce(len(some), func(i int) error {
			storing, done := within(ctx)
			defer done()
			return c.store(storing, some[i])
		}); err != nil {
			return err
		}
	}
	return nil
}

// atOnce calls f n times at one time, and returns what went wrong.
func atOnce(n int, f func(i int) error) error {
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
