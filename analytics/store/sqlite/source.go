package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// rollups are the resolutions above a second, and the tables of them.
var rollups = []struct {
	seconds int64
	suffix  string
}{{60, "_1m"}, {3600, "_1h"}}

// A source says what of a day's file a query looks at.
type source struct {
	q          *store.Query
	span       query.Span      // of the query, within the day
	resolution int64           // seconds, of exact counts
	rolled     map[int64]int64 // as table rolled

	bucket   int64      // rows of a series in so many seconds may be added up first; 0: they may not
	few      bool       // not all series are asked for
	mixed    bool       // a condition speaks of times and of series at once: only rows with both can be asked
	which    query.Part // of the table series
	ofSeries query.Part // the same, of rows of exact counts
	times    query.Part // what else has to hold of t
}

// newSource prepares a source. What the query says of times and what it says of series is applied to exact counts before they are joined
// with the series, and rows that are in the same group whatever their time are added up before. That makes most queries many times as
// fast; query.Plan applies all conditions again.
func newSource(d *day, p *query.Plan, q *store.Query, resolution int64, rolled map[int64]int64) *source {
	s := &source{q: q, resolution: resolution, rolled: rolled, bucket: secs, span: query.SpanOf(&q.Where).And(query.Span{From: d.start, To: d.end()})}
	which := query.Part{SQL: "1=1"}
	if q.Account != store.Operator {
		which = query.Part{SQL: "account = ?", Args: []any{q.Account}}
	}
	s.times.SQL = "1=1"
	for _, w := range query.Conjuncts(&q.Where) {
		switch times, others := query.Uses(&w); {
		case times && others:
			s.bucket, s.mixed = 0, true
		case times && query.SpanOf(&w) == query.Always: // else it is in the span
			s.times.Add(" AND %s", query.SQLite.Condition(&w))
			s.bucket = 0
		case others:
			which.Add(" AND %s", query.SQLite.Condition(&w))
		}
	}
	s.few, s.which = which.SQL != "1=1", which
	s.ofSeries.Add("series IN (SELECT id FROM series WHERE %s)", which)
	for _, dim := range q.By {
		if query.IsTime(dim) {
			s.bucket = min(s.bucket, dim.Bucket)
		}
	}
	if p.Intervals() || s.bucket <= resolution {
		s.bucket = 0
	}
	return s
}

// rows is a SELECT of the rows that a query may need, with the columns that query.Plan asks for.
func (s *source) rows(now time.Time) (out query.Part) {
	switch s.q.Dataset.Table {
	case dataset.AttackTable:
		out.Add("SELECT * FROM attacks WHERE %s", within(s.span))
	case dataset.SampleTable:
		out.Add("SELECT r.*, %s, '' AS mitigation FROM samples r CROSS JOIN series s ON s.id = r.series WHERE %s", named(), within(s.span))
	case dataset.HealthTable:
		out.Add("SELECT r.*, %s FROM health r CROSS JOIN series s ON s.id = r.series WHERE %s", named(), within(s.span))
	case dataset.TopTable:
		out.Add("SELECT r.*, %s FROM (%s) AS r CROSS JOIN series s ON s.id = r.series", named(), s.tops(now))
	default:
		out.Add("SELECT r.*, %s FROM (%s) AS r CROSS JOIN series s ON s.id = r.series", named(), s.exact())
	}
	return out
}

// mostSeries bounds the series whose seconds are added up in memory: each takes 3 kB.
const mostSeries = 10_000

// bySeconds reports whether the seconds of the query can be added up a minute at a time: that takes a third of the time that sorting all
// seconds of the groups does, which for a thousand tunnels and an hour is longer than a query may take.
func (s *source) bySeconds(ctx context.Context, tx *sql.Tx, p *query.Plan) (bool, error) {
	if !p.Together() || s.resolution != 1 || s.mixed || s.span.Empty() || slices.ContainsFunc(s.q.By, query.IsTime) {
		return false, nil
	}
	var count query.Part
	count.Add("SELECT COUNT(*) FROM series WHERE %s", s.which)
	var n int
	err := tx.QueryRowContext(ctx, count.SQL, count.Args...).Scan(&n)
	return n <= mostSeries, err
}

// seconds is the rows of one minute of the span.
func (s *source) seconds(minute int64) (out query.Part) {
	span := s.span.And(query.Span{From: 60 * minute, To: 60*minute + 60})
	table := string(s.q.Dataset.Table) + "_1s"
	key := query.Part{SQL: "minute = ?", Args: []any{minute}}
	if span.From >= s.rolled[60] {
		table, key = string(s.q.Dataset.Table)+"_now", s.each("t", span.From, span.To-1, string(s.q.Dataset.Table)+"_now")
	}
	out.Add("SELECT series, t, packets, bytes, dropped FROM "+table+" WHERE %s AND %s AND %s AND %s", key, s.ofSeries, within(span), s.times)
	return out
}

