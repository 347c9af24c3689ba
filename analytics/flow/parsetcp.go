package flow

import (
	"encoding/binary"

	"causeway/pipeline/wire"
)

// Offsets that pipeline/wire, which looks at fewer fields, does not name (RFC 9293 3.1).
const tcpOffUrgent = 18

// tcp reads a TCP header (RFC 9293 3.1).
func (h *Header) tcp(b []byte) {
	if len(b) < wire.TCPLen {
		return
	}
	h.HasTCP = true
	t := &h.TCP
	t.Seq, t.Ack = binary.BigEndian.Uint32(b[wire.TCPOffSeq:]), binary.BigEndian.Uint32(b[wire.TCPOffAck:])
	t.DataOffset, t.Flags = b[wire.TCPOffData]>>4, b[wire.TCPOffFlags]
	t.Window = binary.BigEndian.Uint16(b[wire.TCPOffWindow:])
	t.Checksum = binary.BigEndian.Uint16(b[wire.TCPOffChecksum:])
	t.Urgent = binary.BigEndian.Uint16(b[tcpOffUrgent:])
	t.Options = part(b, wire.TCPLen, int(t.DataOffset)*4)
	t.options(t.Options)
}

// options reads the options that are captured whole. Behind one whose length cannot be, nothing can be found any more.
func (t *TCP) options(b []byte) {
	for len(b) > 0 {
		switch b[0] {
		case 0: // end of list
			return
		case 1: // no operation
			b = b[1:]
			continue
		}
		if len(b) < 2 {
			return
		}
		n := int(b[1])
		if n < 2 || n > len(b) {
			return
		}
		t.option(b[0], b[2:n])
		b = b[n:]
	}
}

// option reads the value v of one option. One of a length that its kind does not have says nothing.
func (t *TCP) option(kind uint8, v []byte) {
	switch {
	case kind == 2 && len(v) == 2: // RFC 9293 3.2
		t.MSS, t.HasMSS = binary.BigEndian.Uint16(v), true
	case kind == 3 && len(v) == 1: // RFC 7323 2.2
		t.WindowScale, t.HasWindowScale = v[0], true
	case kind == 4 && len(v) == 0: // RFC 2018 2
		t.SACKPermitted = true
	case kind == 5 && len(v)%8 == 0: // RFC 2018 3
		t.SACKBlocks = len(v) / 8
	case kind == 8 && len(v) == 8: // RFC 7323 3.2
		t.TSValue, t.TSEcho, t.HasTimestamp = binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:]), true
	}
}
