package routes

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"

	"causeway/pipeline"
	"causeway/pipeline/fib"
)

// The RIB holds every path of every prefix: up to a million prefixes, so nothing in it is a pointer that the garbage
// collector would have to follow, and prefixes are two words rather than a netip.Prefix.

// prefixKey is a prefix in the table of one account. The address is left-aligned in hi and lo, IPv4 too; host bits are zero.
type prefixKey struct {
	hi, lo uint64
	vrf    uint16
	bits   uint8
	v6     bool
}

func keyOf(vrf uint16, p netip.Prefix) prefixKey {
	k := addrKey(vrf, p.Addr())
	return k.cut(p.Bits())
}

// addrKey is the prefix that holds only a.
func addrKey(vrf uint16, a netip.Addr) prefixKey {
	if a.Is4() {
		b := a.As4()
		return prefixKey{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32, vrf: vrf, bits: 32}
	}
	b := a.As16()
	return prefixKey{hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:]), vrf: vrf, bits: 128, v6: true}
}

// cut is the prefix of n bits that covers k.
func (k prefixKey) cut(n int) prefixKey {
	k.bits = uint8(n)
	k.hi &= ^uint64(0) << (64 - min(n, 64))
	k.lo &= ^uint64(0) << (128 - max(n, 64))
	return k
}

func (k prefixKey) prefix() netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	if k.v6 {
		return netip.PrefixFrom(netip.AddrFrom16(b), int(k.bits))
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), int(k.bits))
}

// source says where a path comes from. The lower one wins.
type source uint8

const (
	sourceLocal     source = iota // the kernel's local table
	sourceNeighbour               // a neighbour on a connected link
	sourceInterface               // the interface subnet of a tunnel
	sourceConfig                  // routes of the file, prefixes of tunnels
	sourceLearned                 // the kernel's, of any table, over a tunnel's device
	sourceKernel                  // the kernel's main table
	sources
)

// rank is what comes before the priority: a route of the file and one that was learned are compared by that.
func (s source) rank() source {
	if s == sourceLearned {
		return sourceConfig
	}
	return s
}

// A pathKey is what a path is known by. In the configuration that is its next hop too.
type pathKey struct {
	prefixKey
	source   source
	priority uint32
	table    uint32 // the kernel's, of sourceLearned; 0
}

// An entry is a prefix with all its paths.
type entry struct {
	key   prefixKey
	first uint32        // path; 0: none
	leaf  pipeline.Leaf // what the forwarding table holds
	group uint32        // shared equal-cost group, 0: none
	dirty bool          // is in pending.entries
}

// A path is one way to reach a prefix.
type path struct {
	entry    uint32
	next     uint32 // path of the same entry
	via      uint32
	viaPrev  uint32 // paths with the same next hops
	viaNext  uint32
	priority uint32 // the lower wins
	table    uint32 // see pathKey
	seen     uint32 // the last pass (kernel) or configuration that had it
	weight   uint16
	source   source
	crowded  bool // the kernel has several routes of this identity, of which this is the first
}

// arena holds items that are known by numbers from 1. Pointers to them stay valid until free.
type arena[T any] struct {
	chunks []*[arenaChunk]T
	made   uint32
	spare  []uint32
}

const arenaChunk = 1 << 10

func (a *arena[T]) at(i uint32) *T { return &a.chunks[i/arenaChunk][i%arenaChunk] }

func (a *arena[T]) alloc() (uint32, *T) {
	if n := len(a.spare); n > 0 {
		i := a.spare[n-1]
		a.spare = a.spare[:n-1]
		return i, a.at(i)
	}
	a.made++
	if int(a.made/arenaChunk) >= len(a.chunks) {
		a.chunks = append(a.chunks, new([arenaChunk]T))
	}
	return a.made, a.at(a.made)
}

func (a *arena[T]) free(i uint32) {
	var zero T
	*a.at(i) = zero
	a.spare = append(a.spare, i)
}

// rib is the prefixes of all accounts.
type rib struct {
	index   map[prefixKey]uint32
	entries arena[entry]
	paths   arena[path]
	lengths []lengths
	counts  [sources][2]int // paths by source and family
}

// lengths counts the prefixes of one account and family by length, so that a look-up tries only those that exist.
type lengths struct {
	count [129]uint32
	used  [3]uint64
}

func newRIB() rib { return rib{index: map[prefixKey]uint32{}} }

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func (r *rib) lengthsOf(k prefixKey) *lengths {
	i := 2*int(k.vrf) + family(k.v6)
	for i >= len(r.lengths) {
		r.lengths = append(r.lengths, lengths{})
	}
	return &r.lengths[i]
}

func (l *lengths) add(n uint8, by int) {
	l.count[n] += uint32(by)
	if l.count[n] > 0 {
		l.used[n/64] |= 1 << (n % 64)
	} else {
		l.used[n/64] &^= 1 << (n % 64)
	}
}

// longest returns the longest length in use that is at most n, or -1.
func (l *lengths) longest(n int) int {
	for w := n / 64; n >= 0 && w >= 0; w-- {
		word := l.used[w]
		if w == n/64 {
			word &= ^uint64(0) >> (63 - n%64)
		}
		if word != 0 {
			return 64*w + 63 - bits.LeadingZeros64(word)
		}
	}
	return -1
}

