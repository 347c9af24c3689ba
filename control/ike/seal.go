package ike

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"causeway/control/ike/message"
)

const sealedHeader = message.HeaderLen + 4 // and the generic header of the SK payload

// seal makes the datagrams of a message: one, or its fragments.
func (s *ikeSA) seal(exchange message.ExchangeType, id uint32, response bool, c *message.Contents) ([][]byte, error) {
	first, text := c.Append(nil)
	h := message.Header{SPIi: s.SPIi, SPIr: s.SPIr, Major: 2, Exchange: exchange, Initiator: s.initiator, Response: response, ID: id}
	if exchange == message.IKEIntermediate && s.hs != nil {
		s.hs.intAuth(s.Suite.PRF, s.ownP(), s.initiator, h, first, text)
	}
	limit := s.d.opts.DatagramBytes
	if !s.Fragmentation || sealedHeader+s.out.Len(len(text)) <= limit {
		b, err := s.sealOne(h, message.Sealed{First: first}, text)
		return [][]byte{b}, err
	}
	return s.sealFragments(h, first, text, limit)
}

func (s *ikeSA) sealOne(h message.Header, sealed message.Sealed, text []byte) ([]byte, error) {
	iv, err := s.d.plane.IV() // DESIGN 4.1: no IV of a counter mode comes twice, whoever has the key
	if err != nil {
		return nil, err
	}
	b := message.AppendSealedHeader(nil, h, sealed, s.out.Len(len(text)))
	return s.out.Seal(b, text, iv), nil
}

// open checks and decrypts a message, or takes a fragment of one: complete says whether the whole of it is there.
func (s *ikeSA) open(h message.Header, b []byte) (first message.PayloadType, text []byte, complete bool, err error) {
	if s.in == nil {
		return 0, nil, false, errors.New("it came before there were keys")
	}
	sealed, err := message.ParseSealed(h, b)
	if err != nil {
		return 0, nil, false, err
	}
	r := &s.incoming[0]
	if h.Response {
		r = &s.incoming[1]
	}
	if sealed.Fragments == 0 {
		text, err = s.in.Open(b, sealed.At)
		if err != nil {
			return 0, nil, false, err
		}
		r.clear()
		first = sealed.First
		s.opened(h, b)
	} else {
		if !r.wants(h.ID, sealed) {
			return 0, nil, false, nil
		}
		if text, err = s.in.Open(b, sealed.At); err != nil { // RFC 7383, section 2.6: only what is authentic is kept
			return 0, nil, false, err
		}
		if sealed.Fragment == 1 { // it stands for all when the message comes again
			s.opened(h, b)
		}
		if err = r.add(h.ID, sealed, text, s.maxMessage()); err != nil || !r.complete() {
			return 0, nil, false, err
		}
		first, text = r.take()
	}
	if h.Exchange == message.IKEIntermediate && s.hs != nil {
		s.hs.intAuth(s.Suite.PRF, s.peerP(), !s.initiator, h, first, text)
	}
	return first, text, true, nil
}

// opened remembers a request that is authentic, to know it again.
func (s *ikeSA) opened(h message.Header, b []byte) {
	if !h.Response {
		s.incomingHash = sha256.Sum256(b)
	}
}

// intAuthInput is what IKE_INTERMEDIATE adds to the authentication: the headers as if there were neither encryption nor
// fragments, and what is encrypted (RFC 9242, section 3.3.2).
func intAuthInput(h message.Header, first message.PayloadType, text []byte) []byte {
	h.First, h.Length = message.PayloadSK, sealedHeader+len(text)
	b := h.Append(nil)
	b = append(b, byte(first), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(text)))
	return append(b, text...)
}

// Bounds of a message in fragments.
const (
	maxFragments = 64
	maxMessage   = 64 << 10 // bytes of text
	maxUnproved  = 32 << 10 // of a peer that has not shown who it is: its certificates
)

// maxMessage is how much text a message in fragments may have.
func (s *ikeSA) maxMessage() int {
	if s.phase < established {
		return maxUnproved
	}
	return maxMessage
}

// sealFragments cuts the text (RFC 7383, section 2.5).
func (s *ikeSA) sealFragments(h message.Header, first message.PayloadType, text []byte, limit int) ([][]byte, error) {
	room := limit - sealedHeader - 4
	size := room
	for s.out.Len(size) > room {
		size--
	}
	n := (len(text) + size - 1) / size
	if n > maxFragments {
		return nil, fmt.Errorf("a message of %d bytes needs %d fragments: at most %d are sent", len(text), n, maxFragments)
	}
	var out [][]byte
	for k := 1; k <= n; k++ {
		part := text[(k-1)*size : min(k*size, len(text))]
		sealed := message.Sealed{Fragment: uint16(k), Fragments: uint16(n)}
		if k == 1 {
			sealed.First = first
		}
		b, err := s.sealOne(h, sealed, part)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
