package graph

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/graph-gophers/graphql-go"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// MaxRows is the highest limit of a dataset field.
const MaxRows = 10000

// A shape is a dataset with what the API makes of its names.
type shape struct {
	*dataset.Dataset
	dimensions map[string]int         // by the path of the field under the group
	measures   map[string]int         // likewise, the paths under confidence among them
	orders     map[string]store.Order // by the value of orderBy
	available  []text                 // paths, as settings shows them
}

// shapeOf finds a dataset that the schema was generated from.
func shapeOf(name string) *shape {
	i := slices.IndexFunc(dataset.All, func(d *dataset.Dataset) bool { return d.Name == name })
	if i < 0 {
		panic("graph: no dataset " + name + ": run go generate ./analytics/graph")
	}
	s := &shape{Dataset: dataset.All[i], dimensions: map[string]int{}, measures: map[string]int{}, orders: map[string]store.Order{}}
	for i := range s.Dimensions {
		d := &s.Dimensions[i]
		path := d.Name
		if s.grouped() {
			path = "dimensions." + path
		}
		s.dimensions[path] = i
		s.available = append(s.available, text(strings.ReplaceAll(path, ".", "_")))
		s.order(d.Name, store.Order{Dimension: d})
	}
	for i, m := range s.Measures {
		path := m.Name
		if m.Block != dataset.NoBlock {
			path = string(m.Block) + "." + path
		}
		s.measures[path], s.measures["confidence."+path] = i, i
		s.available = append(s.available, text(strings.ReplaceAll(path, ".", "_")))
		s.order(strings.ReplaceAll(path, ".", "_"), store.Order{Measure: m})
	}
	return s
}

func (s *shape) order(name string, o store.Order) {
	s.orders[name+"_ASC"] = o
	o.Descending = true
	s.orders[name+"_DESC"] = o
}

// grouped reports whether rows are grouped. Attacks are not: each is an item.
func (s *shape) grouped() bool { return s.Table != dataset.AttackTable }

// groupArgs are the arguments of a dataset field.
type groupArgs struct {
	Filter, Limit given
	OrderBy       *[]string
}

// asked is a query with the places of its columns in the answer: -1 is not there.
type asked struct {
	shape      *shape
	query      store.Query
	dimensions []int
	measures   []int
	resolution time.Duration
}

// ask makes a query of the fields that are selected below the one that ctx belongs to.
func ask(ctx context.Context, s *shape, tag string, now time.Time, args groupArgs) (*asked, error) {
	limit, err := unsigned(args.Limit.value, MaxRows)
	if err != nil || limit == 0 {
		return nil, at("limit", wrong(args.Limit.value, fmt.Sprintf("a whole number from 1 to %d", MaxRows)))
	}
	f := filter{shape: s, now: now}
	where, err := f.where(args.Filter.value, 0)
	if err != nil {
		return nil, at("filter", err)
	}
	a := &asked{shape: s, dimensions: absent(len(s.Dimensions)), measures: absent(len(s.Measures))}
	a.query = store.Query{Dataset: s.Dataset, Account: tag, Where: where, Limit: int(limit)}
	for _, path := range graphql.SelectedFieldNames(ctx) {
		if i, ok := s.dimensions[path]; ok {
			a.by(i)
		} else if i, ok := s.measures[path]; ok {
			a.measure(i)
		}
	}
	if !s.grouped() {
		a.by(s.dimensions["attackId"]) // each attack is a row of its own
	}
	return a, a.orderBy(args.OrderBy)
}

// absent is n places that are not there.
func absent(n int) []int { return slices.Repeat([]int{-1}, n) }

// by groups by a dimension.
func (a *asked) by(i int) {
	if a.dimensions[i] < 0 {
		a.dimensions[i] = len(a.query.By)
		a.query.By = append(a.query.By, &a.shape.Dimensions[i])
	}
}

