package ike

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// A childRequest is our asking for a pair: one more, or one in place of another (RFC 7296, sections 1.3.1 and 1.3.3).
type childRequest struct {
	*negotiation
	s        *ikeSA
	old      *ChildState // nil: one more
	own      []message.Proposal
	method   uint16 // of the key exchange; 0: there is none
	repeated bool   // with the key exchange that the peer wanted
	offer    *suite.Offer
	tell     func(error)

	wantLocal, wantRemote []message.Selector
}

// createChild asks for a pair, and tells how it ended.
func (s *ikeSA) createChild(old *ChildState, tell func(error)) {
	r := &childRequest{s: s, old: old, tell: tell}
	if old != nil {
		old.rekeying = true
	}
	r.ask()
}

func (r *childRequest) ask() {
	r.negotiation = &negotiation{tunnel: r.s.tunnel, begun: true, ni: newNonce()}
	r.s.ask(&request{exchange: message.CreateChildSA, ofChild: true, contents: r.contents, remember: r.remember, done: r.answered})
}

// contents makes the request, when it is its turn.
func (r *childRequest) contents() *message.Contents {
	s, old := r.s, r.old
	if old != nil && (s.child(old.SPIIn) != old || old.Replaced || old.deleting) { // somebody was faster
		r.end(nil)
		return nil
	}
	r.want()
	c := &message.Contents{Nonce: r.ni}
	if old != nil {
		c.Notifies = append(c.Notifies, message.Notify{Type: message.NotifyRekeySA, Protocol: message.ProtocolESP, SPI: spiBytes(old.SPIIn)})
	}
	if !r.repeated {
		r.method = firstMethod(r.own)
	}
	var err error
	if r.spiIn, err = s.d.plane.ReserveSPI(); err == nil && r.method != 0 {
		if r.offer, err = suite.NewOffer(r.method); err == nil {
			c.KE = &message.KE{Method: r.method, Data: r.offer.Public()}
		}
	}
	if err != nil {
		r.end(err)
		return nil
	}
	c.SA, c.TSi, c.TSr = numbered(r.own, spiBytes(r.spiIn)), r.wantLocal, r.wantRemote
	return c
}

// want says what is asked for.
func (r *childRequest) want() {
	r.own = r.s.childProposals(r.old)
	r.wantLocal, r.wantRemote = selectorsOf(r.s.tunnel.Local), selectorsOf(r.s.tunnel.Remote)
	if r.old != nil {
		r.wantLocal, r.wantRemote = r.old.Local, r.old.Remote
	}
}

// remember notes what the response has to be understood with.
func (r *childRequest) remember(o *Outstanding) {
	o.Child = asked(uint64(r.spiIn), r.ni, r.offer, r.method, r.repeated)
	if r.old != nil {
		o.Child.Replaces = r.old.SPIIn
	}
}

func asked(spi uint64, nonce []byte, offer *suite.Offer, method uint16, repeated bool) *Asked {
	a := &Asked{SPI: spi, Nonce: nonce, Method: method, Repeated: repeated}
	if offer != nil {
		a.Private = offer.Private()
	}
	return a
}

// answered takes the response; nil: there is none.
func (r *childRequest) answered(c *message.Contents) {
	if c == nil {
		r.end(errors.New(r.s.why))
		return
	}
	err := r.take(c)
	r.wipeOffer()
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		r.refused(refused)
	case err != nil:
		r.s.disown(c, r.spiIn)
		r.end(err)
	default:
		r.s.followUp(r.suite.AddKE, c, r.complete)
	}
}

// take reads what the peer has chosen.
func (r *childRequest) take(c *message.Contents) error {
	if err := r.takeChoice(c, r.own, r.wantLocal, r.wantRemote); err != nil {
		return err
	}
	if c.Nonce == nil {
		return errors.New("the peer's response has no nonce")
	}
	r.nr = slices.Clone(c.Nonce)
	if r.suite.KE == 0 {
		return nil
	}
	if r.offer == nil || c.KE == nil || c.KE.Method != r.suite.KE || r.method != r.suite.KE {
		return fmt.Errorf("the peer chose %s without that key exchange", r.suite)
	}
	var err error
	r.secret, err = r.offer.Finish(c.KE.Data)
	return err
}

// complete installs the pair when all key exchanges are done.
func (r *childRequest) complete(secrets [][]byte, err error) {
	if err == nil {
		r.more = secrets
		spi := r.spiIn
		var child *ChildState
		if child, err = r.s.install(r.negotiation, false); err == nil {
			r.s.takeOver(r.old, child, r.negotiation)
		} else {
			r.s.disownSPI(spi)
		}
	}
	r.end(err)
}

