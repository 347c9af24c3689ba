package ike

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"causeway/control/ike/message"
)

// A Fleet is the nodes that answer on the same endpoints, as this one sees them, and the store that they have in common. Its methods
// may be called by any goroutine. None but Load waits for the store.
type Fleet interface {
	// SPI returns a random SPI that names this node: whoever gets a datagram knows by it where the SA is.
	SPI() uint64

	// Write stores an SA of this node's, if the store has it at a revision; 0: if the store does not have it. done is called once, by
	// any goroutine, with the new revision or why not: ErrTaken if the store has something else.
	Write(s Stored, revision uint64, done func(revision uint64, err error))
	// Erase removes an SA from the store, if the store has it at a revision.
	Erase(spi, revision uint64)
	// Find says what is known of an SA, without its state.
	Find(spi uint64) Stored
	// Load returns an SA with its state.
	Load(spi uint64) (Stored, error)
	// Of lists the SAs of a tunnel that are not here, without states, oldest first.
	Of(tunnel string) []Stored

	// Forward gives a datagram to the node that has an SA, or that is negotiating it. It reports whether there is one.
	Forward(spi uint64, local, remote netip.AddrPort, datagram []byte) bool
	// Leads reports whether this node is the one that begins a tunnel.
	Leads(tunnel string) bool
	// Reached reports whether the store is.
	Reached() bool
	// Local reports whether, while it is not, this node goes on negotiating all the same: the nodes of its data center get what is made, and
	// the store when it is there again.
	Local() bool
	// Common is a moment of this node's clock as other nodes understand it, and Own the other way. No moment stays none.
	Common(t time.Time) time.Time
	Own(t time.Time) time.Time
	// CookieKeys are secrets that all nodes have, the newest first.
	CookieKeys() [][32]byte
}

// ErrStoreAway says why nothing new is negotiated.
var ErrStoreAway = errors.New("the cluster's store is not reached: what is negotiated now no other node would have")

// ErrTaken says that the store has another state of an SA than this node knows: another node goes on with it.
var ErrTaken = errors.New("another node has taken it over")

// ErrNotGiven says that the store was not given a state, because it is not reached.
var ErrNotGiven = errors.New("the store is not reached")

// Stored is an IKE SA in the store.
type Stored struct {
	SPI         uint64 // ours
	Tunnel      string
	Established time.Time
	Revision    uint64
	Where       Where
	Node        string // which has it, or had it
	State       []byte // of marshal: it has keys, which whoever gets it should wipe
}

// Where says who has an SA.
type Where uint8

// Where an SA is.
const (
	Nowhere Where = iota // the store does not have it
	Here                 // this process has it
	There                // another node, which lives
	Vacant               // whoever had it is gone: any node may go on with it
)

// kept is what is known of the store's copy of an SA, and what waits for it.
type kept struct {
	revision uint64          // that the store has; 0: nothing
	offered  atomic.Bool     // the store was given a state of it, or of the SA before: other nodes may have it
	children map[uint32]bool // of the state that is stored, by our SPI
	writing  bool
	stale    bool      // the state is another since writing began
	outbox   []func()  // what leaves when it is stored
	before   int       // SAs that have to be stored earlier
	again    time.Time // when it is tried again
	held     bool      // the last response has not left
	taking   bool      // it is being taken over: nothing is done with it before that is stored
	backlog  []func()  // what has come meanwhile
	ended    bool      // it is over for all, and not only here
	made     []uint32  // pairs of a state that is being written, after it was yielded
}

// maxBacklog bounds what waits while an SA is taken over: the peer sends it again.
const maxBacklog = 16

// storeAgain is how long after a failure the store is asked again.
const storeAgain = 500 * time.Millisecond

// away reports whether the store is not reached: what is made now it would not have.
func (d *Daemon) away() bool { return d.fleet != nil && !d.fleet.Reached() }

// shared reports whether the SA is one that the store is to have: what is not established begins anew elsewhere.
func (s *ikeSA) shared() bool {
	return s.d.fleet != nil && (s.phase == established || s.phase == replaced || s.phase == deleting) && !s.Established.IsZero()
}

// commit stores the state, and then has leave called: what others may see of a state leaves when all nodes can go on from it, so that
// of two nodes which both believe that they have an SA only one acts. Alone, it leaves at once.
func (s *ikeSA) commit(leave func()) {
	if !s.shared() {
		if leave != nil {
			leave()
		}
		return
	}
	if leave != nil {
		s.kept.outbox = append(s.kept.outbox, leave)
	}
	s.kept.stale = true
	s.store()
}

