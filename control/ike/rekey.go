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

// A newIKE is an IKE SA that is to take the place of another (RFC 7296, section 2.18).
type newIKE struct {
	sa     *ikeSA
	suite  suite.IKE
	secret []byte
	ni, nr []byte
}

// A rekeyIKE is our rekeying of an IKE SA that is under way.
type rekeyIKE struct {
	newIKE
	old      *ikeSA
	own      []message.Proposal
	method   uint16 // of the key exchange
	repeated bool   // with the key exchange that the peer wanted
	offer    *suite.Offer
	theirs   *newIKE // the peer's, at the same time, which is ready
	tell     func(error)
}

func spi64(spi uint64) []byte { return binary.BigEndian.AppendUint64(nil, spi) }

// rekeySelf begins to replace the SA, and tells how it ended.
func (s *ikeSA) rekeySelf(tell func(error)) {
	r := &rekeyIKE{old: s, method: s.Suite.KE, tell: tell}
	r.ask()
}

func (r *rekeyIKE) ask() {
	r.newIKE = newIKE{ni: newNonce()}
	r.old.ask(&request{exchange: message.CreateChildSA, contents: r.contents, remember: r.remember, done: r.answered})
}

// contents makes the request, when it is its turn.
func (r *rekeyIKE) contents() *message.Contents {
	s := r.old
	if s.phase != established || s.rekeyed != nil && s.rekeyed != r {
		r.end(nil)
		return nil
	}
	r.own = s.successors()
	var err error
	if r.offer, err = suite.NewOffer(r.method); err != nil {
		r.end(err)
		return nil
	}
	s.rekeyed = r
	r.sa = s.d.newSA(true)
	r.sa.phase = proving
	r.sa.SPIi = s.d.enter(r.sa)
	return &message.Contents{SA: numbered(r.own, spi64(r.sa.SPIi)), Nonce: r.ni, KE: &message.KE{Method: r.method, Data: r.offer.Public()}}
}

// remember notes what the response has to be understood with.
func (r *rekeyIKE) remember(o *Outstanding) {
	o.IKE = asked(r.sa.SPIi, r.ni, r.offer, r.method, r.repeated)
}

// answered takes the response; nil: there is none.
func (r *rekeyIKE) answered(c *message.Contents) {
	s := r.old
	if c == nil {
		r.end(errors.New(s.why))
		return
	}
	err := r.take(c)
	r.offer.Wipe()
	var refused refusedError
	if errors.As(err, &refused) && !r.repeated && offers(r.own, refused.method()) {
		r.drop("the peer wants another key exchange")
		r.method, r.repeated = refused.method(), true
		r.ask()
		return
	}
	if err != nil {
		s.Rekey = time.Now().Add(jittered(4 * busyTime))
		r.end(err)
		return
	}
	s.followUp(r.suite.AddKE, c, r.complete)
}

// take reads what the peer has chosen.
func (r *rekeyIKE) take(c *message.Contents) error {
	if err := refusalIn(c); err != nil {
		return err
	}
	if len(c.SA) != 1 || len(c.SA[0].SPI) != 8 || c.Nonce == nil || c.KE == nil {
		return errors.New("the peer's response has no IKE SA")
	}
	if err := suite.Check(c.SA[0], numbered(r.own, nil)); err != nil {
		return fmt.Errorf("the peer chose %s: %w", suite.Words(c.SA[0]), err)
	}
	var err error
	if r.suite, err = suite.IKEOf(c.SA[0]); err != nil {
		return err
	}
	if c.KE.Method != r.suite.KE || r.method != r.suite.KE {
		return fmt.Errorf("the peer chose %s and sent %s", suite.MethodName(r.suite.KE), suite.MethodName(c.KE.Method))
	}
	if r.secret, err = r.offer.Finish(c.KE.Data); err != nil {
		return err
	}
	r.nr = slices.Clone(c.Nonce)
	r.sa.do(func() { r.sa.SPIr = binary.BigEndian.Uint64(c.SA[0].SPI) })
	return nil
}

