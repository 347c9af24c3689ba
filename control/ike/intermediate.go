package ike

import (
	"fmt"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// askIntermediate does the next additional key exchange (RFC 9370, section 2.2.2).
func (s *ikeSA) askIntermediate() {
	method := s.hs.more[0]
	o, err := suite.NewOffer(method)
	if err != nil {
		s.end(err.Error())
		return
	}
	if s.hs.offer != nil {
		s.hs.offer.Wipe()
	}
	s.hs.offer = o
	s.ask(&request{exchange: message.IKEIntermediate,
		contents: func() *message.Contents {
			return &message.Contents{KE: &message.KE{Method: method, Data: o.Public()}}
		},
		done: func(c *message.Contents) {
			if c == nil {
				s.end(fmt.Sprintf("%v does not answer to IKE_INTERMEDIATE", s.Remote))
				return
			}
			if err := s.takeIntermediate(c, method); err != nil {
				s.end(err.Error())
				return
			}
			s.goOn()
		}})
}

func (s *ikeSA) takeIntermediate(c *message.Contents, method uint16) error {
	if c.KE == nil || c.KE.Method != method {
		return fmt.Errorf("the peer's IKE_INTERMEDIATE has no %s", suite.MethodName(method))
	}
	secret, err := s.hs.offer.Finish(c.KE.Data)
	if err != nil {
		return err
	}
	return s.mix(secret)
}

// mix makes new keys from those that are there and the secret of an additional key exchange:
// SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr) (RFC 9370, section 2.2.2).
func (s *ikeSA) mix(secret []byte) error {
	defer clear(secret)
	s.hs.more = s.hs.more[1:]
	seed := suite.NextSeed(s.Suite.PRF, s.Keys.D, secret, s.hs.ni, s.hs.nr)
	return s.setKeys(s.Suite.Keys(seed, s.hs.ni, s.hs.nr, s.SPIi, s.SPIr))
}

// handleIntermediate answers an additional key exchange. The answer has the keys of before.
func (s *ikeSA) handleIntermediate(c *message.Contents) (*message.Contents, func()) {
	if s.phase != proving || s.initiator || s.hs == nil || len(s.hs.more) == 0 || c.KE == nil || c.KE.Method != s.hs.more[0] {
		return refuse(message.NotifyInvalidSyntax), func() { s.failHandshake("IKE_INTERMEDIATE does not have the key exchange that was agreed on") }
	}
	public, secret, err := suite.Respond(c.KE.Method, c.KE.Data)
	if err != nil {
		return refuse(message.NotifyInvalidSyntax), func() { s.failHandshake(err.Error()) }
	}
	return &message.Contents{KE: &message.KE{Method: c.KE.Method, Data: public}}, func() {
		if err := s.mix(secret); err != nil {
			s.fail(err.Error())
		}
	}
}

// failHandshake fails an SA that is not established; an established one does not care.
func (s *ikeSA) failHandshake(why string) {
	if s.phase < established {
		s.fail(why)
	}
}
