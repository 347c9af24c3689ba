package esp

import (
	"fmt"
	"math/bits"
	"sync/atomic"

	"causeway/analytics/tally"
	"causeway/crypto/aesgcm"
)

// Params are what two ends agree on for one direction.
type Params struct {
	SPI   uint32
	Suite Suite
	Key   []byte // Suite.KeySize bytes; the caller's, who should wipe it
	ESN   bool   // extended sequence numbers
	Life  Life
}

// A Life is how much may be sent or received under one key; 0 means without end. Receiving, the batch in which a limit is
// reached is still taken. At the soft limit an association is
// still used, and should be replaced; at the hard one it ends (RFC 4301, section 4.4.2.1).
type Life struct {
	SoftPackets, HardPackets uint64
	SoftBytes, HardBytes     uint64 // of texts
}

// reservedSPIs are the SPIs up to this one: not for use (RFC 4303, section 2.1).
const reservedSPIs = 255

// association is what both directions have. What every packet needs comes first, to lie in one cache line: two cores that
// own neighbours must not share one either.
type association struct {
	gcm     aesgcm.Key
	spi     uint32
	suite   Suite
	kind    kind // the suite's
	esn     bool
	limited bool // life has a limit
	packets tally.Counter
	bytes   tally.Counter // of texts
	*seldom
}

// seldom is what few packets of an association need.
type seldom struct {
	single single // nil: gcm
	life   Life
	vault  *aesgcm.Vault
	soft   atomic.Bool

	refused [Verdicts]tally.Counter
}

func (a *association) init(v *aesgcm.Vault, p Params) error {
	switch {
	case p.Suite == 0 || p.Suite >= suiteEnd:
		return fmt.Errorf("esp: suite %d does not exist", p.Suite)
	case p.SPI <= reservedSPIs:
		return fmt.Errorf("esp: spi %#x: 0 to 255 are reserved", p.SPI)
	case len(p.Key) != p.Suite.KeySize():
		return fmt.Errorf("esp: a key for %s has %d bytes, not %d", p.Suite, p.Suite.KeySize(), len(p.Key))
	}
	a.spi, a.suite, a.kind, a.esn, a.limited = p.SPI, p.Suite, p.Suite.info().kind, p.ESN, p.Life != Life{}
	a.seldom = &seldom{life: p.Life, vault: v}
	var err error
	if i := p.Suite.info(); i.kind == kindGCM {
		a.gcm, err = v.Key(p.Key[:i.key], [aesgcm.SaltSize]byte(p.Key[i.key:]))
	} else {
		a.single, err = newSingle(p.Suite, p.Key)
	}
	return err
}

// SPI is the security parameters index.
func (a *association) SPI() uint32 { return a.spi }

// Suite is the algorithms.
func (a *association) Suite() Suite { return a.suite }

// Soft reports whether a soft lifetime is over. Any goroutine may ask.
func (a *association) Soft() bool { return a.soft.Load() }

// Hard reports whether the hard lifetime is over. Any goroutine may ask.
func (a *association) Hard() bool { return a.expired() }

// Packets and Bytes are what was sent, or received and found authentic, in packets and bytes of text. Any goroutine may ask.
func (a *association) Packets() uint64 { return a.packets.Get() }

// Bytes: see Packets.
func (a *association) Bytes() uint64 { return a.bytes.Get() }

// Refused is how many packets got a verdict other than OK. Any goroutine may ask.
func (a *association) Refused(v Verdict) uint64 { return a.refused[v].Get() }

// Refuse counts a packet that the association's owner refuses by a rule of its own.
func (a *association) Refuse(v Verdict) { a.refused[v].Add(1) }

// refuse counts a verdict other than OK.
func (a *association) refuse(v Verdict) Verdict {
	a.refused[v].Add(1)
	return v
}

// Wipe ends the association. Its owner must have left it.
func (a *association) Wipe() {
	a.vault.Wipe(&a.gcm)
	a.single = nil
}

// expired reports whether the hard lifetime is over.
func (a *association) expired() bool { return a.limited && a.over() }

func (a *association) over() bool {
	l := &a.life
	return l.HardPackets != 0 && a.packets.Get() >= l.HardPackets || l.HardBytes != 0 && a.bytes.Get() >= l.HardBytes
}

// used counts a packet.
func (a *association) used(n int) {
	a.packets.Add(1)
	a.bytes.Add(uint64(n))
	if a.limited {
		a.noteSoft()
	}
}

func (a *association) noteSoft() {
	l := &a.life
	if (l.SoftPackets != 0 && a.packets.Get() >= l.SoftPackets || l.SoftBytes != 0 && a.bytes.Get() >= l.SoftBytes) && !a.soft.Load() {
		a.soft.Store(true)
	}
}

// gcmAAD is the additional data of a packet for package aesgcm: SPI and sequence number, its upper half only with ESN.
func gcmAAD(spi uint32, seq uint64, esn bool) aesgcm.AAD {
	if !esn {
		return aesgcm.AAD{First: bits.ReverseBytes64(uint64(spi)<<32 | seq&(1<<32-1)), Len: aadLen}
	}
	return aesgcm.AAD{
		First: bits.ReverseBytes64(uint64(spi)<<32 | seq>>32),
		Next:  bits.ReverseBytes64(seq << 32),
		Len:   aadLenESN,
	}
}
