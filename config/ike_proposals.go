package config

import (
	"slices"
	"strings"
)

// wordKind is what a word of a proposal chooses. Several words of one kind are
// alternatives.
type wordKind uint8

const (
	encryptionWord wordKind = iota
	integrityWord
	prfWord
	groupWord
	additionalWord // RFC 9370: after the first key exchange
	sequenceWord   // ESP alone
)

// A proposalWord is an algorithm under strongSwan's name for it.
type proposalWord struct {
	name     string
	kind     wordKind
	ike, esp bool // where it may stand
	combined bool // checks integrity itself
	weak     bool
	null     bool
	hybrid   bool // a group that ML-KEM may follow
}

var proposalWords = append([]proposalWord{
	{name: "aes128gcm16", kind: encryptionWord, ike: true, esp: true, combined: true},
	{name: "aes256gcm16", kind: encryptionWord, ike: true, esp: true, combined: true},
	{name: "chacha20poly1305", kind: encryptionWord, ike: true, esp: true, combined: true},
	{name: "aes128", kind: encryptionWord, ike: true, esp: true},
	{name: "aes256", kind: encryptionWord, ike: true, esp: true},
	{name: "null", kind: encryptionWord, esp: true, null: true},
	{name: "sha256", kind: integrityWord, ike: true, esp: true},
	{name: "sha384", kind: integrityWord, ike: true},
	{name: "sha512", kind: integrityWord, ike: true},
	{name: "sha1", kind: integrityWord, ike: true, esp: true, weak: true},
	{name: "prfsha256", kind: prfWord, ike: true},
	{name: "prfsha384", kind: prfWord, ike: true},
	{name: "prfsha512", kind: prfWord, ike: true},
	{name: "prfsha1", kind: prfWord, ike: true, weak: true},
	{name: "modp1536", kind: groupWord, ike: true, esp: true, weak: true},
	{name: "modp2048", kind: groupWord, ike: true, esp: true},
	{name: "modp3072", kind: groupWord, ike: true, esp: true},
	{name: "modp4096", kind: groupWord, ike: true, esp: true},
	{name: "ecp256", kind: groupWord, ike: true, esp: true},
	{name: "ecp384", kind: groupWord, ike: true, esp: true, hybrid: true},
	{name: "ecp521", kind: groupWord, ike: true, esp: true},
	{name: "x25519", kind: groupWord, ike: true, esp: true, hybrid: true},
	{name: "esn", kind: sequenceWord, esp: true},
	{name: "noesn", kind: sequenceWord, esp: true},
}, additionalWords()...)

// additionalWords are ke1_mlkem768 to ke7_mlkem1024.
func additionalWords() (list []proposalWord) {
	for n := '1'; n <= '7'; n++ {
		for _, method := range []string{"mlkem768", "mlkem1024"} {
			list = append(list, proposalWord{name: "ke" + string(n) + "_" + method, kind: additionalWord, ike: true, esp: true})
		}
	}
	return list
}

func (w proposalWord) fits(child bool) bool { return child && w.esp || !child && w.ike }

func findWord(name string) (proposalWord, bool) {
	i := slices.IndexFunc(proposalWords, func(w proposalWord) bool { return w.name == name })
	if i < 0 {
		return proposalWord{}, false
	}
	return proposalWords[i], true
}

// otherNames are what strongSwan or others also call a word.
var otherNames = map[string]string{
	"aes": "aes128", "aes128gcm": "aes128gcm16", "aes256gcm": "aes256gcm16", "aes128gcm128": "aes128gcm16", "aes256gcm128": "aes256gcm16",
	"sha": "sha1", "sha2_256": "sha256", "sha2_384": "sha384", "sha2_512": "sha512", "curve25519": "x25519",
	"mlkem768": "ke1_mlkem768", "mlkem1024": "ke1_mlkem1024",
}

// maxProposals is more than anybody chooses from, and fits into one datagram.
const maxProposals = 16

