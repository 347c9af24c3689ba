package cluster

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A beat says that a node lives if it is newer than all that was heard of this start of it, and nothing else does.
func TestBeat(t *testing.T) {
	now := time.Now()
	fresh := func() (*Cluster, *lease) {
		c := speaker("hub", oneKey())
		c.opens = true
		l := c.heardSay(&Member{Name: "a", Started: 7, Beat: 100, Beats: true, Hears: true}, nil)
		c.leases = map[string]*lease{"a": l}
		s := *l.sign.Load()
		s.heard = now.Add(-time.Hour) // its lease is over
		l.sign.Store(&s)
		return c, l
	}
	for name, x := range map[string]struct {
		beats []beat
		lives bool
	}{
		"the next one":              {[]beat{{node: "a", started: 7, number: 101}}, true},
		"a later one":               {[]beat{{node: "a", started: 7, number: 1 << 60}}, true},
		"that of the record":        {[]beat{{node: "a", started: 7, number: 100}}, false},
		"one from before":           {[]beat{{node: "a", started: 7, number: 99}}, false},
		"of another node":           {[]beat{{node: "b", started: 7, number: 101}}, false},
		"of a start before":         {[]beat{{node: "a", started: 6, number: 101}}, false},
		"of a start without record": {[]beat{{node: "a", started: 8, number: 101}}, false},
	} {
		c, l := fresh()
		for _, b := range x.beats {
			c.takeBeat(&b, now)
		}
		if l.live(now) != x.lives {
			t.Errorf("%s: it lives %v, want %v", name, !x.lives, x.lives)
		}
	}
	c, l := fresh()
	c.takeBeat(&beat{node: "a", started: 7, number: 120, sas: 5, digest: 9}, now)
	if s := l.sign.Load(); s.sas != 5 || s.digest != digestText(9) {
		t.Errorf("it has %d children, digest %s", s.sas, s.digest)
	}
	later := now.Add(time.Hour)
	for n := range uint64(121) { // all that were ever told, once more
		c.takeBeat(&beat{node: "a", started: 7, number: n}, later)
	}
	if l.live(later) {
		t.Error("an old beat has revived it")
	}
	if l.sign.Load().told != now {
		t.Error("an old beat says that beats come")
	}
	l.gone.Store(true)
	c.takeBeat(&beat{node: "a", started: 7, number: 120}, now)
	if !l.gone.Load() {
		t.Error("a beat from before it was found gone has revived it")
	}
	c.takeBeat(&beat{node: "a", started: 7, number: 121}, now)
	if l.gone.Load() || !l.live(now) {
		t.Error("it is gone, and has said since that it lives")
	}
}

// A record is a sign of life only if no beat has said more.
func TestRecordAfterBeats(t *testing.T) {
	c := speaker("hub", oneKey())
	c.opens = true
	record := func(number uint64) *Member {
		return &Member{Name: "a", Started: 7, Beat: number, Beats: true, Hears: true}
	}
	old := c.heardSay(record(100), nil)
	c.leases = map[string]*lease{"a": old}
	c.takeBeat(&beat{node: "a", started: 7, number: 110}, time.Now().Add(-time.Hour))
	for _, number := range []uint64{101, 109, 110} {
		l := c.heardSay(record(number), old)
		if l.live(time.Now()) || l.sign.Load().number != 110 || l.member.Beat != number {
			t.Errorf("record %d revives a node that was heard until beat 110", number)
		}
	}
	old.gone.Store(true)
	if l := c.heardSay(record(110), old); !l.gone.Load() {
		t.Error("a node is not gone any more by a record of before")
	}
	if l := c.heardSay(record(111), old); l.gone.Load() || !l.live(time.Now()) {
		t.Error("a record that says more than all before does not say that the node lives")
	}
	// Another session reads what the store has had for long.
	c.members, c.leases = c.leases, map[string]*lease{}
	l := c.heardSay(record(100), nil)
	c.leases["a"] = l
	was := l.sign.Load().heard
	for n := range uint64(111) {
		c.takeBeat(&beat{node: "a", started: 7, number: n}, time.Now())
	}
	if l.sign.Load().heard != was {
		t.Error("in the next session old beats revive it")
	}
	if c.takeBeat(&beat{node: "a", started: 7, number: 111}, time.Now()); l.sign.Load().heard == was {
		t.Error("in the next session beats are not heard")
	}
}

