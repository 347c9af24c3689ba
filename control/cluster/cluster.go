package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/cluster/engine"
	"causeway/control/cluster/seal"
	"causeway/control/pmtu"
)

// Options are what a cluster is made of.
type Options struct {
	Engine   engine.Options
	Identity *seal.Identity
	Roster   seal.Roster // the first one: see SetRoster
	Member   Member      // what does not change of it: name, address, data center, region, release
	Log      *slog.Logger

	// OnWriter is told the number of this process, once, before anything is encrypted.
	OnWriter func(Writer) error
	// OnPath is told what another node has learned of the way to a tunnel's customer.
	OnPath func(pmtu.Path)
	// OnDocument is told a configuration that all nodes are to have. It must not wait.
	OnDocument func(Document)
	// NotReady says why the node should get no traffic.
	NotReady func() []string
	// Direct gives a message to another node by a way that needs no store, for its TakeDirect, and reports whether it did; nil: there is no
	// such way.
	Direct func(node string, message []byte) bool

	// Local has the node go on negotiating while the store is away, for the nodes of its data center (neighbours.go). Tell gives a message to
	// one of them, for its TakeTold, by a way that needs no store, and reports whether it did; what is told may be lost.
	Local bool
	Tell  func(node string, message []byte) bool
}

// A Cluster is this node's part of it. Its methods may be called by any goroutine; Run once.
type Cluster struct {
	opts   Options
	log    *slog.Logger
	plane  Dataplane
	keys   *seal.Keyring
	engine *engine.Engine
	ike    Negotiator
	counts counts
	work   chan struct{} // something is to be stored
	anew   chan struct{} // the roster is another one
	left   chan struct{} // closed when the others know that this node stops

	leaveOnce sync.Once
	beatNow   atomic.Bool // what this node says of itself has changed

	alone bool // there are no other nodes, and there will be none: see Alone

	rotateAfter, destroyAfter, orphanAfter, unreadableAfter, markTime time.Duration

	beat uint64 // of the signs of life of this process; Run's
	said uint64 // revision of the last record in the store; Run's

	proved uint64 // revision of the last proof in the store; Run's

	usageTold, sourcesTold time.Time // Run's

	parted time.Time // when the store was lost; Run's
	apart  bool      // it was away for longer than it has marks of what was removed; Run's

	records atomic.Bool // no beats are told or heard, as in releases before there were any: tests set it

	older struct { // a store that was found older than it was, by its generation; Run's
		store uint64
		err   error
	}

	seen struct { // when the current epoch was seen first; Run's
		epoch epoch
		at    time.Time
	}

	clock     clock
	clockSaid time.Duration // what the log has of it; Run's

	floors floors
	acks   *acks

	echo  atomic.Pointer[time.Time] // when this node's own sign of life came back; nil: there is no session
	stood atomic.Int64              // nanoseconds for which the time for leases has stood still
	died  atomic.Pointer[time.Time] // when a node was found gone the last time

	documentKnown atomic.Bool // what the store has was seen, once

	applying sync.Mutex // one record is applied at a time; taken before mu

	mu       sync.Mutex
	writer   Writer
	numbered bool // writer is there
	held     map[uint32]*held
	index    index // over held
	children int
	digest   uint64
	unopened map[string][]byte // records of epochs of which there is no key yet
	stock    []uint32

	stockWanted int // how many are to be in stock, if it is more than stockIdle

	ikes         map[uint64]*ikeSA // by our SPI
	ikesBy       map[process]spiSet
	ikesOf       map[string]spiSet // of tunnels
	erasing      map[uint64]uint64 // ended ones that the store may have still, with the revision that was the last
	unopenedIKEs map[uint64]sealedIKE
	forwards     bucket

	keyed      []uint32 // processes whose ESP this node can open, in keyedEpoch
	keyedEpoch uint32

	ownable map[string]string // tunnels that have an owner, by key
	owners  map[string]*owned // likewise

	tellings map[uint32]*telling // what neighbours are told while the store is away, by SPI
	quiet    map[string]bool     // neighbours that did not acknowledge the last one in time
	barred   bool                // the store that is there is not this process's

	replicas []Replica // of the store, as they were when it was compared

	document Document // the newest that is known
	runs     Runs     // which one this node works with

	joined   time.Time // when the store was reached the last time
	complete bool      // this process has had all that the others have, once
	compared time.Time // when it had told all that it has
	leaving  bool
	yields   Precedence // see Member.Yields
	buckets  *buckets   // nil: the store is not reached
	members  map[string]*lease
	leases   map[string]*lease // members, or what is to be in this session
	opens    bool              // there is the key of the current epoch: beats can be heard
	refused  map[string]string // nodes that are not believed, and why
	roster   seal.Roster
	trouble  string // why there is no session; "": there is one
}

