package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
)

// Children of negotiated tunnels come and go without other tables: a rekey changes a few entries, of ten thousand tunnels that
// have some each second. So there are two copies of the tables that the children stand in. The workers read one, the other is
// changed, and then they get that; once they have left the first, it is the one to change next, which begins with what it missed.

// children is the associations of negotiated tunnels. Engine.mu guards it.
type children struct {
	of     map[int][]SASpec // by tunnel id, of each negotiated one
	owners map[int]Owner    // of each that is Owned
	nodes  map[int]bool     // that lead to other nodes
	spare  *associations    // which no worker reads; nil: there is none yet
	late   []int            // tunnels whose children spare does not have yet
}

// childChanges collects what several goroutines want to change, so that the workers get it all at once.
type childChanges struct {
	mu   sync.Mutex
	next *childChange // nil: nothing
}

type childChange struct {
	children map[string][]SASpec // by tunnel
	owners   map[string]Owner    // likewise
	errs     map[string]error
}

// SetChildren asks for a negotiated tunnel to have these children and no others. Packets toward the customer leave by the first
// whose selectors admit them and that can send. The children are in use, and those that are not among them used by no worker, when
// wait has returned; it must be called. Of two calls for one tunnel the later one counts, whichever wait is called first. An error
// says that the tunnel does not exist, or that another association has the SPI of one of the children, without which it has been
// done.
func (e *Engine) SetChildren(tunnel string, list []SASpec) (wait func() error) {
	list = slices.Clone(list)
	return e.ask(tunnel, func(c *childChange) { c.children[tunnel] = list })
}

// ask collects a change of a tunnel.
func (e *Engine) ask(tunnel string, change func(*childChange)) (wait func() error) {
	e.changes.mu.Lock()
	defer e.changes.mu.Unlock()
	c := e.changes.next
	if c == nil {
		c = &childChange{children: map[string][]SASpec{}, owners: map[string]Owner{}, errs: map[string]error{}}
		e.changes.next = c
	}
	change(c)
	return func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.takeChanges() // unless another goroutine has done it
		return c.errs[tunnel]
	}
}

// takeChanges gives the workers what was asked for up to now.
func (e *Engine) takeChanges() {
	e.changes.mu.Lock()
	c := e.changes.next
	e.changes.next = nil
	e.changes.mu.Unlock()
	if c == nil {
		return
	}
	now := e.tables.Load()
	spare := e.children.spare
	if spare == nil {
		spare = now.associations.clone()
	} else {
		for _, id := range e.children.late {
			spare.put(id, now.esp[id])
		}
	}
	var changed []int
	for name := range c.names() {
		id, ok := e.names.tunnels[name]
		before, negotiated := e.children.of[id]
		if !ok || !negotiated {
			c.errs[name] = fmt.Errorf("tunnel %q: the workers have no negotiated tunnel of this name", name)
			continue
		}
		list, children := c.children[name]
		if !children {
			list = before
		}
		if o, owner := c.owners[name]; owner {
			if _, owned := e.children.owners[id]; !owned {
				c.errs[name] = fmt.Errorf("tunnel %q: any node encrypts for it", name)
				continue
			}
			e.children.owners[id] = o
		}
		// An SPI that another tunnel gives up now is not free yet: the other copy would get both in any order.
		list, err := withoutConflicts(id, list, &now.associations, spare)
		if err != nil {
			c.errs[name] = fmt.Errorf("tunnel %q: %w", name, err)
		}
		next := e.newESPTunnel(id, now.tx[id], list)
		spare.put(id, next)
		e.children.of[id] = list
		changed = append(changed, id)
	}
	tables := *now
	tables.associations = *spare
	e.tables.Store(&tables)
	e.quiesce()
	e.children.spare, e.children.late = &now.associations, changed
}

// names are the tunnels of which something changes.
func (c *childChange) names() map[string]bool {
	names := map[string]bool{}
	for name := range c.children {
		names[name] = true
	}
	for name := range c.owners {
		names[name] = true
	}
	return names
}

// withoutConflicts leaves out the children of tunnel id that have an SPI of another association, and says which one.
func withoutConflicts(id int, list []SASpec, tables ...*associations) (left []SASpec, err error) {
	seen := map[uint32]bool{}
	for i := range list {
		var found error
		for _, in := range list[i].Inbound {
			found = cmp.Or(found, spiConflict(id, in.SPI(), seen, tables...))
		}
		if err = cmp.Or(err, found); found == nil {
			left = append(left, list[i])
		}
	}
	return left, err
}
