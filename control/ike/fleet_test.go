package ike

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"causeway/control/ike/message"
)

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
		negotiated := b.negotiated() // the customer goes on asking whether we live
		b.seats[1].d.Receive(netip.AddrPortFrom(rightAddr, Port), netip.AddrPortFrom(leftAddr, Port), initOf(b.t))
		if err := b.seats[0].d.Initiate(failing, "cust-a"); err == nil || !strings.Contains(err.Error(), "the cluster's store is not reached") {
			b.t.Errorf("initiate: %v", err)
		}
		synctest.Wait()
		if got, dropped := b.negotiated()-negotiated, b.seats[1].d.Stats().Dropped; got != 0 || dropped["store_away"] != 1 {
			b.t.Errorf("a new negotiation while the store is away: %d messages, dropped %v", got, dropped)
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

// An operator's command waits while hubs choose who leads, and no longer.
func TestFleetCommandsWait(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		away := func(yes bool) { b.store.change(func() { b.store.away = yes }) }
		spent := func(err error) { b.planes[1].mu.Lock(); b.planes[1].spent = err; b.planes[1].mu.Unlock() }
		d, patience := b.seats[0].d, 2*storeWait
		for _, x := range []struct {
			what    string
			breaks  func()
			mends   func()
			command func(ctx context.Context) error
			waits   time.Duration
		}{
			{"initiate without the store", func() { away(true) }, func() { away(false) }, func(ctx context.Context) error { return d.Initiate(ctx, "cust-a") }, storeWait},
			{"rekey without the store", func() { away(true) }, func() { away(false) }, func(ctx context.Context) error { return d.Rekey(ctx, "cust-a", false) }, storeWait},
			{"rekey --ike without the store", func() { away(true) }, func() { away(false) }, func(ctx context.Context) error { return d.Rekey(ctx, "cust-a", true) }, storeWait},
			{"rekey as the store is lost", func() { spent(ErrStoreAway) }, func() { spent(nil) }, func(ctx context.Context) error { return d.Rekey(ctx, "cust-a", false) }, patience},
		} {
			ctx, cancel := context.WithTimeout(b.t.Context(), patience)
			x.breaks()
			began := time.Now()
			if err, took := x.command(ctx), time.Since(began); !errors.Is(err, ErrStoreAway) || took < x.waits || took > x.waits+time.Second {
				b.t.Errorf("%s: %v after %v", x.what, err, took)
			}
			cancel()
			time.AfterFunc(12*time.Second, x.mends)
			ctx, cancel = context.WithTimeout(b.t.Context(), patience)
			if err := x.command(ctx); err != nil {
				b.t.Errorf("%s, until 12 s later: %v", x.what, err)
			}
			cancel()
			time.Sleep(10 * time.Second) // what is replaced goes later
			b.one()
		}
	})
}

// Without the store, and without the node that has the SA, the others say that the endpoint lives; nothing but that. Afterwards one of
// them takes the SA over, with message IDs that nobody has written down.
func TestFleetAnswersFor(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		b.begun()
		b.store.change(func() { b.store.away, b.seats[0].silent = true, true })
		b.route(1, 2)
		time.Sleep(5 * time.Minute) // the customer asks each half a minute, and gives up after one without an answer
		if n := b.seats[1].d.Stats().AnsweredFor + b.seats[2].d.Stats().AnsweredFor; n < 5 || b.begun() > 0 || len(b.left.of("cust-a")) != 1 {
			b.t.Errorf("%d signs of life, %d IKE SAs at the customer", n, len(b.left.of("cust-a")))
		}
		hostile := b.left.of("cust-a")[0]
		sent := b.sent()
		for _, id := range []uint32{0, 1 << 20} { // long over, and not authentic
			h := message.Header{SPIi: hostile.SPIi, SPIr: hostile.SPIr, Major: 2, Exchange: message.Informational, Initiator: true, ID: id}
			d := message.AppendSealedHeader(nil, h, message.Sealed{}, 25)
			b.seats[1].d.Receive(netip.AddrPortFrom(rightAddr, Port), netip.AddrPortFrom(leftAddr, Port), append(d, make([]byte, 25)...))
		}
		synctest.Wait()
		if x := b.seats[1].d.Stats(); b.sent() != sent || x.Dropped["unauthentic"] != 1 {
			b.t.Errorf("hostile requests are answered, or not counted: %v", x.Dropped)
		}
		b.store.change(func() { b.store.away = false })
		b.seats[0].crash()
		if err := b.seats[1].d.TakeOver(b.records()[0]); err != nil {
			b.t.Fatal(err)
		}
		b.route(1)
		time.Sleep(time.Second)
		b.rekeys()
		if b.begun() > 0 {
			b.t.Error("the customer has begun anew")
		}
	})
}

