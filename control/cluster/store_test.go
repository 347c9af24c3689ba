package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/ike"
)

// left is how many values and marks a bucket has.
func left(t *testing.T, n *node, bucket string) uint64 {
	t.Helper()
	s, err := n.engine.Store.Stream(t.Context(), "KV_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// Marks of what was removed end. A node that joins later does not take that for a watch that has stalled; one that was away for longer than
// there are marks learns by what the store does not have any more; and new values come to it as ever.
func TestMarksEnd(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "late", "z")
	b.marks = time.Second
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	p := newProxy(t, b.hub)
	straight := b.hub
	b.hub = p.addr
	z := b.start("z").joined()
	b.hub = straight
	for _, n := range []*node{hub, a, z} {
		n.sees(2)
	}
	s := a.establish("cust-a", `"x"`)
	z.eventually("of the IKE SA", func() bool { return z.Fleet().Find(s.SPI).Where == ike.There })
	p.set(true)
	z.eventually("away", func() bool { return z.Status().Trouble != "" })
	a.Fleet().Erase(s.SPI, a.ike.revision(s.SPI))
	hub.eventually("without it", func() bool { return hub.Fleet().Find(s.SPI).Where == ike.Nowhere })
	if n := left(t, hub, bucketIKEs); n != 1 {
		t.Errorf("%d values where one has been removed, want its mark", n)
	}
	hub.eventually("without its mark", func() bool { return left(t, hub, bucketIKEs) == 0 })
	if z.Fleet().Find(s.SPI).Where == ike.Nowhere {
		t.Error("who is away knows that it has ended")
	}
	p.set(false)
	z.joined().eventually("knowing that it has ended", func() bool { return z.Fleet().Find(s.SPI).Where == ike.Nowhere })

	late := b.start("late").joined()
	for range 6 { // compared twice a second
		now := time.Now()
		late.died.Store(&now)
		time.Sleep(compareSoonTime)
	}
	if strings.Contains(b.log.text(), "has told changes of IKE SAs") {
		t.Error("a mark that has ended is missed")
	}
	next := a.establish("cust-a", `"y"`)
	for _, n := range []*node{late, z} {
		n.eventually("of the next IKE SA", func() bool { return n.state(next.SPI) == `"y"` })
	}
}

// Of all nodes one removes a tombstone whose time is over; the others do so later, if it has not.
func TestOneBuries(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "z", "still")
	hub := b.start("hub").joined()
	a, z := b.start("a").joined(), b.start("z").joined()
	for _, n := range []*node{hub, a, z} {
		n.sees(2)
	}
	spi, err := z.Shared().ReserveSPI()
	if err != nil {
		t.Fatal(err)
	}
	k := z.child(spi)
	k.Expires = time.Now().Add(2*time.Second - expireGrace)
	if err := z.Shared().Install(k); err != nil {
		t.Fatal(err)
	}
	z.Shared().Remove(k.Tunnel, spi)
	watch, err := hub.buckets.sas.Watch(t.Context(), spiKey(spi), jetstream.IncludeHistory())
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	purges := 0
	for end := time.After(4 * time.Second); ; {
		select {
		case v := <-watch.Updates():
			if v != nil && v.Operation() == jetstream.KeyValuePurge {
				purges++
			}
			continue
		case <-end:
		}
		break
	}
	if purges != 1 {
		t.Errorf("%d nodes have removed it", purges)
	}
	still := b.prepare("still") // which does nothing by itself
	now := time.Now()
	over := func(kind kind) {
		still.mu.Lock()
		defer still.mu.Unlock()
		still.set(256, &held{kind: kind, tunnel: "cust-a", failed: errors.New("not here"), expires: now.Add(-expireGrace - time.Second)})
	}
	for _, k := range []kind{gone, child} {
		for _, x := range []struct {
			keeper bool
			later  time.Duration
			want   int
		}{{true, 0, 1}, {false, 0, 0}, {false, keeperTime - 2*time.Second, 0}, {false, keeperTime, 1}} {
			over(k)
			if list := still.expire(now.Add(x.later), x.keeper); len(list) != x.want || still.children != 0 {
				t.Errorf("%s, keeper %v, %v later: it removes %d, and %d children are left", k, x.keeper, x.later, len(list), still.children)
			}
		}
	}
}

// In buckets that an earlier release has made, marks that are made from now on end.
func TestMarksOfEarlierReleases(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub")
	b.marks = time.Second
	hub := b.prepare("hub")
	js := hub.engine.Store
	before := jetstream.KeyValueConfig{Bucket: bucketIKEs, History: 1, Replicas: 1}
	kv, err := js.CreateKeyValue(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.purge(t.Context(), kv, "x"); err != nil { // as a node whose hub is of such a release
		t.Fatal(err)
	}
	hub.run().joined()
	status, err := hub.buckets.ikes.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status.LimitMarkerTTL() != b.marks {
		t.Errorf("its marks end after %v", status.LimitMarkerTTL())
	}
	old := left(t, hub, bucketIKEs)
	if err := hub.purge(t.Context(), kv, "y"); err != nil {
		t.Fatal(err)
	}
	if n := left(t, hub, bucketIKEs); n != old+1 {
		t.Errorf("%d marks, want %d", n, old+1)
	}
	hub.eventually("without the new mark", func() bool { return left(t, hub, bucketIKEs) == old })
}
