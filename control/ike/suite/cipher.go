package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// A Cipher protects the encrypted payloads of one direction (RFC 7296, section 3.14; RFC 5282; RFC 7634). It may be used by one
// goroutine at a time.
type Cipher struct {
	iv, icv int // bytes

	aead  cipher.AEAD
	nonce [12]byte // salt and IV

	encrypt, decrypt cbcMode // nil: AEAD
	mac              hash.Hash
	sum              [sha512.Size]byte
}

// cbcMode is what crypto/cipher's CBC modes have beside their interface.
type cbcMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

// NewCipher makes the cipher of one direction from SK_e and SK_a, which it does not keep.
func (s IKE) NewCipher(e, a []byte) (*Cipher, error) {
	info := ciphers[s.Encr]
	if n := keyLen(s.Encr, s.KeyBits); len(e) != n {
		return nil, fmt.Errorf("a key of %d bytes: %s needs %d", len(e), s, n)
	}
	if n := macs[s.Integ].key; len(a) != n {
		return nil, fmt.Errorf("an integrity key of %d bytes: %s needs %d", len(a), s, n)
	}
	key, salt := e[:len(e)-info.salt], e[len(e)-info.salt:]
	switch s.Encr {
	case AESGCM16:
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		return newAEAD(info, aead, salt), err
	case ChaCha20Poly1305:
		aead, err := chacha20poly1305.New(key)
		return newAEAD(info, aead, salt), err
	case AESCBC:
		mac, known := macs[s.Integ]
		if !known {
			return nil, fmt.Errorf("%s has no integrity algorithm", s)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		var zero [aes.BlockSize]byte
		return &Cipher{iv: info.iv, icv: mac.icv, mac: hmac.New(mac.hash, a), encrypt: cipher.NewCBCEncrypter(block, zero[:]).(cbcMode),
			decrypt: cipher.NewCBCDecrypter(block, zero[:]).(cbcMode)}, nil
	}
	return nil, fmt.Errorf("%s does not encrypt IKE", s)
}

func newAEAD(info cipherInfo, aead cipher.AEAD, salt []byte) *Cipher {
	c := &Cipher{iv: info.iv, icv: icvAEAD, aead: aead}
	copy(c.nonce[:], salt)
	return c
}

// Format hides the keys.
func (c *Cipher) Format(f fmt.State, _ rune) { fmt.Fprint(f, "cipher of an IKE SA") }

const icvAEAD = 16

// Len is the number of bytes from IV to ICV for a text.
func (c *Cipher) Len(text int) int { return c.iv + text + 1 + c.padding(text) + c.icv }

// padding is as little as there can be: none with an AEAD (RFC 5282, section 3), else what fills the last block.
func (c *Cipher) padding(text int) int {
	if c.aead != nil {
		return 0
	}
	return aes.BlockSize - 1 - text%aes.BlockSize
}

// Seal appends IV, ciphertext and ICV of a text to b, the message up to the IV, all of which is authenticated. The counter is the IV
// of counter modes, and must never come again with the key.
func (c *Cipher) Seal(b, text []byte, counter uint64) []byte {
	head, padding := len(b), c.padding(len(text))
	b = slices.Grow(b, c.Len(len(text)))
	at := head + c.iv
	b = append(b[:at], text...)
	clear(b[len(b) : len(b)+padding])
	b = append(b[:len(b)+padding], byte(padding))
	if c.aead != nil {
		binary.BigEndian.PutUint64(b[head:], counter)
		copy(c.nonce[4:], b[head:at])
		return c.aead.Seal(b[:at], c.nonce[:], b[at:], b[:head])
	}
	rand.Read(b[head:at])
	c.encrypt.SetIV(b[head:at])
	c.encrypt.CryptBlocks(b[at:], b[at:])
	return append(b, c.tag(b)...)
}

// tag is good until the next call.
func (c *Cipher) tag(b []byte) []byte {
	c.mac.Reset()
	c.mac.Write(b)
	return c.mac.Sum(c.sum[:0])[:c.icv]
}

var (
	errICV     = errors.New("its integrity check value is wrong")
	errShort   = errors.New("it is too short for its cipher")
	errPadding = errors.New("its padding is longer than its text")
)

// Open checks and decrypts, in place, the payload of the message b whose IV begins at at.
func (c *Cipher) Open(b []byte, at int) ([]byte, error) {
	if at < 0 || at > len(b) {
		return nil, errShort
	}
	if c.aead != nil {
		return c.openAEAD(b, at)
	}
	body := b[at:]
	end := len(body) - c.icv
	if end < 2*aes.BlockSize || end%aes.BlockSize != 0 {
		return nil, errShort
	}
	if !hmac.Equal(c.tag(b[:at+end]), body[end:]) {
		return nil, errICV
	}
	text := body[c.iv:end]
	c.decrypt.SetIV(body[:c.iv])
	c.decrypt.CryptBlocks(text, text)
	return unpad(text)
}

func (c *Cipher) openAEAD(b []byte, at int) ([]byte, error) {
	if len(b)-at < c.iv+1+c.icv {
		return nil, errShort
	}
	copy(c.nonce[4:], b[at:at+c.iv])
	sealed := b[at+c.iv:]
	text, err := c.aead.Open(sealed[:0], c.nonce[:], sealed, b[:at])
	if err != nil {
		return nil, errICV
	}
	return unpad(text)
}

func unpad(text []byte) ([]byte, error) {
	n := len(text) - 1 - int(text[len(text)-1])
	if n < 0 {
		return nil, errPadding
	}
	return text[:n], nil
}
