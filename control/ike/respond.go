package ike

import (
	"crypto/sha256"
	"errors"
	"net/netip"

	"causeway/control/ike/message"
)

// receiveRequest answers a request of the peer's: the next one, or the one before, again.
func (s *ikeSA) receiveRequest(local, remote netip.AddrPort, h message.Header, b []byte) {
	switch {
	case h.ID+1 == s.NextResponse && len(s.Answer.Datagrams) > 0:
		s.answerAgain(local, remote, h, b)
		return
	case h.ID != s.NextResponse || s.phase == failed:
		return // a window of one
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
		s.answer(h, s.unsent)
		return
	}
	answer, after := s.handle(h, c)
	if answer == nil {
		return
	}
	s.answer(h, answer)
	if after != nil {
		after()
	}
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
	s.answer(h, &message.Contents{Notifies: []message.Notify{n}})
	if s.phase < established {
		s.fail("a request was not understood: " + err.Error())
	}
}

// answer sends a response, and remembers it until the next request.
func (s *ikeSA) answer(h message.Header, c *message.Contents) {
	datagrams, err := s.seal(h.Exchange, h.ID, true, c)
	if err != nil {
		s.warn("response not sent", "exchange", h.Exchange, "error", err)
		if s.phase >= established { // when the request comes again, there may be an IV
			s.unsent = c
		}
		return
	}
	s.unsent = nil
	s.Answer = Answer{Request: s.incomingHash, Datagrams: datagrams}
	s.NextResponse = h.ID + 1
	s.send(datagrams)
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
	s.postponeSwitch()
	for _, d := range s.Answer.Datagrams {
		s.d.transmit(local, remote, d)
	}
}