// measure asks for a measure.
func (a *asked) measure(i int) {
	if a.measures[i] < 0 {
		a.measures[i] = len(a.query.Measures)
		a.query.Measures = append(a.query.Measures, a.shape.Measures[i])
	}
}

// orderBy puts what groups are made of behind the wanted order, as the product does: so pages that filters make are stable.
func (a *asked) orderBy(names *[]string) error {
	ordered := map[*dataset.Dimension]bool{}
	if names != nil {
		for _, name := range *names {
			o, ok := a.shape.orders[name]
			if !ok {
				return at("orderBy", wrong(name, "something to order "+a.shape.Name+" by"))
			}
			if err := a.add(o, name); err != nil {
				return err
			}
			ordered[o.Dimension] = true
		}
	}
	for _, d := range a.query.By {
		if !ordered[d] {
			a.query.Order = append(a.query.Order, store.Order{Dimension: d})
		}
	}
	if len(a.query.By)+len(a.query.Measures) == 0 {
		a.measure(0) // only __typename or the resolution was asked for
	}
	return nil
}

// add orders by one thing more. A measure is computed for it; a dimension would make other groups of the rows.
func (a *asked) add(o store.Order, name string) error {
	if len(a.query.Order) >= maxConditions {
		return refusal(fmt.Sprintf("orderBy: more than %d entries", maxConditions))
	}
	if o.Dimension == nil {
		a.measure(slices.Index(a.shape.Measures, o.Measure))
	} else if i := slices.IndexFunc(a.shape.Dimensions, func(d dataset.Dimension) bool { return d.Name == o.Dimension.Name }); a.dimensions[i] < 0 {
		if a.shape.grouped() {
			return refusal(fmt.Sprintf("orderBy: %s: groups are not made by %s: ask for it in dimensions as well", name, o.Dimension.Name))
		}
		a.by(i)
	}
	a.query.Order = append(a.query.Order, o)
	return nil
}

// checked looks once at what the store answered, so that no resolver has to.
func (a *asked) checked(answer *store.Answer) error {
	if len(answer.Groups) > a.query.Limit {
		return fmt.Errorf("%d groups, where at most %d were asked for", len(answer.Groups), a.query.Limit)
	}
	for _, g := range answer.Groups {
		if len(g.Values) != len(a.query.By) || len(g.Measures) != len(a.query.Measures) {
			return fmt.Errorf("a group of %d values and %d measures, where %d and %d were asked for",
				len(g.Values), len(g.Measures), len(a.query.By), len(a.query.Measures))
		}
		for i, d := range a.query.By {
			if !fits(d, g.Values[i]) {
				return fmt.Errorf("%T as value of %s", g.Values[i], d.Name)
			}
		}
	}
	return nil
}

func fits(d *dataset.Dimension, v any) bool {
	ok := false
	switch d.Type {
	case dataset.String:
		_, ok = v.(string)
	case dataset.Time, dataset.Date:
		_, ok = v.(time.Time)
	default:
		_, ok = v.(uint64)
	}
	return ok || d.Nullable && v == nil
}

// groups answers a dataset field.
func groups[G ~struct{ row }](ctx context.Context, acc *account, s *shape, args groupArgs) ([]*G, error) {
	a, err := ask(ctx, s, acc.tag, acc.request.now, args)
	if err != nil {
		return nil, err
	}
	if err := acc.request.begin(); err != nil {
		return nil, err
	}
	answer, err := acc.request.store.Groups(ctx, &a.query)
	if err == nil {
		err = a.checked(answer)
	}
	if err != nil {
		return nil, acc.request.failed(ctx, s, err)
	}
	if err := acc.request.charge(len(answer.Groups)); err != nil {
		return nil, err
	}
	acc.request.lacks(answer.Missing)
	a.resolution = answer.Resolution
	out := make([]*G, len(answer.Groups))
	for i := range answer.Groups {
		g := G(struct{ row }{row{a, &answer.Groups[i]}})
		out[i] = &g
	}
	return out, nil
}

var errStore = errors.New("the store could not answer: the node's log says why")
