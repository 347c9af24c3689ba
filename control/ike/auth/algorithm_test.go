package auth

import (
	"crypto"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// tlv is an element of DER, as one writes it by hand.
func tlv(tag byte, parts ...string) string {
	body := strings.Join(parts, "")
	switch n := len(body); {
	case n < 0x80:
		return string([]byte{tag, byte(n)}) + body
	case n < 0x100:
		return string([]byte{tag, 0x81, byte(n)}) + body
	default:
		return string([]byte{tag, 0x82, byte(n >> 8), byte(n)}) + body
	}
}

const (
	pss       = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"
	mgf1      = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08"
	null      = "\x05\x00"
	sha1Name  = "\x06\x05\x2b\x0e\x03\x02\x1a"
	sha2Names = "\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02" // and 1, 2, 3
)

// integer is a small positive INTEGER.
func integer(n int) string {
	switch {
	case n < 0x80:
		return tlv(2, string([]byte{byte(n)}))
	case n < 0x8000 && n > 0xff || n >= 0x80 && n < 0x100:
		return tlv(2, string([]byte{byte(n >> 8), byte(n)}))
	}
	panic("too large")
}

// everyAlgorithm is each AlgorithmIdentifier that is accepted, with what it means: the oracle of parseAlgorithm.
func everyAlgorithm() map[string]algorithm {
	all := map[string]algorithm{tlv(0x30, "\x06\x03\x2b\x65\x70"): {scheme: schemeEd25519}}
	for i, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		pkcs1 := "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01" + string([]byte{byte(11 + i)})
		all[tlv(0x30, pkcs1, null)] = algorithm{scheme: schemePKCS1, hash: h}
		all[tlv(0x30, pkcs1)] = algorithm{scheme: schemePKCS1, hash: h}
		all[tlv(0x30, "\x06\x08\x2a\x86\x48\xce\x3d\x04\x03"+string([]byte{byte(2 + i)}))] = algorithm{scheme: schemeECDSA, hash: h}
		name := sha2Names + string([]byte{byte(1 + i)})
		hashes := []string{tlv(0x30, name, null), tlv(0x30, name)}
		for salt := h.Size(); salt <= 1024; salt++ {
			for _, own := range hashes {
				for _, mask := range hashes {
					for _, trailer := range []string{"", tlv(0xa3, integer(1))} {
						all[tlv(0x30, pss, tlv(0x30, tlv(0xa0, own), tlv(0xa1, tlv(0x30, mgf1, mask)), tlv(0xa2, integer(salt)), trailer))] =
							algorithm{scheme: schemePSS, hash: h, salt: salt}
					}
				}
			}
		}
	}
	return all
}

func TestParseAlgorithm(t *testing.T) {
	for der, want := range everyAlgorithm() {
		if got, err := parseAlgorithm([]byte(der)); err != nil || got != want {
			t.Fatalf("%x: %+v, %v; want %+v", der, got, err, want)
		}
	}
}

// TestIdentifiers compares ours with what RFC 7427, appendix A, and RFC 8420 print.
func TestIdentifiers(t *testing.T) {
	for want, a := range map[string]algorithm{
		"300d06092a864886f70d01010b0500": {scheme: schemePKCS1, hash: crypto.SHA256},
		"300d06092a864886f70d01010c0500": {scheme: schemePKCS1, hash: crypto.SHA384},
		"300d06092a864886f70d01010d0500": {scheme: schemePKCS1, hash: crypto.SHA512},
		"300a06082a8648ce3d040302":       {scheme: schemeECDSA, hash: crypto.SHA256},
		"300a06082a8648ce3d040303":       {scheme: schemeECDSA, hash: crypto.SHA384},
		"300a06082a8648ce3d040304":       {scheme: schemeECDSA, hash: crypto.SHA512},
		"300506032b6570":                 {scheme: schemeEd25519},
	} {
		if got := hex.EncodeToString(a.identifier()); got != want {
			t.Errorf("%v: %s, want %s", a, got, want)
		}
	}
}

