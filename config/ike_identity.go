package config

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// maxIdentity is more than any certificate's subject takes.
const maxIdentity = 512

// identity returns an identity in one of strongSwan's forms.
func (v value) identity() (string, bool) {
	s, ok := v.textLike("an identity such as edge.example.net, 192.0.2.1, user@example.net or \"CN=edge, O=Example\"")
	if !ok {
		return "", false
	}
	if _, err := comparableIdentity(s); err != nil {
		v.fail("%s %v", quote(s), err)
		return "", false
	}
	return s, true
}

// comparableIdentity returns a text that is the same for all ways to write an
// identity, or why s is none. The kinds are those of RFC 7296 3.5. Names are
// compared without regard to case.
func comparableIdentity(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("is empty: write an identity such as edge.example.net")
	case len(s) > maxIdentity:
		return "", fmt.Errorf("has %d bytes: write %d at most", len(s), maxIdentity)
	case strings.ContainsFunc(s, unicode.IsControl):
		return "", errors.New("has a character that cannot be printed")
	case strings.HasPrefix(s, "%"):
		return "", errors.New("would be anybody: write the identity that the router sends")
	case isAddress(s):
		return addressIdentity(s)
	case strings.HasPrefix(s, "@#"):
		return hexIdentity(s[2:])
	}
	for _, p := range identityPrefixes {
		if rest, ok := strings.CutPrefix(s, p.prefix); ok {
			return p.read(rest)
		}
	}
	local, domain, mail := strings.Cut(s, "@")
	switch {
	case strings.Contains(s, "="):
		return nameIdentity(s)
	case mail && local == "":
		return domainIdentity(domain)
	case mail:
		return mailIdentity(local, domain)
	case addressLike.MatchString(s):
		return "", fmt.Errorf("looks like an address and is none: write the address, or fqdn:%s if it is a name", s)
	}
	return domainIdentity(s)
}

// addressLike is a name that was probably meant as an IPv4 address.
var addressLike = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+$`)

var identityPrefixes = []struct {
	prefix string
	read   func(rest string) (string, error)
}{
	{"keyid:", func(s string) (string, error) {
		if s == "" {
			return "", errors.New("has nothing behind its keyid: prefix")
		}
		if digits, ok := strings.CutPrefix(s, "#"); ok {
			return hexIdentity(digits)
		}
		return "keyid " + s, nil
	}},
	{"fqdn:", domainIdentity},
	{"dns:", unknownPrefix}, {"ipv4:", unknownPrefix}, {"ipv6:", unknownPrefix}, {"email:", unknownPrefix}, {"rfc822:", unknownPrefix},
	{"userfqdn:", unknownPrefix}, {"asn1dn:", unknownPrefix}, {"asn1gn:", unknownPrefix}, {"xmppaddr:", unknownPrefix},
}

func unknownPrefix(string) (string, error) {
	return "", errors.New("begins with a type that is not known here: write the identity alone, or behind keyid: or the prefix fqdn")
}

func addressIdentity(s string) (string, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return "", errors.New("has a zone, or is IPv4 in IPv6 form: write the address alone")
	}
	return "address " + a.String(), nil
}

func hexIdentity(digits string) (string, error) {
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 {
		return "", errors.New("has no hexadecimal digits behind @#, two for each byte")
	}
	return "keyid " + string(b), nil
}

// domainIdentity is a domain name, also one of a single word.
func domainIdentity(s string) (string, error) {
	allowed := func(r rune) bool {
		return r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(".-_", r))
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !allowed(r) }) {
		return "", errors.New("is not an identity: a name has letters, digits, '.', '-' and '_'; others are an address, user@host, @#HEX, keyid:TEXT or \"CN=..., O=...\"")
	}
	if slices.Contains(strings.Split(s, "."), "") {
		return "", errors.New("is not a name: between its dots, and at both ends, are letters, digits, '-' or '_'")
	}
	return "fqdn " + strings.ToLower(s), nil
}

func mailIdentity(local, domain string) (string, error) {
	strange := func(r rune) bool { return r <= ' ' || r >= unicode.MaxASCII || r == '*' }
	if _, err := domainIdentity(domain); err != nil || strings.ContainsFunc(local, strange) {
		return "", errors.New("is not user@host: behind the @ is a name of letters, digits, '.', '-' and '_'")
	}
	return "mail " + strings.ToLower(local+"@"+domain), nil
}

// nameAttributes are the parts of a distinguished name that have a word. Package
// control/ike/auth has the same ones, and control/node compares the two.
var nameAttributes = []string{"C", "ST", "L", "O", "OU", "CN", "DC", "UID", "E", "email", "emailAddress", "serialNumber", "SN", "G", "GN", "I", "T",
	"STREET", "postalCode", "D", "N", "dnQualifier"}

// sameAttribute has the words, in capitals, that stand for another one.
var sameAttribute = map[string]string{"EMAIL": "E", "EMAILADDRESS": "E", "GN": "G"}

// nameIdentity is the subject of a certificate (RFC 4514, loosely).
func nameIdentity(s string) (string, error) {
	var parts []string
	for _, part := range strings.Split(s, ",") {
		key, text, ok := strings.Cut(part, "=")
		key, text = strings.TrimSpace(key), strings.TrimSpace(text)
		known := slices.ContainsFunc(nameAttributes, func(a string) bool { return strings.EqualFold(a, key) })
		switch {
		case !ok || text == "":
			return "", fmt.Errorf("is not the subject of a certificate: %s should be a word, = and a text, as in CN=edge", quote(part))
		case !known:
			return "", fmt.Errorf("is not the subject of a certificate: there is no %s, %s", quote(key), suggest(key, nameAttributes))
		case text == "*":
			return "", errors.New("has a *, and a subject is compared to the letter: write it out")
		}
		// Authorities compare without regard to case and to how many spaces there are (RFC 5280 7.1).
		key = strings.ToUpper(key)
		parts = append(parts, cmp.Or(sameAttribute[key], key)+"="+strings.ToLower(strings.Join(strings.Fields(text), " ")))
	}
	return "dn " + strings.Join(parts, ","), nil
}
