package cluster

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/cluster/seal"
)

// memberVersion is the version of Member that this release writes. Later ones add fields.
const memberVersion = 1

// A Member is what a node says of itself, signed by it. It is not sealed: who has no key yet has to say it.
type Member struct {
	Version    int         `json:"version"`
	Name       string      `json:"name"`
	Public     seal.Public `json:"public"`
	Address    netip.Addr  `json:"address"`
	Datacenter string      `json:"datacenter,omitempty"`
	Region     string      `json:"region,omitempty"`
	Release    string      `json:"release,omitempty"`
	Writer     uint32      `json:"writer"`                 // of this start of it
	Epoch      uint32      `json:"epoch"`                  // the newest of which it has the key
	Oldest     uint32      `json:"oldest_epoch,omitempty"` // and the oldest; 0: a release that did not say it, or none
	NotReady   []string    `json:"not_ready,omitempty"`
	SAs        int         `json:"sas"`     // how many it has
	Digest     string      `json:"digest"`  // of them
	Started    int64       `json:"started"` // this start of it, in nanoseconds of its clock
	Beat       uint64      `json:"beat"`
	Leaving    bool        `json:"leaving,omitempty"` // it stops: it does nothing any more
	Keyed      []uint32    `json:"keyed,omitempty"`   // processes from which it takes what they forward
	KeyedEpoch uint32      `json:"keyed_epoch"`       // under keys of this epoch, and of those before
	Yields     Precedence  `json:"yields,omitempty"`  // who comes before it
	Runs       runsRecord  `json:"runs"`              // which configuration of the fleet it works with
	Messages   bool        `json:"messages"`          // it takes messages from where it takes what is forwarded
	Beats      bool        `json:"beats"`             // it tells beats: this record is written when it changes, and now and then
	Hears      bool        `json:"hears"`             // beats come to it: it needs no records each second
	Misses     []string    `json:"misses,omitempty"`  // but of these nodes, whose beats do not come although they live
}

// A Precedence says which nodes take IKE SAs and tunnels that others leave: those with the lowest one.
type Precedence uint8

// The precedences.
const (
	First      Precedence = iota
	StoreAlone            // it is the hub, and no other one has the store: when it dies nobody could take over what it has
	Draining
)

// sign is the record as it is published: the signature, 64 bytes, and the text. The text is signed as it stands, so that the fields of
// a later release, which this one does not know, are signed too.
func (m *Member) sign(i *seal.Identity) []byte {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // numbers, strings and addresses
	}
	return append(i.Sign("member", text), text...)
}

// maxMember bounds a record: keys and reasons.
const maxMember = 16 << 10

// parseMember reads the record of a node that is admitted.
func parseMember(name string, b []byte, roster seal.Roster) (*Member, error) {
	if len(b) < ed25519.SignatureSize || len(b) > maxMember {
		return nil, fmt.Errorf("its record has %d bytes", len(b))
	}
	signature, text := b[:ed25519.SignatureSize], b[ed25519.SignatureSize:]
	m := new(Member)
	if err := json.Unmarshal(text, m); err != nil || m.Version < 1 {
		return nil, errors.New("its record is none")
	}
	switch {
	case m.Name != name || !roster.Admits(name, m.Public):
		return nil, fmt.Errorf("its identity %s is not that of this name in the roster, or its record is another's", m.Public.Fingerprint())
	case !m.Public.Verify("member", text, signature):
		return nil, errors.New("its record is not signed by it")
	}
	return m, nil
}

// A lease is what a node has said of itself, and how long ago it was heard, by our own clock alone.
type lease struct {
	member *Member              // as its record was
	sign   atomic.Pointer[sign] // the newest: any goroutine may hear one, with the lock held
	gone   atomic.Bool          // another node has found that its process is: likewise
}

func newLease(m *Member, s *sign) *lease {
	l := &lease{member: m}
	l.sign.Store(s)
	return l
}

// Leases: a node says that it lives each beatTime (beat.go), and is taken for dead when it has said nothing for leaseTime.
const (
	beatTime  = time.Second
	leaseTime = 3 * time.Second
)

