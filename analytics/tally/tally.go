// Package tally counts on the packet path: one goroutine writes, any may read, and neither waits.
package tally

import "sync/atomic"

// A Counter is written by one goroutine. Aligned words are read and written whole on all machines that the project knows,
// so Add and Set are plain stores; under the race detector, which cannot know that, it is an atomic one.
type Counter uint64

// Get may be called by any goroutine.
func (c *Counter) Get() uint64 { return atomic.LoadUint64((*uint64)(c)) }
