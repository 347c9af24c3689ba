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
)

// A store is what seats have in common, in memory. Writing takes a while.
type store struct {
	mu       sync.Mutex
	records  map[uint64]Stored
	revision uint64
	away     bool
	local    bool // nodes go on without it
	seats    []*seat
}

const writeTime = 3 * time.Millisecond

// A seat is a node at a store.
type seat struct {
	*store
	t      *testing.T
	name   string
	number uint64 // from 1 on
	d      *Daemon
	stop   context.CancelFunc
	dead   bool // the others know that it is gone
	silent bool // it is cut off: what is forwarded to it is lost
	cut    bool // it does not reach the store, and the others do
	sent   int  // messages that it has sent
}

func (n *seat) SPI() uint64 { return n.number<<44 | rand.Uint64N(1<<44) }

func (n *seat) Write(s Stored, revision uint64, done func(uint64, error)) {
	s.Node, s.State = n.name, bytes.Clone(s.State)
	given := n.Reached()
	time.AfterFunc(writeTime, func() {
		n.mu.Lock()
		if n.away || n.cut {
			n.mu.Unlock()
			if given {
				done(0, errors.New("the store is away"))
			} else {
				done(0, ErrNotGiven)
			}
			return
		}
		if n.records[s.SPI].Revision != revision {
			n.mu.Unlock()
			done(0, ErrTaken)
			return
		}
		n.revision++
		s.Revision = n.revision
		n.records[s.SPI] = s
		n.mu.Unlock()
		n.tell(s.SPI)
		done(s.Revision, nil)
	})
}

// tell tells the other nodes of a change.
func (n *seat) tell(spi uint64) {
	for _, o := range n.seats {
		if o != n && o.heard() && o.Reached() {
			o.d.Taken(spi, "another node wrote it")
		}
	}
}

func (n *seat) Erase(spi, revision uint64) {
	if !n.Reached() { // it is remembered
		time.AfterFunc(time.Second, func() { n.Erase(spi, revision) })
		return
	}
	n.mu.Lock()
	same := n.records[spi].Revision == revision
	if same {
		delete(n.records, spi)
	}
	n.mu.Unlock()
	if same {
		n.tell(spi)
	}
}

func (n *seat) where(s Stored) Where {
	for _, o := range n.seats {
		switch {
		case s.Node != o.name || s.Revision == 0:
		case o == n:
			return Here
		case o.dead:
			return Vacant
		default:
			return There
		}
	}
	return Nowhere
}

func (n *seat) Find(spi uint64) Stored {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.records[spi]
	s.Where, s.State = n.where(s), nil
	return s
}

func (n *seat) Load(spi uint64) (Stored, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.records[spi]
	if !ok {
		return s, fmt.Errorf("no IKE SA %016x", spi)
	}
	s.Where, s.State = n.where(s), bytes.Clone(s.State)
	return s, nil
}

func (n *seat) Of(tunnel string) (list []Stored) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.records {
		if s.Tunnel == tunnel && s.Node != n.name {
			s.Where, s.State = n.where(s), nil
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b Stored) int { return a.Established.Compare(b.Established) })
	return list
}

func (n *seat) Forward(spi uint64, local, remote netip.AddrPort, b []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.records[spi]
	for _, o := range n.seats {
		if o != n && !o.dead && (s.Node == o.name || s.Revision == 0 && spi>>44 == o.number) {
			if !o.silent {
				b := bytes.Clone(b)
				time.AfterFunc(time.Millisecond, func() { o.d.Forwarded(local, remote, b) })
			}
			return true
		}
	}
	return false
}

// Leads: the first that lives.
func (n *seat) Leads(string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, o := range n.seats {
		if !o.dead {
			return o == n
		}
	}
	return false
}

func (n *seat) Reached() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.away && !n.cut
}

func (n *seat) Local() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.local
}

// wrong is by how much the clocks of all seats differ from what they have in common.
const wrong = -100 * time.Hour

