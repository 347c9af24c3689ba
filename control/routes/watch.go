package routes

import (
	"cmp"
	"net/netip"
	"slices"
)

// watchKind says who wants to know about routes to an address.
type watchKind uint8

const (
	watchVia       watchKind = iota // next hops given by an address only
	watchTunnel                     // the customer endpoint of a tunnel
	watchNeighbour                  // a host that may deserve a route of its own
)

// A watcher is one of them; id is a via, a tunnel or an interface.
type watcher struct {
	kind watchKind
	id   uint32
}

// watchList finds the watchers of all addresses within a prefix: it is asked at every route change, and written rarely.
type watchList struct {
	list   []watched
	sorted bool
}

type watched struct {
	addr netip.Addr
	watcher
}

func (w watched) compare(o watched) int {
	if c := w.addr.Compare(o.addr); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(w.kind, o.kind), cmp.Compare(w.id, o.id))
}

func (l *watchList) add(a netip.Addr, w watcher) {
	l.list = append(l.list, watched{a, w})
	l.sorted = false
}

func (l *watchList) remove(a netip.Addr, w watcher) {
	l.sort()
	if i, ok := slices.BinarySearchFunc(l.list, watched{a, w}, watched.compare); ok {
		l.list = slices.Delete(l.list, i, i+1)
	}
}

// within calls f for each watcher of an address in p.
func (l *watchList) within(p netip.Prefix, f func(netip.Addr, watcher)) {
	l.sort()
	i, _ := slices.BinarySearchFunc(l.list, p.Addr(), func(w watched, a netip.Addr) int {
		return cmp.Or(w.addr.Compare(a), 1) // the first of equal addresses
	})
	for ; i < len(l.list) && p.Contains(l.list[i].addr); i++ {
		f(l.list[i].addr, l.list[i].watcher)
	}
}

func (l *watchList) sort() {
	if !l.sorted {
		slices.SortFunc(l.list, watched.compare)
		l.sorted = true
	}
}
