package query

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// A group is what is known of a group so far.
type group struct {
	keys  []any // int64, string or nil
	sums  []float64
	lists [][]float64 // of columns that are lists: the highest values
	least []float64   // of those: what is not above it cannot be among the highest any more
}

// Add takes a row that a statement gave: integers, floats, or their text; text; or nil. It is an error when there are too many groups.
func (p *Plan) Add(row []any) error {
	width := p.keyColumns()
	if len(row) != width+len(p.columns) {
		return fmt.Errorf("query of %s: a row has %d columns, not %d", p.q.Dataset.Name, len(row), width+len(p.columns))
	}
	keys, name, err := p.identify(row[:width])
	if err != nil {
		return err
	}
	row = row[width:]
	if n, err := number(row[rowCount]); err != nil || n == 0 { // sums of no rows at all
		return err
	}
	g, err := p.group(name, keys)
	if err != nil {
		return err
	}
	return p.fold(g, row)
}

// group is the one of that name, with these keys.
func (p *Plan) group(name string, keys []any) (*group, error) {
	g := p.groups[name]
	if g == nil {
		if len(p.groups) >= p.o.MaxGroups {
			return nil, TooMany{store.Refusal(fmt.Sprintf("query of %s: it makes more than %d groups; ask for less time, filter more, or group by less",
				p.q.Dataset.Name, p.o.MaxGroups)), p.o.Resolution, p.apart}
		}
		g = p.newGroup(keys)
		p.groups[name] = g
	}
	return g, nil
}

// TooMany is the refusal of a query that makes too many groups.
type TooMany struct {
	store.Refusal
	Resolution time.Duration
	Intervals  bool // each group is of one interval: with a coarser resolution there are fewer
}

func (e TooMany) Unwrap() error { return e.Refusal }

// newGroup makes one of no rows.
func (p *Plan) newGroup(keys []any) *group {
	g := &group{keys: keys, sums: make([]float64, len(p.columns)), lists: make([][]float64, len(p.columns)),
		least: slices.Repeat([]float64{math.Inf(-1)}, len(p.columns))}
	g.sums[firstRow] = math.Inf(1)
	return g
}

// keyColumns is how many columns of a row say which group it is of.
func (p *Plan) keyColumns() int {
	if p.apart {
		return len(p.keys) + 1 // the interval
	}
	return len(p.keys)
}

// isText reports whether a column of those is text. Behind the dimensions are names of an attack, or an interval.
func (p *Plan) isText(key int) bool {
	if key < len(p.q.By) {
		return p.q.By[key].Type == dataset.String
	}
	return !p.apart
}

// identify reads the dimensions of a row, and makes a name of them.
func (p *Plan) identify(row []any) (keys []any, name string, err error) {
	var b []byte
	for i, v := range row {
		switch {
		case v == nil:
			b = append(b, 'n')
		case p.isText(i):
			s, ok := v.(string)
			if !ok {
				return nil, "", fmt.Errorf("query of %s: column %d is a %T, not text", p.q.Dataset.Name, i, v)
			}
			b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
			b = append(b, s...)
		default:
			n, err := number(v)
			if err != nil {
				return nil, "", err
			}
			v = int64(n)
			b = append(strconv.AppendInt(b, int64(n), 10), ';')
		}
		keys = append(keys, v)
	}
	return keys, string(b), nil
}

// number reads a number. Those of keys have at most 33 bits, and sums are exact up to 2^53.
func number(v any) (float64, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case int64:
		return float64(v), nil
	case uint64:
		return float64(v), nil
	case float64:
		return v, nil
	case string:
		return strconv.ParseFloat(v, 64)
	}
	return 0, fmt.Errorf("query: the database gave a %T where a number was expected", v)
}

func (p *Plan) fold(g *group, row []any) error {
	for i, c := range p.columns {
		how := c.fold
		if p.apart {
			how = c.across
		}
		if how == list {
			if err := p.extend(g, i, row[i]); err != nil {
				return err
			}
			continue
		}
		n, err := number(row[i])
		if err != nil {
			return err
		}
		g.take(i, how, n)
	}
	return nil
}

// take folds a number into a column.
func (g *group) take(i int, f fold, n float64) {
	switch f {
	case sum:
		g.sums[i] += n
	case highest:
		g.sums[i] = max(g.sums[i], n)
	case lowest:
		g.sums[i] = min(g.sums[i], n)
	case list:
		if n > g.least[i] {
			g.lists[i] = append(g.lists[i], n)
		}
	}
}

// extend adds values to a list. Only the highest are kept: a percentile does not look at the others.
func (p *Plan) extend(g *group, i int, v any) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("query: the database gave a %T where a list was expected", v)
	}
	for item := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseInt(item, 10, 64)
		if err != nil {
			return err
		}
		g.take(i, list, float64(n))
	}
	p.trim(g, i)
	return nil
}

// trim cuts a list that has become long.
func (p *Plan) trim(g *group, i int) {
	// Rows that a wrong clock put after now may make the group's intervals more; 64 have room for 1280 of them.
	most := int(p.groupSpan(g, p.o.Oldest).Intervals(p.resolution())/20) + 1 + 64
	if values := g.lists[i]; len(values) > 2*most {
		slices.SortFunc(values, descending)
		g.lists[i], g.least[i] = slices.Clone(values[:most]), values[most-1]
	}
}

