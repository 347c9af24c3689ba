package geo

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/analytics/geo/geotest"
	"causeway/analytics/store"
)

func TestLookup(t *testing.T) {
	asn := geotest.Write(t, "GeoLite2-ASN", map[string]geotest.Record{
		"192.0.2.0/24":    {"autonomous_system_number": uint32(64500), "autonomous_system_organization": "Example Net"},
		"2001:db8:7::/48": {"autonomous_system_number": uint32(64501)},
	})
	country := geotest.Write(t, "GeoLite2-Country", map[string]geotest.Record{"192.0.2.128/25": {"country": geotest.Record{"iso_code": "NL"}}})
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
	asn := geotest.Write(t, "GeoLite2-ASN", map[string]geotest.Record{"192.0.2.0/24": {"autonomous_system_number": uint32(1)}})
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
