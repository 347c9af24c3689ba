package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/control/cluster/engine"
	"causeway/control/cluster/seal"
	"causeway/control/ike/sa"
	"causeway/control/pmtu"
	"causeway/crypto/esp"
)

// TestMain runs more tests at one time than there are cores: they wait for leases, and for stores that are not there.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// A plane is a dataplane that only remembers.
type plane struct {
	sa.Dataplane // what is not called is not there
	mu           sync.Mutex
	children     map[uint32]*sa.Child
	order        []uint32 // of use, the latest last
	taken        map[uint32]bool
	tunnels      map[string]bool
	received     map[uint32]uint64 // the highest number that came, by SPI
	floors       map[uint32]uint64
	usages       map[uint32]sa.Usage
	sources      map[uint32]netip.AddrPort
	slow         atomic.Int64 // nanoseconds until a child is installed
}

func (p *plane) Limited(f func(uint32, sa.Usage)) {
	p.mu.Lock()
	list := maps.Clone(p.usages)
	p.mu.Unlock()
	for spi, u := range list {
		f(spi, u)
	}
}

func (p *plane) Moved(f func(uint32, uint64, netip.AddrPort)) {
	p.mu.Lock()
	list := map[uint32]toldSource{}
	for spi, from := range p.sources {
		if k := p.children[spi]; k != nil && k.Peer != from {
			list[spi] = toldSource{p.received[spi], from}
		}
	}
	p.mu.Unlock()
	for spi, s := range list {
		f(spi, s.highest, s.from)
	}
}

// cameFrom notes where the newest packet of a child came from.
func (p *plane) cameFrom(spi uint32, from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sources == nil {
		p.sources = map[uint32]netip.AddrPort{}
	}
	p.sources[spi] = from
}

// uses notes what was done with a child.
func (p *plane) uses(spi uint32, u sa.Usage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.usages[spi] = u
}

func (p *plane) Received(f func(uint32, uint64)) {
	p.mu.Lock()
	list := map[uint32]uint64{}
	for spi := range p.children {
		list[spi] = p.received[spi]
	}
	p.mu.Unlock()
	for spi, n := range list {
		f(spi, n)
	}
}

func (p *plane) SetFloor(spi uint32, floor uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.children[spi] != nil {
		p.floors[spi] = max(p.floors[spi], floor)
	}
}

// receives notes that a packet came, and floor is what is too old for one.
func (p *plane) receives(spi uint32, number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received[spi] = number
}

func (p *plane) floor(spi uint32) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.floors[spi]
}

func (p *plane) Adopt(spi uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[spi] {
		return fmt.Errorf("spi %#x is taken", spi)
	}
	p.taken[spi] = true
	return nil
}

func (p *plane) ReleaseSPI(spi uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, spi)
}

func (p *plane) Install(c *sa.Child) error {
	time.Sleep(time.Duration(p.slow.Load()))
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.taken[c.SPIIn] || p.children[c.SPIIn] != nil:
		return fmt.Errorf("spi %#x was not adopted, or is in use", c.SPIIn)
	case !p.tunnels[c.Tunnel]:
		return fmt.Errorf("there is no tunnel %s", c.Tunnel)
	}
	own := *c
	own.KeyIn, own.KeyOut = bytes.Clone(c.KeyIn), bytes.Clone(c.KeyOut)
	p.children[c.SPIIn] = &own
	p.order = slices.Insert(p.order, 0, c.SPIIn)
	return nil
}

func (p *plane) Use(_ string, spi uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.children[spi] == nil {
		return errors.New("no such child")
	}
	p.order = append(slices.DeleteFunc(p.order, func(s uint32) bool { return s == spi }), spi)
	return nil
}

func (p *plane) Move(_ string, spi uint32, peer netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.children[spi]; c != nil {
		c.Peer = peer
	}
}

func (p *plane) Remove(_ string, spis ...uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, spi := range spis {
		delete(p.children, spi)
		delete(p.taken, spi)
		p.order = slices.DeleteFunc(p.order, func(s uint32) bool { return s == spi })
	}
}

func (p *plane) Usage(_ string, spi uint32) (sa.Usage, bool) {
	there := p.child(spi) != nil
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usages[spi], there
}

// child returns a copy of what is there, or nil.
func (p *plane) child(spi uint32) *sa.Child {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.children[spi]; c != nil {
		out := *c
		return &out
	}
	return nil
}

func (p *plane) used() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.order) == 0 {
		return 0
	}
	return p.order[len(p.order)-1]
}

// A node is one of a bed.
type node struct {
	*Cluster
	t         *testing.T
	name      string
	plane     *plane
	identity  *seal.Identity
	ike       *negotiator
	paths     chan pmtu.Path // that others have learned
	documents chan Document  // that it was told
	patience  time.Duration
	stop      func()
	direct    func(node string, message []byte) bool
	tells     func(node string, message []byte) bool // nil: it goes to that node of the bed
}

// A bed is nodes with real servers within this process, the first of which is the hub.
type bed struct {
	t      *testing.T
	hub    netip.AddrPort
	dir    string
	roster seal.Roster
	ids    map[string]*seal.Identity
	log    *log
	quick  bool // epochs last seconds
	alone  bool // the hub says that it has the store alone
	local  bool // nodes go on negotiating while the store is away

	datacenters map[string]string // of nodes, by name
	running     sync.Map          // nodes, by name

	patience   time.Duration         // of its nodes, if it is not 0
	engine     func(*engine.Options) // not nil: completes what a node's engine is, by its name
	unreadable time.Duration         // instead of unreadableAfter, if it is not 0
	marks      time.Duration         // instead of markTime, likewise
}

