// Package geo tells to whom an address belongs, and in which country it is, by databases in MaxMind's format that the operator gives.
package geo

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/oschwald/maxminddb-golang"

	"causeway/analytics/store"
)

// A DB answers from up to two files. The zero DB knows nothing.
type DB struct {
	asn, country *maxminddb.Reader

	mu    sync.Mutex
	known map[[16]byte]store.Origin // what was looked up lately; a look-up allocates
}

// cacheSize bounds known; when it is full it is begun anew.
const cacheSize = 1 << 14

// Open opens the files; an empty path is none. A file that does not have what it is for is an error.
func Open(asn, country string) (*DB, error) {
	d := &DB{known: map[[16]byte]store.Origin{}}
	var first, second error
	if d.asn, first = open(asn, "ASN"); first != nil {
		first = fmt.Errorf("analytics.geo.asn: %w", first)
	}
	if d.country, second = open(country, "Country", "City", "Enterprise"); second != nil {
		second = fmt.Errorf("analytics.geo.country: %w", second)
	}
	if err := errors.Join(first, second); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// open reads a file whole, and wants its type, such as GeoLite2-ASN, to name one of these things.
func open(path string, kinds ...string) (*maxminddb.Reader, error) {
	if path == "" {
		return nil, nil
	}
	r, err := maxminddb.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; give a file in MaxMind's format (.mmdb)", path, err)
	}
	if err := r.Verify(); err != nil {
		return nil, fmt.Errorf("%s: %w; get it again", path, err)
	}
	for _, k := range kinds {
		if strings.Contains(r.Metadata.DatabaseType, k) {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%s: it is of type %q: give one of %s", path, r.Metadata.DatabaseType, strings.Join(kinds, ", "))
}

// Built is when the older of the files was made; the zero time: there is none.
func (d *DB) Built() (t time.Time) {
	for _, r := range []*maxminddb.Reader{d.asn, d.country} {
		if r == nil {
			continue
		}
		if at := time.Unix(int64(r.Metadata.BuildEpoch), 0); t.IsZero() || at.Before(t) {
			t = at
		}
	}
	return t
}

// Lookup is what is known of an address, IPv4 in IPv6 form.
func (d *DB) Lookup(addr [16]byte) store.Origin {
	if d.asn == nil && d.country == nil {
		return store.Origin{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if o, ok := d.known[addr]; ok {
		return o
	}
	o := d.find(net.IP(addr[:]))
	if len(d.known) >= cacheSize {
		clear(d.known)
	}
	d.known[addr] = o
	return o
}

// find reads the files. An address that is not in them has no record, and what is not in a record stays empty.
func (d *DB) find(ip net.IP) (o store.Origin) {
	var as struct {
		Number uint32 `maxminddb:"autonomous_system_number"`
		Name   string `maxminddb:"autonomous_system_organization"`
	}
	var place struct {
		Country struct {
			ISO string `maxminddb:"iso_code"`
		} `maxminddb:"country"`
	}
	if d.asn != nil && d.asn.Lookup(ip, &as) == nil {
		o.ASN, o.ASName = as.Number, as.Name
	}
	if d.country != nil && d.country.Lookup(ip, &place) == nil {
		o.Country = place.Country.ISO
	}
	return o
}

// Close gives the files back.
func (d *DB) Close() {
	for _, r := range []*maxminddb.Reader{d.asn, d.country} {
		if r != nil {
			_ = r.Close() // it was only read
		}
	}
}