// store writes the state if it has changed, one write at a time.
func (s *ikeSA) store() {
	k := &s.kept
	if k.writing || k.before > 0 || !k.stale || !s.shared() {
		return
	}
	if s.provisional() {
		s.leaveUnstored()
		return
	}
	text, err := s.snapshot()
	if err != nil {
		s.warn("IKE SA cannot be stored", "error", err)
		return
	}
	children := map[uint32]bool{}
	for _, c := range s.Children {
		children[c.SPIIn] = true
	}
	leaves := k.outbox
	k.writing, k.stale, k.outbox, k.again = true, false, nil, time.Time{}
	first := !k.offered.Swap(true)
	stored := Stored{SPI: s.spi(), Tunnel: s.Tunnel, Established: s.Established, State: text}
	s.d.fleet.Write(stored, k.revision, func(revision uint64, err error) {
		s.d.soon(func() { s.stored(revision, err, first, children, leaves) })
	})
}

// stored is told how a write ended; first: it was the first one.
func (s *ikeSA) stored(revision uint64, err error, first bool, children map[uint32]bool, leaves []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &s.kept
	if s.phase == dead { // meanwhile
		switch {
		case err == nil && k.ended:
			s.d.fleet.Erase(s.spi(), revision)
		case err != nil && len(k.made) > 0:
			s.d.plane.Remove(s.Tunnel, k.made...)
		}
		return
	}
	defer s.contain()
	k.writing = false
	if first && errors.Is(err, ErrNotGiven) {
		k.offered.Store(false)
	}
	switch {
	case errors.Is(err, ErrTaken):
		s.yield(err.Error())
		return
	case err != nil && k.taking: // whoever had it may be there again
		s.yield("it could not be taken over: " + err.Error())
		return
	case err != nil:
		s.d.counts.notStored.Add(1)
		s.d.log.Debug("ike: not stored", s.about([]any{"error", err})...)
		k.outbox, k.stale, k.again = append(leaves, k.outbox...), true, time.Now().Add(storeAgain)
	default:
		k.revision, k.children = revision, children
		for _, leave := range leaves {
			leave()
		}
		if s.inPlaceOf != 0 {
			s.endPredecessor()
		}
		s.store()
	}
	if s.phase != dead {
		s.schedule()
	}
}

// storeFirst has another SA stored before this one.
func (s *ikeSA) storeFirst(o *ikeSA) {
	if s.d.fleet == nil {
		return
	}
	s.kept.before++
	o.commit(func() {
		s.d.post(s, func() { s.kept.before--; s.store() })
	})
}

// yield forgets the SA because another node has it, and its pairs with it. Pairs that this node has made, and has not told the peer of
// because their state was never stored, are removed; while it is being written, that waits for the outcome. A pair that the peer was asked
// for is the other node's now, which has asked again and got the same answer.
func (s *ikeSA) yield(why string) {
	s.phase, s.why = dead, why
	s.d.clock.drop(s)
	s.d.forget(s)
	var made []uint32
	for _, c := range s.Children {
		if !s.kept.children[c.SPIIn] && s.kept.revision > 0 && !c.begun {
			made = append(made, c.SPIIn)
		}
	}
	if s.kept.writing {
		s.kept.made = made
	} else if len(made) > 0 {
		s.d.plane.Remove(s.Tunnel, made...)
	}
	s.Children, s.Graves = nil, nil
	s.abandon(why)
	s.wipe()
	for _, f := range s.followups {
		f.wipe(s.d)
	}
	s.note("IKE SA is not here any more", "why", why)
	close(s.gone)
	s.tell(errorOf(why))
	s.d.lost(s.Tunnel)
}

// Taken says that the store has an SA of another node's, or has it no more.
func (d *Daemon) Taken(spi uint64, why string) {
	d.mu.Lock()
	s := d.bySPI[spi]
	d.mu.Unlock()
	if s != nil {
		d.post(s, func() {
			if s.shared() {
				s.yield(why)
			}
		})
	}
}

// StoreAgain writes an SA of this node's anew, because its seal has become old.
func (d *Daemon) StoreAgain(spi uint64) {
	d.mu.Lock()
	s := d.bySPI[spi]
	d.mu.Unlock()
	if s != nil {
		d.post(s, func() { s.commit(nil) })
	}
}