// complete lets the new SA live when all key exchanges are done.
func (r *rekeyIKE) complete(secrets [][]byte, err error) {
	if err == nil {
		err = r.old.derive(&r.newIKE, secrets)
	}
	for _, b := range secrets {
		clear(b)
	}
	if err == nil {
		r.old.takeOverIKE(r)
	}
	r.end(err)
}

// drop forgets the SA that was to be.
func (r *rekeyIKE) drop(why string) {
	if r.sa != nil {
		r.sa.do(func() { r.sa.end(why) })
	}
}

// end forgets the rekeying. If it failed while the peer's succeeded, the peer's counts.
func (r *rekeyIKE) end(err error) {
	s := r.old
	if s.rekeyed == r {
		s.rekeyed = nil
	}
	clear(r.secret)
	if r.offer != nil {
		r.offer.Wipe()
	}
	if err != nil {
		s.warn("IKE SA not rekeyed", "why", err)
		r.drop(err.Error())
		if r.theirs != nil {
			s.giveWayTo(r.theirs.sa)
		}
	}
	if r.tell != nil {
		r.tell(err)
	}
}

// derive gives the new SA its keys: SKEYSEED = prf(SK_d (old), secret | Ni | Nr | more), with the old SA's PRF.
func (s *ikeSA) derive(n *newIKE, more [][]byte) error {
	defer clear(n.secret)
	seed := suite.NextSeed(s.Suite.PRF, s.Keys.D, n.secret, n.ni, n.nr, more...)
	err := errors.New("the new IKE SA is gone")
	n.sa.do(func() {
		n.sa.Suite = n.suite
		err = n.sa.setKeys(n.suite.Keys(seed, n.ni, n.nr, n.sa.SPIi, n.sa.SPIr))
	})
	return err
}

// takeOverIKE lets our new SA take the place of s, unless the peer's wins: the exchange with the lowest nonce loses
// (RFC 7296, section 2.8.1).
func (s *ikeSA) takeOverIKE(r *rekeyIKE) {
	r.sa.standBy(s)
	t := r.theirs
	if t != nil && bytes.Compare(lower(r.ni, r.nr), lower(t.ni, t.nr)) < 0 {
		s.giveWayTo(t.sa)
		s.d.post(r.sa, func() { r.sa.deleteSelf("both sides rekeyed") })
		return
	}
	s.giveWayTo(r.sa)
	if t != nil {
		t.sa.standBy(s) // until the peer deletes it
	}
	s.deleteSelf("replaced by a new IKE SA")
}

// busyWithChild reports whether we are making, replacing or deleting a pair: it could not go on in another IKE SA.
func (s *ikeSA) busyWithChild() bool {
	return s.pending != nil && s.pending.ofChild || slices.ContainsFunc(s.queue, func(r *request) bool { return r.ofChild })
}

// giveWayTo gives all that s has to the SA that takes its place; one of the two sides deletes s then. If s is being deleted already,
// so is what was to follow it; if the other one is gone, s stays.
func (s *ikeSA) giveWayTo(n *ikeSA) {
	if s.phase != established {
		why := s.why
		s.d.post(n, func() { n.deleteSelf(why) })
		return
	}
	var deleting []*ChildState
	for _, c := range s.Children {
		if c.deleting {
			deleting = append(deleting, c)
		}
	}
	s.dropQueue("a new IKE SA took its place") // what is to be asked about pairs is asked in the new one
	// All at once: an established SA that has no lifetime yet would be taken for one whose lifetime is over.
	n.do(func() {
		n.inherit(s)
		s.phase, s.expire, s.heir = replaced, time.Now().Add(replacedTime), n
		n.Children, s.Children = s.Children, nil
		for _, c := range n.Children {
			c.rekeying, c.deleting = false, false
		}
		n.Graves, s.Graves = s.Graves, nil
		n.keepalive = s.keepalive
		n.establish()
		n.d.counts.rekeyedIKE.Add(1)
		n.note("IKE SA rekeyed", "old_ike_spi", spiText(s.spi()), "suite", n.Suite)
		s.storeFirst(n)
		for _, c := range deleting {
			n.deleteChild(c)
		}
	})
}

