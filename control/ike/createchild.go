package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// handleCreateChild answers CREATE_CHILD_SA: a new IKE SA, a new pair in place of an old one, or one more. What cannot be done
// just now is refused for a while (RFC 7296, section 2.25).
func (s *ikeSA) handleCreateChild(c *message.Contents) (*message.Contents, func()) {
	switch {
	case len(c.SA) == 0 || c.Nonce == nil:
		return refuse(message.NotifyInvalidSyntax), nil
	case s.phase != established:
		return refuse(message.NotifyTemporaryFailure), nil
	case c.SA[0].Protocol == message.ProtocolIKE:
		return s.handleRekeyIKE(c)
	case s.rekeyed != nil:
		return refuse(message.NotifyTemporaryFailure), nil
	}
	old, refusal := s.rekeyedChild(c)
	if refusal != nil {
		return &message.Contents{Notifies: []message.Notify{*refusal}}, nil
	}
	n := &negotiation{tunnel: s.tunnel, ni: c.Nonce, nr: newNonce()}
	if refusal := s.acceptChild(n, c, false); refusal != nil {
		return &message.Contents{Notifies: []message.Notify{*refusal}}, nil
	}
	answer := &message.Contents{Nonce: n.nr}
	n.answer(answer)
	if len(n.suite.AddKE) > 0 {
		s.awaitFollowup(n.suite.AddKE, answer, &followup{child: n, old: old})
		return answer, nil
	}
	s.peerReplaced(old, n.made, n)
	return answer, nil
}

// rekeyedChild finds the pair that a request wants to replace.
func (s *ikeSA) rekeyedChild(c *message.Contents) (*ChildState, *message.Notify) {
	r := c.Notify(message.NotifyRekeySA)
	if r == nil {
		return nil, nil
	}
	if len(r.SPI) != 4 || r.Protocol != message.ProtocolESP {
		return nil, &message.Notify{Type: message.NotifyInvalidSyntax}
	}
	old := s.peerChild(binary.BigEndian.Uint32(r.SPI))
	switch {
	case old == nil:
		return nil, &message.Notify{Type: message.NotifyChildSANotFound, Protocol: message.ProtocolESP, SPI: r.SPI}
	case old.deleting || old.Replaced:
		return nil, &message.Notify{Type: message.NotifyTemporaryFailure}
	}
	return old, nil
}

// peerReplaced notes that the peer has made a pair in place of old, which it will delete.
func (s *ikeSA) peerReplaced(old, child *ChildState, n *negotiation) {
	if old == nil {
		return
	}
	if old.rekeying {
		s.collision[old.SPIIn] = &collision{lower(n.ni, n.nr), child}
		return
	}
	s.d.counts.rekeyedChildren.Add(1)
	old.Replaced, child.Replaces = true, old.SPIIn
	old.Expire = time.Now().Add(replacedTime)
}

// replacedTime is how long whoever replaced something has to delete it.
const replacedTime = 30 * time.Second

// A followup is what is to be made when the peer has done its additional key exchanges (RFC 9370, section 2.2.4).
type followup struct {
	link    []byte
	methods []uint16
	secrets [][]byte
	expire  time.Time

	child *negotiation
	old   *ChildState
	ike   *newIKE
}

func (f *followup) wipe(d *Daemon) {
	for _, b := range f.secrets {
		clear(b)
	}
	if f.child != nil {
		f.child.wipe(d)
	}
	if f.ike != nil {
		clear(f.ike.secret)
		f.ike.sa.do(func() { f.ike.sa.end("the peer did not go on") })
	}
}

// followupTime is how long a peer has for its next additional key exchange: longer than it asks again.
const followupTime = 2 * time.Minute

// maxFollowups bounds what a peer may leave unfinished.
const maxFollowups = 4

// awaitFollowup adds to a response what the peer has to show when it goes on.
func (s *ikeSA) awaitFollowup(methods []uint16, answer *message.Contents, f *followup) {
	f.link, f.methods, f.expire = newNonce()[:8], methods, time.Now().Add(followupTime)
	answer.Notifies = append(answer.Notifies, message.Notify{Type: message.NotifyAdditionalKeyExchange, Data: f.link})
	if len(s.followups) >= maxFollowups {
		s.followups[0].wipe(s.d)
		s.followups = s.followups[1:]
	}
	s.followups = append(s.followups, f)
}

