package ike

import (
	"crypto/sha256"
	"errors"
	"net/netip"

	"causeway/control/ike/message"
)

// receiveRequest answers a request of the peer's: the next one, or the one before, again.
func (s *ikeSA) receiveRequest(local, remote netip.AddrPort, h message.Header, b []byte) {
	away := s.d.away() && !s.provisional()
	switch {
	case h.ID+1 == s.NextResponse && len(s.Answer.Datagrams) > 0:
		s.answerAgain(local, remote, h, b)
		return
	case !s.awaits(h.ID) || s.phase == failed:
		return // a window of one
	case away && s.phase < established:
		s.d.counts.storeAway.Add(1)
		return // the peer asks again
	}
	first, text, complete, err := s.open(h, b)
	if err != nil {
		s.unauthentic(err)
		return
	}
	if h.Exchange != message.IKEAuth && h.Exchange != message.IKEIntermediate && s.phase < established {
		return
	}
	if !complete {
		return
	}
	s.heardFrom(local, remote)
	c, err := message.Parse(first, text)
	if err != nil {
		s.refuseSyntax(h, err)
		return
	}
	if s.unsent != nil {
		s.answer(h, s.unsent, nil, false)
		return
	}
	// What is answered without a change of the state that matters elsewhere need not wait for the store: whoever goes on with the SA takes
	// a message ID ahead of the one that it knows. Without the store nothing is made, and what is refused or deleted is answered so too.
	fromMemory := away || asksNothing(h, c)
	if away && (h.Exchange == message.CreateChildSA || h.Exchange == message.IKEFollowupKE) {
		s.answer(h, refuse(message.NotifyTemporaryFailure), nil, true)
		return
	}
	answer, after := s.handle(h, c)
	if answer != nil {
		s.answer(h, answer, after, fromMemory)
	}
}

// awaits reports whether a request is the next one. In a fleet the one before may have been answered by another node from memory, which
// nobody has written down; an older one is never taken.
func (s *ikeSA) awaits(id uint32) bool {
	return id == s.NextResponse || s.shared() && id > s.NextResponse
}

// handle does what a request asks for. after, if there is something to be done when the response is on its way.
func (s *ikeSA) handle(h message.Header, c *message.Contents) (answer *message.Contents, after func()) {
	switch h.Exchange {
	case message.IKEIntermediate:
		return s.handleIntermediate(c)
	case message.IKEAuth:
		return s.handleAuth(c)
	case message.CreateChildSA:
		return s.handleCreateChild(c)
	case message.IKEFollowupKE:
		return s.handleFollowup(c)
	case message.Informational:
		return s.handleInformational(c)
	}
	return refuse(message.NotifyInvalidSyntax), nil
}

// refuse is a response that says no.
func refuse(t message.NotifyType) *message.Contents {
	return &message.Contents{Notifies: []message.Notify{{Type: t}}}
}

// refuseSyntax answers an authentic request that cannot be understood (RFC 7296, section 2.21).
func (s *ikeSA) refuseSyntax(h message.Header, err error) {
	s.warn("request not understood", "exchange", h.Exchange, "error", err)
	n := message.Notify{Type: message.NotifyInvalidSyntax}
	var critical *message.CriticalError
	if errors.As(err, &critical) {
		n = message.Notify{Type: message.NotifyUnsupportedCriticalPayload, Data: []byte{byte(critical.Type)}}
	}
	s.answer(h, &message.Contents{Notifies: []message.Notify{n}}, nil, true)
	if s.phase < established {
		s.fail("a request was not understood: " + err.Error())
	}
}

// answer does what comes after a request, and sends the response when the state with it is stored, or at once; it is remembered until the
// next request.
func (s *ikeSA) answer(h message.Header, c *message.Contents, after func(), fromMemory bool) {
	if s.remember(h, c) {
		leave := s.parcel()
		if after != nil {
			after()
		}
		switch {
		case s.phase == dead:
			leave()
		case fromMemory:
			s.kept.stale = true
			leave()
		default:
			s.kept.held = true
			s.commit(func() { s.kept.held = false; leave() })
		}
	} else if after != nil {
		after()
	}
}

// remember seals a response, which is not to be made again.
func (s *ikeSA) remember(h message.Header, c *message.Contents) bool {
	datagrams, err := s.seal(h.Exchange, h.ID, true, c)
	if err != nil {
		s.warn("response not sent", "exchange", h.Exchange, "error", err)
		if s.phase >= established { // when the request comes again, there may be an IV
			s.unsent = c
		}
		return false
	}
	s.unsent = nil
	s.Answer = Answer{Request: s.incomingHash, Datagrams: datagrams}
	s.NextResponse = h.ID + 1
	return true
}

// parcel sends the last response to where the peer is now.
func (s *ikeSA) parcel() (leave func()) {
	local, remote, datagrams := s.Local, s.Remote, s.Answer.Datagrams
	return func() {
		for _, b := range datagrams {
			s.d.transmit(local, remote, b)
		}
	}
}

// answerAgain sends the last response again if its request came again. A peer may have sealed it anew, in other fragments
// (RFC 7383, section 2.5.2); anybody else gets nothing.
func (s *ikeSA) answerAgain(local, remote netip.AddrPort, h message.Header, b []byte) {
	if sha256.Sum256(b) != s.Answer.Request {
		f, err := message.ParseSealed(h, b)
		if err != nil || f.Fragment > 1 || s.in == nil {
			return
		}
		if _, err := s.in.Open(b, f.At); err != nil {
			s.unauthentic(err)
			return
		}
	}
	if s.kept.held {
		return // it leaves when it is stored
	}
	s.postponeSwitch()
	for _, d := range s.Answer.Datagrams {
		s.d.transmit(local, remote, d)
	}
}
