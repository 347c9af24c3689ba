package cluster

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"causeway/control/cluster/seal"
)

// A node's record (member.go) is long, signed, and read by all. So it is written when what it says changes, and each recordTime, and a beat
// is told each beatTime: a few bytes, sealed, which no disk has. Each second all the same:
//
//   - the node stores something, its record or, where nobody but itself reads it, a proof. What it tells after that says that it could: a node
//     that cannot is taken for gone. And while it cannot, nothing says that the others could reach it: it takes nobody for gone.
//   - a record is written while there is a node that has no other way to hear: one of a release before there were beats, or one to which the
//     beats of this node do not come (Member.Misses).
//
// Who has no key of the epoch cannot hear beats, and writes its record each second. It waits for those of others longer.

const (
	recordTime   = 10 * time.Second
	beatPatience = 2 * time.Second        // after which a beat that did not come is asked for as a record: it has to come before leaseTime is over
	longLease    = recordTime + leaseTime // of nodes whose beats this one cannot hear; less than orphanAfter
)

const subjectBeats = "causeway.beats"

// A beat says that a node lives, and what of it changes often.
type beat struct {
	node    string
	started int64
	number  uint64 // see Member.Beat
	sas     uint32
	digest  uint64
}

// beatLen is what follows the name: started, number, sas and digest, big endian. Later releases add to it.
const beatLen = 8 + 8 + 4 + 8

func (b *beat) marshal() []byte {
	out := append([]byte{byte(len(b.node))}, b.node...)
	out = binary.BigEndian.AppendUint64(out, uint64(b.started))
	out = binary.BigEndian.AppendUint64(out, b.number)
	out = binary.BigEndian.AppendUint32(out, b.sas)
	return binary.BigEndian.AppendUint64(out, b.digest)
}

func parseBeat(b []byte) (*beat, error) {
	if len(b) < 1 || b[0] == 0 || len(b) < 1+int(b[0])+beatLen {
		return nil, errors.New("a beat that is told is none")
	}
	name, b := string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	return &beat{name, int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint64(b[20:])}, nil
}

// A sign is one of life.
type sign struct {
	heard    time.Time
	patience time.Duration // how long the node lives for it
	number   uint64
	told     time.Time // when a beat came the last time, or began to be waited for
	toldBeat uint64    // its number
	sas      int
	digest   string
	read     bool // it stood in the store when this session began: the node may not be there yet, or not any more
}

// saidBy is the sign that a record is. old is what was known of the node, if there was anything. It is called with the lock held.
func (c *Cluster) saidBy(m *Member, old *lease) *sign {
	now := c.now()
	n := &sign{heard: now, patience: c.patience(m), number: m.Beat, told: now, toldBeat: m.Beat, sas: m.SAs, digest: m.Digest}
	if old == nil || old.member.Started != m.Started {
		return n
	}
	was := old.sign.Load()
	if was.number >= m.Beat { // a beat was faster, or this was said before
		n = new(*was)
	}
	if old.member.Beats {
		n.told, n.toldBeat = was.told, was.toldBeat
	}
	return n
}

// patience is how long a node lives that was heard now. It is called with the lock held.
func (c *Cluster) patience(m *Member) time.Duration {
	if m.Beats && !c.opens {
		return longLease
	}
	return leaseTime
}

// heardBeat hears a beat. Who has not got the key of a new epoch yet cannot open it: that is known without words.
func (c *Cluster) heardBeat(m *nats.Msg) {
	if c.records.Load() {
		return
	}
	text, err := c.keys.Open(subjectBeats, m.Data)
	if errors.As(err, &seal.EpochError{}) {
		return
	}
	var b *beat
	if err == nil {
		b, err = parseBeat(text)
	}
	if err != nil {
		c.complain(err)
		return
	}
	c.takeBeat(b, c.now())
}

// takeBeat notes that a node lives whose record is known. What was told before, or before something that is known by now, says nothing.
func (c *Cluster) takeBeat(b *beat, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.leases[b.node]
	if l == nil || l.member.Started != b.started {
		return
	}
	n := new(*l.sign.Load())
	if b.number <= n.toldBeat {
		return
	}
	n.told, n.toldBeat = now, b.number
	if b.number > n.number {
		n.heard, n.patience, n.number, n.sas, n.digest, n.read = now, leaseTime, b.number, int(b.sas), digestText(b.digest), false
		l.gone.Store(false)
	}
	l.sign.Store(n)
}

// noteKey notes whether this node can hear beats: that needs the key of the current epoch. Whom it has heard otherwise lives on from now as
// its signs come.
func (c *Cluster) noteKey(opens bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opens == opens {
		return
	}
	c.opens = opens
	for _, l := range c.leases {
		if l.member.Beats && l.live(now) {
			n := new(*l.sign.Load())
			n.heard, n.told, n.patience = now, now, c.patience(l.member)
			l.sign.Store(n)
		}
	}
}

// misses are the nodes that live and whose beats do not come. Who cannot open beats does not wait for any.
func (c *Cluster) misses() (names []string) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.leases {
		if c.opens && !c.records.Load() && l.member.Beats && l.live(now) && now.Sub(l.sign.Load().told) > beatPatience {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// maxMisses bounds the nodes that a record names: who misses more is said to hear none.
const maxMisses = 16

// needsRecords reports whether there is a node that lives and does not hear this one's beats, or whether that is not known yet.
func (c *Cluster) needsRecords(s *session) bool {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.leases {
		if (!l.member.Hears || slices.Contains(l.member.Misses, c.opts.Member.Name)) && l.live(now) {
			return true
		}
	}
	return !s.membersRead
}

// beats reports whether this node tells beats.
func (c *Cluster) beats() bool { return !c.records.Load() && c.keys.Current() != 0 }

// tellBeat tells all nodes that this one lives.
func (c *Cluster) tellBeat(m *Member) {
	digest, err := hex.DecodeString(m.Digest)
	if err != nil || !m.Beats {
		return
	}
	b := beat{m.Name, m.Started, m.Beat, uint32(m.SAs), binary.BigEndian.Uint64(digest)}
	_ = c.say(subjectBeats, subjectBeats, b.marshal()) // the next one comes; else the record is asked for
}

// recordDue reports whether this node's record is to be written, and notes what it says.
func (s *session) recordDue(m *Member, why string, each bool) bool {
	stays := *m
	stays.Beat, stays.SAs, stays.Digest, stays.Runs.Why = 0, 0, "", []byte(why) // which is sealed anew each time
	text, err := json.Marshal(&stays)
	same := err == nil && string(text) == s.record
	s.record = string(text)
	return each || !same || s.beaten.Sub(s.recorded) >= recordTime
}

// prove stores that this node lives where nobody else reads it.
func (c *Cluster) prove(ctx context.Context, s *session) error {
	ctx, cancel := within(ctx)
	defer cancel()
	revision, err := s.buckets.meta.Put(ctx, aliveKey(c.opts.Member.Name), binary.BigEndian.AppendUint64(nil, c.beat))
	if err != nil {
		return fmt.Errorf("the store does not take that this node lives: %w", err)
	}
	if revision <= c.proved { // a copy was put back while this node was joined
		return c.isOlder(s.buckets, bucketMeta, revision, c.proved)
	}
	c.proved = revision
	return nil
}

// aliveKey is where a node proves that it lives, in the bucket that nobody watches.
func aliveKey(node string) string { return "alive/" + node }
