package wire

import "encoding/binary"

// RFC 2784 section 2 with the fields of RFC 2890 section 2:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|C|R|K|S|s|Recur|  Reserved0  |Ver  |         Protocol type         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      Checksum (optional)      |      Reserved1 (optional)     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Key (optional)                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                   Sequence number (optional)                  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// R, s and Recur are of RFC 1701, which is not implemented.

// Sizes and offsets of a GRE header, in bytes. Key and sequence number follow
// the fields before them that are present.
const (
	GREMinLen      = 4
	GREMaxLen      = 16
	GREOffFlags    = 0
	GREOffProto    = 2
	GREOffChecksum = 4
	greFieldLen    = 4 // checksum with Reserved1, key, sequence number
)

// Bits of the first 16-bit word of a GRE header.
const (
	GREFlagChecksum = 0x8000 // bit 0 (RFC 2784 section 2.2)
	GREFlagKey      = 0x2000 // bit 2 (RFC 2890 section 2.1)
	GREFlagSequence = 0x1000 // bit 3 (RFC 2890 section 2.2)

	greRouting     = 0x4000 // bit 1
	greStrictRoute = 0x0800 // bit 4
	greRecursion   = 0x0400 // bit 5, the upper of three
	greVersion     = 0x0007
	greRefused     = greRouting | greStrictRoute | greRecursion | greVersion
	greFields      = GREFlagChecksum | GREFlagKey | GREFlagSequence
)

// GRE is a parsed GRE header. It is built so that the compiler can keep it in
// registers: no struct has more than four fields.
type GRE struct {
	GREExtension
	Proto       uint16 // EtherType of the payload; 0 in a keepalive reply
	HasChecksum bool   // to be verified with GREChecksumOK
	Len         int    // bytes of the header; the payload starts here
}

// GREExtension holds the fields that RFC 2890 added.
type GREExtension struct {
	HasKey, HasSeq bool
	Key            uint32 // 0 unless HasKey
	Seq            uint32 // 0 unless HasSeq
}

// ParseGRE reads the GRE header at the start of b. It refuses what RFC 2784
// section 2.3 tells a receiver to discard (bits 1, 4 and 5; version other than
// zero), and ignores bits 6 to 12 as the same section says. The checksum is not
// verified.
func ParseGRE(b []byte) (g GRE, f Fault) {
	if len(b) < GREMinLen {
		return g, GREShort
	}
	flags := binary.BigEndian.Uint16(b[GREOffFlags:])
	if flags&greRefused != 0 {
		return g, greRefusal(flags)
	}
	g.Proto, g.Len = binary.BigEndian.Uint16(b[GREOffProto:]), GREMinLen
	if flags&greFields == 0 {
		return g, OK
	}
	if flags&GREFlagChecksum != 0 {
		if len(b) < g.Len+greFieldLen {
			return g, GREChecksumCut
		}
		g.HasChecksum = true
		g.Len += greFieldLen
	}
	if flags&GREFlagKey != 0 {
		if len(b) < g.Len+greFieldLen {
			return g, GREKeyCut
		}
		g.HasKey, g.Key = true, binary.BigEndian.Uint32(b[g.Len:])
		g.Len += greFieldLen
	}
	if flags&GREFlagSequence != 0 {
		if len(b) < g.Len+greFieldLen {
			return g, GRESequenceCut
		}
		g.HasSeq, g.Seq = true, binary.BigEndian.Uint32(b[g.Len:])
		g.Len += greFieldLen
	}
	return g, OK
}

// greRefusal names the first reason for which flags is refused.
func greRefusal(flags uint16) Fault {
	switch {
	case flags&greVersion != 0:
		return GREVersion // RFC 2784 section 2.3.1; version 1 is PPTP's (RFC 2637)
	case flags&greRouting != 0:
		return GRERouting
	case flags&greStrictRoute != 0:
		return GREStrictRoute
	}
	return GRERecursion
}

// GREChecksumOK verifies the checksum of a header that ParseGRE accepted with
// HasChecksum. b is the GRE header with its whole payload and nothing behind
// (RFC 2784 section 2.5).
func GREChecksumOK(b []byte) bool { return Checksum(b) == 0 }

// GRELen returns the length in bytes of a header with these fields.
func GRELen(key, checksum, seq bool) int {
	n := GREMinLen
	if key {
		n += greFieldLen
	}
	if checksum {
		n += greFieldLen
	}
	if seq {
		n += greFieldLen
	}
	return n
}

// PutGRE writes a header to the start of b and returns its length. flags is a
// set of GREFlagChecksum, GREFlagKey and GREFlagSequence; key and seq are used
// only with their flag. The checksum field is zero until SetGREChecksum.
func PutGRE(b []byte, proto, flags uint16, key, seq uint32) int {
	flags &= greFields
	binary.BigEndian.PutUint16(b[GREOffFlags:], flags)
	binary.BigEndian.PutUint16(b[GREOffProto:], proto)
	n := GREMinLen
	if flags&GREFlagChecksum != 0 {
		binary.BigEndian.PutUint32(b[n:], 0)
		n += greFieldLen
	}
	if flags&GREFlagKey != 0 {
		binary.BigEndian.PutUint32(b[n:], key)
		n += greFieldLen
	}
	if flags&GREFlagSequence != 0 {
		binary.BigEndian.PutUint32(b[n:], seq)
		n += greFieldLen
	}
	return n
}

// SetGREChecksum computes and stores the checksum. b is the header that PutGRE
// wrote with GREFlagChecksum, with its whole payload and nothing behind.
func SetGREChecksum(b []byte) {
	binary.BigEndian.PutUint16(b[GREOffChecksum:], 0)
	binary.BigEndian.PutUint16(b[GREOffChecksum:], Checksum(b))
}
