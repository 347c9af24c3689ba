package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// The additional data of an AEAD is SPI and sequence number, with ESN the whole 64 bits of it (RFC 4106, section 5; RFC
// 7634, section 2.1). A MAC covers the packet from the SPI to the padding and, with ESN, the upper half, which is not
// sent, behind it (RFC 4303, section 2.2.1).
const (
	aadLen    = 8
	aadLenESN = 12
)

// A single is an algorithm that treats one packet at a time, in place. It belongs to its association's owner.
type single interface {
	// seal encrypts the text of a packet whose header, IV and padding stand, and writes the integrity check value.
	seal(packet []byte, seqHigh uint32, esn bool)
	// open checks a packet and decrypts its text; of one that is not authentic no text is left.
	open(packet []byte, seqHigh uint32, esn bool) bool
}

func newSingle(s Suite, key []byte) (single, error) {
	i := s.info()
	if i.kind == kindChaCha {
		aead, err := chacha20poly1305.New(key[:i.key])
		if err != nil {
			return nil, fmt.Errorf("esp: %w", err)
		}
		c := &chacha{aead: aead}
		copy(c.nonce[:], key[i.key:])
		return c, nil
	}
	m := &maced{iv: i.iv, icv: i.icv, mac: hmac.New(hashOf(i), key[i.key:])}
	if i.key == 0 {
		return m, nil
	}
	block, err := aes.NewCipher(key[:i.key])
	if err != nil {
		return nil, fmt.Errorf("esp: %w", err)
	}
	m.encrypt = cipher.NewCBCEncrypter(block, m.zero[:]).(cbcMode)
	m.decrypt = cipher.NewCBCDecrypter(block, m.zero[:]).(cbcMode)
	return m, nil
}

func hashOf(i *suiteInfo) func() hash.Hash {
	if i.mac == sha1.Size {
		return sha1.New
	}
	return sha256.New
}

// chacha is ChaCha20-Poly1305 (RFC 7634).
type chacha struct {
	aead  cipher.AEAD
	nonce [12]byte // salt, IV
	aad   [aadLenESN]byte
}

// prepare fills in nonce and additional data, and returns the latter and the text with its tag.
func (c *chacha) prepare(packet []byte, seqHigh uint32, esn bool) (aad, text []byte) {
	copy(c.nonce[4:], packet[headerLen:headerLen+8])
	return putAAD(&c.aad, packet, seqHigh, esn), packet[headerLen+8:]
}

func putAAD(aad *[aadLenESN]byte, packet []byte, seqHigh uint32, esn bool) []byte {
	copy(aad[:4], packet[:4])
	if !esn {
		copy(aad[4:8], packet[4:8])
		return aad[:aadLen]
	}
	binary.BigEndian.PutUint32(aad[4:], seqHigh)
	copy(aad[8:], packet[4:8])
	return aad[:]
}

func (c *chacha) seal(packet []byte, seqHigh uint32, esn bool) {
	aad, text := c.prepare(packet, seqHigh, esn)
	c.aead.Seal(text[:0], c.nonce[:], text[:len(text)-chacha20poly1305.Overhead], aad)
}

func (c *chacha) open(packet []byte, seqHigh uint32, esn bool) bool {
	aad, text := c.prepare(packet, seqHigh, esn)
	_, err := c.aead.Open(text[:0], c.nonce[:], text, aad)
	return err == nil
}

// cbcMode is what crypto/cipher's CBC modes have beside their interface.
type cbcMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

// maced is AES-CBC or no encryption, and then HMAC.
type maced struct {
	encrypt, decrypt cbcMode // nil: no encryption
	mac              hash.Hash
	iv, icv          int
	zero             [aes.BlockSize]byte
	high             [4]byte
	sum              [sha256.Size]byte
}

func (m *maced) seal(packet []byte, seqHigh uint32, esn bool) {
	end := len(packet) - m.icv
	if m.encrypt != nil {
		m.encrypt.SetIV(packet[headerLen : headerLen+m.iv])
		text := packet[headerLen+m.iv : end]
		m.encrypt.CryptBlocks(text, text)
	}
	copy(packet[end:], m.tag(packet[:end], seqHigh, esn))
}

func (m *maced) open(packet []byte, seqHigh uint32, esn bool) bool {
	end := len(packet) - m.icv
	if subtle.ConstantTimeCompare(packet[end:], m.tag(packet[:end], seqHigh, esn)) != 1 {
		return false
	}
	if m.decrypt != nil {
		m.decrypt.SetIV(packet[headerLen : headerLen+m.iv])
		text := packet[headerLen+m.iv : end]
		m.decrypt.CryptBlocks(text, text)
	}
	return true
}

func (m *maced) tag(covered []byte, seqHigh uint32, esn bool) []byte {
	m.mac.Reset()
	m.mac.Write(covered)
	if esn {
		binary.BigEndian.PutUint32(m.high[:], seqHigh)
		m.mac.Write(m.high[:])
	}
	return m.mac.Sum(m.sum[:0])[:m.icv]
}
