package graph

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// Bounds of a filter: more than a page with all its drop-downs makes, and less than a store chokes on.
const (
	maxConditions = 256
	maxValues     = 1000 // of all _in and _notin together
	maxNesting    = 10   // of AND and OR
)

// A filter reads the argument of that name.
type filter struct {
	shape              *shape
	now                time.Time
	conditions, values int
}

// where is the condition that the argument describes. All that stands in one object must hold together. A null counts as not
// there: queries leave optional variables out.
func (f *filter) where(v any, depth int) (store.Where, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return store.Where{}, refusal("is required, as an object: {datetime_geq: ..., ...}; {} takes everything")
	}
	if depth > maxNesting {
		return store.Where{}, refusal(fmt.Sprintf("AND and OR are nested deeper than %d", maxNesting))
	}
	var w store.Where
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if err := f.add(&w, key, object[key], depth); err != nil {
			return store.Where{}, at(key, err)
		}
	}
	return w, nil
}

// add adds one entry of the object.
func (f *filter) add(w *store.Where, key string, v any, depth int) error {
	if v == nil {
		return nil
	}
	if key != "AND" && key != "OR" {
		c, err := f.comparison(key, v)
		w.All = append(w.All, c)
		return err
	}
	for _, x := range list(v) {
		inner, err := f.where(x, depth+1)
		if err != nil {
			return err
		}
		if key == "AND" {
			w.All = append(w.All, inner)
		} else {
			w.Any = append(w.Any, inner)
		}
	}
	return nil
}

// comparison is what `name_suffix: value` says. No name of a dimension has an underscore.
func (f *filter) comparison(key string, v any) (store.Where, error) {
	name, suffix, ok := strings.Cut(key, "_")
	d := f.shape.Lookup(name)
	if d == nil {
		return store.Where{}, refusal("there is no such dimension")
	}
	w := store.Where{Dimension: d, Op: store.Equal}
	if ok {
		w.Op = store.Op("_" + suffix)
	}
	values := []any{v}
	switch w.Op {
	case store.In, store.NotIn:
		values = list(v)
		f.values += len(values)
	case store.Like, store.NotLike:
		if d.Type != dataset.String {
			return w, refusal("only text is compared with a pattern")
		}
	case store.Equal, store.Greater, store.AtLeast, store.Less, store.AtMost, store.Not:
	default:
		return w, refusal("there is no such comparison")
	}
	if f.conditions++; f.conditions > maxConditions || f.values > maxValues {
		return w, refusal(fmt.Sprintf("the filter has more than %d comparisons or %d listed values", maxConditions, maxValues))
	}
	for _, x := range values {
		x, err := value(d.Type, x, f.now)
		if err != nil {
			return w, err
		}
		w.Values = append(w.Values, x)
	}
	return w, nil
}

// list reads a list: GraphQL takes a single value for a list of one.
func list(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	return []any{v}
}

// at names the place of an error.
func at(place string, err error) error {
	return refusal(place + ": " + err.Error())
}
