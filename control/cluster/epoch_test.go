package cluster

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"causeway/control/cluster/seal"
)

// Epochs follow each other; everything is sealed anew, also what dead nodes have written, and the old keys are destroyed.
func TestEpochsEnd(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	b.quick = true
	hub, a, o := b.start("hub").joined(), b.start("a").joined(), b.start("b").joined()
	hub.sees(2)
	mine, its := a.install(), o.install()
	o.stop() // its records stay
	last := hub.keys.Newest()
	for range 3 {
		for _, n := range []*node{hub, a} {
			n.eventually("of a later epoch alone", func() bool { return n.keys.Newest() > last && n.keys.Oldest() > last })
		}
		last = hub.keys.Newest()
	}
	late := b.start("b").joined()
	late.eventually("of one digest with the others", func() bool { return digest(late) == digest(a) })
	for _, c := range []uint32{mine.SPIIn, its.SPIIn} {
		if late.plane.child(c) == nil {
			t.Errorf("%#x was lost when its epoch ended", c)
		}
	}
}

// What is under way under a former key can be opened for a while, also where nothing is left to be sealed anew.
func TestFormerKeysStay(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub := b.prepare("hub")
	hub.rotateAfter, hub.destroyAfter = 10*time.Second, 8*time.Second
	hub.run().joined()
	first := hub.keys.Newest()
	hub.eventually("of a later epoch", func() bool { return hub.keys.Newest() > first })
	time.Sleep(beatTime)
	if hub.keys.Oldest() != first {
		t.Errorf("the keys before epoch %d are destroyed at once", hub.keys.Oldest())
	}
}

// All nodes go and come again: the keys of epochs were in memory alone, so what was sealed nobody can read any more, and all goes on
// with a new epoch.
func TestAllStartAgain(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	hub.sees(1)
	c := a.install()
	a.stop()
	hub.stop()
	hub, a = b.start("hub").joined(), b.start("a").joined()
	hub.sees(1)
	d := a.install()
	hub.eventually("of what is installed", func() bool { return hub.plane.child(d.SPIIn) != nil })
	if a.plane.child(c.SPIIn) != nil || hub.plane.child(c.SPIIn) != nil {
		t.Error("what was sealed under a key that was destroyed was read")
	}
}

// Who leaves the roster gets no key any more, and who is added to it does, without a restart.
func TestRosterChanges(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub, a, left := b.start("hub").joined(), b.start("a").joined(), b.start("b").joined()
	hub.sees(2)
	first := hub.keys.Newest()
	roster := maps.Clone(b.roster)
	delete(roster, "b")
	roster["c"] = b.identity("c").Public().Fingerprint()
	for _, n := range []*node{hub, a} {
		n.SetRoster(roster)
	}
	hub.eventually("of a new epoch", func() bool { return hub.keys.Current() > first })
	a.eventually("of a new epoch", func() bool { return a.keys.Current() > first })
	hub.sees(1)
	b.roster = roster
	added := b.start("c").joined()
	hub.sees(2)
	d := hub.install()
	for _, n := range []*node{added, a} {
		n.eventually("of what was installed", func() bool { return n.plane.child(d.SPIIn) != nil })
	}
	time.Sleep(beatTime)
	if left.keys.Newest() > first || left.plane.child(d.SPIIn) != nil {
		t.Error("who left the roster has a new key")
	}
}

// A new epoch that fails half-way, its key given to all and not made the current one, leaves nothing that the next try stumbles over.
func TestEpochFailsHalfway(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "z")
	b.quick = true
	hub, z := b.start("hub").joined(), b.start("z").joined()
	hub.sees(1)
	failed := epoch{Version: 1, Epoch: hub.keys.Newest() + 1, From: "hub"}
	for name, public := range map[string]seal.Public{"hub": hub.identity.Public(), "z": z.identity.Public()} {
		k := seal.NewKey()
		ring := seal.NewKeyring()
		failed.Key = k.ID()
		ring.Add(failed.Epoch, k)
		w, err := ring.Wrap(failed.Epoch, hub.identity, public)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hub.bucket().epochs.Create(t.Context(), failed.wrapAt(name), text); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*node{hub, z} {
		n.eventually("of the next epoch", func() bool { return n.keys.Current() >= failed.Epoch })
	}
	c := hub.install()
	z.eventually("of what is installed", func() bool { return z.plane.child(c.SPIIn) != nil })
}

