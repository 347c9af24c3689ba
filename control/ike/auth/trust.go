package auth

import (
	"bytes"
	"crypto/sha1" // RFC 7296, section 3.7: a name of a key, which protects nothing
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"causeway/control/ike/message"
)

// Bounds of what a stranger can make us verify.
const (
	maxAuthorities = 32       // of a file
	maxCertificate = 16 << 10 // bytes
	maxAlike       = 2        // intermediate authorities of one name
	maxConstraints = 1024     // comparisons with the name constraints of authorities
)

// Trust is whom we believe: the authorities that certify peers. It does not change, and may be used by several goroutines.
type Trust struct {
	authorities []*x509.Certificate // in the order of their DER
	pool        *x509.CertPool
}

// LoadTrust reads authorities from a PEM file. That one has expired is said when a peer's certificate depends on it.
func LoadTrust(file string) (*Trust, error) {
	certs, err := readCertificates(file, maxAuthorities)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		if !mayCertify(c) {
			return nil, fmt.Errorf("%q: %s is no authority: its basicConstraints do not say CA", file, nameOf(c))
		}
	}
	slices.SortFunc(certs, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	t := &Trust{slices.CompactFunc(certs, (*x509.Certificate).Equal), x509.NewCertPool()}
	for _, c := range t.authorities {
		t.pool.AddCert(c)
	}
	return t, nil
}

// mayCertify reports whether a certificate is an authority's (RFC 5280, section 6.1.4 (k)). One of an old version does not
// say so, and x509 would believe it.
func mayCertify(c *x509.Certificate) bool { return c.Version == 3 && c.BasicConstraintsValid && c.IsCA }

// Equal reports whether the same authorities are trusted, in whatever order they stand. nil is allowed.
func (t *Trust) Equal(o *Trust) bool {
	if t == nil || o == nil {
		return t == o
	}
	return slices.EqualFunc(t.authorities, o.authorities, (*x509.Certificate).Equal)
}

// Requests are the CERTREQ payloads, one for each authority: the SHA-1 hash of its key (RFC 7296, section 3.7).
func (t *Trust) Requests() []message.CertReq {
	var requests []message.CertReq
	for _, c := range t.authorities {
		hash := sha1.Sum(c.RawSubjectPublicKeyInfo)
		requests = append(requests, message.CertReq{Encoding: message.CertX509, Authorities: hash[:]})
	}
	return requests
}

// Verify checks that the peer is id: certs[0] is its certificate, the others lead to an authority that is trusted, all are
// valid at now, the first is for IKE and has id in it, and a proves for octets that the peer has its key. What comes from
// the peer is bounded before it is worked on, and cheap checks come first.
func (t *Trust) Verify(certs []message.Cert, id message.ID, a message.Auth, octets []byte, now time.Time) error {
	if t == nil {
		return errors.New("no authority is trusted")
	}
	chain, err := parseChain(certs)
	if err != nil {
		return err
	}
	leaf := chain[0]
	for _, check := range []func() error{
		func() error { return checkDates(leaf, now) },
		func() error { return checkUsage(leaf) },
		func() error { return matches(leaf, id) },
		func() error { return t.verifyChain(leaf, chain[1:], now) },
		func() error { return verifyAuth(leaf.PublicKey, a, octets) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// parseChain reads the peer's certificates. Payloads that are none, such as revocation lists, are skipped.
func parseChain(certs []message.Cert) ([]*x509.Certificate, error) {
	if len(certs) > maxChain {
		return nil, fmt.Errorf("the peer sent %d certificates, %d at most are allowed", len(certs), maxChain)
	}
	var chain []*x509.Certificate
	for _, c := range certs {
		if c.Encoding != message.CertX509 {
			continue
		}
		if len(c.Data) > maxCertificate {
			return nil, fmt.Errorf("the peer's certificate %d has %d bytes, %d at most are allowed", len(chain)+1, len(c.Data), maxCertificate)
		}
		parsed, err := x509.ParseCertificate(c.Data)
		if err != nil {
			return nil, fmt.Errorf("the peer's certificate %d: %w", len(chain)+1, err)
		}
		if err := checkKey(parsed.PublicKey); err != nil {
			return nil, fmt.Errorf("the peer's %s %w", nameOf(parsed), err)
		}
		chain = append(chain, parsed)
	}
	if len(chain) == 0 {
		return nil, errors.New("the peer sent no X.509 certificate (encoding 4)")
	}
	return chain, nil
}

// verifyChain finds a way from leaf to a trusted authority (RFC 5280, section 6). The extended key usage is checkUsage's.
func (t *Trust) verifyChain(leaf *x509.Certificate, others []*x509.Certificate, now time.Time) error {
	between := x509.NewCertPool()
	for _, c := range intermediates(others) {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: t.pool, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, MaxConstraintComparisions: maxConstraints})
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%s cannot be believed: %w", nameOf(leaf), checkDates(invalid.Cert, now))
	case errors.As(err, &invalid):
		return fmt.Errorf("%s cannot be believed: %s: %w", nameOf(leaf), nameOf(invalid.Cert), err)
	case errors.As(err, &unknown):
		return fmt.Errorf("%s, issued by %q, does not lead to one of the trusted authorities %s: %w", nameOf(leaf), dnText(leaf.RawIssuer), t.names(), err)
	}
	return fmt.Errorf("%s cannot be believed: %w", nameOf(leaf), err)
}

// intermediates are those that may lead to a trusted authority. Of one name there are two at the most, an old key and a new
// one: each of many with the same name would be tried behind each other, and a signature on P-521 takes milliseconds.
func intermediates(others []*x509.Certificate) []*x509.Certificate {
	var list []*x509.Certificate
	for _, c := range others {
		alike := 0
		for _, before := range list {
			if bytes.Equal(before.RawSubject, c.RawSubject) {
				alike++
			}
		}
		if mayCertify(c) && alike < maxAlike {
			list = append(list, c)
		}
	}
	return list
}

func (t *Trust) names() string {
	var names []string
	for _, c := range t.authorities {
		names = append(names, dnText(c.RawSubject))
	}
	return short(fmt.Sprintf("%q", names))
}
