package cluster

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"causeway/control/cluster/seal"
)

// A bed of a and near in one data center, and others elsewhere, whose hub is gone.
func newLocalBed(t *testing.T, others ...string) (b *bed, nodes map[string]*node) {
	names := append([]string{"a", "near"}, others...)
	b, nodes = newBed(t, append(names, "hub")...), map[string]*node{}
	b.local, b.datacenters = true, map[string]string{"a": "ams1", "near": "ams1"}
	hub := b.start("hub").joined()
	for _, name := range names {
		nodes[name] = b.start(name).joined()
	}
	for _, n := range nodes {
		n.sees(len(names))
		n.eventually("knowing of all that they have the key", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, l := range n.members {
				if l.member.Epoch == 0 {
					return false
				}
			}
			return true
		})
	}
	hub.stop()
	for _, n := range nodes {
		n.eventually("away", func() bool { return n.Fleet().Local() })
	}
	return b, nodes
}

// While the store is away the nodes of a data center have what one of them negotiates, when Install returns and although messages are lost.
// All others have it when the store is there again.
func TestNeighbours(t *testing.T) {
	t.Parallel() // it waits more than it works
	b, nodes := newLocalBed(t, "far")
	a, near, far := nodes["a"], nodes["near"], nodes["far"]
	var lost atomic.Int64
	a.tells = func(name string, m []byte) bool { // two of three are lost
		return lost.Add(1)%3 != 0 || b.tell(name, m)
	}
	first, second := a.install(), a.install()
	if near.plane.child(first.SPIIn) == nil || near.plane.child(second.SPIIn) == nil {
		t.Error("a node of the data center has not what was installed")
	}
	if err := a.Shared().Use("cust-a", first.SPIIn); err != nil {
		t.Fatal(err)
	}
	a.Shared().Remove("cust-a", second.SPIIn)
	near.eventually("doing what is done", func() bool {
		return near.plane.used() == first.SPIIn && near.plane.child(second.SPIIn) == nil
	})
	a.eventually("told by all", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.tellings) == 0 })
	given := map[uint32]bool{}
	for range localSize {
		spi, err := near.Shared().ReserveSPI()
		if err != nil {
			if !errors.Is(err, errSpent) {
				t.Error(err)
			}
			break
		}
		if given[spi] {
			t.Errorf("spi %#x is given twice", spi)
		}
		given[spi] = true
	}
	if _, err := near.Shared().ReserveSPI(); !errors.Is(err, errSpent) {
		t.Errorf("more SPIs than were reserved: %v", err)
	}
	if far.plane.child(first.SPIIn) != nil || a.counts.late.Load() != 0 {
		t.Errorf("another data center has it (%v), %d acknowledgements are late", far.plane.child(first.SPIIn) != nil, a.counts.late.Load())
	}
	b.start("hub").joined()
	for _, n := range []*node{a.joined(), near.joined(), far.joined()} {
		n.eventually("having it from the store", func() bool { return n.plane.used() == first.SPIIn && n.plane.child(second.SPIIn) == nil })
	}
	a.eventually("stored", func() bool { return len(a.unstored()) == 0 })
	if a.Fleet().Local() {
		t.Error("it goes on without the store that is there")
	}
}

// What was made just before it was noticed that the store is gone neighbours are told then.
func TestNeighboursAreToldOfBefore(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "near")
	b.local, b.datacenters = true, map[string]string{"a": "ams1", "near": "ams1"}
	hub, a, near := b.start("hub").joined(), b.start("a").joined(), b.start("near").joined()
	a.sees(2)
	spi, err := a.Shared().ReserveSPI()
	if err != nil {
		t.Fatal(err)
	}
	c := a.child(spi)
	c.Agreed = true
	hub.stop()
	if err := a.Shared().Install(c); err != nil { // the peer has it
		t.Fatal(err)
	}
	near.eventually("of what was made", func() bool { return near.plane.child(spi) != nil })
}

// A neighbour that is cut off, or has not joined again yet, is told from node to node by those that have the store.
func TestNeighbourThatIsCutOff(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "near", "far")
	b.local, b.datacenters = true, map[string]string{"a": "ams1", "near": "ams1"}
	b.start("hub").joined()
	a, p := b.start("a").joined(), newProxy(t, b.hub)
	b.hub = p.addr
	near, far := b.start("near").joined(), b.start("far").joined()
	a.sees(3)
	var told atomic.Int64
	a.tells = func(name string, m []byte) bool { told.Add(1); return b.tell(name, m) }
	if a.install(); told.Load() > 0 {
		t.Error("who has acknowledged is told again")
	}
	p.set(true)
	c := a.install()
	if near.plane.child(c.SPIIn) == nil {
		t.Error("a node of the data center has not what was installed")
	}
	if far.plane.child(c.SPIIn) != nil {
		t.Error("another data center was told")
	}
	p.set(false)
	far.eventually("having it from the store", func() bool { return far.plane.child(c.SPIIn) != nil })
}

