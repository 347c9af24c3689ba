package message

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"strings"
)

// An ID is who a peer says it is.
type ID struct {
	Type IDType
	Data []byte
}

// Equal reports whether two identities are the same; names are without regard to case.
func (id ID) Equal(o ID) bool {
	if id.Type != o.Type {
		return false
	}
	if id.Type == IDFQDN || id.Type == IDRFC822 {
		return strings.EqualFold(string(id.Data), string(o.Data))
	}
	return bytes.Equal(id.Data, o.Data)
}

// String writes the identity as strongSwan does. What a terminal would not show is escaped.
func (id ID) String() string {
	switch id.Type {
	case IDIPv4, IDIPv6:
		if a, ok := netip.AddrFromSlice(id.Data); ok {
			return a.String()
		}
	case IDFQDN, IDRFC822:
		return printable(id.Data)
	case IDDN:
		var rdn pkix.RDNSequence
		if rest, err := asn1.Unmarshal(id.Data, &rdn); err == nil && len(rest) == 0 {
			return printable([]byte(rdn.String()))
		}
	}
	return fmt.Sprintf("@#%x", id.Data)
}

func printable(b []byte) string {
	text := fmt.Sprintf("%q", b)
	return text[1 : len(text)-1]
}
