package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/cluster/seal"
	"causeway/control/ike"
)

// ikeVersion is the version of ikeRecord that this release writes. Later ones add fields.
const ikeVersion = 1

// An ikeRecord is an IKE SA as it stands in the store, under our SPI. It holds keys, and is never stored unsealed.
type ikeRecord struct {
	Version     int             `json:"v"`
	Serial      uint64          `json:"serial"` // how often the SA was written: a store that has less is older than it was
	Node        string          `json:"node"`   // which has it
	Writer      uint32          `json:"w"`      // which start of it
	Tunnel      string          `json:"tunnel"`
	Established int64           `json:"established"` // nanoseconds of Unix time
	State       json.RawMessage `json:"state"`       // of package ike
}

// Format hides the keys.
func (r ikeRecord) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "IKE SA of tunnel %s, %d times written, at %s", r.Tunnel, r.Serial, r.Node)
}

func parseIKERecord(b []byte) (*ikeRecord, error) {
	r := new(ikeRecord)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, errors.New("record of an IKE SA: it is none")
	}
	if r.Version != ikeVersion {
		return nil, fmt.Errorf("record of an IKE SA: version %d, this release reads %d", r.Version, ikeVersion)
	}
	return r, nil
}

// ikeKey is the key of an IKE SA's record.
func ikeKey(spi uint64) string { return fmt.Sprintf("%016x", spi) }

func parseIKEKey(key string) (spi uint64, err error) {
	if n, err := fmt.Sscanf(key, "%016x", &spi); n != 1 || err != nil || ikeKey(spi) != key {
		return 0, fmt.Errorf("%q is no SPI of an IKE SA", key)
	}
	return spi, nil
}

// A process is one start of a node.
type process struct {
	node   string
	writer uint32
}

// An ikeSA is what a node knows of an IKE SA in the store.
type ikeSA struct {
	revision    uint64
	serial      uint64
	by          process // which has it
	tunnel      string
	established int64
	sealed      []byte
	erasing     bool      // this node has ended it
	again       time.Time // when taking it over is tried again
}

// A Negotiator is the part of IKE that is told what other nodes do.
type Negotiator interface {
	// Taken says that the store has an SA of another node's, or has it no more.
	Taken(spi uint64, why string)
	// TakeOver goes on with an SA whose node is gone.
	TakeOver(spi uint64) error
	// StoreAgain writes an SA of this node's anew.
	StoreAgain(spi uint64)
	forwardee
}

// nobody negotiates.
type nobody struct{ forwardee }

func (nobody) Taken(uint64, string)  {}
func (nobody) TakeOver(uint64) error { return nil }
func (nobody) StoreAgain(uint64)     {}

// SetNegotiator says who negotiates on this node. It is called once, before Run.
func (c *Cluster) SetNegotiator(n Negotiator) { c.ike = n }

// Fleet is the cluster for IKE.
func (c *Cluster) Fleet() ike.Fleet { return fleet{c} }

type fleet struct{ *Cluster }

// setIKE notes what is known of an IKE SA; nil: it is gone. It is called with the lock held.
func (c *Cluster) setIKE(spi uint64, n *ikeSA) {
	if old := c.ikes[spi]; old != nil {
		c.ikesBy[old.by] = without(c.ikesBy[old.by], spi)
		if len(c.ikesBy[old.by]) == 0 {
			delete(c.ikesBy, old.by)
		}
		c.ikesOf[old.tunnel] = without(c.ikesOf[old.tunnel], spi)
		if len(c.ikesOf[old.tunnel]) == 0 {
			delete(c.ikesOf, old.tunnel)
		}
		delete(c.ikes, spi)
	}
	if n == nil {
		return
	}
	c.ikes[spi] = n
	c.ikesBy[n.by] = with(c.ikesBy[n.by], spi)
	c.ikesOf[n.tunnel] = with(c.ikesOf[n.tunnel], spi)
}

type spiSet map[uint64]struct{}

func with(s spiSet, spi uint64) spiSet {
	if s == nil {
		s = spiSet{}
	}
	s[spi] = struct{}{}
	return s
}

func without(s spiSet, spi uint64) spiSet {
	delete(s, spi)
	return s
}