func descending(a, b float64) int { return cmp.Compare(b, a) }

func (p *Plan) resolution() int64 { return int64(p.o.Resolution / time.Second) }

// peak is the highest rate of one interval. Rows of more than a second know their highest second. That is the group's highest as long as
// no interval of the group has more than one row: then one tunnel, direction and node made it alone. Where several may have had their
// highest seconds at different times, the rate of an interval is its average.
func (p *Plan) peak(v dataset.Value) (final, error) {
	name, unit := amount(dataset.TrafficTable, v)
	together := p.column("MAX(n)", highest, sum, func(x *interval) float64 { return x.rows })
	average, second := p.column("MAX(s_"+name+")", highest, sum, added(name)), p.column("MAX(p_"+name+")", highest, highest, peaked(name))
	return final{func(p *Plan, g *group) float64 {
		if g.sums[together] == 1 {
			return g.sums[second] * unit
		}
		return g.sums[average] * unit / float64(p.resolution())
	}, -1}, nil
}

// percentile is the 95th of the rates of all intervals, by nearest rank: the one that ceil(0.95 N) of N reach at most. An interval
// without rows counts, as zero.
func (p *Plan) percentile(v dataset.Value) (final, error) {
	name, unit := amount(dataset.TrafficTable, v)
	column := p.column(fmt.Sprintf(p.o.Dialect.Join, "s_"+name), list, sum, added(name))
	return final{func(p *Plan, g *group) float64 {
		n := max(p.groupSpan(g, p.start).Intervals(p.resolution()), int64(g.sums[rowCount]))
		values := g.lists[column]
		slices.SortFunc(values, descending)
		// Rank ceil(0.95 N) from below is rank N - ceil(0.95 N) = floor(N/20) from above, counted from 0.
		if rank := n / 20; rank < int64(len(values)) {
			return values[rank] * unit / float64(p.resolution())
		}
		return 0
	}, -1}, nil
}

// first is when the first row of all groups begins.
func (p *Plan) first() int64 {
	t := math.Inf(1)
	for _, g := range p.groups {
		t = min(t, g.sums[firstRow])
	}
	return int64(t)
}

// groupSpan is the time that a group is made of: the query's, up to now, and of that the bucket. Without a lower bound it begins at first.
func (p *Plan) groupSpan(g *group, first int64) Span {
	s := p.span.And(Span{math.MinInt64, p.o.Now.Unix()})
	if s.From == Always.From {
		s.From = first
	}
	for i, d := range p.q.By {
		if t, ok := g.keys[i].(int64); ok && IsTime(d) {
			s = s.And(Span{t, t + d.Bucket})
		}
	}
	return s
}

// Answer orders the groups and makes the answer of them.
func (p *Plan) Answer() *store.Answer {
	if p.apart {
		p.join()
	}
	a := &store.Answer{Resolution: p.o.Resolution}
	type entry struct {
		*group
		measures []float64
	}
	var all []entry
	p.start = p.first()
	for _, g := range p.groups {
		e := entry{group: g}
		for _, f := range p.finals {
			e.measures = append(e.measures, f.value(p, g))
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(x, y entry) int { return p.compare(x.group, y.group, x.measures, y.measures) })
	for _, e := range all[:min(len(all), p.q.Limit)] {
		a.Groups = append(a.Groups, p.result(e.group, e.measures))
	}
	return a
}

func (p *Plan) compare(x, y *group, mx, my []float64) int {
	for _, o := range p.q.Order {
		c := 0
		if o.Dimension != nil {
			i := index(p.q.By, o.Dimension)
			c = compareKeys(x.keys[i], y.keys[i])
		} else {
			i := index(p.q.Measures, o.Measure)
			c = cmp.Compare(mx[i], my[i])
		}
		if o.Descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return slices.CompareFunc(x.keys, y.keys, compareKeys)
}

// compareKeys compares two values of the same dimension; nil is least.
func compareKeys(x, y any) int {
	if x == nil || y == nil {
		return cmp.Compare(bit(x != nil), bit(y != nil))
	}
	if s, ok := x.(string); ok {
		return cmp.Compare(s, y.(string))
	}
	return cmp.Compare(x.(int64), y.(int64))
}

func (p *Plan) result(g *group, measures []float64) store.Group {
	out := store.Group{Measures: measures}
	for i, d := range p.q.By {
		v := g.keys[i]
		if n, ok := v.(int64); ok {
			if v = uint64(n); d.Bucket > 0 {
				v = time.Unix(n, 0).UTC()
			}
		}
		out.Values = append(out.Values, v)
	}
	if p.q.Dataset.Table == dataset.SampleTable || p.q.Dataset.Table == dataset.TopTable {
		out.Rows = uint64(g.sums[p.samples])
		out.PacketsVariance, out.BitsVariance = g.sums[p.variance[0]], g.sums[p.variance[1]]
	}
	return out
}
