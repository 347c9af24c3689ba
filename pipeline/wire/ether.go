package wire

import "encoding/binary"

//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Destination address                      |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                         Source address                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   TPID 0x8100 (only tagged)   | PCP |D|        VLAN id        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           EtherType           |  layer 3 ...
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-

// Sizes and offsets of an Ethernet header, in bytes.
const (
	EthernetLen     = 14 // without a tag
	VLANLen         = 4  // one 802.1Q tag
	EthernetOffDst  = 0
	EthernetOffSrc  = 6
	EthernetOffType = 12
	vlanOffTCI      = 14
)

// EtherType values. GRE uses the same numbers for its protocol type.
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeVLAN = 0x8100 // IEEE 802.1Q customer tag
	EtherTypeIPv6 = 0x86dd
	EtherTypeQinQ = 0x88a8 // IEEE 802.1ad service tag
)

const (
	vlanIDMask     = 0x0fff
	vlanIDReserved = 0x0fff // IEEE 802.1Q table 9-2
)

// Ethernet is a parsed link header.
type Ethernet struct {
	Type   uint16 // EtherType of what starts at L3; below 0x0600 an 802.3 length
	VLAN   uint16 // VLAN id; 0 is a tag that carries only a priority
	L3     int    // offset of the network header
	Tagged bool   // one 802.1Q tag was there
}

// ParseEthernet reads the link header with at most one 802.1Q tag. Further tags,
// and service tags, are faults.
func ParseEthernet(b []byte) (e Ethernet, f Fault) {
	if len(b) < EthernetLen {
		return e, EthernetShort
	}
	e.Type, e.L3 = binary.BigEndian.Uint16(b[EthernetOffType:]), EthernetLen
	if isTag(e.Type) {
		return parseTag(b)
	}
	return e, OK
}

// isTag reports whether t announces a VLAN tag of either kind.
func isTag(t uint16) bool { return t == EtherTypeVLAN || t == EtherTypeQinQ }

// parseTag is ParseEthernet for a frame with a tag.
func parseTag(b []byte) (e Ethernet, f Fault) {
	if binary.BigEndian.Uint16(b[EthernetOffType:]) == EtherTypeQinQ {
		return e, VLANStacked
	}
	if len(b) < EthernetLen+VLANLen {
		return e, VLANShort
	}
	tag := binary.BigEndian.Uint32(b[vlanOffTCI:]) // and the type behind it
	e = Ethernet{
		Type:   uint16(tag),
		VLAN:   uint16(tag>>16) & vlanIDMask,
		L3:     EthernetLen + VLANLen,
		Tagged: true,
	}
	if isTag(e.Type) {
		return e, VLANStacked
	}
	if e.VLAN == vlanIDReserved {
		return e, VLANReserved
	}
	return e, OK
}