// entry returns the number of the entry of k, made if it is not there.
func (r *rib) entry(k prefixKey) uint32 {
	if i, ok := r.index[k]; ok {
		return i
	}
	i, e := r.entries.alloc()
	e.key = k
	r.index[k] = i
	r.lengthsOf(k).add(k.bits, 1)
	return i
}

func (r *rib) freeEntry(i uint32) {
	k := r.entries.at(i).key
	delete(r.index, k)
	r.lengthsOf(k).add(k.bits, -1)
	r.entries.free(i)
}

// lookup returns the entry of the longest prefix that covers the address k and that accept likes, or nil.
func (r *rib) lookup(k prefixKey, accept func(*entry) bool) *entry {
	l := r.lengthsOf(k)
	for n := l.longest(int(k.bits)); n >= 0; n = l.longest(n - 1) {
		if i, ok := r.index[k.cut(n)]; ok {
			if e := r.entries.at(i); accept(e) {
				return e
			}
		}
	}
	return nil
}

// find returns the path of entry e that k names, or 0. The next hops via count only for those of the configuration.
func (r *rib) find(e uint32, k *pathKey, via uint32) uint32 {
	for i := r.entries.at(e).first; i != 0; i = r.paths.at(i).next {
		p := r.paths.at(i)
		if p.source == k.source && p.priority == k.priority && p.table == k.table && (k.source != sourceConfig || p.via == via) {
			return i
		}
	}
	return 0
}

// setPath adds a path or changes its next hops, and marks the prefix dirty if that makes a difference.
func (m *Manager) setPath(k pathKey, via uint32, weight uint16, seen uint32) *path {
	e := m.rib.entry(k.prefixKey)
	i := m.rib.find(e, &k, via)
	if i == 0 {
		var p *path
		i, p = m.rib.paths.alloc()
		ent := m.rib.entries.at(e)
		*p = path{entry: e, next: ent.first, source: k.source, priority: k.priority, table: k.table, weight: weight}
		ent.first = i
		m.rib.counts[k.source][family(k.v6)]++
		m.link(i, via)
		m.dirty(e)
	}
	p := m.rib.paths.at(i)
	p.seen = seen
	if p.via != via {
		m.unlink(i)
		m.link(i, via)
		m.dirty(e)
	}
	if p.weight != weight {
		p.weight = weight
		m.dirty(e)
	}
	return p
}

// deletePath takes path i out of its entry; the entry itself goes when settle finds it empty.
func (m *Manager) deletePath(i uint32) {
	p := m.rib.paths.at(i)
	e := m.rib.entries.at(p.entry)
	at := &e.first
	for *at != i {
		at = &m.rib.paths.at(*at).next
	}
	*at = p.next
	m.rib.counts[p.source][family(e.key.v6)]--
	m.unlink(i)
	m.dirty(p.entry)
	m.rib.paths.free(i)
}

// sweepPaths deletes the paths of one source that were not seen since before.
func (m *Manager) sweepPaths(accept func(*path) bool) (swept int) {
	for i := uint32(1); i <= m.rib.paths.made; i++ {
		p := m.rib.paths.at(i)
		if p.entry != 0 && accept(p) {
			m.deletePath(i)
			swept++
		}
	}
	return swept
}

func (m *Manager) dirty(e uint32) {
	ent := m.rib.entries.at(e)
	if !ent.dirty {
		ent.dirty = true
		m.pending.entries = append(m.pending.entries, e)
	}
}

// best returns the usable paths that win, of the ones that accept likes (nil: all): those of the lowest rank and priority; what the file says
// comes before what was learned. It overwrites list.
func (m *Manager) best(e *entry, list []uint32, accept func(*path, *via) bool) []uint32 {
	list = list[:0]
	var top *path
	var least uint64 // its priority
	for i := e.first; i != 0; i = m.rib.paths.at(i).next {
		p := m.rib.paths.at(i)
		v := m.vias.at(p.via)
		if v.leaf == 0 || accept != nil && !accept(p, v) {
			continue
		}
		priority := uint64(p.priority) + uint64(v.penalty)
		order := -1
		if top != nil {
			order = cmp.Or(cmp.Compare(p.source.rank(), top.source.rank()), cmp.Compare(priority, least), cmp.Compare(p.source, top.source))
		}
		if order < 0 {
			top, least, list = p, priority, list[:0]
		}
		if order <= 0 {
			list = append(list, i)
		}
	}
	return list
}

// membersOf merges what paths lead to, by their weights.
func (m *Manager) membersOf(paths []uint32) (out []fib.Member) {
	for _, i := range paths {
		p := m.rib.paths.at(i)
		for _, x := range m.vias.at(p.via).members {
			out = addMember(out, x.Value, x.Weight*uint32(p.weight))
		}
	}
	return out
}

// table is the forwarding tables of one account.
type table struct {
	account string
	v4      *fib.Table4
	v6      *fib.Table6
}

// write brings the forwarding table in line with a new leaf.
func (t *table) write(k prefixKey, l pipeline.Leaf) error {
	p := k.prefix()
	switch {
	case k.v6 && l != 0:
		return t.v6.Insert(p, l)
	case k.v6:
		t.v6.Delete(p)
	case l != 0:
		return t.v4.Insert(p, l)
	default:
		t.v4.Delete(p)
	}
	return nil
}
