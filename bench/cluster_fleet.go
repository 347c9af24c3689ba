package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"causeway/control/cluster"
	"causeway/control/cluster/engine"
	"causeway/control/cluster/seal"
	"causeway/control/ike/sa"
	"causeway/crypto/aesgcm"
)

// A fleet is the nodes of a cluster, all within this process, each with a NATS server of its own: the first is the hub, which has the
// store on this machine's disk, and the others are joined to it over TCP on loopback, without TLS.
type fleet struct {
	dir    string
	hub    netip.AddrPort
	vault  *aesgcm.Vault
	roster seal.Roster
	ids    map[string]*seal.Identity
	nodes  []*clusterNode

	mu   sync.Mutex
	news map[uint32]*newPair // by SPI

	failed atomic.Uint64 // installs that failed
	lost   atomic.Uint64 // that were not usable on all nodes for long
	noSPI  atomic.Uint64 // that waited for an SPI
}

// A clusterNode is one of them.
type clusterNode struct {
	*cluster.Cluster
	plane   *clusterPlane
	relay   *relay // between it and the hub; nil: there is none
	started time.Time
	stop    func()
}

// A newPair is being installed.
type newPair struct {
	began   time.Time
	missing int           // nodes that cannot use it yet
	took    time.Duration // until all could
	usable  chan struct{} // closed then
}

// lateNode is the name of the one that starts when there is something already: the last, so that it makes no epochs.
const lateNode = "late"

// clusterPatience is how long something is waited for that should happen.
const clusterPatience = 60 * time.Second

