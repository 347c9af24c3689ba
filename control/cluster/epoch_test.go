package cluster

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

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

// A node leaves, and the rosters are changed one after the other: that is one epoch more, or two, whichever is the first.
func TestLeavingIsOneEpoch(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, order := range [][]string{{"hub", "y", "z"}, {"z", "y", "hub"}} {
		t.Run(order[0]+" first", func(t *testing.T) {
			t.Parallel()
			b := newBed(t, "gone", "hub", "y", "z")
			nodes := map[string]*node{"hub": b.start("hub").joined()}
			for _, name := range []string{"y", "z"} {
				nodes[name] = b.start(name).joined()
			}
			gone := b.start("gone").joined()
			nodes["hub"].sees(3)
			gone.stop()
			roster := maps.Clone(b.roster)
			delete(roster, "gone")
			before := strings.Count(b.log.text(), "new epoch")
			first := nodes["hub"].keys.Newest()
			for _, name := range order {
				nodes[name].SetRoster(roster)
				time.Sleep(3 * time.Second)
			}
			for _, n := range nodes {
				n.eventually("of another epoch", func() bool { return n.keys.Current() > first })
			}
			time.Sleep(leaveEvery + time.Second)
			if n := strings.Count(b.log.text(), "new epoch") - before; n > 3 {
				t.Errorf("%d epochs", n)
			}
		})
	}
}

// Who is to leave cannot hide that it has the key, by removing from the store what says so.
func TestKeyThatWasGivenIsRemembered(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "z")
	hub, z := b.start("hub").joined(), b.start("z").joined()
	hub.sees(1)
	time.Sleep(beatTime)
	before := hub.keys.Newest()
	z.stop()
	for _, x := range []struct {
		kv  jetstream.KeyValue
		key string
	}{{hub.bucket().nodes, "z"}, {hub.bucket().epochs, currentEpoch(t, hub).wrapAt("z")}} {
		if err := x.kv.Purge(t.Context(), x.key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(beatTime)
	}
	roster := maps.Clone(b.roster)
	delete(roster, "z")
	hub.SetRoster(roster)
	hub.eventually("of another epoch", func() bool { return hub.keys.Current() > before })
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

// When all start again nobody can open what was sealed before, and nobody waits for that.
func TestNobodyHasTheFormerKey(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	hub.sees(1)
	a.install()
	hub.stop()
	a.stop()
	hub, a = b.start("hub").joined(), b.start("a").joined()
	for _, n := range []*node{hub, a} {
		n.eventually("complete", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.complete })
		n.mu.Lock()
		took := time.Since(n.Cluster.joined)
		n.mu.Unlock()
		if took > completeTime-time.Second {
			t.Errorf("%s waited for %v", n.name, took)
		}
	}
}

// A neighbour that has not got the key of the next epoch yet is told under the one that it has.
func TestToldUnderTheEpochThatItHas(t *testing.T) {
	t.Parallel() // it waits more than it works
	b, nodes := newLocalBed(t)
	a, near := nodes["a"], nodes["near"]
	next := a.keys.Newest() + 1
	a.keys.Add(next, seal.NewKey())
	a.keys.Use(next)
	c := a.install()
	if near.plane.child(c.SPIIn) == nil || a.counts.late.Load() != 0 {
		t.Errorf("it has it: %v, %d acknowledgements are late", near.plane.child(c.SPIIn) != nil, a.counts.late.Load())
	}
	_ = b
}

// Another process with a node's name and identity takes its place, and the one that was there says so. It is not cut off, as somebody could
// then do to it who is not admitted.
func TestCopyOfANode(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	hub.sees(1)
	link := a.engine.Link()
	second := b.prepare("a")
	second.started.Store(a.started.Load() - int64(time.Hour)) // its clock was set back
	second.run().joined()
	a.eventually("aware of the other", func() bool {
		return strings.Contains(strings.Join(a.NotReady(), " "), "another process has started with this node's name")
	})
	if second.started.Load() <= a.started.Load() {
		t.Error("the second does not come after the first")
	}
	second.eventually("ready", func() bool { return len(second.NotReady()) == 0 })
	time.Sleep(3 * beatTime)
	if a.engine.Link() != link {
		t.Error("the first was cut off")
	}
	if n := strings.Count(b.log.text(), "another process has started"); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}
