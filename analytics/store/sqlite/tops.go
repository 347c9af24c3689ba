package sqlite

import (
	"fmt"
	"strings"
	"time"

	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// insertTops are the statements for minutes and hours.
var insertTops = func() (out []string) {
	names := append(append([]string{"series", "kind", "t", "value"}, query.TopNumbers...), query.TopFloats...)
	var add []string
	for _, n := range names[4:] {
		if n != "sources" { // how many they have in common nobody knows
			add = append(add, fmt.Sprintf("%s = %[1]s + excluded.%[1]s", n))
		}
	}
	for _, r := range rollups {
		out = append(out, "INSERT INTO tops"+r.suffix+" ("+strings.Join(names, ", ")+") VALUES ("+marks(len(names))+
			") ON CONFLICT (series, kind, t, value) DO UPDATE SET sources = MAX(sources, excluded.sources), "+strings.Join(add, ", "))
	}
	return out
}()

func (w *writer) top(r *store.Top) {
	numbers, floats := query.TopValues(r)
	args := []any{w.seriesOf(r.Account, r.Tunnel, r.Direction, ""), int64(r.Kind), r.Time, r.Value}
	for _, n := range numbers {
		args = append(args, n)
	}
	for _, x := range floats {
		args = append(args, x)
	}
	text := insertTops[0]
	if r.Hour {
		text = insertTops[1]
	}
	w.insert(text, args...)
}

// topKinds is a table of the kinds by number, and topNames the name of one of a row.
var topKinds, topNames = func() (table, names string) {
	names = "CASE kind"
	for i, k := range store.TopKinds {
		if i > 0 {
			table += " UNION ALL "
		}
		table += fmt.Sprintf("SELECT %d AS number, '%s' AS kind", i, k)
		names += fmt.Sprintf(" WHEN %d THEN '%s'", i, k)
	}
	return table, names + " END"
}()

// tops is the rows of tops that a query may need. What it says of kinds and of series is looked up before rows are.
func (s *source) tops(now time.Time) (out query.Part) {
	kinds, values := query.Part{SQL: "1=1"}, query.Part{SQL: "1=1"}
	series := query.Part{SQL: "1=1"}
	if s.q.Account != store.Operator {
		series = query.Part{SQL: "account = ?", Args: []any{s.q.Account}}
	}
	for _, w := range query.Conjuncts(&s.q.Where) {
		switch {
		case query.UsesOnly(&w, query.SeriesColumns...):
			series.Add(" AND %s", query.SQLite.Condition(&w))
		case query.UsesOnly(&w, "kind"):
			kinds.Add(" AND %s", query.SQLite.Condition(&w))
		case query.UsesOnly(&w, "value"):
			values.Add(" AND %s", query.SQLite.Condition(&w))
		}
	}
	part := func(table, t string, span query.Span) {
		if out.SQL != "" {
			out.SQL += " UNION ALL "
		}
		out.Add("SELECT series, %s AS t, "+topNames+" AS kind, value, "+strings.Join(query.TopNumbers, ", ")+", "+strings.Join(query.TopFloats, ", ")+
			" FROM "+table+" WHERE series IN (SELECT id FROM series WHERE %s) AND kind IN (SELECT number FROM ("+topKinds+") WHERE %s) AND %s AND %s",
			t, series, kinds, within(span), values)
	}
	if s.resolution < 3600 {
		part("tops_1m", "t", s.span)
		return out
	}
	hours, minutes := query.TopSpans(s.span, now.Unix())
	part("tops_1h", "t", hours)
	if !minutes.Empty() {
		part("tops_1m", "t - t % 3600", minutes)
	}
	return out
}
