package ike

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/sa"
)

// The two UDP ports of IKE (RFC 7296, section 2.23).
const (
	Port    = 500
	NATPort = 4500
)

// A Transport sends datagrams from an endpoint. On NATPort the caller has put the non-ESP marker before the message.
type Transport interface {
	Send(local, remote netip.AddrPort, datagram []byte) error
}

// Options are what a daemon is made of. The zero value of the limits is what a node has.
type Options struct {
	Log       *slog.Logger
	Dataplane sa.Dataplane
	Transport Transport
	Fleet     Fleet // nil: this node is alone

	Workers       int // of the pool: half of the cores, at least 2
	HalfOpen      int // SAs that are not authenticated: 4096
	PerSource     int // of them from one address, or one /64: 64
	CookiesFrom   int // of them until everybody must send a cookie: 128
	DatagramBytes int // of a message until it is sent in fragments: 1232, which IPv6 carries everywhere
}

// A Daemon negotiates for a node. Its methods may be called by any goroutine.
type Daemon struct {
	opts      Options
	log       *slog.Logger
	plane     sa.Dataplane
	fleet     Fleet
	pool      *pool
	clock     clock
	cookies   *cookies
	index     atomic.Pointer[index]
	counts    counters
	strangers throttle
	answers   throttle             // in place of other nodes
	spared    map[string]*throttle // pairs of a tunnel's peer while the store is away, guarded by mu

	mu        sync.Mutex // guards what follows; no SA's lock is taken while it is held
	bySPI     map[uint64]*ikeSA
	byInit    map[initKey]*ikeSA // half-open SAs, by the request that made them
	half      int
	perSource map[netip.Prefix]int
	byTunnel  map[string][]*ikeSA // established, oldest first
	opening   map[string]*ikeSA   // begun by us and not established, by tunnel
	starting  map[string]*starter
	failures  map[string]failure // of tunnels, until a pair is made
	keyLogs   map[string]*keyLog
	stopped   bool
}

// initKey tells IKE_SA_INIT requests apart, also when two peers have chosen one SPI: a hash of the whole request.
type initKey struct {
	remote netip.AddrPort
	hash   [32]byte
}

// New makes a daemon. It does nothing before Run.
func New(o Options) *Daemon {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Workers, max(2, runtime.GOMAXPROCS(0)/2))
	def(&o.HalfOpen, 4096)
	def(&o.PerSource, 64)
	def(&o.CookiesFrom, 128)
	def(&o.DatagramBytes, 1232)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	d := &Daemon{opts: o, log: o.Log, plane: o.Dataplane, fleet: o.Fleet,
		bySPI: map[uint64]*ikeSA{}, byInit: map[initKey]*ikeSA{}, perSource: map[netip.Prefix]int{},
		byTunnel: map[string][]*ikeSA{}, opening: map[string]*ikeSA{}, starting: map[string]*starter{}, failures: map[string]failure{}, keyLogs: map[string]*keyLog{}}
	d.pool = newPool(d.contain)
	d.clock.ring = func(s *ikeSA) bool { return try(d.pool.known, func() { s.do(s.tick) }) }
	d.index.Store(newIndex(nil))
	d.cookies = newCookies(o.Fleet)
	return d
}

// Run works until ctx is done. Then it leaves its SAs to the other nodes, or, where there are none who could take them, tells the peers that
// they are gone.
func (d *Daemon) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.pool.run(working, d.opts.Workers); close(done) }()
	<-ctx.Done()
	d.leave()
	stop()
	<-done
	return nil
}

// leaveLimit is how long the peers, or the store, are waited for at the end.
const leaveLimit = time.Second

// leave ends all SAs here, and waits a short time for the answers of their peers, or of the store.
func (d *Daemon) leave() {
	d.mu.Lock()
	d.stopped = true
	all := make([]*ikeSA, 0, len(d.bySPI))
	for _, s := range d.bySPI {
		all = append(all, s)
	}
	for name, s := range d.starting {
		if s.timer != nil {
			s.timer.Stop()
		}
		delete(d.starting, name)
	}
	logs := maps.Clone(d.keyLogs)
	d.mu.Unlock()
	for name, k := range logs {
		d.endKeyLog(name, k)
	}
	end := time.Now().Add(leaveLimit)
	var handed, ended []*ikeSA
	for _, s := range all {
		if s.mayBeTakenOver() {
			handed = append(handed, s)
		} else {
			ended = append(ended, s)
		}
	}
	for _, s := range ended {
		s.do(func() { s.deleteSelf("the daemon stops") })
	}
	d.handOver(handed, end)
	for _, s := range ended {
		select {
		case <-s.gone:
		case <-time.After(time.Until(end)):
		}
	}
	for _, s := range ended {
		s.do(func() { s.end("the daemon stops") })
	}
}

// Renewed names the tunnels that are there and that SetTunnels would end the SAs of: those that were negotiated for something else.
func (d *Daemon) Renewed(tunnels []*Tunnel) map[string]bool {
	old, out := d.index.Load().byName, map[string]bool{}
	for _, t := range tunnels {
		if o := old[t.Name]; o != nil && !t.same(o) {
			out[t.Name] = true
		}
	}
	return out
}

