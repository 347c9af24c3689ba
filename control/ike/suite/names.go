package suite

import (
	"crypto/sha1" // HMAC-SHA-1 of old routers
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"slices"

	"causeway/control/ike/message"
)

// Encryption algorithms (IANA, transform type 1).
const (
	Null             = 11
	AESCBC           = 12
	AESGCM16         = 20
	ChaCha20Poly1305 = 28
)

// Integrity algorithms (transform type 3).
const (
	integNone  = 0
	HMACSHA1   = 2
	HMACSHA256 = 12
	HMACSHA384 = 13
	HMACSHA512 = 14
)

// Pseudorandom functions (transform type 2).
const (
	PRFHMACSHA1   PRF = 2
	PRFHMACSHA256 PRF = 5
	PRFHMACSHA384 PRF = 6
	PRFHMACSHA512 PRF = 7
)

// Key exchange methods (transform type 4, and those that come in addition).
const (
	MODP1536  = 5
	MODP2048  = 14
	MODP3072  = 15
	MODP4096  = 16
	ECP256    = 19
	ECP384    = 20
	ECP521    = 21
	X25519    = 31
	MLKEM768  = 36
	MLKEM1024 = 37
)

// A word is how strongSwan calls a transform.
type word struct {
	text string
	t    message.Transform
	weak bool
}

// words are all that there are, the stronger ones of a kind first.
var words = []word{
	{"aes256gcm16", message.Transform{Type: message.TransformEncryption, ID: AESGCM16, KeyBits: 256}, false},
	{"chacha20poly1305", message.Transform{Type: message.TransformEncryption, ID: ChaCha20Poly1305}, false},
	{"aes128gcm16", message.Transform{Type: message.TransformEncryption, ID: AESGCM16, KeyBits: 128}, false},
	{"aes256", message.Transform{Type: message.TransformEncryption, ID: AESCBC, KeyBits: 256}, false},
	{"aes128", message.Transform{Type: message.TransformEncryption, ID: AESCBC, KeyBits: 128}, false},
	{"null", message.Transform{Type: message.TransformEncryption, ID: Null}, false},
	{"sha512", message.Transform{Type: message.TransformIntegrity, ID: HMACSHA512}, false},
	{"sha384", message.Transform{Type: message.TransformIntegrity, ID: HMACSHA384}, false},
	{"sha256", message.Transform{Type: message.TransformIntegrity, ID: HMACSHA256}, false},
	{"sha1", message.Transform{Type: message.TransformIntegrity, ID: HMACSHA1}, true},
	{"prfsha512", message.Transform{Type: message.TransformPRF, ID: uint16(PRFHMACSHA512)}, false},
	{"prfsha384", message.Transform{Type: message.TransformPRF, ID: uint16(PRFHMACSHA384)}, false},
	{"prfsha256", message.Transform{Type: message.TransformPRF, ID: uint16(PRFHMACSHA256)}, false},
	{"prfsha1", message.Transform{Type: message.TransformPRF, ID: uint16(PRFHMACSHA1)}, true},
	{"ecp521", message.Transform{Type: message.TransformKeyExchangeMethod, ID: ECP521}, false},
	{"ecp384", message.Transform{Type: message.TransformKeyExchangeMethod, ID: ECP384}, false},
	{"x25519", message.Transform{Type: message.TransformKeyExchangeMethod, ID: X25519}, false},
	{"ecp256", message.Transform{Type: message.TransformKeyExchangeMethod, ID: ECP256}, false},
	{"modp4096", message.Transform{Type: message.TransformKeyExchangeMethod, ID: MODP4096}, false},
	{"modp3072", message.Transform{Type: message.TransformKeyExchangeMethod, ID: MODP3072}, false},
	{"modp2048", message.Transform{Type: message.TransformKeyExchangeMethod, ID: MODP2048}, false},
	{"modp1536", message.Transform{Type: message.TransformKeyExchangeMethod, ID: MODP1536}, true},
	{"mlkem1024", message.Transform{Type: message.TransformKeyExchangeMethod, ID: MLKEM1024}, false},
	{"mlkem768", message.Transform{Type: message.TransformKeyExchangeMethod, ID: MLKEM768}, false},
	{"esn", message.Transform{Type: message.TransformSequenceNumbers, ID: 1}, false},
	{"noesn", message.Transform{Type: message.TransformSequenceNumbers, ID: 0}, false},
}

// isOurs reports whether a transform is NONE or has a word.
func isOurs(t message.Transform) bool {
	if t.Type >= message.TransformAdditionalKE1 && t.Type <= message.TransformAdditionalKE7 {
		t.Type = message.TransformKeyExchangeMethod
	}
	return t.ID == 0 && t.KeyBits == 0 || slices.ContainsFunc(words, func(w word) bool { return w.t == t })
}

// textOf is the word of a transform. One that we do not know is named by its numbers.
func textOf(t message.Transform) string {
	prefix := ""
	if t.Type >= message.TransformAdditionalKE1 && t.Type <= message.TransformAdditionalKE7 {
		prefix = fmt.Sprintf("ke%d_", t.Type-message.TransformAdditionalKE1+1)
		t.Type = message.TransformKeyExchangeMethod
	}
	for _, w := range words {
		if w.t == t {
			return prefix + w.text
		}
	}
	kind := [...]string{"", "encr", "prf", "integ", "ke", "esn"}
	switch {
	case t.ID == 0:
		return prefix + "none"
	case t.KeyBits == message.UnknownAttribute:
		t.KeyBits = 0
		return prefix + textOf(t) + "_unknown_attribute"
	case t.Type >= 1 && int(t.Type) < len(kind) && t.KeyBits > 0:
		return fmt.Sprintf("%s%s_%d_%d", prefix, kind[t.Type], t.ID, t.KeyBits)
	case t.Type >= 1 && int(t.Type) < len(kind):
		return fmt.Sprintf("%s%s_%d", prefix, kind[t.Type], t.ID)
	}
	return fmt.Sprintf("type%d_%d", t.Type, t.ID)
}

// MethodName is the word of a key exchange method.
func MethodName(method uint16) string {
	return textOf(message.Transform{Type: message.TransformKeyExchangeMethod, ID: method})
}

// A cipherInfo has sizes in bytes.
type cipherInfo struct {
	aead bool
	salt int // behind the key
	iv   int
}

var ciphers = map[uint16]cipherInfo{
	Null:             {},
	AESCBC:           {iv: 16},
	AESGCM16:         {aead: true, salt: 4, iv: 8},
	ChaCha20Poly1305: {aead: true, salt: 4, iv: 8},
}

// keyLen is the length of a cipher's key with its salt, in bytes.
func keyLen(encr uint16, bits int) int {
	if encr == ChaCha20Poly1305 {
		bits = 256 // it has no attribute (RFC 7634, section 4)
	}
	return bits/8 + ciphers[encr].salt
}

// A macInfo has sizes in bytes.
type macInfo struct {
	hash func() hash.Hash
	key  int
	icv  int
}

// RFC 4868 and RFC 2404.
var macs = map[uint16]macInfo{
	HMACSHA1:   {sha1.New, 20, 12},
	HMACSHA256: {sha256.New, 32, 16},
	HMACSHA384: {sha512.New384, 48, 24},
	HMACSHA512: {sha512.New, 64, 32},
}
