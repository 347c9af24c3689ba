package auth

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of a distinguished name that comes from a peer.
const (
	maxDN           = 4096 // bytes
	maxRDNs         = 64
	maxAttributes   = 16 // of one RDN
	tagNumeric      = asn1.Tag(18)
	tagVisible      = asn1.Tag(26)
	tagBMP          = asn1.Tag(30)
	errMalformedDN  = "is not a distinguished name in DER"
	printableExtras = " '()+,-./:=?"
)

type dnName struct {
	word string
	oid  oid
}

// dnNames are the attributes of a distinguished name that have a word, which is without regard to case. Of several words for
// one, the first is written. SN is a surname, as with strongSwan and OpenSSL.
var dnNames = []dnName{
	{"C", x520(6)}, {"ST", x520(8)}, {"L", x520(7)}, {"O", x520(10)}, {"OU", x520(11)}, {"CN", x520(3)},
	{"DC", oid{0, 9, 2342, 19200300, 100, 1, 25}},
	{"UID", oid{0, 9, 2342, 19200300, 100, 1, 1}},
	{"E", oidEmail}, {"email", oidEmail}, {"emailAddress", oidEmail},
	{"serialNumber", x520(5)}, {"SN", x520(4)}, {"G", x520(42)}, {"GN", x520(42)}, {"I", x520(43)}, {"T", x520(12)},
	{"STREET", x520(9)}, {"postalCode", x520(17)}, {"D", x520(13)}, {"N", x520(41)}, {"dnQualifier", x520(46)},
}

var oidEmail = oid{1, 2, 840, 113549, 1, 9, 1}

// x520 is an attribute type of X.520.
func x520(n int) oid { return oid{2, 5, 4, n} }

// parseDN encodes "C=DE, O=Example, CN=edge" as strongSwan does: one attribute in each RDN, a PrintableString if the text
// allows it, else a UTF8String; an e-mail address is an IA5String. A text that begins with / has / between its parts, and
// may have commas in them.
func parseDN(text string) ([]byte, error) {
	separator := ","
	rest := text
	if strings.HasPrefix(text, "/") {
		separator, rest = "/", text[1:]
	}
	var b cryptobyte.Builder
	var fault error
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for part := range strings.SplitSeq(rest, separator) {
			if err := addRDN(b, part); err != nil && fault == nil {
				fault = fmt.Errorf("identity %q: %w", text, err)
			}
		}
	})
	der, err := b.Bytes()
	if fault != nil || err != nil {
		return nil, errors.Join(fault, err)
	}
	return der, nil
}

func addRDN(b *cryptobyte.Builder, part string) error {
	word, value, ok := strings.Cut(part, "=")
	word, value = strings.TrimSpace(word), strings.TrimSpace(value)
	at := slices.IndexFunc(dnNames, func(n dnName) bool { return strings.EqualFold(n.word, word) })
	switch {
	case !ok || value == "":
		return fmt.Errorf("%q should be a word, = and a text, as in CN=edge", part)
	case at < 0:
		return fmt.Errorf("there is no attribute %q, allowed are %s", word, dnWords())
	case value == "*":
		return errors.New("a * would be anybody: a subject is compared to the letter, write it out")
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("%q has a character that cannot be printed", part)
	}
	name := dnNames[at].oid
	tag := asn1.UTF8String
	switch {
	case name.Equal(oidEmail):
		if !isASCII(value) {
			return fmt.Errorf("%q is not in ASCII, as an e-mail address is", part)
		}
		tag = asn1.IA5String
	case isPrintable(value):
		tag = asn1.PrintableString
	}
	b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(name)
			b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
		})
	})
	return nil
}

func dnWords() string {
	var words []string
	for _, n := range dnNames {
		words = append(words, n.word)
	}
	return strings.Join(words, ", ")
}

// isPrintable reports whether a PrintableString can hold s (X.680, section 41.4).
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(printableExtras, r))
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// A dnAttribute is one attribute of a distinguished name. value aliases the name's DER.
type dnAttribute struct {
	oid   oid
	tag   asn1.Tag
	value []byte
}

