package ike

import (
	"container/heap"
	"sync"
	"time"
)

// A clock calls SAs when their time has come. It has one timer of the runtime's for all: with a timer each, some thousand SAs
// that are due at once would be as many goroutines.
type clock struct {
	mu    sync.Mutex
	due   dueHeap
	timer *time.Timer
	armed time.Time           // when timer fires; zero: it does not
	ring  func(s *ikeSA) bool // called with mu held; false: later
}

// busyClock is how much later SAs are called if nobody has time for them.
const busyClock = 10 * time.Millisecond

// set changes when s is called, once.
func (c *clock) set(s *ikeSA, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.due = at
	if s.dueSlot == 0 {
		heap.Push(&c.due, s)
	} else {
		heap.Fix(&c.due, s.dueSlot-1)
	}
	c.arm()
}

// drop lets s alone.
func (c *clock) drop(s *ikeSA) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.dueSlot > 0 {
		heap.Remove(&c.due, s.dueSlot-1)
	}
}

// arm lets the timer fire in time for the first SA. It may fire for nothing: that is cheaper than to change it each time.
func (c *clock) arm() {
	if len(c.due) == 0 || !c.armed.IsZero() && !c.due[0].due.Before(c.armed) {
		return
	}
	c.fireAt(c.due[0].due)
}

func (c *clock) fireAt(at time.Time) {
	c.armed = at
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(at), c.fire)
		return
	}
	c.timer.Reset(time.Until(at))
}

func (c *clock) fire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = time.Time{}
	now := time.Now()
	for len(c.due) > 0 && !c.due[0].due.After(now) {
		if !c.ring(c.due[0]) {
			c.fireAt(now.Add(busyClock))
			return
		}
		heap.Pop(&c.due)
	}
	c.arm()
}

// A dueHeap has the SA that is due first in front.
type dueHeap []*ikeSA

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].dueSlot, h[j].dueSlot = i+1, j+1
}

func (h *dueHeap) Push(x any) {
	s := x.(*ikeSA)
	*h = append(*h, s)
	s.dueSlot = len(*h)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.dueSlot = 0
	return s
}
