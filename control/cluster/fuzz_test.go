package cluster

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"causeway/control/cluster/seal"
	"causeway/crypto/esp"
)

// FuzzRecord: what is read is written and read as the same again, and what makes a child has keys for its suite.
func FuzzRecord(f *testing.F) {
	for _, name := range esp.SuiteNames() {
		s, err := esp.ParseSuite(name)
		if err != nil {
			f.Fatal(err)
		}
		r := recordOf(fullChild(s))
		f.Add(r.marshal())
	}
	for _, text := range []string{"", "null", `{"v":1,"kind":"gone"}`, `{"v":1,"kind":"reserved","g":18446744073709551615,"expires":"9999-12-31T23:59:59.999999999-23:59"}`,
		`{"v":1,"kind":"child","suite":"null-sha1","local":["",null,"::ffff:1.2.3.4/128"],"peer":"[fe80::1%eth0]:0","endpoint":""}`, `{"v":1,"kind":"child","expires":"0000-01-01T00:00:00+00:01"}`,
		`{"V":1,"KIND":"child","key_in":[1,2]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			if r != nil {
				t.Fatalf("%q: a record, and %v", b, err)
			}
			return
		}
		text := r.marshal()
		again, err := parseRecord(text)
		if err != nil || !bytes.Equal(again.marshal(), text) {
			t.Fatalf("%q is written as %s: %v", b, text, err)
		}
		if c, err := r.child(4711); err == nil && (c.SPIIn != 4711 || len(c.KeyIn) != c.Suite.KeySize() || len(c.KeyOut) != c.Suite.KeySize()) {
			t.Fatalf("%q makes %v", b, c)
		}
	})
}

// FuzzMember offers records that nobody has signed, of which none is believed, and then what an admitted node might sign.
func FuzzMember(f *testing.F) {
	hub, a := fixed(f, 1), fixed(f, 2)
	roster := seal.Roster{"hub": hub.Public().Fingerprint(), "a": a.Public().Fingerprint()}
	known := map[string]bool{}
	for _, m := range []*Member{memberOf("hub", hub), {Version: 1, Name: "hub", Public: hub.Public()}} {
		text := textOf(f, m)
		known[string(m.sign(hub))] = true
		f.Add(m.sign(hub))
		f.Add(m.sign(a))
		f.Add([]byte(text))
		f.Add([]byte(strings.Replace(text, `"beat":`, `"later":{},"Beat":`, 1)))
	}
	f.Add(memberOf("a", a).sign(a))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseMember("hub", b, roster); (err == nil) != known[string(b)] {
			t.Fatalf("%q: %v", b, err)
		}
		m, err := parseMember("hub", said(hub, string(b)), roster)
		if err != nil {
			return
		}
		if m.Name != "hub" || m.Public.Fingerprint() != roster["hub"] {
			t.Fatalf("%q is %s %s", b, m.Name, m.Public.Fingerprint())
		}
		text := m.sign(hub)
		if len(text) > maxMember {
			return // JSON writes some letters as six
		}
		if again, err := parseMember("hub", text, roster); err != nil || !bytes.Equal(again.sign(hub), text) {
			t.Fatalf("%q is written as %q: %v", b, text, err)
		}
	})
}

// FuzzSPIKey: a text is the key of at most one SPI, and an SPI has one key.
func FuzzSPIKey(f *testing.F) {
	for _, key := range []string{"", "00000001", "ffffffff", "0000001", "0000000g", "00000001 ", "+0000001", "ABCDEF01", "000000001", "0x000001"} {
		f.Add(key, uint32(0x100))
	}
	f.Fuzz(func(t *testing.T, key string, spi uint32) {
		if got, err := parseSPIKey(key); err == nil && spiKey(got) != key || err != nil && err.Error() != fmt.Sprintf("%q is no SPI", key) {
			t.Fatalf("%q is that of %#x: %v", key, got, err)
		}
		if got, err := parseSPIKey(spiKey(spi)); err != nil || got != spi || len(spiKey(spi)) != 8 {
			t.Fatalf("%#x is %#x: %v", spi, got, err)
		}
	})
}
