package clickhouse

import (
	"fmt"
	"slices"
	"strings"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// dialect is that of ClickHouse, in whose patterns a backslash takes the meaning from what follows.
var dialect = &query.Dialect{Join: "arrayStringConcat(groupArray(toString(%s)), ',')",
	Pattern: strings.NewReplacer(`\`, `\\`).Replace, Empty: empty}

// empty is an empty text that the server does not know to be one.
const empty = "substring(account, 1, 0)"

// A source says which rows a query looks at.
type source struct {
	q         *store.Query
	span      query.Span
	names     []string // columns of series that the query names
	intervals bool     // each interval of a series has to be one row
	condition query.Part
	cut       map[int64]int64 // intervals of so many seconds before this are rolled up
	bucket    int64           // only sums of so many seconds matter; 0: single rows do
}

// settled is how long after their end intervals are rolled up for sure, if their rows came in time, in seconds.
const settled = 300

func newSource(q *store.Query, p *query.Plan, now int64) *source {
	const most = 1 << 32 // t has 32 bits
	s := &source{q: q, intervals: p.Intervals(), span: query.SpanOf(&q.Where).And(query.Span{From: 0, To: most}), bucket: daySeconds,
		cut: map[int64]int64{60: (now - settled) / 60 * 60, hourSeconds: (now - 2*settled) / hourSeconds * hourSeconds}}
	s.condition.SQL = "1 = 1"
	if q.Account != store.Operator {
		s.condition = query.Part{SQL: "account = ?", Args: []any{q.Account}}
	}
	named := map[string]bool{"account": true}
	for _, c := range query.Conjuncts(&q.Where) {
		times, others := query.Uses(&c)
		if others && !times {
			s.condition.Add(" AND %s", dialect.Condition(&c))
		}
		if times && (others || query.SpanOf(&c) == query.Always) {
			s.bucket = 0
		}
		dimensions(&c, named)
	}
	for _, d := range q.By {
		named[d.SQL] = true
		if query.IsTime(d) {
			s.bucket = min(s.bucket, d.Bucket)
		}
	}
	if s.intervals {
		s.bucket = 0
	}
	for _, c := range query.SeriesColumns {
		if named[c] {
			s.names = append(s.names, c)
		}
	}
	return s
}

func dimensions(w *store.Where, into map[string]bool) {
	for _, list := range [][]store.Where{w.All, w.Any} {
		for i := range list {
			dimensions(&list[i], into)
		}
	}
	if w.Dimension != nil {
		into[w.Dimension.SQL] = true
	}
}

// rows is a SELECT of the rows that a query may need. No alias in it is also a column: servers do not agree which of the two is meant.
func (s *source) rows(seconds, now int64) (out query.Part) {
	switch s.q.Dataset.Table {
	case dataset.AttackTable, dataset.HealthTable:
		out.Add("SELECT * FROM %s FINAL WHERE %s AND %s", string(s.q.Dataset.Table), within(s.span), s.condition)
	case dataset.SampleTable:
		out.Add("SELECT *, "+empty+" AS mitigation FROM samples WHERE %s AND %s", within(s.span), s.condition)
	case dataset.TopTable:
		return s.tops(seconds, now)
	default:
		return union(s.cover(seconds, s.span.Whole(seconds)))
	}
	return out
}

// tops is the rows of tops of a resolution: of hours that may not be there yet the minutes.
func (s *source) tops(seconds, now int64) query.Part {
	names := append(append(append(slices.Clone(s.names), "kind", "value"), query.TopNumbers...), query.TopFloats...)
	renamed, back := make([]string, len(names)), make([]string, len(names))
	for i, n := range names {
		renamed[i], back[i] = fmt.Sprintf("%s AS n%d", n, i), fmt.Sprintf("n%d AS %s", i, n)
	}
	part := func(table string, span query.Span) (out query.Part) {
		out.Add("SELECT v AS t, "+strings.Join(back, ", ")+" FROM (SELECT toUInt32(intDiv(t, %[1]d) * %[1]d) AS v, "+strings.Join(renamed, ", ")+
			" FROM "+table+" WHERE %[2]s AND %[3]s)", seconds, within(span), s.condition)
		return out
	}
	if seconds < hourSeconds {
		return part("tops_1m", s.span)
	}
	hours, minutes := query.TopSpans(s.span, now)
	if minutes.Empty() {
		return part("tops_1h", hours)
	}
	return union([]query.Part{part("tops_1h", hours), part("tops_1m", minutes)})
}

func within(s query.Span) query.Part {
	return query.Part{SQL: "t >= ? AND t < ?", Args: []any{s.From, s.To}}
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

// cover is the rows of a span. Where their sum is all that matters, whole minutes and hours within it are taken from what has been rolled up:
// the answer is the same.
func (s *source) cover(seconds int64, span query.Span) []query.Part {
	for _, coarser := range []int64{60, hourSeconds} {
		if coarser <= seconds || coarser > s.bucket {
			continue
		}
		middle := span.And(query.Span{From: 0, To: s.cut[coarser]}).Inner(coarser)
		if middle.Empty() {
			continue
		}
		out := s.cover(coarser, middle)
		for _, edge := range []query.Span{{From: span.From, To: middle.From}, {From: middle.To, To: span.To}} {
			if !edge.Empty() {
				out = append(out, s.at(seconds, edge)...)
			}
		}
		return out
	}
	return s.at(seconds, span)
}

// at is the rows of a resolution that begin in a span: those that have been rolled up, and of those that may not have been yet what they will
// be made of.
func (s *source) at(seconds int64, span query.Span) []query.Part {
	if seconds == 1 {
		return []query.Part{s.seconds(span)}
	}
	cut := max(s.cut[seconds], span.From)
	done, rest := span.And(query.Span{From: span.From, To: cut}), span.And(query.Span{From: cut, To: span.To})
	var parts []query.Part
	if !done.Empty() || rest.Empty() {
		parts = append(parts, s.kept(seconds, done))
	}
	if !rest.Empty() {
		finer := []query.Part{s.seconds(rest)}
		if seconds == hourSeconds {
			finer = s.at(60, rest)
		} else if s.intervals {
			finer = []query.Part{s.together(finer[0], 1)}
		}
		parts = append(parts, s.together(union(finer), seconds))
	}
	return parts
}

func (s *source) table(suffix string) string { return string(s.q.Dataset.Table) + suffix }

const sums = "packets, bytes, dropped, "

func (s *source) seconds(span query.Span) (out query.Part) {
	out.Add("SELECT series, t, %s, "+sums+"packets AS peak_packets, bytes AS peak_bytes FROM %s WHERE intDiv(t, 60) >= %s AND intDiv(t, 60) <= %s"+
		" AND %s AND %s", strings.Join(s.names, ", "), s.table("_1s"), fmt.Sprint(span.From/60), fmt.Sprint((span.To-1)/60), within(span), s.condition)
	return out
}

// kept is the rows of minutes or hours. Those of one interval are as many as it was rolled up anew.
func (s *source) kept(seconds int64, span query.Span) (out query.Part) {
	suffix := map[int64]string{60: "_1m", hourSeconds: "_1h"}[seconds]
	out.Add("SELECT series, t, %s, "+sums+"peak_packets, peak_bytes FROM %s WHERE %s AND %s", strings.Join(s.names, ", "), s.table(suffix),
		within(span), s.condition)
	return s.together(out, seconds)
}

// together adds up the rows of each series and interval, if it matters that they are one row; else it only makes their times the interval's.
func (s *source) together(rows query.Part, seconds int64) (out query.Part) {
	old, renamed, back := slices.Clone(s.names), slices.Clone(s.names), slices.Clone(s.names)
	for i, n := range s.names {
		old[i], renamed[i], back[i] = fmt.Sprintf("any(%s) AS n%d", n, i), fmt.Sprintf("%s AS n%d", n, i), fmt.Sprintf("n%d AS %s", i, n)
	}
	inner := fmt.Sprintf("toUInt32(intDiv(t, %d) * %[1]d) AS v", seconds)
	outer := "SELECT e AS series, v AS t, " + strings.Join(back, ", ") + ", p AS packets, b AS bytes, d AS dropped, pp AS peak_packets, pb AS peak_bytes"
	if !s.intervals {
		out.Add("%s FROM (SELECT series AS e, %s, %s, packets AS p, bytes AS b, dropped AS d, peak_packets AS pp, peak_bytes AS pb FROM (%s))",
			outer, inner, strings.Join(renamed, ", "), rows)
		return out
	}
	peakPackets, peakBytes := "max(peak_packets)", "max(peak_bytes)"
	if seconds == 1 { // rows of the same second
		peakPackets, peakBytes = "sum(packets)", "sum(bytes)"
	}
	out.Add("%s FROM (SELECT series AS e, %s, %s, sum(packets) AS p, sum(bytes) AS b, sum(dropped) AS d, %s AS pp, %s AS pb FROM (%s) GROUP BY e, v)",
		outer, inner, strings.Join(old, ", "), peakPackets, peakBytes, rows)
	return out
}
