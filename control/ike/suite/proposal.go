package suite

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"causeway/control/ike/message"
	"causeway/crypto/esp"
)

// IKE is the algorithms of an IKE SA.
type IKE struct {
	Encr    uint16
	KeyBits int
	Integ   uint16 // 0: the cipher does it
	PRF     PRF
	KE      uint16
	AddKE   []uint16 // additional key exchanges, in order (RFC 9370)
}

// ESP is the algorithms of a pair of child SAs.
type ESP struct {
	Suite esp.Suite
	ESN   bool
	KE    uint16 // 0: no perfect forward secrecy
	AddKE []uint16
}

// String writes the algorithms in strongSwan's words.
func (s IKE) String() string {
	out := []string{textOf(message.Transform{Type: message.TransformEncryption, ID: s.Encr, KeyBits: s.KeyBits})}
	if s.Integ != integNone {
		out = append(out, textOf(message.Transform{Type: message.TransformIntegrity, ID: s.Integ}))
	}
	out = append(out, textOf(message.Transform{Type: message.TransformPRF, ID: uint16(s.PRF)}))
	return strings.Join(append(out, exchangeWords(s.KE, s.AddKE)...), "-")
}

// String writes the algorithms in strongSwan's words.
func (s ESP) String() string {
	out := []string{s.Suite.String()}
	if s.KE != 0 {
		out = append(out, exchangeWords(s.KE, s.AddKE)...)
	}
	if s.ESN {
		return strings.Join(append(out, "esn"), "-")
	}
	return strings.Join(append(out, "noesn"), "-")
}

func exchangeWords(ke uint16, more []uint16) []string {
	out := []string{MethodName(ke)}
	for i, m := range more {
		out = append(out, fmt.Sprintf("ke%d_%s", i+1, MethodName(m)))
	}
	return out
}

// Words writes a proposal in strongSwan's words.
func Words(p message.Proposal) string {
	var out []string
	for _, t := range p.Transforms {
		if t.Type == message.TransformIntegrity && t.ID == integNone {
			continue
		}
		out = append(out, textOf(t))
	}
	return strings.Join(out, "-")
}

// ParseIKE reads a proposal for IKE SAs in strongSwan's words.
func ParseIKE(text string, allowWeak bool) (message.Proposal, error) {
	p := message.Proposal{Protocol: message.ProtocolIKE}
	if err := parseWords(&p, text, allowWeak); err != nil {
		return p, err
	}
	encr, integ := all(p, message.TransformEncryption), all(p, message.TransformIntegrity)
	if len(encr) == 0 || len(all(p, message.TransformKeyExchangeMethod)) == 0 || has(p, message.TransformSequenceNumbers) || slices.ContainsFunc(encr, isNull) {
		return p, fmt.Errorf("%q: an IKE proposal has an encryption and a key exchange, such as aes256gcm16-prfsha384-ecp384", text)
	}
	aead, err := combined(text, encr, integ)
	if err != nil {
		return p, err
	}
	if len(all(p, message.TransformPRF)) == 0 { // as strongSwan has it: that of the integrity algorithm
		for _, i := range integ {
			p.Transforms = append(p.Transforms, message.Transform{Type: message.TransformPRF, ID: uint16(prfOf[i.ID])})
		}
	}
	if len(all(p, message.TransformPRF)) == 0 {
		return p, fmt.Errorf("%q: a cipher that checks integrity itself needs a prf, such as prfsha384", text)
	}
	if aead {
		p.Transforms = slices.DeleteFunc(p.Transforms, func(t message.Transform) bool { return t.Type == message.TransformIntegrity })
	}
	return ordered(p), checkAdditional(text, p)
}

var prfOf = map[uint16]PRF{HMACSHA1: PRFHMACSHA1, HMACSHA256: PRFHMACSHA256, HMACSHA384: PRFHMACSHA384, HMACSHA512: PRFHMACSHA512}

