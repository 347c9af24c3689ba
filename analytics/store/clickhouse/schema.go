package clickhouse

import (
	"fmt"
	"strings"

	"causeway/analytics/store/query"
)

// A column has a name and a type.
type column struct{ name, kind string }

// A table is kept in parts of so many seconds, which go as a whole when they are too old: servers before 19.6 know no TTL. Times are numbers,
// so that no server's time zone is asked.
type table struct {
	name      string
	columns   []column
	engine    string
	partition int64  // seconds
	key       string // what rows are ordered by
	once      bool   // its rows add up: column chunk says which segment of a buffer each came from
}

// tables are in the order in which records of a buffer number them.
var tables = makeTables()

const (
	trafficNow = iota
	dropsNow
	trafficMinutes
	dropsMinutes
	trafficHours
	dropsHours
	samples
	health
	attacks
	topMinutes
	topHours
)

const (
	hourSeconds  = 3600
	daySeconds   = 86400
	monthSeconds = 30 * daySeconds
)

func makeTables() []table {
	named := []column{{"t", "UInt32"}, {"series", "UInt64"}}
	for _, c := range query.SeriesColumns {
		named = append(named, column{c, "String"})
	}
	counts := with(named, "Int64", "packets", "bytes", "dropped")
	peaks := with(counts, "Int64", "peak_packets", "peak_bytes")
	packet := with(named, "")
	for _, c := range query.SampleColumns {
		kind := "String"
		if c.Number != nil {
			kind = "UInt32"
		}
		packet = append(packet, column{c.Name, kind})
	}
	probes := with(with(with(named, "String", "remote", "state"), "Int64", "active", "probes", "lost"), "Float64", "rtt_us")
	tops := with(with(with(with(named, "String", "kind", "value"), "Int64", query.TopNumbers...), "Float64", query.TopFloats...), "UInt64", "chunk")
	attack := with(with([]column{{"t", "UInt32"}, {"ended", "Nullable(UInt32)"}}, "String", query.AttackTexts...), "Int64", query.AttackNumbers...)
	const merge, replacing = "MergeTree", "ReplacingMergeTree(version)"
	// Seconds of a minute stand together by series: most queries ask for few series.
	const seconds, byTunnel = "intDiv(t, 60), account, tunnel, series, t", "account, tunnel, series, t"
	const byKind = "account, kind, tunnel, t" // nobody asks for several kinds
	return []table{
		{"traffic_1s", with(counts, "UInt64", "chunk"), merge, hourSeconds, seconds, true},
		{"drops_1s", with(counts, "UInt64", "chunk"), merge, hourSeconds, seconds, true},
		{"traffic_1m", peaks, merge, daySeconds, byTunnel, false},
		{"drops_1m", peaks, merge, daySeconds, byTunnel, false},
		{"traffic_1h", peaks, merge, monthSeconds, byTunnel, false},
		{"drops_1h", peaks, merge, monthSeconds, byTunnel, false},
		{"samples", with(packet, "UInt64", "chunk"), merge, daySeconds, "account, t", true},
		{"health", with(probes, "UInt64", "version"), replacing, daySeconds, byTunnel, false},
		{"attacks", with(attack, "UInt64", "version"), replacing, monthSeconds, "account, id", false},
		{"tops_1m", tops, merge, daySeconds, byKind, true},
		{"tops_1h", tops, merge, monthSeconds, byKind, true},
	}
}

// with is columns and others of one type.
func with(columns []column, kind string, names ...string) []column {
	out := columns[:len(columns):len(columns)]
	for _, n := range names {
		out = append(out, column{n, kind})
	}
	return out
}

// create is the statement that makes the table if it is not there.
func (t *table) create() string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s) ENGINE = %s PARTITION BY intDiv(t, %d) ORDER BY (%s)", t.name, structure(t.columns),
		t.engine, t.partition, t.key)
}

func structure(columns []column) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.name + " " + c.kind
	}
	return strings.Join(list, ", ")
}

func namesOf(columns []column) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.name
	}
	return strings.Join(list, ", ")
}

// given are the columns that a request brings: the last one is made of the segment's number.
func (t *table) given() []column { return t.columns[:len(t.columns)-1] }
