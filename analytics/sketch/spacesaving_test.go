package sketch

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func hashInt(k int) uint64 { return Hash(1, uint64(k)) }

// hashBadly puts many keys in the same slot, so that probing and removing have something to do.
func hashBadly(k int) uint64 { return uint64(k % 3) }

// checkSpaceSaving compares with exact counts.
func checkSpaceSaving(t *rapid.T, s *SpaceSaving[int], exact map[int]uint64, k int) {
	var total uint64
	for _, n := range exact {
		total += n
	}
	if s.Total() != total {
		t.Fatalf("total %d, want %d", s.Total(), total)
	}
	bound := total / uint64(k)
	if s.MaxError() > bound {
		t.Fatalf("error up to %d, total %d, %d counters", s.MaxError(), total, k)
	}
	top := s.Top(len(exact) + k)
	if len(top) < min(len(exact), k) || len(top) > min(len(exact), s.Cap()) {
		t.Fatalf("%d counters for %d keys", len(top), len(exact))
	}
	last := ^uint64(0)
	listed := map[int]bool{}
	for _, e := range top {
		if n := exact[e.Key]; e.Count < n || e.Count > n+e.Error || e.Error > bound || e.Count > last || listed[e.Key] {
			t.Fatalf("entry %+v, exact count %d, total %d, %d counters, the one before has %d", e, n, total, k, last)
		}
		if got, ok := s.Get(e.Key); !ok || got != e {
			t.Fatalf("Get(%d) is %+v, %v; Top has %+v", e.Key, got, ok, e)
		}
		last, listed[e.Key] = e.Count, true
	}
	for key, n := range exact {
		if _, ok := s.Get(key); ok != listed[key] || !ok && n > min(s.Lost(), s.MaxError()) {
			t.Fatalf("key %d: has a counter %v, in Top %v, exact %d, lost %d, error %d", key, ok, listed[key], n, s.Lost(), s.MaxError())
		}
	}
}

func fill(t *rapid.T, s *SpaceSaving[int], exact map[int]uint64, label string) {
	keys := rapid.IntRange(1, 60).Draw(t, label+" keys")
	for _, key := range rapid.SliceOfN(rapid.IntRange(0, keys), 0, 200).Draw(t, label) {
		weight := uint64(key%7*key%5 + 1)
		s.Add(key, weight)
		exact[key] += weight
	}
}

func TestSpaceSaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(1, 20).Draw(t, "k")
		hash := rapid.SampledFrom([]func(int) uint64{hashInt, hashBadly}).Draw(t, "hash")
		s := NewSpaceSaving(k, hash)
		for range 2 { // again after Reset
			exact := map[int]uint64{}
			fill(t, s, exact, "stream")
			checkSpaceSaving(t, s, exact, k)
			s.Reset()
		}
	})
}

// A summary that grows in the middle of a stream has the bounds of the smaller one, and counters keep their numbers.
func TestSpaceSavingGrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(1, 8).Draw(t, "k")
		s, exact, numbers := NewSpaceSaving(k, hashInt), map[int]uint64{}, map[int]int{}
		for range rapid.IntRange(1, 4).Draw(t, "times") {
			for _, key := range rapid.SliceOfN(rapid.IntRange(0, 40), 0, 100).Draw(t, "stream") {
				_, known := s.Get(key)
				weight := uint64(key%7 + 1)
				n, fresh := s.Put(key, weight)
				if exact[key] += weight; fresh == known || !fresh && numbers[key] != n || s.At(n).Key != key {
					t.Fatalf("key %d, known %v, has counter %d, fresh %v; it had %d", key, known, n, fresh, numbers[key])
				}
				numbers[key] = n
			}
			checkSpaceSaving(t, s, exact, k) // with the bounds of the first k
			s.Grow(s.Cap() + rapid.IntRange(-1, 10).Draw(t, "more"))
			checkSpaceSaving(t, s, exact, k)
		}
	})
}

func TestSpaceSavingMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(1, 20).Draw(t, "k")
		exact, into := map[int]uint64{}, NewSpaceSaving(k, hashInt)
		for range rapid.IntRange(2, 4).Draw(t, "sketches") {
			s := NewSpaceSaving(k, hashInt)
			fill(t, s, exact, "stream")
			if err := into.Merge(s); err != nil {
				t.Fatal(err)
			}
		}
		checkSpaceSaving(t, into, exact, k)
		fill(t, into, exact, "after")
		checkSpaceSaving(t, into, exact, k)
	})
	if err := NewSpaceSaving(4, hashInt).Merge(NewSpaceSaving(5, hashInt)); err == nil {
		t.Error("different numbers of counters were merged")
	}
}

func TestSpaceSavingAllocates(t *testing.T) {
	s := NewSpaceSaving(64, func(a netip.Addr) uint64 { return HashAddr(7, a) })
	r := rand.New(rand.NewPCG(1, 1))
	if n := testing.AllocsPerRun(10, func() {
		for range 1000 {
			s.Add(netip.AddrFrom4([4]byte{10, 0, byte(r.Uint32()), byte(r.Uint32())}), 1)
		}
	}); n != 0 {
		t.Errorf("%v allocations in 1000 updates, want none", n)
	}
}

func BenchmarkSpaceSaving(b *testing.B) {
	s := NewSpaceSaving(64, func(a netip.Addr) uint64 { return HashAddr(7, a) })
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Add(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
	}
}
