package auth

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"causeway/control/ike/message"
)

// nameOf is a certificate in an error's text.
func nameOf(c *x509.Certificate) string {
	if name := dnText(c.RawSubject); name != "" {
		return fmt.Sprintf("certificate %q", name)
	}
	return fmt.Sprintf("certificate %s (serial number)", c.SerialNumber.Text(16))
}

// checkDates says whether a certificate is valid at now.
func checkDates(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s is not valid before %s", nameOf(c), when(c.NotBefore))
	case now.After(c.NotAfter):
		return fmt.Errorf("%s was valid until %s", nameOf(c), when(c.NotAfter))
	}
	return nil
}

func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }

var (
	oidKeyUsage        = oid{2, 5, 29, 15}
	oidIKEIntermediate = oid{1, 3, 6, 1, 5, 5, 8, 2, 2}
	oidIPsecIKE        = oid{1, 3, 6, 1, 5, 5, 7, 3, 17}
)

// checkUsage says whether a certificate is for IKE: where there is a key usage, it has digitalSignature or nonRepudiation
// (RFC 4945, section 5.1.3.2); where there is an extended one, it has one of those that routers are given (section 5.1.3.12).
func checkUsage(c *x509.Certificate) error {
	hasUsage := slices.ContainsFunc(c.Extensions, func(e extension) bool { return e.Id.Equal(oidKeyUsage) })
	if hasUsage && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return fmt.Errorf("%s is not for signatures: its key usage has neither digitalSignature nor nonRepudiation", nameOf(c))
	}
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range c.ExtKeyUsage {
		if u == x509.ExtKeyUsageAny || u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageClientAuth {
			return nil
		}
	}
	for _, u := range c.UnknownExtKeyUsage {
		if u.Equal(oidIKEIntermediate) || u.Equal(oidIPsecIKE) {
			return nil
		}
	}
	return fmt.Errorf("%s is not for IKE: its extended key usage has none of any, serverAuth, clientAuth, ikeIntermediate and ipsecIKE", nameOf(c))
}

// matches says whether a certificate is that of an identity (RFC 4945, section 3.1): a distinguished name is its subject, all
// else stands in its subjectAltName. A wildcard there is no name.
func matches(c *x509.Certificate, id message.ID) error {
	found := false
	switch id.Type {
	case message.IDDN:
		found = sameDN(c.RawSubject, id.Data)
	case message.IDFQDN:
		found = containsName(c.DNSNames, id.Data)
	case message.IDRFC822:
		found = containsName(c.EmailAddresses, id.Data)
	case message.IDIPv4:
		found = len(id.Data) == net.IPv4len && containsAddress(c.IPAddresses, id.Data)
	case message.IDIPv6:
		found = len(id.Data) == net.IPv6len && containsAddress(c.IPAddresses, id.Data)
	case message.IDKeyID:
		return fmt.Errorf("identity %s is a KEY_ID, which no certificate has: use one of %s", idText(id), namesIn(c))
	default:
		return fmt.Errorf("identity of type %d cannot be compared with a certificate: use one of %s", id.Type, namesIn(c))
	}
	if !found {
		return fmt.Errorf("%s is not that of %s, but of %s", nameOf(c), idText(id), namesIn(c))
	}
	return nil
}

// sameDN compares two distinguished names (RFC 5280, section 7.1). An empty one is nobody's.
func sameDN(a, b []byte) bool {
	foldedA, errA := foldDN(a)
	foldedB, errB := foldDN(b)
	return errA == nil && errB == nil && foldedA == foldedB
}

func containsName(names []string, name []byte) bool {
	wanted := lowerASCII(string(name))
	return wanted != "" && !strings.Contains(wanted, "*") &&
		slices.ContainsFunc(names, func(n string) bool { return lowerASCII(n) == wanted })
}

// containsAddress compares the bytes: an IPv4 address in IPv6 form is another (RFC 5280, section 4.2.1.6).
func containsAddress(addresses []net.IP, address []byte) bool {
	return slices.ContainsFunc(addresses, func(a net.IP) bool { return bytes.Equal(a, address) })
}

// namesIn lists for people whom a certificate is for.
func namesIn(c *x509.Certificate) string {
	var names []string
	if subject := dnText(c.RawSubject); subject != "" {
		names = append(names, subject)
	}
	names = append(append(names, c.DNSNames...), c.EmailAddresses...)
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	if len(names) == 0 {
		return "nobody"
	}
	const most = 8
	if len(names) > most {
		names = append(names[:most], "...")
	}
	return fmt.Sprintf("%q", names)
}
