package sqlite

import (
	"fmt"
	"strings"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// version is that of the schema, in PRAGMA user_version.
const version = 1

// A series is all that repeats from row to row: rows name it by a number, which makes them a tenth as long. Its fields are the columns of
// table series, by seriesColumns.
type series struct {
	account, node, datacenter, region, city, country, geohash string
	direction, reason                                         string
	tunnel                                                    string // of exact counts and health
	inID, inName, onRamp, outID, outName, offRamp             string
	verdict, outcome, trafficType                             string // of samples
}

const seriesColumns = "account, node, datacenter, region, city, country, geohash, direction, reason, tunnel, " +
	"in_id, in_name, on_ramp, out_id, out_name, off_ramp, verdict, outcome, traffic_type"

// fields are the columns in order.
func (s *series) fields() []*string {
	return []*string{&s.account, &s.node, &s.datacenter, &s.region, &s.city, &s.country, &s.geohash, &s.direction, &s.reason, &s.tunnel,
		&s.inID, &s.inName, &s.onRamp, &s.outID, &s.outName, &s.offRamp, &s.verdict, &s.outcome, &s.trafficType}
}

func (s *series) place(p *store.Place, account string) {
	s.account, s.node, s.datacenter, s.region, s.city, s.country, s.geohash = account, p.Node, p.DataCenter, p.Region, p.City, p.Country, p.Geohash
}

func (s *series) in(t *flow.Tunnel) {
	if t != nil {
		s.inID, s.inName, s.onRamp = t.ID, t.Name, t.Kind
	}
}

func (s *series) out(t *flow.Tunnel) {
	if t != nil {
		s.outID, s.outName, s.offRamp = t.ID, t.Name, t.Kind
	}
}

// through puts the one tunnel of an exact count where its direction says. Lateral traffic counts for the tunnel that it went into.
func (s *series) through(t *flow.Tunnel, d flow.Direction) {
	s.direction = d.String()
	if t == nil {
		return
	}
	s.tunnel = t.Name
	if d == flow.Egress {
		s.in(t)
	} else {
		s.out(t)
	}
}

// schema makes a day's file. Seconds come in the order of time into *_now, where they are written next to each other. When their minute is
// rolled up they move to *_1s, where those of one series stand together within the minute: most queries ask for few series, and what is too
// old goes from one end. Rows of minutes and hours stand together by series.
func schema() string {
	var b strings.Builder
	b.WriteString("CREATE TABLE series (id INTEGER PRIMARY KEY, " + columns(strings.Split(seriesColumns, ", "), "TEXT") + ");\n")
	for _, name := range exact {
		counts := columns([]string{"packets", "bytes", "dropped"}, "INTEGER")
		fmt.Fprintf(&b, "CREATE TABLE %s_now (t INTEGER NOT NULL, series INTEGER NOT NULL, %s, PRIMARY KEY (t, series)) WITHOUT ROWID;\n", name,
			counts)
		fmt.Fprintf(&b, "CREATE TABLE %s_1s (minute INTEGER NOT NULL, series INTEGER NOT NULL, t INTEGER NOT NULL, %s, "+
			"PRIMARY KEY (minute, series, t)) WITHOUT ROWID;\n",
			name, counts)
		for _, r := range []string{"1m", "1h"} {
			fmt.Fprintf(&b, "CREATE TABLE %s_%s (series INTEGER NOT NULL, t INTEGER NOT NULL, %s, PRIMARY KEY (series, t)) WITHOUT ROWID;\n",
				name, r, columns([]string{"packets", "bytes", "dropped", "peak_packets", "peak_bytes"}, "INTEGER"))
		}
	}
	// Rows before `until` have been rolled up into intervals of so many seconds.
	b.WriteString("CREATE TABLE rolled (seconds INTEGER PRIMARY KEY, until INTEGER NOT NULL);\n")
	b.WriteString("CREATE TABLE samples (t INTEGER NOT NULL, series INTEGER NOT NULL")
	for _, c := range query.SampleColumns {
		kind := "TEXT"
		if c.Number != nil {
			kind = "INTEGER"
		}
		b.WriteString(", " + columns([]string{c.Name}, kind))
	}
	b.WriteString(");\nCREATE INDEX samples_t ON samples (t);\n")
	b.WriteString("CREATE TABLE health (series INTEGER NOT NULL, t INTEGER NOT NULL, " + columns([]string{"remote", "state"}, "TEXT") + ", " +
		columns([]string{"active", "probes", "lost"}, "INTEGER") + ", rtt_us REAL NOT NULL, PRIMARY KEY (series, t)) WITHOUT ROWID;\n")
	b.WriteString("CREATE TABLE attacks (t INTEGER NOT NULL, ended INTEGER, " + columns(attackTexts, "TEXT") + ", " + columns(attackNumbers,
		"INTEGER") +
		", PRIMARY KEY (account, id)) WITHOUT ROWID;\n")
	return b.String()
}

var (
	// exact are the tables of exact counts. They have the same columns.
	exact = []string{"traffic", "drops"}

	attackTexts = []string{"account", "id", "type", "vector", "src", "dst", "protocol_name", "tcp_flags_text", "mitigation",
		"node", "datacenter", "region", "city", "country", "geohash"}
	attackNumbers = []string{"src_port", "dst_port", "protocol", "tcp_flags", "packets", "bits", "dropped_packets", "dropped_bits"}
)

func columns(names []string, kind string) string {
	return strings.Join(names, " "+kind+" NOT NULL, ") + " " + kind + " NOT NULL"
}

// marks are so many question marks.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }
