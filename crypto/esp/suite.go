package esp

import (
	"fmt"
	"slices"
	"strings"

	"causeway/crypto/aesgcm"
)

// A Suite is the algorithms of an association.
type Suite uint8

// The suites.
const (
	AES128GCM16      Suite = iota + 1 // RFC 4106, integrity check value of 16 bytes
	AES256GCM16                       //
	ChaCha20Poly1305                  // RFC 7634
	AES128SHA256                      // AES-CBC (RFC 3602) with HMAC-SHA-256-128 (RFC 4868)
	AES256SHA256                      //
	AES128SHA1                        // AES-CBC with HMAC-SHA-1-96 (RFC 2404), for old routers
	AES256SHA1                        //
	NullSHA256                        // no encryption (RFC 2410)
	NullSHA1                          //
	suiteEnd
)

// kind is how packets of a suite are treated.
type kind uint8

const (
	kindGCM kind = iota + 1
	kindChaCha
	kindMAC // CBC or no encryption, then HMAC
)

// The sizes of the suites of kindGCM, in bytes, as suites has them.
const (
	gcmIV    = 8
	gcmICV   = aesgcm.TagSize
	gcmAlign = 4
)

// suiteInfo describes a suite. Sizes are in bytes.
type suiteInfo struct {
	name   string // as strongSwan writes it
	kind   kind
	key    int // of the cipher
	salt   int // behind the key, RFC 4106 8.1, RFC 7634 2
	mac    int // key of the HMAC, behind the cipher's
	iv     int
	icv    int
	align  int // the padded text's, RFC 4303 2.4; a power of two
	weak   bool
	nocode bool
}

var suites = [suiteEnd]suiteInfo{
	AES128GCM16:      {name: "aes128gcm16", kind: kindGCM, key: 16, salt: 4, iv: gcmIV, icv: gcmICV, align: gcmAlign},
	AES256GCM16:      {name: "aes256gcm16", kind: kindGCM, key: 32, salt: 4, iv: gcmIV, icv: gcmICV, align: gcmAlign},
	ChaCha20Poly1305: {name: "chacha20poly1305", kind: kindChaCha, key: 32, salt: 4, iv: 8, icv: 16, align: 4},
	AES128SHA256:     {name: "aes128-sha256", kind: kindMAC, key: 16, mac: 32, iv: 16, icv: 16, align: 16},
	AES256SHA256:     {name: "aes256-sha256", kind: kindMAC, key: 32, mac: 32, iv: 16, icv: 16, align: 16},
	AES128SHA1:       {name: "aes128-sha1", kind: kindMAC, key: 16, mac: 20, iv: 16, icv: 12, align: 16, weak: true},
	AES256SHA1:       {name: "aes256-sha1", kind: kindMAC, key: 32, mac: 20, iv: 16, icv: 12, align: 16, weak: true},
	NullSHA256:       {name: "null-sha256", kind: kindMAC, mac: 32, icv: 16, align: 4, nocode: true},
	NullSHA1:         {name: "null-sha1", kind: kindMAC, mac: 20, icv: 12, align: 4, weak: true, nocode: true},
}

// ParseSuite finds a suite by its name.
func ParseSuite(name string) (Suite, error) {
	for s := AES128GCM16; s < suiteEnd; s++ {
		if suites[s].name == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("esp: %q is no encryption: there are %s", name, strings.Join(SuiteNames(), ", "))
}

// SuiteNames lists the names of all suites.
func SuiteNames() []string {
	var names []string
	for s := AES128GCM16; s < suiteEnd; s++ {
		names = append(names, suites[s].name)
	}
	return slices.Clip(names)
}

func (s Suite) info() *suiteInfo { return &suites[s] }

// String returns the suite's name, in strongSwan's words.
func (s Suite) String() string { return s.info().name }

// KeySize is how many bytes of key an association needs: key and salt, or key and the HMAC's key, in the order of `ip xfrm`.
func (s Suite) KeySize() int { i := s.info(); return i.key + i.salt + i.mac }

// CounterMode reports whether two packets with one IV would reveal the key's secrets.
func (s Suite) CounterMode() bool { return s.info().kind != kindMAC }

// Weak reports whether the suite is kept for old routers alone.
func (s Suite) Weak() bool { return s.info().weak }

// Null reports whether the suite leaves packets readable.
func (s Suite) Null() bool { return s.info().nocode }

// PacketLen is the number of bytes of the ESP packet for a text of n bytes.
func (s Suite) PacketLen(n int) int {
	i := s.info()
	return headerLen + i.iv + roundUp(n+trailerLen, i.align) + i.icv
}

// MaxText is the longest text whose ESP packet takes at most n bytes, or a negative number.
func (s Suite) MaxText(n int) int {
	i := s.info()
	room := n - headerLen - i.iv - i.icv
	return room&^(i.align-1) - trailerLen
}

// Before and Behind are the most bytes that an ESP packet takes before and behind its text.
func (s Suite) Before() int { return headerLen + s.info().iv }

// Behind is described with Before.
func (s Suite) Behind() int { i := s.info(); return i.align - 1 + trailerLen + i.icv }

// MaxBefore is the largest Before of all suites.
const MaxBefore = headerLen + 16

// roundUp rounds up to a multiple of a power of two: to divide by a variable would take as long as the rest of Add.
func roundUp(n, to int) int { return (n + to - 1) &^ (to - 1) }
