//go:build race

package tally

import "sync/atomic"

// Add is for the one goroutine that writes, and so is Set, for values that are no sums.
func (c *Counter) Add(n uint64) { atomic.AddUint64((*uint64)(c), n) }

// Set: see Add.
func (c *Counter) Set(n uint64) { atomic.StoreUint64((*uint64)(c), n) }