type counts struct {
	late, refusedRecords atomic.Uint64
}

// New makes a node's part. Nothing happens before Open.
func New(o Options, plane Dataplane) *Cluster {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Member.Version, o.Member.Public, o.Member.Started = memberVersion, o.Identity.Public(), time.Now().UnixNano()
	return &Cluster{opts: o, ike: nobody{}, clock: clock{now: time.Now}, log: o.Log, plane: plane, keys: seal.NewKeyring(), work: make(chan struct{}, 1), anew: make(chan struct{}, 1), left: make(chan struct{}),
		rotateAfter: rotateAfter, destroyAfter: destroyAfter, orphanAfter: orphanAfter, unreadableAfter: unreadableAfter, markTime: markTime, roster: o.Roster,
		held: map[uint32]*held{}, index: newIndex(), acks: newAcks(), unopened: map[string][]byte{},
		ikes: map[uint64]*ikeSA{}, ikesBy: map[process]spiSet{}, ikesOf: map[string]spiSet{}, erasing: map[uint64]uint64{}, unopenedIKEs: map[uint64]sealedIKE{}, ownable: map[string]string{}, owners: map[string]*owned{}, tellings: map[uint32]*telling{}, quiet: map[string]bool{},
		members: map[string]*lease{}, refused: map[string]string{}, yields: o.Member.Yields, trouble: "not joined yet"}
}

// Open starts the engine.
func (c *Cluster) Open() (err error) {
	c.engine, err = engine.Open(c.opts.Engine)
	return err
}

// Close ends what Open began. Run must have returned.
func (c *Cluster) Close() {
	if c.engine != nil {
		c.engine.Close()
	}
	c.keys.Destroy(^uint32(0))
}

// retryTime is the wait between two tries to join.
const retryTime = 500 * time.Millisecond

// Run takes part until ctx is done. The store may come and go: what other nodes tell is heard without it.
func (c *Cluster) Run(ctx context.Context) error {
	var deaf func() // nil: this process does not hear the others
	defer func() {
		if deaf != nil {
			deaf()
		}
	}()
	hear := func() (err error) {
		if deaf == nil {
			deaf, err = c.listen()
		}
		return err
	}
	var telling sync.WaitGroup
	defer telling.Wait()
	if c.opts.Local {
		telling.Go(func() { c.repeatTellings(ctx) })
	}
	for ctx.Err() == nil {
		err := c.join(ctx, hear)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errRoster) {
			continue
		}
		if errors.As(err, &strangeStore{}) && deaf != nil { // what those who are in it say is not for this process
			deaf()
			deaf = nil
		}
		c.lose(err)
		select {
		case <-ctx.Done():
		case <-time.After(retryTime):
		}
	}
	return nil
}

// A strangeStore is why this process cannot join the store that it has found.
type strangeStore struct{ error }

// errRoster says that nodes have to be judged anew.
var errRoster = errors.New("the roster has changed")

