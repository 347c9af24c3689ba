package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// maxFile bounds a PEM file, in bytes: more than any chain of certificates takes.
const maxFile = 1 << 20

// readFile reads a regular file; a private one only if nobody but root and the daemon's user can read or replace it.
func readFile(path string, private bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe does not keep us waiting
	if err != nil {
		return nil, atPath(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, atPath(path, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%q is not a file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%q has %d bytes, %d at most are allowed", path, info.Size(), maxFile)
	}
	if private {
		if err := othersMay(info); err != nil {
			return nil, atPath(path, err)
		}
	}
	b := make([]byte, maxFile)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(b)
		return nil, atPath(path, err)
	}
	return b[:n:n], nil
}

// atPath names the file of an error once, in one line.
func atPath(path string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Errorf("%q: %w", path, err)
}

// othersMay says who else has a private file.
func othersMay(info fs.FileInfo) error {
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others may read the private key (%04o): chmod 600", info.Mode().Perm())
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, who may read the private key and write another there: chown it to root or to the daemon's user", s.Uid)
	}
	return nil
}

// readCertificates reads all certificates of a PEM file, at least one and at most most, and checks their keys.
func readCertificates(path string, most int) ([]*x509.Certificate, error) {
	b, err := readFile(path, false)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	begun := bytes.Count(b, []byte("-----BEGIN "))
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		begun--
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%q has %q among its certificates: only CERTIFICATE is allowed", path, block.Type)
		}
		if len(certs) == most {
			return nil, fmt.Errorf("%q has more than %d certificates", path, most)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%q: certificate %d: %w", path, len(certs)+1, err)
		}
		if err := checkKey(c.PublicKey); err != nil {
			return nil, fmt.Errorf("%q: %s %w", path, nameOf(c), err)
		}
		certs = append(certs, c)
	}
	switch {
	case begun > 0:
		return nil, fmt.Errorf("%q has a block that begins and does not end as PEM does", path)
	case len(certs) == 0:
		return nil, fmt.Errorf("%q has no certificate in PEM", path)
	}
	return certs, nil
}

// readKey reads the private key of a PEM file that only its owner may read.
func readKey(path string) (crypto.Signer, error) {
	b, err := readFile(path, true)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		defer clear(block.Bytes)
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue // "EC PARAMETERS", or certificates beside the key
		}
		key, err := parseKey(block)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		return key, nil
	}
	return nil, fmt.Errorf("%q has no private key in PEM", path)
}

// parseKey reads PKCS #8, or what OpenSSL wrote before. Its errors have nothing of the key.
func parseKey(block *pem.Block) (key crypto.Signer, err error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
		return nil, errors.New("the private key is encrypted: nobody is there to enter a passphrase, write it unencrypted into a file that only its owner may read")
	}
	var parsed any
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		err = errors.ErrUnsupported
	}
	key, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return nil, fmt.Errorf("%q is malformed or of an unknown kind: RSA, ECDSA and Ed25519 are allowed", block.Type)
	}
	return key, nil
}
