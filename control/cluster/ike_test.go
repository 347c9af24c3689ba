package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/control/ike"
)

// A negotiator has IKE SAs whose states are texts.
type negotiator struct {
	node *node

	mu        sync.Mutex
	sas       map[uint64]uint64 // that are here, with their revisions
	taken     []string
	forwarded []string
	refuse    error
}

func (n *negotiator) Taken(spi uint64, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, here := n.sas[spi]; here {
		delete(n.sas, spi)
		n.taken = append(n.taken, why)
	}
}

func (n *negotiator) TakeOver(spi uint64) error {
	n.mu.Lock()
	refuse := n.refuse
	n.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	s, err := n.node.Fleet().Load(spi)
	if err != nil {
		return err
	}
	n.write(s, s.Revision)
	return nil
}

func (n *negotiator) StoreAgain(spi uint64) {
	n.mu.Lock()
	revision := n.sas[spi]
	n.mu.Unlock()
	if s, err := n.node.Fleet().Load(spi); err == nil {
		n.write(s, revision)
	}
}

func (n *negotiator) Forwarded(local, remote netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forwarded = append(n.forwarded, fmt.Sprintf("%v %v %s", local, remote, b))
}

// write stores an SA, and returns how that ended.
func (n *negotiator) write(s ike.Stored, revision uint64) <-chan error {
	ended := make(chan error, 1)
	s.State = bytes.Clone(s.State)
	n.node.Fleet().Write(s, revision, func(revision uint64, err error) {
		n.mu.Lock()
		if err == nil {
			n.sas[s.SPI] = revision
		} else if errors.Is(err, ike.ErrTaken) {
			delete(n.sas, s.SPI)
		}
		n.mu.Unlock()
		ended <- err
	})
	return ended
}

// here lists the SAs that a node has.
func (n *negotiator) here() []uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.sas))
}

func (n *negotiator) revision(spi uint64) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sas[spi]
}

