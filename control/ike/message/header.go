package message

import (
	"encoding/binary"
	"errors"
)

// HeaderLen is the length of the IKE header in bytes.
const HeaderLen = 28

// MaxLen is the longest message that UDP carries, in bytes.
const MaxLen = 65507

// A Header begins every message (RFC 7296, section 3.1).
type Header struct {
	SPIi, SPIr                         uint64
	First                              PayloadType
	Major, Minor                       uint8
	Exchange                           ExchangeType
	Initiator, Response, HigherVersion bool
	ID                                 uint32
	Length                             int // of the whole message, in bytes
}

const (
	flagInitiator = 1 << 3
	flagVersion   = 1 << 4
	flagResponse  = 1 << 5
)

var errHeader = errors.New("not an IKE message: its length is not what its header says")

// ParseHeader reads the header of a message that is b as a whole.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen || len(b) > MaxLen || binary.BigEndian.Uint32(b[24:]) != uint32(len(b)) {
		return Header{}, errHeader
	}
	flags := b[19]
	return Header{
		SPIi: binary.BigEndian.Uint64(b), SPIr: binary.BigEndian.Uint64(b[8:]), First: PayloadType(b[16]),
		Major: b[17] >> 4, Minor: b[17] & 15, Exchange: ExchangeType(b[18]),
		Initiator: flags&flagInitiator != 0, Response: flags&flagResponse != 0, HigherVersion: flags&flagVersion != 0,
		ID: binary.BigEndian.Uint32(b[20:]), Length: len(b),
	}, nil
}

// Append writes the header.
func (h Header) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.SPIi)
	b = binary.BigEndian.AppendUint64(b, h.SPIr)
	var flags byte
	if h.Initiator {
		flags |= flagInitiator
	}
	if h.HigherVersion {
		flags |= flagVersion
	}
	if h.Response {
		flags |= flagResponse
	}
	b = append(b, byte(h.First), h.Major<<4|h.Minor, byte(h.Exchange), flags)
	b = binary.BigEndian.AppendUint32(b, h.ID)
	return binary.BigEndian.AppendUint32(b, uint32(h.Length))
}

// Sealed is the frame of an encrypted payload, which is the only one of its message (RFC 7296, section 3.14; RFC 7383,
// section 2.5).
type Sealed struct {
	First               PayloadType // of what is encrypted; of fragments the first alone has it
	Fragment, Fragments uint16      // of the second kind of payload; 0 and 0: the message is whole
	At                  int         // where in the message the IV begins
}

var errSealed = errors.New("not a message with one encrypted payload")

// ParseSealed reads the frame of the message b, whose header is h.
func ParseSealed(h Header, b []byte) (Sealed, error) {
	at := HeaderLen + payloadHeader
	if h.First == PayloadSKF {
		at += 4
	}
	if h.First != PayloadSK && h.First != PayloadSKF || len(b) < at || int(binary.BigEndian.Uint16(b[HeaderLen+2:])) != len(b)-HeaderLen {
		return Sealed{}, errSealed
	}
	s := Sealed{First: PayloadType(b[HeaderLen]), At: at}
	if h.First == PayloadSK {
		return s, nil
	}
	s.Fragment, s.Fragments = binary.BigEndian.Uint16(b[at-4:]), binary.BigEndian.Uint16(b[at-2:])
	if s.Fragment == 0 || s.Fragment > s.Fragments || s.Fragment > 1 && s.First != NoNextPayload {
		return Sealed{}, errSealed
	}
	return s, nil
}

// AppendSealedHeader writes header and frame for sealedLen bytes from the IV to the integrity check value.
func AppendSealedHeader(b []byte, h Header, s Sealed, sealedLen int) []byte {
	size := payloadHeader
	h.First = PayloadSK
	if s.Fragments > 0 {
		size, h.First = payloadHeader+4, PayloadSKF
	}
	h.Length = HeaderLen + size + sealedLen
	b = h.Append(b)
	b = append(b, byte(s.First), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size+sealedLen))
	if s.Fragments > 0 {
		b = binary.BigEndian.AppendUint16(b, s.Fragment)
		b = binary.BigEndian.AppendUint16(b, s.Fragments)
	}
	return b
}
