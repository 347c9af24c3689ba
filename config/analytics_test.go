package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAnalytics(t *testing.T) {
	if a := mustParse(t, base).Analytics; a != nil || a.SamplingRate() != 0 {
		t.Errorf("without the section: %+v", a)
	}
	want := Analytics{Sampling: 1000, Retention: Retention{time.Hour, 30 * 24 * time.Hour, 400 * 24 * time.Hour, 7 * 24 * time.Hour, 2 * 24 * time.Hour}, Disk: 10 << 30}
	if a := mustParse(t, base+"analytics: {}\n").Analytics; !reflect.DeepEqual(*a, want) {
		t.Errorf("an empty section: %+v, want %+v", a, want)
	}
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"cert": 0o644, "key": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	text := base + `    sampling: 50
analytics:
  listen: 192.0.2.1:9151
  tls: {certificate: DIR/cert, key: DIR/key}
  tokens: {file: DIR/tokens}
  sampling: off
  retention: {1s: 2h, 1m: 1d, 1h: 30d, samples: 1h, tops: 7d}
  disk: 500MiB
  clickhouse: http://edge@clickhouse.example.net:8123/causeway
  clickhouse_password: {file: DIR/key}
  export: {sflow: ["192.0.2.9:6343", "collector.example.net:6343"], ipfix: ["[2001:db8::9]:4739"]}
  place: {city: Amsterdam, country: NL, geohash: u173z}
  geo: {asn: /asn.mmdb, country: /country.mmdb}
  truncate: {ipv4: 24, ipv6: 48}
  attacks: {syn_flood: 500, udp_flood: off}
`
	c := mustParse(t, strings.ReplaceAll(text, "DIR", dir))
	want = Analytics{Listen: c.Analytics.Listen, TLS: ServerTLS{dir + "/cert", dir + "/key"}, Tokens: dir + "/tokens",
		Retention: Retention{2 * time.Hour, 24 * time.Hour, 30 * 24 * time.Hour, time.Hour, 7 * 24 * time.Hour}, Disk: 500 << 20,
		ClickHouse: ClickHouse{"http://edge@clickhouse.example.net:8123/causeway", Secret("x")},
		Export:     Export{[]string{"192.0.2.9:6343", "collector.example.net:6343"}, []string{"[2001:db8::9]:4739"}},
		Place:      Place{"Amsterdam", "NL", "u173z"}, Geo: Geo{"/asn.mmdb", "/country.mmdb"}, Truncate: Truncate{24, 48},
		Attacks: map[string]int64{"syn_flood": 500, "udp_flood": 0}}
	if !reflect.DeepEqual(*c.Analytics, want) || c.Analytics.Listen.String() != "192.0.2.1:9151" || c.Tunnels[0].Sampling != 50 {
		t.Errorf("%+v, want %+v; tunnel %d", c.Analytics, want, c.Tunnels[0].Sampling)
	}
	if s := mustParse(t, base+"    sampling: off\n").Tunnels[0].Sampling; s != SamplingOff {
		t.Errorf("sampling: off is %d", s)
	}
}

func TestAnalyticsMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"listen: 0.0.0.0:9151":                          "c.yaml:9:12: analytics: 0.0.0.0:9151 can be reached from other machines: tls and tokens are needed",
		"listen: 9151":                                  "analytics.listen: must be an address and a port",
		"sampling: 0":                                   "analytics.sampling: must be off, or a whole number from 1 to 1000000, got 0",
		"sampling: none":                                `analytics.sampling: must be off, or a whole number from 1 to 1000000, got "none"`,
		"sampling: 1000001":                             "analytics.sampling: ",
		"clickhouse: a:8123":                            `analytics.clickhouse: "a:8123" is not the URL of a server's HTTP interface`,
		"clickhouse: ftp://a":                           "analytics.clickhouse: ",
		"clickhouse: http://a/?password=x":              "is not the URL of a server's HTTP interface: write one such as http://edge@clickhouse",
		"clickhouse: http://a/my-base":                  `names the database "my-base"`,
		"clickhouse: http://u:geheim@a":                 "analytics.clickhouse: has a password in it, which would stand in logs: remove it, and write clickhouse_password",
		"clickhouse_password: geheim":                   "analytics.clickhouse_password: is of no use without analytics.clickhouse",
		"clickhouse: http://a, clickhouse_password: {}": "analytics.clickhouse_password: ",
		"retention: {1s: 10s}":                          "analytics.retention.1s: 10s is too short: write 1h at least, since minutes are made of seconds",
		"retention: {1s: 2d, 1m: 1d}":                   "what is counted more finely is kept for a shorter time: 1s is 2d, 1m 1d, 1h 400d",
		"retention: {tops: 1h}":                         "analytics.retention.tops: 1h is too short: write 2h at least, since the hour that has begun is made of minutes",
		"retention: {1h: 5d, tops: 6d}":                 "analytics.retention.tops: 6d is longer than hours are kept, which is 5d: write that at most, or a longer 1h",
		"retention: {10s: 1h}":                          `unknown field "10s"`,
		"disk: 10":                                      "analytics.disk: must be a size such as 500MiB",
		"disk: 10GB":                                    `analytics.disk: "10GB" is no size`,
		"disk: 1MiB":                                    `analytics.disk: "1MiB" is out of bounds`,
		"export: {sflow: [a]}":                          `analytics.export.sflow[0]: "a" is not a host and a port such as 192.0.2.9:6343`,
		`export: {sflow: ["a:0"]}`:                      `"a:0" is not a host and a port`,
		`export: {ipfix: ["a:1", "a:1"]}`:               "analytics.export.ipfix[1]: a:1 is listed twice, first as analytics.export.ipfix[0]",
		"tokens: {}":                                    "missing",
		"attacks: {syn_flood: 0}":                       "analytics.attacks.syn_flood: must be off, or a whole number from 1 to 1000000000, got 0",
		"attacks: {sin_flood: 1}":                       `unknown field "sin_flood"`,
		"geo: {asn: a.mmdb}":                            `"a.mmdb" is not an absolute path`,
		"truncate: {ipv4: 33}":                          "analytics.truncate.ipv4",
		"tls: {certificate: /nothing-there, key: /nothing-there}": "analytics.tls.certificate",
	} {
		if _, err := Parse("c.yaml", []byte(base+"analytics: {"+text+"}\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v shows the password", text, err)
		}
	}
	if _, err := Parse("c.yaml", []byte(base+"metrics: {listen: 127.0.0.1:1}\nanalytics: {listen: 127.0.0.1:1}\n")); err == nil || !strings.Contains(err.Error(), "analytics.listen: 127.0.0.1:1 is where metrics listen (metrics.listen on line 9)") {
		t.Errorf("one address for two: %v", err)
	}
	if _, err := Parse("c.yaml", []byte(base+"    sampling: 0\n")); err == nil || !strings.Contains(err.Error(), "tunnels[0].sampling: must be off, or a whole number from 1 to 1000000, got 0") {
		t.Errorf("sampling: 0 of a tunnel: %v", err)
	}
}

// The rate of samples is taken over; what is opened at the start is not.
func TestAnalyticsChanges(t *testing.T) {
	parse := func(text string) *Config { return mustParse(t, base+text) }
	d := Diff(parse("analytics: {}\n"), parse("    sampling: 7\nanalytics: {sampling: 10}\n"))
	if !slices.Equal(d.Settings, []string{"analytics.sampling"}) || len(d.Restart) > 0 || len(d.TunnelsChanged) != 1 || !slices.Equal(d.TunnelsChanged[0].Fields, []string{"sampling"}) {
		t.Errorf("another rate: %+v", d)
	}
	for _, other := range []string{"", "analytics: {disk: 1GiB}\n", "analytics: {clickhouse: http://a}\n", "analytics: {listen: 127.0.0.1:1}\n", "analytics: {place: {city: A}}\n", "analytics: {export: {sflow: [\"a:1\"]}}\n"} {
		if d := Diff(parse("analytics: {}\n"), parse(other)); len(d.Restart) != 1 || d.Restart[0].Path != "analytics" {
			t.Errorf("%q: %+v", other, d)
		}
	}
	if d := Diff(parse("analytics: {}\n"), parse("analytics: {attacks: {syn_flood: 1}}\n")); len(d.Restart) != 1 || d.Restart[0].Path != "analytics.attacks" {
		t.Errorf("thresholds: %+v", d)
	}
	if a := parse("analytics: {clickhouse: \"\"}\n").Analytics; a.ClickHouse.URL != "" {
		t.Errorf("none: %+v", a.ClickHouse)
	}
	for text, want := range map[string]string{
		"analytics: {}\n":                       "analytics: what is counted nobody can ask for",
		"analytics: {listen: 127.0.0.1:9151}\n": "analytics.listen: all users of this machine see the traffic of all accounts at 127.0.0.1:9151",
	} {
		if w := parse(text).Warnings(); !slices.ContainsFunc(w, func(w Warning) bool { return strings.Contains(w.String(), want) }) {
			t.Errorf("%s: %v", text, w)
		}
	}
}

// Of a file with mistakes the files that its analytics names can be looked at all the same, as far as they are known.
func TestAnalyticsOfAWrongFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	for text, want := range map[string]*Analytics{
		"nonsense: 1\nanalytics: {sampling: 0, tokens: {file: /t}, geo: {asn: /a, country: b}, tls: {certificate: /none, key: 5}}\n": {Tokens: "/t", Geo: Geo{ASN: "/a"}},
		"interfaces: 5\n": nil,
		"analytics: [":    nil,
		"analytics: 5":    nil,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil {
			t.Fatalf("%q is a right file", text)
		}
		got := AnalyticsOf(path)
		if (got == nil) != (want == nil) || got != nil && (got.Tokens != want.Tokens || got.Geo != want.Geo || got.TLS != want.TLS) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	if got := AnalyticsOf(filepath.Join(t.TempDir(), "none")); got != nil {
		t.Errorf("of no file: %+v", got)
	}
}