// SetTunnels tells the daemon which tunnels there are. SAs of tunnels that stay as they were live on; others are deleted.
func (d *Daemon) SetTunnels(tunnels []*Tunnel) {
	old, x := d.index.Load(), newIndex(tunnels)
	d.index.Store(x)
	stays := func(t *Tunnel) bool { return t != nil && old.byName[t.Name] != nil && t.same(old.byName[t.Name]) }
	d.mu.Lock()
	var gone, live []*ikeSA
	for name, list := range d.byTunnel {
		if stays(x.byName[name]) {
			live = append(live, list...)
		} else {
			gone = append(gone, list...)
		}
	}
	for name, s := range d.opening {
		if !stays(x.byName[name]) {
			gone = append(gone, s)
		}
	}
	for name := range d.failures {
		if !stays(x.byName[name]) {
			delete(d.failures, name)
		}
	}
	d.mu.Unlock()
	for _, s := range gone {
		d.post(s, func() { s.terminate("the tunnel's configuration changed") })
	}
	for _, s := range live {
		d.post(s, func() { s.tunnel = x.byName[s.Tunnel] })
	}
	for _, t := range tunnels {
		if t.Initiate && (!stays(t) || !old.byName[t.Name].Initiate) {
			d.startLater(t.Name, 0)
		}
	}
}

// Receive takes a datagram that came to local: port 500 or 4500. It does not keep it.
func (d *Daemon) Receive(local, remote netip.AddrPort, datagram []byte) {
	defer d.contain()
	d.receive(local, remote, datagram, false)
}

// receive takes a datagram; forwarded: another node has got it.
func (d *Daemon) receive(local, remote netip.AddrPort, datagram []byte, forwarded bool) {
	b := datagram
	if local.Port() == NATPort {
		if len(b) < 4 || binary.BigEndian.Uint32(b) != 0 { // no non-ESP marker (RFC 3948, section 2.2): a keepalive, or ESP
			return
		}
		b = b[4:]
	}
	h, err := message.ParseHeader(b)
	if err != nil {
		d.counts.malformed.Add(1)
		return
	}
	switch {
	case h.Major != 2:
		d.refuseVersion(local, remote, h)
	case h.SPIr == 0 && h.Initiator:
		d.receiveInit(local, remote, h, b)
	default:
		d.receiveKnown(local, remote, h, b, datagram, forwarded)
	}
}

// refuseVersion answers a request of a version to come (RFC 7296, section 2.5).
func (d *Daemon) refuseVersion(local, remote netip.AddrPort, h message.Header) {
	d.counts.malformed.Add(1)
	if h.Major < 2 || h.Response {
		return
	}
	d.answerOpenly(local, remote, h, message.Notify{Type: message.NotifyInvalidMajorVersion})
}

// answerOpenly sends a response that is not encrypted and belongs to no SA: it is no larger than a request can be.
func (d *Daemon) answerOpenly(local, remote netip.AddrPort, h message.Header, n message.Notify) {
	c := message.Contents{Notifies: []message.Notify{n}}
	out := message.Header{SPIi: h.SPIi, SPIr: h.SPIr, Major: 2, Exchange: h.Exchange, Response: true, Initiator: !h.Initiator, ID: h.ID}
	d.transmit(local, remote, openMessage(out, &c))
}

// openMessage is a message without encryption.
func openMessage(h message.Header, c *message.Contents) []byte {
	first, body := c.Append(nil)
	h.First, h.Length = first, message.HeaderLen+len(body)
	return append(h.Append(nil), body...)
}

// transmit sends a message. What cannot be sent is as good as lost.
func (d *Daemon) transmit(local, remote netip.AddrPort, b []byte) {
	if local.Port() == NATPort {
		b = append(make([]byte, 4, 4+len(b)), b...)
	}
	if err := d.opts.Transport.Send(local, remote, b); err != nil {
		d.log.Debug("ike: not sent", "local", local, "remote", remote, "error", err)
	}
}

// inflight is how many datagrams of an SA may wait for the pool: one message in fragments.
const inflight = 80

// receiveKnown takes a message b, which came in datagram, of an SA that has an SPI of ours.
func (d *Daemon) receiveKnown(local, remote netip.AddrPort, h message.Header, b, datagram []byte, forwarded bool) {
	spi := h.SPIr
	if !h.Initiator {
		spi = h.SPIi
	}
	d.mu.Lock()
	s := d.bySPI[spi]
	d.mu.Unlock()
	if s == nil {
		d.receiveElsewhere(local, remote, spi, h, datagram, forwarded)
		return
	}
	if s.initiator == h.Initiator {
		d.counts.unknownSPI.Add(1)
		return
	}
	if s.waiting.Add(1) > inflight {
		s.waiting.Add(-1)
		d.counts.overload.Add(1)
		return
	}
	own := append([]byte(nil), b...)
	queue := d.pool.known
	if !s.initiator && !s.proved.Load() {
		queue = d.pool.fresh
	}
	if !try(queue, func() {
		defer s.waiting.Add(-1)
		s.do(func() { s.receive(local, remote, h, own) })
	}) {
		s.waiting.Add(-1)
		d.counts.overload.Add(1)
	}
}

