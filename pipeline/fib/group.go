package fib

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// Buckets is how many parts the flows of a Group are divided into.
const Buckets = 256

// Member is one of the next hops that share the flows of a Group. Its Value is 1 to MaxValue; with weight 0 it gets no flows.
type Member struct {
	Value  Value
	Weight uint32
}

// Group spreads flows over members by weight (resilient hashing): a flow belongs to a bucket for ever, and a change of the members
// moves no more buckets than the new shares demand. One goroutine at a time may update; any number may pick meanwhile. It must not be
// copied.
type Group struct {
	buckets [Buckets]atomic.Uint32
	used    [Buckets]atomic.Uint32 // 1: picked since Used
}

// NewGroup makes a group of these members, see Update.
func NewGroup(members []Member) *Group {
	g := new(Group)
	g.Update(members)
	return g
}

// Pick returns the member for a flow, or 0 if the group is empty. It uses the upper 8 bits of the hash: the lower ones have often
// chosen the receive queue already, and would be the same for all flows of a worker.
func (g *Group) Pick(hash uint32) Value {
	if u := &g.used[hash>>24]; u.Load() == 0 { // others read it all the time
		u.Store(1)
	}
	return g.at(int(hash >> 24))
}

// at is the member that has a bucket.
func (g *Group) at(bucket int) Value { return Value(g.buckets[bucket].Load()) }

// Used calls f for each bucket of which a flow was picked since the last call.
func (g *Group) Used(f func(bucket int)) {
	for i := range g.used {
		if g.used[i].Load() != 0 {
			g.used[i].Store(0)
			f(i)
		}
	}
}

// Copy makes g, which nobody picks from yet, have the buckets of from.
func (g *Group) Copy(from *Group) {
	for i := range g.buckets {
		g.buckets[i].Store(from.buckets[i].Load())
	}
}

// Update changes the members in place. Each member gets its ideal share of the buckets, rounded down or up: the remainders go first
// to members that hold such a bucket already, then to the largest remainder, then to the smaller Value. Under that rule no update
// could move fewer buckets. So the result depends on the members before, but not on the order of members; weights of the same Value
// add up. Without a member of positive weight all buckets become 0.
func (g *Group) Update(members []Member) {
	g.UpdateAround(members, func(int) bool { return false })
}

// UpdateAround is Update for flows that are to stay where they are: a bucket that is busy moves only if its member is none any more. Then
// shares may not be the ideal ones: late is how many buckets still have to move, in a later call.
func (g *Group) UpdateAround(members []Member, busy func(bucket int) bool) (late int) {
	shares := g.divide(members)
	var idle, moving []int
	for i := range g.buckets {
		switch s := find(shares, g.at(i)); {
		case s == nil:
			moving = append(moving, i)
		case busy(i):
			s.kept++
		default:
			idle = append(idle, i)
		}
	}
	// Keep what each share covers; what is left over goes to members that are short of it, in bucket order.
	for _, i := range idle {
		if s := find(shares, g.at(i)); s.kept < s.want {
			s.kept++
		} else {
			moving = append(moving, i)
		}
	}
	slices.Sort(moving)
	for _, i := range moving {
		g.buckets[i].Store(uint32(next(shares)))
	}
	for i := range shares {
		late += max(0, shares[i].kept-shares[i].want)
	}
	return late
}

// share is what one member should get, in buckets.
type share struct {
	value     Value
	weight    uint64
	remainder uint64 // of weight*Buckets/total, in 1/total of a bucket
	held      int    // before the update
	kept      int    // after it, as far as buckets are dealt out
	want      int
}

// divide computes the shares, sorted by Value.
func (g *Group) divide(members []Member) []share {
	shares, total := merge(members)
	for i := range g.buckets {
		if s := find(shares, g.at(i)); s != nil {
			s.held++
		}
	}
	left := Buckets
	for i := range shares {
		s := &shares[i]
		s.want, s.remainder = int(s.weight*Buckets/total), s.weight*Buckets%total
		left -= s.want
	}
	order := make([]*share, 0, len(shares))
	for i := range shares {
		if shares[i].remainder > 0 {
			order = append(order, &shares[i])
		}
	}
	slices.SortStableFunc(order, func(a, b *share) int {
		if keepA, keepB := a.held > a.want, b.held > b.want; keepA != keepB {
			if keepA {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.remainder, a.remainder)
	})
	for _, s := range order[:min(left, len(order))] {
		s.want++
	}
	return shares
}

// merge sorts by Value, adds up the weights of equal ones and leaves out those without weight.
func merge(members []Member) (shares []share, total uint64) {
	for _, m := range members {
		if m.Weight == 0 {
			continue
		}
		total += uint64(m.Weight)
		i, ok := slices.BinarySearchFunc(shares, m.Value, func(s share, v Value) int { return cmp.Compare(s.value, v) })
		if !ok {
			shares = slices.Insert(shares, i, share{value: m.Value})
		}
		shares[i].weight += uint64(m.Weight)
	}
	return shares, total
}

func find(shares []share, v Value) *share {
	i, ok := slices.BinarySearchFunc(shares, v, func(s share, v Value) int { return cmp.Compare(s.value, v) })
	if !ok {
		return nil
	}
	return &shares[i]
}

// next takes a bucket for the first member that is still short, or returns 0 if there are no members.
func next(shares []share) Value {
	for i := range shares {
		if s := &shares[i]; s.kept < s.want {
			s.kept++
			return s.value
		}
	}
	return 0
}