type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newBed(t *testing.T, admitted ...string) *bed {
	t.Helper()
	b := &bed{t: t, hub: freePort(t), dir: t.TempDir(), roster: seal.Roster{}, ids: map[string]*seal.Identity{}, log: &log{}}
	for _, name := range admitted {
		b.roster[name] = b.identity(name).Public().Fingerprint()
	}
	t.Cleanup(func() {
		if t.Failed() {
			b.log.mu.Lock()
			defer b.log.mu.Unlock()
			t.Log(b.log.b.String())
		}
	})
	return b
}

// freePort is an address at which nobody listens.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// leafURL is how a node names a hub.
func leafURL(t *testing.T, a netip.AddrPort) *url.URL {
	t.Helper()
	u, err := url.Parse("nats-leaf://" + a.String())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (b *bed) identity(name string) *seal.Identity {
	if b.ids[name] == nil {
		i, err := seal.NewIdentity()
		if err != nil {
			b.t.Fatal(err)
		}
		b.ids[name] = i
	}
	return b.ids[name]
}

// start starts a node: the hub if it is named so.
func (b *bed) start(name string) *node {
	b.t.Helper()
	return b.prepare(name).run()
}

// prepare makes a node that does nothing yet.
func (b *bed) prepare(name string) *node {
	b.t.Helper()
	l := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", name)
	n := &node{t: b.t, name: name, patience: cmp.Or(b.patience, patience), paths: make(chan pmtu.Path, 10), documents: make(chan Document, 100), identity: b.identity(name),
		plane: &plane{children: map[uint32]*sa.Child{}, taken: map[uint32]bool{}, tunnels: map[string]bool{"cust-a": true}, received: map[uint32]uint64{}, floors: map[uint32]uint64{}, usages: map[uint32]sa.Usage{}}}
	o := engine.Options{Name: name, Log: l}
	switch {
	case b.engine != nil:
		b.engine(&o)
	case name == "hub":
		o.Hub, o.Dir = b.hub, b.dir
	default:
		o.Servers = []*url.URL{leafURL(b.t, b.hub)}
	}
	member := Member{Name: name, Datacenter: b.datacenters[name]}
	if b.alone && name == "hub" {
		member.Yields = StoreAlone
	}
	n.Cluster = New(Options{Engine: o, Identity: n.identity, Roster: b.roster, Member: member, Log: l, OnPath: func(p pmtu.Path) { n.paths <- p },
		OnDocument: func(d Document) { n.documents <- d },
		Direct: func(node string, message []byte) bool {
			if n.direct == nil {
				return false
			}
			return n.direct(node, message)
		}, Local: b.local, Tell: func(node string, message []byte) bool {
			if n.tells != nil {
				return n.tells(node, message)
			}
			return b.tell(node, message)
		}}, n.plane)
	b.running.Store(name, n)
	if b.quick {
		n.rotateAfter, n.destroyAfter = 2*time.Second, time.Second/2
	}
	if b.unreadable != 0 {
		n.unreadableAfter = b.unreadable
	}
	if b.marks != 0 {
		n.markTime = b.marks
	}
	if err := n.Open(); err != nil {
		b.t.Fatal(err)
	}
	n.ike = &negotiator{node: n, sas: map[uint64]uint64{}}
	n.SetNegotiator(n.ike)
	n.stop = sync.OnceFunc(n.Close)
	b.t.Cleanup(func() { n.stop() })
	return n
}

// tell gives a message to a node, as ESP between nodes does.
func (b *bed) tell(name string, message []byte) bool {
	n, ok := b.running.Load(name)
	if ok {
		go n.(*node).TakeTold(bytes.Clone(message))
	}
	return ok
}

// run has a node take part.
func (n *node) run() *node {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { n.Run(ctx); close(ran) }()
	n.stop = sync.OnceFunc(func() { cancel(); <-ran; n.Close() })
	return n
}

// joined waits until a node can share.
func (n *node) joined() *node {
	n.t.Helper()
	n.eventually("joined, with SPIs in stock", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.trouble == "" && len(n.stock) > stockSize/2
	})
	return n
}

// bucket is the store as the node sees it.
func (n *node) bucket() *buckets {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buckets
}

// patience is how long something is waited for that must come. It may be less where tests are broken on purpose, one at a time.
var patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("CAUSEWAY_PATIENCE")); err == nil {
		return d
	}
	return 20 * time.Second
}()

func (n *node) eventually(what string, f func() bool) {
	n.t.Helper()
	for end := time.Now().Add(n.patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("%s: not %s in %v", n.name, what, n.patience)
		}
	}
}

// sees waits until a node counts others as alive.
func (n *node) sees(others int) *node {
	n.t.Helper()
	n.eventually(fmt.Sprintf("seeing %d others", others), func() bool { return len(n.others()) == others })
	return n
}

// install negotiates a child, as it were.
func (n *node) install() *sa.Child {
	n.t.Helper()
	spi, err := n.Shared().ReserveSPI()
	if err != nil {
		n.t.Fatal(err)
	}
	c := n.child(spi)
	if err := n.Shared().Install(c); err != nil {
		n.t.Fatal(err)
	}
	return c
}

// child is one that could be negotiated.
func (n *node) child(spi uint32) *sa.Child {
	return &sa.Child{Tunnel: "cust-a", SPIIn: spi, SPIOut: spi + 1, Suite: esp.AES128GCM16, KeyIn: bytes.Repeat([]byte{byte(spi)}, 20), KeyOut: bytes.Repeat([]byte{byte(spi >> 8)}, 20),
		Local: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Endpoint: netip.MustParseAddr("192.0.2.1"), Peer: netip.MustParseAddrPort("198.51.100.2:4500"),
		UDP: true, Life: esp.Life{HardPackets: 7}, Expires: time.Now().Add(time.Hour)}
}

func netipPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}
