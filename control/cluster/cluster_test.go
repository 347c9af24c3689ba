package cluster

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What one node installs all have when Install returns; what it does with it afterwards they do too.
func TestChildrenAreEverywhere(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	nodes := []*node{hub, b.start("a").joined(), b.start("b").joined()}
	for _, n := range nodes {
		n.sees(2)
		n.plane.slow.Store(int64(100 * time.Millisecond)) // much less than they are waited for
	}
	for i, n := range nodes {
		first, second := n.install(), n.install()
		late := n.counts.late.Load() > 0 // Install did not wait for them any longer: a busy machine
		for _, o := range nodes {
			if late {
				o.eventually("of what was installed", func() bool { return o.plane.child(first.SPIIn) != nil && o.plane.child(second.SPIIn) != nil })
			}
			got := o.plane.child(first.SPIIn)
			if got == nil || o.plane.child(second.SPIIn) == nil {
				t.Fatalf("%s has not what %s installed", o.name, n.name)
			}
			if !got.Expires.Equal(first.Expires) {
				t.Errorf("%s: it expires %v, not %v", o.name, got.Expires, first.Expires)
			}
			got.Expires = first.Expires
			if !reflect.DeepEqual(got, first) {
				t.Errorf("%s has %v, and not %v", o.name, got, first)
			}
		}
		for _, spi := range []uint32{first.SPIIn, second.SPIIn, first.SPIIn} {
			if err := n.Shared().Use("cust-a", spi); err != nil {
				t.Fatal(err)
			}
			for _, o := range nodes {
				o.eventually("using what is used", func() bool { return o.plane.used() == spi })
			}
		}
		peer := first.Peer
		peer = netipPort(peer, uint16(1000+i))
		n.Shared().Move("cust-a", first.SPIIn, peer)
		n.Shared().Remove("cust-a", second.SPIIn)
		for _, o := range nodes {
			o.eventually("moved and removed", func() bool {
				return o.plane.child(first.SPIIn).Peer == peer && o.plane.child(second.SPIIn) == nil
			})
		}
	}
	for _, n := range nodes {
		n.eventually("of one digest with the others", func() bool { return digest(n) == digest(hub) })
		if len(n.plane.children) != len(nodes) {
			t.Errorf("%s has %d children, want %d", n.name, len(n.plane.children), len(nodes))
		}
	}
}

// Who comes late, or comes again, has what there is, and uses the pair that is used.
func TestLateNodes(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	b.start("hub").joined()
	a := b.start("a").joined()
	first, second := a.install(), a.install()
	for _, spi := range []uint32{second.SPIIn, first.SPIIn} {
		if err := a.Shared().Use("cust-a", spi); err != nil {
			t.Fatal(err)
		}
	}
	third := a.install()
	a.Shared().Remove("cust-a", third.SPIIn)
	a.eventually("stored", func() bool { return len(a.unstored()) == 0 })
	late := b.start("b").joined()
	late.eventually("of one digest with the others", func() bool { return digest(late) == digest(a) })
	if late.plane.child(first.SPIIn) == nil || late.plane.child(second.SPIIn) == nil || late.plane.child(third.SPIIn) != nil {
		t.Errorf("it has %v", late.plane.children)
	}
	if late.plane.used() != first.SPIIn {
		t.Errorf("packets leave by %#x, not by %#x", late.plane.used(), first.SPIIn)
	}
	// In whatever order they are heard of: the one that was used last first, and the other one then.
	late.mu.Lock()
	for _, spi := range []uint32{first.SPIIn, second.SPIIn} {
		late.plane.Remove("cust-a", spi)
		late.set(spi, nil)
	}
	late.mu.Unlock()
	for _, spi := range []uint32{first.SPIIn, second.SPIIn} {
		if err := late.take(spiKey(spi), sealedOf(a, spi), false); err != nil {
			t.Fatal(err)
		}
	}
	if late.plane.used() != first.SPIIn {
		t.Errorf("packets leave by %#x, which was heard of last, not by %#x", late.plane.used(), first.SPIIn)
	}
	// The node that negotiated them starts again: they are another's now.
	writer := a.writer
	a.stop()
	again := b.start("a").joined()
	again.eventually("of one digest with the others", func() bool { return digest(again) == digest(late) })
	if again.writer == writer || again.writer.Generation != writer.Generation {
		t.Errorf("number %v after %v", again.writer, writer)
	}
	if again.plane.used() != first.SPIIn {
		t.Errorf("packets leave by %#x, not by %#x", again.plane.used(), first.SPIIn)
	}
}

