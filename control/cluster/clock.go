package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// When something ends, and what came into use later, nodes tell each other in the store's time: a clock that is wrong would have a node
// remove what others have just made. How far its own clock is from the store's a node finds when it joins, and keeps to that as long as its
// process lives, whatever becomes of either clock.

// clockSlack is how much clocks may differ without anything being done about it: less than what ends is kept for longer (expireGrace), and
// more than an answer of the store takes.
const clockSlack = 5 * time.Second

// A clock is a node's, and how it stands to the one of the store.
type clock struct {
	now  func() time.Time // the node's; tests have it wrong
	base atomic.Pointer[clockBase]
	off  atomic.Int64 // nanoseconds by which the node's was ahead of the store's when they were compared the last time
}

// A clockBase is one moment by both.
type clockBase struct{ own, common time.Time }

// compare notes what the store's clock has shown between two moments of the node's. The first time is what counts, until the process has
// stood still, as a virtual machine does that is paused: the node's clock is set then, and agrees with the store's again.
func (k *clock) compare(before, after, store time.Time) {
	middle := before.Add(after.Sub(before) / 2)
	off := middle.Round(0).Sub(store)
	if off.Abs() < clockSlack {
		off, store = 0, middle.Round(0)
	}
	k.off.Store(int64(off))
	base := &clockBase{middle, store.Round(0)}
	if !k.base.CompareAndSwap(nil, base) && off == 0 && k.common().Sub(k.now().Round(0)).Abs() >= clockSlack {
		k.base.Store(base)
	}
}

// common is the time now that nodes have in common.
func (k *clock) common() time.Time {
	b := k.base.Load()
	if b == nil {
		return k.now().Round(0)
	}
	return b.common.Add(k.now().Sub(b.own))
}

// agree reports whether the node's clock shows that.
func (k *clock) agree() bool { return k.common().Sub(k.now().Round(0)).Abs() < clockSlack }

// toCommon is a moment of the node's clock for other nodes, and toOwn the other way. No moment stays none.
func (k *clock) toCommon(t time.Time) time.Time {
	if t.IsZero() || k.agree() {
		return t
	}
	return k.common().Add(t.Sub(k.now()))
}

func (k *clock) toOwn(t time.Time) time.Time {
	if t.IsZero() || k.agree() {
		return t
	}
	return k.now().Add(t.Sub(k.common()))
}

// ahead is by how much the node's clock was ahead of the store's; less than clockSlack is 0.
func (k *clock) ahead() time.Duration { return time.Duration(k.off.Load()) }

// Common and Own: see ike.Fleet.
func (f fleet) Common(t time.Time) time.Time { return f.clock.toCommon(t) }
func (f fleet) Own(t time.Time) time.Time    { return f.clock.toOwn(t) }

// compareClocks compares this node's clock with the store's, by the record that was written a moment ago.
func (c *Cluster) compareClocks(ctx context.Context, s *session) error {
	ctx, done := within(ctx)
	defer done()
	v, err := s.buckets.nodes.GetRevision(ctx, c.opts.Member.Name, c.said)
	if errors.Is(err, jetstream.ErrKeyNotFound) { // somebody has removed it
		return nil
	}
	if err != nil {
		return fmt.Errorf("comparing clocks: %w", err)
	}
	c.noteClock(s, v.Created())
	return nil
}

// noteClock notes the store's time of this node's last record, and says so if this node's clock is another.
func (c *Cluster) noteClock(s *session, store time.Time) {
	c.clock.compare(s.asked, s.answered, store)
	off := c.clock.ahead()
	if (off - c.clockSaid).Abs() < clockSlack {
		return
	}
	c.clockSaid = off
	if off == 0 {
		c.log.Info("cluster: this node's clock and the store's show the same again")
		return
	}
	c.log.Warn("cluster: this node's clock and the store's show different times: set them, as with NTP; until then what nodes tell each other is in the time that the store had when this process joined", "this_node_is_ahead_by", off.Round(time.Second))
}
