package wire

import (
	"encoding/binary"
	"math/bits"
)

// RFC 9293 section 3.1:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source port          |        Destination port       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        Sequence number                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                     Acknowledgment number                     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Offset| Rsrvd |C|E|U|A|P|R|S|F|             Window            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|            Checksum           |         Urgent pointer        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                  Options, 0 to 40 bytes                       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

// Sizes and offsets of a TCP header, in bytes.
const (
	TCPLen         = 20 // without options
	TCPOffSrcPort  = 0
	TCPOffDstPort  = 2
	TCPOffSeq      = 4
	TCPOffAck      = 8
	TCPOffData     = 12 // data offset in the upper four bits, in units of 4 bytes
	TCPOffFlags    = 13
	TCPOffWindow   = 14
	TCPOffChecksum = 16
)

// TCPFlagSYN is the bit of the byte at TCPOffFlags that opens a connection.
const TCPFlagSYN = 0x02

// Option kinds (RFC 9293 section 3.2).
const (
	tcpOptEnd = 0
	tcpOptNop = 1
	tcpOptMSS = 2

	tcpOptMSSLen = 4 // kind, length, 16-bit value
)

// ClampMSS lowers the maximum segment size option of a SYN or SYN-ACK to max and
// corrects the checksum; it never raises the option and never adds one. tcp
// starts with the TCP header of an unfragmented packet or a first fragment.
// Segments without SYN are not looked at further. Where it returns a fault,
// nothing has been changed.
func ClampMSS(tcp []byte, max uint16) (changed bool, f Fault) {
	if len(tcp) <= TCPOffFlags || tcp[TCPOffFlags]&TCPFlagSYN != 0 {
		return clampSYN(tcp, max)
	}
	return
}

// clampSYN is ClampMSS for a segment with SYN, or one too short to tell.
func clampSYN(tcp []byte, max uint16) (bool, Fault) {
	if len(tcp) < TCPLen {
		return false, TCPShort
	}
	hlen := int(tcp[TCPOffData]>>4) * 4
	if hlen < TCPLen {
		return false, TCPOffsetSmall
	}
	if hlen > len(tcp) {
		return false, TCPOffsetLong
	}
	tcp = tcp[:hlen]
	// First the whole list, then the change: a faulty segment stays as it came.
	if f := checkTCPOptions(tcp); f != OK {
		return false, f
	}
	changed := false
	for at := nextMSS(tcp, TCPLen); at < hlen; at = nextMSS(tcp, at+tcpOptMSSLen) {
		changed = lowerMSS(tcp, at+2, max) || changed
	}
	return changed, OK
}

// checkTCPOptions walks the options of tcp, a whole header.
func checkTCPOptions(tcp []byte) Fault {
	for at := TCPLen; at < len(tcp); {
		kind := tcp[at]
		if kind == tcpOptEnd {
			return OK
		}
		if kind == tcpOptNop {
			at++
			continue
		}
		if at+1 >= len(tcp) {
			return TCPOptionCut
		}
		n := int(tcp[at+1])
		if n < 2 || at+n > len(tcp) {
			return TCPOptionLength
		}
		if kind == tcpOptMSS && n != tcpOptMSSLen {
			return TCPOptionMSS
		}
		at += n
	}
	return OK
}

// nextMSS returns the offset of the first MSS option at or behind at, where an
// option starts, or len(tcp) if there is none. The list has been checked.
func nextMSS(tcp []byte, at int) int {
	for at < len(tcp) {
		switch tcp[at] {
		case tcpOptEnd:
			return len(tcp)
		case tcpOptMSS:
			return at
		case tcpOptNop:
			at++
		default:
			at += int(tcp[at+1])
		}
	}
	return len(tcp)
}

// lowerMSS lowers the value at offset at to max.
func lowerMSS(tcp []byte, at int, max uint16) bool {
	old := binary.BigEndian.Uint16(tcp[at:])
	if old <= max {
		return false
	}
	binary.BigEndian.PutUint16(tcp[at:], max)
	if at%2 != 0 {
		// The value straddles two checksum words: its upper byte is the lower byte
		// of one, its lower the upper of the next. By RFC 1071 section 2 (B) that
		// is the change of a value with exchanged bytes.
		old, max = bits.ReverseBytes16(old), bits.ReverseBytes16(max)
	}
	check := binary.BigEndian.Uint16(tcp[TCPOffChecksum:])
	binary.BigEndian.PutUint16(tcp[TCPOffChecksum:], Update16(check, old, max))
	return true
}