// ParseESP reads a proposal for child SAs in strongSwan's words. Without esn or noesn it is noesn.
func ParseESP(text string, allowWeak, allowNull bool) (message.Proposal, error) {
	p := message.Proposal{Protocol: message.ProtocolESP}
	if err := parseWords(&p, text, allowWeak); err != nil {
		return p, err
	}
	encr, integ := all(p, message.TransformEncryption), all(p, message.TransformIntegrity)
	if len(encr) == 0 || has(p, message.TransformPRF) {
		return p, fmt.Errorf("%q: a child proposal has an encryption, and no prf, such as aes256gcm16-ecp384", text)
	}
	if slices.ContainsFunc(encr, isNull) && !allowNull {
		return p, fmt.Errorf("%q: null leaves packets readable: allow_null_cipher: true permits it", text)
	}
	aead, err := combined(text, encr, integ)
	if err != nil {
		return p, err
	}
	if aead && len(integ) > 0 {
		return p, fmt.Errorf("%q: the cipher checks integrity itself", text)
	}
	for _, i := range integ {
		if i.ID == HMACSHA384 || i.ID == HMACSHA512 {
			return p, fmt.Errorf("%q: ESP has sha256 here, and sha1 for old routers", text)
		}
	}
	if !has(p, message.TransformSequenceNumbers) {
		p.Transforms = append(p.Transforms, message.Transform{Type: message.TransformSequenceNumbers, ID: 0})
	}
	return ordered(p), checkAdditional(text, p)
}

func isNull(t message.Transform) bool { return t.ID == Null }

// combined reports whether the ciphers check integrity themselves. The two kinds do not go into one proposal (RFC 7296,
// section 3.3).
func combined(text string, encr, integ []message.Transform) (bool, error) {
	aead := ciphers[encr[0].ID].aead
	for _, e := range encr {
		if ciphers[e.ID].aead != aead {
			return false, fmt.Errorf("%q: ciphers that check integrity themselves and others need proposals of their own", text)
		}
	}
	if !aead && len(integ) == 0 {
		return false, fmt.Errorf("%q: this encryption needs an integrity algorithm, such as sha256", text)
	}
	return aead, nil
}

// checkAdditional demands that additional key exchanges are ML-KEM beside a curve, and nothing else is.
func checkAdditional(text string, p message.Proposal) error {
	more := false
	for _, t := range p.Transforms {
		kem := t.ID == MLKEM768 || t.ID == MLKEM1024
		switch {
		case t.Type >= message.TransformAdditionalKE1 && t.ID != 0:
			more = true
			if !kem {
				return fmt.Errorf("%q: additional key exchanges are mlkem768 and mlkem1024", text)
			}
		case t.Type == message.TransformKeyExchangeMethod && kem:
			return fmt.Errorf("%q: ML-KEM comes in addition to a curve, as ke1_%s", text, MethodName(t.ID))
		}
	}
	if !more {
		return nil
	}
	for _, t := range all(p, message.TransformKeyExchangeMethod) {
		if t.ID != ECP384 && t.ID != X25519 {
			return fmt.Errorf("%q: ML-KEM goes with ecp384 or x25519", text)
		}
	}
	if len(all(p, message.TransformKeyExchangeMethod)) == 0 {
		return fmt.Errorf("%q: an additional key exchange needs a first one", text)
	}
	return nil
}

// parseWords adds a transform for each word.
func parseWords(p *message.Proposal, text string, allowWeak bool) error {
	for _, w := range strings.Split(text, "-") {
		t, weak, err := parseWord(w)
		switch {
		case err != nil:
			return fmt.Errorf("%q: %w", text, err)
		case weak && !allowWeak:
			return fmt.Errorf("%q: %s is for old routers alone: allow_weak: true permits it", text, w)
		}
		if !slices.Contains(p.Transforms, t) {
			p.Transforms = append(p.Transforms, t)
		}
	}
	return nil
}

