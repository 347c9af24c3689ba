package ike

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"causeway/control/ike/message"
)

// onItsOwn has the store away for a while, or back, at nodes that go on without it.
func (b *fleetBed) onItsOwn(yes bool) {
	b.store.change(func() { b.store.away, b.store.local = yes, true })
}

// Where the operator has chosen so, nodes negotiate without the store, with all that belongs to it, and datagrams to any node of theirs.
// When the store is there again it has what they have made, and any node goes on with that.
func TestFleetNegotiatesWhileAway(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.onItsOwn(true)
		b.route(0, 1)
		b.up()
		for _, d := range []*Daemon{b.left, b.holder().d} {
			for _, ike := range []bool{false, true} {
				if err := d.Rekey(b.t.Context(), "cust-a", ike); err != nil {
					b.t.Fatalf("rekey (of the IKE SA: %v): %v\n%s", ike, err, b.log)
				}
				time.Sleep(10 * time.Second)
				b.agree()
				if len(b.planes[1].pairs()) != 1 {
					b.t.Errorf("%d pairs", len(b.planes[1].pairs()))
				}
			}
		}
		time.Sleep(2 * time.Minute) // the customer asks whether we live
		if n := len(b.records()); n > 0 {
			b.t.Errorf("the store that is away has %d IKE SAs", n)
		}
		b.onItsOwn(false)
		time.Sleep(time.Second)
		b.one()
		b.rekeys()
		b.begun()
		b.holder().crash()
		b.route(2)
		b.rekeysOf(b.left)
		if b.begun() > 0 {
			b.t.Error("the customer has begun anew")
		}
	})
}

// What the store has, or may have, another node may take over: without the store nothing of that is changed, whatever the operator has chosen.
func TestFleetStoredWaitsWhileAway(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		before := b.planes[1].used("cust-a").SPIIn
		b.onItsOwn(true)
		var refused refusedError
		if err := b.left.rekey(b.t.Context(), "cust-a", false); !errors.As(err, &refused) || refused.is != message.NotifyTemporaryFailure {
			b.t.Errorf("a rekey is answered with %v", err)
		}
		sent := b.sent()
		go b.holder().d.rekey(b.t.Context(), "cust-a", false)
		time.Sleep(time.Second)
		if b.sent() != sent || b.planes[1].used("cust-a").SPIIn != before {
			b.t.Error("a request left that the store does not have")
		}
		b.onItsOwn(false)
		time.Sleep(time.Minute)
		b.one()
	})
}

// The store is away for longer than pairs live: the tunnel is begun anew, and has packets all the time. In the end there is one of everything.
func TestFleetBeginsAnewWhileAway(t *testing.T) {
	for name, x := range map[string]struct {
		child, ike time.Duration // lifetimes
		held       bool          // the pair was to be replaced already, which waits for the store
	}{"pair": {child: time.Hour, ike: 8 * time.Hour}, "ike": {child: 10 * time.Hour, ike: time.Hour}, "asked for": {child: time.Hour, ike: 8 * time.Hour, held: true}} {
		t.Run(name, func(t *testing.T) { onFleet(t, func(b *fleetBed) { b.beginsAnew(x.child, x.ike, x.held) }) })
	}
}

func (b *fleetBed) beginsAnew(child, ike time.Duration, held bool) {
	b.t.Helper()
	for i, d := range []*Daemon{b.left, b.seats[0].d, b.seats[1].d, b.seats[2].d} {
		x := tunnelOf(b.t, i == 0, usualIKE, usualESP)
		x.ChildLife, x.IKELife = child, ike
		if i == 0 { // it leaves replacing to us
			x.ChildLife, x.IKELife = 2*child, 2*ike
		}
		d.SetTunnels([]*Tunnel{x})
	}
	b.up()
	b.onItsOwn(true)
	if held {
		go b.seats[0].d.rekey(b.t.Context(), "cust-a", false)
	}
	before, begin := b.planes[1].used("cust-a").SPIIn, time.Now()
	for time.Since(begin) < 2*time.Hour {
		time.Sleep(10 * time.Second)
		if l, r := b.planes[0].used("cust-a"), b.planes[1].used("cust-a"); l != nil && r != nil && l.SPIIn != r.SPIOut {
			time.Sleep(2 * switchTime) // one end goes over to a new pair before the other one
		}
		b.agree()
	}
	if b.planes[1].used("cust-a").SPIIn == before {
		b.t.Fatal("the pair of two hours ago is used")
	}
	b.onItsOwn(false)
	time.Sleep(2 * time.Minute)
	b.one()
	b.rekeys()
}

