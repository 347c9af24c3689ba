package cluster

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

// What one node has received is too old for all two seconds later, and not earlier; who comes late, or again, has the floor with the child.
func TestFloors(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	for _, n := range []*node{hub, a} {
		n.sees(1)
	}
	spi := hub.install().SPIIn
	a.eventually("with the child", func() bool { return a.plane.child(spi) != nil })
	begin := time.Now()
	hub.plane.receives(spi, 5000)
	a.plane.receives(spi, 4000)
	for time.Since(begin) < floorAge-floorTime {
		if hub.plane.floor(spi) > 0 || a.plane.floor(spi) > 0 {
			t.Fatalf("a floor after %v: packets by another way are lost", time.Since(begin))
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, n := range []*node{hub, a} {
		n.eventually("with the floor of all", func() bool { return n.plane.floor(spi) == 5000 })
	}
	if took := time.Since(begin); took > floorAge+4*floorTime {
		t.Errorf("after %v", took)
	}
	a.plane.receives(spi, 9000)
	hub.eventually("with a floor that rises", func() bool { return hub.plane.floor(spi) == 9000 })

	late := b.start("b")
	late.eventually("with the child", func() bool { return late.plane.child(spi) != nil })
	late.eventually("with the floor, at once", func() bool { return late.plane.floor(spi) == 9000 })
	if since := time.Since(begin); since > time.Minute {
		t.Log(since)
	}
	late.joined()
	late.plane.receives(spi, 3) // an old one that was captured
	time.Sleep(floorAge + 2*floorTime)
	if late.plane.floor(spi) != 9000 || hub.plane.floor(spi) != 9000 {
		t.Error("a floor has fallen")
	}
	before := hub.counts.refusedRecords.Load()
	for _, x := range [][]byte{nil, []byte("nonsense")} {
		if err := late.engine.Conn.Publish(subjectFloors, x); err != nil {
			t.Fatal(err)
		}
	}
	if sealed, err := late.keys.Seal(subjectFloors, []byte{1, 2, 3}); err == nil {
		late.engine.Conn.Publish(subjectFloors, sealed)
	}
	hub.eventually("refusing what is none", func() bool { return hub.counts.refusedRecords.Load() == before+3 })
	hub.Shared().Remove("cust-a", spi)
}

// The floor is what was the highest number when floorAge was not over yet, whatever comes in between.
func TestFloorAdvances(t *testing.T) {
	var f floor
	want := []uint64{0, 0, 0, 0, 10, 20, 20, 40}
	for i, in := range []uint64{10, 20, 5, 40, 50, 60, 70, 80} {
		f.highest[0] = max(f.highest[0], in)
		if got := f.advance(); got != want[i] {
			t.Errorf("telling %d: floor %d, want %d", i, got, want[i])
		}
	}
}

// Floors that are not looked at any more, because they do not rise, are those that a pass over all would leave as they are. A child that
// this node has not had for long is forgotten.
func TestFloorsAtRest(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	var f floors
	slow := map[uint32]*floor{}
	for step := range 20_000 {
		spi := uint32(r.IntN(8))
		if slow[spi] == nil {
			slow[spi] = new(floor)
		}
		x, y := f.of(spi), slow[spi]
		switch r.IntN(8) {
		case 0:
			to := r.Uint64N(uint64(step + 1)) // another node tells its floor
			x.set, y.set = max(x.set, to), max(y.set, to)
		case 1:
			to := r.Uint64N(uint64(step + 1))
			f.received(spi, to)
			y.highest[0] = max(y.highest[0], to)
		default:
			raised, want := f.raise(), map[uint32]uint64{}
			for spi, y := range slow {
				if before := y.set; y.advance() > before {
					want[spi] = y.set
				}
			}
			if !maps.Equal(raised, want) {
				t.Fatalf("step %d: raised %v, want %v", step, raised, want)
			}
		}
	}
	f.telling = floorKept
	f.forget()
	if len(f.by) != len(slow) {
		t.Errorf("%d floors are kept for %d tellings, want %d", len(f.by), floorKept, len(slow))
	}
	f.by[3].there = 1
	f.telling++
	f.forget()
	if len(f.by) != 1 || len(f.moving) > 1 {
		t.Errorf("floors of %d children are left, and %d rise, want the one that was there", len(f.by), len(f.moving))
	}
}
