package pipeline

import "sync/atomic"

// Drops are counted by reason for the node, and by reason for each tunnel too: which tunnel has a wrong MTU, and which one sends
// from addresses that are not its own, is what an operator asks first. A hundred thousand tunnels with a hundred reasons each would
// be too many counters for every worker to have; of those that count anything there are few. A worker's table has a place for
// each pair that does.

// dropPlaces is the size of the table, a power of two; all that finds no place in it is counted together.
const dropPlaces = 1 << 15

// dropTable counts drops by key: open addressing, at most three quarters full, and nothing is ever taken out. One worker writes.
type dropTable struct {
	places []dropPlace
	used   int
	rest   counter // of keys without a place
}

type dropPlace struct {
	key atomic.Uint64 // dropKey; 0: free
	n   counter
}

func newDropTable() *dropTable { return &dropTable{places: make([]dropPlace, dropPlaces)} }

// dropKey names what is counted. It is never 0: ReasonNone is no reason to drop.
func dropKey(tunnel int32, into bool, r Reason) uint64 {
	key := uint64(uint32(tunnel))<<16 | uint64(r)
	if into {
		key |= 1 << 8
	}
	return key
}

// add counts one drop.
func (d *dropTable) add(key uint64) {
	for at := key * 0x9e3779b97f4a7c15 >> 49; ; at++ {
		s := &d.places[at&(dropPlaces-1)]
		switch s.key.Load() {
		case key:
			s.n.add(1)
			return
		case 0:
			if d.used == dropPlaces/4*3 {
				d.rest.add(1)
				return
			}
			d.used++
			s.n.set(1)
			s.key.Store(key)
			return
		}
	}
}

// countDrop counts why p goes no further.
func (w *worker) countDrop(p *packet, r Reason) {
	w.count.dropped[r].add(1)
	if p.flags&watched != 0 {
		w.sampleDropped(p, r)
	}
	if p.tunnel != noTunnel {
		w.tunnelDrops[p.tunnel].rx.add(1)
	}
	w.drops.add(dropKey(p.tunnel, false, r))
}

// countLost counts a frame that is dropped where nothing is known of its packet.
func (w *worker) countLost(r Reason) {
	w.count.dropped[r].add(1)
	w.drops.add(dropKey(noTunnel, false, r))
}

// countDropInto counts that p, which is dropped for r, was to go into tunnel id.
func (w *worker) countDropInto(p *packet, id int, r Reason) {
	w.sampled(p, id, Dropped)
	w.tunnelDrops[id].tx.add(1)
	w.drops.add(dropKey(int32(id), true, r))
}

// A Drop is how many packets were dropped since the start for one reason, of one tunnel.
type Drop struct {
	Tunnel int  // number; -1: no tunnel was found
	Into   bool // they were to go into the tunnel; else they came out of it
	Reason Reason
	N      uint64
}

// TunnelDrops calls f for each tunnel and reason that something was dropped for, once for each worker that did. A number that
// another tunnel had before goes on where that one's ended: what counts is the difference between two calls. rest is what the
// workers had no place for. A packet that came out of one tunnel and was to go into another one counts for both.
func (e *Engine) TunnelDrops(f func(Drop)) (rest uint64) {
	for _, w := range e.workers {
		for i := range w.drops.places {
			s := &w.drops.places[i]
			if key := s.key.Load(); key != 0 {
				f(Drop{Tunnel: int(int32(key >> 16)), Into: key>>8&1 != 0, Reason: Reason(key), N: s.n.get()})
			}
		}
		rest += w.drops.rest.get()
	}
	return rest
}
