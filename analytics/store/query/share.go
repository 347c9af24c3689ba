package query

import (
	"fmt"
	"math"
	"slices"
)

// A Share is what one node's rows add to an answer, before measures are made of it. Where a measure looks at single intervals, a row is of
// one interval: what other nodes counted in it has to be added before.
type Share struct {
	Columns []string // what the rows have: who asks has to mean the same
	Rows    [][]any  // text, int64, float64 or nil
}

// Share is what the plan has got of this node's rows. The plan must be Shared.
func (p *Plan) Share() *Share {
	s := &Share{Columns: p.Columns(), Rows: make([][]any, 0, len(p.groups))}
	for _, g := range p.groups {
		row := slices.Grow(slices.Clone(g.keys), len(g.sums))
		for _, n := range g.sums {
			row = append(row, n)
		}
		s.Rows = append(s.Rows, row)
	}
	return s
}

// Take adds what another node knows, all of it or nothing. The share must have the plan's columns; it is an error if a row is none that a store
// can have.
func (p *Plan) Take(s *Share) error {
	for _, row := range s.Rows {
		if !p.possible(row) {
			return fmt.Errorf("query of %s: the answer has a row that is none", p.q.Dataset.Name)
		}
	}
	for _, row := range s.Rows {
		if err := p.Add(row); err != nil {
			return err
		}
	}
	return nil
}

// lastTime is later than any row: the year 36812.
const lastTime = 1 << 40

// possible reports whether a row of another node has what columns can have.
func (p *Plan) possible(row []any) bool {
	width := p.keyColumns()
	if len(row) != width+len(p.columns) {
		return false
	}
	for i, v := range row[:width] {
		switch v := v.(type) {
		case nil:
			if i >= len(p.q.By) || !p.q.By[i].Nullable {
				return false
			}
		case string:
			if !p.isText(i) {
				return false
			}
		case int64:
			if p.isText(i) || v < 0 || v > lastTime {
				return false
			}
		default:
			return false
		}
	}
	for i, v := range row[width:] {
		n, err := number(v)
		if _, text := v.(string); text || v == nil || err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n < 0 || i == firstRow && n > lastTime {
			return false
		}
	}
	return true
}

// Columns names what rows of a share have.
func (p *Plan) Columns() []string {
	out := slices.Clone(p.keys)
	if p.apart {
		out = append(out, "t")
	}
	for _, c := range p.columns {
		out = append(out, c.sql)
	}
	return out
}

// MaxGroups is how many groups, and rows of a share, there can be.
func (p *Plan) MaxGroups() int { return p.o.MaxGroups }

// join adds the intervals of each group up, once those of all nodes are there.
func (p *Plan) join() {
	p.apart = false
	if len(p.groups) > 0 { // another node may have older rows than this one
		p.o.Oldest = min(p.o.Oldest, p.first())
	}
	intervals := p.groups
	p.groups = map[string]*group{}
	for _, x := range intervals {
		keys := x.keys[:len(p.keys)]
		_, name, _ := p.identify(keys) // which were identified before
		g := p.groups[name]
		if g == nil {
			g = p.newGroup(keys)
			p.groups[name] = g
		}
		for i, c := range p.columns {
			g.take(i, c.fold, x.sums[i])
			if c.fold == list {
				p.trim(g, i)
			}
		}
	}
}
