package top

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// A key is a value of any kind.
type key struct{ high, low uint64 }

// none is what a packet that could not be read has, whose text is empty. As an address it is reserved (RFC 4291 2.7: a scope of F).
var none = key{math.MaxUint64, math.MaxUint64}

// keyOf is a sample's value of a kind.
func keyOf(kind store.TopKind, s *store.Sample) key {
	h := &s.Packet
	switch kind {
	case store.TopSourceAddress:
		return addressKey(h.Src)
	case store.TopDestinationAddress:
		return addressKey(h.Dst)
	case store.TopSourcePort:
		return key{low: uint64(h.SrcPort)}
	case store.TopDestinationPort:
		return key{low: uint64(h.DstPort)}
	case store.TopProtocol:
		if h.Version == 0 {
			return none
		}
		return key{low: uint64(h.Protocol)}
	case store.TopTCPFlags:
		return key{low: uint64(h.TCP.Flags)}
	case store.TopPacketSize:
		return key{low: uint64(s.Length - s.Length%100)}
	case store.TopSourceCountry:
		return textKey(s.Src.Country)
	case store.TopDestinationCountry:
		return textKey(s.Dst.Country)
	case store.TopSourceASN:
		return key{low: uint64(s.Src.ASN)}
	case store.TopDestinationASN:
		return key{low: uint64(s.Dst.ASN)}
	}
	return key{}
}

func addressKey(a netip.Addr) key {
	if !a.IsValid() {
		return none
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// textKey has room for 16 bytes: countries have two.
func textKey(s string) key {
	var b [16]byte
	copy(b[:], s)
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// text is a value as the dimension of samples has it.
func (k key) text(kind store.TopKind) string {
	switch kind {
	case store.TopSourceAddress, store.TopDestinationAddress:
		if k == none {
			return ""
		}
		return netip.AddrFrom16(k.octets()).Unmap().String()
	case store.TopProtocol:
		if k == none {
			return ""
		}
		return flow.ProtocolName(uint8(k.low))
	case store.TopTCPFlags:
		return flow.TCPFlagNames(uint8(k.low))
	case store.TopSourceCountry, store.TopDestinationCountry:
		b := k.octets()
		return strings.TrimRight(string(b[:]), "\x00")
	}
	return strconv.FormatUint(k.low, 10)
}

func (k key) octets() (b [16]byte) {
	binary.BigEndian.PutUint64(b[:8], k.high)
	binary.BigEndian.PutUint64(b[8:], k.low)
	return b
}