// post does something with an SA by the pool, soon.
func (d *Daemon) post(s *ikeSA, f func()) { d.soon(func() { s.do(f) }) }

// soon does something by the pool.
func (d *Daemon) soon(f func()) {
	if !try(d.pool.known, f) {
		time.AfterFunc(100*time.Millisecond, func() { d.soon(f) })
	}
}

// newSPI makes an SPI; in a fleet, one that names this node.
func (d *Daemon) newSPI() uint64 {
	if d.fleet != nil {
		return d.fleet.SPI()
	}
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// enter makes an SPI that no SA of the node has, and enters s under it.
func (d *Daemon) enter(s *ikeSA) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		spi := d.newSPI()
		if spi != 0 && d.bySPI[spi] == nil {
			d.bySPI[spi] = s
			return spi
		}
	}
}

// sourceOf is what counts as one source: an address, of IPv6 the network that a site gets.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() && !a.Is4In6() {
		bits = 64
	}
	p, _ := a.Unmap().Prefix(bits)
	return p
}

// admit enters a half-open SA, if there is room for it and its source.
func (d *Daemon) admit(s *ikeSA, key initKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	src := sourceOf(key.remote.Addr())
	if d.stopped || d.byInit[key] != nil || d.half >= d.opts.HalfOpen || d.perSource[src] >= d.opts.PerSource {
		d.counts.tooManyHalfOpen.Add(1)
		return false
	}
	d.half++
	d.perSource[src]++
	d.byInit[key] = s
	s.initKey = &key
	return true
}

// settleLocked ends the half-open state of s. It is called with the lock held.
func (d *Daemon) settleLocked(s *ikeSA) {
	if s.initKey == nil {
		return
	}
	src := sourceOf(s.initKey.remote.Addr())
	d.half--
	if d.perSource[src]--; d.perSource[src] == 0 {
		delete(d.perSource, src)
	}
	delete(d.byInit, *s.initKey)
	s.initKey = nil
}

// forget takes s out of all tables.
func (d *Daemon) forget(s *ikeSA) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settleLocked(s)
	if d.opening[s.Tunnel] == s {
		delete(d.opening, s.Tunnel)
	}
	if d.bySPI[s.spi()] == s {
		delete(d.bySPI, s.spi())
	}
	list := d.byTunnel[s.Tunnel]
	for i, o := range list {
		if o == s {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(d.byTunnel, s.Tunnel)
	} else {
		d.byTunnel[s.Tunnel] = list
	}
}

// perTunnel is how many IKE SAs a tunnel may have: two, and those that replace them.
const perTunnel = 4

// establish enters s as one of its tunnel's, and returns those that are too many, which are of the tunnel no more. stale: the
// configuration has changed since s began. s is locked.
func (d *Daemon) establish(s *ikeSA) (surplus []*ikeSA, stale bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settleLocked(s)
	if d.opening[s.Tunnel] == s {
		delete(d.opening, s.Tunnel)
	}
	list := append(d.byTunnel[s.Tunnel], s)
	if n := len(list) - perTunnel; n > 0 {
		surplus = append(surplus, list[:n]...)
		list = append([]*ikeSA(nil), list[n:]...)
	}
	d.byTunnel[s.Tunnel] = list
	if now := d.index.Load().byName[s.Tunnel]; now != s.tunnel { // SetTunnels stores the index, and then looks for SAs
		if stale = now == nil || !now.same(s.tunnel); !stale {
			s.tunnel = now
		}
	}
	if st := d.starting[s.Tunnel]; st != nil { // the next time the waits begin anew
		if st.timer != nil {
			st.timer.Stop()
		}
		delete(d.starting, s.Tunnel)
	}
	return surplus, stale
}

// of lists the established SAs of a tunnel.
func (d *Daemon) of(tunnel string) []*ikeSA {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*ikeSA(nil), d.byTunnel[tunnel]...)
}

// succeeded forgets what went wrong.
func (d *Daemon) succeeded(tunnel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.failures, tunnel)
}

// suspected is failed for what nobody has proved: anybody may have written the peer's address, so a tunnel that is up has not failed.
func (d *Daemon) suspected(tunnel, why string) {
	d.mu.Lock()
	up := len(d.byTunnel[tunnel]) > 0
	d.mu.Unlock()
	if !up {
		d.failed(tunnel, short(why))
	}
}

// A failure is what went wrong with a tunnel the last time.
type failure struct {
	why string
	at  time.Time
}

// failed notes what went wrong with a tunnel, for `causeway show ike`.
func (d *Daemon) failed(tunnel, why string) {
	if tunnel == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures[tunnel] = failure{why, time.Now()}
}
