package cluster

import (
	"strings"
	"testing"
	"time"

	"causeway/control/ike"
)

// off has a node's clock show another time.
func (n *node) off(by time.Duration) *node {
	n.clock.now = func() time.Time { return time.Now().Add(by) }
	return n
}

// A node whose clock is hours wrong has what the others have, for as long, and they have what it makes.
func TestWrongClock(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, by := range []time.Duration{-30 * time.Hour, 30 * time.Hour} {
		b := newBed(t, "hub", "a", "b")
		hub, a, wrong := b.start("hub").joined(), b.start("a").joined(), b.prepare("b").off(by).run().joined()
		hub.sees(2)
		if got := wrong.Status().ClockAhead; (got - by).Abs() > clockSlack {
			t.Errorf("a clock that is %v ahead is said to be %v ahead", by, got)
		}
		if n := strings.Count(b.log.text(), "show different times"); n != 1 {
			t.Errorf("%d warnings", n)
		}
		its := wrong.child(0)
		its.Expires = wrong.clock.now().Add(time.Hour)
		spi, err := wrong.Shared().ReserveSPI()
		if err != nil {
			t.Fatal(err)
		}
		its.SPIIn = spi
		if err := wrong.Shared().Install(its); err != nil {
			t.Fatal(err)
		}
		theirs := a.install()
		for _, x := range []struct {
			at   *node
			spi  uint32
			ends time.Time
		}{{a, its.SPIIn, time.Now().Add(time.Hour)}, {wrong, theirs.SPIIn, wrong.clock.now().Add(time.Until(theirs.Expires))}} {
			x.at.eventually("of what was installed", func() bool { return x.at.plane.child(x.spi) != nil })
			if got := x.at.plane.child(x.spi).Expires; got.Sub(x.ends).Abs() > clockSlack {
				t.Errorf("at %s it ends %v, and not %v", x.at.name, got, x.ends)
			}
			if over := x.at.expire(x.at.clock.common(), true); len(over) > 0 {
				t.Errorf("%s removes what has just been made", x.at.name)
			}
		}
		for _, spi := range []uint32{its.SPIIn, theirs.SPIIn} { // the one that was used last is used by all
			user := a
			if spi == its.SPIIn {
				user = wrong
			}
			if err := user.Shared().Use("cust-a", spi); err != nil {
				t.Fatal(err)
			}
			hub.eventually("using it", func() bool { return hub.plane.used() == spi })
		}
		s := ike.Stored{SPI: wrong.Fleet().SPI(), Tunnel: "cust-a", Established: wrong.clock.now(), State: []byte(`{}`)}
		if err := <-wrong.ike.write(s, 0); err != nil {
			t.Fatal(err)
		}
		a.eventually("of the IKE SA", func() bool { return a.Fleet().Find(s.SPI).Where == ike.There })
		if got := a.Fleet().Find(s.SPI).Established; time.Since(got).Abs() > clockSlack {
			t.Errorf("it was established %v ago", time.Since(got))
		}
		for _, n := range []*node{wrong, a, hub} {
			n.stop()
		}
	}
}

// A clock that is set while the process lives changes nothing: neither the node's, nor the store's.
func TestClockIsSet(t *testing.T) {
	own := time.Now()
	k := &clock{now: func() time.Time { return own }}
	moment := own.Add(time.Hour)
	if !k.toCommon(moment).Equal(moment) || !k.toOwn(moment).Equal(moment) || !k.common().Equal(own) {
		t.Error("before clocks are compared a moment is another")
	}
	k.compare(own, own.Add(clockSlack), own.Add(clockSlack/2)) // an answer that took long
	if k.ahead() != 0 || !k.toCommon(moment).Equal(moment) {
		t.Errorf("clocks that agree: %v ahead", k.ahead())
	}
	k.compare(own, own, own.Add(-10*time.Hour)) // the store's is set
	if k.ahead() != 10*time.Hour || !k.toCommon(moment).Equal(moment) || !k.common().Equal(own) {
		t.Errorf("the store's clock was set: %v ahead, %v", k.ahead(), k.common())
	}
	k.base.Store(&clockBase{own, own.Add(-15 * time.Minute)}) // the process stood still: time went on, by both clocks
	k.compare(own, own, own)
	if !k.common().Equal(own) || !k.toCommon(moment).Equal(moment) {
		t.Errorf("after a pause it is %v for all, and not %v", k.common(), own)
	}
	k = &clock{now: func() time.Time { return own }}
	k.compare(own, own, own.Add(-10*time.Hour))
	if got := k.toCommon(moment); !got.Equal(moment.Add(-10*time.Hour)) || !k.toOwn(got).Equal(moment) || !k.toCommon(time.Time{}).IsZero() || !k.toOwn(time.Time{}).IsZero() {
		t.Errorf("ten hours ahead: %v is %v", moment, got)
	}
}
