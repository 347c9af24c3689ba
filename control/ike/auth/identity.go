package auth

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"causeway/control/ike/message"
)

// maxIDText bounds an identity in a configuration, in bytes: more than any certificate's subject takes.
const maxIDText = 512

// idForms ends an error about a text that is none of them.
const idForms = "an identity is an address, a name such as edge.example.net, user@host, @#HEX, keyid:TEXT or \"C=DE, O=Example, CN=edge\""

// idPrefixes say the kind of an identity outright. Of strongSwan's, these are known; the others are refused, not taken for names.
var idPrefixes = []struct {
	prefix string
	parse  func(rest string) (message.ID, error)
}{
	{"fqdn:", parseFQDN},
	{"keyid:", parseKeyID},
	{"dns:", refusePrefix}, {"ipv4:", refusePrefix}, {"ipv6:", refusePrefix}, {"email:", refusePrefix}, {"rfc822:", refusePrefix},
	{"userfqdn:", refusePrefix}, {"asn1dn:", refusePrefix}, {"asn1gn:", refusePrefix}, {"xmppaddr:", refusePrefix},
}

// ParseID reads an identity as strongSwan does: an address is ID_IPV4_ADDR or ID_IPV6_ADDR; x@y is ID_RFC822_ADDR; @#hex,
// keyid:text and keyid:#hex are ID_KEY_ID; "C=..., O=..., CN=..." or "/C=.../O=.../CN=..." is ID_DER_ASN1_DN; fqdn:name,
// @name and any other name are ID_FQDN. Patterns (%any, *) are no identities here.
func ParseID(text string) (message.ID, error) {
	switch {
	case text == "":
		return message.ID{}, errors.New("the identity is empty: " + idForms)
	case len(text) > maxIDText:
		return message.ID{}, fmt.Errorf("the identity has %d bytes, %d at most are allowed", len(text), maxIDText)
	case strings.HasPrefix(text, "%"):
		return message.ID{}, fmt.Errorf("identity %q would be anybody: write the one that the peer sends", text)
	case strings.HasPrefix(text, "@#"):
		return parseHexKeyID(text, text[2:])
	}
	for _, p := range idPrefixes {
		if rest, ok := strings.CutPrefix(text, p.prefix); ok {
			return p.parse(rest)
		}
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return addressID(text, a)
	}
	if strings.Contains(text, "=") {
		der, err := parseDN(text)
		return message.ID{Type: message.IDDN, Data: der}, err
	}
	local, domain, mail := strings.Cut(text, "@")
	switch {
	case mail && local == "":
		return parseFQDN(domain)
	case mail:
		return parseMail(text, local, domain)
	}
	return parseFQDN(text)
}

func addressID(text string, a netip.Addr) (message.ID, error) {
	switch {
	case a.Zone() != "" || a.Is4In6():
		return message.ID{}, fmt.Errorf("identity %q has a zone, or is IPv4 in IPv6 form: write the address alone", text)
	case a.Is4():
		return message.ID{Type: message.IDIPv4, Data: a.AsSlice()}, nil
	}
	return message.ID{Type: message.IDIPv6, Data: a.AsSlice()}, nil
}

func parseFQDN(name string) (message.ID, error) {
	if !isDomain(name) {
		return message.ID{}, fmt.Errorf("%q is not a name of letters, digits, '.', '-' and '_': %s", name, idForms)
	}
	return message.ID{Type: message.IDFQDN, Data: []byte(name)}, nil
}

func parseMail(text, local, domain string) (message.ID, error) {
	if !isDomain(domain) || strings.ContainsFunc(local, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '*' }) {
		return message.ID{}, fmt.Errorf("identity %q is not user@host: behind the @ is a name of letters, digits, '.', '-' and '_'", text)
	}
	return message.ID{Type: message.IDRFC822, Data: []byte(text)}, nil
}

func parseKeyID(rest string) (message.ID, error) {
	if digits, ok := strings.CutPrefix(rest, "#"); ok {
		return parseHexKeyID("keyid:"+rest, digits)
	}
	if rest == "" {
		return message.ID{}, errors.New("the identity keyid: has nothing behind it")
	}
	return message.ID{Type: message.IDKeyID, Data: []byte(rest)}, nil
}

func parseHexKeyID(text, digits string) (message.ID, error) {
	data, err := hex.DecodeString(digits)
	if err != nil || len(data) == 0 {
		return message.ID{}, fmt.Errorf("identity %q has no hexadecimal digits behind #, two for each byte", text)
	}
	return message.ID{Type: message.IDKeyID, Data: data}, nil
}

func refusePrefix(rest string) (message.ID, error) {
	return message.ID{}, fmt.Errorf("the type before %q is not known here: write the identity alone, or with fqdn: or keyid: before it", rest)
}

func isDomain(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
	})
}

// Comparable returns a text that two identities have in common exactly when they are the same: names without regard to
// case (RFC 5280, section 7), a distinguished name without regard to how its strings are encoded, to case and to the number
// of spaces (section 7.1). It is a key for maps, not for people.
func Comparable(id message.ID) string {
	data := string(id.Data)
	switch id.Type {
	case message.IDFQDN, message.IDRFC822:
		data = lowerASCII(data)
	case message.IDDN:
		if folded, err := foldDN(id.Data); err == nil {
			data = folded
		} else {
			data = "malformed " + data
		}
	}
	return fmt.Sprintf("%d %s", id.Type, data)
}

// SameID reports whether two identities are the same, as Comparable says.
func SameID(a, b message.ID) bool { return Comparable(a) == Comparable(b) }

// lowerASCII leaves other than ASCII letters alone: no name that an authority has checked may equal one that looks like it.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// idText is an identity for an error's text.
func idText(id message.ID) string {
	if id.Type == message.IDDN {
		return dnText(id.Data)
	}
	return short(id.String())
}

// short bounds what a peer may write into our log, in bytes.
func short(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
