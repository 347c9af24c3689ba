//go:build race

package pipeline

import "sync/atomic"

type counter uint64

func (c *counter) add(n uint64) { atomic.AddUint64((*uint64)(c), n) }
func (c *counter) set(n uint64) { atomic.StoreUint64((*uint64)(c), n) }
func (c *counter) get() uint64  { return atomic.LoadUint64((*uint64)(c)) }
