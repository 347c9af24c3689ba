package graph

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

// A key stands for a token: its hash. All of an open handler have the same.
type key = [sha256.Size]byte

// rateWindow is the time that a token's queries are counted over.
const rateWindow = 5 * time.Minute

// A rate limits the queries of each token in any window, exactly: it remembers when the last ones were. Only tokens that were
// admitted have an entry, so there are not more than in the file, and those that stay away lose theirs.
type rate struct {
	mu    sync.Mutex
	limit int
	spent map[key]*times
}

// times is a ring of the last queries.
type times struct {
	at   []time.Time
	next int
	last time.Time
}

func newRate(limit int) *rate { return &rate{limit: limit, spent: map[key]*times{}} }

// spend counts a query; or returns how long to wait, and counts nothing.
func (r *rate) spend(k key, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.spent[k]
	if t == nil {
		r.sweep(now)
		t = &times{at: make([]time.Time, r.limit)}
		r.spent[k] = t
	}
	if oldest := t.at[t.next]; !oldest.IsZero() && now.Sub(oldest) < rateWindow {
		return rateWindow - now.Sub(oldest)
	}
	t.at[t.next], t.last = now, now
	t.next = (t.next + 1) % len(t.at)
	return 0
}

// sweep forgets tokens that have been away for a window.
func (r *rate) sweep(now time.Time) {
	for k, t := range r.spent {
		if now.Sub(t.last) >= rateWindow {
			delete(r.spent, k)
		}
	}
}

// slots limit how many things run at once, of all tokens and of each.
type slots struct {
	mu          sync.Mutex
	total, each int
	sum         int
	used        map[key]int
	freed       chan struct{} // closed when a slot is free
}

func newSlots(total, each int) *slots {
	return &slots{total: total, each: each, used: map[key]int{}, freed: make(chan struct{})}
}

// take waits for a slot for at most so long.
func (s *slots) take(ctx context.Context, k key, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		s.mu.Lock()
		freed := s.freed
		ok := s.sum < s.total && s.used[k] < s.each
		if ok {
			s.sum++
			s.used[k]++
		}
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return false
		}
	}
}

// free gives a slot back.
func (s *slots) free(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum--
	if s.used[k]--; s.used[k] == 0 {
		delete(s.used, k)
	}
	close(s.freed)
	s.freed = make(chan struct{})
}
