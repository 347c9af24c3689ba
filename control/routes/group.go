package routes

import (
	"cmp"
	"encoding/binary"
	"slices"

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
}

type group struct {
	fib     *fib.Group
	users   int
	key     string // of a shared one
	members []fib.Member
	history [][]fib.Member // what it was made and updated with, oldest first
}

// groupHistory is how many updates of a group are remembered for those that are made after it.
const groupHistory = 64

func newGroupTable(f *pipeline.Forwarding) groupTable {
	return groupTable{fwd: f, list: make([]group, 1), shared: map[string]uint32{}}
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
	for _, then := range t.list[from].history {
		g.update(then)
	}
	g.update(members)
	t.list[i] = g
	t.fwd.SetGroup(int(i), g.fib)
	return i
}

// update changes the members and remembers them: a copy of the group is made by repeating its life, because a group
// cannot be read.
func (g *group) update(members []fib.Member) {
	g.members = slices.Clone(members)
	g.fib.Update(g.members)
	if len(g.history) == groupHistory {
		g.history = g.history[1:]
	}
	g.history = append(slices.Clip(g.history), g.members)
}

// update changes group i in place.
func (t *groupTable) update(i uint32, members []fib.Member) {
	if g := &t.list[i]; !slices.Equal(g.members, members) {
		g.update(members)
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
