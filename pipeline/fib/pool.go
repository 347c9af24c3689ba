package fib

import "sync/atomic"

// pool hands out numbered items that readers find through their number. Items are reused only after put; growing copies
// them, and a reader that still holds the shorter copy sees the items as they were then.
type pool[T any] struct {
	mem    array[T]
	shared atomic.Pointer[[]T] // what readers load, after the slot that holds the number
	made   int                 // items taken from mem so far
	free   []uint32            // items to take again
}

// firstItems is the first capacity: small, because there may be ten thousand tables of a few routes.
const firstItems = 4

func (p *pool[T]) item(n uint32) *T { return &p.mem.items[n] }

// reserve makes room for n more items and reports whether it had to move all of them.
func (p *pool[T]) reserve(n int, retire func(func())) bool {
	have := len(p.mem.items)
	if len(p.free)+have-p.made >= n {
		return false
	}
	want := max(have, firstItems)
	for want < have+n {
		want *= 2
	}
	old := p.mem
	p.mem = newArray[T](want, true)
	copy(p.mem.items, old.items)
	items := p.mem.items
	p.shared.Store(&items) // before a slot holds a number that only the longer copy has
	if old.mapping != nil {
		retire(old.release)
	}
	return true
}

// take returns the number of an item with old contents. Room must have been reserved.
func (p *pool[T]) take() uint32 {
	if n := len(p.free); n > 0 {
		number := p.free[n-1]
		p.free = p.free[:n-1]
		return number
	}
	p.made++
	return uint32(p.made - 1)
}

func (p *pool[T]) put(n uint32) { p.free = append(p.free, n) }

func (p *pool[T]) close() {
	p.mem.release()
	p.mem, p.free = array[T]{}, nil
	p.shared.Store(new([]T))
}
