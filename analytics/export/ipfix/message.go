package ipfix

import (
	"encoding/binary"
	"time"
)

const (
	// MaxMessage is the size in bytes that no message exceeds, so that none is fragmented (RFC 7011 10.3.3).
	MaxMessage = 1400

	version       = 10
	messageHeader = 16
	setHeader     = 4
)

// A writer fills a message with sets of records.
type writer struct {
	send     func(message []byte)
	buf      []byte
	set      int    // offset of the set that is being filled
	id       uint16 // and its id; 0: there is none
	domain   uint32
	sequence uint32 // data records in all messages before this one
	records  uint32 // data records in this message
	messages uint64 // that were sent
}

func newWriter(domain uint32, send func([]byte)) *writer {
	w := &writer{send: send, domain: domain, buf: make([]byte, messageHeader, MaxMessage)}
	binary.BigEndian.PutUint16(w.buf, version)
	binary.BigEndian.PutUint32(w.buf[12:], domain)
	return w
}

// room returns size bytes for a record in a set of that id; what they hold is of the past. A full message is sent before.
func (w *writer) room(id uint16, size int, now time.Time) []byte {
	need := size
	if id != w.id {
		need += setHeader
	}
	if len(w.buf)+need > MaxMessage {
		w.flush(now)
	}
	if id != w.id {
		w.endSet()
		w.set, w.id = len(w.buf), id
		w.buf = binary.BigEndian.AppendUint16(w.buf, id)
		w.buf = append(w.buf, 0, 0) // length: see endSet
	}
	if id >= minDataSet {
		w.records++
	}
	from := len(w.buf)
	w.buf = w.buf[:from+size]
	return w.buf[from:]
}

// endSet writes the length of the set that was being filled. There is no padding: nothing would be gained by it (RFC 7011 3.3.1).
func (w *writer) endSet() {
	if w.id != 0 {
		binary.BigEndian.PutUint16(w.buf[w.set+2:], uint16(len(w.buf)-w.set))
	}
	w.id = 0
}

// flush sends the message. Its sequence number counts the data records before it, those of options too, and no templates (RFC 7011
// 3.1).
func (w *writer) flush(now time.Time) {
	w.endSet()
	if len(w.buf) == messageHeader {
		return
	}
	binary.BigEndian.PutUint16(w.buf[2:], uint16(len(w.buf)))
	binary.BigEndian.PutUint32(w.buf[4:], uint32(now.Unix()))
	binary.BigEndian.PutUint32(w.buf[8:], w.sequence)
	w.send(w.buf)
	w.messages++
	w.sequence += w.records
	w.records = 0
	w.buf = w.buf[:messageHeader]
}
