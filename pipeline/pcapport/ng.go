package pcapport

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

// pcapng (draft-ietf-opsawg-pcapng), as far as frames need it. pcapgo reads it too, but believes what the file says: a
// unit of time beyond 64 bits makes it panic, it allocates as much as a length asks for, keeps eight bits of the link
// type, and to it a file that was cut is one that has ended. Captures come from strangers.

// Types of blocks.
const (
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
	blockSection   = 0x0a0d0d0a // the same in both byte orders
)

const (
	blockHeader  = 8
	blockTrailer = 4
	maxBlock     = 16 << 20 // as in Wireshark

	byteOrderMagic = 0x1a2b3c4d
)

// blocks is a pcapng file.
type blocks struct {
	r     *bufio.Reader
	order binary.ByteOrder // of the section
	links []ngInterface    // of the section
	buf   []byte
}

// ngInterface is where frames were captured.
type ngInterface struct {
	link   uint16
	snap   uint32 // bytes that are kept of a frame; 0: all
	second uint64 // units of time in a second
	offset int64  // seconds to add
}

// next returns the next frame, whatever other blocks come before it.
func (b *blocks) next() (Frame, error) {
	for {
		kind, body, err := b.block()
		if err != nil {
			return Frame{}, err
		}
		switch kind {
		case blockSection:
			err = b.section(body)
		case blockInterface:
			err = b.addInterface(body)
		case blockEnhanced, blockPacket:
			return b.packet(kind, body)
		case blockSimple:
			return b.simple(body)
		}
		if err != nil {
			return Frame{}, err
		}
	}
}

// block reads one block and returns what stands between the two lengths; good until the next call.
func (b *blocks) block() (kind uint32, body []byte, err error) {
	var head [blockHeader]byte
	if _, err := io.ReadFull(b.r, head[:]); err == io.EOF {
		return 0, nil, err // where it may be
	} else if err != nil {
		return 0, nil, short(err)
	}
	if binary.LittleEndian.Uint32(head[:]) == blockSection {
		if err := b.findOrder(); err != nil {
			return 0, nil, err
		}
	}
	kind = b.order.Uint32(head[:])
	size := b.order.Uint32(head[4:])
	if size < blockHeader+blockTrailer || size%4 != 0 || size > maxBlock {
		return 0, nil, damaged("a block of %d bytes: multiples of 4 from 12 to %d are possible", size, maxBlock)
	}
	if n := int(size) - blockHeader; n > cap(b.buf) {
		b.buf = make([]byte, n)
	} else {
		b.buf = b.buf[:n]
	}
	if _, err := io.ReadFull(b.r, b.buf); err != nil {
		return 0, nil, short(err)
	}
	body = b.buf[:len(b.buf)-blockTrailer]
	if again := b.order.Uint32(b.buf[len(body):]); again != size {
		return 0, nil, damaged("a block of %d bytes says %d at its end", size, again)
	}
	return kind, body, nil
}

// findOrder looks at the byte order of the section that begins.
func (b *blocks) findOrder() error {
	magic, err := b.r.Peek(4)
	switch {
	case err != nil:
		return short(err)
	case binary.LittleEndian.Uint32(magic) == byteOrderMagic:
		b.order = binary.LittleEndian
	case binary.BigEndian.Uint32(magic) == byteOrderMagic:
		b.order = binary.BigEndian
	default:
		return damaged("a section whose byte order is % x", magic)
	}
	return nil
}

func (b *blocks) section(body []byte) error {
	if len(body) < 16 {
		return damaged("a section header of %d bytes", len(body))
	}
	if major := b.order.Uint16(body[4:]); major != 1 {
		return fmt.Errorf("pcapng version %d: version 1 can be read", major)
	}
	b.links = b.links[:0]
	return nil
}

// maxInterfaces bounds what is remembered of a section.
const maxInterfaces = 1 << 16

