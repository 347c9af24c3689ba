package query

import (
	"fmt"
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
	s := &Share{Columns: p.layout(), Rows: make([][]any, 0, len(p.groups))}
	for _, g := range p.groups {
		row := slices.Grow(slices.Clone(g.keys), len(g.sums))
		for _, n := range g.sums {
			row = append(row, n)
		}
		s.Rows = append(s.Rows, row)
	}
	return s
}

// Take adds what another node knows. It is an error if that node means something else by the question, as one of another release may.
func (p *Plan) Take(s *Share) error {
	if !slices.Equal(s.Columns, p.layout()) {
		return fmt.Errorf("query of %s: the answer has other columns: its node runs another release", p.q.Dataset.Name)
	}
	for _, row := range s.Rows {
		if err := p.Add(row); err != nil {
			return err
		}
	}
	return nil
}

// layout names the columns of a share.
func (p *Plan) layout() []string {
	out := slices.Clone(p.keys)
	if p.apart {
		out = append(out, "t")
	}
	for _, c := range p.columns {
		out = append(out, c.sql)
	}
	return out
}

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