// establish makes an IKE SA.
func (n *node) establish(tunnel, state string) ike.Stored {
	n.t.Helper()
	s := ike.Stored{SPI: n.Fleet().SPI(), Tunnel: tunnel, Established: time.Now(), State: []byte(state)}
	if err := <-n.ike.write(s, 0); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// change writes a state in place of what this node knows.
func (n *node) change(s ike.Stored, state string) error {
	s.State = []byte(state)
	return <-n.ike.write(s, n.ike.revision(s.SPI))
}

// state is what a node reads of an SA.
func (n *node) state(spi uint64) string {
	s, err := n.Fleet().Load(spi)
	if err != nil {
		return err.Error()
	}
	return string(s.State)
}

// An IKE SA is where it is: all nodes know it, one has it, and when that node is gone one other gets it.
func TestIKESAHasOneNode(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b", "c")
	hub := b.start("hub").joined()
	a, second, third := b.start("a").joined(), b.start("b").joined(), b.start("c").joined()
	nodes := []*node{hub, a, second, third}
	for _, n := range nodes {
		n.sees(3)
	}
	var all []uint64
	for i := range 20 {
		s := a.establish("cust-a", fmt.Sprintf(`"state %d"`, i))
		all = append(all, s.SPI)
		if err := a.change(s, fmt.Sprintf(`"changed %d"`, i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		want := ike.There
		if n == a {
			want = ike.Here
		}
		for i, spi := range all {
			n.eventually("of the newest state", func() bool { return n.state(spi) == fmt.Sprintf(`"changed %d"`, i) })
			if s := n.Fleet().Find(spi); s.Where != want || s.Node != "a" || s.Tunnel != "cust-a" {
				t.Errorf("%s: %v", n.name, s)
			}
		}
		if n != a && len(n.Fleet().Of("cust-a")) != len(all) {
			t.Errorf("%s knows %d of the tunnel", n.name, len(n.Fleet().Of("cust-a")))
		}
	}
	gone := second.Fleet().Find(all[0]).Revision
	a.ike.mu.Lock()
	revision := a.ike.sas[all[0]]
	a.ike.mu.Unlock()
	a.Fleet().Erase(all[0], revision)
	for _, n := range nodes {
		n.eventually("without what has ended", func() bool { return n.Fleet().Find(all[0]).Where == ike.Nowhere })
	}
	if err := <-second.ike.write(ike.Stored{SPI: all[0], Tunnel: "cust-a", State: []byte("1")}, gone); !errors.Is(err, ike.ErrTaken) {
		t.Errorf("what has ended is taken over: %v", err)
	}

	a.stop() // without a word
	left := slices.Sorted(slices.Values(all[1:]))
	hub.eventually("with the others of what a had", func() bool {
		return slices.Equal(left, slices.Sorted(slices.Values(slices.Concat(hub.ike.here(), second.ike.here(), third.ike.here()))))
	})
	for _, n := range []*node{hub, second, third} {
		if len(n.ike.here()) == len(left) {
			t.Errorf("%s got all", n.name)
		}
		if len(n.ike.taken) > 0 {
			t.Errorf("%s lost: %v", n.name, n.ike.taken)
		}
	}
	again := b.start("a").joined()
	for i, spi := range all[1:] {
		if s := again.state(spi); s != fmt.Sprintf(`"changed %d"`, i+1) {
			t.Errorf("the node that was gone reads %s", s)
		}
	}
	if n := len(again.ike.here()); n > 0 {
		t.Errorf("it has %d", n)
	}
}

// Two nodes that both believe they have an SA: the store takes what one of them writes.
func TestIKESAIsWrittenByOne(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	hub.sees(1)
	s := a.establish("cust-a", `"first"`)
	hub.eventually("of it", func() bool { return hub.Fleet().Find(s.SPI).Where == ike.There })
	known, err := hub.Fleet().Load(s.SPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-hub.ike.write(known, known.Revision); err != nil { // it believes that a is gone
		t.Fatal(err)
	}
	if err := a.change(s, `"of a"`); !errors.Is(err, ike.ErrTaken) {
		t.Errorf("a writes: %v", err)
	}
	a.eventually("told", func() bool { return len(a.ike.here()) == 0 && a.Fleet().Find(s.SPI).Node == "hub" })
	if err := hub.change(s, `"of the hub"`); err != nil || hub.state(s.SPI) != `"of the hub"` {
		t.Errorf("the hub writes: %v", err)
	}
}

// Answers of the store that are lost, and a store that is older than it was, do not take an SA from its node.
func TestIKESAOutlivesOldStore(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	b.start("hub").joined()
	a := b.start("a").joined()
	s := a.establish("cust-a", `"first"`)
	first := a.sealedIKE(s.SPI)
	for i := range 5 {
		if err := a.change(s, fmt.Sprintf(`"%d"`, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.bucket().ikes.Put(t.Context(), ikeKey(s.SPI), first); err != nil { // an old copy
		t.Fatal(err)
	}
	if err := a.change(s, `"after"`); err != nil || len(a.ike.taken) > 0 {
		t.Errorf("after an old copy: %v, %v", err, a.ike.taken)
	}
	if _, err := a.bucket().ikes.Put(t.Context(), ikeKey(s.SPI), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if err := a.change(s, `"then"`); err != nil || a.state(s.SPI) != `"then"` {
		t.Errorf("after nonsense: %v, %s", err, a.state(s.SPI))
	}
	a.ike.mu.Lock()
	a.ike.sas[s.SPI]-- // the answer to the last one was lost
	a.ike.mu.Unlock()
	if err := a.change(s, `"now"`); err != nil {
		t.Errorf("after an answer that was lost: %v", err)
	}
	if !strings.Contains(b.log.text(), "not authentic") {
		t.Error("nonsense is not told of")
	}
}

func (n *node) sealedIKE(spi uint64) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Clone(n.ikes[spi].sealed)
}

// A new epoch: all IKE SAs are sealed anew, those of nobody too, and the old keys end.
func TestIKESAsOutliveEpochs(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	b.quick = true
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	own, vacant := hub.establish("cust-a", `"own"`), a.establish("cust-b", `"vacant"`)
	hub.eventually("of both", func() bool { return hub.state(vacant.SPI) == `"vacant"` })
	hub.ike.mu.Lock()
	hub.ike.refuse = errors.New("no such tunnel here")
	hub.ike.mu.Unlock()
	a.stop()
	first := hub.keys.Current()
	hub.eventually("without the first key", func() bool { return hub.keys.Current() > first && hub.keys.Oldest() > first })
	late := b.start("b").joined()
	late.eventually("reading both", func() bool { return late.state(own.SPI) == `"own"` && late.state(vacant.SPI) == `"vacant"` })
	if err := hub.change(own, `"later"`); err != nil {
		t.Error(err)
	}
}

// Who stops says so, and is not waited for.
func TestLeaving(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	hub.sees(1)
	s := a.establish("cust-a", `"first"`)
	hub.eventually("of it", func() bool { return hub.Fleet().Find(s.SPI).Where == ike.There })
	begin := time.Now()
	a.Leave(patience)
	hub.eventually("the one that goes on", func() bool { return slices.Contains(hub.ike.here(), s.SPI) })
	if took := time.Since(begin); took > leaseTime {
		t.Errorf("after %v: it waited for the lease", took)
	}
	if a.Fleet().Leads("cust-a") {
		t.Error("a node that stops begins tunnels")
	}
}

// Without the store nobody is thought to be gone, nothing is written, and what has ended is removed later.
func TestIKESAsWithoutStore(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	a, second := b.start("a").joined(), b.start("b").joined()
	s, ended := a.establish("cust-a", `"first"`), a.establish("cust-a", `"ended"`)
	second.eventually("of both", func() bool { return len(second.Fleet().Of("cust-a")) == 2 })
	hub.stop()
	for _, n := range []*node{a, second} {
		n.eventually("away", func() bool { return !n.Fleet().Reached() })
	}
	time.Sleep(leaseTime + beatTime)
	if err := a.change(s, `"unwritten"`); err == nil || errors.Is(err, ike.ErrTaken) {
		t.Errorf("written without the store: %v", err)
	}
	a.Fleet().Erase(ended.SPI, a.ike.revision(ended.SPI))
	if f := second.Fleet().Find(s.SPI); f.Where != ike.There || len(second.ike.here()) > 0 {
		t.Errorf("a is thought to be gone: %v", f)
	}
	if a.Fleet().Find(ended.SPI).Where != ike.Nowhere {
		t.Error("what has ended is here still")
	}
	b.start("hub").joined()
	for _, n := range []*node{a, second} {
		n.joined()
		n.eventually("without what has ended", func() bool { return n.Fleet().Find(ended.SPI).Where == ike.Nowhere })
	}
	if err := a.change(s, `"written"`); err != nil || len(a.ike.taken) > 0 {
		t.Errorf("afterwards: %v, %v", err, a.ike.taken)
	}
	second.eventually("of the new state", func() bool { return second.state(s.SPI) == `"written"` })
}

// A datagram goes to the node that has the SA, or is negotiating it; nobody else can read or make it.
func TestForward(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	a, second := b.start("a").joined(), b.start("b").joined()
	for _, n := range []*node{hub, a, second} {
		n.sees(2)
	}
	local, remote := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("[2001:db8::2]:65535")
	half := a.Fleet().SPI()
	if !second.Fleet().Forward(half, local, remote, []byte("half open")) {
		t.Error("not forwarded by its number")
	}
	s := a.establish("cust-a", `"x"`)
	hub.eventually("of the new SA", func() bool { return hub.state(s.SPI) == `"x"` })
	known, err := hub.Fleet().Load(s.SPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-hub.ike.write(known, known.Revision); err != nil { // it is the hub's now, and has a's number
		t.Fatal(err)
	}
	second.eventually("of the new node", func() bool { return second.Fleet().Find(s.SPI).Node == "hub" })
	if !second.Fleet().Forward(s.SPI, local, remote, []byte("established")) {
		t.Error("not forwarded to who has it")
	}
	got := func(n *node, want string) {
		t.Helper()
		n.eventually("got a datagram", func() bool {
			n.ike.mu.Lock()
			defer n.ike.mu.Unlock()
			return len(n.ike.forwarded) == 1 && n.ike.forwarded[0] == want
		})
	}
	got(a, "192.0.2.1:4500 [2001:db8::2]:65535 half open")
	got(hub, "192.0.2.1:4500 [2001:db8::2]:65535 established")
	if second.Fleet().Forward(uint64(0xabcde)<<writerBits, local, remote, nil) || second.Fleet().Forward(second.Fleet().SPI(), local, remote, nil) {
		t.Error("forwarded to nobody, or to itself")
	}

	sealed, err := second.keys.Seal(forwardPlace("hub"), appendForwarded(nil, local, remote, []byte("for the hub")))
	if err != nil {
		t.Fatal(err)
	}
	before := a.counts.refusedRecords.Load()
	short, err := second.keys.Seal(forwardPlace("a"), []byte{4, 1, 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{sealed, nil, []byte("nonsense"), short, appendForwarded(nil, local, remote, []byte("not sealed"))} {
		if err := second.engine.Conn.Publish(subjectIKE+"a", b); err != nil {
			t.Fatal(err)
		}
	}
	a.eventually("refusing", func() bool { return a.counts.refusedRecords.Load() == before+5 })
	if len(a.ike.forwarded) != 1 {
		t.Errorf("%q", a.ike.forwarded)
	}

	direct := 0
	second.direct = func(node string, message []byte) bool { // a way without the store
		direct++
		if node == "a" {
			a.TakeDirect(message)
		}
		return node == "a"
	}
	a.ike.forwarded, hub.ike.forwarded = nil, nil
	if !second.Fleet().Forward(half, local, remote, []byte("directly")) || !second.Fleet().Forward(s.SPI, local, remote, []byte("by the store")) {
		t.Error("not forwarded")
	}
	got(hub, "192.0.2.1:4500 [2001:db8::2]:65535 by the store")
	got(a, "192.0.2.1:4500 [2001:db8::2]:65535 directly")
	if direct != 2 {
		t.Errorf("%d messages were tried without the store", direct)
	}
	a.TakeDirect([]byte{4, 1, 2})
	if a.counts.refusedRecords.Load() != before+6 || len(a.ike.forwarded) != 1 {
		t.Errorf("nonsense is taken: %q", a.ike.forwarded)
	}
}

// What is forwarded in a second is bounded.
func TestForwardIsBounded(t *testing.T) {
	var b bucket
	now, n := time.Now(), 0
	for i := range 10 * forwardRate { // in one second
		if b.allow(now.Add(time.Duration(i) * time.Second / (10 * forwardRate))) {
			n++
		}
	}
	if n < forwardRate || n > forwardRate+forwardBurst {
		t.Errorf("%d passed", n)
	}
}

// One node is the first for a name, and it stays the first when another comes or goes, unless it is that one.
func TestWinner(t *testing.T) {
	nodes := []string{"edge-1", "edge-2", "edge-3", "edge-4"}
	count := map[string]int{}
	for i := range 4000 {
		name := fmt.Sprintf("cust-%d", i)
		w := winner(nodes, name)
		count[w]++
		for _, gone := range nodes {
			rest := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return n == gone })
			slices.Reverse(rest)
			if now := winner(rest, name); gone != w && now != w {
				t.Fatalf("%s: %s in place of %s because %s is gone", name, now, w, gone)
			}
		}
	}
	for _, n := range nodes {
		if count[n] < 800 || count[n] > 1200 {
			t.Errorf("%s is the first for %d of 4000", n, count[n])
		}
	}
	if winner(nil, "x") != "" {
		t.Error("nobody is somebody")
	}
}

// All nodes make the same secrets, and each purpose others.
func TestCookieKeysAreShared(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	if k := hub.Fleet().CookieKeys(); len(k) == 0 || !slices.Equal(k, a.Fleet().CookieKeys()) || slices.Equal(k, hub.keys.Derive("something else")) {
		t.Error("cookies of one node are not those of the other")
	}
}

func TestIKEKey(t *testing.T) {
	for key, want := range map[string]bool{"0000000000000001": true, "ffffffffffffffff": true, "1": false, "000000000000000G": false, "FFFFFFFFFFFFFFFF": false, "00000000000000001": false, "": false} {
		if spi, err := parseIKEKey(key); (err == nil) != want || want && ikeKey(spi) != key {
			t.Errorf("%q: %x, %v", key, spi, err)
		}
	}
}

// FuzzForwarded: what is read is what was written.
func FuzzForwarded(f *testing.F) {
	f.Add(appendForwarded(nil, netip.MustParseAddrPort("192.0.2.1:500"), netip.MustParseAddrPort("198.51.100.1:500"), []byte("text")))
	f.Add(appendForwarded(nil, netip.MustParseAddrPort("[2001:db8::1]:4500"), netip.MustParseAddrPort("[fe80::1%eth0]:1"), nil))
	f.Add([]byte{})
	f.Add([]byte{0, 0})
	f.Add([]byte{6, 1, 2, 3, 4, 5, 6, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		local, remote, datagram, err := parseForwarded(b)
		if err != nil {
			return
		}
		if again := appendForwarded(nil, local, remote, datagram); !bytes.Equal(again, b) {
			t.Fatalf("%x is written as %x", b, again)
		}
	})
}

// FuzzIKERecord: what is not of this version is not read, and nothing panics.
func FuzzIKERecord(f *testing.F) {
	for _, text := range []string{`{"v":1,"serial":1,"node":"a","w":7,"tunnel":"cust-a","established":1,"state":{"Keys":{}}}`, `{"v":2}`, `{}`, ``, `{"v":1,"state":null}`, `{"v":1,"node":5}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseIKERecord(b); err == nil && r.Version != ikeVersion {
			t.Fatalf("%q is read", b)
		}
	})
}