// The store's memory has the epochs, and a hub that starts again has nothing in it: the others put back the epoch that they have, and what is
// told meanwhile all can open.
func TestHubAgainKeepsTheEpoch(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "y", "z")
	hub, y, z := b.start("hub").joined(), b.start("y").joined(), b.start("z").joined()
	y.sees(2)
	c := y.install()
	hub.eventually("of what was installed", func() bool { return hub.plane.child(c.SPIIn) != nil })
	before, made := hub.keys.Current(), currentEpoch(t, hub).Made
	if off := time.Since(time.Unix(made, 0)).Abs(); off > time.Minute {
		t.Errorf("the epoch says that it was made %v ago", off)
	}
	hub.stop()
	for _, n := range []*node{y, z} {
		n.eventually("away", func() bool { return n.Status().Trouble != "" })
	}
	hub = b.start("hub").joined()
	for _, n := range []*node{hub, y.joined(), z.joined()} {
		if epoch := n.keys.Current(); epoch != before {
			t.Errorf("%s is in epoch %d, and was in %d before the hub started again", n.name, epoch, before)
		}
	}
	hub.eventually("of it again", func() bool { return hub.plane.child(c.SPIIn) != nil })
	if e := currentEpoch(t, hub); e.Made != made {
		t.Errorf("the epoch was made at %d, and was at %d", e.Made, made)
	}
	for _, name := range []string{"hub", "y", "z"} { // by this it is known who has the key, when somebody leaves
		hub.eventually("giving "+name+" the key", func() bool {
			_, err := hub.bucket().epochs.Get(t.Context(), currentEpoch(t, hub).wrapAt(name))
			return err == nil
		})
	}
}

// currentEpoch is what the store has.
func currentEpoch(t *testing.T, n *node) (e epoch) {
	t.Helper()
	v, err := n.bucket().epochs.Get(t.Context(), keyEpoch)
	if err == nil {
		err = json.Unmarshal(v.Value(), &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// An epoch that was put back ends when it would have ended.
func TestEpochThatWasPutBackEnds(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub")
	hub := b.start("hub").joined()
	old := currentEpoch(t, hub)
	old.Made -= int64((rotateAfter + time.Minute).Seconds())
	text, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hub.bucket().epochs.Put(t.Context(), keyEpoch, text); err != nil {
		t.Fatal(err)
	}
	hub.eventually("of a later epoch", func() bool { return hub.keys.Current() > old.Epoch })
}

// Who left the roster while the hub was away has the key of the epoch before: that ends, also if who has left puts it back.
func TestEpochEndsWhileTheHubIsAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, first := range []string{"y", "z"} {
		t.Run(first+" comes first", func(t *testing.T) {
			t.Parallel()
			b := newBed(t, "hub", "y", "z")
			hub, own := b.start("hub").joined(), b.hub
			ways := map[string]*proxy{"y": newProxy(t, own), "z": newProxy(t, own)}
			b.hub = ways["y"].addr
			y := b.start("y").joined()
			b.hub = ways["z"].addr
			z := b.start("z").joined()
			y.sees(2)
			before := y.keys.Newest()
			hub.stop()
			for _, n := range []*node{y, z} {
				n.eventually("away", func() bool { return n.Status().Trouble != "" })
				ways[n.name].set(n.name != first)
			}
			roster := maps.Clone(b.roster)
			delete(roster, "z")
			y.SetRoster(roster)
			b.roster, b.hub = roster, own
			hub = b.start("hub")
			if first == "z" {
				z.joined()
				ways["y"].set(false)
			}
			y.joined()
			for _, n := range []*node{hub.joined(), y} {
				n.eventually("of another epoch", func() bool { return n.keys.Current() > before })
			}
			ways["z"].set(false)
			time.Sleep(2 * beatTime)
			if z.keys.Newest() > before {
				t.Error("who left the roster has a new key")
			}
		})
	}
}

// A node is lost, then the hub starts again, then the node is taken out of the rosters: the store does not tell that it had the key, but who
// was there before remembers.
func TestEpochOfWhoWasThereBefore(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "y", "z")
	hub, y, z := b.start("hub").joined(), b.start("y").joined(), b.start("z").joined()
	y.sees(2)
	before := y.keys.Newest()
	z.stop()
	if err := hub.bucket().nodes.Purge(t.Context(), "z"); err != nil { // as when it is long gone
		t.Fatal(err)
	}
	hub.stop()
	y.eventually("away", func() bool { return y.Status().Trouble != "" })
	hub = b.start("hub").joined()
	y.joined()
	if hub.keys.Current() != before {
		t.Fatalf("the hub is in epoch %d, and the others were in %d", hub.keys.Current(), before)
	}
	roster := maps.Clone(b.roster)
	delete(roster, "z")
	for _, n := range []*node{hub, y} {
		n.SetRoster(roster)
	}
	hub.eventually("of another epoch", func() bool { return hub.keys.Current() > before })
}
