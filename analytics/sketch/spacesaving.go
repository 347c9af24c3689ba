// Package sketch finds in a stream what is most frequent, in fixed memory and with a stated error.
package sketch

import (
	"cmp"
	"fmt"
	"slices"
)

// SpaceSaving finds the heaviest keys of a stream: the algorithm of Metwally, Agrawal and El Abbadi ("Efficient computation of frequent
// and top-k elements in data streams", 2005), with weights. With k counters, every key with more than total/k of the weight has one,
// and a counter is never too low, and too high by at most total/k. It is for one goroutine.
type SpaceSaving[K comparable] struct {
	hash     func(K) uint64
	total    uint64
	lost     uint64 // the most that a key without a counter can have had
	counters []counter[K]
	heap     []int32 // counters, the lowest first
	table    []int32 // hash table with linear probing: counter + 1, or 0
	mask     uint64
}

type counter[K comparable] struct {
	Entry[K]
	at int32 // in the heap
}

// An Entry is a key with its weight in the stream, which is at most Count and at least Count - Error.
type Entry[K comparable] struct {
	Key          K
	Count, Error uint64
}

// CounterBytes is the memory of one counter where keys have 16 bytes and k is a power of two, with its places in the heap and the table.
const CounterBytes = 40 + 4 + 8

// NewSpaceSaving makes a summary of k counters, at least 1. The hash needs all 64 bits, and where strangers choose the keys a seed
// that they do not know.
func NewSpaceSaving[K comparable](k int, hash func(K) uint64) *SpaceSaving[K] {
	size := 4
	for size < 2*k {
		size *= 2
	}
	return &SpaceSaving[K]{hash: hash, counters: make([]counter[K], 0, k), heap: make([]int32, 0, k),
		table: make([]int32, size), mask: uint64(size - 1)}
}

// Add counts weight for a key. It does not allocate.
func (s *SpaceSaving[K]) Add(key K, weight uint64) {
	s.Put(key, weight)
}

// Put is Add, and says which of the k counters the key has: a caller may keep more about a key by that number. A fresh one is another key's, or
// nobody's, until now.
func (s *SpaceSaving[K]) Put(key K, weight uint64) (counter int, fresh bool) {
	s.total += weight
	return s.add(key, weight, 0)
}

// add is Put with an error that the weight has already.
func (s *SpaceSaving[K]) add(key K, weight, uncertain uint64) (at int, fresh bool) {
	slot := s.find(key)
	if i := s.table[slot]; i != 0 {
		c := &s.counters[i-1]
		c.Count += weight
		c.Error += uncertain
		s.down(int(c.at))
		return int(i - 1), false
	}
	if len(s.counters) < cap(s.counters) {
		i := int32(len(s.counters))
		s.counters = append(s.counters, counter[K]{Entry[K]{key, s.lost + weight, s.lost + uncertain}, i})
		s.heap = append(s.heap, i)
		s.table[slot] = i + 1
		s.up(int(i))
		return int(i), true
	}
	// The lowest counter is given to the new key, and what it had may be the new key's: it was not counted, or was lost.
	i := s.heap[0]
	c := &s.counters[i]
	s.lost = c.Count
	s.remove(s.find(c.Key))
	s.table[s.find(key)] = i + 1
	c.Entry = Entry[K]{key, c.Count + weight, c.Count + uncertain}
	s.down(0)
	return int(i), true
}

// Grow makes it a summary of k counters, if it has fewer. Whoever has one keeps it, and its number; what was lost stays lost.
func (s *SpaceSaving[K]) Grow(k int) {
	if k <= cap(s.counters) {
		return
	}
	grown := NewSpaceSaving(k, s.hash)
	grown.total, grown.lost = s.total, s.lost
	grown.counters, grown.heap = append(grown.counters, s.counters...), append(grown.heap, s.heap...)
	for i := range grown.counters {
		grown.table[grown.find(grown.counters[i].Key)] = int32(i) + 1
	}
	*s = *grown
}

// Len is how many keys have a counter.
func (s *SpaceSaving[K]) Len() int { return len(s.counters) }

// Cap is k: how many can have one.
func (s *SpaceSaving[K]) Cap() int { return cap(s.counters) }

// At is the entry of a counter that Put has named.
func (s *SpaceSaving[K]) At(counter int) Entry[K] { return s.counters[counter].Entry }

// Total is the sum of all weights.
func (s *SpaceSaving[K]) Total() uint64 { return s.total }

// Lost is the most that a key without a counter can have had: 0 as long as there were counters for all.
func (s *SpaceSaving[K]) Lost() uint64 { return s.lost }

