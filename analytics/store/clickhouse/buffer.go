package clickhouse

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A segment is a file of the buffer. What stands in it does not change when it is sealed; it is sent as a whole, and removed. Its number is
// greater than those before it, and no other segment of the node ever has it.
type segment struct {
	number uint64
	bytes  int64
	rows   uint64
	raw    int // bytes of rows; of the one that is written to
}

// A record is one batch: its length, the CRC of its body, how long that is when inflated, and its rows; four bytes each, little endian. What
// follows the last whole record was being written when the process was killed.
const (
	recordHeader = 16
	maxRecord    = 256 << 20 // bytes of rows
	segmentRaw   = 8 << 20   // bytes of rows from which on a segment is sealed
	segmentRows  = 1 << 20
	segmentEnd   = ".rows"
)

var table32 = crc32.MakeTable(crc32.Castagnoli)

// A buffer is a directory of segments. It holds at most so many bytes; the oldest segment goes when there are more.
type buffer struct {
	dir string
	max int64

	mu     sync.Mutex
	sealed []*segment // oldest first
	open   *segment   // that is written to; nil: none
	file   *os.File   // of open
	last   uint64     // number
	total  int64
	lost   uint64 // rows that there was no room for
	pack   *flate.Writer
}

func openBuffer(dir string, limit int64) (*buffer, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	b := &buffer{dir: dir, max: limit}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentEnd)
		number, err := strconv.ParseUint(name, 16, 64)
		if !ok || err != nil || len(name) != 16 {
			continue
		}
		s := &segment{number: number}
		if s.rows, s.bytes, err = b.measure(s); err != nil {
			return nil, err
		}
		b.sealed = append(b.sealed, s)
		b.last, b.total = max(b.last, number), b.total+s.bytes
	}
	slices.SortFunc(b.sealed, func(x, y *segment) int { return bytes.Compare(be(x.number), be(y.number)) })
	b.pack, err = flate.NewWriter(io.Discard, flate.BestSpeed)
	return b, err
}

func be(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func (b *buffer) path(s *segment) string {
	return filepath.Join(b.dir, fmt.Sprintf("%016x%s", s.number, segmentEnd))
}

// measure counts the rows of a segment from its records' headers.
func (b *buffer) measure(s *segment) (rows uint64, size int64, err error) {
	text, err := os.ReadFile(b.path(s))
	if err != nil {
		return 0, 0, err
	}
	for rest := text; ; {
		_, n, next := record(rest)
		if next == nil {
			return rows, int64(len(text)), nil
		}
		rows, rest = rows+uint64(n), next
	}
}

// record takes the first record; next is nil if there is no whole one.
func record(text []byte) (body []byte, rows uint32, next []byte) {
	if len(text) < recordHeader {
		return nil, 0, nil
	}
	size := binary.LittleEndian.Uint32(text)
	if uint64(size) > uint64(len(text)-recordHeader) {
		return nil, 0, nil
	}
	body = text[recordHeader : recordHeader+size]
	if crc32.Checksum(body, table32) != binary.LittleEndian.Uint32(text[4:]) {
		return nil, 0, nil
	}
	return body, binary.LittleEndian.Uint32(text[12:]), text[recordHeader+size:]
}

// write appends a batch. After an error nothing of it is there. Fresh says that what comes next is in another segment.
func (b *buffer) write(chunks []*chunk, now uint64) (fresh bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text, rows, raw, err := b.encode(chunks)
	if err != nil {
		return false, err
	}
	if b.open == nil {
		s := &segment{number: max(b.last+1, now)}
		if b.file, err = os.OpenFile(b.path(s), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return false, err
		}
		b.open, b.last = s, s.number
	}
	s := b.open
	if _, err := b.file.WriteAt(text, s.bytes); err != nil {
		return false, errors.Join(err, b.file.Truncate(s.bytes))
	}
	s.bytes, s.rows, s.raw = s.bytes+int64(len(text)), s.rows+rows, s.raw+raw
	b.total += int64(len(text))
	if s.raw >= segmentRaw || s.rows >= segmentRows || s.bytes > b.max/8 {
		fresh = true
		err = b.sealNow()
	}
	return fresh, errors.Join(err, b.bound())
}

func (b *buffer) encode(chunks []*chunk) (text []byte, rows uint64, raw int, err error) {
	var body []byte
	for _, c := range chunks {
		body = append(body, byte(c.table))
		for _, n := range []uint32{c.partition, c.rows, c.from, c.to, uint32(len(c.text))} {
			body = binary.LittleEndian.AppendUint32(body, n)
		}
		body = append(body, c.text...)
		rows += uint64(c.rows)
	}
	if len(body) > maxRecord {
		return nil, 0, 0, fmt.Errorf("a batch takes %d bytes; %d are allowed: write smaller ones", len(body), maxRecord)
	}
	var out bytes.Buffer
	out.Write(make([]byte, recordHeader))
	b.pack.Reset(&out)
	if _, err = b.pack.Write(body); err == nil {
		err = b.pack.Close()
	}
	text = out.Bytes()
	binary.LittleEndian.PutUint32(text, uint32(len(text)-recordHeader))
	binary.LittleEndian.PutUint32(text[4:], crc32.Checksum(text[recordHeader:], table32))
	binary.LittleEndian.PutUint32(text[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(text[12:], uint32(rows))
	return text, rows, len(body), err
}

// bound removes the oldest segments while there is too much. b.mu is held.
func (b *buffer) bound() error {
	for b.total > b.max && len(b.sealed) > 0 {
		s := b.sealed[0]
		b.lost += s.rows
		if err := b.removeNow(s); err != nil {
			return err
		}
	}
	return nil
}

// seal ends the segment that is written to.
func (b *buffer) seal() (fresh bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh = b.open != nil
	return fresh, b.sealNow()
}

func (b *buffer) sealNow() error {
	if b.open == nil {
		return nil
	}
	err := b.file.Close()
	b.sealed = append(b.sealed, b.open)
	b.open, b.file = nil, nil
	return err
}

// first is the oldest sealed segment, or nil.
func (b *buffer) first() *segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.sealed) == 0 {
		return nil
	}
	return b.sealed[0]
}

// remove removes a segment, if it is not gone already.
func (b *buffer) remove(s *segment) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.removeNow(s)
}

