package esp

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
	mathrand "math/rand/v2"
	"sync/atomic"

	"causeway/analytics/tally"
	"causeway/crypto/aesgcm"
)

// An Outbound is an association for sending. It is its owner's alone; what other goroutines may call says so.
type Outbound struct {
	next   tally.Counter // sequence number of the next packet
	marked atomic.Uint64 // numbers below it may be used
	half   atomic.Uint64 // the number that is in the middle of those
	association
	_ [56]byte // two cache lines: the allocator aligns them
}

// NewOutbound makes an association whose first packet gets the sequence number first, at least 1. It sends nothing before
// Mark. The vault holds its key.
func NewOutbound(v *aesgcm.Vault, p Params, first uint64) (*Outbound, error) {
	if first == 0 {
		return nil, fmt.Errorf("esp: sequence numbers begin with 1")
	}
	o := &Outbound{next: tally.Counter(first)}
	if err := o.init(v, p); err != nil {
		return nil, err
	}
	return o, nil
}

// Mark permits sequence numbers below mark, which stands on disk or in the cluster's store. Any goroutine may call it.
// The Sealer tells its source when half of what that permits is used.
func (o *Outbound) Mark(mark uint64) {
	next := o.Next()
	o.half.Store(next + (mark-min(mark, next))/2)
	o.marked.Store(mark)
}

// Resume has the association go on with sequence number first, unless it is there or beyond already. Only while no owner uses it.
func (o *Outbound) Resume(first uint64) {
	if first > o.next.Get() {
		o.next.Set(first)
	}
}

// Next is the sequence number of the next packet. Any goroutine may ask.
func (o *Outbound) Next() uint64 { return o.next.Get() }

// Soft reports whether a soft lifetime is over, or three quarters of the sequence numbers are used. Any goroutine may ask.
func (o *Outbound) Soft() bool { return o.association.Soft() || !o.esn && o.Next() >= 3<<30 }

// Hard reports whether the hard lifetime is over, or all sequence numbers are used. Any goroutine may ask.
func (o *Outbound) Hard() bool { return o.association.Hard() || !o.esn && o.Next() > 1<<32-1 }

// number takes the next sequence number. None comes twice: a number that is used up ends the association (RFC 4303,
// section 3.3.3).
func (o *Outbound) number() (uint64, Verdict) {
	n := o.next.Get()
	switch {
	case n > 1<<32-1 && !o.esn, n == 1<<64-1:
		return 0, Exhausted
	case n >= o.marked.Load():
		return 0, Unmarked
	}
	o.next.Set(n + 1)
	return n, OK
}

// PacketLen is the number of bytes of the ESP packet for a text of n bytes.
func (o *Outbound) PacketLen(n int) int {
	if o.kind != kindGCM {
		return o.suite.PacketLen(n)
	}
	return headerLen + gcmIV + (n+trailerLen+gcmAlign-1)&^(gcmAlign-1) + gcmICV
}

// A Sealer encrypts the packets of a batch. It belongs to one goroutine.
type Sealer struct {
	burst   aesgcm.Burst
	singles int
	single  [aesgcm.MaxBurst]sealing
	source  *IVSource
	ivs     ivRange
	random  *mathrand.ChaCha8 // for the IVs of CBC, which nobody may foresee
}

// sealing is a packet for an algorithm without bursts.
type sealing struct {
	sa     *Outbound
	packet []byte
	high   uint32
}

// NewSealer makes a sealer that takes the IVs of counter modes from a source.
func NewSealer(source *IVSource) *Sealer {
	var seed [32]byte
	rand.Read(seed[:])
	return &Sealer{source: source, random: mathrand.NewChaCha8(seed)}
}

// Len returns how many packets wait for Seal.
func (s *Sealer) Len() int { return s.burst.Len() + s.singles }

// Full reports whether Seal must be called before the next Add.
func (s *Sealer) Full() bool { return s.Len() == aesgcm.MaxBurst }

// Add makes an ESP packet of frame[start:end], whose protocol is next, in place, and returns where it begins and ends.
// Its text is encrypted by Seal. If the verdict is not OK, nothing was changed, and no number or IV was used.
func (s *Sealer) Add(sa *Outbound, frame []byte, start, end int, next uint8) (from, to int, v Verdict) {
	before, icv, align, counter := headerLen+gcmIV, gcmICV, gcmAlign, true
	if sa.kind != kindGCM {
		i := sa.suite.info()
		before, icv, align, counter = headerLen+i.iv, i.icv, i.align, sa.suite.CounterMode()
	}
	padded := roundUp(end-start+trailerLen, align)
	from, to = start-before, start+padded+icv
	switch {
	case from < 0 || end < start || to > len(frame) || padded > aesgcm.MaxText:
		return 0, 0, sa.refuse(Room)
	case sa.expired():
		return 0, 0, sa.refuse(Expired)
	case counter && !s.haveIV():
		return 0, 0, sa.refuse(NoIV)
	}
	n, v := sa.number()
	if v != OK {
		return 0, 0, sa.refuse(v)
	}
	if n == sa.half.Load() {
		s.source.wanted.Store(true)
	}
	packet := frame[from:to]
	binary.BigEndian.PutUint32(packet, sa.spi)
	binary.BigEndian.PutUint32(packet[4:], uint32(n))
	pad(frame[end:start+padded], next)
	sa.used(end - start)
	if sa.kind == kindGCM {
		iv := s.nextIV()
		binary.BigEndian.PutUint64(packet[headerLen:], iv)
		s.burst.Set(s.burst.Len(), &sa.gcm, packet[headerLen+gcmIV:], bits.ReverseBytes64(iv), gcmAAD(sa.spi, n, sa.esn))
		return from, to, OK
	}
	if sa.kind == kindChaCha {
		binary.BigEndian.PutUint64(packet[headerLen:], s.nextIV())
	} else if before > headerLen {
		binary.BigEndian.PutUint64(packet[headerLen:], s.random.Uint64())
		binary.BigEndian.PutUint64(packet[headerLen+8:], s.random.Uint64())
	}
	s.single[s.singles] = sealing{sa, packet, uint32(n >> 32)}
	s.singles++
	return from, to, OK
}

// pad writes the padding 1, 2, 3..., its length and the next header (RFC 4303, section 2.4).
func pad(b []byte, next uint8) {
	n := len(b) - trailerLen
	for i := range n {
		b[i] = byte(i + 1)
	}
	b[n], b[n+1] = byte(n), next
}

func (s *Sealer) haveIV() bool {
	if s.ivs.next < s.ivs.end {
		return true
	}
	var ok bool
	s.ivs, ok = s.source.take(ivBlock)
	return ok
}

func (s *Sealer) nextIV() uint64 {
	iv := s.ivs.next
	s.ivs.next++
	return iv
}

// Seal encrypts what was added, and forgets it.
func (s *Sealer) Seal() {
	s.burst.Seal()
	s.burst.Reset()
	for k := range s.singles {
		p := &s.single[k]
		p.sa.single.seal(p.packet, p.high, p.sa.esn)
		*p = sealing{}
	}
	s.singles = 0
}
