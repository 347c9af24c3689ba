package pcapport

import (
	"fmt"
	"io"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// A Writer writes what leaves by any of several ports to one pcapng file, which tells the ports apart. The queues of
// the ports share it.
type Writer struct {
	ng    *pcapgo.NgWriter
	at    time.Time // of what is being sent
	count int
	sent  []Sent
	err   error // the first one; nothing is written after it
}

// Sent tells of a frame that has left.
type Sent struct {
	Number int // in the file, from 1
	Port   int
	Length int // in bytes
}

// NewWriter begins a file with the given ports as its interfaces. Where no file is wanted, w is io.Discard.
func NewWriter(w io.Writer, ports ...string) (*Writer, error) {
	if len(ports) == 0 {
		return nil, fmt.Errorf("no ports: a file needs at least one")
	}
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "causeway"}}
	ng, err := pcapgo.NewNgWriterInterface(w, ngInterfaceOf(ports[0]), options)
	if err != nil {
		return nil, err
	}
	for _, p := range ports[1:] {
		if _, err := ng.AddInterface(ngInterfaceOf(p)); err != nil {
			return nil, err
		}
	}
	return &Writer{ng: ng}, nil
}

func ngInterfaceOf(port string) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: port, LinkType: layers.LinkTypeEthernet}
}

// write adds a frame that left by a port. It counts whether or not the file takes it.
func (w *Writer) write(port int, frame []byte) {
	w.count++
	w.sent = append(w.sent, Sent{w.count, port, len(frame)})
	if w.err == nil {
		info := gopacket.CaptureInfo{Timestamp: w.at, CaptureLength: len(frame), Length: len(frame), InterfaceIndex: port}
		w.err = w.ng.WritePacket(info, frame)
	}
}

// Sent returns what has left since the last call; good until something else leaves.
func (w *Writer) Sent() []Sent {
	sent := w.sent
	w.sent = w.sent[:0]
	return sent
}

// Close writes what is still in memory, and says what went wrong since the beginning. The file itself is the caller's
// to close.
func (w *Writer) Close() error {
	if w.err == nil {
		w.err = w.ng.Flush()
	}
	return w.err
}