func (l *lease) live(now time.Time) bool {
	s := l.sign.Load()
	return now.Sub(s.heard) < s.patience && !l.gone.Load() && !l.member.Leaving
}

// echoTime is how long this node's own signs of life may take to come back to it: the store says that it has them, or, while records are
// what others are heard by, the watch has them too. As long as they do not, those of others would not come either: nobody grows older.
const echoTime = 3 * beatTime / 2

// now is the time for leases. It stands still from echoTime after the last sign of life that came back was sent, and goes on from there when
// the next one does: what others have said meanwhile comes about then, and may come after it.
func (c *Cluster) now() time.Time {
	now := time.Now()
	if echo := c.echo.Load(); echo != nil && now.Sub(*echo) > echoTime {
		now = echo.Add(echoTime)
	}
	return now.Add(-time.Duration(c.stood.Load()))
}

// echoes notes that a sign of life came back that was given at a time.
func (c *Cluster) echoes(sent time.Time) {
	last := c.echo.Load()
	if last != nil && !last.Before(sent) {
		return
	}
	if last != nil {
		c.stood.Add(int64(max(0, time.Since(*last)-echoTime)))
	}
	c.echo.Store(&sent)
}

// beatDue reports whether this node is to say that it lives: it is time, or the others have to know that it does not hear somebody, or
// somebody needs its record.
func (c *Cluster) beatDue(s *session, now time.Time) bool {
	return now.Sub(s.beaten) >= beatTime || now.Sub(s.recorded) >= beatTime && c.needsRecords(s) || !slices.Equal(c.misses(), s.misses)
}

// sayBeat tells all nodes that this one lives, and how it is: first the store, and then the others.
func (c *Cluster) sayBeat(ctx context.Context, s *session) error {
	c.beat++
	s.beaten, s.misses = time.Now(), c.misses()
	each := c.needsRecords(s) || !c.beats()
	m, why := c.self(s)
	store := c.prove
	if s.recordDue(m, why, each) {
		store = func(ctx context.Context, s *session) error { return c.sayRecord(ctx, s, m) }
	}
	if err := store(ctx, s); err != nil {
		return err
	}
	if !each {
		c.echoes(s.beaten)
	}
	c.tellBeat(m)
	return nil
}

// self is what this node says of itself now, and why it does not work with the fleet's configuration, which is sealed in it.
func (c *Cluster) self(s *session) (m *Member, why string) {
	m = new(c.opts.Member)
	m.Started, m.Beat, m.Epoch, m.Oldest, m.Beats = c.started.Load(), c.beat, c.keys.Newest(), c.keys.Oldest(), c.beats()
	m.Hears, m.Misses = !c.records.Load() && len(s.misses) <= maxMisses, s.misses[:min(len(s.misses), maxMisses)]
	if c.opts.NotReady != nil {
		m.NotReady = c.opts.NotReady()
	}
	c.mu.Lock()
	m.Writer, m.SAs, m.Digest, m.Leaving, m.Yields = c.writer.ID, c.children, digestText(c.digest), c.leaving, c.yields
	m.Keyed, m.KeyedEpoch = slices.Clone(c.keyed), c.keyedEpoch
	m.Runs, why = c.sealRuns(), c.runs.Why
	c.mu.Unlock()
	return m, why
}

// sayRecord writes this node's record.
func (c *Cluster) sayRecord(ctx context.Context, s *session, m *Member) error {
	s.recorded, s.asked = s.beaten, c.clock.now()
	ctx, cancel := within(ctx)
	defer cancel()
	revision, err := s.buckets.nodes.Put(ctx, m.Name, m.sign(c.opts.Identity))
	if err != nil {
		return fmt.Errorf("the store does not take this node's record: %w", err)
	}
	if revision <= c.said { // a copy was put back while this node was joined
		return c.isOlder(s.buckets, bucketNodes, revision, c.said)
	}
	c.said, s.answered = revision, c.clock.now()
	return nil
}

// stillHere says that this node lives, while Run's goroutine is at something long: others would take it for gone.
func (c *Cluster) stillHere(ctx context.Context, s *session) error {
	if time.Since(s.beaten) < beatTime {
		return nil
	}
	return c.sayBeat(ctx, s)
}

