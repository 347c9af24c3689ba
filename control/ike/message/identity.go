package message

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// An IDType says what an identity is (RFC 7296, section 3.5).
type IDType uint8

// The identities of RFC 7296 that peers of a tunnel have.
const (
	IDIPv4   IDType = 1
	IDFQDN   IDType = 2
	IDRFC822 IDType = 3
	IDIPv6   IDType = 5
	IDDN     IDType = 9
	IDKeyID  IDType = 11
)

// String is the RFC's name.
func (t IDType) String() string {
	switch t {
	case IDIPv4:
		return "ID_IPV4_ADDR"
	case IDFQDN:
		return "ID_FQDN"
	case IDRFC822:
		return "ID_RFC822_ADDR"
	case IDIPv6:
		return "ID_IPV6_ADDR"
	case IDDN:
		return "ID_DER_ASN1_DN"
	case IDKeyID:
		return "ID_KEY_ID"
	}
	return fmt.Sprintf("ID type %d", uint8(t))
}

// An ID is who a peer says it is, which nothing has proved.
type ID struct {
	Type IDType
	Data []byte // an address, characters, a distinguished name in DER, or any bytes, as Type says
}

// parseID reads an identification payload (RFC 7296, section 3.5). Whether a distinguished name is DER is not looked at.
func parseID(b []byte) (*ID, error) {
	if len(b) < 4 {
		return nil, errCutOff
	}
	id := &ID{Type: IDType(b[0]), Data: b[4:]}
	switch size := len(id.Data); id.Type {
	case IDIPv4:
		if size != 4 {
			return nil, fmt.Errorf("has an IPv4 address of %d bytes", size)
		}
	case IDIPv6:
		if size != 16 {
			return nil, fmt.Errorf("has an IPv6 address of %d bytes", size)
		}
	case IDFQDN, IDRFC822: // no terminators
		if bytes.ContainsAny(id.Data, "\x00\r\n") {
			return nil, fmt.Errorf("has a terminator in its name %q", id.Data[:min(size, 64)])
		}
	}
	return id, nil
}

// Equal reports whether two identities are the same: names without regard to the case of ASCII letters, others byte by byte.
func (id ID) Equal(o ID) bool {
	if id.Type != o.Type {
		return false
	}
	if id.Type == IDFQDN || id.Type == IDRFC822 {
		return bytes.Equal(lower(id.Data), lower(o.Data))
	}
	return bytes.Equal(id.Data, o.Data)
}

// lower leaves other than ASCII letters alone: what only looks like a name is not that name.
func lower(b []byte) []byte {
	b = bytes.Clone(b)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return b
}

// String writes the identity as an operator of strongSwan would configure it. What a terminal would not show is escaped.
func (id ID) String() string {
	text := printable(id.Data)
	switch id.Type {
	case IDIPv4, IDIPv6:
		if a, ok := netip.AddrFromSlice(id.Data); ok {
			return a.String()
		}
	case IDFQDN:
		if _, err := netip.ParseAddr(text); err == nil || strings.Contains(text, "@") {
			return "fqdn:" + text // a name that would be read as something else
		}
		return text
	case IDRFC822:
		return text
	case IDDN:
		if dn, ok := dnText(id.Data); ok {
			return dn
		}
	case IDKeyID:
		if text == string(id.Data) && text != "" && text[0] != '#' {
			return "keyid:" + text
		}
		return fmt.Sprintf("@#%x", id.Data)
	}
	return fmt.Sprintf("%v #%x", id.Type, id.Data)
}

// printable escapes what cannot be printed, and quotes and backslashes.
func printable(b []byte) string {
	text := strconv.Quote(string(b))
	return text[1 : len(text)-1]
}

// dnWords are the attributes of a distinguished name that have a word (RFC 4519 and what strongSwan knows beside).
var dnWords = map[string]string{"2.5.4.6": "C", "2.5.4.8": "ST", "2.5.4.7": "L", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.3": "CN",
	"2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.12": "T", "2.5.4.13": "D", "2.5.4.41": "N", "2.5.4.42": "G", "2.5.4.43": "I",
	"2.5.4.46": "dnQualifier", "0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC", "1.2.840.113549.1.9.1": "E"}

// dnText writes a distinguished name in its own order, "C=CH, O=strongSwan, CN=moon", which is not that of RFC 4514.
func dnText(der []byte) (string, bool) {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 || len(name) == 0 {
		return "", false
	}
	var parts []string
	for _, rdn := range name {
		for _, a := range rdn {
			value, ok := a.Value.(string)
			if !ok {
				return "", false
			}
			word := a.Type.String()
			if known, ok := dnWords[word]; ok {
				word = known
			}
			parts = append(parts, word+"="+printable([]byte(value)))
		}
	}
	return strings.Join(parts, ", "), true
}