// SetRoster says who is admitted from now on. Who is not any more gets no key: a new epoch begins.
func (c *Cluster) SetRoster(r seal.Roster) {
	c.mu.Lock()
	same := maps.Equal(r, c.roster)
	c.roster = r
	clear(c.refused)
	c.mu.Unlock()
	if same {
		return
	}
	select {
	case c.anew <- struct{}{}:
	default:
	}
}

// admitted is the roster.
func (c *Cluster) admitted() seal.Roster {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roster
}

// lose notes why the store is not reached, and says so once.
func (c *Cluster) lose(err error) {
	if !c.engine.Reached() {
		err = engine.ErrAway
	} else if failed := c.engine.Failed(); failed != nil {
		err = failed
	}
	now := c.now()
	c.mu.Lock()
	changed := c.trouble == "" || c.trouble != err.Error()
	lost := c.trouble == ""
	if lost {
		for _, l := range c.members { // who is gone stays so while nobody is heard
			if !l.live(now) {
				l.gone.Store(true)
			}
		}
	}
	c.trouble, c.buckets, c.barred = err.Error(), nil, errors.As(err, &strangeStore{})
	local := c.local()
	var untold map[uint32]*held
	if lost && local {
		untold = c.untold()
	}
	c.mu.Unlock()
	for spi, h := range untold {
		c.tellNeighbours(spi, h.generation, h.sealed, false)
	}
	c.echo.Store(nil)
	if changed {
		c.log.Warn("cluster: the store is not reached; tunnels that are up go on", "error", err)
	}
	if changed && local {
		c.log.Warn("cluster: what is negotiated until the store is there again only the nodes of this data center have", "datacenter", c.opts.Member.Datacenter)
	}
}

// A session is one time that the store is reached: what is known of its buckets.
type session struct {
	link        uint64 // by which it is reached
	buckets     *buckets
	epochs      epochs
	members     map[string]*lease // admitted ones, without us
	membersRead bool
	sasRead     bool
	ikesRead    bool
	ikesSeen    spiSet // until then
	ownersRead  bool
	document    documentWatch
	ready       bool // all is read, and opened as far as there are keys
	watches     [watches]watched
	compared    time.Time
	whole       time.Time // when the store had told all that it has
	swept       time.Time
	beaten      time.Time // when this node has said that it lives the last time
	recorded    time.Time // when it has written its record the last time
	asked       time.Time // when it began to, by its own clock
	answered    time.Time // when the store had it, likewise
	record      string    // and what that says
	misses      []string  // whose beats it has said that do not come
}

// join takes part as long as the store answers. hear has this process hear the others, once it has its number.
func (c *Cluster) join(ctx context.Context, hear func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	link := c.engine.Link()
	b, err := openBuckets(ctx, c.engine.Store, c.storage(), c.engine.Replicas, c.markTime)
	if err != nil {
		return err
	}
	c.apart = !c.parted.IsZero() && time.Since(c.parted) > c.markTime-c.markTime/60 // that it was lost is noticed late
	s := &session{link: link, buckets: b, epochs: epochs{wraps: map[string]*seal.Wrap{}}, members: map[string]*lease{}}
	c.mu.Lock()
	c.leases = s.members
	c.mu.Unlock()
	if !c.alone {
		if err := c.meet(ctx, b, hear); err != nil {
			return err
		}
	}
	var watchers [watches]jetstream.KeyWatcher
	for i, kv := range b.watched() {
		if watchers[i], err = kv.WatchAll(ctx); err != nil {
			return err
		}
	}
	if watchers[watchDocument], err = b.document.Watch(ctx, keyDocument); err != nil {
		return err
	}
	defer func() { // each waits for an answer, which a store that is lost does not give
		for _, w := range watchers {
			go w.Stop()
		}
	}()
	err = c.serve(ctx, s, watchers)
	if s.ready {
		c.parted = time.Now()
	}
	return err
}

