package pipeline

import "time"

// PollAt is Poll for harnesses that replay what happened at another time. Worker i takes at, counted from its
// beginning, for the time of this turn: fragments wait and ICMP errors are limited by it, so a replay comes out the same
// each time. It must not go back.
func (e *Engine) PollAt(i int, at time.Duration) int {
	w := e.workers[i]
	w.now = int64(at)
	w.parked.Store(false)
	n := w.turn()
	w.parked.Store(true)
	return n
}