// where says who has an IKE SA. It is called with the lock held.
func (c *Cluster) where(by process) ike.Where {
	if by == c.own() {
		return ike.Here
	}
	l := c.members[by.node]
	switch {
	case c.trouble != "": // nobody is heard, so nobody is known to be gone
		return ike.There
	case l != nil && l.live(c.now()) && l.member.Writer == by.writer:
		return ike.There
	case l == nil && time.Since(c.joined) < leaseTime && by.node != c.opts.Member.Name: // it may not have been heard yet
		return ike.There
	}
	return ike.Vacant
}

// own is this process. It is called with the lock held.
func (c *Cluster) own() process { return process{c.opts.Member.Name, c.writer.ID} }

// known is what is known of an SA, for package ike. It is called with the lock held.
func (c *Cluster) known(spi uint64) ike.Stored {
	e := c.ikes[spi]
	if e == nil || e.erasing {
		return ike.Stored{SPI: spi}
	}
	return ike.Stored{SPI: spi, Tunnel: e.tunnel, Established: c.clock.toOwn(time.Unix(0, e.established)), Revision: e.revision, Where: c.where(e.by), Node: e.by.node}
}

// Find: see ike.Fleet.
func (f fleet) Find(spi uint64) ike.Stored {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known(spi)
}

// Load: see ike.Fleet.
func (f fleet) Load(spi uint64) (ike.Stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.known(spi)
	if s.Where == ike.Nowhere {
		return s, fmt.Errorf("IKE SA %016x is not in the store", spi)
	}
	r, err := f.openIKE(spi, f.ikes[spi].sealed)
	if err != nil {
		return s, err
	}
	s.State = r.State
	return s, nil
}

// Of: see ike.Fleet.
func (f fleet) Of(tunnel string) (list []ike.Stored) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for spi := range f.ikesOf[tunnel] {
		if s := f.known(spi); s.Where == ike.There || s.Where == ike.Vacant {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b ike.Stored) int { return a.Established.Compare(b.Established) })
	return list
}

// Reached: see ike.Fleet.
func (f fleet) Reached() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble == ""
}

func (c *Cluster) openIKE(spi uint64, sealed []byte) (*ikeRecord, error) {
	text, err := c.keys.Open(place(bucketIKEs, ikeKey(spi)), sealed)
	if err != nil {
		return nil, fmt.Errorf("IKE SA %016x: %w", spi, err)
	}
	defer clear(text)
	return parseIKERecord(text)
}

// Write: see ike.Fleet.
func (f fleet) Write(s ike.Stored, revision uint64, done func(uint64, error)) {
	go func() {
		defer clear(s.State)
		done(f.writeIKE(&s, revision))
	}()
}

// writeIKE stores an SA of ours. What the store has instead of what we know decides: an answer of its that was lost, or a store that is
// older than it was, is written over; another node's is not.
func (c *Cluster) writeIKE(s *ike.Stored, revision uint64) (uint64, error) {
	c.mu.Lock()
	b, e := c.buckets, c.ikes[s.SPI]
	r := &ikeRecord{Version: ikeVersion, Serial: 1, Node: c.opts.Member.Name, Writer: c.writer.ID, Tunnel: s.Tunnel, Established: c.clock.toCommon(s.Established).UnixNano(), State: s.State}
	if e != nil {
		r.Serial = e.serial + 1
	}
	by := c.own()
	c.mu.Unlock()
	switch {
	case b == nil:
		return 0, ike.ErrNotGiven
	case revision != 0 && e == nil:
		return 0, ike.ErrTaken // somebody has ended it
	}
	sealed, err := c.sealIKE(s.SPI, r)
	if err != nil {
		return 0, err
	}
	ctx, done := within(context.Background())
	defer done()
	at, err := putIKE(ctx, b.ikes, s.SPI, sealed, revision)
	if conflict(err) {
		if at, err = c.mayOverwrite(ctx, b.ikes, s.SPI, r); err == nil {
			at, err = putIKE(ctx, b.ikes, s.SPI, sealed, at)
		}
	}
	if err != nil {
		if conflict(err) {
			err = ike.ErrTaken
		}
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.ikes[s.SPI]; now == nil || now.revision < at {
		c.setIKE(s.SPI, &ikeSA{revision: at, serial: r.Serial, by: by, tunnel: r.Tunnel, established: r.Established, sealed: sealed})
	}
	return at, nil
}

func (c *Cluster) sealIKE(spi uint64, r *ikeRecord) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return c.keys.Seal(place(bucketIKEs, ikeKey(spi)), text)
}

