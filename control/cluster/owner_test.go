package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"causeway/control/ike"
)

// owner is who a node takes for the owner of a tunnel.
func (n *node) owner(tunnel string) Ownership {
	for _, o := range n.Owners() {
		if o.Tunnel == tunnel {
			return o
		}
	}
	return Ownership{}
}

// owners says at which of the nodes the tunnel is owned.
func owning(tunnel string, nodes ...*node) (list []*node) {
	for _, n := range nodes {
		if n.owner(tunnel).Here {
			list = append(list, n)
		}
	}
	return list
}

// A tunnel has one owner; it stays the owner when others come, and when it is gone another one goes on with what was reserved.
func TestOwner(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub")
	nodes := []*node{hub, b.start("a"), b.start("b")}
	var tunnels []string
	for i := range 12 {
		tunnels = append(tunnels, fmt.Sprintf("cust-%d", i))
	}
	for _, n := range nodes {
		n.SetOwned(tunnels)
		n.joined()
	}
	by := map[string]*node{}
	for _, tunnel := range tunnels {
		hub.eventually("with one owner of "+tunnel, func() bool { return len(owning(tunnel, nodes...)) == 1 })
		by[tunnel] = owning(tunnel, nodes...)[0]
		if err := by[tunnel].Reserve(tunnel, map[uint32]uint64{1: 1000, 2: 50}); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			n.eventually("of the owner", func() bool { return n.owner(tunnel).Node == by[tunnel].name && n.owner(tunnel).Marks[1] == 1000 })
			if n != by[tunnel] {
				if err := n.Reserve(tunnel, map[uint32]uint64{1: 7}); !errors.Is(err, ike.ErrTaken) {
					t.Errorf("%s reserves numbers of %s, which is %s's: %v", n.name, tunnel, by[tunnel].name, err)
				}
			}
		}
	}
	if err := by[tunnels[0]].Reserve(tunnels[0], map[uint32]uint64{2: 10, 3: 9}); err != nil {
		t.Fatal(err)
	}
	if got, want := by[tunnels[0]].owner(tunnels[0]).Marks, map[uint32]uint64{1: 1000, 2: 50, 3: 9}; !maps.Equal(got, want) {
		t.Errorf("marks %v, want %v: one that is lower, or of a child that this node does not know, makes numbers begin anew", got, want)
	}
	a := nodes[1]
	has := 0
	for _, n := range by {
		if n == a {
			has++
		}
	}
	if has == 0 || has == len(tunnels) {
		t.Fatalf("a is the owner of %d of %d: the test needs some", has, len(tunnels))
	}
	a.stop()
	for _, tunnel := range tunnels {
		before := by[tunnel]
		hub.eventually("with an owner that lives", func() bool { return len(owning(tunnel, nodes[0], nodes[2])) == 1 })
		now := owning(tunnel, nodes[0], nodes[2])[0]
		if before != a && now != before {
			t.Errorf("%s was %s's and is %s's", tunnel, before.name, now.name)
		}
		if now.owner(tunnel).Marks[1] != 1000 {
			t.Errorf("%s: %s goes on with marks %v", tunnel, now.name, now.owner(tunnel).Marks)
		}
		by[tunnel] = now
	}
	again := b.start("a").joined()
	again.SetOwned(tunnels)
	time.Sleep(claimTime + time.Second)
	for _, tunnel := range tunnels {
		if o := again.owner(tunnel); o.Here || o.Node != by[tunnel].name {
			t.Errorf("%s is %s's, and the node that came takes %v for the owner", tunnel, by[tunnel].name, o)
		}
	}
}

// Who comes without the key takes no tunnel whose record it cannot read: its numbers would begin anew.
func TestOwnerUnreadable(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub := b.start("hub")
	hub.SetOwned([]string{"cust-a"})
	hub.joined()
	hub.eventually("the owner", func() bool { return hub.owner("cust-a").Here })
	if err := hub.Reserve("cust-a", map[uint32]uint64{1: 1 << 16}); err != nil {
		t.Fatal(err)
	}
	a := b.start("a") // reads the record before it has the key
	a.SetOwned([]string{"cust-a"})
	a.joined()
	a.eventually("of the owner", func() bool { o := a.owner("cust-a"); return o.Node == "hub" && o.Marks[1] == 1<<16 })
	time.Sleep(leaseTime + claimTime)
	if !hub.owner("cust-a").Here || a.owner("cust-a").Here {
		t.Errorf("the hub says %v, a says %v", hub.owner("cust-a"), a.owner("cust-a"))
	}
}

