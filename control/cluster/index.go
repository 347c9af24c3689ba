package cluster

import (
	"container/heap"
	"slices"
	"time"
)

// What is looked for at each change, or several times a second, must not take a pass over all records: a node may have a million. So they
// stand in an index too, by what is asked for.

// An index is records by their tunnel, those of ours that the store does not have, and those that end, by when.
type index struct {
	children map[string][]uint32 // SPIs of a tunnel's
	unstored map[uint32]*held
	ends     ends
	over     map[uint32]*held // past their end and the grace; they are not in ends any more
}

func newIndex() index {
	return index{children: map[string][]uint32{}, unstored: map[uint32]*held{}, over: map[uint32]*held{}}
}

// add notes a record that there is from now on.
func (x *index) add(spi uint32, h *held) {
	h.spi = spi
	if h.kind == child {
		x.children[h.tunnel] = append(x.children[h.tunnel], spi)
	}
	x.noteStored(h)
	if h.ends() {
		heap.Push(&x.ends, h)
	}
}

// remove forgets a record that was added.
func (x *index) remove(h *held) {
	if h.kind == child {
		left := slices.DeleteFunc(x.children[h.tunnel], func(spi uint32) bool { return spi == h.spi })
		if x.children[h.tunnel] = left; len(left) == 0 {
			delete(x.children, h.tunnel)
		}
	}
	delete(x.unstored, h.spi)
	switch {
	case x.over[h.spi] == h:
		delete(x.over, h.spi)
	case h.ends():
		heap.Remove(&x.ends, h.at)
	}
}

// noteStored notes whether the store has a record that is in the index.
func (x *index) noteStored(h *held) {
	if h.own && h.stored < h.generation {
		x.unstored[h.spi] = h
	} else {
		delete(x.unstored, h.spi)
	}
}

// nextOver is the record that ends first, if its time and the grace are over.
func (x *index) nextOver(now time.Time) *held {
	if len(x.ends) == 0 || now.Before(x.ends[0].expires.Add(expireGrace)) {
		return nil
	}
	return x.ends[0]
}

// putAside has nextOver not name a record again.
func (x *index) putAside(h *held) {
	heap.Remove(&x.ends, h.at)
	x.over[h.spi] = h
}

// ends reports whether a record's time ends by itself. A child of ours ends when IKE says so.
func (h *held) ends() bool { return !h.expires.IsZero() && !(h.own && h.kind == child) }

// ends are records in a heap, the one that ends first on top. Each knows its place.
type ends []*held

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].expires.Before(e[j].expires) }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i]; e[i].at, e[j].at = i, j }

// Push implements heap.Interface.
func (e *ends) Push(h any) {
	h.(*held).at = len(*e)
	*e = append(*e, h.(*held))
}

// Pop implements heap.Interface.
func (e *ends) Pop() any {
	last := len(*e) - 1
	h := (*e)[last]
	(*e)[last] = nil // else the record stays in memory
	*e = (*e)[:last]
	return h
}
