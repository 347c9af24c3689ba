package fib

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func picks(g *Group) (b [Buckets]Value) {
	for i := range b {
		b[i] = g.Pick(uint32(i)<<24 | 0xabcdef)
	}
	return b
}

func counts(b [Buckets]Value) map[Value]int {
	n := map[Value]int{}
	for _, v := range b {
		n[v]++
	}
	return n
}

func equal(n int) []Member {
	m := make([]Member, n)
	for i := range m {
		m[i] = Member{Value(i + 1), 1}
	}
	return m
}

// TestGroupLeave: of 2 to 40 equal members each leaves in turn, and only its own buckets move.
func TestGroupLeave(t *testing.T) {
	for n := 2; n <= 40; n++ {
		for gone := range n {
			g := NewGroup(equal(n))
			before := picks(g)
			g.Update(slices.Delete(equal(n), gone, gone+1))
			for i, v := range picks(g) {
				if left := Value(gone + 1); v == left || before[i] != left && v != before[i] {
					t.Fatalf("%d of %d left: bucket %d was %d, is %d", left, n, i, before[i], v)
				}
			}
		}
	}
}

// TestGroupJoin: what moves goes to the newcomer, and it gets its share.
func TestGroupJoin(t *testing.T) {
	for n := 1; n < 40; n++ {
		g := NewGroup(equal(n))
		before := picks(g)
		g.Update(equal(n + 1))
		after := picks(g)
		for i, v := range after {
			if v != before[i] && v != Value(n+1) {
				t.Fatalf("%d joined: bucket %d moved from %d to %d", n+1, i, before[i], v)
			}
		}
		if got, ideal := counts(after)[Value(n+1)], Buckets/(n+1); got < ideal || got > ideal+1 {
			t.Fatalf("%d joined: it got %d buckets, want %d or one more", n+1, got, ideal)
		}
	}
}

func drawMembers(t *rapid.T) []Member {
	weight := rapid.OneOf(rapid.Uint32Range(0, 4), rapid.Uint32())
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Member {
		return Member{Value(rapid.IntRange(1, 12).Draw(t, "value")), weight.Draw(t, "weight")}
	}), 0, 15).Draw(t, "members")
}

// TestGroupShares: after any update the shares fit the weights, no other allocation that fits would have moved less, and the order
// of the members does not matter.
func TestGroupShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, twin := new(Group), new(Group)
		for range rapid.IntRange(1, 6).Draw(t, "updates") {
			members := drawMembers(t)
			before := picks(g)
			g.Update(members)
			after := picks(g)

			rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
			twin.Update(members)
			if picks(twin) != after {
				t.Fatalf("the order of %v matters", members)
			}
			checkShares(t, members, counts(before), counts(after))
			if got, want := moved(before, after), least(members, counts(before)); got != want {
				t.Fatalf("%v moved %d buckets, %d would do", members, got, want)
			}
		}
	})
}

// TestGroupAround: a busy bucket stays with a member that is still one; when none is busy any more all is as if none ever was.
func TestGroupAround(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := new(Group)
		for range rapid.IntRange(1, 6).Draw(t, "updates") {
			members := drawMembers(t)
			part := rapid.IntRange(0, 4).Draw(t, "busy") // of four
			var busy [Buckets]bool
			for i := range busy {
				busy[i] = rand.IntN(4) < part
			}
			before := picks(g)
			late := g.UpdateAround(members, func(i int) bool { return busy[i] })
			after, shares, total := picks(g), counts(picks(g)), uint64(0)
			byValue, total := weights(members)
			for i, v := range after {
				if v != before[i] && busy[i] && byValue[before[i]] > 0 {
					t.Fatalf("%v: bucket %d is busy, and moved from %d to %d", members, i, before[i], v)
				}
				if total > 0 && byValue[v] == 0 {
					t.Fatalf("%v: bucket %d is %d's", members, i, v)
				}
			}
			over := 0
			for v, n := range shares {
				if total > 0 {
					over += max(0, n-int(byValue[v]*Buckets/total)-1)
				}
			}
			if late < over || part == 0 && late > 0 {
				t.Fatalf("%v: %d buckets are said to be late, and %d have to move at least", members, late, over)
			}
			if late = g.UpdateAround(members, func(int) bool { return false }); late > 0 {
				t.Fatalf("%d are late though none is busy", late)
			}
			checkShares(t, members, counts(after), counts(picks(g)))
		}
	})
}