// handleFollowup answers IKE_FOLLOWUP_KE.
func (s *ikeSA) handleFollowup(c *message.Contents) (*message.Contents, func()) {
	link := c.Notify(message.NotifyAdditionalKeyExchange)
	if link == nil || c.KE == nil {
		return refuse(message.NotifyInvalidSyntax), nil
	}
	at := -1
	for i, f := range s.followups {
		if string(f.link) == string(link.Data) {
			at = i
		}
	}
	if at < 0 {
		return refuse(message.NotifyStateNotFound), nil
	}
	f := s.followups[at]
	drop := func() { s.followups = append(s.followups[:at:at], s.followups[at+1:]...) }
	if c.KE.Method != f.methods[0] {
		drop()
		f.wipe(s.d)
		return refuse(message.NotifyInvalidSyntax), nil
	}
	public, secret, err := suite.Respond(c.KE.Method, c.KE.Data)
	if err != nil {
		drop()
		f.wipe(s.d)
		return refuse(message.NotifyInvalidSyntax), nil
	}
	f.methods, f.secrets = f.methods[1:], append(f.secrets, secret)
	answer := &message.Contents{KE: &message.KE{Method: c.KE.Method, Data: public}}
	if len(f.methods) > 0 {
		f.link = newNonce()[:8]
		answer.Notifies = []message.Notify{{Type: message.NotifyAdditionalKeyExchange, Data: f.link}}
		return answer, nil
	}
	drop()
	return s.completeFollowup(f, answer)
}

// completeFollowup makes what was agreed on.
func (s *ikeSA) completeFollowup(f *followup, answer *message.Contents) (*message.Contents, func()) {
	if s.phase != established || f.ike != nil && s.rekeyed == nil && s.busyWithChild() { // since it began
		f.wipe(s.d)
		return refuse(message.NotifyTemporaryFailure), nil
	}
	if f.ike != nil {
		after, err := s.completeRekeyIKE(f.ike, f.secrets)
		for _, b := range f.secrets {
			clear(b)
		}
		if err != nil {
			f.wipe(s.d)
			return refuse(message.NotifyInvalidSyntax), nil
		}
		return answer, after
	}
	f.child.more = f.secrets
	err := s.roomFor(f.child) // others were made since it began
	var child *ChildState
	if err == nil {
		child, err = s.install(f.child, false)
	}
	if err != nil {
		s.childFailed(err)
		f.wipe(s.d)
		return refuse(message.NotifyNoAdditionalSAs), nil
	}
	s.peerReplaced(f.old, child, f.child)
	f.child.wipe(s.d)
	return answer, nil
}

// followUp does the additional key exchanges of a response to CREATE_CHILD_SA, one IKE_FOLLOWUP_KE each, and gives their secrets.
func (s *ikeSA) followUp(methods []uint16, c *message.Contents, done func(secrets [][]byte, err error)) {
	s.followNext(methods, c, nil, done)
}

func (s *ikeSA) followNext(methods []uint16, c *message.Contents, secrets [][]byte, done func([][]byte, error)) {
	if len(methods) == 0 {
		done(secrets, nil)
		return
	}
	link := c.Notify(message.NotifyAdditionalKeyExchange)
	if link == nil {
		done(nil, errors.New("the peer chose additional key exchanges and gave no ADDITIONAL_KEY_EXCHANGE"))
		return
	}
	offer, err := suite.NewOffer(methods[0])
	if err != nil {
		done(nil, err)
		return
	}
	n := message.Notify{Type: message.NotifyAdditionalKeyExchange, Data: append([]byte(nil), link.Data...)}
	s.queue = append([]*request{{exchange: message.IKEFollowupKE, ofChild: true,
		contents: func() *message.Contents {
			return &message.Contents{KE: &message.KE{Method: methods[0], Data: offer.Public()}, Notifies: []message.Notify{n}}
		},
		done: func(c *message.Contents) {
			defer offer.Wipe()
			if c == nil {
				done(nil, errors.New(s.why))
				return
			}
			if c.KE == nil || c.KE.Method != methods[0] {
				done(nil, fmt.Errorf("the peer's IKE_FOLLOWUP_KE has no %s%s", suite.MethodName(methods[0]), errorIn(c)))
				return
			}
			secret, err := offer.Finish(c.KE.Data)
			if err != nil {
				done(nil, err)
				return
			}
			s.followNext(methods[1:], c, append(secrets, secret), done)
		}}}, s.queue...)
	s.nextRequest()
}

func errorIn(c *message.Contents) string {
	for _, n := range c.Notifies {
		if n.Type.Error() {
			return ": it answered " + n.Type.String()
		}
	}
	return ""
}