// standBy has a new SA, which can be used already, wait until it is known which of two takes the place of old.
func (s *ikeSA) standBy(old *ikeSA) {
	s.do(func() {
		s.inherit(old)
		s.phase, s.heard, s.expire = replaced, time.Now(), time.Now().Add(replacedTime)
	})
}

// inherit takes over where and who the ends are, and what another node could make of the state of old: this SA too.
func (s *ikeSA) inherit(old *ikeSA) {
	if old.kept.offered.Load() {
		s.kept.offered.Store(true)
	}
	s.inPlaceOf = old.inPlaceOf
	s.tunnel, s.Tunnel, s.Local, s.Remote = old.tunnel, old.Tunnel, old.Local, old.Remote
	s.NATHere, s.NATThere, s.Fragmentation, s.LocalID, s.RemoteID = old.NATHere, old.NATThere, old.Fragmentation, old.LocalID, old.RemoteID
}

// handleRekeyIKE answers a request to replace the SA.
func (s *ikeSA) handleRekeyIKE(c *message.Contents) (*message.Contents, func()) {
	if s.rekeyed == nil && s.busyWithChild() || s.rekeyed != nil && s.rekeyed.theirs != nil {
		return refuse(message.NotifyTemporaryFailure), nil // RFC 7296, section 2.25.2
	}
	chosen, err := suite.Choose(s.successors(), c.SA)
	if err != nil {
		chosen, err = suite.Choose(s.tunnel.Proposals, c.SA)
	}
	if err == nil && (len(chosen.SPI) != 8 || c.KE == nil) {
		err = errors.New("the request has no SPI, or no key exchange")
	}
	if err != nil {
		s.warn("no proposal chosen for a new IKE SA", "offered", offered(c.SA), "why", err)
		return refuse(message.NotifyNoProposalChosen), nil
	}
	su, err := suite.IKEOf(chosen)
	if err != nil {
		return refuse(message.NotifyNoProposalChosen), nil
	}
	if c.KE.Method != su.KE {
		return &message.Contents{Notifies: []message.Notify{{Type: message.NotifyInvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, su.KE)}}}, nil
	}
	public, secret, err := suite.Respond(su.KE, c.KE.Data)
	if err != nil {
		return refuse(message.NotifyInvalidSyntax), nil
	}
	n := &newIKE{sa: s.d.newSA(false), suite: su, secret: secret, ni: slices.Clone(c.Nonce), nr: newNonce()}
	n.sa.SPIi, n.sa.phase = binary.BigEndian.Uint64(chosen.SPI), proving
	n.sa.SPIr = s.d.enter(n.sa)
	chosen.SPI = spi64(n.sa.SPIr)
	answer := &message.Contents{SA: []message.Proposal{chosen}, Nonce: n.nr, KE: &message.KE{Method: su.KE, Data: public}}
	if len(su.AddKE) > 0 {
		s.awaitFollowup(su.AddKE, answer, &followup{ike: n})
		return answer, nil
	}
	after, err := s.completeRekeyIKE(n, nil)
	if err != nil {
		n.sa.do(func() { n.sa.end(err.Error()) })
		return refuse(message.NotifyNoProposalChosen), nil
	}
	return answer, after
}

// completeRekeyIKE gives the new SA its keys and, unless we are rekeying too, the place of the old one.
func (s *ikeSA) completeRekeyIKE(n *newIKE, more [][]byte) (after func(), err error) {
	if err := s.derive(n, more); err != nil {
		return nil, err
	}
	if s.rekeyed != nil {
		s.rekeyed.theirs = n
		n.sa.standBy(s) // until it is known which one wins
		return nil, nil
	}
	return func() { s.giveWayTo(n.sa) }, nil
}
