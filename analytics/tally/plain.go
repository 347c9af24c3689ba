//go:build !race

package tally

// Add is for the one goroutine that writes, and so is Set, for values that are no sums.
func (c *Counter) Add(n uint64) { *c += Counter(n) }

// Set: see Add.
func (c *Counter) Set(n uint64) { *c = Counter(n) }
