package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"time"

	"causeway/control/ike/message"
)

type extension = pkix.Extension

// maxChain bounds the certificates that one side sends.
const maxChain = 8

// A Certificate is what we prove to be: a certificate, its private key, and the intermediate authorities between it and one
// that the peer trusts. It does not change, and may be used by several goroutines.
type Certificate struct {
	leaf  *x509.Certificate
	chain []*x509.Certificate
	key   crypto.Signer
}

// LoadCertificate reads our certificate, followed by intermediate authorities, from the PEM file cert, and its private key
// from the PEM file key, which only its owner may read. Whether it is valid now is for Valid to say.
func LoadCertificate(cert, key string) (*Certificate, error) {
	certs, err := readCertificates(cert, maxChain)
	if err != nil {
		return nil, err
	}
	c := &Certificate{leaf: certs[0]}
	if err := checkUsage(c.leaf); err != nil {
		return nil, fmt.Errorf("%q: %w", cert, err)
	}
	for _, authority := range certs[1:] {
		if !bytes.Equal(authority.RawSubject, authority.RawIssuer) { // a root is trusted by the peer or it is not
			c.chain = append(c.chain, authority)
		}
	}
	if c.key, err = readKey(key); err != nil {
		return nil, KeyError{err}
	}
	public, ok := c.leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.key.Public()) {
		return nil, KeyError{fmt.Errorf("the private key in %q does not belong to the first certificate in %q, %s", key, cert, nameOf(c.leaf))}
	}
	return c, nil
}

// A KeyError says that not the certificate is wrong but its private key.
type KeyError struct{ error }

// Unwrap returns what is wrong.
func (e KeyError) Unwrap() error { return e.error }

// Format hides the private key.
func (c *Certificate) Format(f fmt.State, _ rune) {
	if c == nil {
		fmt.Fprint(f, "no certificate")
		return
	}
	fmt.Fprint(f, nameOf(c.leaf))
}

// Equal reports whether two certificates are the same, with the same intermediate authorities. nil is allowed.
func (c *Certificate) Equal(o *Certificate) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.leaf.Equal(o.leaf) && slices.EqualFunc(c.chain, o.chain, (*x509.Certificate).Equal)
}

// Valid says what the dates of the certificate and its intermediate authorities are when now is not within them.
func (c *Certificate) Valid(now time.Time) error {
	for _, one := range append([]*x509.Certificate{c.leaf}, c.chain...) {
		if err := checkDates(one, now); err != nil {
			return err
		}
	}
	return nil
}

// Certs are the CERT payloads that go with Sign's AUTH payload: the certificate first (RFC 7296, section 3.6). The data is
// shared, and must not be changed.
func (c *Certificate) Certs() []message.Cert {
	certs := []message.Cert{{Encoding: message.CertX509, Data: c.leaf.Raw}}
	for _, authority := range c.chain {
		certs = append(certs, message.Cert{Encoding: message.CertX509, Data: authority.Raw})
	}
	return certs
}

// Matches says why a peer would not believe that the certificate is that of id.
func (c *Certificate) Matches(id message.ID) error { return matches(c.leaf, id) }

// Named returns id as the certificate writes it. There are peers that compare distinguished names byte by byte, and there
// are several ways to encode the same one; RFC 4945, section 3.1.5, wants the subject's own. The data is shared.
func (c *Certificate) Named(id message.ID) message.ID {
	if id.Type == message.IDDN && sameDN(c.leaf.RawSubject, id.Data) {
		return message.ID{Type: message.IDDN, Data: c.leaf.RawSubject}
	}
	return id
}

// Sign makes the AUTH payload for octets. With rfc7427, the peer sent SIGNATURE_HASH_ALGORITHMS with peerHashes: the
// signature is RSA-PSS with SHA-256, ECDSA with the hash that fits the curve, or Ed25519, and where the peer does not know
// the hash, another that it does. Without, it is ECDSA of RFC 4754.
func (c *Certificate) Sign(octets []byte, peerHashes []uint16, rfc7427 bool) (message.Auth, error) {
	sign := func() (message.Auth, error) { return signRFC4754(c.key, octets) }
	if rfc7427 {
		sign = func() (message.Auth, error) { return signRFC7427(c.key, octets, peerHashes) }
	}
	a, err := sign()
	if err != nil {
		return message.Auth{}, fmt.Errorf("%s: %w", nameOf(c.leaf), err)
	}
	return a, nil
}
