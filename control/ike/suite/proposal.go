package suite

import (
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

// maxWords is how many transforms of a proposal are written: ours never have as many, those of a stranger who fills the log may.
const maxWords = 40

// Words writes a proposal in strongSwan's words.
func Words(p message.Proposal) string {
	var out []string
	for i, t := range p.Transforms {
		if i == maxWords {
			return strings.Join(out, "-") + fmt.Sprintf(" and %d more", len(p.Transforms)-i)
		}
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
	if err := checkIntegrity(text, encr, integ); err != nil {
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
	if err := checkIntegrity(text, encr, integ); err != nil {
		return p, err
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

// checkIntegrity demands an integrity algorithm for ciphers that do not check integrity themselves, and none for those that do. The
// two kinds do not go into one proposal (RFC 7296, section 3.3).
func checkIntegrity(text string, encr, integ []message.Transform) error {
	aead := ciphers[encr[0].ID].aead
	for _, e := range encr {
		if ciphers[e.ID].aead != aead {
			return fmt.Errorf("%q: ciphers that check integrity themselves and others need proposals of their own", text)
		}
	}
	switch {
	case !aead && len(integ) == 0:
		return fmt.Errorf("%q: this encryption needs an integrity algorithm, such as sha256", text)
	case aead && len(integ) > 0:
		return fmt.Errorf("%q: the cipher checks integrity itself: %s is one algorithm too many", text, textOf(integ[0]))
	}
	return nil
}

// checkAdditional demands that additional key exchanges are ML-KEM beside a curve, and nothing else is. Each method is in one of
// them alone: nobody may choose one twice (RFC 9370, section 2.2.1).
func checkAdditional(text string, p message.Proposal) error {
	more := false
	slot := map[uint16]message.TransformType{}
	for _, t := range p.Transforms {
		kem := t.ID == MLKEM768 || t.ID == MLKEM1024
		switch {
		case t.Type >= message.TransformAdditionalKE1 && t.ID != 0:
			more = true
			if first, twice := slot[t.ID]; twice && first != t.Type {
				return fmt.Errorf("%q: %s is in two additional key exchanges, of which one is all that can be agreed on", text, MethodName(t.ID))
			}
			slot[t.ID] = t.Type
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
		if slices.Contains(p.Transforms, t) {
			return fmt.Errorf("%q: %s stands in it twice", text, w)
		}
		p.Transforms = append(p.Transforms, t)
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

func has(p message.Proposal, t message.TransformType) bool {
	return slices.ContainsFunc(p.Transforms, func(x message.Transform) bool { return x.Type == t })
}

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
