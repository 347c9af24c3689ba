package message

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Proposal is algorithms that go together; of several transforms of one type the other side chooses one (RFC 7296,
// section 3.3.1).
type Proposal struct {
	Number     uint8
	Protocol   Protocol
	SPI        []byte // of AH and ESP 4 bytes, of IKE 8 for a rekey, else none
	Transforms []Transform
}

// A Transform is one algorithm (RFC 7296, section 3.3.2).
type Transform struct {
	Type    TransformType
	ID      uint16
	KeyBits int // the Key Length attribute in bits; 0: there is none; UnknownAttribute
}

// UnknownAttribute is the KeyBits of a transform with an attribute that we do not know, or with a Key Length that is 0, comes
// twice or is not encoded as it must be. Such a transform cannot be chosen, but it is there: a proposal that has no other of its
// type cannot be chosen either (RFC 7296, section 3.3.6).
const UnknownAttribute = -1

const (
	proposalHeader  = 8 // bytes
	transformHeader = 8
	attributeHeader = 4

	lastSubstructure = 0
	moreProposals    = 2
	moreTransforms   = 3

	attributeKeyLength = 14
	attributeFixed     = 0x8000 // the value is in the header
)

// parseSA reads proposals until one says that it is the last (RFC 7296, section 3.3).
func parseSA(b []byte) ([]Proposal, error) {
	list := []Proposal{}
	for more := true; more; {
		if len(b) < proposalHeader {
			return nil, errors.New("has a proposal that is cut off")
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		switch {
		case size < proposalHeader || size > len(b):
			return nil, fmt.Errorf("has a proposal with a length of %d, in %d bytes", size, len(b))
		case b[0] != lastSubstructure && b[0] != moreProposals:
			return nil, fmt.Errorf("has a proposal that is followed by %d: by 0 for nothing or 2 for a proposal is permitted", b[0])
		case len(list) == maxProposals:
			return nil, fmt.Errorf("has more than %d proposals", maxProposals)
		}
		p, err := parseProposal(b[:size])
		if err != nil {
			return nil, err
		}
		// The numbers are 1, 2 and so on (section 3.3.1). Gaps do no harm, but a number that is not new would make the
		// answer ambiguous.
		if n := len(list); n > 0 && p.Number <= list[n-1].Number {
			return nil, fmt.Errorf("has proposal %d behind proposal %d", p.Number, list[n-1].Number)
		}
		more = b[0] == moreProposals
		list, b = append(list, p), b[size:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("has %d bytes behind its last proposal", len(b))
	}
	return list, nil
}

// parseProposal reads a proposal: number, protocol, size of the SPI, number of transforms, SPI, transforms.
func parseProposal(b []byte) (Proposal, error) {
	p := Proposal{Number: b[4], Protocol: Protocol(b[5])}
	size, count := int(b[6]), int(b[7])
	b = b[proposalHeader:]
	switch {
	case size > len(b):
		return p, errors.New("has a proposal whose SPI is cut off")
	case !p.Protocol.spiSize(size):
		return p, fmt.Errorf("has a proposal for %v with an SPI of %d bytes", p.Protocol, size)
	case count > maxTransforms:
		return p, fmt.Errorf("has a proposal of %d transforms: %d are read", count, maxTransforms)
	}
	p.SPI, b = b[:size:size], b[size:]
	for k := range count {
		t, size, err := parseTransform(b, k == count-1)
		if err != nil {
			return p, err
		}
		p.Transforms, b = append(p.Transforms, t), b[size:]
	}
	if len(b) > 0 {
		return p, fmt.Errorf("has %d bytes behind the %d transforms of a proposal", len(b), count)
	}
	return p, nil
}

// spiSize reports whether an SPI in a proposal may have n bytes (RFC 7296, section 3.3.1). Of a protocol that we do not know,
// any: such a proposal is not chosen.
func (p Protocol) spiSize(n int) bool {
	switch p {
	case ProtocolIKE:
		return n == 0 || n == 8
	case ProtocolAH, ProtocolESP:
		return n == 4
	}
	return true
}

// parseTransform reads the transform at the beginning of b, which has size bytes (RFC 7296, section 3.3.2).
func parseTransform(b []byte, last bool) (t Transform, size int, err error) {
	if len(b) < transformHeader {
		return t, 0, errors.New("has a transform that is cut off")
	}
	next := byte(moreTransforms)
	if last {
		next = lastSubstructure
	}
	size = int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case size < transformHeader || size > len(b):
		return t, 0, fmt.Errorf("has a transform with a length of %d, in %d bytes", size, len(b))
	case b[0] != next:
		return t, 0, fmt.Errorf("has a transform that is followed by %d where their number says %d", b[0], next)
	}
	t = Transform{Type: TransformType(b[4]), ID: binary.BigEndian.Uint16(b[6:])}
	t.KeyBits, err = parseAttributes(b[transformHeader:size])
	return t, size, err
}

// parseAttributes reads the attributes of a transform, each of which has its value in place of a length, or a length and a value
// behind it (RFC 7296, section 3.3.5).
func parseAttributes(b []byte) (keyBits int, err error) {
	for len(b) > 0 {
		if len(b) < attributeHeader {
			return 0, errors.New("has an attribute that is cut off")
		}
		kind, value := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		b = b[attributeHeader:]
		if kind == attributeFixed|attributeKeyLength && keyBits == 0 && value > 0 {
			keyBits = value
			continue
		}
		keyBits = UnknownAttribute
		if kind&attributeFixed == 0 {
			if value > len(b) {
				return 0, fmt.Errorf("has an attribute with a length of %d, in %d bytes", value, len(b))
			}
			b = b[value:]
		}
	}
	return keyBits, nil
}

func appendSA(b []byte, list []Proposal) []byte {
	for i, p := range list {
		at, next := len(b), byte(moreProposals)
		if i == len(list)-1 {
			next = lastSubstructure
		}
		b = append(b, next, 0, 0, 0, p.Number, byte(p.Protocol), byte(len(p.SPI)), byte(len(p.Transforms)))
		b = append(b, p.SPI...)
		for k, t := range p.Transforms {
			b = appendTransform(b, t, k == len(p.Transforms)-1)
		}
		binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at))
	}
	return b
}

// appendTransform writes a transform. One with an unknown attribute gets a Key Length of 0, which nobody can take.
func appendTransform(b []byte, t Transform, last bool) []byte {
	next, size := byte(moreTransforms), transformHeader
	if last {
		next = lastSubstructure
	}
	if t.KeyBits != 0 {
		size += attributeHeader
	}
	b = append(b, next, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(b, byte(t.Type), 0)
	b = binary.BigEndian.AppendUint16(b, t.ID)
	if t.KeyBits != 0 {
		b = binary.BigEndian.AppendUint16(b, attributeFixed|attributeKeyLength)
		b = binary.BigEndian.AppendUint16(b, uint16(max(t.KeyBits, 0)))
	}
	return b
}