// storage is where the store has what is to outlive its process, if anything is.
func (c *Cluster) storage() jetstream.StorageType {
	if c.alone {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

// meet begins what there is to do with other nodes.
func (c *Cluster) meet(ctx context.Context, b *buckets, hear func() error) error {
	if err := c.number(ctx, b); err != nil {
		return err
	}
	if err := hear(); err != nil {
		return err
	}
	if err := c.notOlder(ctx, b); err != nil {
		return err
	}
	go c.watchNext(ctx)
	c.storeUnseen()
	return nil
}

// number takes the number of this process, the first time.
func (c *Cluster) number(ctx context.Context, b *buckets) error {
	c.mu.Lock()
	numbered, w := c.numbered, c.writer
	c.mu.Unlock()
	if numbered {
		if w.Generation != b.generation {
			return strangeStore{fmt.Errorf("the store is another one than before (generation %016x, it was %016x): restart this node, it needs a new number for its IVs", b.generation, w.Generation)}
		}
		return nil
	}
	asking, done := within(ctx)
	defer done()
	w, err := c.takeWriter(asking, b)
	if err != nil {
		return err
	}
	if c.opts.OnWriter != nil {
		if err := c.opts.OnWriter(w); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.writer, c.numbered = w, true
	c.mu.Unlock()
	c.log.Info("cluster: this process has its number", "writer", w.ID, "generation", fmt.Sprintf("%016x", w.Generation))
	return nil
}

// serve handles what comes, until the store is lost.
func (c *Cluster) serve(ctx context.Context, s *session, w [watches]jetstream.KeyWatcher) error {
	tick := time.NewTicker(beatTime / 4)
	defer tick.Stop()
	if err := c.sayBeat(ctx, s); err != nil {
		return err
	}
	if err := c.compareClocks(ctx, s); err != nil {
		return err
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case v, ok := <-w[watchNodes].Updates():
			if !ok {
				return errors.New("the store has ended the watch of nodes")
			}
			s.watches[watchNodes].note(v)
			c.takeMember(s, v)
			err = c.turnEpochs(ctx, s)
		case v, ok := <-w[watchEpochs].Updates():
			if !ok {
				return errors.New("the store has ended the watch of epochs")
			}
			s.watches[watchEpochs].note(v)
			if err = c.takeEpoch(s, v); err == nil {
				err = c.turnEpochs(ctx, s)
			}
		case v, ok := <-w[watchSAs].Updates():
			if !ok {
				return errors.New("the store has ended the watch of child SAs")
			}
			s.watches[watchSAs].note(v)
			c.takeStored(s, v)
		case v, ok := <-w[watchIKEs].Updates():
			if !ok {
				return errors.New("the store has ended the watch of IKE SAs")
			}
			s.watches[watchIKEs].note(v)
			c.takeIKE(s, v)
		case v, ok := <-w[watchOwners].Updates():
			if !ok {
				return errors.New("the store has ended the watch of owners")
			}
			s.watches[watchOwners].note(v)
			c.takeOwner(s, v)
		case v, ok := <-w[watchDocument].Updates():
			if !ok {
				return errors.New("the store has ended the watch of the configuration")
			}
			s.watches[watchDocument].note(v)
			c.takeDocument(s, v)
			if s.ready {
				err = c.turnDocument(ctx, s)
			}
		case <-c.anew:
			return errRoster
		case <-c.work:
			if !s.ready { // what there is to do is done when it is
				continue
			}
			err = c.turnAtOnce(ctx, s, time.Now())
		case now := <-tick.C:
			if link := c.engine.Link(); link == 0 {
				return engine.ErrAway
			} else if link != s.link {
				return errors.New("the connection to the store was lost, and is there again: all is read again")
			}
			if c.beatDue(s, now) {
				err = c.sayBeat(ctx, s)
			}
			if err == nil {
				err = c.turn(ctx, s, now)
			}
		}
		if err != nil {
			return err
		}
	}
}

// turn does what is due.
func (c *Cluster) turn(ctx context.Context, s *session, now time.Time) error {
	if err := c.turnEpochs(ctx, s); err != nil {
		return err
	}
	if c.keys.Current() == 0 || !s.sasRead || !s.ikesRead || !s.ownersRead {
		return nil
	}
	c.ready(s)
	if err := c.turnAtOnce(ctx, s, now); err != nil {
		return err
	}
	if !c.alone {
		c.turnFloors(now)
		c.tellUsage(now)
		c.tellSources(now)
	}
	if err := c.turnDocument(ctx, s); err != nil {
		return err
	}
	if err := c.bury(ctx, s, c.clock.common()); err != nil {
		return err
	}
	if err := c.renew(ctx, s); err != nil {
		return err
	}
	if err := c.sweep(ctx, s, now); err != nil {
		return err
	}
	err := c.compare(ctx, s, now)
	c.mu.Lock()
	c.compared = s.whole
	c.mu.Unlock()
	return err
}

// turnAtOnce does what does not wait for the next turn: somebody waits for it. Who is gone leaves what others go on with.
func (c *Cluster) turnAtOnce(ctx context.Context, s *session, now time.Time) error {
	if err := c.storeAll(ctx, s); err != nil {
		return err
	}
	if err := c.eraseIKEs(ctx, s); err != nil {
		return err
	}
	if err := c.fillStock(ctx, s); err != nil {
		return err
	}
	if c.beatNow.Swap(false) {
		if err := c.sayBeat(ctx, s); err != nil {
			return err
		}
	}
	if err := c.sayGoodbye(ctx, s); err != nil {
		return err
	}
	c.adoptIKEs(now)
	return c.claimOwners(ctx, s, now)
}

// completeTime is how long a node that has joined the first time waits for what it has no key of: whoever has written it seals it anew.
const completeTime = 15 * time.Second

// ready says that this node can share and take.
func (c *Cluster) ready(s *session) {
	c.mu.Lock()
	first, children := c.trouble != "", c.children
	if first {
		c.joined = time.Now()
	}
	c.trouble, c.buckets, c.members = "", s.buckets, s.members
	s.ready = true
	if len(c.unopened)+len(c.unopenedIKEs) == 0 || time.Since(c.joined) > completeTime {
		c.complete = true
	}
	c.mu.Unlock()
	if first {
		c.beatNow.Store(true) // the others give nothing to a node of which they do not know that it has the key
		c.log.Info("cluster: joined", "nodes", len(s.members)+1, "child_sas", children, "epoch", c.keys.Current())
	}
}

// takeEpoch takes over a value of the bucket of epochs.
func (c *Cluster) takeEpoch(s *session, v jetstream.KeyValueEntry) error {
	if v == nil {
		s.epochs.read = true
		return nil
	}
	if err := s.epochs.take(v); err != nil {
		c.complain(err)
	}
	return nil
}

// Leave tells the other nodes that this one stops: they need not wait for its lease to end. It must not do anything with an IKE SA any
// more. It returns when the store has that, or after a time. Run must run still.
func (c *Cluster) Leave(limit time.Duration) {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	c.wake()
	select {
	case <-c.left:
	case <-time.After(limit):
	}
}

// sayGoodbye tells that this node stops, if it does.
func (c *Cluster) sayGoodbye(ctx context.Context, s *session) error {
	c.mu.Lock()
	leaving := c.leaving
	c.mu.Unlock()
	if !leaving {
		return nil
	}
	err := c.sayBeat(ctx, s)
	if err == nil {
		c.leaveOnce.Do(func() { close(c.left) })
	}
	return err
}

// complain counts what was not taken, and says so.
func (c *Cluster) complain(err error) {
	c.counts.refusedRecords.Add(1)
	c.log.Warn("cluster: a value is not taken", "error", err)
}

// wake has storeAll called soon.
func (c *Cluster) wake() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}