// MaxError is at least Lost, and the most that the next new key's counter can be too high.
func (s *SpaceSaving[K]) MaxError() uint64 {
	if len(s.counters) < cap(s.counters) {
		return s.lost
	}
	return s.counters[s.heap[0]].Count
}

// Get is a key's entry; false: it has none, and its weight is at most MaxError.
func (s *SpaceSaving[K]) Get(key K) (Entry[K], bool) {
	i := s.table[s.find(key)]
	if i == 0 {
		return Entry[K]{}, false
	}
	return s.counters[i-1].Entry, true
}

// Top is the n heaviest, the heaviest first. The slice is the caller's.
func (s *SpaceSaving[K]) Top(n int) []Entry[K] {
	all := make([]Entry[K], len(s.counters))
	for i := range s.counters {
		all[i] = s.counters[i].Entry
	}
	heaviestFirst(all)
	return all[:min(n, len(all))]
}

func heaviestFirst[K comparable](all []Entry[K]) {
	slices.SortStableFunc(all, func(a, b Entry[K]) int { return cmp.Compare(b.Count, a.Count) })
}

// Merge adds the stream of o, as if s had seen both, with the same bounds (Agarwal and others, "Mergeable summaries", 2012). o stays as
// it is. It fails if they have not the same number of counters: then keys that the smaller one has lost would go unmentioned.
func (s *SpaceSaving[K]) Merge(o *SpaceSaving[K]) error {
	if cap(s.counters) != cap(o.counters) {
		return fmt.Errorf("sketch: a SpaceSaving of %d counters cannot take in one of %d: make all with the same", cap(s.counters), cap(o.counters))
	}
	// A key that one of them has no counter for may have had the other's lowest count there.
	mine, theirs := s.MaxError(), o.MaxError()
	var all []Entry[K]
	for _, c := range s.counters {
		other, ok := o.Get(c.Key)
		if !ok {
			other = Entry[K]{Count: theirs, Error: theirs}
		}
		all = append(all, Entry[K]{c.Key, c.Count + other.Count, c.Error + other.Error})
	}
	for _, c := range o.counters {
		if _, ok := s.Get(c.Key); !ok {
			all = append(all, Entry[K]{c.Key, c.Count + mine, c.Error + mine})
		}
	}
	heaviestFirst(all)
	total, kept := s.total+o.total, min(len(all), cap(s.counters))
	s.Reset()
	for _, e := range all[:kept] {
		s.add(e.Key, e.Count, e.Error)
	}
	s.total, s.lost = total, mine+theirs
	if kept < len(all) {
		s.lost = max(s.lost, all[kept].Count)
	}
	return nil
}

// Reset forgets everything.
func (s *SpaceSaving[K]) Reset() {
	clear(s.counters)
	clear(s.table)
	s.counters, s.heap, s.total, s.lost = s.counters[:0], s.heap[:0], 0, 0
}

// find is the slot of the table where a key is, or where it would go.
func (s *SpaceSaving[K]) find(key K) uint64 {
	for slot := s.hash(key) & s.mask; ; slot = (slot + 1) & s.mask {
		if i := s.table[slot]; i == 0 || s.counters[i-1].Key == key {
			return slot
		}
	}
}

// remove empties a slot, and moves up what was pushed behind it (Knuth, volume 3, 6.4, algorithm R).
func (s *SpaceSaving[K]) remove(slot uint64) {
	for next := slot; ; {
		next = (next + 1) & s.mask
		i := s.table[next]
		if i == 0 {
			break
		}
		home := s.hash(s.counters[i-1].Key) & s.mask
		// It may move if its home does not lie between the hole and itself.
		if (next-home)&s.mask >= (next-slot)&s.mask {
			s.table[slot] = i
			slot = next
		}
	}
	s.table[slot] = 0
}

func (s *SpaceSaving[K]) up(at int) {
	for at > 0 {
		parent := (at - 1) / 2
		if s.count(parent) <= s.count(at) {
			return
		}
		s.swap(at, parent)
		at = parent
	}
}

func (s *SpaceSaving[K]) down(at int) {
	for {
		child := 2*at + 1
		if child >= len(s.heap) {
			return
		}
		if right := child + 1; right < len(s.heap) && s.count(right) < s.count(child) {
			child = right
		}
		if s.count(at) <= s.count(child) {
			return
		}
		s.swap(at, child)
		at = child
	}
}

func (s *SpaceSaving[K]) count(at int) uint64 { return s.counters[s.heap[at]].Count }

func (s *SpaceSaving[K]) swap(a, b int) {
	s.heap[a], s.heap[b] = s.heap[b], s.heap[a]
	s.counters[s.heap[a]].at, s.counters[s.heap[b]].at = int32(a), int32(b)
}
