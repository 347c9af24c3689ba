package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// A Cipher protects the encrypted payloads of one direction (RFC 7296, section 3.14; RFC 5282; RFC 7634). It may be used by one
// goroutine at a time.
type Cipher struct {
	info cipherInfo
	aead cipher.AEAD
	salt [4]byte

	block  cipher.Block // CBC
	mac    macInfo
	macKey []byte
}

// NewCipher makes the cipher of one direction from SK_e and SK_a, which it does not keep.
func (s IKE) NewCipher(e, a []byte) (*Cipher, error) {
	c := &Cipher{info: ciphers[s.Encr]}
	if n := keyLen(s.Encr, s.KeyBits); len(e) != n {
		return nil, fmt.Errorf("a key of %d bytes: %s needs %d", len(e), s, n)
	}
	if n := macs[s.Integ].key; len(a) != n {
		return nil, fmt.Errorf("an integrity key of %d bytes: %s needs %d", len(a), s, n)
	}
	key := e[:len(e)-c.info.salt]
	copy(c.salt[:], e[len(key):])
	var err error
	switch s.Encr {
	case AESGCM16:
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			c.aead, err = cipher.NewGCM(block)
		}
	case ChaCha20Poly1305:
		c.aead, err = chacha20poly1305.New(key)
	case AESCBC:
		if c.mac = macs[s.Integ]; c.mac.hash == nil {
			return nil, fmt.Errorf("%s has no integrity algorithm", s)
		}
		c.macKey = slices.Clone(a)
		c.block, err = aes.NewCipher(key)
	default:
		err = fmt.Errorf("%s does not encrypt IKE", s)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Format hides the keys.
func (c *Cipher) Format(f fmt.State, _ rune) { fmt.Fprint(f, "cipher of an IKE SA") }

const icvAEAD = 16

// Len is the number of bytes from IV to ICV for a text.
func (c *Cipher) Len(text int) int {
	if c.aead != nil {
		return c.info.iv + text + 1 + icvAEAD
	}
	return c.info.iv + (text/aes.BlockSize+1)*aes.BlockSize + c.mac.icv
}

// Seal appends IV, ciphertext and ICV of a text to b, the message up to the IV, all of which is authenticated. The counter is the IV
// of counter modes, and must never come again with the key.
func (c *Cipher) Seal(b, text []byte, counter uint64) []byte {
	head := len(b)
	b = slices.Grow(b, c.Len(len(text)))
	if c.aead != nil {
		b = binary.BigEndian.AppendUint64(b, counter)
		at := len(b)
		b = append(append(b, text...), 0) // no padding, and its length
		nonce := c.nonce(b[head:at])
		return c.aead.Seal(b[:at], nonce[:], b[at:], b[:head])
	}
	b = b[:head+aes.BlockSize]
	rand.Read(b[head:])
	at := len(b)
	b = append(b, text...)
	padding := aes.BlockSize - 1 - len(text)%aes.BlockSize
	b = append(b, make([]byte, padding)...)
	b = append(b, byte(padding))
	cipher.NewCBCEncrypter(c.block, b[head:at]).CryptBlocks(b[at:], b[at:])
	return append(b, c.sum(b)...)
}

func (c *Cipher) nonce(iv []byte) (n [12]byte) {
	copy(n[:], c.salt[:])
	copy(n[4:], iv)
	return n
}

func (c *Cipher) sum(b []byte) []byte {
	m := hmac.New(c.mac.hash, c.macKey)
	m.Write(b)
	return m.Sum(nil)[:c.mac.icv]
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
	body := b[at:]
	if c.aead != nil {
		if len(body) < c.info.iv+1+icvAEAD {
			return nil, errShort
		}
		nonce := c.nonce(body[:c.info.iv])
		sealed := body[c.info.iv:]
		text, err := c.aead.Open(sealed[:0], nonce[:], sealed, b[:at])
		if err != nil {
			return nil, errICV
		}
		return unpad(text)
	}
	end := len(body) - c.mac.icv
	if end < 2*aes.BlockSize || end%aes.BlockSize != 0 {
		return nil, errShort
	}
	if !hmac.Equal(c.sum(b[:at+end]), body[end:]) {
		return nil, errICV
	}
	text := body[aes.BlockSize:end]
	cipher.NewCBCDecrypter(c.block, body[:aes.BlockSize]).CryptBlocks(text, text)
	return unpad(text)
}

func unpad(text []byte) ([]byte, error) {
	n := len(text) - 1 - int(text[len(text)-1])
	if n < 0 {
		return nil, errPadding
	}
	return text[:n], nil
}