// named are the columns of series that datasets know.
func named() string { return "s." + strings.ReplaceAll(seriesColumns, ", ", ", s.") }

const (
	counted = "series, t, packets, bytes, dropped, "
	sums    = "SUM(packets) AS packets, SUM(bytes) AS bytes, SUM(dropped) AS dropped, "
	peaks   = "MAX(peak_packets) AS peak_packets, MAX(peak_bytes) AS peak_bytes"
)

// exact is the rows of exact counts by series and t, which is the time of one of the rows that were added up.
func (s *source) exact() (out query.Part) {
	all := union(s.cover(s.resolution, s.span))
	if s.bucket == 0 {
		out.Add("SELECT * FROM (%s) AS x WHERE %s", all, s.times)
		return out
	}
	out.Add("SELECT series, MIN(x.t) AS t, "+sums+peaks+" FROM (%s) AS x GROUP BY series, x.t - x.t %% %s", all, fmt.Sprint(s.bucket))
	return out
}

func union(parts []query.Part) (out query.Part) {
	for i, p := range parts {
		if i > 0 {
			out.SQL += " UNION ALL "
		}
		out.Add("%s", p)
	}
	return out
}

// cover is the rows of a span. Where their sum is all that matters, whole minutes and hours within it are taken from what has been rolled
// up: the answer is the same.
func (s *source) cover(seconds int64, span query.Span) []query.Part {
	span = span.Whole(seconds)
	for _, r := range rollups {
		if r.seconds <= seconds || r.seconds > s.bucket {
			continue
		}
		if middle := span.Inner(r.seconds); !middle.Empty() {
			out := s.cover(r.seconds, middle)
			for _, edge := range []query.Span{{From: span.From, To: middle.From}, {From: middle.To, To: span.To}} {
				if !edge.Empty() {
					out = append(out, s.cover(seconds, edge)...)
				}
			}
			return out
		}
	}
	return []query.Part{s.at(seconds, span)}
}

// at is the rows of a resolution that begin in a span: those that have been rolled up, and of those that have not yet been what they will
// be made of.
func (s *source) at(seconds int64, span query.Span) query.Part {
	done := span.And(query.Span{From: span.From, To: s.rolled[max(seconds, 60)]})
	rest := span.And(query.Span{From: s.rolled[max(seconds, 60)], To: span.To})
	table := string(s.q.Dataset.Table)
	var parts []query.Part
	if !done.Empty() || rest.Empty() {
		parts = append(parts, s.kept(table, seconds, done))
	}
	if rest.Empty() {
		return union(parts)
	}
	var p query.Part
	if seconds == 1 {
		p.Add("SELECT "+counted+"packets AS peak_packets, bytes AS peak_bytes FROM "+table+"_now WHERE %s AND %s AND %s",
			s.each("t", rest.From, rest.To-1, table+"_now"), s.ofSeries, within(rest))
		return union(append(parts, p))
	}
	finer := int64(1)
	for _, r := range rollups {
		if r.seconds < seconds {
			finer = r.seconds
		}
	}
	p.Add("SELECT series, y.t - y.t %% %s AS t, "+sums+peaks+" FROM (%s) AS y GROUP BY series, y.t - y.t %% %[1]s", fmt.Sprint(seconds),
		s.at(finer, rest))
	return union(append(parts, p))
}

func within(span query.Span) query.Part {
	return query.Part{SQL: "t >= ? AND t < ?", Args: []any{span.From, span.To}}
}

// kept is the rows of a table of a resolution.
func (s *source) kept(table string, seconds int64, span query.Span) (out query.Part) {
	for _, r := range rollups {
		if r.seconds == seconds {
			out.Add("SELECT "+counted+"peak_packets, peak_bytes FROM "+table+r.suffix+" WHERE %s AND %s", s.ofSeries, within(span))
			return out
		}
	}
	out.Add("SELECT "+counted+"packets AS peak_packets, bytes AS peak_bytes FROM "+table+"_1s WHERE %s AND %s AND %s",
		s.each("minute", span.From/60, (span.To-1)/60, table+"_1s"), s.ofSeries, within(span))
	return out
}

// each bounds the first column of a table's key, of which the series is the second. If few series are asked for, all values are named: then
// SQLite looks up each pair of value and series, and does not read what is of others. The first value may lie beyond the last.
func (s *source) each(column string, from, to int64, table string) (out query.Part) {
	if s.few {
		out.SQL = fmt.Sprintf("%s IN (WITH RECURSIVE n (x) AS (SELECT MAX(?, (SELECT MIN(%[1]s) FROM %[2]s)) UNION ALL "+
			"SELECT x + 1 FROM n WHERE x < MIN(?, (SELECT MAX(%[1]s) FROM %[2]s))) SELECT x FROM n)", column, table)
	} else {
		out.SQL = fmt.Sprintf("%s >= ? AND %[1]s <= ?", column)
	}
	out.Args = []any{from, to}
	return out
}