func (n *seat) Common(t time.Time) time.Time { return moved(t, wrong) }
func (n *seat) Own(t time.Time) time.Time    { return moved(t, -wrong) }

func moved(t time.Time, by time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(by)
}

func (n *seat) CookieKeys() [][32]byte { return [][32]byte{{1}, {2}} }

// change changes what all nodes see.
func (s *store) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// heard reports whether a node is not cut off.
func (n *seat) heard() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.silent
}

// crash ends a node without a word.
func (n *seat) crash() {
	n.mu.Lock()
	n.silent, n.dead = true, true
	n.mu.Unlock()
	n.d.mu.Lock()
	var all []*ikeSA
	for _, s := range n.d.bySPI {
		all = append(all, s)
	}
	n.d.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		s.phase = dead
		s.d.clock.drop(s)
		s.d.forget(s)
		s.mu.Unlock()
	}
}

// A fleetBed is a bed whose right end is three nodes with one dataplane. The wire gives what is for them to one of them, or in turn.
type fleetBed struct {
	*bed
	store *store
	seats []*seat
	to    []int // the nodes that get what comes, in turn
	turn  int
	log   *lockedBuffer
	inits int // IKE_SA_INIT requests that left has sent
	ours  int // IKE_SA_INIT messages, of either kind, that the nodes have sent; under the store's lock
}

func onFleet(t *testing.T, f func(b *fleetBed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &fleetBed{bed: newBed(t, Options{}), store: &store{records: map[uint64]Stored{}}, to: []int{0}}
		b.log = b.bed.log
		for i, name := range []string{"a", "b", "c"} {
			n := &seat{store: b.store, t: t, name: name, number: uint64(i + 1)}
			l := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("end", name)
			n.d = New(Options{Log: l, Transport: sender{b, n}, Dataplane: b.planes[1], Workers: 2, Fleet: n})
			ctx, stop := context.WithCancel(t.Context())
			n.stop = stop
			b.seats = append(b.seats, n)
			go n.d.Run(ctx)
		}
		b.store.seats = b.seats
		b.wire.tap = b.divert
		b.bed.right = b.seats[0].d
		b.left.SetTunnels([]*Tunnel{tunnelOf(t, true, usualIKE, usualESP)})
		for _, n := range b.seats {
			n.d.SetTunnels([]*Tunnel{tunnelOf(t, false, usualIKE, usualESP)})
		}
		defer b.end()
		f(b)
	})
}

// end stops all. The store has nothing then, and no node anything of its own.
func (b *fleetBed) end() {
	b.t.Helper()
	b.stop() // left tells the right end that all is over
	time.Sleep(5 * time.Second)
	for _, n := range b.seats {
		n.stop()
	}
	time.Sleep(5 * time.Minute)
	if n := len(b.records()); n > 0 {
		b.t.Errorf("%d IKE SAs are left over in the store", n)
	}
	if n := len(b.planes[1].pairs()); n > 0 {
		b.t.Errorf("%d pairs are left over", n)
	}
	for _, n := range b.seats {
		if x := n.d.Stats(); x.Defects > 0 || x.SAs > 0 && !n.dead {
			b.t.Errorf("node %s has %d defects and %d SAs", n.name, x.Defects, x.SAs)
		}
	}
	if b.t.Failed() {
		b.t.Log(b.log.String())
	}
}

// divert gives what comes to the right end to the nodes in turn.
func (b *fleetBed) divert(from, to netip.AddrPort, d []byte) []byte {
	if to.Addr() != rightAddr {
		return d
	}
	if h, err := message.ParseHeader(d); err == nil && h.Exchange == message.IKESAInit {
		b.inits++
	}
	n := b.seats[b.to[b.turn%len(b.to)]]
	b.turn++
	time.AfterFunc(time.Millisecond, func() { n.d.Receive(to, from, d) })
	return nil
}

// A sender is what a node sends by: a response, or a request that is more than a sign of life, must be in the store when it leaves.
type sender struct {
	b *fleetBed
	n *seat
}

