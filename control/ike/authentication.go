package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"causeway/control/ike/auth"
	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// octets are what one side signs: its IKE_SA_INIT message, the other's nonce, prf(SK_p, its ID), and what IKE_INTERMEDIATE
// added (RFC 7296, section 2.15; RFC 9242, section 3.3.2).
func (s *ikeSA) octets(ofInitiator bool, id message.ID) []byte {
	hs := s.hs
	msg, nonce, key := hs.response, hs.ni, s.Keys.Pr
	if ofInitiator {
		msg, nonce, key = hs.request, hs.nr, s.Keys.Pi
	}
	body := append([]byte{byte(id.Type), 0, 0, 0}, id.Data...)
	out := slices.Concat(msg, nonce, s.Suite.PRF.Sum(key, body))
	if hs.authI != nil {
		out = append(append(out, hs.authI...), hs.authR...)
		out = binary.BigEndian.AppendUint32(out, uint32(1+len(s.Suite.AddKE))) // the message ID of IKE_AUTH
	}
	return out
}

// prove makes our AUTH payload, and what goes with it.
func (s *ikeSA) prove(c *message.Contents) error {
	t := s.tunnel
	octets := s.octets(s.initiator, t.LocalID)
	if t.PSK != nil {
		c.Auth = &message.Auth{Method: message.AuthSharedKey, Data: auth.SharedKey(s.Suite.PRF, t.PSK, octets)}
		return nil
	}
	if err := t.Certificate.Valid(time.Now()); err != nil {
		return err
	}
	a, err := t.Certificate.Sign(octets, s.hs.hashes, s.hs.rfc7427)
	if err != nil {
		return err
	}
	c.Auth, c.Certs = &a, t.Certificate.Certs()
	return nil
}

// verify checks the peer's AUTH payload.
func (s *ikeSA) verify(t *Tunnel, id message.ID, c *message.Contents) error {
	octets := s.octets(!s.initiator, id)
	if t.PSK != nil {
		return auth.CheckSharedKey(s.Suite.PRF, t.PSK, octets, *c.Auth)
	}
	return t.Trust.Verify(c.Certs, id, *c.Auth, octets, time.Now())
}

// askAuth sends the IKE_AUTH request.
func (s *ikeSA) askAuth() {
	t := s.tunnel
	spi, err := s.d.plane.ReserveSPI()
	if err != nil {
		s.end(err.Error())
		return
	}
	s.hs.spiIn = spi
	c := &message.Contents{IDi: &t.LocalID, IDr: &t.RemoteID, SA: numbered(withoutKE(t.ChildProposals), spiBytes(spi)),
		TSi: selectorsOf(t.Local), TSr: selectorsOf(t.Remote)}
	if t.AnyID {
		c.IDr = nil
	}
	if s.firstContact() {
		c.Notifies = append(c.Notifies, message.Notify{Type: message.NotifyInitialContact})
	}
	if err := s.prove(c); err != nil {
		s.end(err.Error())
		return
	}
	if t.Trust != nil {
		c.CertReqs = t.Trust.Requests()
	}
	s.ask(&request{exchange: message.IKEAuth,
		contents: func() *message.Contents { return c },
		done: func(c *message.Contents) {
			if c == nil {
				s.end(fmt.Sprintf("%v does not answer to IKE_AUTH", s.Remote))
				return
			}
			s.takeAuth(c)
		}})
}

// firstContact reports whether there is no IKE SA between these identities yet, which is what INITIAL_CONTACT says (RFC 7296,
// section 2.4). The same two may have several tunnels, to several addresses.
func (s *ikeSA) firstContact() bool {
	both := s.d.index.Load().byID[identityOf(s.tunnel.Endpoint, s.tunnel.RemoteID, &s.tunnel.LocalID)]
	return !slices.ContainsFunc(both, func(t *Tunnel) bool { return len(s.d.of(t.Name))+len(s.d.Elsewhere(t.Name)) > 0 })
}

// takeAuth takes the responder's proof, and the first child.
func (s *ikeSA) takeAuth(c *message.Contents) {
	if c.Auth == nil || c.IDr == nil {
		why := "the peer did not prove who it is"
		for _, n := range c.Notifies {
			if n.Type.Error() {
				why = fmt.Sprintf("the peer answered %v", n.Type)
			}
		}
		s.end(why)
		return
	}
	t := s.tunnel
	err := s.verify(t, *c.IDr, c)
	if err == nil && !t.AnyID && !auth.SameID(t.RemoteID, *c.IDr) {
		err = fmt.Errorf("the peer is %v, remote_id is %v", c.IDr, t.RemoteID)
	}
	if err != nil {
		s.deleteSelfNow(message.NotifyAuthenticationFailed, "the peer's proof is wrong: "+err.Error())
		return
	}
	s.LocalID, s.RemoteID = t.LocalID, cloneID(*c.IDr)
	hs := s.hs
	s.establish()
	s.d.counts.established.Add(1)
	s.note("IKE SA established", "role", "initiator", "suite", s.Suite, "remote_id", s.RemoteID, "nat_here", s.NATHere, "nat_there", s.NATThere)
	spi := hs.spiIn
	err = s.takeFirstChild(hs, c)
	hs.wipe(s.d)
	s.hs = nil
	if err != nil {
		s.childFailed(err)
		s.disown(c, spi)
		s.retryChild = time.Now().Add(jittered(2 * busyTime))
		err = fmt.Errorf("the IKE SA is established, without a child SA: %w", err)
	}
	s.commit(nil)
	s.tell(err)
}

