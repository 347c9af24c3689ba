package query

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// A Part is SQL and its arguments: int64, float64 or string, one for each question mark. No other question mark stands in it.
type Part struct {
	SQL  string
	Args []any
}

// Add appends formatted SQL. Each %s takes a string or a Part, whose arguments are appended as well.
func (p *Part) Add(format string, args ...any) {
	texts := make([]any, len(args))
	for i, a := range args {
		if inner, ok := a.(Part); ok {
			texts[i] = inner.SQL
			p.Args = append(p.Args, inner.Args...)
			continue
		}
		texts[i] = a
	}
	p.SQL += fmt.Sprintf(format, texts...)
}

// A Dialect is in what the databases differ.
type Dialect struct {
	// Join is an aggregate, with %s for an integer expression: its values in a group as text, with commas between.
	Join string
	// Pattern turns a pattern in which only % and _ are special into one for LIKE; nil: it is one.
	Pattern func(string) string
	// Empty is an empty text where a constant will not do; "": one does. ClickHouse 18.16 loses conditions when it folds constants.
	Empty string
}

// SQLite is the dialect of SQLite. LIKE has to be made case-sensitive for each connection.
var SQLite = &Dialect{Join: "group_concat(%s)"}

// IsTime reports whether a dimension is the time of a row, rounded.
func IsTime(d *dataset.Dimension) bool {
	return d.Bucket > 0 && (d.SQL == "" || d.SQL == "t")
}

// Expression is the SQL of a dimension.
func Expression(d *dataset.Dimension) string {
	switch {
	case d.SQL != "":
		return d.SQL
	case d.Bucket == 1:
		return "t"
	}
	return fmt.Sprintf("(t - t %% %d)", d.Bucket)
}

// expression is Expression in this dialect.
func (d *Dialect) expression(x *dataset.Dimension) string {
	if e := Expression(x); e != "''" || d.Empty == "" {
		return e
	}
	return d.Empty
}

// Condition is a condition as SQL; "1=1" without one. The condition has passed Check.
func (d *Dialect) Condition(w *store.Where) Part {
	var all []Part
	for i := range w.All {
		all = append(all, d.Condition(&w.All[i]))
	}
	if len(w.Any) > 0 {
		var any []Part
		for i := range w.Any {
			any = append(any, d.Condition(&w.Any[i]))
		}
		all = append(all, joined(any, " OR "))
	}
	if w.Dimension != nil {
		all = append(all, d.compare(w))
	}
	if len(all) == 0 {
		return Part{SQL: "1=1"}
	}
	return joined(all, " AND ")
}

func joined(parts []Part, between string) (out Part) {
	if len(parts) == 1 {
		return parts[0]
	}
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = p.SQL
		out.Args = append(out.Args, p.Args...)
	}
	out.SQL = "(" + strings.Join(texts, between) + ")"
	return out
}

// notNull is a condition that a dimension which may be missing is there.
func notNull(d *dataset.Dimension) string {
	if !d.Nullable {
		return ""
	}
	return " AND " + Expression(d) + " IS NOT NULL"
}

func (d *Dialect) compare(w *store.Where) (out Part) {
	if len(w.Values) == 0 { // only In and NotIn may be without
		one := cmp.Or(d.Empty, "''") // not in nothing, and in nothing
		return Part{SQL: map[store.Op]string{store.In: one + " <> ''", store.NotIn: one + " = ''"}[w.Op]}
	}
	for _, v := range w.Values {
		out.Args = append(out.Args, d.argument(w.Op, v))
	}
	marks := strings.TrimSuffix(strings.Repeat("?,", len(w.Values)), ",")
	switch w.Op {
	case store.In:
		out.SQL = fmt.Sprintf("%s IN (%s)", d.expression(w.Dimension), marks)
	case store.NotIn: // what is not there is in ClickHouse 18.16 in no set, and so not in any
		out.SQL = fmt.Sprintf("(%s NOT IN (%s)%s)", d.expression(w.Dimension), marks, notNull(w.Dimension))
	case store.Greater, store.AtLeast: // what has not come yet comes after all
		out.SQL = fmt.Sprintf("%s %s ?", d.expression(w.Dimension), operators[w.Op])
		if w.Dimension.Nullable {
			out.SQL = fmt.Sprintf("(%s OR %s IS NULL)", out.SQL, d.expression(w.Dimension))
		}
	default:
		out.SQL = fmt.Sprintf("%s %s ?", d.expression(w.Dimension), operators[w.Op])
	}
	return out
}

func (d *Dialect) argument(op store.Op, v any) any {
	switch v := v.(type) {
	case time.Time:
		if v.Nanosecond() != 0 { // between two seconds, and equal to none
			return float64(v.Unix()) + float64(v.Nanosecond())/1e9
		}
		return v.Unix()
	case uint64:
		if v > math.MaxInt64 { // more than any row has
			return float64(v)
		}
		return int64(v)
	case string:
		if d.Pattern != nil && (op == store.Like || op == store.NotLike) {
			return d.Pattern(v)
		}
	}
	return v
}

// Conjuncts takes a condition apart into those that must all hold.
func Conjuncts(w *store.Where) (out []store.Where) {
	for i := range w.All {
		out = append(out, Conjuncts(&w.All[i])...)
	}
	if len(w.Any) > 0 {
		out = append(out, store.Where{Any: w.Any})
	}
	if w.Dimension != nil {
		out = append(out, store.Where{Dimension: w.Dimension, Op: w.Op, Values: w.Values})
	}
	return out
}

// Uses reports whether a condition speaks of times of rows, and of anything else.
func Uses(w *store.Where) (times, others bool) {
	for _, list := range [][]store.Where{w.All, w.Any} {
		for i := range list {
			t, o := Uses(&list[i])
			times, others = times || t, others || o
		}
	}
	if w.Dimension != nil {
		times, others = times || IsTime(w.Dimension), others || !IsTime(w.Dimension)
	}
	return times, others
}