// A proposal is one element of proposals or child_proposals while it is read.
type proposal struct {
	value
	child bool
	text  string
	words []proposalWord
}

// proposals reads a list of proposals, of the IKE SA or of its children.
func (i *IPsec) proposals(v value, child bool) []string {
	elements, ok := v.list("proposals such as " + exampleProposal(child))
	switch {
	case ok && len(elements) == 0:
		v.fail("is empty: remove the field if the default is meant")
	case len(elements) > maxProposals:
		v.fail("has %d elements: write %d at most", len(elements), maxProposals)
		return nil
	}
	var list []string
	first := map[string]string{}
	for _, e := range elements {
		text, ok := e.textLike("a proposal such as " + exampleProposal(child))
		if !ok {
			continue
		}
		if before, twice := first[text]; twice {
			e.fail("%s is listed twice, first as %s: remove one", quote(text), before)
			continue
		}
		first[text] = e.path
		p := proposal{value: e, child: child, text: text}
		if p.read() {
			p.check()
			p.permitted(i)
			list = append(list, text)
		}
	}
	return list
}

func exampleProposal(child bool) string {
	if child {
		return "aes256gcm16-ecp384-noesn"
	}
	return "aes256gcm16-prfsha384-ecp384"
}

// read looks up the words, and reports whether it knows all of them.
func (p *proposal) read() bool {
	good := true
	for _, name := range strings.Split(p.text, "-") {
		w, ok := findWord(name)
		switch {
		case !ok:
			p.fail("there is no algorithm %s: %s", quote(name), suggestWord(name, p.child))
		case !w.fits(p.child):
			p.fail("%s", p.misplaced(w))
		case slices.Contains(p.words, w):
			p.fail("%s stands in it twice: remove one", name)
		default:
			p.words = append(p.words, w)
			continue
		}
		good = false
	}
	return good
}

func (p *proposal) misplaced(w proposalWord) string {
	cipher, combined := p.combinedCipher()
	switch {
	case w.kind == integrityWord && combined: // another hash would be as wrong
		return cipher + " checks integrity itself: remove " + w.name
	case w.kind == prfWord:
		return w.name + " belongs into proposals: ESP has no PRF; remove it"
	case w.kind == integrityWord:
		return w.name + " is for IKE: ESP has sha256, and sha1 with allow_weak"
	}
	return w.name + " belongs into child_proposals: it is for ESP; remove it"
}

func (p *proposal) combinedCipher() (string, bool) {
	for _, name := range strings.Split(p.text, "-") {
		if w, ok := findWord(name); ok && w.combined {
			return name, true
		}
	}
	return "", false
}

// withoutDigits is what words have in common that differ in their sizes.
func withoutDigits(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, name)
}

// suggestWord says which word was probably meant, or lists all. Of a size that there is none of, it does not guess the right one.
func suggestWord(name string, child bool) string {
	var all, short, sizes []string
	lower := strings.ToLower(name)
	for _, w := range proposalWords {
		if !w.fits(child) {
			continue
		}
		all = append(all, w.name)
		if w.kind == additionalWord {
			continue
		}
		short = append(short, w.name)
		if withoutDigits(w.name) == withoutDigits(lower) {
			sizes = append(sizes, quote(w.name))
		}
	}
	near, ok := otherNames[lower]
	switch {
	case ok:
	case slices.Contains(all, lower):
		near, ok = lower, true
	case len(sizes) > 0:
		return "did you mean " + oneOf("or", sizes) + "?"
	default:
		near, ok = nearest(name, all)
	}
	if ok {
		return "did you mean " + quote(near) + "?"
	}
	return "allowed are " + oneOf("and", append(short, "ke1_mlkem768 to ke7_mlkem1024"))
}

// of returns the names of the words of a kind.
func (p *proposal) of(kind wordKind) (names []string) {
	for _, w := range p.words {
		if w.kind == kind {
			names = append(names, w.name)
		}
	}
	return names
}

// fails is fail for what is wrong with the words together.
func (p *proposal) fails(format string, args ...any) {
	p.fail("%s "+format, append([]any{quote(p.text)}, args...)...)
}

