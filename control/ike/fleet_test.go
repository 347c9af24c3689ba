package ike

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
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
}

func (n *seat) SPI() uint64 { return n.number<<44 | rand.Uint64N(1<<44) }

func (n *seat) Write(s Stored, revision uint64, done func(uint64, error)) {
	s.Node, s.State = n.name, bytes.Clone(s.State)
	time.AfterFunc(writeTime, func() {
		n.mu.Lock()
		if n.away {
			n.mu.Unlock()
			done(0, errors.New("the store is away"))
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
		if o != n && o.heard() {
			o.d.Taken(spi, "another node wrote it")
		}
	}
}

func (n *seat) Erase(spi, revision uint64) {
	n.mu.Lock()
	same := n.records[spi].Revision == revision && !n.away
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
	return !n.away
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
	h, err := message.ParseHeader(d)
	if err != nil {
		x.b.t.Errorf("%s sends what is no message: %v", x.n.name, err)
	}
	spi := h.SPIr
	if h.Initiator {
		spi = h.SPIi
	}
	if h.Exchange == message.CreateChildSA {
		x.b.store.mu.Lock()
		s, away := x.b.store.records[spi], x.b.store.away
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

// Datagrams come to any node, and one has the SA.
func TestFleetAnyNode(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.route(0, 1, 2)
		b.up()
		b.rekeys()
		if n := b.seats[0].d.Stats().ForwardedOut + b.seats[1].d.Stats().ForwardedOut + b.seats[2].d.Stats().ForwardedOut; n == 0 {
			b.t.Error("nothing was forwarded")
		}
	})
}

// The node that has an SA is gone: another goes on with it, without a new negotiation, and no message of the gone one is needed.
func TestFleetNodeGone(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		b.rekeys()
		b.begun()
		for i := range 2 {
			if h := b.holder(); h != b.seats[i] {
				b.t.Fatalf("node %s has the SA", h.name)
			}
			b.seats[i].crash()
			b.route(i + 1)
			if err := b.left.Rekey(b.t.Context(), "cust-a", i == 1); err != nil {
				b.t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			b.one()
			b.rekeys()
		}
		if n := b.begun(); n > 0 {
			b.t.Errorf("%d new negotiations", n)
		}
		if n := b.seats[2].d.Stats().TakenOver; n != 1 {
			b.t.Errorf("%d SAs were taken over", n)
		}
	})
}

// A node is gone just when it has asked for something: who takes over asks again, and understands the answer.
func TestFleetGoneWhileAsking(t *testing.T) {
	for _, ike := range []bool{false, true} {
		for _, lost := range []bool{false, true} { // the request, or its response
			t.Run(fmt.Sprintf("ike %v, request lost %v", ike, lost), func(t *testing.T) {
				onFleet(t, func(b *fleetBed) {
					b.up()
					b.begun()
					asked := false
					b.wire.set(func(w *wire) {
						w.tap = func(from, to netip.AddrPort, d []byte) []byte {
							h, err := message.ParseHeader(d)
							if err == nil && h.Exchange == message.CreateChildSA && h.Response != lost {
								asked = true
								return nil
							}
							return b.divert(from, to, d)
						}
					})
					go b.seats[0].d.Rekey(b.t.Context(), "cust-a", ike)
					time.Sleep(100 * time.Millisecond)
					b.wire.set(func(*wire) {
						if !asked {
							b.t.Fatal("nothing was asked")
						}
					})
					b.seats[0].crash()
					b.route(1)
					b.wire.set(func(w *wire) { w.tap = b.divert })
					for _, spi := range b.records() {
						if err := b.seats[1].d.TakeOver(spi); err != nil {
							b.t.Fatal(err)
						}
					}
					time.Sleep(20 * time.Second)
					b.one()
					if n := b.planes[1].used("cust-a").SPIIn; !ike && n != 0x2002 {
						b.t.Errorf("pair %#x is used: the one that was asked for is 0x2002", n)
					}
					b.rekeys()
					if n := b.begun(); n > 0 {
						b.t.Errorf("%d new negotiations", n)
					}
				})
			})
		}
	}
}

// Two nodes believe that they have an SA: only what one of them stores leaves, and the other one forgets it.
func TestFleetTwoBelieve(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		a, other := b.seats[0], b.seats[1]
		b.store.change(func() {
			a.silent = true // what the store says it does not hear of
			a.dead = true   // so the others believe
		})
		b.route(1)
		if err := b.left.Rekey(b.t.Context(), "cust-a", false); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if len(a.d.of("cust-a")) != 1 || len(other.d.of("cust-a")) != 1 {
			b.t.Fatal("the test does not have two nodes that believe")
		}
		sent := b.sent()
		pairs := len(b.planes[1].pairs())
		s := a.d.of("cust-a")[0]
		s.do(func() { s.createChild(nil, nil) })
		s.do(func() { s.deleteChild(s.Children[0]) })
		b.store.change(func() { a.silent = false })
		time.Sleep(time.Second)
		if n := len(a.d.of("cust-a")); n != 0 {
			b.t.Errorf("the node that lost has %d IKE SAs", n)
		}
		if b.sent() != sent || len(b.planes[1].pairs()) != pairs || len(b.planes[1].reserved) > 0 {
			b.t.Errorf("the node that lost has sent %d messages; %d pairs, before %d", b.sent()-sent, len(b.planes[1].pairs()), pairs)
		}
		b.store.change(func() { a.dead = false })
		b.route(0, 1)
		b.one()
		b.rekeys()
	})
}

