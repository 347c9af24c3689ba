package pipeline

import "causeway/analytics/tally"

// counter is a tally.Counter of a worker.
type counter tally.Counter

func (c *counter) add(n uint64) { (*tally.Counter)(c).Add(n) }
func (c *counter) set(n uint64) { (*tally.Counter)(c).Set(n) }
func (c *counter) get() uint64  { return (*tally.Counter)(c).Get() }
