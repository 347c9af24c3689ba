// Package pcapport is a port over capture files: the batch-level interface that an AF_XDP socket has, with frames read
// from a pcap or pcapng file, and what is transmitted written to a pcapng file with one interface per port. It needs
// no privileges, no kernel and no libpcap. The clock is its user's: nothing moves between two calls of Engine.Poll.
//
//	out, err := pcapport.NewWriter(file, "eth0", "eth1")
//	eth0 := pcapport.NewQueue(umem, 64, out, 0)
//	eth1 := pcapport.NewQueue(umem, 64, out, 1)
//	in, err := pcapport.NewReader(capture)
//	for {
//		f, err := in.Next()
//		...
//		if f.Fit() == pcapport.Whole {
//			eth0.Offer(f)
//			engine.Poll(0)
//		}
//	}
//	err = out.Close()
//
// reader.go and ng.go read, queue.go is the port, writer.go writes.
package pcapport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/gopacket/pcapgo"

	"causeway/xsk"
)

// A Frame is one frame of a capture.
type Frame struct {
	Number int       // in the file, from 1
	Time   time.Time // when it was captured
	Length int       // bytes that it had on the wire
	Data   []byte    // what was captured of it, link header first; good until the next call of Next
}

// Fit says whether a worker can receive a frame.
type Fit uint8

const (
	Whole    Fit = iota
	Cut          // the capture has only its beginning
	TooLarge     // longer than xsk.MaxPacket: a port drops it before a worker sees it
)

// Fit judges f.
func (f Frame) Fit() Fit {
	switch {
	case len(f.Data) < f.Length:
		return Cut
	case len(f.Data) > xsk.MaxPacket:
		return TooLarge
	}
	return Whole
}

// maxCaptured is the longest frame that a file may hold: no more than tcpdump and Wireshark ever write.
const maxCaptured = 256 << 10

// A Reader reads a capture file frame by frame.
type Reader struct {
	records interface{ next() (Frame, error) }
	read    int
	err     error // the first one, for good
}

// errShort is a file that ends where it should go on.
var errShort = errors.New("the file ends in the middle of it; was the capture still being written, or not copied whole?")

// NewReader looks at the beginning of a capture. Of a pcap file it knows the link type then; a pcapng file may say it
// anew with each interface.
func NewReader(r io.Reader) (*Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(4)
	if err == io.EOF {
		return nil, fmt.Errorf("%d bytes: too short for a capture file", len(head))
	}
	if err != nil {
		return nil, err
	}
	switch magic := binary.LittleEndian.Uint32(head); magic {
	case blockSection:
		return &Reader{records: &blocks{r: b}}, nil
	case 0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1: // microseconds, nanoseconds, each in both byte orders
		p, err := newRecords(b, magic == 0xa1b2c3d4 || magic == 0xa1b23c4d)
		if err != nil {
			return nil, err
		}
		return &Reader{records: p}, nil
	}
	return nil, fmt.Errorf("begins with % x: neither a pcap nor a pcapng file; one that is compressed must be unpacked first", head)
}

// Next returns the next frame, and io.EOF behind the last one. Any other error ends the reading too, says at which
// frame, and comes again at each further call.
func (r *Reader) Next() (Frame, error) {
	if r.err != nil {
		return Frame{}, r.err
	}
	f, err := r.records.next()
	if err == io.EOF {
		r.err = err
	} else if err != nil {
		r.err = fmt.Errorf("frame %d: %w", r.read+1, err)
	}
	if r.err != nil {
		return Frame{}, r.err
	}
	r.read++
	f.Number = r.read
	return f, nil
}

// linkEthernet is LINKTYPE_ETHERNET.
const linkEthernet = 1

func checkLink(link uint16) error {
	if link == linkEthernet {
		return nil
	}
	return fmt.Errorf("link type %d: only Ethernet (1) is possible: capture on the interface itself, not on \"any\"", link)
}

// records is a pcap file.
type records struct{ pcap *pcapgo.Reader }

func newRecords(b *bufio.Reader, little bool) (*records, error) {
	const headerLen, linkAt = 24, 20
	head, err := b.Peek(headerLen)
	if err != nil {
		return nil, fmt.Errorf("the header of the file: %w", short(err))
	}
	order := binary.ByteOrder(binary.BigEndian)
	if little {
		order = binary.LittleEndian
	}
	// The upper half speaks of check sequences. pcapgo keeps eight bits, which makes 257 Ethernet.
	if err := checkLink(uint16(order.Uint32(head[linkAt:]))); err != nil {
		return nil, err
	}
	p, err := pcapgo.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("the header of the file: %w", err)
	}
	p.SetSnaplen(maxCaptured) // what the header says is often too little, or nothing
	return &records{p}, nil
}

func (p *records) next() (Frame, error) {
	data, info, err := p.pcap.ReadPacketData()
	switch {
	case err == io.EOF && info.CaptureLength == 0:
		return Frame{}, io.EOF
	case short(err) == errShort:
		return Frame{}, errShort
	case err != nil:
		return Frame{}, fmt.Errorf("the file is damaged: %w", err)
	}
	return Frame{Time: info.Timestamp, Length: info.Length, Data: data}, nil
}