// Without the store nothing new is made, what is up stays up, and afterwards all goes on.
func TestFleetStoreAway(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		away := func(yes bool) { b.store.change(func() { b.store.away = yes }) }
		away(true)
		before := b.planes[1].used("cust-a").SPIIn
		err := b.left.rekey(b.t.Context(), "cust-a", false)
		var refused refusedError
		if !errors.As(err, &refused) || refused.is != message.NotifyTemporaryFailure {
			b.t.Errorf("a rekey is answered with %v", err)
		}
		time.Sleep(2 * time.Minute) // the customer asks whether we live
		b.agree()
		if b.planes[1].used("cust-a").SPIIn != before {
			b.t.Error("a pair was made")
		}
		failing, cancel := context.WithTimeout(b.t.Context(), time.Second)
		defer cancel()
		sent := b.sent()
		b.seats[1].d.Receive(netip.AddrPortFrom(rightAddr, Port), netip.AddrPortFrom(leftAddr, Port), initOf(b.t))
		if err := b.seats[0].d.Initiate(failing, "cust-a"); err == nil || !strings.Contains(err.Error(), "the cluster's store is not reached") {
			b.t.Errorf("initiate: %v", err)
		}
		synctest.Wait()
		if b.sent() != sent || b.seats[1].d.Stats().Dropped["store_away"] != 1 {
			b.t.Error("a new negotiation is answered")
		}
		away(false)
		time.Sleep(time.Minute)
		b.one()
		b.rekeys()
		b.seats[0].crash() // the answers from memory were ahead of what was stored
		b.route(1)
		b.rekeysOf(b.left)
	})
}

func (b *fleetBed) rekeysOf(d *Daemon) {
	b.t.Helper()
	if err := d.Rekey(b.t.Context(), "cust-a", false); err != nil {
		b.t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	b.one()
}

// initOf is an IKE_SA_INIT request, which nobody has to understand.
func initOf(t *testing.T) []byte {
	t.Helper()
	h := message.Header{SPIi: 77, Major: 2, Exchange: message.IKESAInit, Initiator: true}
	return openMessage(h, &message.Contents{Nonce: bytes.Repeat([]byte{1}, 32)})
}

// Answers from memory are ahead of what the store has.
func TestFleetAheadOfStore(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		for range 5 {
			s := b.left.of("cust-a")[0]
			s.do(s.probe)
			time.Sleep(time.Second)
		}
		b.seats[0].crash()
		b.route(1)
		b.rekeysOf(b.left)
		s := b.seats[1].d.of("cust-a")[0]
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.NextResponse < 7 {
			b.t.Errorf("the next request is %d", s.NextResponse)
		}
	})
}

// A peer that begins anew has no other SA in the fleet; of too many, the oldest end.
func TestFleetBeginsAnew(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		for _, s := range b.left.of("cust-a") { // the peer has lost all
			s.do(func() { s.end("the test") })
		}
		b.route(1)
		b.up()
		if h := b.holder(); h.name != "b" {
			b.t.Fatalf("%s has it", h.name)
		}
		b.one()
	})
}