func (b *blocks) addInterface(body []byte) error {
	const fixed = 8
	if len(body) < fixed {
		return damaged("an interface description of %d bytes", len(body))
	}
	n := ngInterface{link: b.order.Uint16(body), snap: b.order.Uint32(body[4:]), second: 1_000_000}
	for o := body[fixed:]; len(o) >= 4; {
		code, size := b.order.Uint16(o), int(b.order.Uint16(o[2:]))
		if o = o[4:]; size > len(o) {
			return damaged("an option of %d bytes where %d are left", size, len(o))
		}
		if err := n.option(code, o[:size], b.order); err != nil {
			return err
		}
		o = o[min((size+3)&^3, len(o)):]
	}
	if len(b.links) == maxInterfaces {
		return damaged("more than %d interfaces", maxInterfaces)
	}
	b.links = append(b.links, n)
	return nil
}

// option takes what has to do with time.
func (n *ngInterface) option(code uint16, v []byte, order binary.ByteOrder) error {
	const resolution, offset = 9, 14
	switch {
	case code == resolution && len(v) == 1:
		exponent := int(v[0] & 0x7f)
		if v[0]&0x80 != 0 && exponent < 64 {
			n.second = 1 << exponent
		} else if v[0]&0x80 == 0 && exponent < 20 { // 10^19 is the last power below 2^64
			n.second = uint64(math.Pow10(exponent))
		} else {
			return damaged("an interface whose unit of time is %#02x", v[0])
		}
	case code == offset && len(v) == 8:
		n.offset = int64(order.Uint64(v))
	}
	return nil
}

// packet reads an enhanced packet block, or the obsolete one that differs in how it says the interface.
func (b *blocks) packet(kind uint32, body []byte) (Frame, error) {
	const fixed = 20
	if len(body) < fixed {
		return Frame{}, damaged("a packet block of %d bytes", len(body))
	}
	at := int64(b.order.Uint32(body))
	if kind == blockPacket {
		at = int64(b.order.Uint16(body))
	}
	n, err := b.ethernet(at)
	if err != nil {
		return Frame{}, err
	}
	units := uint64(b.order.Uint32(body[4:]))<<32 | uint64(b.order.Uint32(body[8:]))
	return frame(n.time(units), b.order.Uint32(body[12:]), b.order.Uint32(body[16:]), body[fixed:])
}

// simple reads a simple packet block. It has no time, and no captured length but what the interface keeps.
func (b *blocks) simple(body []byte) (Frame, error) {
	const fixed = 4
	if len(body) < fixed {
		return Frame{}, damaged("a packet block of %d bytes", len(body))
	}
	n, err := b.ethernet(0)
	if err != nil {
		return Frame{}, err
	}
	length := b.order.Uint32(body)
	captured := length
	if n.snap != 0 {
		captured = min(length, n.snap)
	}
	return frame(time.Unix(0, 0).UTC(), captured, length, body[fixed:])
}

// ethernet returns interface i of the section if its frames can be read.
func (b *blocks) ethernet(i int64) (ngInterface, error) {
	if i >= int64(len(b.links)) {
		return ngInterface{}, damaged("it is of interface %d, and the section has %d", i, len(b.links))
	}
	return b.links[i], checkLink(b.links[i].link)
}

// time is units after the epoch.
func (n ngInterface) time(units uint64) time.Time {
	// The rest of a second is less than one, so the quotient is below 10^9 and the division cannot overflow.
	hi, lo := bits.Mul64(units%n.second, 1e9)
	ns, _ := bits.Div64(hi, lo, n.second)
	return time.Unix(int64(units/n.second)+n.offset, int64(ns)).UTC()
}

func frame(at time.Time, captured, length uint32, data []byte) (Frame, error) {
	if captured > maxCaptured || int(captured) > len(data) || captured > length {
		return Frame{}, damaged("%d bytes captured of a frame of %d, in a block with room for %d", captured, length, len(data))
	}
	return Frame{Time: at, Length: int(length), Data: data[:captured]}, nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("the file is damaged: "+format, args...)
}

// short is the error of a read that met the end of the file where it must not be.
func short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errShort
	}
	return err
}
