package fleet

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// An answer begins with what it is. A share follows compressed (RFC 1951): how many columns, their names, how many rows, and the values of
// each row. A value is a byte for its kind; of text then its length and itself, of a whole number a varint, of any other one 8 bytes
// IEEE 754, big endian. Lengths and counts are unsigned varints.
const (
	isShare   = 'S'
	isCoarser = 'C' // followed by seconds, a varint
	isTooMany = 'M' // followed by seconds, a varint; a byte, 1: of single intervals; and why
	isRefused = 'E' // followed by why

	isNil    = 'n'
	isText   = 's'
	isWhole  = 'i'
	isNumber = 'f'
)

// Bounds of a share. What is larger is refused by who would send it, and by who would read it.
const (
	maxShare   = 64 << 20 // bytes, not compressed
	maxColumns = 256
)

// appendShare writes a share.
func appendShare(b []byte, s *query.Share) []byte {
	raw := binary.AppendUvarint(nil, uint64(len(s.Columns)))
	for _, name := range s.Columns {
		raw = appendText(raw, name)
	}
	raw = binary.AppendUvarint(raw, uint64(len(s.Rows)))
	for _, row := range s.Rows {
		for _, v := range row {
			raw = appendValue(raw, v)
		}
		if len(raw) > maxShare {
			return appendRefusal(b, store.Refusal(fmt.Sprintf("its rows have more than %d MiB; ask for less time, filter more, or group by less", maxShare>>20)))
		}
	}
	out := bytes.NewBuffer(append(b, isShare))
	w, _ := flate.NewWriter(out, flate.BestSpeed) // the level is one
	_, _ = w.Write(raw)                           // into memory
	_ = w.Close()
	return out.Bytes()
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return appendText(append(b, isText), v)
	case int64:
		return binary.AppendVarint(append(b, isWhole), v)
	case float64:
		if n := int64(v); float64(n) == v && math.Abs(v) < 1<<53 {
			return binary.AppendVarint(append(b, isWhole), n)
		}
		return binary.BigEndian.AppendUint64(append(b, isNumber), math.Float64bits(v))
	}
	return append(b, isNil)
}

// appendRefusal writes why there is no share.
func appendRefusal(b []byte, err error) []byte {
	var needed query.Coarser
	var many query.TooMany
	switch {
	case errors.As(err, &needed):
		return binary.AppendUvarint(append(b, isCoarser), uint64(needed.Resolution/time.Second))
	case errors.As(err, &many):
		b = binary.AppendUvarint(append(b, isTooMany), uint64(many.Resolution/time.Second))
		intervals := byte(0)
		if many.Intervals {
			intervals = 1
		}
		return append(append(b, intervals), many.Refusal...)
	}
	return append(append(b, isRefused), err.Error()...)
}

var errAnswer = errors.New("its answer is none")

// A plan says what a share may be like.
type plan interface {
	Columns() []string
	MaxGroups() int
}

// parseAnswer reads what another node has answered for a plan. A refusal is an error.
func parseAnswer(b []byte, p plan) (*query.Share, error) {
	if len(b) == 0 {
		return nil, errAnswer
	}
	kind, r := b[0], &reader{b: b[1:]}
	switch kind {
	case isShare:
		raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b[1:])), maxShare+1))
		if err != nil || len(raw) > maxShare {
			return nil, errAnswer
		}
		return parseShare(&reader{b: raw}, p)
	case isCoarser:
		if seconds := r.count(86400); !r.bad && seconds > 0 {
			return nil, query.Coarser{Resolution: time.Duration(seconds) * time.Second}
		}
	case isTooMany:
		seconds, intervals := r.count(86400), r.octet()
		if !r.bad {
			return nil, query.TooMany{Refusal: store.Refusal(r.b), Resolution: time.Duration(seconds) * time.Second, Intervals: intervals == 1}
		}
	case isRefused:
		return nil, errors.New(string(r.b[:min(len(r.b), 1000)]))
	}
	return nil, errAnswer
}

// errRelease says that a node means something else by the question.
var errRelease = errors.New("its answer has other columns: it runs another release")

func parseShare(r *reader, p plan) (*query.Share, error) {
	s := &query.Share{}
	for range r.count(maxColumns) {
		s.Columns = append(s.Columns, r.text())
	}
	if !r.bad && !slices.Equal(s.Columns, p.Columns()) {
		return nil, errRelease
	}
	rows := r.count(p.MaxGroups())
	for range rows {
		if r.bad {
			break
		}
		row := make([]any, len(s.Columns))
		for i := range row {
			row[i] = r.value()
		}
		s.Rows = append(s.Rows, row)
	}
	if r.bad || len(r.b) > 0 || len(s.Rows) != rows {
		return nil, errAnswer
	}
	return s, nil
}

// A reader takes values off the front of b. What is not there makes it bad, and everything after is zero.
type reader struct {
	b   []byte
	bad bool
}

// count reads a count that is at most as high.
func (r *reader) count(most int) int {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > uint64(most) {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}

func (r *reader) octet() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) text() string {
	n := r.count(len(r.b))
	if r.bad || n > len(r.b) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) value() any {
	switch r.octet() {
	case isNil:
		return nil
	case isText:
		return r.text()
	case isWhole:
		if n, size := binary.Varint(r.b); size > 0 {
			r.b = r.b[size:]
			return n
		}
	case isNumber:
		if len(r.b) >= 8 {
			f := math.Float64frombits(binary.BigEndian.Uint64(r.b))
			r.b = r.b[8:]
			if !math.IsNaN(f) {
				return f
			}
		}
	}
	r.bad = true
	return nil
}