// newFleet starts nodes, and waits until each sees all others and has SPIs in stock.
func newFleet(nodes int, relayed bool) (f *fleet, err error) {
	f = &fleet{vault: aesgcm.NewVault(aesgcm.Options{Unlocked: true}), roster: seal.Roster{}, ids: map[string]*seal.Identity{}, news: map[uint32]*newPair{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.dir, err = os.MkdirTemp("", "causeway-bench-cluster-"); err != nil {
		return f, err
	}
	if f.hub, err = freeAddress(); err != nil {
		return f, err
	}
	for i := range nodes {
		if err := f.admit(fleetName(i)); err != nil {
			return f, err
		}
	}
	if err := f.admit(lateNode); err != nil {
		return f, err
	}
	for i := range nodes {
		n, err := f.start(fleetName(i), i == 0, relayed)
		if err != nil {
			return f, err
		}
		f.nodes = append(f.nodes, n)
		if i%startAtOnce == 0 {
			if err := f.joined(); err != nil {
				return f, err
			}
		}
	}
	return f, f.joined()
}

func fleetName(i int) string { return fmt.Sprintf("edge-%05d", i) }

// freeAddress is one that nobody listens at.
func freeAddress() (netip.AddrPort, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// admit makes an identity and puts it into the roster.
func (f *fleet) admit(name string) error {
	id, err := seal.NewIdentity()
	if err != nil {
		return err
	}
	f.ids[name], f.roster[name] = id, id.Public().Fingerprint()
	return nil
}

// start starts a node. What it says to the hub goes through a relay, if it is to.
func (f *fleet) start(name string, hub, relayed bool) (n *clusterNode, err error) {
	n = &clusterNode{started: time.Now()}
	quiet := slog.New(slog.DiscardHandler)
	e := engine.Options{Name: name, Log: quiet}
	if hub {
		e.Hub, e.Dir = f.hub, f.dir
	} else {
		at := f.hub.String()
		if relayed {
			if n.relay, err = newRelay(f.hub); err != nil {
				return nil, err
			}
			at = n.relay.address()
		}
		e.Servers = []*url.URL{{Scheme: "nats-leaf", Host: at}}
	}
	if n.plane, err = newClusterPlane(f.vault, f.opened); err != nil {
		return nil, err
	}
	n.Cluster = cluster.New(cluster.Options{Engine: e, Identity: f.ids[name], Roster: f.roster, Member: cluster.Member{Name: name}, Log: quiet}, n.plane)
	if err := n.Open(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- n.Run(ctx) }()
	n.stop = func() {
		cancel()
		<-ran
		n.Close()
		if n.relay != nil {
			n.relay.close()
		}
	}
	return n, nil
}

// moveAway has everything between the hub and the others take that long each way from now on.
func (f *fleet) moveAway(delay time.Duration) {
	for _, n := range f.nodes {
		if n.relay != nil {
			n.relay.delay.Store(int64(delay))
		}
	}
}

// startAtOnce is how many nodes start together: each reserves its SPIs, and all share this machine's cores.
const startAtOnce = 5

// joined waits until all nodes that were started are ready.
func (f *fleet) joined() error {
	for i, n := range f.nodes {
		if err := eventually("joined, with SPIs in stock", func() bool {
			s := n.Status()
			return s.Trouble == "" && s.Stock > 8 && s.Nodes == len(f.nodes)
		}); err != nil {
			return fmt.Errorf("node %d: %w: %+v", i, err, n.Status())
		}
	}
	return nil
}

func eventually(what string, f func() bool) error {
	for end := time.Now().Add(clusterPatience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not %s in %v", what, clusterPatience)
		}
	}
	return nil
}

// close ends all, the hub last.
func (f *fleet) close() error {
	var all sync.WaitGroup
	for i, n := range f.nodes {
		if i > 0 {
			all.Go(n.stop)
		}
	}
	all.Wait()
	if len(f.nodes) > 0 {
		f.nodes[0].stop()
	}
	var err error
	if f.dir != "" {
		err = os.RemoveAll(f.dir)
	}
	return errors.Join(err, f.vault.Close())
}

// opened notes that one more node can use a pair.
func (f *fleet) opened(spi uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.news[spi]
	if p == nil {
		return // to the late node it is not new
	}
	if p.missing--; p.missing == 0 {
		p.took = time.Since(p.began)
		close(p.usable)
	}
}

// expect begins to wait for a pair.
func (f *fleet) expect(spi uint32) *newPair {
	p := &newPair{began: time.Now(), missing: len(f.nodes), usable: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.news[spi] = p
	return p
}

func (f *fleet) forget(spi uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.news, spi)
}

// A clusterTunnel is one, with the node that has its IKE SA and its pair, if there is one.
type clusterTunnel struct {
	name string
	node int
	spi  uint32
}

// A clusterSample is one pair that was installed: when Install returned, and when all nodes could use it.
type clusterSample struct {
	node             int
	returned, usable time.Duration
}

// renew gives a tunnel a new pair and removes the one before, as a rekeying does.
func (f *fleet) renew(t *clusterTunnel) (s clusterSample, err error) {
	n := f.nodes[t.node]
	shared := n.Shared()
	spi, err := f.spi(shared)
	if err != nil {
		return s, err
	}
	p := f.expect(spi)
	defer f.forget(spi)
	if err := shared.Install(clusterChild(t.name, spi)); err != nil {
		f.failed.Add(1)
		return s, err
	}
	s = clusterSample{node: t.node, returned: time.Since(p.began)}
	if t.spi != 0 {
		if err := shared.Use(t.name, spi); err != nil {
			return s, err
		}
		shared.Remove(t.name, t.spi)
	}
	t.spi = spi
	select {
	case <-p.usable:
	case <-time.After(clusterPatience):
		f.lost.Add(1)
		return s, fmt.Errorf("spi %#x is not usable on all nodes after %v", spi, clusterPatience)
	}
	s.usable = p.took
	return s, nil
}

// spi reserves one. Where none is in stock, IKE would refuse to negotiate: here it is waited for and counted.
func (f *fleet) spi(shared sa.Dataplane) (spi uint32, err error) {
	for end, waited := time.Now().Add(clusterPatience), false; ; time.Sleep(2 * time.Millisecond) {
		if spi, err = shared.ReserveSPI(); err == nil || time.Now().After(end) {
			return spi, err
		}
		if !waited {
			waited = true
			f.noSPI.Add(1)
		}
	}
}

// clusterChild is what is negotiated.
func clusterChild(tunnel string, spi uint32) *sa.Child {
	return &sa.Child{Tunnel: tunnel, SPIIn: spi, SPIOut: spi ^ 1, Suite: clusterSuite, KeyIn: clusterKey(spi, 0), KeyOut: clusterKey(spi, 1),
		Local: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Remote: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		Endpoint: netip.MustParseAddr("192.0.2.1"), Peer: netip.MustParseAddrPort("198.51.100.2:4500"), Expires: time.Now().Add(time.Hour)}
}

// late is how many acknowledgements came late so far.
func (f *fleet) late() (sum uint64) {
	for _, n := range f.nodes {
		sum += n.Status().LateAcks
	}
	return sum
}

// relayed is how many bytes went through the relays so far.
func (f *fleet) relayed() (sum uint64) {
	for _, n := range f.nodes {
		if n.relay != nil {
			sum += n.relay.bytes.Load()
		}
	}
	return sum
}
