package ike

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/sa"
	"causeway/control/ike/suite"
)

// A wire joins two daemons. It may lose, repeat and reorder what is sent, and shows it to a tap.
type wire struct {
	mu     sync.Mutex
	rng    *rand.Rand
	loss   float64 // of datagrams; half as many come twice, as many come late
	ends   map[netip.Addr]*Daemon
	tap    func(from, to netip.AddrPort, b []byte) []byte // may change or swallow (nil)
	back   func(netip.AddrPort) netip.AddrPort            // what a NAT makes of a destination
	closed bool
	sent   int
}

// set changes the wire while it carries datagrams.
func (w *wire) set(change func(*wire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

func (w *wire) Send(local, remote netip.AddrPort, b []byte) error {
	b = bytes.Clone(b)
	w.mu.Lock()
	w.sent++
	if w.tap != nil {
		b = w.tap(local, remote, b)
	}
	if w.back != nil {
		remote = w.back(remote)
	}
	to, copies, late := w.ends[remote.Addr()], 1, false
	if w.rng.Float64() < w.loss || b == nil || w.closed {
		copies = 0
	} else if w.loss > 0 {
		if w.rng.Float64() < w.loss/2 {
			copies = 2
		}
		late = w.rng.Float64() < w.loss
	}
	w.mu.Unlock()
	for range copies {
		wait := time.Millisecond
		if late {
			wait = 30 * time.Millisecond
		}
		if to != nil {
			time.AfterFunc(wait, func() { to.Receive(remote, local, b) })
		}
	}
	return nil
}

// A plane is a dataplane that only remembers.
type plane struct {
	mu       sync.Mutex
	name     string
	next     uint32
	ivs      uint64
	reserved map[uint32]bool
	children map[uint32]*sa.Child // by our SPI
	inUse    map[string]uint32    // the pair that packets leave by
	usage    map[uint32]sa.Usage
	refuse   error
	spent    error // of ReserveSPI
	breaks   bool
}

func newPlane(name string, first uint32) *plane {
	return &plane{name: name, next: first, reserved: map[uint32]bool{}, children: map[uint32]*sa.Child{}, inUse: map[string]uint32{}, usage: map[uint32]sa.Usage{}}
}

func (p *plane) ReserveSPI() (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spent != nil {
		return 0, p.spent
	}
	p.next++
	p.reserved[p.next] = true
	return p.next, nil
}

func (p *plane) ReleaseSPI(spi uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.reserved, spi)
}

func (p *plane) Install(c *sa.Child) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return p.refuse
	}
	if !p.reserved[c.SPIIn] {
		return fmt.Errorf("SPI %#x was not reserved", c.SPIIn)
	}
	delete(p.reserved, c.SPIIn)
	own := *c
	own.KeyIn, own.KeyOut = slices.Clone(c.KeyIn), slices.Clone(c.KeyOut)
	p.children[c.SPIIn] = &own
	if p.inUse[c.Tunnel] == 0 {
		p.inUse[c.Tunnel] = c.SPIIn
	}
	return nil
}

func (p *plane) Use(tunnel string, spi uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.children[spi] == nil {
		return errors.New("no such pair")
	}
	p.inUse[tunnel] = spi
	return nil
}

func (p *plane) Remove(tunnel string, spis ...uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, spi := range spis {
		delete(p.children, spi)
		if p.inUse[tunnel] == spi {
			delete(p.inUse, tunnel)
		}
	}
}

func (p *plane) Move(_ string, spi uint32, peer netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.children[spi]; c != nil {
		c.Peer = peer
	}
}

func (p *plane) Usage(_ string, spi uint32) (sa.Usage, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.breaks {
		panic("a defect")
	}
	u, ok := p.usage[spi]
	return u, ok || p.children[spi] != nil
}

func (p *plane) IV() (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ivs++
	return p.ivs, nil
}

// pairs lists the pairs that are installed.
func (p *plane) pairs() []*sa.Child {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*sa.Child
	for _, c := range p.children {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *sa.Child) int { return int(a.SPIIn) - int(b.SPIIn) })
	return out
}

// used is the pair by which packets leave.
func (p *plane) used(tunnel string) *sa.Child {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.children[p.inUse[tunnel]]
}

// A bed is two daemons on a wire: left begins, right answers.
type bed struct {
	t           *testing.T
	wire        *wire
	left, right *Daemon
	planes      [2]*plane
	stop        context.CancelFunc
	log         *lockedBuffer
	defects     [2]uint64 // that are wanted
}

var (
	leftAddr  = netip.MustParseAddr("192.0.2.1")
	rightAddr = netip.MustParseAddr("198.51.100.9")
)

