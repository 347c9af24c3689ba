package routes

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"causeway/config"
	"causeway/pipeline"
	"causeway/pipeline/fib"
)

// groupTable owns the equal-cost groups of the workers, of which there are few (pipeline.MaxGroups). A group belongs
// either to next hops (via), which update it in place, or is shared by the prefixes whose paths have just these
// members: the two prefixes that a tunnel's route has, or all prefixes of a customer with two tunnels. Number 0 stands
// for none.
type groupTable struct {
	fwd       *pipeline.Forwarding
	list      []group
	shared    map[string]uint32 // by members
	spare     []uint32
	dying     []uint32 // without users; free after a batch boundary
	exhausted uint64   // how often there was none left

	stay  time.Duration // how long a bucket without packets still has flows; 0: flows do not stay
	swept time.Time
	now   func() time.Time
}

type group struct {
	fib     *fib.Group
	users   int
	key     string // of a shared one
	members []fib.Member
	used    [fib.Buckets]time.Time // when a flow of the bucket was seen last
	late    int                    // buckets that have to move when their flows have ended
}

func newGroupTable(f *pipeline.Forwarding) groupTable {
	return groupTable{fwd: f, list: make([]group, 1), shared: map[string]uint32{}, stay: config.DefaultStay, now: time.Now}
}

// make returns a group with one user, 0 if there is none left. Flows of members that group from has too stay where they are.
func (t *groupTable) make(from uint32, members []fib.Member) uint32 {
	var i uint32
	switch n := len(t.spare); {
	case n > 0:
		i = t.spare[n-1]
		t.spare = t.spare[:n-1]
	case len(t.list) < pipeline.MaxGroups:
		i = uint32(len(t.list))
		t.list = append(t.list, group{})
	default:
		t.exhausted++
		return 0
	}
	g := group{fib: new(fib.Group), users: 1}
	if old := &t.list[from]; from != 0 {
		t.look(old)
		g.fib.Copy(old.fib)
		g.used = old.used
	}
	t.change(&g, members)
	t.list[i] = g
	t.fwd.SetGroup(int(i), g.fib)
	return i
}

// change has a group consist of members. Flows that are there stay, unless their member is none any more.
func (t *groupTable) change(g *group, members []fib.Member) {
	t.look(g)
	g.members = slices.Clone(members)
	t.balance(g)
}

// look notes which buckets have flows.
func (t *groupTable) look(g *group) {
	now := t.now()
	g.fib.Used(func(i int) { g.used[i] = now })
}

// balance moves what may move.
func (t *groupTable) balance(g *group) {
	now := t.now()
	g.late = g.fib.UpdateAround(g.members, func(i int) bool { return !g.used[i].IsZero() && now.Sub(g.used[i]) < t.stay })
}

// sweep looks which flows have ended, and moves what had to wait for them.
func (t *groupTable) sweep() {
	now := t.now()
	if t.stay == 0 || now.Sub(t.swept) < t.stay/4 {
		return
	}
	t.swept = now
	for i := 1; i < len(t.list); i++ {
		if g := &t.list[i]; g.fib != nil {
			if t.look(g); g.late > 0 {
				t.balance(g)
			}
		}
	}
}

// late counts the buckets whose flows are elsewhere than the members' weights say.
func (t *groupTable) late() (n int) {
	for i := range t.list {
		n += t.list[i].late
	}
	return n
}

// update changes group i in place.
func (t *groupTable) update(i uint32, members []fib.Member) {
	if g := &t.list[i]; !slices.Equal(g.members, members) {
		t.change(g, members)
	}
}

// leaf is what leads to group i of these members. Without a group the first member carries all.
func (t *groupTable) leaf(i uint32, members []fib.Member) pipeline.Leaf {
	if i == 0 {
		return members[0].Value
	}
	return pipeline.MakeLeaf(pipeline.KindGroup, int(i))
}

// share returns the group that prefixes with these members share, and takes it for one more. The prefix had group from,
// and has given it up when share returns; if it was the last one, that group is changed in place.
func (t *groupTable) share(from uint32, members []fib.Member) uint32 {
	slices.SortFunc(members, func(a, b fib.Member) int { return cmp.Compare(a.Value, b.Value) })
	var b []byte
	for _, x := range members {
		b = binary.NativeEndian.AppendUint32(b, uint32(x.Value))
		b = binary.NativeEndian.AppendUint32(b, x.Weight)
	}
	i, ok := t.shared[string(b)]
	switch {
	case ok && i == from:
		return i
	case ok:
		t.list[i].users++
	case from != 0 && t.list[from].users == 1:
		delete(t.shared, t.list[from].key)
		t.list[from].key = string(b)
		t.shared[string(b)] = from
		t.update(from, members)
		return from
	default:
		if i = t.make(from, members); i != 0 {
			t.list[i].key = string(b)
			t.shared[string(b)] = i
		}
	}
	t.release(from)
	return i
}

// release takes one user off group i.
func (t *groupTable) release(i uint32) {
	if i == 0 {
		return
	}
	g := &t.list[i]
	if g.users--; g.users > 0 {
		return
	}
	if g.key != "" {
		delete(t.shared, g.key)
		g.key = ""
	}
	t.dying = append(t.dying, i)
}

// free makes the groups without users available again. The workers have passed a batch boundary since.
func (t *groupTable) free(dying []uint32) {
	for _, i := range dying {
		t.fwd.SetGroup(int(i), nil)
		t.list[i] = group{}
		t.spare = append(t.spare, i)
	}
}

func (t *groupTable) inUse() int { return len(t.list) - 1 - len(t.spare) - len(t.dying) }

// members returns what a leaf stands for.
func (t *groupTable) members(l pipeline.Leaf) []fib.Member {
	if pipeline.LeafKind(l) == pipeline.KindGroup {
		return t.list[pipeline.LeafIndex(l)].members
	}
	return []fib.Member{{Value: l, Weight: 1}}
}
