// Package query turns a question to a store into SQL with arguments, and the rows that come back into an answer. Stores differ in a
// Dialect and in where their rows stand; what measures mean, and how days are added up, is the same for all and stands here.
package query

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

const (
	// maxConditions bounds the comparisons of one query: SQLite refuses expressions deeper than 1000.
	maxConditions = 500
	// maxValues bounds the values of one query: SQLite refuses more than 32766 arguments, and some are needed twice.
	maxValues = 5000
	// maxDepth bounds how deep conditions stand in conditions.
	maxDepth = 50
)

// Check says what is wrong with a query. What passes holds nothing that comes from outside but values: dimensions and measures are
// those of the dataset itself.
func Check(q *store.Query) error {
	switch {
	case q.Dataset == nil:
		return fmt.Errorf("query: there is no dataset")
	case q.Account == "":
		return fmt.Errorf("query of %s: there is no account; name one, or %q to see the rows of all", q.Dataset.Name, store.Operator)
	case q.Limit < 1:
		return fmt.Errorf("query of %s: limit is %d; at least 1 is needed", q.Dataset.Name, q.Limit)
	}
	for _, d := range q.By {
		if err := belongs(q.Dataset, d); err != nil {
			return err
		}
	}
	for _, m := range q.Measures {
		if !slices.Contains(q.Dataset.Measures, m) {
			return fmt.Errorf("query: %s has no measure %s", q.Dataset.Name, measureName(m))
		}
	}
	for _, o := range q.Order {
		switch {
		case o.Dimension == nil && !slices.Contains(q.Measures, o.Measure):
			return fmt.Errorf("query of %s: ordered by %s, which is not asked for", q.Dataset.Name, measureName(o.Measure))
		case o.Dimension != nil && !slices.Contains(q.By, o.Dimension):
			return fmt.Errorf("query of %s: ordered by %s, which is not grouped by", q.Dataset.Name, o.Dimension.Name)
		}
	}
	var n counts
	if err := n.where(q.Dataset, &q.Where, 0); err != nil {
		return err
	}
	if q.Dataset.Table == dataset.TopTable && !oneKind(q) {
		return store.Refusal(fmt.Sprintf("query of %s: its kinds tell of the same packets, and cannot be added up: filter by one kind, for example "+
			`kind: "ipSourceAddress", or ask for the dimension kind`, q.Dataset.Name))
	}
	return nil
}

// oneKind reports whether each group is of one kind.
func oneKind(q *store.Query) bool {
	kind := q.Dataset.Lookup(dataset.Kind.Name)
	if slices.Contains(q.By, kind) {
		return true
	}
	return slices.ContainsFunc(Conjuncts(&q.Where), func(w store.Where) bool {
		return w.Dimension == kind && (w.Op == store.Equal || w.Op == store.In && len(w.Values) < 2)
	})
}

func measureName(m dataset.Measure) string {
	return strings.TrimPrefix(string(m.Block)+"."+m.Name, ".")
}

func belongs(set *dataset.Dataset, d *dataset.Dimension) error {
	if d == nil {
		return fmt.Errorf("query of %s: a dimension is nil", set.Name)
	}
	if set.Lookup(d.Name) != d {
		return fmt.Errorf("query: %s has no dimension %s", set.Name, d.Name)
	}
	return nil
}

type counts struct{ conditions, values int }

func (n *counts) where(set *dataset.Dataset, w *store.Where, depth int) error {
	n.conditions++
	n.values += len(w.Values)
	switch {
	case depth > maxDepth:
		return fmt.Errorf("filter of %s: conditions stand in conditions deeper than %d times", set.Name, maxDepth)
	case n.conditions > maxConditions:
		return fmt.Errorf("filter of %s: more than %d conditions", set.Name, maxConditions)
	case n.values > maxValues:
		return fmt.Errorf("filter of %s: more than %d values", set.Name, maxValues)
	}
	for _, list := range [][]store.Where{w.All, w.Any} {
		for i := range list {
			if err := n.where(set, &list[i], depth+1); err != nil {
				return err
			}
		}
	}
	if w.Dimension == nil {
		return nil
	}
	if err := belongs(set, w.Dimension); err != nil {
		return err
	}
	return comparison(w)
}

// operators are the comparisons with one value in SQL.
var operators = map[store.Op]string{store.Equal: "=", store.Greater: ">", store.AtLeast: ">=", store.Less: "<", store.AtMost: "<=",
	store.Not: "<>", store.Like: "LIKE", store.NotLike: "NOT LIKE"}

func comparison(w *store.Where) error {
	name := w.Dimension.Name + string(w.Op)
	switch w.Op {
	case store.In, store.NotIn:
	case store.Like, store.NotLike:
		if w.Dimension.Type != dataset.String {
			return fmt.Errorf("filter %s: %s is a %s; only a string is like a pattern", name, w.Dimension.Name, w.Dimension.Type)
		}
		fallthrough
	default:
		if operators[w.Op] == "" {
			return fmt.Errorf("filter %s: there is no such comparison", name)
		}
		if len(w.Values) != 1 {
			return fmt.Errorf("filter %s: it has %d values; exactly 1 is needed", name, len(w.Values))
		}
	}
	for _, v := range w.Values {
		if err := typed(w.Dimension, v); err != nil {
			return fmt.Errorf("filter %s: %w", name, err)
		}
	}
	return nil
}

func typed(d *dataset.Dimension, v any) error {
	ok := false
	switch d.Type {
	case dataset.String:
		var s string
		// SQLite compares patterns up to the first NUL.
		if s, ok = v.(string); ok && (!utf8.ValidString(s) || strings.ContainsRune(s, 0)) {
			return fmt.Errorf("the text %q is not UTF-8 without NUL", s)
		}
	case dataset.Time, dataset.Date:
		_, ok = v.(time.Time)
	default:
		_, ok = v.(uint64)
	}
	if !ok {
		return fmt.Errorf("the value %v is a %T, which is no %s", v, v, d.Type)
	}
	return nil
}