// TestGroupUsed: a bucket is used when a flow of it was picked since it was asked.
func TestGroupUsed(t *testing.T) {
	g := NewGroup(equal(3))
	used := func() (list []int) {
		g.Used(func(i int) { list = append(list, i) })
		return list
	}
	if got := used(); len(got) > 0 {
		t.Errorf("before the first packet: %v", got)
	}
	for _, hash := range []uint32{0x05123456, 0x05ffffff, 0xff000000, 0} {
		g.Pick(hash)
	}
	if got := used(); !slices.Equal(got, []int{0, 5, 255}) {
		t.Errorf("got %v", got)
	}
	if got := used(); len(got) > 0 {
		t.Errorf("again: %v", got)
	}
}

func weights(members []Member) (map[Value]uint64, uint64) {
	byValue, total := map[Value]uint64{}, uint64(0)
	for _, m := range members {
		byValue[m.Value] += uint64(m.Weight)
		total += uint64(m.Weight)
	}
	return byValue, total
}

func checkShares(t *rapid.T, members []Member, before, after map[Value]int) {
	byValue, total := weights(members)
	if total == 0 {
		if after[0] != Buckets {
			t.Fatalf("a group without members: %v", after)
		}
		return
	}
	sum := 0
	for v, w := range byValue {
		floor, exact := int(w*Buckets/total), w*Buckets%total == 0
		if n := after[v]; n != floor && (exact || n != floor+1) {
			t.Fatalf("%v: member %d has %d buckets, want %d or, unless exact, one more", members, v, n, floor)
		}
		sum += after[v]
	}
	if sum != Buckets {
		t.Fatalf("%v: buckets outside the group: %v", members, after)
	}
}

func moved(before, after [Buckets]Value) (n int) {
	for i := range before {
		if before[i] != after[i] {
			n++
		}
	}
	return n
}

// least is how many buckets must move: all but those which members can keep, where each may keep what it has up to its share rounded
// down, and as many members one more as there are buckets left over by rounding down.
func least(members []Member, before map[Value]int) int {
	byValue, total := weights(members)
	if total == 0 {
		return Buckets - before[0]
	}
	kept, over, canKeepOne := 0, Buckets, 0
	for v, w := range byValue {
		floor := int(w * Buckets / total)
		kept += min(before[v], floor)
		over -= floor
		if w*Buckets%total > 0 && before[v] > floor {
			canKeepOne++
		}
	}
	return Buckets - kept - min(over, canKeepOne)
}

// TestGroupFirst: a new group follows the largest remainder exactly: 256 * 1/6, 2/6, 3/6 = 42.67, 85.33, 128.
func TestGroupFirst(t *testing.T) {
	got := counts(picks(NewGroup([]Member{{7, 1}, {8, 2}, {9, 3}})))
	if got[7] != 43 || got[8] != 85 || got[9] != 128 {
		t.Errorf("shares %v, want 43, 85, 128", got)
	}
}

// TestGroupMany: with more members than buckets the heaviest get one each.
func TestGroupMany(t *testing.T) {
	var members []Member
	for i := range 300 {
		members = append(members, Member{Value(i + 1), uint32(1000 + i)})
	}
	got := counts(picks(NewGroup(members)))
	if len(got) > Buckets || got[0] != 0 || got[300] == 0 || got[1] != 0 {
		t.Errorf("%d members share, the heaviest has %d, the lightest %d", len(got), got[300], got[1])
	}
}
