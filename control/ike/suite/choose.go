package suite

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"causeway/control/ike/message"
	"causeway/crypto/esp"
)

// maxReasons is how many proposals an error explains. A stranger writes what is in them.
const maxReasons = 8

// Choose returns what both sides want, by our order of preference: the number and SPI are those of the offered proposal, with one
// transform of each type that it has. The error says why each one fails, of the first maxReasons.
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
	if len(offered) == 0 {
		return message.Proposal{}, errors.New("nothing was offered")
	}
	var why []string
	for _, p := range offered[:min(len(offered), maxReasons)] {
		why = append(why, failure(own, p))
	}
	if more := len(offered) - len(why); more > 0 {
		why = append(why, fmt.Sprintf("and %d more", more))
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
// missing is returned. A stranger may ask for this with thousands of transforms: it allocates only for what is chosen.
func match(own, offered message.Proposal) (chosen message.Proposal, missing message.TransformType) {
	var picked [message.TransformAdditionalKE7]message.Transform
	n := 0
	for t := message.TransformEncryption; t <= message.TransformAdditionalKE7; t++ {
		x, ok := common(own.Transforms, offered.Transforms, t)
		if !ok {
			return message.Proposal{}, t
		}
		if has(offered, t) {
			picked[n] = x
			n++
		}
	}
	return message.Proposal{Number: offered.Number, Protocol: offered.Protocol, SPI: offered.SPI, Transforms: slices.Clone(picked[:n])}, 0
}

// common is the first of our transforms of a type that is offered too.
func common(own, theirs []message.Transform, t message.TransformType) (message.Transform, bool) {
	none := true
	for _, x := range own {
		if x.Type == t {
			none = false
			if permits(theirs, x) {
				return x, true
			}
		}
	}
	x := message.Transform{Type: t}
	return x, none && permits(theirs, x)
}

// permits reports whether a transform is in the list, or is the NONE that a list with none of its type stands for.
func permits(list []message.Transform, x message.Transform) bool {
	none := x == message.Transform{Type: x.Type}
	for _, y := range list {
		if y == x {
			return true
		}
		none = none && y.Type != x.Type
	}
	return none
}

// failure says why an offered proposal has nothing that one of ours permits: what the one that comes closest lacks.
func failure(own []message.Proposal, p message.Proposal) string {
	if i := slices.IndexFunc(p.Transforms, unknownType); i >= 0 {
		return fmt.Sprintf("%s: %v is not known", Words(p), p.Transforms[i].Type)
	}
	var lacks message.TransformType
	var best []message.Proposal // those of ours that fit best: the peer may mean any of them
	for _, o := range own {
		if o.Protocol != p.Protocol {
			continue
		}
		_, missing := match(o, p)
		if missing > lacks {
			lacks, best = missing, nil
		}
		if missing == lacks {
			best = append(best, o)
		}
	}
	if lacks == 0 {
		return fmt.Sprintf("%s: nothing is permitted for %v", Words(p), p.Protocol)
	}
	var ours []string
	for _, o := range best {
		for _, t := range all(o, lacks) {
			if text := textOf(t); !slices.Contains(ours, text) {
				ours = append(ours, text)
			}
		}
	}
	if len(ours) == 0 {
		ours = []string{textOf(message.Transform{Type: lacks})}
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