// putIKE stores a value if the store has it at a revision; 0: if it does not have it.
func putIKE(ctx context.Context, kv jetstream.KeyValue, spi uint64, sealed []byte, revision uint64) (uint64, error) {
	if revision == 0 {
		return kv.Create(ctx, ikeKey(spi), sealed)
	}
	return kv.Update(ctx, ikeKey(spi), sealed, revision)
}

// conflict reports whether the store has something else.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// mayOverwrite returns the revision of what the store has in place of what we know, if it may be written over; else ike.ErrTaken.
func (c *Cluster) mayOverwrite(ctx context.Context, kv jetstream.KeyValue, spi uint64, r *ikeRecord) (uint64, error) {
	v, err := kv.Get(ctx, ikeKey(spi))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil // if somebody has ended it, its mark comes, and ends it here too
	}
	if err != nil {
		return 0, err
	}
	there, err := c.openIKE(spi, v.Value())
	if err != nil {
		return v.Revision(), nil // nobody who is admitted has put it there
	}
	defer clear(there.State)
	if there.Writer == r.Writer || there.Serial < r.Serial-1 {
		return v.Revision(), nil
	}
	return 0, ike.ErrTaken
}

// Erase: see ike.Fleet. While the store is away it is remembered.
func (f fleet) Erase(spi, revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.ikes[spi]; e != nil && e.revision <= revision {
		e.erasing = true
	}
	f.erasing[spi] = revision
	f.wake()
}

// eraseIKEs removes from the store what has ended.
func (c *Cluster) eraseIKEs(ctx context.Context, s *session) error {
	c.mu.Lock()
	list := map[uint64]uint64{}
	for spi, revision := range c.erasing {
		list[spi] = revision
	}
	c.mu.Unlock()
	for spi, revision := range list {
		err := c.purge(ctx, s.buckets.ikes, ikeKey(spi), jetstream.LastRevision(revision))
		if err != nil && !conflict(err) {
			return fmt.Errorf("IKE SA %016x: not removed: %w", spi, err)
		}
		c.mu.Lock()
		if c.erasing[spi] == revision {
			delete(c.erasing, spi)
		}
		if e := c.ikes[spi]; e != nil && e.revision <= revision {
			c.setIKE(spi, nil)
		}
		c.mu.Unlock()
	}
	return nil
}

// takeIKE takes over what the store has of an IKE SA.
func (c *Cluster) takeIKE(s *session, v jetstream.KeyValueEntry) {
	if v == nil {
		s.ikesRead = true
		if c.apart {
			c.forgetUnseen(s.ikesSeen)
		}
		s.ikesSeen = nil
		return
	}
	spi, err := parseIKEKey(v.Key())
	if err != nil {
		c.complain(err)
		return
	}
	if !s.ikesRead {
		s.ikesSeen = with(s.ikesSeen, spi)
	}
	if v.Operation() != jetstream.KeyValuePut {
		c.mu.Lock()
		e := c.ikes[spi]
		gone := e != nil && e.revision < v.Revision()
		if gone {
			c.setIKE(spi, nil)
		}
		delete(c.unopenedIKEs, spi)
		c.mu.Unlock()
		if gone {
			c.ike.Taken(spi, "another node has ended it")
		}
		return
	}
	if err := c.learnIKE(spi, slices.Clone(v.Value()), v.Revision()); err != nil {
		c.complain(err)
	}
}

// forgetUnseen forgets the SAs that the store does not have: they have ended, and the marks that said so too.
func (c *Cluster) forgetUnseen(seen spiSet) {
	var own []uint64
	c.mu.Lock()
	for spi, e := range c.ikes {
		if _, ok := seen[spi]; !ok {
			if e.by == c.own() {
				own = append(own, spi)
			}
			c.setIKE(spi, nil)
		}
	}
	c.mu.Unlock()
	for _, spi := range own {
		c.ike.Taken(spi, "another node has ended it while this one was away")
	}
}

// A sealedIKE is a value that cannot be opened yet.
type sealedIKE struct {
	sealed   []byte
	revision uint64
}

