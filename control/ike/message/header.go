package message

import (
	"encoding/binary"
	"errors"
)

// HeaderLen is the length of the IKE header in bytes.
const HeaderLen = 28

// MaxLen is the longest message that UDP carries over IPv4, in bytes.
const MaxLen = 65507

// A Header begins every message (RFC 7296, section 3.1):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------------------------------+-------------------------------+
//	|                   SPI of the initiator (64)                   |
//	|                   SPI of the responder (64)                   |
//	+---------------+-------+-------+---------------+-+-+-+-+-+-----+
//	| first payload | major | minor |   exchange    |0|0|R|V|I|0 0 0|
//	+---------------+-------+-------+---------------+-+-+-+-+-+-----+
//	|                          message ID                           |
//	|                            length                             |
//	+---------------------------------------------------------------+
type Header struct {
	SPIi, SPIr    uint64 // SPIi is never 0, SPIr in the first request alone
	First         PayloadType
	Major, Minor  uint8 // 4 bits each
	Exchange      ExchangeType
	Initiator     bool // sent by the IKE SA's original initiator
	Response      bool
	HigherVersion bool // the sender also speaks a major version above this one
	ID            uint32
	Length        int // of the whole message, in bytes
}

const (
	flagInitiator = 1 << 3
	flagVersion   = 1 << 4
	flagResponse  = 1 << 5
)

var errHeader = errors.New("not an IKE message: its length is not what its header says, or the initiator's SPI is 0")

// ParseHeader reads the header of a message that is b as a whole, without the non-ESP marker of UDP port 4500. Any version and
// exchange is accepted: they are the caller's to judge. It allocates nothing.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen || len(b) > MaxLen || binary.BigEndian.Uint32(b[24:]) != uint32(len(b)) {
		return Header{}, errHeader
	}
	flags := b[19]
	h := Header{
		SPIi: binary.BigEndian.Uint64(b), SPIr: binary.BigEndian.Uint64(b[8:]), First: PayloadType(b[16]),
		Major: b[17] >> 4, Minor: b[17] & 15, Exchange: ExchangeType(b[18]),
		Initiator: flags&flagInitiator != 0, Response: flags&flagResponse != 0, HigherVersion: flags&flagVersion != 0,
		ID: binary.BigEndian.Uint32(b[20:]), Length: len(b),
	}
	if h.SPIi == 0 {
		return Header{}, errHeader
	}
	return h, nil
}

// Append writes the header's 28 bytes behind b, with h.Length as the length.
func (h Header) Append(b []byte) []byte {
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
	b = binary.BigEndian.AppendUint64(b, h.SPIi)
	b = binary.BigEndian.AppendUint64(b, h.SPIr)
	b = append(b, byte(h.First), h.Major<<4|h.Minor&15, byte(h.Exchange), flags)
	b = binary.BigEndian.AppendUint32(b, h.ID)
	return binary.BigEndian.AppendUint32(b, uint32(h.Length))
}