func (x sender) Send(local, remote netip.AddrPort, d []byte) error {
	if !x.n.heard() {
		return nil
	}
	x.b.store.change(func() { x.n.sent++ })
	h, err := message.ParseHeader(d)
	if err != nil {
		x.b.t.Errorf("%s sends what is no message: %v", x.n.name, err)
	}
	spi := h.SPIr
	if h.Initiator {
		spi = h.SPIi
	}
	if h.Exchange == message.IKESAInit {
		x.b.store.change(func() { x.b.ours++ })
	}
	if h.Exchange == message.CreateChildSA {
		x.b.store.mu.Lock()
		s, away := x.b.store.records[spi], x.b.store.away || x.n.cut
		x.b.store.mu.Unlock()
		st, err := parseState(s.State)
		has := func(list [][]byte) bool {
			return slices.ContainsFunc(list, func(o []byte) bool { return bytes.Equal(o, d) })
		}
		if !away && (err != nil || s.Node != x.n.name || !(h.Response && has(st.Answer.Datagrams) || !h.Response && st.Pending != nil && has(st.Pending.Datagrams))) {
			x.b.t.Errorf("%s sends a message with id %d (response %v) that is not in the store, which has revision %d of %q", x.n.name, h.ID, h.Response, s.Revision, s.Node)
		}
	}
	return x.b.wire.Send(local, remote, d)
}

// route has what comes go to these nodes, in turn.
func (b *fleetBed) route(to ...int) { b.wire.set(func(*wire) { b.to = to }) }

// begun is how often left has begun since it was asked the last time.
func (b *fleetBed) begun() (n int) {
	b.wire.set(func(*wire) { n, b.inits = b.inits, 0 })
	return n
}

// sent is how many messages were sent.
func (b *fleetBed) sent() (n int) {
	b.wire.set(func(w *wire) { n = w.sent })
	return n
}

// negotiated is how many messages of new negotiations the nodes have sent.
func (b *fleetBed) negotiated() (n int) {
	b.store.change(func() { n = b.ours })
	return n
}

// records is how many IKE SAs the store has.
func (b *fleetBed) records() (spis []uint64) {
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	for spi := range b.store.records {
		spis = append(spis, spi)
	}
	return spis
}

// holder is the node that has the tunnel's IKE SA.
func (b *fleetBed) holder() *seat {
	b.t.Helper()
	var found []*seat
	for _, n := range b.seats {
		if !n.dead && len(n.d.of("cust-a")) > 0 {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		b.t.Fatalf("%d nodes have the IKE SA\n%s", len(found), b.log)
	}
	return found[0]
}

// one checks that there is one IKE SA with one pair on both sides, the same.
func (b *fleetBed) one() {
	b.t.Helper()
	b.agree()
	h := b.holder()
	views, _, _ := h.d.Show("cust-a")
	if len(views) != 1 || len(views[0].Children) != 1 || len(b.planes[0].pairs()) != 1 || len(b.planes[1].pairs()) != 1 || len(b.records()) != 1 {
		b.t.Fatalf("%d IKE SAs, %d and %d pairs, %d records\n%s", len(views), len(b.planes[0].pairs()), len(b.planes[1].pairs()), len(b.records()), b.log)
	}
	for _, spi := range b.records() {
		if s := h.Find(spi); s.Where != Here {
			b.t.Errorf("%s has the SA, and the store says %v", h.name, s)
		}
	}
}

// rekeys has both ends replace the pair and the IKE SA.
func (b *fleetBed) rekeys() {
	b.t.Helper()
	for _, d := range []*Daemon{b.left, b.holder().d} {
		for _, ike := range []bool{false, true} {
			if err := d.Rekey(b.t.Context(), "cust-a", ike); err != nil {
				b.t.Fatalf("rekey (of the IKE SA: %v): %v\n%s", ike, err, b.log)
			}
			time.Sleep(10 * time.Second)
			b.one()
		}
	}
}