// A neighbour that does not answer is waited for once.
func TestQuietNeighbour(t *testing.T) {
	t.Parallel() // it waits more than it works
	b, nodes := newLocalBed(t)
	a, near := nodes["a"], nodes["near"]
	var silent atomic.Bool
	silent.Store(true)
	a.tells = func(name string, m []byte) bool { return silent.Load() || b.tell(name, m) }
	first, second := a.install(), a.install()
	if n := a.counts.late.Load(); n != 1 {
		t.Errorf("%d acknowledgements are late, want that of the first", n)
	}
	silent.Store(false)
	near.eventually("told later", func() bool { return near.plane.child(first.SPIIn) != nil && near.plane.child(second.SPIIn) != nil })
	a.eventually("hearing it again", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.quiet) == 0 })
	if third := a.install(); near.plane.child(third.SPIIn) == nil {
		t.Error("who answers again is not waited for")
	}
}

// Who is not admitted any more is not told, and is not believed.
func TestNeighbourWhoHasLeft(t *testing.T) {
	t.Parallel() // it waits more than it works
	b, nodes := newLocalBed(t)
	a, near := nodes["a"], nodes["near"]
	roster := seal.Roster{}
	for name, fingerprint := range b.roster {
		if name != "near" {
			roster[name] = fingerprint
		}
	}
	var told atomic.Int64
	a.tells = func(name string, m []byte) bool { told.Add(1); return b.tell(name, m) }
	a.SetRoster(roster)
	a.install()
	if told.Load() > 0 {
		t.Error("who is not admitted is told")
	}
	for _, m := range [][]byte{nil, {toldRecord}, {toldRecord, 0, 0, 1, 0}, {toldRecord, 0, 0, 1, 0, 9, 'a'}, {toldAck, 0, 0, 1, 0},
		append([]byte{toldRecord, 0, 0, 1, 0, 1, 'a'}, bytes.Repeat([]byte{7}, 100)...)} {
		near.TakeTold(m)
	}
	if len(near.plane.children) != 0 {
		t.Error("what is not authentic is taken")
	}
}

// What is negotiated in place of a store that will never be there again nobody would ever have.
func TestNotLocalInAStrangeStore(t *testing.T) {
	t.Parallel() // it waits more than it works
	b, nodes := newLocalBed(t)
	a := nodes["a"]
	b.dir = t.TempDir() // the hub's disk is lost
	b.start("hub").joined()
	a.eventually("finding another store", func() bool { return strings.Contains(a.Status().Trouble, "the store is") })
	if _, err := a.Shared().ReserveSPI(); err == nil || a.Fleet().Local() {
		t.Error("it negotiates for a store that is not its own")
	}
}

// While the store is away, and from who is there again, datagrams go to the process that has made an SPI, however long it is not heard.
func TestForwardWhileAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	_, nodes := newLocalBed(t)
	a, near := nodes["a"], nodes["near"]
	spi := a.Fleet().SPI()
	heardAgo := func(ago time.Duration) {
		s := *near.members["a"].sign.Load()
		s.heard = time.Now().Add(-ago)
		near.members["a"].sign.Store(&s)
	}
	near.mu.Lock()
	heardAgo(2 * peerKept)
	near.mu.Unlock()
	if n := near.nodeOf(spi); n != "a" {
		t.Errorf("while the store is away it goes to %q", n)
	}
	near.mu.Lock()
	near.trouble = ""
	heardAgo(peerKept / 2)
	near.mu.Unlock()
	if n := near.nodeOf(spi); n != "a" {
		t.Errorf("of a node that is cut off from the store it goes to %q", n)
	}
}

// What a message is read as is what it was written from, and nothing that is none is taken for one.
func FuzzTold(f *testing.F) {
	for _, m := range []toldMessage{{kind: toldRecord, spi: 0x12345678, from: "edge-1", text: []byte("a record")}, {kind: toldAck, spi: 1, text: []byte("an acknowledgement")},
		{kind: toldRecord, spi: 1<<32 - 1, from: strings.Repeat("x", 255)}} {
		f.Add(m.marshal())
	}
	for _, b := range [][]byte{nil, {toldRecord}, {toldRecord, 0, 0, 1, 0}, {toldRecord, 0, 0, 1, 0, 0}, {toldRecord, 0, 0, 1, 0, 9, 'a'}, {toldAck, 0, 0, 1, 0}, {9, 0, 0, 1, 0, 1, 'a'}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parseTold(b)
		if !ok {
			return
		}
		if m.kind != toldAck && (m.kind != toldRecord || m.from == "" || len(m.from) > 255) {
			t.Fatalf("%q is read as %+v", b, m)
		}
		if again := m.marshal(); !bytes.Equal(again, b) {
			t.Fatalf("%q is written as %q", b, again)
		}
	})
}
