package cluster

import (
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