// The hub goes and comes again: what is up stays, nothing new is agreed on, and then all goes on by itself.
func TestHubGoesAndComes(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	a, o := b.start("a").joined(), b.start("b").joined()
	a.sees(2)
	c := a.install()
	spi, err := a.Shared().ReserveSPI()
	if err != nil {
		t.Fatal(err)
	}
	refused := a.child(spi)
	hub.stop()
	a.eventually("away", func() bool { return a.Status().Trouble != "" })
	if _, err := a.Shared().ReserveSPI(); err == nil {
		t.Error("there is an SPI for what no other node would have")
	}
	if a.plane.child(c.SPIIn) == nil || o.plane.child(c.SPIIn) == nil {
		t.Error("a child was lost with the hub")
	}
	a.Shared().Remove("cust-a", c.SPIIn) // said to nobody now
	if err := a.Shared().Install(refused); err == nil {
		t.Error("a child was installed that the store does not have")
	}
	b.start("hub").joined()
	a.joined().sees(2)
	o.joined()
	o.eventually("told later", func() bool { return o.plane.child(c.SPIIn) == nil })
	a.eventually("stored", func() bool { return len(a.unstored()) == 0 })
	if a.plane.child(spi) != nil || o.plane.child(spi) != nil {
		t.Error("a child that was refused came to be later")
	}
	d := a.install()
	o.eventually("of what was installed after the hub came again", func() bool { return o.plane.child(d.SPIIn) != nil })
}

// Who is not in the roster reads nothing, is not believed, and is not waited for.
func TestNotAdmitted(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	b.start("hub").joined()
	a := b.start("a").joined()
	rogue := b.start("rogue")
	c := a.install()
	time.Sleep(2 * beatTime)
	if d := a.install(); rogue.plane.child(c.SPIIn) != nil || rogue.plane.child(d.SPIIn) != nil || rogue.keys.Newest() != 0 {
		t.Error("who is not admitted has keys")
	}
	if a.others()["rogue"] {
		t.Error("it is waited for")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused["rogue"] == "" {
		t.Error("nothing says that a node is not admitted")
	}
}

func digest(n *node) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.digest
}

// What stands in the store is believed only where it was put, and only if it is newer than what is known.
func TestStoreIsNotBelieved(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	hub.sees(1)
	c, d := hub.install(), hub.install()
	old := bytes.Clone(sealedOf(hub, c.SPIIn))
	peer := netipPort(c.Peer, 7)
	hub.Shared().Move("cust-a", c.SPIIn, peer)
	hub.Shared().Remove("cust-a", d.SPIIn)
	gone := bytes.Clone(sealedOf(hub, d.SPIIn))
	a.eventually("moved and removed", func() bool { return a.plane.child(c.SPIIn).Peer == peer && a.plane.child(d.SPIIn) == nil })
	damaged := bytes.Clone(sealedOf(hub, c.SPIIn))
	damaged[len(damaged)-1] ^= 1
	for what, x := range map[string]struct {
		spi   uint32
		value []byte
	}{
		"an older value":        {c.SPIIn, old},
		"another's tombstone":   {c.SPIIn, gone},
		"a damaged value":       {c.SPIIn, damaged},
		"a short value":         {c.SPIIn, damaged[:9]},
		"a value after its end": {d.SPIIn, old},
		"another's value":       {d.SPIIn + 1, old},
	} {
		if err := a.engine.Conn.Publish(subjectSAs+spiKey(x.spi), x.value); err != nil {
			t.Fatal(err)
		}
		if _, err := a.bucket().sas.Put(t.Context(), spiKey(x.spi), x.value); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if k := a.plane.child(c.SPIIn); k == nil || k.Peer != peer || a.plane.child(d.SPIIn) != nil || a.plane.child(d.SPIIn+1) != nil {
			t.Errorf("%s was believed: %v", what, a.plane.children)
		}
	}
	// The node that has written what was there before writes it again, also when it was removed.
	healed := func() bool {
		v, err := a.bucket().sas.Get(t.Context(), spiKey(c.SPIIn))
		w, err2 := a.bucket().sas.Get(t.Context(), spiKey(d.SPIIn))
		return err == nil && err2 == nil && bytes.Equal(v.Value(), sealedOf(hub, c.SPIIn)) && bytes.Equal(w.Value(), sealedOf(hub, d.SPIIn))
	}
	hub.eventually("healed", healed)
	hub.eventually("at rest", func() bool { return len(hub.unstored()) == 0 })
	if err := a.bucket().sas.Purge(t.Context(), spiKey(c.SPIIn)); err != nil {
		t.Fatal(err)
	}
	hub.eventually("healed after a purge", healed)
}

