package cluster

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

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
	// OnHealth takes what another node has told by TellHealth.
	OnHealth func(message []byte) error
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

	started atomic.Int64 // Member.Started of this process
	beat    uint64       // of the signs of life of this process; Run's
	said    uint64       // revision of the last record in the store; Run's

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

	given givenKeys // Run's

	inquiries inquiries

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
	trouble  string  // why there is no session; "": there is one
	usurper  *Member // another process with this node's name and identity, started later
}

type counts struct {
	late, refusedRecords atomic.Uint64
}

// New makes a node's part. Nothing happens before Open.
func New(o Options, plane Dataplane) *Cluster {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Member.Version, o.Member.Public = memberVersion, o.Identity.Public()
	c := &Cluster{opts: o, ike: nobody{}, clock: clock{now: time.Now}, log: o.Log, plane: plane, keys: seal.NewKeyring(), work: make(chan struct{}, 1), anew: make(chan struct{}, 1), left: make(chan struct{}),
		rotateAfter: rotateAfter, destroyAfter: destroyAfter, orphanAfter: orphanAfter, unreadableAfter: unreadableAfter, markTime: markTime, roster: o.Roster,
		held: map[uint32]*held{}, index: newIndex(), acks: newAcks(), unopened: map[string][]byte{},
		ikes: map[uint64]*ikeSA{}, ikesBy: map[process]spiSet{}, ikesOf: map[string]spiSet{}, erasing: map[uint64]uint64{}, unopenedIKEs: map[uint64]sealedIKE{}, ownable: map[string]string{}, owners: map[string]*owned{}, tellings: map[uint32]*telling{}, quiet: map[string]bool{},
		members: map[string]*lease{}, refused: map[string]string{}, yields: o.Member.Yields, trouble: "not joined yet"}
	c.started.Store(time.Now().UnixNano())
	return c
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
	c.mu.Unlock()
	if lost && local {
		c.tellUntold()
	}
	c.echo.Store(nil)
	if changed {
		c.log.Warn("cluster: the store is not reached; tunnels that are up go on", "error", err)
	}
	if changed && local {
		c.log.Warn("cluster: what is negotiated until the store is there again only the nodes of this data center have", "datacenter", c.opts.Member.Datacenter)
	}
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