// The owner, and what it has reserved, outlive epochs; those that nobody can read any more are claimed anew.
func TestOwnersOutliveEpochs(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	b.quick = true
	hub := b.start("hub")
	hub.SetOwned([]string{"cust-a"})
	hub.joined()
	hub.eventually("the owner", func() bool { return hub.owner("cust-a").Here })
	if err := hub.Reserve("cust-a", map[uint32]uint64{1: 77}); err != nil {
		t.Fatal(err)
	}
	first := hub.keys.Current()
	hub.eventually("without the first key", func() bool { return hub.keys.Oldest() > first })
	if o := hub.owner("cust-a"); !o.Here || o.Marks[1] != 77 {
		t.Errorf("in the next epoch: %v", o)
	}
	late := b.start("a")
	late.SetOwned([]string{"cust-a"})
	late.joined()
	late.eventually("of the owner", func() bool { return late.owner("cust-a").Marks[1] == 77 })
	late.stop()
	hub.stop() // no key is left
	hub = b.start("hub")
	hub.SetOwned([]string{"cust-a"})
	hub.joined()
	hub.eventually("the owner again", func() bool { return hub.owner("cust-a").Here })
}

// That a process has ended is known much earlier than its lease, and one that lives is not taken for gone because somebody says so.
func TestGoneIsTold(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	a, second := b.start("a").joined(), b.start("b").joined()
	for _, n := range []*node{hub, a, second} {
		n.sees(2)
	}
	second.tellGone(death{"a", a.writer.ID + 1, 1 << 40}) // another process of it
	second.tellGone(death{"a", a.writer.ID, 0})           // which was heard since
	if err := second.engine.Conn.Publish(subjectGone, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	before := hub.counts.refusedRecords.Load()
	hub.eventually("refusing nonsense", func() bool { return hub.counts.refusedRecords.Load() > before || before > 0 })
	if len(hub.others()) != 2 {
		t.Error("a is taken for gone")
	}
	begin := time.Now()
	a.stop()
	for _, n := range []*node{hub, second} {
		n.eventually("knowing that a is gone", func() bool { return len(n.others()) == 1 })
	}
	if took := time.Since(begin); took > leaseTime/2 {
		t.Errorf("after %v", took)
	}
}

// FuzzOwner: what is not of this version is not read, and nothing panics.
func FuzzOwner(f *testing.F) {
	for _, text := range []string{`{"v":1,"tunnel":"cust-a","node":"a","w":7,"marks":{"1":2}}`, `{"v":2}`, `{}`, ``, `{"v":1,"marks":null}`, `{"v":1,"marks":{"-1":1}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseOwner(b); err == nil && r.Version != ownerVersion {
			t.Fatalf("%q is read", b)
		}
	})
}

// The node that has the store alone encrypts for no tunnel as long as there is another: when it dies nobody could take its place.
func TestOwnerIsNotTheStore(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	b.alone = true
	hub := b.start("hub").joined()
	var tunnels []string
	for i := range 16 {
		tunnels = append(tunnels, fmt.Sprint("t", i))
	}
	hub.SetOwned(tunnels)
	hub.eventually("encrypting for all as the first one", func() bool { return hub.Status().OwnedHere == len(tunnels) })
	a := b.prepare("a")
	a.SetOwned(tunnels)
	a.run().joined()
	for _, n := range []*node{hub, a} {
		n.eventually("seeing that the other one encrypts for all", func() bool {
			return !slices.ContainsFunc(n.Owners(), func(o Ownership) bool { return o.Node != "a" })
		})
	}
	a.Drain()
	hub.eventually("encrypting for all as the one that is not drained", func() bool { return hub.Status().OwnedHere == len(tunnels) })
}

// A hub that starts again cannot open who encrypts for a tunnel before those that live have said so anew: it leaves them what they have.
func TestHubAgainLeavesOwners(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	b.alone = true
	hub, a := b.start("hub").joined(), b.start("a").joined()
	a.SetOwned([]string{"cust-a"})
	hub.SetOwned([]string{"cust-a"})
	owns := func(n *node) bool { return n.Owners()[0].Here }
	a.eventually("the owner", func() bool { return owns(a) })
	hub.stop()
	hub = b.prepare("hub")
	hub.SetOwned([]string{"cust-a"})
	hub.run().joined()
	a.joined()
	for end := time.Now().Add(sealedAnewTime + time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if owns(hub) || !owns(a) {
			t.Fatalf("the hub that started again is the owner: %v, and who was it is: %v", owns(hub), owns(a))
		}
	}
}
