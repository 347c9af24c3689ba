package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" // names authorities (RFC 7296, section 3.7)
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"causeway/control/ike/message"
)

// Bounds of files and of what a peer sends.
const (
	maxFile  = 1 << 20
	maxChain = 8
)

// A Certificate is who we are: a certificate with its chain, and the private key. It is not changed after it was loaded.
type Certificate struct {
	leaf  *x509.Certificate
	chain [][]byte // DER, the leaf first
	key   crypto.Signer
}

// LoadCertificate reads a certificate with its chain, the leaf first, and its private key, both in PEM. The key's file must be
// its owner's alone.
func LoadCertificate(cert, key string) (*Certificate, error) {
	text, err := readFile(cert, false)
	if err != nil {
		return nil, err
	}
	list, err := parseCertificates(cert, text)
	if err != nil {
		return nil, err
	}
	if len(list) > maxChain {
		return nil, fmt.Errorf("%s: has %d certificates: write the leaf and those between it and the authority, at most %d", cert, len(list), maxChain)
	}
	if text, err = readFile(key, true); err != nil {
		return nil, err
	}
	defer clear(text)
	signer, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	c := &Certificate{leaf: list[0], key: signer}
	for _, x := range list {
		c.chain = append(c.chain, x.Raw)
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(c.leaf.PublicKey) {
		return nil, fmt.Errorf("%s: is not the key of the first certificate in %s", key, cert)
	}
	if now := time.Now(); now.After(c.leaf.NotAfter) || now.Before(c.leaf.NotBefore) {
		return nil, fmt.Errorf("%s: is valid from %s to %s", cert, c.leaf.NotBefore.Format(time.DateTime), c.leaf.NotAfter.Format(time.DateTime))
	}
	if _, err := hashOf(c.leaf.PublicKey, ourHashes); err != nil {
		return nil, fmt.Errorf("%s: %w", cert, err)
	}
	return c, nil
}

// Equal reports whether two have the same certificates and so the same key; both may be nil.
func (c *Certificate) Equal(o *Certificate) bool {
	if c == nil || o == nil {
		return c == o
	}
	return slices.EqualFunc(c.chain, o.chain, bytes.Equal)
}

// Certs are the payloads that the peer gets.
func (c *Certificate) Certs() (out []message.Cert) {
	for _, der := range c.chain {
		out = append(out, message.Cert{Encoding: message.CertX509, Data: der})
	}
	return out
}

// Matches reports whether the certificate is of whom we say we are.
func (c *Certificate) Matches(id message.ID) error { return belongs(c.leaf, id) }

// Sign proves that we have the key: by the digital signatures of RFC 7427, or the peer's hashes being unknown, by the old methods
// of RFC 4754, which elliptic curves alone have here.
func (c *Certificate) Sign(octets []byte, peerHashes []uint16, rfc7427 bool) (message.Auth, error) {
	if !rfc7427 {
		return c.signOld(octets)
	}
	hash, err := hashOf(c.leaf.PublicKey, peerHashes)
	if err != nil {
		return message.Auth{}, err
	}
	return c.sign(octets, hash)
}

// A Trust is who certifies peers. It is not changed after it was loaded.
type Trust struct {
	pool *x509.CertPool
	list []*x509.Certificate
}

// LoadTrust reads the certificates of authorities, in PEM.
func LoadTrust(file string) (*Trust, error) {
	text, err := readFile(file, false)
	if err != nil {
		return nil, err
	}
	list, err := parseCertificates(file, text)
	if err != nil {
		return nil, err
	}
	t := &Trust{pool: x509.NewCertPool(), list: list}
	for _, c := range list {
		if !c.IsCA {
			return nil, fmt.Errorf("%s: %s is no authority: its certificate has no basicConstraints with CA", file, c.Subject)
		}
		t.pool.AddCert(c)
	}
	return t, nil
}

// Equal reports whether two trust the same; both may be nil.
func (t *Trust) Equal(o *Trust) bool {
	if t == nil || o == nil {
		return t == o
	}
	return slices.EqualFunc(t.list, o.list, func(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) })
}

// Requests ask for certificates of these authorities: SHA-1 hashes of their public keys.
func (t *Trust) Requests() []message.CertReq {
	r := message.CertReq{Encoding: message.CertX509}
	for _, c := range t.list {
		h := sha1.Sum(c.RawSubjectPublicKeyInfo)
		r.Authorities = append(r.Authorities, h[:]...)
	}
	return []message.CertReq{r}
}

// Verify checks a peer's proof: its certificate is that of id, one of the authorities certifies it, it is valid now and may sign,
// and the signature is right.
func (t *Trust) Verify(certs []message.Cert, id message.ID, a message.Auth, octets []byte, now time.Time) error {
	leaf, between, err := parsePeer(certs)
	if err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: t.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("certificate of %s, valid until %s: %w", leaf.Subject, leaf.NotAfter.Format(time.DateTime), err)
	}
	if err := maySign(leaf); err != nil {
		return fmt.Errorf("certificate of %s: %w", leaf.Subject, err)
	}
	if err := belongs(leaf, id); err != nil {
		return err
	}
	if err := verify(leaf.PublicKey, a, octets); err != nil {
		return fmt.Errorf("certificate of %s: %w", leaf.Subject, err)
	}
	return nil
}

