package message

import (
	"encoding/binary"
	"fmt"
)

// A Proposal is algorithms that go together; of several transforms of one type the other side chooses one (RFC 7296,
// section 3.3).
type Proposal struct {
	Number     uint8
	Protocol   Protocol
	SPI        []byte
	Transforms []Transform
}

// A Transform is one algorithm.
type Transform struct {
	Type    TransformType
	ID      uint16
	KeyBits int // 0: it has no attribute
}

const (
	moreProposals  = 2
	moreTransforms = 3

	attributeKeyLength = 14
	attributeFixed     = 0x8000 // its value is in the header
)

func parseSA(b []byte) ([]Proposal, string) {
	list := []Proposal{}
	for more := true; more; {
		if len(b) < 8 {
			return nil, "has a proposal that is cut off"
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		if size < 8 || size > len(b) {
			return nil, fmt.Sprintf("has a proposal of %d bytes, of which %d are there", size, len(b))
		}
		if len(list) == maxProposals {
			return nil, fmt.Sprintf("has more than %d proposals", maxProposals)
		}
		more = b[0] == moreProposals
		if !more && b[0] != 0 {
			return nil, "has a proposal that is neither the last nor not"
		}
		p, why := parseProposal(b[4:size])
		if why != "" {
			return nil, why
		}
		list, b = append(list, p), b[size:]
	}
	if len(b) > 0 {
		return nil, fmt.Sprintf("has %d bytes behind its last proposal", len(b))
	}
	return list, ""
}

func parseProposal(b []byte) (Proposal, string) {
	p := Proposal{Number: b[0], Protocol: Protocol(b[1])}
	size, count := int(b[2]), int(b[3])
	if len(b) < 4+size {
		return p, "has an SPI that is cut off"
	}
	p.SPI, b = b[4:4+size:4+size], b[4+size:]
	if count > maxTransforms {
		return p, fmt.Sprintf("has a proposal with %d transforms: at most %d are read", count, maxTransforms)
	}
	for k := range count {
		if len(b) < 8 {
			return p, "has a transform that is cut off"
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		last := k == count-1
		if size < 8 || size > len(b) || last != (b[0] == 0) || !last && b[0] != moreTransforms {
			return p, fmt.Sprintf("has a transform of %d bytes, of which %d are there, or that is not where it says", size, len(b))
		}
		t := Transform{Type: TransformType(b[4]), ID: binary.BigEndian.Uint16(b[6:])}
		usable, why := t.attributes(b[8:size])
		if why != "" {
			return p, why
		}
		if usable { // one with an attribute that we do not know is as if it were not there (RFC 7296, section 3.3.6)
			p.Transforms = append(p.Transforms, t)
		}
		b = b[size:]
	}
	if len(b) > 0 {
		return p, fmt.Sprintf("has %d bytes behind the last transform of a proposal", len(b))
	}
	return p, ""
}

// attributes reads what belongs to a transform; the length of a key is all that there is.
func (t *Transform) attributes(b []byte) (usable bool, why string) {
	usable = true
	for len(b) > 0 {
		if len(b) < 4 {
			return false, "has an attribute that is cut off"
		}
		kind, value := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		b = b[4:]
		switch {
		case kind == attributeFixed|attributeKeyLength && t.KeyBits == 0 && value > 0:
			t.KeyBits = int(value)
		case kind&attributeFixed != 0:
			usable = false
		case int(value) > len(b):
			return false, "has an attribute that is cut off"
		default:
			usable, b = false, b[value:]
		}
	}
	return usable, ""
}

func appendSA(b []byte, list []Proposal) []byte {
	for i, p := range list {
		at := len(b)
		more := byte(moreProposals)
		if i == len(list)-1 {
			more = 0
		}
		b = append(b, more, 0, 0, 0, p.Number, byte(p.Protocol), byte(len(p.SPI)), byte(len(p.Transforms)))
		b = append(b, p.SPI...)
		for k, t := range p.Transforms {
			b = t.append(b, k == len(p.Transforms)-1)
		}
		binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at))
	}
	return b
}

func (t Transform) append(b []byte, last bool) []byte {
	more, size := byte(moreTransforms), uint16(8)
	if last {
		more = 0
	}
	if t.KeyBits > 0 {
		size = 12
	}
	b = append(b, more, 0)
	b = binary.BigEndian.AppendUint16(b, size)
	b = append(b, byte(t.Type), 0)
	b = binary.BigEndian.AppendUint16(b, t.ID)
	if t.KeyBits > 0 {
		b = binary.BigEndian.AppendUint16(b, attributeFixed|attributeKeyLength)
		b = binary.BigEndian.AppendUint16(b, uint16(t.KeyBits))
	}
	return b
}