// One of the nodes begins a tunnel: the one whose turn it is, also when another is gone, and none while another has it.
func TestFleetInitiates(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		tun := tunnelOf(b.t, false, usualIKE, usualESP)
		tun.Initiate = true
		begins := map[string]int{}
		b.wire.set(func(w *wire) {
			w.tap = func(from, to netip.AddrPort, d []byte) []byte {
				if h, err := message.ParseHeader(d); err == nil && h.Exchange == message.IKESAInit && from.Addr() == rightAddr && !h.Response {
					begins[b.seats[h.SPIi>>44-1].name]++
				}
				return b.divert(from, to, d)
			}
		})
		for _, n := range b.seats {
			n.d.SetTunnels([]*Tunnel{tun})
		}
		time.Sleep(time.Minute)
		b.one()
		b.seats[0].crash()
		b.route(1, 2)
		time.Sleep(10 * time.Second)
		by := func(a, other int) {
			b.t.Helper()
			b.wire.set(func(*wire) {
				if begins["a"] != a || begins["b"] != other || begins["c"] != 0 {
					b.t.Fatalf("the tunnel is begun by %v", begins)
				}
			})
		}
		by(1, 0)
		b.store.change(func() { clear(b.store.records) }) // nobody has it
		for _, s := range b.left.of("cust-a") {
			s.do(func() { s.end("the test") })
		}
		b.planes[1].Remove("cust-a", b.planes[1].used("cust-a").SPIIn)
		time.Sleep(time.Minute)
		by(1, 1)
		b.one()
	})
}

// A node that stops leaves its SAs to the others, and tells no peer anything.
func TestFleetStops(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		sent := b.sent()
		b.seats[0].stop()
		time.Sleep(3 * time.Second)
		b.store.change(func() { b.seats[0].dead = true })
		if b.sent() != sent || len(b.planes[1].pairs()) != 1 || len(b.records()) != 1 {
			b.t.Fatalf("%d messages, %d pairs, %d records", b.sent()-sent, len(b.planes[1].pairs()), len(b.records()))
		}
		b.route(2)
		b.rekeysOf(b.left)
		b.rekeys()
	})
}

// The cookie of one node is taken by all, one under the key before too.
func TestFleetCookies(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		now, from, nonce := time.Now(), netip.AddrPortFrom(leftAddr, Port), bytes.Repeat([]byte{3}, 32)
		made := b.seats[0].d.cookies.make(now, from, 5, nonce)
		for _, x := range []struct {
			after time.Duration
			want  bool
		}{{0, true}, {cookieLife, true}, {2 * cookieLife, false}, {-cookieLife, true}} {
			if got := b.seats[1].d.cookies.check(now.Add(x.after), made[:], from, 5, nonce); got != x.want {
				b.t.Errorf("%v later: %v", x.after, got)
			}
		}
		older := cookieOf([32]byte{2}, slot(now), from, 5, nonce)
		if !b.seats[2].d.cookies.check(now, older[:], from, 5, nonce) || b.left.cookies.check(now, made[:], from, 5, nonce) {
			b.t.Error("the key before is not taken, or one that is not known is")
		}
	})
}

// A forwarded datagram is not forwarded again.
func TestFleetForwardLoop(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		spi := b.records()[0]
		d := make([]byte, message.HeaderLen)
		h := message.Header{SPIi: 1, SPIr: spi, Major: 2, Exchange: message.Informational, Initiator: true, ID: 9, Length: message.HeaderLen}
		d = h.Append(d[:0])
		b.seats[1].d.Forwarded(netip.AddrPortFrom(rightAddr, Port), netip.AddrPortFrom(leftAddr, Port), d)
		x := b.seats[1].d.Stats()
		if x.ForwardedOut != 0 || x.Dropped["forward_loop"] != 1 {
			b.t.Errorf("forwarded %d, %v", x.ForwardedOut, x.Dropped)
		}
		binary.BigEndian.PutUint64(d[8:], 9<<44) // names nobody
		b.seats[1].d.Receive(netip.AddrPortFrom(rightAddr, Port), netip.AddrPortFrom(leftAddr, Port), d)
		if x := b.seats[1].d.Stats(); x.ForwardedOut != 0 || x.Dropped["unknown_spi"] != 1 {
			b.t.Errorf("forwarded %d, %v", x.ForwardedOut, x.Dropped)
		}
	})
}
