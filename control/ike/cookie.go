package ike

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"causeway/control/ike/message"
)

// cookieLife is how long a secret makes cookies; they are taken for as long again.
const cookieLife = time.Minute

const cookieLen = 1 + 16

// cookies make a peer show that it receives at its address, before anything is remembered of it (RFC 7296, section 2.6).
type cookies struct {
	mu      sync.Mutex
	version uint8
	secrets [2][32]byte // of versions, the newest at version&1
	since   time.Time
}

func (c *cookies) renew(now time.Time) {
	c.version++
	rand.Read(c.secrets[c.version&1][:])
	c.since = now
}

// make writes the cookie of a request.
func (c *cookies) make(now time.Time, remote netip.AddrPort, spi uint64, nonce []byte) [cookieLen]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.since) > cookieLife {
		c.renew(now)
	}
	return c.of(c.version, remote, spi, nonce)
}

// check reports whether a cookie is that of the request.
func (c *cookies) check(now time.Time, cookie []byte, remote netip.AddrPort, spi uint64, nonce []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(cookie) != cookieLen || now.Sub(c.since) > 2*cookieLife {
		return false
	}
	if v := cookie[0]; v != c.version && v != c.version-1 {
		return false
	}
	want := c.of(cookie[0], remote, spi, nonce)
	return subtle.ConstantTimeCompare(cookie, want[:]) == 1
}

// of is version | SHA-256(secret | address | port | SPIi | Ni), cut to 16 bytes.
func (c *cookies) of(version uint8, remote netip.AddrPort, spi uint64, nonce []byte) (out [cookieLen]byte) {
	var b [32 + 16 + 2 + 8 + 256]byte
	copy(b[:], c.secrets[version&1][:])
	a := remote.Addr().As16()
	copy(b[32:], a[:])
	binary.BigEndian.PutUint16(b[48:], remote.Port())
	binary.BigEndian.PutUint64(b[50:], spi)
	n := copy(b[58:], nonce)
	h := sha256.Sum256(b[:58+n])
	out[0] = version
	copy(out[1:], h[:])
	return out
}

// peek finds cookie and nonce in an IKE_SA_INIT request without parsing the rest, or says that it is none.
func peek(h message.Header, b []byte) (cookie, nonce []byte, ok bool) {
	next, rest := h.First, b[message.HeaderLen:]
	for n := 0; next != message.NoNextPayload; n++ {
		if len(rest) < 4 || n > 64 {
			return nil, nil, false
		}
		size := int(binary.BigEndian.Uint16(rest[2:]))
		if size < 4 || size > len(rest) {
			return nil, nil, false
		}
		body := rest[4:size]
		switch {
		case next == message.PayloadNonce:
			nonce = body
		case next == message.PayloadNotify && n == 0 && len(body) >= 4 && body[1] == 0 &&
			message.NotifyType(binary.BigEndian.Uint16(body[2:])) == message.NotifyCookie:
			cookie = body[4:]
		}
		next, rest = message.PayloadType(rest[0]), rest[size:]
	}
	return cookie, nonce, len(nonce) >= 16 && len(nonce) <= 256
}
