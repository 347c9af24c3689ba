// Package geotest makes databases in MaxMind's format for tests: nobody's may be copied here.
package geotest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// A Record is what a database says of a prefix: names and values, values being texts, numbers or records.
type Record map[string]any

// encode is the value in MaxMind's DB format 2.0, data section; no text here has 285 bytes, and no map 29 entries.
func encode(v any) []byte {
	var b []byte
	switch v := v.(type) {
	case string:
		if len(v) >= 29 {
			return append(append(b, 2<<5|29, byte(len(v)-29)), v...)
		}
		return append(append(b, 2<<5|byte(len(v))), v...)
	case uint32:
		return binary.BigEndian.AppendUint32(append(b, 6<<5|4), v)
	case uint16:
		return binary.BigEndian.AppendUint16(append(b, 5<<5|2), v)
	case uint64:
		return binary.BigEndian.AppendUint64(append(b, 8, 9-7), v)
	case []string:
		b = append(b, byte(len(v)), 11-7)
		for _, s := range v {
			b = append(b, encode(s)...)
		}
	case Record:
		b = append(b, 7<<5|byte(len(v)))
		for name, x := range v {
			b = append(append(b, encode(name)...), encode(x)...)
		}
	}
	return b
}

// Write makes a file of that type, such as GeoLite2-ASN, of what it says of prefixes, and returns its path. Its search tree has 24-bit records, and
// is made bit by bit.
func Write(t testing.TB, kind string, of map[string]Record) string {
	t.Helper()
	type node [2]int // 0: nothing; below 0: the record at -n-1; else the node
	tree, data := []node{{}}, []byte(nil)
	for prefix, r := range of {
		p := netip.MustParsePrefix(prefix)
		addr, bits := p.Addr().As16(), p.Bits()
		if p.Addr().Is4() {
			addr, bits = [16]byte{}, bits+96
			copy(addr[12:], p.Addr().AsSlice())
		}
		at := 0
		for i := range bits {
			side := addr[i/8] >> (7 - i%8) & 1
			if i == bits-1 {
				tree[at][side] = -len(data) - 1
			} else if tree[at][side] == 0 {
				tree = append(tree, node{})
				tree[at][side] = len(tree) - 1
			}
			at = max(tree[at][side], 0)
		}
		data = append(data, encode(r)...)
	}
	var b bytes.Buffer
	for _, n := range tree {
		for _, to := range n {
			switch {
			case to == 0:
				to = len(tree)
			case to < 0:
				to = len(tree) + 16 - to - 1
			}
			b.Write([]byte{byte(to >> 16), byte(to >> 8), byte(to)})
		}
	}
	b.Write(make([]byte, 16))
	b.Write(data)
	b.WriteString("\xab\xcd\xefMaxMind.com")
	b.Write(encode(Record{"node_count": uint32(len(tree)), "record_size": uint16(24), "ip_version": uint16(6), "database_type": kind,
		"languages": []string{"en"}, "binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0),
		"build_epoch": uint64(1_700_000_000), "description": Record{"en": "a test's"}}))
	path := filepath.Join(t.TempDir(), kind+".mmdb")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
