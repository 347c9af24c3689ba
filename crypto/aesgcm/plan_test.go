package aesgcm

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestPlan compares plan and collect with what they do packet by packet.
func TestPlan(t *testing.T) {
	if !Accelerated() {
		t.Skip("this CPU has no other way to compare with")
	}
	rng := rand.New(rand.NewPCG(11, 1))
	memory := make([]byte, 1<<17)
	for range 20000 {
		fast, slow := new(work), new(work)
		n := rng.IntN(MaxBurst + 1)
		for i := range MaxBurst { // beyond n stands what was there before, and may be anything
			w := *fast
			w.texts[i] = &memory[64+rng.IntN(64)]
			room := []int{TagSize + rng.IntN(300), TagSize + rng.IntN(2200), MaxText + 16 - rng.IntN(2), rng.IntN(40) + 16}[rng.IntN(4)]
			aad := rng.IntN(MaxAAD + 1)
			size := rng.IntN(keySizes-1) + 1
			if rng.IntN(2000) == 0 || i >= n {
				switch rng.IntN(4) {
				case 0:
					room = []int{0, 1, 15, MaxText + 17, 1<<48 - 1}[rng.IntN(5)]
				case 1:
					aad = []int{255, MaxAAD + 1}[rng.IntN(2)]
				case 2:
					size = keyNone
				}
			}
			w.extents[i] = extent(room) | extent(aad)<<aadShift | extent(size)<<sizeShift
			*fast, *slow = w, w
		}
		got, want := fast.plan(n), slow.planEach(n)
		if got.impossible() != want.impossible() {
			t.Fatalf("impossible: %v, want %v", got.impossible(), want.impossible())
		}
		if want.impossible() {
			continue
		}
		if got != want {
			t.Fatalf("classes %b, want %b", got, want)
		}
		for i := range slots {
			fast.shapes[i].failed = rng.IntN(8) == 0
			slow.shapes[i].failed = fast.shapes[i].failed
		}
		for i := range n {
			if fast.lengths[i] != slow.lengths[i] || fast.heads[i] != slow.heads[i] || fast.tags[i] != slow.tags[i] ||
				fast.tails[i] != slow.tails[i] || fast.shapes[i] != slow.shapes[i] || fast.classes[i] != slow.classes[i] {
				t.Fatalf("packet %d of %d with %d bytes of text and tag differs", i, n, slow.extents[i].room())
			}
		}
		if got, want := fast.failures(n), fast.failuresEach(n); got != want {
			t.Fatalf("failures %b, want %b", got, want)
		}
		for c := range class(classes) {
			a, b := fast.collect(c, n), slow.collectEach(c, n)
			if a != b || !slices.Equal(fast.order[:a], slow.order[:b]) {
				t.Fatalf("class %d: %d packets %v, want %d %v", c, a, fast.order[:a], b, slow.order[:b])
			}
		}
	}
}