// A pair that the peer has agreed to is not removed by a node that loses its SA before it could store that: who goes on with the SA asks
// again, and has the same one.
func TestFleetYieldsAgreedPair(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		b.wire.set(func(w *wire) {
			w.tap = func(from, to netip.AddrPort, d []byte) []byte {
				if h, err := message.ParseHeader(d); err == nil && h.Exchange == message.CreateChildSA && h.Response {
					b.store.change(func() { b.store.away = true })
				}
				return b.divert(from, to, d)
			}
		})
		go b.seats[0].d.Rekey(b.t.Context(), "cust-a", false)
		time.Sleep(time.Second)
		if n := len(b.planes[1].pairs()); n != 2 {
			b.t.Fatalf("%d pairs, want the old one and the new one", n)
		}
		b.seats[0].d.Taken(b.records()[0], "the test")
		synctest.Wait()
		if n := len(b.planes[1].pairs()); n != 2 {
			b.t.Errorf("%d pairs are left: one that the other node uses is gone", n)
		}
		b.store.change(func() { b.store.away = false })
		b.planes[1].Remove("cust-a", 0x2002)
	})
}

// A request that asks for something is not answered for the node that has the SA.
func TestFleetAnswersForNothingElse(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		b.store.change(func() { b.store.away, b.seats[0].silent = true, true })
		b.route(1)
		s := b.left.of("cust-a")[0]
		s.do(func() { s.deleteSelf("the test") })
		time.Sleep(3 * time.Second)
		if x := b.seats[1].d.Stats(); x.AnsweredFor != 0 || x.ForwardedOut == 0 || len(b.left.of("cust-a")) != 1 {
			b.t.Errorf("a deletion: answered %d, forwarded %d, the customer has %d IKE SAs", x.AnsweredFor, x.ForwardedOut, len(b.left.of("cust-a")))
		}
		b.store.change(func() { b.store.away, b.seats[0].silent = false, false })
		time.Sleep(20 * time.Second) // it asks again
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

// An SA that a node leaves to the others while it is being stored stays in the store, and so do its pairs if they come to be there.
func TestFleetLeavesWhileStoring(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprint("store away ", away), func(t *testing.T) {
			onFleet(t, func(b *fleetBed) {
				b.up()
				s := b.seats[0].d.of("cust-a")[0]
				b.store.change(func() { b.store.away = away })
				s.do(func() {
					clear(s.kept.children) // as if the pair were new
					s.commit(nil)
					s.yield("the test says so")
				})
				time.Sleep(time.Second)
				b.store.change(func() { b.store.away, b.seats[0].dead = false, true })
				if pairs := len(b.planes[1].pairs()); len(b.records()) != 1 || (pairs == 0) != away {
					b.t.Fatalf("%d records, %d pairs", len(b.records()), pairs)
				}
				b.route(1)
				if away { // the pair was one that the customer does not have
					return
				}
				b.rekeysOf(b.left)
				b.rekeys()
			})
		})
	}
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
