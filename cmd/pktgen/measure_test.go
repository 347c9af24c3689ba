package main

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A pacer asked at irregular times gives what the rate gives.
func TestPacerKeepsRate(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, rate := range []uint64{1, 7, 1000, 33_333, 1_000_003, 14_880_952, maxRate} {
		const start, seconds = 5_000_000_000_000, 10
		p := newPacer(rate, start)
		var got uint64
		now := uint64(start)
		for now < start+seconds*1e9 {
			got += uint64(p.take(now, 1<<30))
			now += 1 + rng.Uint64N(20_000)
		}
		want := float64(rate * seconds)
		if diff := float64(got) - want; diff > 2+want*1e-5 || diff < -(2+want*2e-5) {
			t.Errorf("rate %d: %d packets in %d s", rate, got, seconds)
		}
	}
}

func TestPacerNeverAhead(t *testing.T) {
	p := newPacer(1000, 0)
	var got int
	for now := uint64(0); now < 3e9; now += 100_000 {
		got += p.take(now, 1)
		if most := int(now/1_000_000) + 1; got > most {
			t.Fatalf("%d packets after %d us, at most %d are due", got, now/1000, most)
		}
	}
}

// A pause is made up for, at twice the rate and not at once; of a long one only maxLag.
func TestPacerAfterPause(t *testing.T) {
	for _, c := range []struct{ pause, want int }{{200, 200}, {10_000, 500}} {
		p := newPacer(1000, 0)
		p.take(0, 1)
		now := uint64(c.pause) * 1e6
		got := p.take(now, 32)
		if got > 32 {
			t.Fatalf("%d packets at once, asked for 32", got)
		}
		for end := now + 1e9; now < end; now += 10_000 {
			before := got
			got += p.take(now, 32)
			if got-before > 1 {
				t.Fatalf("%d packets within 10 us at 1000/s", got-before)
			}
		}
		if extra := got - 1000; extra < c.want-2 || extra > c.want+2 {
			t.Errorf("after %d ms of pause: %d packets in the second after it, want %d", c.pause, got, 1000+c.want)
		}
	}
}

// A map is the oracle; the numbers come shuffled, lost and twice.
func TestTrackerAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, shape := range []struct{ jitter, lossIn, dupIn int }{{1, 1000, 1000}, {50, 10, 7}, {5000, 3, 3}} {
		type arrival struct{ at, seq int }
		var arrivals []arrival
		for seq := 100; seq < 30100; seq++ {
			if rng.IntN(shape.lossIn) == 0 {
				continue
			}
			arrivals = append(arrivals, arrival{seq + rng.IntN(shape.jitter), seq})
			if rng.IntN(shape.dupIn) == 0 {
				arrivals = append(arrivals, arrival{seq + rng.IntN(shape.jitter), seq})
			}
		}
		slices.SortStableFunc(arrivals, func(a, b arrival) int { return a.at - b.at })

		var tr tracker
		seen := map[int]bool{}
		var dups, late, furthest, high uint64
		low := uint64(1 << 60)
		for _, a := range arrivals {
			n := uint64(a.seq)
			tr.add(n)
			switch {
			case seen[a.seq]:
				dups++
			case n < high:
				late++
				furthest = max(furthest, high-n)
			}
			seen[a.seq] = true
			high, low = max(high, n), min(low, n)
		}
		r := tr.result()
		lost := high - low + 1 - uint64(len(seen))
		if r.Received != uint64(len(arrivals)) || r.Lost != lost || r.Duplicates != dups || r.Reordered != late ||
			r.MaxReorder != furthest || r.First != low || r.Last != high || r.TooLate != 0 {
			t.Errorf("%+v: have %+v; want %d received, %d lost, %d duplicates, %d reordered by at most %d, %d to %d",
				shape, *r, len(arrivals), lost, dups, late, furthest, low, high)
		}
	}
}

// A jump by more than the window forgets everything, and a number from before it cannot be judged.
func TestTrackerBeyondWindow(t *testing.T) {
	var tr tracker
	for _, n := range []uint64{0, 1, 1 + 3*trackWindow, 3 * trackWindow, 1} {
		tr.add(n)
	}
	r := tr.result()
	if r.TooLate != 1 || r.Duplicates != 0 || r.Reordered != 2 || r.Last != 1+3*trackWindow {
		t.Errorf("%+v", *r)
	}
}

func TestHistogramAgainstSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var h histogram
	var all []uint64
	for range 20000 {
		v := rng.Uint64N(1 << (1 + rng.IntN(40)))
		h.add(v)
		all = append(all, v)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		exact := all[int(q*float64(len(all)))]
		if got := h.quantile(q); got < exact || float64(got) > float64(exact)*(1+1./16)+1 {
			t.Errorf("quantile %v: %d, exactly %d", q, got, exact)
		}
	}
	if r := h.result(); r.Min != all[0] || r.Max != all[len(all)-1] {
		t.Errorf("min %d, max %d; want %d, %d", r.Min, r.Max, all[0], all[len(all)-1])
	}
	for v := range uint64(1 << 14) {
		if i := bucket(v); upper(i) < v || i > 0 && upper(i-1) >= v {
			t.Fatalf("%d is in bucket %d that ends at %d", v, i, upper(i))
		}
	}
	h.add(1<<64 - 1)
}

// What is done per packet allocates nothing.
func TestNoAllocation(t *testing.T) {
	p := mustPlan(t, testSpecs()["inner6/gre4key/udp/vlan0"])
	frame := frameOf(p, 0, 0)
	pace := newPacer(1e6, 0)
	s := &sink{flags: &sinkFlags{verify: true}}
	s.look(frame, 1) // makes the tracker's window
	var seq uint64
	if n := testing.AllocsPerRun(1000, func() {
		seq += 12 // the same form each time
		pace.take(seq*1000, 1)
		p.stamp(frame, seq, seq)
		s.look(frame, seq+1)
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
	if s.track.received < 1000 || s.sums.Bad != 0 {
		t.Errorf("%d probes seen, %d bad checksums", s.track.received, s.sums.Bad)
	}
}