// A node that does not hear somebody says so, and one that is not heard by somebody writes its record each second.
func TestWhoNeedsRecords(t *testing.T) {
	c := speaker("hub", oneKey())
	c.opens = true
	s := &session{membersRead: true}
	c.leases = map[string]*lease{}
	put := func(name string, m Member, quiet, told time.Duration) {
		now := time.Now()
		c.leases[name] = newLease(&m, &sign{heard: now.Add(-quiet), patience: leaseTime, told: now.Add(-told)})
	}
	check := func(what string, hears, needs bool) {
		t.Helper()
		if got := c.misses(); (len(got) == 0) != hears || c.needsRecords(s) != needs {
			t.Errorf("%s: it misses %v, records are needed %v, want %v, %v", what, got, !needs, hears, needs)
		}
	}
	now := Member{Beats: true, Hears: true}
	check("alone", true, false)
	put("a", now, 0, beatTime)
	check("all tell and hear", true, false)
	put("b", Member{}, 0, time.Hour)
	check("one of a release before", true, true)
	put("b", Member{}, 2*leaseTime, time.Hour)
	check("that is gone", true, false)
	put("b", Member{Beats: true, Hears: true, Misses: []string{"a", "hub"}}, 0, 0)
	check("one that does not hear this one", true, true)
	put("b", Member{Beats: true, Hears: true, Misses: []string{"a"}}, 0, 0)
	check("one that does not hear another one", true, false)
	put("b", now, 0, beatPatience+time.Second/2)
	check("one that is not heard", false, false)
	put("b", now, 2*leaseTime, 2*leaseTime)
	check("that is gone", true, false)
	put("b", Member{Hears: true}, 0, time.Hour)
	check("one without a key", true, false)
	s.membersRead = false
	check("not all are known", true, true)
}

// A node without the key of the epoch waits longer for those that it hears by their records alone, and no longer when it has it.
func TestLongLease(t *testing.T) {
	c := speaker("hub", oneKey())
	m := &Member{Name: "a", Started: 7, Beat: 1, Beats: true, Hears: true}
	l := c.heardSay(m, nil)
	dead := newLease(m, &sign{heard: time.Now().Add(-longLease), patience: longLease})
	former := c.heardSay(&Member{Name: "p"}, nil)
	c.leases = map[string]*lease{"a": l, "dead": dead, "p": former}
	soon, late := time.Now().Add(leaseTime+time.Second), time.Now().Add(longLease+time.Second)
	if !l.live(soon) || l.live(late) || former.live(soon) {
		t.Errorf("without a key: lives %v and %v, and one that tells no beats %v", l.live(soon), l.live(late), former.live(soon))
	}
	c.noteKey(true)
	if !l.live(time.Now()) || l.live(soon.Add(time.Second)) || dead.live(time.Now()) {
		t.Error("with a key it waits as long")
	}
	c.noteKey(false)
	if !l.live(soon) || dead.live(time.Now()) {
		t.Error("without the key of the next epoch it does not wait longer")
	}
	if longLease >= orphanAfter {
		t.Error("who has the key is waited for less long than for its record")
	}
}

