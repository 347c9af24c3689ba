package ike

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// SAs are called at their times and not twice, whatever else is set, changed and dropped meanwhile.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		want, busy, calls := map[*ikeSA]time.Time{}, false, 0
		var c clock
		c.ring = func(s *ikeSA) bool {
			if busy {
				return false
			}
			if at, ok := want[s]; !ok || time.Now().Before(at) || time.Since(at) > busyClock {
				t.Errorf("called at %v, want %v (%v)", time.Now(), at, ok)
			}
			delete(want, s)
			calls++
			return true
		}
		list := make([]*ikeSA, 300)
		for i := range list {
			list[i] = &ikeSA{}
		}
		for range 5000 {
			s := list[rng.IntN(len(list))]
			c.mu.Lock()
			if rng.IntN(4) == 0 {
				delete(want, s)
			} else {
				want[s] = time.Now().Add(time.Duration(rng.IntN(500)) * time.Millisecond)
			}
			at, set := want[s]
			c.mu.Unlock()
			if set {
				c.set(s, at)
			} else {
				c.drop(s)
			}
			time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
			synctest.Wait()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(want) > 0 || calls < 1000 || len(c.due) > 0 {
			t.Errorf("%d were not called, %d are in the heap; %d calls", len(want), len(c.due), calls)
		}
		under := func(f func()) {
			c.mu.Lock()
			defer c.mu.Unlock()
			f()
		}
		under(func() { busy, want[list[0]] = true, time.Now() }) // nobody has time: it is tried again
		c.set(list[0], time.Now())
		time.Sleep(busyClock / 2)
		under(func() { busy = false })
		time.Sleep(busyClock)
		synctest.Wait()
		if len(want) > 0 {
			t.Error("not called again")
		}
	})
}