// readDN takes a Name apart (RFC 5280, section 4.1.2.4).
func readDN(der []byte) ([][]dnAttribute, error) {
	if len(der) > maxDN {
		return nil, fmt.Errorf("a distinguished name of %d bytes, %d at most are allowed", len(der), maxDN)
	}
	in := cryptobyte.String(der)
	var name cryptobyte.String
	if !in.ReadASN1(&name, asn1.SEQUENCE) || !in.Empty() {
		return nil, errors.New(errMalformedDN)
	}
	var rdns [][]dnAttribute
	for !name.Empty() {
		var set cryptobyte.String
		if len(rdns) == maxRDNs || !name.ReadASN1(&set, asn1.SET) {
			return nil, errors.New(errMalformedDN)
		}
		rdn, ok := readRDN(set)
		if !ok {
			return nil, errors.New(errMalformedDN)
		}
		rdns = append(rdns, rdn)
	}
	return rdns, nil
}

func readRDN(set cryptobyte.String) (rdn []dnAttribute, ok bool) {
	for !set.Empty() {
		var pair, value cryptobyte.String
		var a dnAttribute
		if len(rdn) == maxAttributes || !set.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&a.oid) ||
			!pair.ReadAnyASN1(&value, &a.tag) || !pair.Empty() {
			return nil, false
		}
		a.value = value
		rdn = append(rdn, a)
	}
	return rdn, len(rdn) > 0
}

// text is the attribute's value if it is a string whose encoding is certain.
func (a dnAttribute) text() (string, bool) {
	switch a.tag {
	case asn1.UTF8String:
		return string(a.value), utf8.Valid(a.value)
	case asn1.PrintableString, asn1.IA5String, asn1.T61String, tagNumeric, tagVisible:
		return string(a.value), isASCII(string(a.value)) && utf8.Valid(a.value)
	case tagBMP:
		return bmpText(a.value)
	}
	return "", false
}

// bmpText decodes a BMPString: two bytes for each character, high byte first, without surrogates.
func bmpText(b []byte) (string, bool) {
	if len(b)%2 != 0 {
		return "", false
	}
	var text strings.Builder
	for i := 0; i < len(b); i += 2 {
		r := rune(b[i])<<8 | rune(b[i+1])
		if utf16.IsSurrogate(r) {
			return "", false
		}
		text.WriteRune(r)
	}
	return text.String(), true
}

// foldDN returns a text that two distinguished names have in common exactly when RFC 5280, section 7.1, calls them the same,
// except that characters are not brought into a normal form (RFC 4518, section 2.3): two ways to write one accent differ.
func foldDN(der []byte) (string, error) {
	rdns, err := readDN(der)
	if err != nil {
		return "", err
	}
	if len(rdns) == 0 {
		return "", errors.New("is an empty distinguished name")
	}
	var folded []string
	for _, rdn := range rdns {
		var set []string
		for _, a := range rdn {
			set = append(set, a.fold())
		}
		slices.Sort(set) // an RDN is a set: its order says nothing
		folded = append(folded, strings.Join(set, "+"))
	}
	return strings.Join(folded, ","), nil
}

func (a dnAttribute) fold() string {
	text, ok := a.text()
	if !ok {
		return fmt.Sprintf("%v#%d:%x", a.oid, a.tag, a.value)
	}
	return fmt.Sprintf("%v=%q", a.oid, strings.Map(foldRune, strings.Join(strings.Fields(text), " ")))
}

// foldRune returns one and the same of all characters that differ in case alone.
func foldRune(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	return least
}

// dnText writes a distinguished name for people, as strongSwan does: in the order of the certificate.
func dnText(der []byte) string {
	rdns, err := readDN(der)
	if err != nil {
		return short(fmt.Sprintf("malformed name %x", der[:min(len(der), 64)]))
	}
	var parts []string
	for _, rdn := range rdns {
		for _, a := range rdn {
			parts = append(parts, a.String())
		}
	}
	return short(strings.Join(parts, ", "))
}

// String is the attribute as in "CN=edge"; what a terminal would not show is escaped.
func (a dnAttribute) String() string {
	word := a.oid.String()
	for _, n := range dnNames {
		if n.oid.Equal(a.oid) {
			word = n.word
			break
		}
	}
	text, ok := a.text()
	if !ok {
		return fmt.Sprintf("%s=#%x", word, a.value)
	}
	quoted := strconv.Quote(text)
	return word + "=" + quoted[1:len(quoted)-1]
}