// takeMember takes over what a node says of itself. A nil value says that all that there is has been seen.
func (c *Cluster) takeMember(s *session, v jetstream.KeyValueEntry) {
	if v == nil {
		s.membersRead = true
		return
	}
	name := v.Key()
	if name == c.opts.Member.Name {
		if v.Revision() == c.said { // the last one, and as old as it is: those of others are read after it
			c.echoes(s.recorded)
			c.noteClock(s, v.Created())
		} else if v.Operation() == jetstream.KeyValuePut {
			c.noteUsurper(v)
		}
		return
	}
	if v.Operation() != jetstream.KeyValuePut {
		c.mu.Lock()
		delete(s.members, name)
		c.mu.Unlock()
		return
	}
	m, err := parseMember(name, v.Value(), c.admitted())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.refuse(name, err.Error())
		return
	}
	delete(c.refused, name)
	old := s.members[name]
	if old != nil && (m.Started < old.member.Started || m.Started == old.member.Started && m.Beat <= old.member.Beat) {
		return // said before
	}
	l := c.heardSay(m, old)
	l.sign.Load().read = !s.membersRead
	s.members[name] = l
}

// supersede has this process come after the one that was this node before, also if the clock was set back since: of two the others believe
// the one that has started later.
func (c *Cluster) supersede(ctx context.Context, b *buckets) error {
	ctx, done := within(ctx)
	defer done()
	v, err := b.nodes.Get(ctx, c.opts.Member.Name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading this node's record: %w", err)
	}
	if m, err := parseMember(c.opts.Member.Name, v.Value(), c.admitted()); err == nil && m.Started >= c.started.Load() {
		c.started.Store(m.Started + 1)
	}
	return nil
}

// noteUsurper takes a record of this node's that this process has not written. Another one with the same identity has started later: a copy of
// the machine, or of its state directory. The others believe that one.
func (c *Cluster) noteUsurper(v jetstream.KeyValueEntry) {
	m, err := parseMember(c.opts.Member.Name, v.Value(), c.admitted())
	if err != nil || m.Started <= c.started.Load() {
		return
	}
	c.mu.Lock()
	known := c.usurper != nil && c.usurper.Started == m.Started
	c.usurper = m
	c.mu.Unlock()
	if !known {
		c.log.Error("cluster: " + m.usurps())
	}
}

func (m *Member) usurps() string {
	return fmt.Sprintf("another process has started with this node's name and identity, at %v, and the others believe that one: is it a copy of this machine? stop it, make an identity of its own for it, and restart this node", m.Address)
}

// heardSay is what is known of a node by its record, which is newer than the one before, if there was one. It is called with the lock held.
func (c *Cluster) heardSay(m *Member, old *lease) *lease {
	if before := c.members[m.Name]; old == nil && before != nil && before.member.Started == m.Started { // of the session before
		n := c.saidBy(m, nil)
		n.number = max(n.number, before.sign.Load().number)
		n.toldBeat = n.number
		return newLease(m, n)
	}
	l := newLease(m, c.saidBy(m, old))
	if old != nil && old.member.Started == m.Started && old.sign.Load().number >= m.Beat { // it says no more than a beat did
		l.gone.Store(old.gone.Load())
	}
	return l
}

// maxRefused bounds the nodes that are remembered as not believed: whoever can write to the store can make up names.
const maxRefused = 256

// refuse notes that a node is not believed. It is called with the lock held.
func (c *Cluster) refuse(name, why string) {
	before, known := c.refused[name]
	if !known && len(c.refused) >= maxRefused {
		return
	}
	if before != why {
		c.log.Warn("cluster: a node is not believed", "node", name, "why", why)
	}
	c.refused[name] = why
}

// others are the nodes that live, without this one.
func (c *Cluster) others() map[string]bool {
	now := c.now()
	out := map[string]bool{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.members {
		if l.live(now) {
			out[name] = true
		}
	}
	return out
}

func keysOf(m map[string]bool) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
