package ike

import (
	"slices"
	"time"
)

// Where the operator has chosen so (Fleet.Local), a node goes on negotiating while the store is away, for the nodes of its data center. An SA
// that the store was never given is provisional: no other node has it, so none can act in it, and its messages need not be written before they
// leave. What the store has, or may have, waits for it. When such an SA, or a pair of it, is due to be replaced, the tunnel is begun anew beside
// it. All is stored when the store is there again.

// refuses reports whether nothing new is begun, because no other node would have it.
func (d *Daemon) refuses() bool { return d.away() && !d.fleet.Local() }

// provisional reports whether the SA is one that only this process can have, made while the store is away: no other node can take it over,
// so nothing has to be written before it leaves.
func (s *ikeSA) provisional() bool { return s.d.away() && s.d.fleet.Local() && !s.kept.offered.Load() }

// leaveUnstored lets what waits for the store leave: the SA is provisional. Its state is written when the store is there again.
func (s *ikeSA) leaveUnstored() {
	leaves := s.kept.outbox
	s.kept.outbox, s.kept.again = nil, time.Now().Add(storeAgain)
	for _, leave := range leaves {
		leave()
	}
}

// onlyHere reports whether no other node can go on with an established SA: the store is away, and does not have it.
func (s *ikeSA) onlyHere() bool { return s.d.away() && s.shared() && !s.kept.offered.Load() }

// mayBeTakenOver reports whether other nodes can go on with the SA when this one stops.
func (s *ikeSA) mayBeTakenOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.d.fleet != nil && !s.onlyHere()
}

// How many pairs a peer may make in a row while the store is away, and how many in a second: SPIs were reserved before, and are those of all
// tunnels.
const (
	spareBurst = 16
	spareRate  = 1.0 / 60
)

// mayMakePair reports whether a tunnel's peer may make one more.
func (d *Daemon) mayMakePair(tunnel string) bool {
	if d.fleet == nil {
		return true
	}
	away := d.away()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !away {
		clear(d.spared)
		return true
	}
	if d.spared == nil {
		d.spared = map[string]*throttle{}
	}
	if d.spared[tunnel] == nil {
		d.spared[tunnel] = new(throttle)
	}
	return d.spared[tunnel].allow(time.Now(), spareBurst, spareRate)
}

// mustBeginAnew reports whether pairs of the SA cannot be replaced now, and those of a new one could: the store is away, has this SA, and is
// not needed for another.
func (s *ikeSA) mustBeginAnew() bool {
	return s.d.away() && s.d.fleet.Local() && s.kept.offered.Load() && s.tunnel.Customer.IsValid()
}

// beginAnew negotiates the tunnel once more, in place of an SA that waits for the store, unless that has been done.
func (s *ikeSA) beginAnew() {
	if slices.ContainsFunc(s.d.of(s.Tunnel), func(o *ikeSA) bool { return !o.kept.offered.Load() }) {
		return
	}
	t, spi := s.tunnel, s.spi()
	s.note("a pair cannot be replaced while the store is away: the tunnel is begun anew")
	s.d.soon(func() {
		n := s.d.initiate(t)
		n.do(func() { n.inPlaceOf = spi })
	})
}

// endPredecessor ends the SA in whose place this one was begun: the store has this one now.
func (s *ikeSA) endPredecessor() {
	d := s.d
	d.mu.Lock()
	o := d.bySPI[s.inPlaceOf]
	d.mu.Unlock()
	s.inPlaceOf = 0
	if o != nil {
		d.post(o, func() { o.deleteSelf("the tunnel was begun anew while the store was away") })
	}
}