func sealedOf(n *node, spi uint32) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held[spi].sealed
}

// A number in front of IVs is one process's for ever.
func TestWritersAreDifferent(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	if hub.writer.ID == a.writer.ID {
		t.Fatalf("both have number %d", hub.writer.ID)
	}
	for _, n := range []*node{a, hub, a} {
		if free, err := n.claimWriter(t.Context(), n.bucket(), hub.writer.ID); free || err != nil {
			t.Errorf("%s may have the number of another: %v, %v", n.name, free, err)
		}
	}
}

// What is changed on one node alone, by its operator, is brought back from what all have.
func TestTunnelsComeAndGo(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	hub.sees(1)
	c := hub.install()
	a.eventually("of what is installed", func() bool { return a.plane.child(c.SPIIn) != nil })
	a.plane.Remove("cust-a", c.SPIIn) // as a reload does
	a.plane.mu.Lock()
	a.plane.tunnels["cust-a"] = false
	a.plane.mu.Unlock()
	d := hub.install()
	a.eventually("told of what it cannot take", func() bool { return a.Status().NotInstalled == 1 })
	a.plane.mu.Lock()
	a.plane.tunnels["cust-a"] = true
	a.plane.mu.Unlock()
	a.Retake()
	if a.plane.child(c.SPIIn) == nil || a.plane.child(d.SPIIn) == nil {
		t.Errorf("it has %v", a.plane.children)
	}
}

// A node that joins again lives at once to the others, and what dead processes had reserved is free again.
func TestSignsOfLife(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub, a, o := b.start("hub").joined(), b.start("a").joined(), b.start("b").joined()
	hub.sees(2)
	time.Sleep(3 * beatTime)
	a.anew <- struct{}{} // it joins again
	time.Sleep(leaseTime + beatTime)
	if !hub.others()["a"] {
		t.Error("it is taken for dead after it has joined again")
	}
	o.stop()
	hub.eventually("free of what a dead process had reserved", func() bool {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		for _, h := range hub.held {
			if h.node == "b" && h.kind == reserved {
				return false
			}
		}
		return true
	})
}

// A copy of the store that was made earlier is put back: who has seen the newer one does not join it, and goes on with what it has; who
// comes new is given no key of before.
func TestOldStoreIsNotJoined(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	hub.stop()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	hub = b.start("hub").joined()
	p := newProxy(t, b.hub)
	at := b.hub
	b.hub = p.addr
	a := b.start("a").joined()
	child := a.install()
	time.Sleep(2 * beatTime)
	b.hub = at
	p.set(true)
	hub.stop()
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(b.dir, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	hub = b.start("hub").joined()
	for range 50 { // by its number of changes alone it is not older
		if _, err := hub.bucket().nodes.Put(t.Context(), "nobody", nil); err != nil {
			t.Fatal(err)
		}
	}
	p.set(false)
	a.eventually("refusing the older store", func() bool { return strings.Contains(a.Status().Trouble, "the store is older than it was") })
	second := b.start("b").joined()
	if a.plane.child(child.SPIIn) == nil {
		t.Error("the node has lost its child")
	}
	if _, err := a.Shared().ReserveSPI(); err == nil {
		t.Error("something is negotiated on an older store")
	}
	for _, n := range []*node{hub, second} {
		if n.keys.Has(a.keys.Newest()) || n.plane.child(child.SPIIn) != nil {
			t.Errorf("%s has a key, or a child, of before", n.name)
		}
	}
	time.Sleep(10 * beatTime) // the older store has more changes by now
	if !strings.Contains(a.Status().Trouble, "the store is older than it was") {
		t.Errorf("a joins later: %s", a.Status().Trouble)
	}
}