func TestParseAlgorithmRefuses(t *testing.T) {
	sha256 := tlv(0x30, sha2Names+"\x01", null)
	sha512 := tlv(0x30, sha2Names+"\x03", null)
	mask := tlv(0xa1, tlv(0x30, mgf1, sha256))
	salt := tlv(0xa2, integer(32))
	own := tlv(0xa0, sha256)
	of := func(parameters ...string) string { return tlv(0x30, pss, tlv(0x30, parameters...)) }
	for name, c := range map[string]struct{ der, say string }{
		"nothing":                    {"", "malformed"},
		"no sequence":                {pss, "malformed"},
		"bytes behind":               {tlv(0x30, "\x06\x03\x2b\x65\x70") + "\x00", "malformed"},
		"two parameters":             {tlv(0x30, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", null, null), "malformed"},
		"long form of a length":      {"\x30\x81\x05\x06\x03\x2b\x65\x70", "malformed"},
		"indefinite length":          {"\x30\x80\x06\x03\x2b\x65\x70\x00\x00", "malformed"},
		"PKCS#1 with SHA-1":          {tlv(0x30, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", null), "RSA with SHA-1 is refused"},
		"PKCS#1 with MD5":            {tlv(0x30, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", null), "RSA with MD5 is refused"},
		"ECDSA with SHA-1":           {tlv(0x30, "\x06\x07\x2a\x86\x48\xce\x3d\x04\x01"), "ECDSA with SHA-1 is refused"},
		"Ed448":                      {tlv(0x30, "\x06\x03\x2b\x65\x71"), "Ed448 is refused"},
		"a public key's":             {tlv(0x30, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", null), "1.2.840.113549.1.1.1 is refused"},
		"ECDSA with NULL":            {tlv(0x30, "\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", null), "parameters"},
		"Ed25519 with NULL":          {tlv(0x30, "\x06\x03\x2b\x65\x70", null), "1.3.101.112 is refused"},
		"PKCS#1 with an integer":     {tlv(0x30, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", integer(1)), "parameters"},
		"PKCS#1 with NULL of a byte": {tlv(0x30, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", "\x05\x01\x00"), "parameters"},
		"PSS alone":                  {tlv(0x30, pss), "SHA-1"},
		"PSS with NULL":              {tlv(0x30, pss, null), "malformed"},
		"PSS of defaults":            {of(), "SHA-1"},
		"PSS without hash":           {of(mask, salt), "SHA-1"},
		"PSS without mask":           {of(own, salt), "SHA-1"},
		"PSS without salt":           {of(own, mask), "SHA-1"},
		"PSS with SHA-1":             {of(tlv(0xa0, tlv(0x30, sha1Name, null)), tlv(0xa1, tlv(0x30, mgf1, tlv(0x30, sha1Name, null))), tlv(0xa2, integer(20))), "hash SHA-1 is refused"},
		"PSS with SHA-1 in mask":     {of(own, tlv(0xa1, tlv(0x30, mgf1, tlv(0x30, sha1Name, null))), salt), "same hash"},
		"PSS with two hashes":        {of(own, tlv(0xa1, tlv(0x30, mgf1, sha512)), salt), "same hash"},
		"PSS with another mask":      {of(own, tlv(0xa1, tlv(0x30, pss, sha256)), salt), "malformed"},
		"PSS with a short salt":      {of(own, mask, tlv(0xa2, integer(31))), "at least 32"},
		"PSS with an empty salt":     {of(own, mask, tlv(0xa2, integer(0))), "at least 32"},
		"PSS with a negative salt":   {of(own, mask, tlv(0xa2, tlv(2, "\xe0"))), "at least 32"},
		"PSS with a huge salt":       {of(own, mask, tlv(0xa2, integer(1025))), "at least 32"},
		"PSS with a salt of 2^64":    {of(own, mask, tlv(0xa2, tlv(2, "\x01\x00\x00\x00\x00\x00\x00\x00\x20"))), "at least 32"},
		"PSS with a zero before":     {of(own, mask, tlv(0xa2, tlv(2, "\x00\x20"))), "at least 32"},
		"PSS with trailer 2":         {of(own, mask, salt, tlv(0xa3, integer(2))), "malformed"},
		"PSS out of order":           {of(mask, own, salt), "malformed"},
		"PSS with a fifth field":     {of(own, mask, salt, tlv(0xa3, integer(1)), tlv(0xa4, integer(1))), "malformed"},
		"PSS with two salts":         {of(own, mask, tlv(0xa2, integer(32), integer(32))), "at least 32"},
		"PSS with bytes in hash":     {of(tlv(0xa0, sha256, null), mask, salt), "malformed"},
	} {
		a, err := parseAlgorithm([]byte(c.der))
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, %v; want an error that says %q", name, a, err, c.say)
		}
	}
}

// TestIdentifiersOfOpenSSL compares our AlgorithmIdentifiers with those that openssl writes into certificates.
func TestIdentifiersOfOpenSSL(t *testing.T) {
	w := newWorkshop(t)
	for _, c := range signatures {
		if c.refused != "" {
			continue
		}
		if got := c.algorithm.identifier(); string(got) != string(w.identifier(c)) {
			t.Errorf("%s: %x, openssl has %x", c.name, got, w.identifier(c))
		}
	}
}

func TestHashAlgorithms(t *testing.T) {
	if got := HashAlgorithms(); hex.EncodeToString(got) != "0002000300040005" {
		t.Errorf("we announce %x", got)
	}
	for in, want := range map[string][]uint16{"": {}, "0002": {2}, "00010002000300040005": {1, 2, 3, 4, 5}, "ffff0002": {0xffff, 2}} {
		if got, err := ParseHashAlgorithms(unhex(in)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"00", "000200", strings.Repeat("0002", maxHashes+1)} {
		if got, err := ParseHashAlgorithms(unhex(in)); err == nil {
			t.Errorf("%s: %v", in, got)
		}
	}
}
