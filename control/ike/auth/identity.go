package auth

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"causeway/control/ike/message"
)

// maxID bounds an identity's text.
const maxID = 1024

// ParseID reads an identity as strongSwan writes them: an address, user@host, @#HEX or keyid:TEXT, fqdn:NAME, a distinguished
// name such as "C=DE, O=Example, CN=edge", else a domain name, with or without @ before it.
func ParseID(text string) (message.ID, error) {
	switch {
	case text == "" || len(text) > maxID:
		return message.ID{}, fmt.Errorf("an identity of %d bytes: 1 to %d are possible", len(text), maxID)
	case strings.HasPrefix(text, "@#"):
		b, err := hex.DecodeString(text[2:])
		if err != nil || len(b) == 0 {
			return message.ID{}, fmt.Errorf("identity %q: behind @# come hexadecimal digits, two for each byte", text)
		}
		return message.ID{Type: message.IDKeyID, Data: b}, nil
	case strings.HasPrefix(text, "keyid:"):
		return message.ID{Type: message.IDKeyID, Data: []byte(text[len("keyid:"):])}, nil
	case strings.HasPrefix(text, "fqdn:"):
		return message.ID{Type: message.IDFQDN, Data: []byte(text[len("fqdn:"):])}, nil
	case strings.Contains(text, "="):
		der, err := parseDN(text)
		return message.ID{Type: message.IDDN, Data: der}, err
	case strings.HasPrefix(text, "@"):
		return message.ID{Type: message.IDFQDN, Data: []byte(text[1:])}, nil
	case strings.Contains(text, "@"):
		return message.ID{Type: message.IDRFC822, Data: []byte(text)}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		if a = a.Unmap(); a.Is4() {
			return message.ID{Type: message.IDIPv4, Data: a.AsSlice()}, nil
		}
		return message.ID{Type: message.IDIPv6, Data: a.AsSlice()}, nil
	}
	return message.ID{Type: message.IDFQDN, Data: []byte(text)}, nil
}

// attributes are the types that names have (RFC 4519), in strongSwan's words.
var attributes = map[string]asn1.ObjectIdentifier{
	"CN": {2, 5, 4, 3}, "SN": {2, 5, 4, 5}, "SERIALNUMBER": {2, 5, 4, 5}, "C": {2, 5, 4, 6}, "L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8},
	"S": {2, 5, 4, 8}, "STREET": {2, 5, 4, 9}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "T": {2, 5, 4, 12}, "G": {2, 5, 4, 42},
	"DC": {0, 9, 2342, 19200300, 100, 1, 25}, "UID": {0, 9, 2342, 19200300, 100, 1, 1}, "E": {1, 2, 840, 113549, 1, 9, 1},
	"EMAIL": {1, 2, 840, 113549, 1, 9, 1}, "EMAILADDRESS": {1, 2, 840, 113549, 1, 9, 1},
}

// parseDN makes the DER of a name. A value is a PrintableString where that is possible, else UTF8String.
func parseDN(text string) ([]byte, error) {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	type relative []attribute
	var name []asn1.RawValue
	for _, part := range strings.Split(text, ",") {
		kind, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		oid := attributes[strings.ToUpper(strings.TrimSpace(kind))]
		if value = strings.TrimSpace(value); !ok || oid == nil || value == "" {
			return nil, fmt.Errorf("identity %q: %q is no part of a distinguished name: write CN=..., O=..., C=... and so on", text, part)
		}
		v, err := stringValue(oid, value)
		if err != nil {
			return nil, fmt.Errorf("identity %q: %w", text, err)
		}
		set, err := asn1.MarshalWithParams(relative{{oid, v}}, "set")
		if err != nil {
			return nil, err
		}
		name = append(name, asn1.RawValue{FullBytes: set})
	}
	return asn1.Marshal(name)
}

func stringValue(oid asn1.ObjectIdentifier, value string) (v asn1.RawValue, err error) {
	params := "utf8"
	switch {
	case oid.Equal(attributes["E"]) || oid.Equal(attributes["DC"]):
		params = "ia5"
	case printable(value):
		params = "printable"
	}
	b, err := asn1.MarshalWithParams(value, params)
	if err != nil {
		return v, errors.New("a value is not text")
	}
	return asn1.RawValue{FullBytes: b}, nil
}

// printable reports whether a value may be a PrintableString.
func printable(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r)) {
			return false
		}
	}
	return true
}
