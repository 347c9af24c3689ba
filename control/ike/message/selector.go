package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Types of traffic selectors (RFC 7296, section 3.13.1).
const (
	tsIPv4Range = 7
	tsIPv6Range = 8
)

const (
	selectorHeader = 4 // bytes: type, protocol, length
	portsLen       = 4 // bytes
)

// parseTS reads a payload of traffic selectors: their number, three reserved bytes, selectors (RFC 7296, section 3.13). Selectors
// of types that we do not know are left out.
func parseTS(b []byte) ([]Selector, error) {
	if len(b) < 4 {
		return nil, errCutOff
	}
	count, b := int(b[0]), b[4:]
	list := []Selector{}
	for range count {
		if len(b) < selectorHeader {
			return nil, errCutOff
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		if size < selectorHeader || size > len(b) {
			return nil, fmt.Errorf("has a selector with a length of %d, in %d bytes", size, len(b))
		}
		var s Selector
		var err error
		switch b[0] {
		case tsIPv4Range:
			s, err = parseSelector(b[:size], 4)
		case tsIPv6Range:
			s, err = parseSelector(b[:size], 16)
		}
		if err != nil {
			return nil, err
		}
		if s.From.IsValid() {
			list = append(list, s)
		}
		b = b[size:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("has %d bytes behind its %d selectors", len(b), count)
	}
	return list, nil
}

// parseSelector reads a range of addresses of a size in bytes.
func parseSelector(b []byte, size int) (s Selector, err error) {
	const addresses = selectorHeader + portsLen
	if len(b) != addresses+2*size {
		return s, fmt.Errorf("has a selector with a length of %d for addresses of %d bytes", len(b), size)
	}
	s = Selector{Protocol: b[1], FromPort: binary.BigEndian.Uint16(b[4:]), ToPort: binary.BigEndian.Uint16(b[6:])}
	s.From, _ = netip.AddrFromSlice(b[addresses : addresses+size])
	s.To, _ = netip.AddrFromSlice(b[addresses+size:])
	if s.From.Compare(s.To) > 0 {
		return s, fmt.Errorf("has a selector from %v to %v", s.From, s.To)
	}
	opaque := s.FromPort == 65535 && s.ToPort == 0
	if s.FromPort > s.ToPort && !opaque {
		return s, errors.New("has a selector whose first port is above its last, and that is not OPAQUE")
	}
	return s, nil
}

func appendTS(b []byte, list []Selector) []byte {
	b = append(b, byte(len(list)), 0, 0, 0)
	for _, s := range list {
		kind := byte(tsIPv4Range)
		if s.From.Is6() {
			kind = tsIPv6Range
		}
		b = append(b, kind, s.Protocol)
		b = binary.BigEndian.AppendUint16(b, uint16(selectorHeader+portsLen+2*s.From.BitLen()/8))
		b = binary.BigEndian.AppendUint16(b, s.FromPort)
		b = binary.BigEndian.AppendUint16(b, s.ToPort)
		b = append(append(b, s.From.AsSlice()...), s.To.AsSlice()...)
	}
	return b
}