// disown tells a peer that has agreed to a pair that there is none: it would send through it.
func (s *ikeSA) disown(c *message.Contents, spi uint32) {
	if len(c.SA) > 0 {
		s.disownSPI(spi)
	}
}

func (s *ikeSA) disownSPI(spi uint32) {
	s.ask(&request{exchange: message.Informational, ofChild: true,
		contents: func() *message.Contents {
			return &message.Contents{Deletes: []message.Delete{{Protocol: message.ProtocolESP, SPIs: []uint32{spi}}}}
		},
		done: func(*message.Contents) {}})
}

func (r *childRequest) wipeOffer() {
	if r.offer != nil {
		r.offer.Wipe()
		r.offer = nil
	}
}

// end forgets the request, and says why there is no pair.
func (r *childRequest) end(err error) {
	if err != nil {
		r.s.childFailed(err)
	}
	r.finish(err)
}

// finish forgets the request.
func (r *childRequest) finish(err error) {
	r.wipeOffer()
	r.wipe(r.s.d)
	if r.old != nil {
		r.old.rekeying = false
		delete(r.s.collision, r.old.SPIIn)
	}
	if r.tell != nil {
		r.tell(err)
	}
}

// busyTime is how long a peer is let alone after a refusal that passes (RFC 7296, section 2.25).
const busyTime = 5 * time.Second

// refused does what a refusal asks for.
func (r *childRequest) refused(why refusedError) {
	s, old := r.s, r.old
	if old != nil && (s.child(old.SPIIn) != old || old.Replaced) { // meanwhile the peer has replaced it
		r.end(nil)
		return
	}
	switch why.is {
	case message.NotifyInvalidKEPayload:
		if m := why.method(); !r.repeated && offers(r.own, m) {
			r.wipe(s.d)
			r.method, r.repeated = m, true
			r.ask()
			return
		}
	case message.NotifyChildSANotFound:
		if old != nil {
			s.note("the peer does not have a child SA any more", "spi_in", fmt.Sprintf("%#x", old.SPIIn))
			r.wipe(s.d)
			delete(s.collision, old.SPIIn)
			s.bury(old)
			if s.hasLivePairFor(old) { // which was made beside it, when responses were lost
				r.finish(nil)
				return
			}
			s.createChild(nil, r.tell)
			return
		}
	case message.NotifyTemporaryFailure:
		if old != nil {
			old.Rekey = time.Now().Add(jittered(2 * busyTime))
			r.finish(why)
			return
		}
	}
	if old != nil {
		old.Rekey = time.Now().Add(jittered(4 * busyTime))
	}
	r.end(why)
}

// A refusedError is an error that the peer answered.
type refusedError struct {
	is   message.NotifyType
	data []byte
}

func (e refusedError) Error() string { return "the peer answered " + e.is.String() }

// method is the key exchange that INVALID_KE_PAYLOAD asks for; 0: none.
func (e refusedError) method() uint16 {
	if e.is != message.NotifyInvalidKEPayload || len(e.data) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(e.data)
}

// refusalIn is the first error in a response, or nil.
func refusalIn(c *message.Contents) error {
	for _, n := range c.Notifies {
		if n.Type.Error() {
			return refusedError{n.Type, slices.Clone(n.Data)}
		}
	}
	return nil
}

// A collision is a pair that the peer has made in place of one for which we ask for another.
type collision struct {
	low   []byte // the lower nonce of that exchange
	child *ChildState
}

// takeOver lets a new pair take the place of old. If the peer has made one too, the one of the exchange with the lowest of the four
// nonces is deleted, by whoever made it (RFC 7296, section 2.8.1).
func (s *ikeSA) takeOver(old, child *ChildState, n *negotiation) {
	if old == nil {
		s.use(child)
		return
	}
	if c := s.collision[old.SPIIn]; c != nil && bytes.Compare(lower(n.ni, n.nr), c.low) < 0 {
		s.note("both sides rekeyed: ours is deleted", "spi_in", fmt.Sprintf("%#x", child.SPIIn))
		child.Replaced = true
		s.deleteChild(child)
		return
	}
	s.d.counts.rekeyedChildren.Add(1)
	s.use(child)
	old.Replaced, old.Expire = true, time.Now().Add(replacedTime)
	if s.child(old.SPIIn) == old {
		s.deleteChild(old)
	}
}

func lower(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}
