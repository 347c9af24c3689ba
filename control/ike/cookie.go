package ike

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"

	"causeway/control/ike/message"
)

// cookieLife is how long one secret makes cookies; they are taken for as long again, and from nodes whose clock is as much ahead.
const cookieLife = time.Minute

const cookieLen = 1 + 16

// cookies make a peer show that it receives at its address, before anything is remembered of it (RFC 7296, section 2.6). Those of all
// nodes of a fleet are the same. Secrets are made of keys and the time, so that none has to be kept.
type cookies struct {
	own   [32]byte // alone, or while the fleet has no key
	fleet Fleet
}

func newCookies(f Fleet) *cookies {
	c := &cookies{fleet: f}
	rand.Read(c.own[:])
	return c
}

// keys are those that cookies are made of, the newest first.
func (c *cookies) keys() [][32]byte {
	if c.fleet != nil {
		if list := c.fleet.CookieKeys(); len(list) > 0 {
			return list
		}
	}
	return [][32]byte{c.own}
}

// common is the time now that all nodes have in common.
func (d *Daemon) common() time.Time {
	if d.fleet == nil {
		return time.Now()
	}
	return d.fleet.Common(time.Now())
}

// slot is the part of time in which a secret makes cookies.
func slot(now time.Time) int64 { return now.Unix() / int64(cookieLife/time.Second) }

// make writes the cookie of a request.
func (c *cookies) make(now time.Time, remote netip.AddrPort, spi uint64, nonce []byte) [cookieLen]byte {
	return cookieOf(c.keys()[0], slot(now), remote, spi, nonce)
}

// check reports whether a cookie is that of the request.
func (c *cookies) check(now time.Time, cookie []byte, remote netip.AddrPort, spi uint64, nonce []byte) bool {
	if len(cookie) != cookieLen {
		return false
	}
	for at := slot(now) - 1; at <= slot(now)+1; at++ {
		if cookie[0] != byte(at) {
			continue
		}
		for _, key := range c.keys() {
			want := cookieOf(key, at, remote, spi, nonce)
			if subtle.ConstantTimeCompare(cookie, want[:]) == 1 {
				return true
			}
		}
	}
	return false
}

// cookieOf is slot | SHA-256(key | slot | address | port | SPIi | Ni), cut to 16 bytes.
func cookieOf(key [32]byte, at int64, remote netip.AddrPort, spi uint64, nonce []byte) (out [cookieLen]byte) {
	var b [32 + 8 + 16 + 2 + 8 + 256]byte
	copy(b[:], key[:])
	binary.BigEndian.PutUint64(b[32:], uint64(at))
	a := remote.Addr().As16()
	copy(b[40:], a[:])
	binary.BigEndian.PutUint16(b[56:], remote.Port())
	binary.BigEndian.PutUint64(b[58:], spi)
	n := copy(b[66:], nonce)
	h := sha256.Sum256(b[:66+n])
	out[0] = byte(at)
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
