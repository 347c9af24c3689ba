package suite

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"causeway/control/ike/message"
	"causeway/crypto/esp"
)

// Choose returns what both sides want, by our order of preference: the number and SPI are those of the offered proposal, with one
// transform of each type that it has. The error says why each one fails.
func Choose(own, offered []message.Proposal) (message.Proposal, error) {
	for _, o := range own {
		for _, p := range offered {
			if o.Protocol == p.Protocol && !slices.ContainsFunc(p.Transforms, unknownType) {
				if chosen, missing := match(o, p); missing == 0 {
					return chosen, nil
				}
			}
		}
	}
	var why []string
	for _, p := range offered {
		why = append(why, failure(own, p))
	}
	if len(why) == 0 {
		return message.Proposal{}, errors.New("nothing was offered")
	}
	return message.Proposal{}, errors.New(strings.Join(why, "; "))
}

// unknownType reports whether a transform is for something that we do not know. A proposal with one cannot be chosen (RFC 7296,
// section 3.3.6).
func unknownType(t message.Transform) bool {
	return t.Type < message.TransformEncryption || t.Type > message.TransformAdditionalKE7
}

// match picks a transform of each type that both have. Where one has none of a type, it is as if it had NONE: no perfect forward
// secrecy, no additional key exchange (RFC 9370, section 2.2.1), no integrity algorithm beside the cipher's own. Else the type that is
// missing is returned.
func match(own, offered message.Proposal) (chosen message.Proposal, missing message.TransformType) {
	chosen = message.Proposal{Number: offered.Number, Protocol: offered.Protocol, SPI: offered.SPI}
	for t := message.TransformEncryption; t <= message.TransformAdditionalKE7; t++ {
		theirs := all(offered, t)
		x, ok := common(orNone(all(own, t), t), orNone(theirs, t))
		if !ok {
			return message.Proposal{}, t
		}
		if len(theirs) > 0 {
			chosen.Transforms = append(chosen.Transforms, x)
		}
	}
	return chosen, 0
}

func orNone(list []message.Transform, t message.TransformType) []message.Transform {
	if len(list) == 0 {
		return []message.Transform{{Type: t}}
	}
	return list
}

func common(own, theirs []message.Transform) (message.Transform, bool) {
	for _, x := range own {
		if slices.Contains(theirs, x) {
			return x, true
		}
	}
	return message.Transform{}, false
}

// failure says why an offered proposal has nothing that one of ours permits: what the one that comes closest lacks.
func failure(own []message.Proposal, p message.Proposal) string {
	if i := slices.IndexFunc(p.Transforms, unknownType); i >= 0 {
		return fmt.Sprintf("%s: %v is not known", Words(p), p.Transforms[i].Type)
	}
	var lacks message.TransformType
	var best message.Proposal
	for _, o := range own {
		if o.Protocol != p.Protocol {
			continue
		}
		if _, missing := match(o, p); missing > lacks {
			lacks, best = missing, o
		}
	}
	if lacks == 0 {
		return fmt.Sprintf("%s: nothing is permitted for %v", Words(p), p.Protocol)
	}
	var ours []string
	for _, t := range orNone(all(best, lacks), lacks) {
		ours = append(ours, textOf(t))
	}
	return fmt.Sprintf("%s: no common %v, ours are %s", Words(p), lacks, strings.Join(ours, ", "))
}

// Check reports whether a responder's choice is one of what we offered, the proposal of the same number, and one transform of each
// type.
func Check(chosen message.Proposal, own []message.Proposal) error {
	for _, o := range own {
		if o.Number != chosen.Number || o.Protocol != chosen.Protocol {
			continue
		}
		for i, t := range chosen.Transforms {
			if !slices.Contains(o.Transforms, t) && !(t.Type == message.TransformIntegrity && t.ID == integNone && !has(o, t.Type)) {
				return fmt.Errorf("%s was not offered", textOf(t))
			}
			if slices.ContainsFunc(chosen.Transforms[:i], func(x message.Transform) bool { return x.Type == t.Type }) {
				return fmt.Errorf("two of %v", t.Type)
			}
		}
		for _, t := range o.Transforms {
			if !has(chosen, t.Type) && !slices.ContainsFunc(all(o, t.Type), func(x message.Transform) bool { return x.ID == 0 }) {
				return fmt.Errorf("no %v", t.Type)
			}
		}
		return nil
	}
	return fmt.Errorf("proposal %d was not offered", chosen.Number)
}

// IKEOf reads the algorithms of a choice.
func IKEOf(p message.Proposal) (IKE, error) {
	var s IKE
	for _, t := range p.Transforms {
		switch {
		case t.Type == message.TransformEncryption:
			s.Encr, s.KeyBits = t.ID, t.KeyBits
		case t.Type == message.TransformIntegrity:
			s.Integ = t.ID
		case t.Type == message.TransformPRF:
			s.PRF = PRF(t.ID)
		case t.Type == message.TransformKeyExchangeMethod:
			s.KE = t.ID
		case t.Type >= message.TransformAdditionalKE1 && t.ID != 0:
			s.AddKE = append(s.AddKE, t.ID)
		}
	}
	for _, t := range p.Transforms {
		if !isOurs(t) {
			return s, fmt.Errorf("%s does not make an IKE SA: %s is not one of ours", Words(p), textOf(t))
		}
	}
	if s.Encr == 0 || s.Encr == Null || ciphers[s.Encr].aead != (s.Integ == integNone) || s.KE == 0 || s.PRF == 0 {
		return s, fmt.Errorf("%s does not make an IKE SA", Words(p))
	}
	return s, nil
}

// ESPOf reads the algorithms of a choice.
func ESPOf(p message.Proposal) (ESP, error) {
	var s ESP
	var encr, integ message.Transform
	for _, t := range p.Transforms {
		switch {
		case t.Type == message.TransformEncryption:
			encr = t
		case t.Type == message.TransformIntegrity && t.ID != integNone:
			integ = t
		case t.Type == message.TransformSequenceNumbers:
			s.ESN = t.ID == 1
		case t.Type == message.TransformKeyExchangeMethod:
			s.KE = t.ID
		case t.Type >= message.TransformAdditionalKE1 && t.ID != 0:
			s.AddKE = append(s.AddKE, t.ID)
		}
	}
	name := textOf(encr)
	if integ.ID != integNone {
		name += "-" + textOf(integ)
	}
	var err error
	s.Suite, err = esp.ParseSuite(name)
	return s, err
}