// check demands what makes a proposal complete, and no word that contradicts
// another (RFC 7296 3.3).
func (p *proposal) check() {
	var combined, plain []string
	for _, w := range p.words {
		switch {
		case w.kind == encryptionWord && w.combined:
			combined = append(combined, w.name)
		case w.kind == encryptionWord:
			plain = append(plain, w.name)
		}
	}
	integrity := p.of(integrityWord)
	switch {
	case len(combined)+len(plain) == 0:
		p.fails("has no encryption: add one, such as aes256gcm16")
	case len(combined) > 0 && len(plain) > 0:
		p.fails("has %s, which checks integrity itself, and %s, which does not: write two proposals (RFC 7296 3.3)", combined[0], plain[0])
	case len(plain) > 0 && len(integrity) == 0:
		p.fails("has %s without an integrity algorithm: add sha256", plain[0])
	case len(combined) > 0 && len(integrity) > 0 && p.child:
		p.fail("%s checks integrity itself: remove %s", combined[0], integrity[0])
	case len(combined) > 0 && len(integrity) > 0:
		p.fail("%s checks integrity itself: remove %s, or write prf%s for the PRF", combined[0], integrity[0], integrity[0])
	case !p.child && len(integrity) == 0 && len(p.of(prfWord)) == 0:
		p.fails("has no PRF, and no integrity algorithm to take its hash from: add prfsha256, prfsha384 or prfsha512")
	}
	p.checkExchanges()
}

// checkExchanges is check for groups and additional key exchanges.
func (p *proposal) checkExchanges() {
	groups := p.of(groupWord)
	if len(groups) == 0 && !p.child {
		p.fails("has no group: add one, such as ecp384")
	}
	additional := p.of(additionalWord)
	if len(additional) == 0 {
		return
	}
	if len(groups) == 0 && p.child {
		p.fails("has %s without a group before it: add ecp384 or x25519", additional[0])
	}
	for _, w := range p.words {
		if w.kind == groupWord && !w.hybrid {
			p.fail("%s follows ecp384 or x25519 alone, not %s: write two proposals, or another group", additional[0], w.name)
		}
	}
	// RFC 9370 2.2.1: nobody may choose one method for two exchanges
	first := map[string]string{}
	for _, name := range additional {
		exchange, method, _ := strings.Cut(name, "_")
		if before, twice := first[method]; twice {
			p.fails("has %s for %s and for %s: one exchange with it is all that can be agreed on (RFC 9370 2.2.1); remove one", method, before, exchange)
		}
		first[method] = exchange
	}
}

// permitted demands the words without which an algorithm is not meant.
func (p *proposal) permitted(i *IPsec) {
	for _, w := range p.words {
		switch {
		case w.weak && !i.IKE.AllowWeak:
			p.fail("%s is weak, for old routers alone: write allow_weak: true in ike if that is meant", w.name)
		case w.null && !i.AllowNull:
			p.fail("%s leaves packets readable: write allow_null_cipher: true in the tunnel if that is meant", w.name)
		case w.name == "esn" && i.ReplayWindow == 0:
			p.fail("esn needs a replay_window: the upper half of a number, which is not sent, is found with it (RFC 4303 A2); write one from 1 on, or noesn")
		}
	}
}

// childEncryptions are those that may be negotiated.
func (i *IPsec) childEncryptions() (list []Encryption) {
	if i.IKE.ChildProposals == nil {
		for _, e := range Encryptions {
			if (!e.Weak || i.IKE.AllowWeak) && (!e.Null || i.AllowNull) {
				list = append(list, e)
			}
		}
		return list
	}
	for _, text := range i.IKE.ChildProposals {
		words := strings.Split(text, "-")
		for _, e := range Encryptions {
			cipher, integrity, separate := strings.Cut(e.Name, "-")
			if slices.Contains(words, cipher) && (!separate || slices.Contains(words, integrity)) && !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
	}
	return list
}