func parseWord(text string) (t message.Transform, weak bool, err error) {
	name, slot := text, message.TransformType(0)
	if len(text) > 4 && strings.HasPrefix(text, "ke") && text[3] == '_' && text[2] >= '1' && text[2] <= '7' {
		name, slot = text[4:], message.TransformAdditionalKE1+message.TransformType(text[2]-'1')
	}
	for _, w := range words {
		if w.text == name && (slot == 0 || w.t.Type == message.TransformKeyExchangeMethod) {
			if w.t.Type == message.TransformKeyExchangeMethod && slot != 0 {
				w.t.Type = slot
			}
			return w.t, w.weak, nil
		}
	}
	return t, false, fmt.Errorf("%q is no algorithm", text)
}

// ordered puts the types into the order in which they are written.
func ordered(p message.Proposal) message.Proposal {
	rank := func(t message.Transform) int {
		return slices.Index([]message.TransformType{message.TransformEncryption, message.TransformIntegrity, message.TransformPRF,
			message.TransformKeyExchangeMethod, 6, 7, 8, 9, 10, 11, 12, message.TransformSequenceNumbers}, t.Type)
	}
	slices.SortStableFunc(p.Transforms, func(a, b message.Transform) int { return rank(a) - rank(b) })
	return p
}

// all lists the transforms of a type.
func all(p message.Proposal, t message.TransformType) (out []message.Transform) {
	for _, x := range p.Transforms {
		if x.Type == t {
			out = append(out, x)
		}
	}
	return out
}

func has(p message.Proposal, t message.TransformType) bool { return len(all(p, t)) > 0 }

// DefaultIKE is what is offered and taken where nothing else is configured, the strongest first.
func DefaultIKE(allowWeak bool) []message.Proposal {
	const groups = "-ecp384-x25519-ecp521-ecp256-modp4096-modp3072-modp2048"
	list := []string{
		"aes256gcm16-chacha20poly1305-aes128gcm16-prfsha384-prfsha512-prfsha256-ecp384-x25519-ke1_mlkem768-ke1_mlkem1024",
		"aes256gcm16-chacha20poly1305-aes128gcm16-prfsha384-prfsha512-prfsha256" + groups,
		"aes256-aes128-sha384-sha512-sha256-prfsha384-prfsha512-prfsha256" + groups,
	}
	if allowWeak {
		list = append(list, "aes256-aes128-sha256-sha1-prfsha256-prfsha1-modp2048-modp1536")
	}
	return parsed(list, func(w string) (message.Proposal, error) { return ParseIKE(w, allowWeak) })
}

// DefaultESP is the same for child SAs. A peer that wants no perfect forward secrecy gets none.
func DefaultESP(allowWeak, allowNull bool) []message.Proposal {
	const groups = "-ecp384-x25519-ecp521-ecp256-modp4096-modp3072-modp2048"
	var list []string
	for _, c := range []string{"aes256gcm16-chacha20poly1305-aes128gcm16", "aes256-aes128-sha256"} {
		list = append(list, c+groups+"-noesn", c+"-noesn")
	}
	if allowWeak {
		list = append(list, "aes256-aes128-sha1-modp2048-modp1536-noesn", "aes256-aes128-sha1-noesn")
	}
	if allowNull {
		list = append(list, "null-sha256"+groups+"-noesn", "null-sha256-noesn")
	}
	return parsed(list, func(w string) (message.Proposal, error) { return ParseESP(w, allowWeak, allowNull) })
}

func parsed(list []string, parse func(string) (message.Proposal, error)) (out []message.Proposal) {
	for _, w := range list {
		p, err := parse(w)
		if err != nil {
			panic(err) // our own words
		}
		out = append(out, p)
	}
	return out
}

// Choose returns what both sides want, by our order of preference: the number and SPI are those of the offered proposal, with one
// transform of each type that it has. The error says why each one fails.
func Choose(own, offered []message.Proposal) (message.Proposal, error) {
	for _, o := range own {
		for _, p := range offered {
			if o.Protocol == p.Protocol {
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
	c, known := ciphers[s.Encr]
	if !known || s.Encr == Null || c.aead != (s.Integ == integNone) || s.KE == 0 || s.PRF == 0 {
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
