package ike

import (
	"fmt"
	"slices"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// resume goes on with an SA of which this daemon has the state: what of, and that as it stands in the store at a revision. The dataplane
// has its children. In a fleet nothing is done with it before the store says that it is ours; of several nodes that try, one succeeds.
func (d *Daemon) resume(st *State, of string, revision uint64) (*ikeSA, error) {
	s := d.newSA(st.Initiator)
	s.State = *st
	if s.tunnel = d.index.Load().byName[st.Tunnel]; s.tunnel == nil || s.tunnel.Endpoint != st.Local.Addr() {
		return nil, fmt.Errorf("IKE SA %016x: there is no tunnel %q here that is negotiated at %v", st.spi(), st.Tunnel, st.Local.Addr())
	}
	keys := st.Keys
	s.Keys = nil // setKeys wipes those before
	if err := s.setKeys(keys); err != nil {
		return nil, err
	}
	s.phase, s.expire, s.heard = st.Phase, st.Until, time.Now()
	s.proved.Store(true)
	s.kept.revision, s.kept.taking = revision, d.fleet != nil
	s.kept.offered.Store(true)
	s.kept.children = map[uint32]bool{}
	for _, c := range s.Children {
		s.kept.children[c.SPIIn] = true
	}
	d.mu.Lock()
	taken := d.bySPI[st.spi()] != nil
	if !taken {
		d.bySPI[st.spi()] = s
	}
	d.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("IKE SA %016x lives here already", st.spi())
	}
	s.do(func() { s.commit(func() { s.goOnFrom(of) }) })
	return s, nil
}

// goOnFrom lives on with an SA that is ours now.
func (s *ikeSA) goOnFrom(of string) {
	s.kept.taking = false
	s.d.counts.takenOver.Add(1)
	s.note("IKE SA taken over", "from", of)
	if s.phase == established {
		s.d.establish(s)
	}
	if p := s.Pending; p != nil {
		s.askAgain(p)
	}
	backlog := s.kept.backlog
	s.kept.backlog = nil
	for _, f := range backlog {
		if s.phase != dead {
			f()
		}
	}
}

// askAgain sends a request of the node that was before, as it was: the peer may have answered it, and answers it once more.
func (s *ikeSA) askAgain(p *Outstanding) {
	r := &request{exchange: p.Exchange, id: p.ID, datagrams: p.Datagrams, done: func(*message.Contents) {}}
	var err error
	switch {
	case p.Child != nil:
		err = s.askChildAgain(r, p.Child)
	case p.IKE != nil:
		err = s.askIKEAgain(r, p.IKE)
	case p.Deletes != 0:
		if c := s.child(p.Deletes); c != nil {
			c.deleting, r.ofChild = true, true
			r.done = s.deletedChild(c)
		}
	case s.phase == deleting:
		r.done = func(*message.Contents) { s.end("deleted") }
	}
	if err != nil { // what the peer makes of it, it keeps for itself until it misses its answers
		s.warn("a request of the node that was before cannot be gone on with", "exchange", p.Exchange, "error", err)
	}
	s.pending = r
	s.transmitRequest(time.Now())
}

func (s *ikeSA) askChildAgain(sent *request, a *Asked) error {
	r := &childRequest{s: s, old: s.child(a.Replaces), method: a.Method, repeated: a.Repeated,
		negotiation: &negotiation{tunnel: s.tunnel, begun: true, spiIn: uint32(a.SPI), ni: slices.Clone(a.Nonce)}}
	r.want()
	if r.old != nil {
		r.old.rekeying = true
	}
	sent.ofChild, sent.done, sent.remember = true, r.answered, r.remember
	return restore(&r.offer, a)
}

func (s *ikeSA) askIKEAgain(sent *request, a *Asked) error {
	r := &rekeyIKE{old: s, own: s.successors(), method: a.Method, repeated: a.Repeated, newIKE: newIKE{ni: slices.Clone(a.Nonce)}}
	if err := restore(&r.offer, a); err != nil {
		return err
	}
	r.sa = s.d.newSA(true)
	r.sa.phase, r.sa.SPIi = proving, a.SPI
	s.d.mu.Lock()
	s.d.bySPI[a.SPI] = r.sa
	s.d.mu.Unlock()
	s.rekeyed = r
	sent.done, sent.remember = r.answered, r.remember
	return nil
}

// restore makes the key of an exchange again.
func restore(o **suite.Offer, a *Asked) (err error) {
	if a.Method != 0 {
		*o, err = suite.RestoreOffer(a.Method, a.Private)
	}
	return err
}