// Forwarded takes a datagram that another node has got.
func (d *Daemon) Forwarded(local, remote netip.AddrPort, datagram []byte) {
	defer d.contain()
	d.counts.forwardedIn.Add(1)
	d.receive(local, remote, datagram, true)
}

// receiveElsewhere takes a datagram of an SA that is not here: its node gets it, and if that is gone, the SA comes here. While the store is
// away nobody knows which nodes live, and a peer that only asks whether we do is answered at once.
func (d *Daemon) receiveElsewhere(local, remote netip.AddrPort, spi uint64, h message.Header, datagram []byte, forwarded bool) {
	if d.fleet == nil {
		d.counts.unknownSPI.Add(1)
		return
	}
	switch where := d.fleet.Find(spi).Where; {
	case where == Vacant || where == Here: // here it was until the process lost it, by a defect
		own := append([]byte(nil), datagram...)
		if !try(d.pool.known, func() {
			if d.TakeOver(spi) == nil {
				d.receive(local, remote, own, true)
			}
		}) {
			d.counts.overload.Add(1)
		}
	case where == There && !forwarded && mayAskNothing(h) && d.away():
		own := append([]byte(nil), datagram...)
		if !try(d.pool.fresh, func() {
			if !d.answerFor(local, remote, spi, own) {
				d.pass(local, remote, spi, own, false)
			}
		}) {
			d.counts.overload.Add(1)
		}
	default:
		d.pass(local, remote, spi, datagram, forwarded)
	}
}

// pass gives a datagram to the node that has its SA.
func (d *Daemon) pass(local, remote netip.AddrPort, spi uint64, datagram []byte, forwarded bool) {
	switch {
	case forwarded: // whoever sent it was wrong, or is late: it must not go round
		d.counts.forwardLoop.Add(1)
	case d.fleet.Forward(spi, local, remote, datagram):
		d.counts.forwardedOut.Add(1)
	default:
		d.counts.unknownSPI.Add(1)
	}
}

// TakeOver goes on with an SA whose node is gone. It returns when that has begun: what comes waits.
func (d *Daemon) TakeOver(spi uint64) error {
	d.mu.Lock()
	here, stopped := d.bySPI[spi] != nil, d.stopped
	d.mu.Unlock()
	if here {
		return nil
	}
	if stopped {
		return errors.New("the daemon stops")
	}
	f, err := d.fleet.Load(spi)
	if err != nil {
		return err
	}
	st, err := parseState(f.State)
	clear(f.State)
	if err != nil {
		return err
	}
	st.atTimes(d.fleet.Own)
	if _, err = d.resume(st, f.Node, f.Revision); err != nil {
		st.wipe()
	}
	return err
}

// endElsewhere ends all SAs of a tunnel that are not here: the peer has none of them any more.
func (d *Daemon) endElsewhere(list []Stored) {
	for _, o := range list {
		f, err := d.fleet.Load(o.SPI)
		if err != nil {
			continue // it is gone
		}
		if st, err := parseState(f.State); err == nil {
			for _, c := range st.Children {
				d.plane.Remove(st.Tunnel, c.SPIIn)
			}
			st.wipe()
		}
		clear(f.State)
		d.fleet.Erase(f.SPI, f.Revision)
	}
}

// Elsewhere lists the SAs of a tunnel that other nodes have.
func (d *Daemon) Elsewhere(tunnel string) []Stored {
	if d.fleet == nil {
		return nil
	}
	return d.fleet.Of(tunnel)
}

// handOver gives SAs to the other nodes: they are stored as they are, and forgotten here. Peers hear nothing of it.
func (d *Daemon) handOver(all []*ikeSA, end time.Time) {
	for _, s := range all {
		s.do(func() {
			switch {
			case s.onlyHere(): // since it was asked
				s.deleteSelf("the daemon stops")
			case !s.shared():
				s.end("the daemon stops")
			default:
				s.commit(nil)
			}
		})
	}
	settled := func(s *ikeSA) (yes bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.phase == dead || !s.kept.writing && !s.kept.stale
	}
	for _, s := range all {
		for !settled(s) && time.Now().Before(end) {
			time.Sleep(5 * time.Millisecond)
		}
		s.do(func() { s.yield("this node stops: another one goes on with it") })
	}
}
