package config

import (
	"maps"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Analytics says what is kept of the traffic, and who may ask for it.
type Analytics struct {
	Listen     netip.AddrPort // of GraphQL; the zero AddrPort: nobody can ask
	TLS        ServerTLS      // the zero ServerTLS: none
	Tokens     string         // path of the file of bearer tokens; "": everybody who reaches Listen sees all
	Sampling   uint32         // one packet in so many; 0: none
	Retention  Retention
	Disk       int64 // bytes that the store, or with ClickHouse the buffer, may take at most
	ClickHouse ClickHouse
	Export     Export
	Place      Place
	Geo        Geo
	Truncate   Truncate

	Attacks map[string]int64 // packets a second from which on something is an attack, by vector; 0: it is not looked for. What is not there has a default
}

// ServerTLS is paths of PEM files.
type ServerTLS struct{ Certificate, Key string }

// Retention is for how long what is counted is kept, by how finely.
type Retention struct{ Second, Minute, Hour, Samples, Tops time.Duration }

// ClickHouse is the server that keeps what is counted; the zero ClickHouse: a store of the node's own does.
type ClickHouse struct {
	URL      string // with the user and the database
	Password Secret // of the user; "": none
}

// Export is the collectors that are told, each "host:port" over UDP.
type Export struct{ SFlow, IPFIX []string }

// Place is where the node's data center is, for those who look at its rows.
type Place struct{ City, Country, Geohash string }

// Geo is paths of databases in MaxMind's format; "": there is none.
type Geo struct{ ASN, Country string }

// Truncate is how many bits of an address are kept; 0: all.
type Truncate struct{ IPv4, IPv6 int }

// What a file means that leaves it out.
const (
	DefaultSampling = 1000
	DefaultDisk     = 10 << 30
)

// DefaultRetention is what a file means that says nothing.
var DefaultRetention = Retention{Second: time.Hour, Minute: 30 * day, Hour: 400 * day, Samples: 7 * day, Tops: 2 * day}

const (
	day         = 24 * time.Hour
	maxSampling = 1_000_000

	// SamplingOff is Tunnel.Sampling of a tunnel that is not sampled.
	SamplingOff = math.MaxUint32
)

var (
	analyticsSchema = schema{
		fields: []string{"listen", "tls", "tokens", "sampling", "retention", "disk", "export", "place", "geo", "truncate", "attacks",
			"clickhouse", "clickhouse_password"},
	}
	serverTLSSchema = schema{fields: []string{"certificate", "key"}}
	tokensSchema    = schema{fields: []string{"file"}}
	retentionSchema = schema{fields: []string{"1s", "1m", "1h", "samples", "tops"}}
	exportSchema    = schema{fields: []string{"sflow", "ipfix"}}
	placeSchema     = schema{fields: []string{"city", "country", "geohash"}}
	geoSchema       = schema{fields: []string{"asn", "country"}}
	attacksSchema   = schema{fields: []string{"syn_flood", "syn_ack_flood", "ack_flood", "rst_flood", "udp_flood", "icmp_flood", "dns_reflection", "reflection",
		"fragment_flood", "gre_flood", "esp_flood", "protocol_flood", "port_scan", "traffic_jump"}}
	truncateSchema = schema{fields: []string{"ipv4", "ipv6"}}
)

func (d *decoder) analytics(v value) *Analytics {
	f, ok := v.mapping(analyticsSchema)
	if !ok {
		return nil
	}
	a := &Analytics{Sampling: DefaultSampling, Retention: DefaultRetention, Disk: DefaultDisk}
	if v, ok := f.get("listen"); ok {
		a.Listen, _ = v.listen()
	}
	if v, ok := f.get("tls"); ok {
		d.serverTLS(v, &a.TLS)
	}
	if v, ok := f.get("tokens"); ok {
		if f, ok := v.mapping(tokensSchema); ok {
			if v, ok := f.need("file", "the path of a file with a line for each token, as docs/analytics.md says"); ok {
				a.Tokens, _ = v.absolutePath()
			}
		}
	}
	if v, ok := f.get("sampling"); ok {
		a.Sampling = v.sampling()
	}
	if v, ok := f.get("retention"); ok {
		d.retention(v, &a.Retention)
	}
	if v, ok := f.get("disk"); ok {
		a.Disk = v.bytes(64<<20, 1<<50)
	}
	if v, ok := f.get("clickhouse"); ok {
		a.ClickHouse.URL = v.clickHouse()
	}
	if v, ok := f.get("clickhouse_password"); ok {
		a.ClickHouse.Password, _ = v.preShared()
		if a.ClickHouse.URL == "" {
			v.fail("is of no use without analytics.clickhouse: write the URL of the server, or remove it")
		}
	}
	if v, ok := f.get("export"); ok {
		d.export(v, &a.Export)
	}
	d.aboutAddresses(f, a)
	if v, ok := f.get("attacks"); ok {
		a.Attacks = d.attacks(v)
	}
	if l := a.Listen; l.IsValid() && !l.Addr().IsLoopback() && (!f.given["tls"] || !f.given["tokens"]) {
		f.fail("%s can be reached from other machines: tls and tokens are needed, or a loopback address", l)
	}
	return a
}

// databaseName is what a database may be called, so that it needs no quotes.
var databaseName = regexp.MustCompile(`^/?$|^/[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// clickHouse returns the URL of a server; "" stands for none.
func (v value) clickHouse() string {
	const example = "http://edge@clickhouse.example.net:8123/causeway"
	s, ok := v.textLike("a URL such as " + example)
	if !ok || s == "" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil { // it may have a password, and is not shown
		v.fail("is no URL: write one such as %s", example)
		return ""
	}
	_, password := u.User.Password()
	switch {
	case password:
		v.fail("has a password in it, which would stand in logs: remove it, and write clickhouse_password: {file: PATH}")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		v.fail("%s is not the URL of a server's HTTP interface: write one such as %s", quote(s), example)
	case !databaseName.MatchString(u.Path):
		v.fail("%s names the database %s: write letters, digits and _", quote(s), quote(strings.TrimPrefix(u.Path, "/")))
	default:
		return s
	}
	return ""
}

// sampling returns one in how many packets is sampled.
func (v value) sampling() uint32 {
	if v.isWord("off") {
		return 0
	}
	n, _ := v.integerOr("off, or ", 1, maxSampling)
	return uint32(n)
}

func (d *decoder) serverTLS(v value, t *ServerTLS) {
	f, ok := v.mapping(serverTLSSchema)
	if !ok {
		return
	}
	if v, ok := f.need("certificate", "the path of a PEM file with the certificate, and its chain"); ok {
		t.Certificate = v.pemFile(false)
	}
	if v, ok := f.need("key", "the path of a PEM file with its key"); ok {
		t.Key = v.pemFile(true)
	}
}

func (d *decoder) retention(v value, r *Retention) {
	f, ok := v.mapping(retentionSchema)
	if !ok {
		return
	}
	for _, x := range []struct {
		name   string
		to     *time.Duration
		bounds durationBounds
	}{
		{"1s", &r.Second, durationBounds{time.Hour, 7 * day, "minutes are made of seconds", "a second of a thousand tunnels takes 50 kB"}},
		{"1m", &r.Minute, durationBounds{2 * time.Hour, 400 * day, "hours are made of minutes", "hours are there for what is older"}},
		{"1h", &r.Hour, durationBounds{2 * day, 4000 * day, "what is not kept cannot be looked at", "nobody looks at what is older"}},
		{"tops", &r.Tops, durationBounds{2 * time.Hour, 400 * day, "the hour that has begun is made of minutes", "hours are there for what is older"}},
		{"samples", &r.Samples, durationBounds{time.Hour, 400 * day, "what is not kept cannot be looked at", "a sample takes some hundred bytes"}},
	} {
		if v, ok := f.get(x.name); ok {
			if t, ok := v.duration(x.bounds, ""); ok {
				*x.to = t
			}
		}
	}
	if v, ok := f.get("tops"); ok && r.Tops > r.Hour {
		v.fail("%s is longer than hours are kept, which is %s: write that at most, or a longer 1h", spell(r.Tops), spell(r.Hour))
	}
	if r.Second > r.Minute || r.Minute > r.Hour {
		f.fail("what is counted more finely is kept for a shorter time: 1s is %s, 1m %s, 1h %s", spell(r.Second), spell(r.Minute), spell(r.Hour))
	}
}

// bytes returns a size such as 500MiB.
func (v value) bytes(low, high int64) int64 {
	const example = "a size such as 500MiB, 10GiB or 1TiB"
	s, ok := v.textLike(example)
	if !ok {
		return 0
	}
	for unit, shift := range map[string]int{"MiB": 20, "GiB": 30, "TiB": 40} {
		if len(s) <= len(unit) || s[len(s)-len(unit):] != unit {
			continue
		}
		n, err := strconv.ParseUint(s[:len(s)-len(unit)], 10, 24)
		if size := int64(n) << shift; err == nil && size >= low && size <= high {
			return size
		}
		v.fail("%s is out of bounds: write 64MiB at least, and 1024TiB at most", quote(s))
		return 0
	}
	v.fail("%s is no size: write %s", quote(s), example)
	return 0
}

func (d *decoder) export(v value, e *Export) {
	f, ok := v.mapping(exportSchema)
	if !ok {
		return
	}
	if v, ok := f.get("sflow"); ok {
		e.SFlow = v.collectors()
	}
	if v, ok := f.get("ipfix"); ok {
		e.IPFIX = v.collectors()
	}
}

// collectors returns a list of different hosts with ports.
func (v value) collectors() (list []string) {
	elements, _ := v.list("collectors")
	first := map[string]string{}
	for _, e := range elements {
		const example = "a host and a port such as 192.0.2.9:6343"
		s, ok := e.textLike(example)
		if !ok {
			continue
		}
		host, port, err := net.SplitHostPort(s)
		n, wrong := strconv.ParseUint(port, 10, 16)
		switch before, twice := first[s]; {
		case err != nil || wrong != nil || n == 0 || host == "":
			e.fail("%s is not %s", quote(s), example)
		case twice:
			e.fail("%s is listed twice, first as %s: remove one", s, before)
		default:
			first[s], list = e.path, append(list, s)
		}
	}
	return list
}

// aboutAddresses decodes what is told of addresses, and of the node's own place.
func (d *decoder) aboutAddresses(analytics fields, a *Analytics) {
	text := func(f fields, name, what string, to *string) {
		if v, ok := f.get(name); ok {
			*to, _ = v.textLike(what)
		}
	}
	if v, ok := analytics.get("place"); ok {
		if f, ok := v.mapping(placeSchema); ok {
			text(f, "city", "a name such as Amsterdam", &a.Place.City)
			text(f, "country", "two letters such as NL", &a.Place.Country)
			text(f, "geohash", "a geohash such as u173z", &a.Place.Geohash)
		}
	}
	if v, ok := analytics.get("geo"); ok {
		if f, ok := v.mapping(geoSchema); ok {
			for name, to := range map[string]*string{"asn": &a.Geo.ASN, "country": &a.Geo.Country} {
				if v, ok := f.get(name); ok {
					*to, _ = v.absolutePath()
				}
			}
		}
	}
	if v, ok := analytics.get("truncate"); ok {
		if f, ok := v.mapping(truncateSchema); ok {
			for _, x := range []struct {
				name string
				high int64
				to   *int
			}{{"ipv4", 32, &a.Truncate.IPv4}, {"ipv6", 128, &a.Truncate.IPv6}} {
				if v, ok := f.get(x.name); ok {
					n, _ := v.integer(8, x.high)
					*x.to = int(n)
				}
			}
		}
	}
}

// attacks returns the thresholds that are given.
func (d *decoder) attacks(v value) map[string]int64 {
	f, ok := v.mapping(attacksSchema)
	if !ok {
		return nil
	}
	given := map[string]int64{}
	for _, name := range attacksSchema.fields {
		if v, ok := f.get(name); ok && v.isWord("off") {
			given[name] = 0
		} else if ok {
			given[name], _ = v.integerOr("off, or ", 1, 1_000_000_000)
		}
	}
	return given
}

// same reports whether two sections mean the same, but for the rate of samples, which a running daemon takes over, and thresholds.
func (a *Analytics) same(b *Analytics) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Listen == b.Listen && a.TLS == b.TLS && a.Tokens == b.Tokens && a.Retention == b.Retention && a.Disk == b.Disk && a.Place == b.Place &&
		a.ClickHouse.URL == b.ClickHouse.URL && string(a.ClickHouse.Password) == string(b.ClickHouse.Password) &&
		a.Geo == b.Geo && a.Truncate == b.Truncate && sameSet(a.Export.SFlow, b.Export.SFlow) && sameSet(a.Export.IPFIX, b.Export.IPFIX)
}

// checkAnalytics finds what cannot be together with the rest of the file.
func (k *checker) checkAnalytics() {
	if a := k.c.Analytics; a != nil && a.Listen.IsValid() && a.Listen == k.c.Metrics.Listen {
		k.fail("analytics.listen", "%s is where metrics listen (%s): write another port", a.Listen, k.there("metrics.listen"))
	}
}

// warnAnalytics says what anybody may see, and what nobody will.
func (d *decoder) warnAnalytics(c *Config) {
	a := c.Analytics
	switch {
	case a == nil:
	case a.Listen.IsValid() && a.Tokens == "":
		d.warn("analytics.listen", "all users of this machine see the traffic of all accounts at %s: write tokens: {file: PATH}", a.Listen)
	case !a.Listen.IsValid() && len(a.Export.SFlow)+len(a.Export.IPFIX) == 0:
		d.warn("analytics", "what is counted nobody can ask for: write listen, or export")
	}
}

// sameAttacks reports whether two sections look for the same attacks.
func (a *Analytics) sameAttacks(b *Analytics) bool {
	return a == nil || b == nil || maps.Equal(a.Attacks, b.Attacks)
}

// SamplingRate is one packet in how many that is sampled; 0: none.
func (a *Analytics) SamplingRate() uint32 {
	if a == nil {
		return 0
	}
	return a.Sampling
}
