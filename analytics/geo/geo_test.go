package geo

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/analytics/store"
)

// A record is what a database says of a prefix: names and values, values being texts, numbers or records.
type record map[string]any

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
	case record:
		b = append(b, 7<<5|byte(len(v)))
		for name, x := range v {
			b = append(append(b, encode(name)...), encode(x)...)
		}
	}
	return b
}

// write makes a database with a search tree of 24-bit records, bit by bit.
func write(t *testing.T, kind string, of map[string]record) string {
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
	b.Write(encode(record{"node_count": uint32(len(tree)), "record_size": uint16(24), "ip_version": uint16(6), "database_type": kind,
		"languages": []string{"en"}, "binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0),
		"build_epoch": uint64(1_700_000_000), "description": record{"en": "a test's"}}))
	path := filepath.Join(t.TempDir(), kind+".mmdb")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLookup(t *testing.T) {
	asn := write(t, "GeoLite2-ASN", map[string]record{
		"192.0.2.0/24":    {"autonomous_system_number": uint32(64500), "autonomous_system_organization": "Example Net"},
		"2001:db8:7::/48": {"autonomous_system_number": uint32(64501)},
	})
	country := write(t, "GeoLite2-Country", map[string]record{"192.0.2.128/25": {"country": record{"iso_code": "NL"}}})
	d, err := Open(asn, country)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for range 2 { // from the files, and from memory
		for addr, want := range map[string]store.Origin{
			"192.0.2.1":     {ASN: 64500, ASName: "Example Net"},
			"192.0.2.200":   {ASN: 64500, ASName: "Example Net", Country: "NL"},
			"2001:db8:7::1": {ASN: 64501},
			"198.51.100.1":  {},
			"::":            {},
		} {
			if got := d.Lookup(netip.MustParseAddr(addr).As16()); got != want {
				t.Errorf("%s: %+v, want %+v", addr, got, want)
			}
		}
	}
	for i := range 3 * cacheSize {
		d.Lookup([16]byte{1: 1, 14: byte(i >> 8), 15: byte(i)})
	}
	if len(d.known) > cacheSize {
		t.Errorf("%d addresses are kept", len(d.known))
	}
	if !d.Built().Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("built %v", d.Built())
	}
}

func TestWithoutFiles(t *testing.T) {
	d, err := Open("", "")
	if err != nil || d.Lookup([16]byte{1}) != (store.Origin{}) || !d.Built().IsZero() {
		t.Errorf("%v", err)
	}
	d.Close()
}

func TestWrongFiles(t *testing.T) {
	asn := write(t, "GeoLite2-ASN", map[string]record{"192.0.2.0/24": {"autonomous_system_number": uint32(1)}})
	whole, err := os.ReadFile(asn)
	if err != nil {
		t.Fatal(err)
	}
	garbage, cut := filepath.Join(t.TempDir(), "garbage"), filepath.Join(t.TempDir(), "cut")
	for path, b := range map[string][]byte{garbage: []byte("not a database"), cut: whole[200:]} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct{ asn, country, want string }{
		{"", asn, `analytics.geo.country: ` + asn + `: it is of type "GeoLite2-ASN": give one of Country, City, Enterprise`},
		{"/nothing/there", "", "analytics.geo.asn: "},
		{garbage, "", "analytics.geo.asn: "},
		{cut, "", "analytics.geo.asn: "},
	} {
		if _, err := Open(x.asn, x.country); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%q %q: %v, want %q", x.asn, x.country, err, x.want)
		}
	}
}