func (b *buffer) removeNow(s *segment) error {
	i := slices.Index(b.sealed, s)
	if i < 0 {
		return nil
	}
	if err := os.Remove(b.path(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.sealed = slices.Delete(b.sealed, i, i+1)
	b.total -= s.bytes
	return nil
}

func (b *buffer) size() (bytes int64, lost uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total, b.lost
}

// read returns the chunks of a sealed segment; damaged says that its end could not be read. fs.ErrNotExist: it is gone.
func (b *buffer) read(s *segment) (chunks []*chunk, damaged bool, err error) {
	text, err := os.ReadFile(b.path(s))
	if err != nil {
		return nil, false, err
	}
	for len(text) > 0 {
		packed, _, next := record(text)
		if next == nil {
			return chunks, true, nil
		}
		body, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxRecord+1))
		if err != nil || len(body) > maxRecord {
			return chunks, true, nil
		}
		var ok bool
		if chunks, ok = merge(chunks, body); !ok {
			return chunks, true, nil
		}
		text = next
	}
	return chunks, false, nil
}

// merge adds the chunks of a record to those of the same table and partition.
func merge(chunks []*chunk, body []byte) ([]*chunk, bool) {
	for len(body) > 0 {
		if len(body) < 21 {
			return chunks, false
		}
		var n [5]uint32
		for i := range n {
			n[i] = binary.LittleEndian.Uint32(body[1+4*i:])
		}
		x := &chunk{table: int(body[0]), partition: n[0], rows: n[1], from: n[2], to: n[3]}
		if x.table >= len(tables) || uint64(n[4]) > uint64(len(body)-21) {
			return chunks, false
		}
		x.text, body = body[21:21+n[4]], body[21+n[4]:]
		i := slices.IndexFunc(chunks, func(c *chunk) bool { return c.table == x.table && c.partition == x.partition })
		if i < 0 {
			chunks = append(chunks, x)
			continue
		}
		c := chunks[i]
		c.rows, c.from, c.to, c.text = c.rows+x.rows, min(c.from, x.from), max(c.to, x.to), append(c.text[:len(c.text):len(c.text)], x.text...)
	}
	return chunks, true
}
