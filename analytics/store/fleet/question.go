package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// A question is what is asked of another node: a query without what the node that was asked does with all rows, its order and its limit.
type question struct {
	Version    int       `json:"version"`
	Dataset    string    `json:"dataset"`
	Account    string    `json:"account"`
	Where      condition `json:"where"`
	By         []string  `json:"by,omitempty"`
	Measures   []measure `json:"measures,omitempty"`
	Resolution int64     `json:"resolution"` // seconds
}

const version = 1

type measure struct {
	Block dataset.Block `json:"block,omitempty"`
	Name  string        `json:"name"`
}

type condition struct {
	All       []condition `json:"all,omitempty"`
	Any       []condition `json:"any,omitempty"`
	Dimension string      `json:"dimension,omitempty"`
	Op        store.Op    `json:"op,omitempty"`
	Values    []value     `json:"values,omitempty"`
}

// A value is one of its fields.
type value struct {
	Text   *string    `json:"s,omitempty"`
	Number *uint64    `json:"n,omitempty"`
	Time   *time.Time `json:"t,omitempty"`
}

// appendQuestion writes a query that has passed query.Check.
func appendQuestion(b []byte, q *store.Query, resolution time.Duration) []byte {
	x := question{Version: version, Dataset: q.Dataset.Name, Account: q.Account, Where: conditionOf(&q.Where), Resolution: int64(resolution / time.Second)}
	for _, d := range q.By {
		x.By = append(x.By, d.Name)
	}
	for _, m := range q.Measures {
		x.Measures = append(x.Measures, measure{m.Block, m.Name})
	}
	text, _ := json.Marshal(x) // which has nothing in it that fails
	return append(b, text...)
}

func conditionOf(w *store.Where) (c condition) {
	for i := range w.All {
		c.All = append(c.All, conditionOf(&w.All[i]))
	}
	for i := range w.Any {
		c.Any = append(c.Any, conditionOf(&w.Any[i]))
	}
	if w.Dimension == nil {
		return c
	}
	c.Dimension, c.Op = w.Dimension.Name, w.Op
	for _, v := range w.Values {
		switch v := v.(type) {
		case string:
			c.Values = append(c.Values, value{Text: &v})
		case uint64:
			c.Values = append(c.Values, value{Number: &v})
		case time.Time:
			v = v.UTC()
			c.Values = append(c.Values, value{Time: &v})
		}
	}
	return c
}

// parseQuestion reads what another node asks. What it returns has passed query.Check.
func parseQuestion(text []byte) (*store.Query, time.Duration, error) {
	var x question
	if err := json.Unmarshal(text, &x); err != nil {
		return nil, 0, fmt.Errorf("the question is none: %w", err)
	}
	i := slices.IndexFunc(dataset.All, func(d *dataset.Dataset) bool { return d.Name == x.Dataset })
	switch {
	case x.Version != version:
		return nil, 0, fmt.Errorf("the question has version %d, and this node knows %d: it runs another release", x.Version, version)
	case i < 0:
		return nil, 0, fmt.Errorf("this node has no dataset %q: it runs another release", x.Dataset)
	case x.Resolution < 1 || x.Resolution > 86400:
		return nil, 0, fmt.Errorf("the question is for rows of %d seconds", x.Resolution)
	}
	q := &store.Query{Dataset: dataset.All[i], Account: x.Account, Limit: 1}
	var err error
	if q.Where, err = x.Where.in(q.Dataset, 0); err != nil {
		return nil, 0, err
	}
	for _, name := range x.By {
		d := q.Dataset.Lookup(name)
		if d == nil {
			return nil, 0, unknown(q.Dataset, name)
		}
		q.By = append(q.By, d)
	}
	for _, m := range x.Measures {
		i := slices.IndexFunc(q.Dataset.Measures, func(d dataset.Measure) bool { return d.Block == m.Block && d.Name == m.Name })
		if i < 0 {
			return nil, 0, unknown(q.Dataset, string(m.Block)+"."+m.Name)
		}
		q.Measures = append(q.Measures, q.Dataset.Measures[i])
	}
	return q, time.Duration(x.Resolution) * time.Second, query.Check(q)
}

func unknown(d *dataset.Dataset, name string) error {
	return fmt.Errorf("this node has no %s of %s: it runs another release", name, d.Name)
}

// deepest is more than query.Check lets pass.
const deepest = 64

// in is the condition with the dimensions of a dataset.
func (c *condition) in(d *dataset.Dataset, depth int) (w store.Where, err error) {
	if depth > deepest {
		return w, errors.New("the question has conditions in conditions that are too deep")
	}
	for _, x := range []struct {
		from []condition
		to   *[]store.Where
	}{{c.All, &w.All}, {c.Any, &w.Any}} {
		for i := range x.from {
			inner, err := x.from[i].in(d, depth+1)
			if err != nil {
				return w, err
			}
			*x.to = append(*x.to, inner)
		}
	}
	if c.Dimension == "" {
		return w, nil
	}
	if w.Dimension, w.Op = d.Lookup(c.Dimension), c.Op; w.Dimension == nil {
		return w, unknown(d, c.Dimension)
	}
	for _, v := range c.Values {
		switch {
		case v.Text != nil:
			w.Values = append(w.Values, *v.Text)
		case v.Number != nil:
			w.Values = append(w.Values, *v.Number)
		case v.Time != nil:
			w.Values = append(w.Values, *v.Time)
		}
	}
	return w, nil
}
