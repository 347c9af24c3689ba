package message

import (
	"encoding/binary"
	"errors"
)

// Sealed is the frame of an encrypted payload, which is the only one of its message (RFC 7296, section 3.14; RFC 7383,
// section 2.5):
//
//	+---------------+-+-------------+-------------------------------+
//	| first inside  |C|      0      |            length             |
//	+---------------+-+-------------+-------------------------------+
//	|     number of the fragment    |      number of fragments      |  SKF alone
//	+-------------------------------+-------------------------------+
//	|               IV, ciphertext, integrity check value           |
//	+---------------------------------------------------------------+
type Sealed struct {
	First     PayloadType // of what is encrypted; of fragments the first alone has it
	Fragment  uint16      // counted from 1; 0: the message is whole, in an SK payload
	Fragments uint16      // how many there are; 0 as above
	At        int         // where in the message the IV begins, in bytes
}

// fragmentHeader is what an SKF payload has before the IV and an SK payload has not, in bytes.
const fragmentHeader = 4

var errSealed = errors.New("not a message of one encrypted payload whose length and fragment number are right")

// ParseSealed reads the frame of the message b, whose header is h. RFC 7296 lets payloads that are not encrypted stand before
// the encrypted one, but defines none for it, and they would be authenticated all the same: here the message is refused. What is
// behind the IV has any length; whoever has the keys checks it. It allocates nothing.
func ParseSealed(h Header, b []byte) (Sealed, error) {
	s := Sealed{At: HeaderLen + payloadHeader}
	switch h.First {
	case PayloadSK:
	case PayloadSKF:
		s.At += fragmentHeader
	default:
		return Sealed{}, errSealed
	}
	if len(b) < s.At || int(binary.BigEndian.Uint16(b[HeaderLen+2:])) != len(b)-HeaderLen {
		return Sealed{}, errSealed
	}
	s.First = PayloadType(b[HeaderLen])
	if h.First == PayloadSK {
		return s, nil
	}
	s.Fragment, s.Fragments = binary.BigEndian.Uint16(b[s.At-4:]), binary.BigEndian.Uint16(b[s.At-2:])
	if s.Fragment == 0 || s.Fragment > s.Fragments || s.Fragment > 1 && s.First != NoNextPayload {
		return Sealed{}, errSealed
	}
	return s, nil
}

// AppendSealedHeader writes a header and a frame for the sealedLen bytes from the IV to the integrity check value that the
// caller appends next: an SKF payload if s has fragments, else an SK payload. Lengths and types are filled in, h.First, h.Length
// and s.At are not looked at. The message may have up to MaxLen bytes.
func AppendSealedHeader(b []byte, h Header, s Sealed, sealedLen int) []byte {
	size := payloadHeader + sealedLen
	h.First = PayloadSK
	if s.Fragments > 0 {
		size, h.First = size+fragmentHeader, PayloadSKF
	}
	h.Length = HeaderLen + size
	b = h.Append(b)
	b = append(b, byte(s.First), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	if s.Fragments > 0 {
		b = binary.BigEndian.AppendUint16(b, s.Fragment)
		b = binary.BigEndian.AppendUint16(b, s.Fragments)
	}
	return b
}