func (s *ikeSA) takeFirstChild(hs *handshake, c *message.Contents) error {
	n := &negotiation{tunnel: s.tunnel, spiIn: hs.spiIn, ni: hs.ni, nr: hs.nr, begun: true}
	if err := n.takeChoice(c, withoutKE(s.tunnel.ChildProposals), selectorsOf(s.tunnel.Local), selectorsOf(s.tunnel.Remote)); err != nil {
		return err
	}
	hs.spiIn = 0
	_, err := s.install(n, true)
	n.wipe(s.d)
	return err
}

// handleAuth answers IKE_AUTH: who is it, is it true, and which child does it want. A wrong key and an unknown identity look the
// same from outside, and take the same time.
func (s *ikeSA) handleAuth(c *message.Contents) (*message.Contents, func()) {
	if s.phase != proving || s.initiator || s.hs == nil || len(s.hs.more) > 0 || c.IDi == nil {
		return refuse(message.NotifyInvalidSyntax), func() { s.failHandshake("IKE_AUTH came out of turn, or without an identity") }
	}
	t, err := s.authenticate(c)
	if err != nil {
		return refuse(message.NotifyAuthenticationFailed), func() { s.fail(err.Error()) }
	}
	s.tunnel, s.Tunnel = t, t.Name
	s.LocalID, s.RemoteID = t.LocalID, cloneID(*c.IDi)
	answer := &message.Contents{IDr: &t.LocalID}
	if err := s.prove(answer); err != nil {
		return refuse(message.NotifyAuthenticationFailed), func() { s.fail("we cannot prove who we are: " + err.Error()) }
	}
	hs := s.hs
	s.establish()
	s.d.counts.established.Add(1)
	s.hs = nil
	s.note("IKE SA established", "role", "responder", "suite", s.Suite, "remote_id", s.RemoteID, "nat_here", s.NATHere, "nat_there", s.NATThere)
	if c.Notify(message.NotifyInitialContact) != nil {
		s.initialContact()
	}
	n := &negotiation{tunnel: t, ni: hs.ni, nr: hs.nr}
	if refusal := s.acceptChild(n, c, true); refusal != nil {
		answer.Notifies = append(answer.Notifies, *refusal)
	} else {
		n.answer(answer)
		if n.made != nil && c.Notify(message.NotifyInitialContact) != nil { // the peer has no other
			s.use(n.made)
		}
	}
	return answer, func() {}
}

// authenticate finds the tunnel of whoever proves to be its peer.
func (s *ikeSA) authenticate(c *message.Contents) (*Tunnel, error) {
	t := s.d.index.Load().find(s.Local.Addr(), s.Remote.Addr(), *c.IDi, c.IDr)
	if t != nil {
		s.Tunnel = t.Name
	}
	switch {
	case c.Auth == nil:
		return nil, errors.New("the peer wants EAP, which is for people; a router has a key or a certificate")
	case t == nil:
		_ = s.verify(s.decoy(c), *c.IDi, c)
		return nil, fmt.Errorf("no tunnel of endpoint %v has remote_id %v%s", s.Local.Addr(), c.IDi, wantedID(c.IDr))
	}
	if err := s.verify(t, *c.IDi, c); err != nil {
		return nil, fmt.Errorf("%v did not prove to be it: %w", c.IDi, err)
	}
	if _, err := suite.Choose(t.Proposals, []message.Proposal{s.hs.chosen}); err != nil {
		return nil, fmt.Errorf("%s was agreed on before the peer said who it is, and this tunnel does not permit it: %w", s.Suite, err)
	}
	return t, nil
}

// decoy is a tunnel in place of one that is not there: what the peer has sent takes as long to be refused.
func (s *ikeSA) decoy(c *message.Contents) *Tunnel {
	if trust := s.d.index.Load().trusts[s.Local.Addr()]; trust != nil && c.Auth.Method != message.AuthSharedKey {
		return &Tunnel{Trust: trust}
	}
	return &Tunnel{PSK: decoyKey[:]}
}

var decoyKey [32]byte

func wantedID(id *message.ID) string {
	if id == nil {
		return ""
	}
	return fmt.Sprintf(", and local_id %v, which the peer asks for", id)
}

func cloneID(id message.ID) message.ID { return message.ID{Type: id.Type, Data: slices.Clone(id.Data)} }

// initialContact ends all other SAs with the peer: it has none of them any more (RFC 7296, section 2.4).
func (s *ikeSA) initialContact() {
	for _, o := range s.d.of(s.Tunnel) {
		if o != s {
			s.d.post(o, func() { o.end("the peer began anew") })
		}
	}
	s.d.endElsewhere(s.d.Elsewhere(s.Tunnel))
}