// The write of a new SA is under way when the store goes: the store may have it, so nothing leaves before it says so.
func TestFleetOfferedWaitsWhileAway(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.store.change(func() { b.store.local = true })
		b.wire.set(func(w *wire) {
			w.tap = func(from, to netip.AddrPort, d []byte) []byte {
				if h, err := message.ParseHeader(d); err == nil && h.Exchange == message.IKEAuth && !h.Response {
					time.AfterFunc(2*time.Millisecond, func() { b.onItsOwn(true) }) // it comes after 1 ms, and writing takes 3
				}
				return b.divert(from, to, d)
			}
		})
		ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
		defer cancel()
		if err := b.left.Initiate(ctx, "cust-a"); err == nil {
			b.t.Error("a response has left that the store does not have")
		}
		b.wire.set(func(w *wire) { w.tap = b.divert })
		b.onItsOwn(false)
		time.Sleep(time.Minute)
		b.one()
	})
}

// One node is cut off from the store while it replaces an IKE SA, and goes on without it where it may. Another one takes over what the store
// has, and with it what the new SA is made of: the first one must not act in that.
func TestFleetCutOffWhileReplacing(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.up()
		a, other := b.seats[0], b.seats[1]
		b.wire.set(func(w *wire) {
			w.tap = func(from, to netip.AddrPort, d []byte) []byte {
				h, err := message.ParseHeader(d)
				if err == nil && h.Exchange == message.CreateChildSA && !h.Response {
					b.store.change(func() { b.store.local, a.cut, a.sent = true, true, 0 })
				}
				return b.divert(from, to, d)
			}
		})
		go a.d.Rekey(b.t.Context(), "cust-a", true)
		time.Sleep(time.Second)
		if len(b.left.of("cust-a")) != 2 { // the old one is not deleted yet
			b.t.Fatalf("the customer has %d IKE SAs", len(b.left.of("cust-a")))
		}
		b.wire.set(func(w *wire) { w.tap = b.divert })
		b.store.change(func() { a.dead = true })
		b.route(1)
		for _, spi := range b.records() {
			if err := other.d.TakeOver(spi); err != nil {
				b.t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Minute)
		b.store.change(func() {
			if a.sent > 0 {
				b.t.Errorf("the node that is cut off has sent %d messages", a.sent)
			}
			a.cut, a.dead = false, false
		})
		for _, spi := range b.records() {
			a.d.Taken(spi, "the test")
		}
		time.Sleep(time.Minute)
		b.route(0, 1)
		b.one()
		b.rekeys()
	})
}

// A peer that makes pairs all the time does not use up what all tunnels have while the store is away.
func TestFleetSparesSPIs(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.onItsOwn(true)
		b.up()
		made := 1
		for ; made <= 2*spareBurst; made++ {
			var refused refusedError
			if err := b.left.rekey(b.t.Context(), "cust-a", false); errors.As(err, &refused) && refused.is == message.NotifyTemporaryFailure {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if made != spareBurst {
			b.t.Errorf("a peer made %d pairs in a row, want %d", made, spareBurst)
		}
		time.Sleep(2 * time.Minute)
		b.rekeysWithoutStore(b.left)
		b.onItsOwn(false)
		time.Sleep(time.Minute)
		b.rekeys()
	})
}

// rekeysWithoutStore has one end replace the pair.
func (b *fleetBed) rekeysWithoutStore(d *Daemon) {
	b.t.Helper()
	if err := d.Rekey(b.t.Context(), "cust-a", false); err != nil {
		b.t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	b.agree()
}

// A node that stops tells the peers of SAs that nobody else knows.
func TestFleetStopsWhileAway(t *testing.T) {
	onFleet(t, func(b *fleetBed) {
		b.onItsOwn(true)
		if err := b.seats[0].d.Initiate(b.t.Context(), "cust-a"); err != nil {
			b.t.Fatal(err)
		}
		b.seats[0].stop()
		time.Sleep(2 * time.Second)
		b.store.change(func() { b.seats[0].dead = true })
		if n := len(b.left.of("cust-a")); n != 0 {
			b.t.Errorf("the customer has %d IKE SAs with a node that has stopped", n)
		}
		b.onItsOwn(false)
	})
}
