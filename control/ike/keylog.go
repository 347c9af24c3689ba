package ike

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"causeway/control/ike/sa"
	"causeway/control/ike/suite"
	"causeway/crypto/esp"
)

// MaxKeyLog is the longest time for which keys of a tunnel may be written down.
const MaxKeyLog = time.Hour

// A keyLog is where the keys of one tunnel are written for a while, for Wireshark.
type keyLog struct {
	until time.Time
	timer *time.Timer

	mu  sync.Mutex // a file may be slow
	to  io.WriteCloser
	err error // the first one
}

// LogKeys writes the keys of a tunnel's IKE SAs, and of the child SAs that are made from now on, to a file that Wireshark's tables can
// be filled from, for a time of at most MaxKeyLog. Whoever has the file can read the tunnel's packets. The file is closed at the end.
func (d *Daemon) LogKeys(name string, to io.WriteCloser, span time.Duration) error {
	if d.index.Load().byName[name] == nil {
		return errors.Join(fmt.Errorf("there is no tunnel %q with ike", name), to.Close())
	}
	if span <= 0 || span > MaxKeyLog {
		return errors.Join(fmt.Errorf("keys for %v: at most %v are possible", span, MaxKeyLog), to.Close())
	}
	k := &keyLog{to: to, until: time.Now().Add(span)}
	d.mu.Lock()
	old := d.keyLogs[name]
	d.keyLogs[name] = k
	k.timer = time.AfterFunc(span, func() { d.endKeyLog(name, k) })
	d.mu.Unlock()
	if old != nil {
		d.endKeyLog(name, old)
	}
	d.log.Warn("ike: KEYS OF A TUNNEL ARE WRITTEN TO A FILE: whoever has it reads the tunnel's packets", "tunnel", name, "until", k.until.Format(time.RFC3339))
	for _, s := range d.of(name) {
		s.do(s.logKeys)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

func (d *Daemon) endKeyLog(name string, k *keyLog) {
	d.mu.Lock()
	if d.keyLogs[name] == k {
		delete(d.keyLogs, name)
	}
	k.timer.Stop()
	d.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.to.Close(); err != nil {
		d.log.Warn("ike: file of keys not closed", "tunnel", name, "error", err)
	}
	d.log.Warn("ike: keys of a tunnel are not written to a file any more; remove it when it is not needed", "tunnel", name)
}

// writeKeys appends a line to the tunnel's file, if there is one.
func (d *Daemon) writeKeys(name string, line func() string) {
	d.mu.Lock()
	k := d.keyLogs[name]
	d.mu.Unlock()
	if k == nil || time.Now().After(k.until) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := io.WriteString(k.to, line()); err != nil {
		k.err = errors.Join(k.err, fmt.Errorf("keys are not written: %w", err))
		d.log.Warn("ike: keys are not written", "tunnel", name, "error", err)
	}
}

// logKeys writes the SA's keys as a line of Wireshark's table ikev2_decryption_table.
func (s *ikeSA) logKeys() {
	s.d.writeKeys(s.Tunnel, func() string {
		k := s.Keys
		return fmt.Sprintf("ikev2_decryption_table %016x,%016x,%x,%x,%q,%x,%x,%q\n", s.SPIi, s.SPIr, k.Ei, k.Er, encryptionFor(s.Suite), k.Ai, k.Ar, integrityFor(s.Suite))
	})
}

// logChild writes the keys of a pair as lines of Wireshark's table esp_sa, one for each direction.
func (d *Daemon) logChild(c *sa.Child) {
	d.writeKeys(c.Tunnel, func() string {
		return espLine(c.Peer.Addr(), c.Endpoint, c.SPIIn, c.Suite, c.KeyIn) + espLine(c.Endpoint, c.Peer.Addr(), c.SPIOut, c.Suite, c.KeyOut)
	})
}

func espLine(from, to netip.Addr, spi uint32, s esp.Suite, key []byte) string {
	family, encryption, integrity, size := "IPv4", "AES-GCM with 16 octet ICV [RFC4106]", "NULL", len(key)
	if from.Is6() {
		family = "IPv6"
	}
	switch s {
	case esp.AES128SHA256, esp.AES256SHA256:
		encryption, integrity, size = "AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]", len(key)-32
	case esp.AES128SHA1, esp.AES256SHA1:
		encryption, integrity, size = "AES-CBC [RFC3602]", "HMAC-SHA-1-96 [RFC2404]", len(key)-20
	case esp.NullSHA256:
		encryption, integrity, size = "NULL", "HMAC-SHA-256-128 [RFC4868]", 0
	case esp.NullSHA1:
		encryption, integrity, size = "NULL", "HMAC-SHA-1-96 [RFC2404]", 0
	case esp.ChaCha20Poly1305:
		encryption = "ChaCha20 with Poly1305 [RFC7634]"
	}
	return fmt.Sprintf("esp_sa %q,%q,%q,%q,%q,%q,%q,%q\n", family, from, to, fmt.Sprintf("0x%08x", spi), encryption, hexOrNone(key[:size]), integrity, hexOrNone(key[size:]))
}

func hexOrNone(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return fmt.Sprintf("0x%x", b)
}

// encryptionFor and integrityFor are Wireshark's names of the algorithms.
func encryptionFor(s suite.IKE) string {
	switch s.Encr {
	case suite.AESGCM16:
		return fmt.Sprintf("AES-GCM-%d with 16 octet ICV [RFC5282]", s.KeyBits)
	case suite.AESCBC:
		return fmt.Sprintf("AES-CBC-%d [RFC3602]", s.KeyBits)
	}
	return "ChaCha20-Poly1305 [RFC7634]"
}

func integrityFor(s suite.IKE) string {
	switch s.Integ {
	case suite.HMACSHA1:
		return "HMAC_SHA1_96 [RFC2404]"
	case suite.HMACSHA256:
		return "HMAC_SHA2_256_128 [RFC4868]"
	case suite.HMACSHA384:
		return "HMAC_SHA2_384_192 [RFC4868]"
	case suite.HMACSHA512:
		return "HMAC_SHA2_512_256 [RFC4868]"
	}
	return "NONE [RFC4306]"
}