// a tunnel as left sees it, or right.
func tunnelOf(t testing.TB, left bool, ikeWords, espWords string) *Tunnel {
	t.Helper()
	tun := &Tunnel{Name: "cust-a", Endpoint: leftAddr, Customer: rightAddr, LocalID: fqdn("left.example"), RemoteID: fqdn("right.example"),
		PSK: []byte("a shared key of some length"), IKELife: 8 * time.Hour, ChildLife: time.Hour, DPD: 30 * time.Second}
	if !left {
		tun.Endpoint, tun.Customer, tun.LocalID, tun.RemoteID = tun.Customer, tun.Endpoint, tun.RemoteID, tun.LocalID
	}
	p, err := suite.ParseIKE(ikeWords, true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := suite.ParseESP(espWords, true, true)
	if err != nil {
		t.Fatal(err)
	}
	tun.Proposals, tun.ChildProposals = []message.Proposal{p}, []message.Proposal{c}
	return tun
}

func fqdn(s string) message.ID { return message.ID{Type: message.IDFQDN, Data: []byte(s)} }

const (
	usualIKE = "aes256gcm16-prfsha384-x25519"
	usualESP = "aes256gcm16-x25519-noesn"
)

// onBed runs f in a bubble of time with two daemons.
func onBed(t *testing.T, o Options, f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, o)
		defer b.end()
		f(b)
	})
}

// end stops both daemons; nothing may be left over.
func (b *bed) end() {
	b.t.Helper()
	b.wire.set(func(w *wire) { w.loss = 0 })
	b.stop()
	synctest.Wait()
	time.Sleep(5 * time.Minute) // whatever timers there are end
	for i, p := range b.planes {
		if list := p.pairs(); len(list) > 0 {
			b.t.Errorf("%d pairs are left over at end %d", len(list), i)
		}
		if len(p.reserved) > 0 {
			b.t.Errorf("%d SPIs are left over at end %d", len(p.reserved), i)
		}
	}
	for i, d := range []*Daemon{b.left, b.right} {
		if n := d.Stats().Defects; n != b.defects[i] {
			b.t.Errorf("end %d panicked %d times", i, n)
		}
	}
	if b.t.Failed() {
		b.t.Log(b.log.String())
	}
}

func newBed(t *testing.T, o Options) *bed {
	b := &bed{t: t, wire: &wire{rng: rand.New(rand.NewPCG(1, 2)), ends: map[netip.Addr]*Daemon{}}, log: &lockedBuffer{}}
	b.planes = [2]*plane{newPlane("left", 0x1000), newPlane("right", 0x2000)}
	make := func(i int, name string) *Daemon {
		oo := o
		oo.Transport, oo.Dataplane, oo.Workers = b.wire, b.planes[i], 2
		oo.Log = slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("end", name)
		return New(oo)
	}
	b.left, b.right = make(0, "left"), make(1, "right")
	b.wire.ends[leftAddr], b.wire.ends[rightAddr] = b.left, b.right
	ctx, stop := context.WithCancel(t.Context())
	b.stop = stop
	go b.left.Run(ctx)
	go b.right.Run(ctx)
	return b
}

// A lockedBuffer is a log that both ends write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// usual gives both ends the usual tunnel.
func (b *bed) usual() {
	b.left.SetTunnels([]*Tunnel{tunnelOf(b.t, true, usualIKE, usualESP)})
	b.right.SetTunnels([]*Tunnel{tunnelOf(b.t, false, usualIKE, usualESP)})
}

// up negotiates the tunnel and waits until both ends use it.
func (b *bed) up() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	if err := b.left.Initiate(ctx, "cust-a"); err != nil {
		b.t.Fatalf("not established: %v\n%s", err, b.log)
	}
	time.Sleep(2 * time.Second)
	b.agree()
}

// agree checks that both ends have the same pair in use, mirrored, and no others.
func (b *bed) agree() {
	b.t.Helper()
	l, r := b.planes[0].used("cust-a"), b.planes[1].used("cust-a")
	if l == nil || r == nil {
		b.t.Fatalf("no pair in use: left %v, right %v\n%s", l != nil, r != nil, b.log)
	}
	if l.SPIIn != r.SPIOut || l.SPIOut != r.SPIIn || !bytes.Equal(l.KeyIn, r.KeyOut) || !bytes.Equal(l.KeyOut, r.KeyIn) || l.Suite != r.Suite || l.ESN != r.ESN {
		b.t.Fatalf("the ends disagree: %#x/%#x and %#x/%#x\n%s", l.SPIIn, l.SPIOut, r.SPIIn, r.SPIOut, b.log)
	}
	if bytes.Equal(l.KeyIn, l.KeyOut) {
		b.t.Fatal("both directions have one key")
	}
}

// counts checks how many IKE SAs and pairs each end has.
func (b *bed) counts(ikes, pairs int) {
	b.t.Helper()
	for i, d := range []*Daemon{b.left, b.right} {
		views, _, _ := d.Show("cust-a")
		n := 0
		for _, v := range views {
			n += len(v.Children)
		}
		if len(views) != ikes || n != pairs || len(b.planes[i].pairs()) != pairs {
			b.t.Fatalf("end %d has %d IKE SAs with %d pairs, and %d pairs installed; want %d and %d\n%s", i, len(views), n, len(b.planes[i].pairs()), ikes, pairs, b.log)
		}
	}
}
