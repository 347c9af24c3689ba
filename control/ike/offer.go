package ike

import (
	"slices"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// What of the configured proposals is offered, where and when.

// numbered gives proposals their numbers, and an SPI of ours.
func numbered(proposals []message.Proposal, spi []byte) []message.Proposal {
	out := slices.Clone(proposals)
	for i := range out {
		out[i].Number, out[i].SPI = uint8(i+1), spi
	}
	return out
}

// firstMethod is the key exchange that is tried first.
func firstMethod(proposals []message.Proposal) uint16 {
	for _, p := range proposals {
		for _, t := range p.Transforms {
			if t.Type == message.TransformKeyExchangeMethod {
				return t.ID
			}
		}
	}
	return 0
}

func offers(proposals []message.Proposal, method uint16) bool {
	return slices.ContainsFunc(proposals, func(p message.Proposal) bool {
		return slices.ContainsFunc(p.Transforms, func(t message.Transform) bool {
			return t.Type == message.TransformKeyExchangeMethod && t.ID == method
		})
	})
}

// needsIntermediate reports whether a proposal has an additional key exchange.
func needsIntermediate(p message.Proposal) bool {
	return slices.ContainsFunc(p.Transforms, func(t message.Transform) bool { return t.Type >= message.TransformAdditionalKE1 && t.ID != 0 })
}

// ofExchange reports whether a transform is for a key exchange rather than for what the keys are used with.
func ofExchange(t message.Transform) bool {
	return t.Type == message.TransformKeyExchangeMethod || t.Type >= message.TransformAdditionalKE1
}

// withoutKE is what IKE_AUTH may offer: its child has the keys of the IKE SA (RFC 7296, section 1.2).
func withoutKE(list []message.Proposal) []message.Proposal {
	out := slices.Clone(list)
	for i := range out {
		out[i].Transforms = slices.DeleteFunc(slices.Clone(out[i].Transforms), ofExchange)
	}
	return out
}

// keeping is what of our proposals has these algorithms, with any key exchange: what is offered for an SA that takes the place of
// one with them, because a responder chooses by its own taste, which may be for something weaker. It is all of ours if the
// configuration permits the algorithms no more.
func keeping(own []message.Proposal, stays []message.Transform) []message.Proposal {
	var list []message.Proposal
	for _, p := range own {
		p.Transforms = slices.DeleteFunc(slices.Clone(p.Transforms), func(t message.Transform) bool { return !ofExchange(t) && !slices.Contains(stays, t) })
		if !slices.ContainsFunc(stays, func(t message.Transform) bool { return !slices.Contains(p.Transforms, t) }) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return own
	}
	return list
}

// successors are what may be agreed on for the IKE SA that takes the place of s. The PRF has to stay for another reason too: the
// old SA's makes SKEYSEED (RFC 7296, section 2.18), and the new one's makes keys of it (section 2.14), but strongSwan (5.9.8)
// takes the old one for both.
func (s *ikeSA) successors() []message.Proposal {
	stays := []message.Transform{{Type: message.TransformEncryption, ID: s.Suite.Encr, KeyBits: s.Suite.KeyBits}, {Type: message.TransformPRF, ID: uint16(s.Suite.PRF)}}
	if s.Suite.Integ != 0 {
		stays = append(stays, message.Transform{Type: message.TransformIntegrity, ID: s.Suite.Integ})
	}
	return keeping(s.tunnel.Proposals, stays)
}

// childProposals are what may be agreed on for a pair: one more, or one in place of old.
func (s *ikeSA) childProposals(old *ChildState) []message.Proposal {
	if old == nil {
		return s.tunnel.ChildProposals
	}
	stays, err := suite.ParseESP(suite.ESP{Suite: old.Suite.Suite, ESN: old.Suite.ESN}.String(), true, true)
	if err != nil {
		return s.tunnel.ChildProposals
	}
	return keeping(s.tunnel.ChildProposals, stays.Transforms)
}