// learnIKE notes an IKE SA that stands in the store at a revision.
func (c *Cluster) learnIKE(spi uint64, sealed []byte, revision uint64) error {
	r, err := c.openIKE(spi, sealed)
	var epoch seal.EpochError
	if errors.As(err, &epoch) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.unopenedIKEs) >= maxUnopened {
			return fmt.Errorf("%w, and %d such values are kept already", err, maxUnopened)
		}
		c.unopenedIKEs[spi] = sealedIKE{sealed, revision}
		return nil
	}
	if err != nil {
		return err
	}
	clear(r.State)
	c.mu.Lock()
	if x, ok := c.unopenedIKEs[spi]; ok && x.revision <= revision {
		delete(c.unopenedIKEs, spi)
	}
	by, old := process{r.Node, r.Writer}, c.ikes[spi]
	if old != nil && revision <= old.revision {
		c.mu.Unlock()
		return nil
	}
	n := &ikeSA{revision: revision, serial: r.Serial, by: by, tunnel: r.Tunnel, established: r.Established, sealed: sealed}
	c.setIKE(spi, n)
	other := by != c.own()
	c.mu.Unlock()
	if other {
		c.ike.Taken(spi, "node "+r.Node+" goes on with it")
	}
	return nil
}

// retakeIKEs tries again what could not be opened.
func (c *Cluster) retakeIKEs() {
	c.mu.Lock()
	again := c.unopenedIKEs
	c.unopenedIKEs = map[uint64]sealedIKE{}
	for _, e := range c.ikes {
		e.again = time.Time{} // its tunnel may be there now
	}
	c.mu.Unlock()
	for spi, x := range again {
		if err := c.learnIKE(spi, x.sealed, x.revision); err != nil {
			c.complain(err)
		}
	}
}

// How many vacant SAs a node takes over at once, and when it tries again what it could not: it may not have the tunnel.
const (
	adoptBurst = 200
	adoptAgain = 10 * time.Second
)

// adoptIKEs takes over the SAs of nodes that are gone and whose turn is this node's.
func (c *Cluster) adoptIKEs(now time.Time) {
	c.mu.Lock()
	var spis []uint64
	for by, set := range c.ikesBy {
		if c.where(by) != ike.Vacant {
			continue
		}
		candidates := c.candidates(c.now())
		for spi := range set {
			e := c.ikes[spi]
			if len(spis) < adoptBurst && !e.erasing && now.After(e.again) && winner(candidates, ikeKey(spi)) == c.opts.Member.Name {
				spis = append(spis, spi)
				e.again = now.Add(adoptAgain)
			}
		}
	}
	c.mu.Unlock()
	for _, spi := range spis {
		if err := c.ike.TakeOver(spi); err != nil {
			c.log.Warn("cluster: an IKE SA of a node that is gone is not taken over", "error", err, "again_in", adoptAgain)
		}
	}
}

// renewIKEs seals anew what is sealed under an epoch before the current one: our SAs are stored again, vacant ones by the keeper. It
// returns how many are left.
func (c *Cluster) renewIKEs(ctx context.Context, s *session, current uint32, keeper bool) (left int, err error) {
	c.mu.Lock()
	var own []uint64
	vacant := map[uint64]*ikeSA{}
	for spi, e := range c.ikes {
		if seal.EpochOf(e.sealed) >= current || e.erasing {
			continue
		}
		switch left++; c.where(e.by) {
		case ike.Here:
			own = append(own, spi)
		case ike.Vacant:
			vacant[spi] = e
		}
	}
	c.mu.Unlock()
	for _, spi := range own {
		c.ike.StoreAgain(spi)
	}
	if !keeper {
		return left, nil
	}
	for spi, e := range vacant {
		if err := c.stillHere(ctx, s); err != nil {
			return left, err
		}
		if err := c.sealIKEAgain(ctx, s, spi, e); err != nil && !conflict(err) {
			return left, err
		}
	}
	return left, nil
}

func (c *Cluster) sealIKEAgain(ctx context.Context, s *session, spi uint64, e *ikeSA) error {
	r, err := c.openIKE(spi, e.sealed)
	if err != nil {
		return err
	}
	defer clear(r.State)
	sealed, err := c.sealIKE(spi, r)
	if err != nil {
		return err
	}
	asking, done := within(ctx)
	defer done()
	_, err = putIKE(asking, s.buckets.ikes, spi, sealed, e.revision)
	return err
}