// parsePeer reads what a peer sent: its certificate first, and some that lead to an authority.
func parsePeer(certs []message.Cert) (leaf *x509.Certificate, between *x509.CertPool, err error) {
	if len(certs) == 0 {
		return nil, nil, errors.New("the peer sent no certificate")
	}
	if len(certs) > maxChain {
		return nil, nil, fmt.Errorf("the peer sent %d certificates: at most %d are looked at", len(certs), maxChain)
	}
	between = x509.NewCertPool()
	for i, c := range certs {
		if c.Encoding != message.CertX509 {
			return nil, nil, fmt.Errorf("the peer sent a certificate of encoding %d: X.509 (%d) is what we read", c.Encoding, message.CertX509)
		}
		x, err := x509.ParseCertificate(c.Data)
		if err != nil {
			return nil, nil, fmt.Errorf("the peer's certificate: %w", err)
		}
		if i == 0 {
			leaf = x
			continue
		}
		between.AddCert(x)
	}
	return leaf, between, nil
}

var (
	extIKEIntermediate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}
	extIPsecIKE        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 17} // RFC 4945, section 5.1.3.12
)

// maySign looks at what a certificate is for (RFC 4945, section 5.1.3).
func maySign(c *x509.Certificate) error {
	if c.KeyUsage != 0 && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return errors.New("its key usage does not permit signatures")
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
		if u.Equal(extIKEIntermediate) || u.Equal(extIPsecIKE) {
			return nil
		}
	}
	return errors.New("its extended key usage is for something else than IKE")
}

// belongs reports whether an identity is one of a certificate's (RFC 4945, section 3.1).
func belongs(c *x509.Certificate, id message.ID) error {
	ok := false
	switch id.Type {
	case message.IDIPv4, message.IDIPv6:
		ok = slices.ContainsFunc(c.IPAddresses, func(a net.IP) bool { return a.Equal(net.IP(id.Data)) })
	case message.IDFQDN:
		ok = slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.EqualFold(n, string(id.Data)) })
	case message.IDRFC822:
		ok = slices.ContainsFunc(c.EmailAddresses, func(n string) bool { return strings.EqualFold(n, string(id.Data)) })
	case message.IDDN:
		ok = sameName(c.RawSubject, id.Data)
	default:
		return fmt.Errorf("identity %v: a certificate has names and addresses, and no key IDs", id)
	}
	if !ok {
		return fmt.Errorf("the certificate of %s is not that of %v: neither its subject nor a subjectAltName is this", c.Subject, id)
	}
	return nil
}

// sameName compares names: attribute by attribute, whatever kind of string each value is (RFC 5280, section 7.1).
func sameName(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, okX := relatives(a)
	y, okY := relatives(b)
	return okX && okY && slices.EqualFunc(x, y, func(p, q relativeName) bool {
		return p.kind == q.kind && strings.EqualFold(strings.Join(strings.Fields(p.value), " "), strings.Join(strings.Fields(q.value), " "))
	})
}

type relativeName struct{ kind, value string }

// relatives reads a name whose parts have one attribute each; other names are compared as bytes.
func relatives(der []byte) (out []relativeName, ok bool) {
	var seq []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &seq); err != nil || len(rest) > 0 {
		return nil, false
	}
	for _, r := range seq {
		var attribute struct {
			Type  asn1.ObjectIdentifier
			Value any
		}
		rest, err := asn1.Unmarshal(r.Bytes, &attribute)
		value, text := attribute.Value.(string)
		if err != nil || len(rest) > 0 || !text {
			return nil, false
		}
		out = append(out, relativeName{attribute.Type.String(), value})
	}
	return out, true
}

// readFile reads a file of the configuration; private ones must be their owner's alone.
func readFile(path string, private bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%s: is no file of at most %d bytes", path, maxFile)
	case private && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s: others may read it (%04o): chmod 600", path, info.Mode().Perm())
	}
	if s, ok := info.Sys().(*syscall.Stat_t); private && ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s: belongs to user %d: chown it to root or to the daemon's user", path, s.Uid)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func parseCertificates(path string, text []byte) (list []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(list)+1, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: has no certificate in PEM (-----BEGIN CERTIFICATE-----)", path)
	}
	return list, nil
}

// parseKey reads the first private key. Its errors show nothing of it.
func parseKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("is encrypted: the daemon cannot ask for a password; openssl pkey -in FILE -out FILE removes it")
		default: // the parameters of a curve stand before its key
			continue
		}
		clear(block.Bytes)
		if err != nil {
			return nil, errors.New("has a private key that cannot be read")
		}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			return k, nil
		case *ecdsa.PrivateKey:
			return k, nil
		case ed25519.PrivateKey:
			return k, nil
		}
		return nil, errors.New("has a key that is neither RSA, ECDSA nor Ed25519")
	}
	return nil, errors.New("has no private key in PEM (-----BEGIN PRIVATE KEY-----)")
}