// Nodes at rest write few records, and live.
func TestRecordsAreFew(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "z")
	nodes := []*node{b.start("hub").joined(), b.start("a").joined(), b.start("z").joined()}
	for _, n := range nodes {
		n.sees(2)
	}
	time.Sleep(2 * beatTime)
	began, from := time.Now(), nodes[0].changes(bucketNodes)
	for time.Since(began) < 5*beatTime {
		for _, n := range nodes {
			if len(n.others()) != 2 || len(n.misses()) > 0 {
				t.Fatalf("%s hears of %d others", n.name, len(n.others()))
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	if wrote := nodes[0].changes(bucketNodes) - from; wrote > 3 {
		t.Errorf("%d records in %v", wrote, time.Since(began))
	}
	k := nodes[1].install()
	nodes[2].eventually("seeing that all have the child", func() bool {
		for _, v := range nodes[2].Nodes() {
			if v.SAs != 1 || !v.Agrees {
				return false
			}
		}
		return nodes[2].plane.child(k.SPIIn) != nil
	})
}

// changes is how often a bucket was written to.
func (n *node) changes(bucket string) uint64 {
	n.t.Helper()
	stream, err := n.engine.Store.Stream(n.t.Context(), "KV_"+bucket)
	if err != nil {
		n.t.Fatal(err)
	}
	return stream.CachedInfo().State.LastSeq
}

// A node that tells and hears no beats, as one of a release before, lives with those that do; and so do nodes to which the beats of one do
// not come.
func TestBeatsDoNotCome(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "z")
	nodes := []*node{b.start("hub").joined(), b.start("a").joined(), b.prepare("z")}
	hub, z := nodes[0], nodes[2]
	z.records.Store(true)
	z.run().joined()
	live := func(what string) {
		t.Helper()
		for _, n := range nodes {
			n.sees(2)
		}
		for end := time.Now().Add(leaseTime + 3*beatTime); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			for _, n := range nodes {
				if len(n.others()) != 2 {
					t.Fatalf("%s: %s sees %v", what, n.name, n.others())
				}
			}
		}
	}
	live("one without beats")
	z.records.Store(false)
	hub.eventually("hearing beats", func() bool { return hub.memberOf("z").Beats && hub.memberOf("z").Hears })
	hub.mu.Lock()
	deaf := *hub.members["z"].sign.Load()
	deaf.toldBeat = 1 << 62 // it takes no beat of z any more
	hub.members["z"].sign.Store(&deaf)
	hub.mu.Unlock()
	live("one is not heard by another one")
	if m := z.memberOf("hub").Misses; !slices.Equal(m, []string{"z"}) || len(z.memberOf("a").Misses) > 0 {
		t.Errorf("the hub misses %v, a %v", m, z.memberOf("a").Misses)
	}
}

// memberOf is what a node has read of another.
func (n *node) memberOf(name string) Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.members[name]; l != nil {
		return *l.member
	}
	return Member{}
}

// FuzzBeat: what is read is what would be written, and what follows is a later release's.
func FuzzBeat(f *testing.F) {
	for _, b := range []beat{{"a", 1, 2, 3, 4}, {"edge-1", -1, 1<<64 - 1, 1<<32 - 1, 1<<64 - 1}} {
		f.Add(b.marshal())
		f.Add(append(b.marshal(), "later"...))
		f.Add(b.marshal()[1:])
	}
	f.Add([]byte{})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := parseBeat(text)
		if err != nil {
			return
		}
		if again := b.marshal(); len(b.node) == 0 || len(again) > len(text) || fmt.Sprintf("%x", again) != fmt.Sprintf("%x", text[:len(again)]) {
			t.Fatalf("%x is %+v, which is written as %x", text, b, again)
		}
	})
}

// The time for leases stands still while nothing comes back, and does not jump when something does.
func TestTimeStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := speaker("hub", oneKey())
		begin := c.now()
		check := func(what string, want time.Duration) {
			t.Helper()
			if got := c.now().Sub(begin); got != want {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		c.echoes(time.Now())
		time.Sleep(beatTime)
		check("a second later", beatTime)
		c.echoes(time.Now())
		time.Sleep(time.Minute)
		check("nothing comes back", beatTime+echoTime)
		sent := time.Now()
		time.Sleep(beatTime / 2)
		c.echoes(sent)
		check("something does", beatTime+echoTime)
		time.Sleep(beatTime / 2)
		check("it goes on", beatTime+echoTime+beatTime/2)
		c.echoes(sent.Add(-time.Second)) // an older one, late
		check("an older one comes", beatTime+echoTime+beatTime/2)
	})
}
