package pcapport

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// An NGWriter writes a pcapng file whose packets have comments, which pcapgo's writer does not give them. Each block is one Write: a
// reader at the other end of a pipe sees each packet when it is there, and a file that a full disk has cut ends behind a packet or in
// one, which readers know.
type NGWriter struct {
	w     io.Writer
	links []uint16 // of the interfaces
	buf   []byte
	err   error // the first one; nothing is written after it
}

// Link types (draft-ietf-opsawg-pcaplinktype).
const (
	LinkEthernet = 1
	LinkRaw      = 101 // an IPv4 or IPv6 packet
)

// Options of blocks (draft-ietf-opsawg-pcapng, sections 3.5, 4.1, 4.2 and 4.3).
const (
	optionEnd         = 0
	optionComment     = 1
	optionApplication = 4
	optionName        = 2
	optionDescription = 3
	optionResolution  = 9
	optionPacketID    = 5

	nanoseconds = 9 // the unit of time is 10^-9 s
	maxOption   = 1<<16 - 1
)

// NewNGWriter begins a file. application says who writes it.
func NewNGWriter(w io.Writer, application string) (*NGWriter, error) {
	n := &NGWriter{w: w}
	n.begin(blockSection)
	n.put32(byteOrderMagic)
	n.put16(1) // version 1.0
	n.put16(0)
	n.put32(^uint32(0)) // the section's length: not known
	n.put32(^uint32(0))
	n.option(optionApplication, application)
	return n, n.end()
}

// Interface adds an interface whose packets have that link type, and returns its number.
func (n *NGWriter) Interface(name, description string, link uint16) (int, error) {
	n.begin(blockInterface)
	n.put16(link)
	n.put16(0)
	n.put32(0) // no limit to what is kept of a packet
	n.option(optionName, name)
	n.option(optionDescription, description)
	n.option(optionResolution, string([]byte{nanoseconds}))
	n.links = append(n.links, link)
	return len(n.links) - 1, n.end()
}

// Packet adds one. data is what is kept of length bytes; packets with the same id, which is not 0, are one packet at several places.
func (n *NGWriter) Packet(at time.Time, on int, data []byte, length int, id uint64, comment string) error {
	if on < 0 || on >= len(n.links) {
		return fmt.Errorf("interface %d: the file has %d", on, len(n.links))
	}
	n.begin(blockEnhanced)
	n.put32(uint32(on))
	ns := uint64(at.UnixNano())
	n.put32(uint32(ns >> 32))
	n.put32(uint32(ns))
	n.put32(uint32(len(data)))
	n.put32(uint32(length))
	n.buf = append(n.buf, data...)
	n.pad()
	n.option(optionComment, comment)
	if id != 0 {
		n.option(optionPacketID, string(binary.LittleEndian.AppendUint64(nil, id)))
	}
	return n.end()
}

func (n *NGWriter) begin(kind uint32) {
	n.buf = n.buf[:0]
	n.put32(kind)
	n.put32(0) // the length, when it is known
}

// end ends the options and the block, and writes it.
func (n *NGWriter) end() error {
	n.put16(optionEnd)
	n.put16(0)
	size := uint32(len(n.buf) + blockTrailer)
	binary.LittleEndian.PutUint32(n.buf[4:], size)
	n.put32(size)
	if n.err == nil {
		_, n.err = n.w.Write(n.buf)
	}
	return n.err
}

func (n *NGWriter) option(code uint16, value string) {
	if value == "" {
		return
	}
	value = value[:min(len(value), maxOption)]
	n.put16(code)
	n.put16(uint16(len(value)))
	n.buf = append(n.buf, value...)
	n.pad()
}

// pad ends with a multiple of four bytes.
func (n *NGWriter) pad() {
	for len(n.buf)%4 != 0 {
		n.buf = append(n.buf, 0)
	}
}

func (n *NGWriter) put16(v uint16) { n.buf = binary.LittleEndian.AppendUint16(n.buf, v) }
func (n *NGWriter) put32(v uint32) { n.buf = binary.LittleEndian.AppendUint32(n.buf, v) }
