package query

import (
	"fmt"
	"strings"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// maxGroups bounds the groups that are held in memory to be added up: some hundred bytes each.
const maxGroups = 250_000

// Options say how a query is answered.
type Options struct {
	Dialect    *Dialect
	Resolution time.Duration // of the rows, whole seconds
	Now        time.Time
	Oldest     int64 // seconds since 1970: no row is older
	MaxGroups  int   // 0: 250,000
	Shared     bool  // what other nodes know is to be added: see Share
}

// A Plan makes an answer out of one or more sources, for example a file for each day: Statement gives the SQL for each, Add takes
// the rows that come back, Answer adds up. It is used once, by one goroutine.
type Plan struct {
	q    *store.Query
	o    Options
	span Span // of the query

	keys      []string // SQL of the dimensions, and of what keeps rows apart beside them
	columns   []column // of a statement, after the keys
	finals    []final  // one for each measure
	intervals bool     // rows of one interval are added up first, because a measure looks at single intervals
	apart     bool     // and rows of different intervals are not, until what other nodes know is there
	listed    bool     // a percentile is asked for
	variance  [2]int   // columns, of what is sampled
	samples   int      // likewise: how many there are
	minute    minute   // of AddSeconds

	groups map[string]*group
	start  int64 // of the first row of all, when all are there
}

// A fold is how values become one.
type fold uint8

const (
	sum fold = iota
	highest
	lowest
	list
)

// A column is of a statement. Fold is how values of a group from several sources become one, across how those of one interval from several
// nodes do.
type column struct {
	sql          string
	fold, across fold
	of           func(*interval) float64 // the same of one interval; nil: rows are not added up by intervals
}

// The columns of each statement.
const (
	rowCount = 0 // with intervals: how many intervals have rows
	firstRow = 1
)

// A final makes a measure of what was added up. Order is the column that is ordered as the measure is, or -1 if none is.
type final struct {
	value func(*Plan, *group) float64
	order int
}

// New checks a query and plans its answer.
func New(q *store.Query, o Options) (*Plan, error) {
	if err := Check(q); err != nil {
		return nil, err
	}
	if o.MaxGroups == 0 {
		o.MaxGroups = maxGroups
	}
	p := &Plan{q: q, o: o, span: SpanOf(&q.Where), groups: map[string]*group{}}
	for _, d := range q.By {
		p.keys = append(p.keys, o.Dialect.expression(d))
	}
	if q.Dataset.Table == dataset.AttackTable { // a list, and not grouped
		p.keys = append(p.keys, "account", "id")
	}
	for _, m := range q.Measures {
		p.intervals = p.intervals || (m.Block == dataset.Max || m.Block == dataset.P95) && m.Value != dataset.DistinctSources
		p.listed = p.listed || m.Block == dataset.P95
	}
	p.apart = p.intervals && o.Shared
	p.columns = []column{{"COUNT(*)", sum, highest, func(*interval) float64 { return 1 }}, {"MIN(t)", lowest, lowest, func(x *interval) float64 { return float64(x.t) }}}
	for _, m := range q.Measures {
		f, err := p.measure(m)
		if err != nil {
			return nil, err
		}
		p.finals = append(p.finals, f)
	}
	switch q.Dataset.Table {
	case dataset.SampleTable:
		const w, x = "(1.0 * every)", "(8.0 * length)"
		p.variance[0] = p.column(fmt.Sprintf("SUM(%s * (%[1]s - 1))", w), sum, sum, nil)
		p.variance[1] = p.column(fmt.Sprintf("SUM(%s * (%[1]s - 1) * %s * %[2]s)", w, x), sum, sum, nil)
		p.samples = rowCount
	case dataset.TopTable:
		p.variance, p.samples = [2]int{p.total("packets_var"), p.total("bits_var")}, p.total("samples")
	}
	return p, nil
}

// Resolution is that of the rows which the plan is made for.
func (p *Plan) Resolution() time.Duration { return p.o.Resolution }

// Intervals reports whether the plan looks at single intervals: then a source must have a row for each interval.
func (p *Plan) Intervals() bool { return p.intervals }

// Together reports whether it does, and has to add up itself what it is given of one interval: nothing of other nodes is to be added.
func (p *Plan) Together() bool { return p.intervals && !p.apart }

// column returns the place of a column, which is added if it is not there.
func (p *Plan) column(sql string, f, across fold, of func(*interval) float64) int {
	for i, c := range p.columns {
		if c.sql == sql {
			return i
		}
	}
	p.columns = append(p.columns, column{sql, f, across, of})
	return len(p.columns) - 1
}

// total is the sum of an expression over the rows of the table. With intervals the sums of the intervals are summed.
func (p *Plan) total(expression string) int {
	of := added(expression)
	if p.intervals {
		expression = "s_" + expression
	}
	return p.column("SUM("+expression+")", sum, sum, of)
}

// measure plans one measure.
func (p *Plan) measure(m dataset.Measure) (final, error) {
	table, samples := p.q.Dataset.Table, p.q.Dataset.Table == dataset.SampleTable
	switch {
	case m.Value == dataset.DistinctSources:
		return scaled(p.column("MAX(sources)", highest, highest, nil), 1), nil
	case m.Block == dataset.Max && table == dataset.TrafficTable:
		return p.peak(m.Value)
	case m.Block == dataset.P95 && table == dataset.TrafficTable:
		return p.percentile(m.Value)
	case m.Block == dataset.Max || m.Block == dataset.P95:
		return final{}, fmt.Errorf("query: %s of %s: only traffic is counted by intervals", measureName(m), p.q.Dataset.Name)
	}
	factor := 1.0
	if m.Seconds > 0 {
		factor /= float64(m.Seconds)
	}
	switch m.Value {
	case dataset.Rows:
		return scaled(rowCount, factor), nil
	case dataset.Bits, dataset.PacketCount, dataset.DroppedPackets, dataset.DroppedBits:
		expression, unit := amount(table, m.Value)
		return scaled(p.total(expression), factor*unit), nil
	case dataset.SampleInterval:
		if !samples {
			return final{func(*Plan, *group) float64 { return 1 }, -1}, nil
		}
		return ratio(p.total("1.0 * every"), rowCount), nil
	case dataset.TunnelState:
		return ratio(p.total("CASE state WHEN 'healthy' THEN 1.0 WHEN 'degraded' THEN 0.5 ELSE 0.0 END"), rowCount), nil
	case dataset.Probes:
		return scaled(p.total("probes"), factor), nil
	case dataset.Lost:
		return scaled(p.total("lost"), factor), nil
	case dataset.SampleCount:
		return scaled(p.total("samples"), factor), nil
	case dataset.PacketsError:
		return scaled(p.total("packets_error"), factor), nil
	case dataset.BitsError:
		return scaled(p.total("bytes_error"), factor*8), nil
	case dataset.RTT:
		return ratio(p.total("rtt_us * (probes - lost)"), p.total("(probes - lost)")), nil
	}
	return final{}, fmt.Errorf("query: measure %s of %s has the unknown value %d", measureName(m), p.q.Dataset.Name, m.Value)
}

// amount is what a row of a table adds to a value, and in which unit.
func amount(t dataset.Table, v dataset.Value) (expression string, unit float64) {
	samples, attacks := t == dataset.SampleTable, t == dataset.AttackTable
	switch {
	case v == dataset.Bits && samples:
		return "1.0 * every * length", 8
	case v == dataset.Bits && attacks:
		return "bits", 1
	case v == dataset.Bits:
		return "bytes", 8
	case v == dataset.PacketCount && samples:
		return "1.0 * every", 1
	case v == dataset.DroppedBits:
		return "dropped_bits", 1
	case v == dataset.DroppedPackets && attacks:
		return "dropped_packets", 1
	case v == dataset.DroppedPackets:
		return "dropped", 1
	}
	return "packets", 1
}

func scaled(column int, factor float64) final {
	return final{func(_ *Plan, g *group) float64 { return g.sums[column] * factor }, column}
}

// ratio is 0 where there is nothing to divide by.
func ratio(over, under int) final {
	return final{func(_ *Plan, g *group) float64 {
		if g.sums[under] == 0 {
			return 0
		}
		return g.sums[over] / g.sums[under]
	}, -1}
}

// Statement is the SQL for one source: a table, or a SELECT, with the columns of the dataset's table and those that its dimensions name;
// of traffic also peak_packets and peak_bytes, the most in one second. Alone says that no other source has rows of the same groups: then the
// database does the ordering as well, where it can, and gives no more than are asked for.
func (p *Plan) Statement(source Part, alone bool) Part {
	var selected, grouped []string
	for i, k := range p.keys {
		grouped = append(grouped, fmt.Sprintf("g%d", i))
		selected = append(selected, k+" AS "+grouped[i])
	}
	var s Part
	from := Part{}
	from.Add("(%s) AS x WHERE %s", source, p.condition())
	if p.intervals {
		from = p.perInterval(selected, grouped, from)
		if p.apart {
			grouped = append(grouped, "t")
		}
		selected = grouped[:len(grouped):len(grouped)]
	}
	for i, c := range p.columns {
		selected = append(selected, fmt.Sprintf("%s AS c%d", c.sql, i))
	}
	s.Add("SELECT %s FROM %s", strings.Join(selected, ", "), from)
	if len(grouped) > 0 {
		s.Add(" GROUP BY %s", strings.Join(grouped, ", "))
	}
	if order, ok := p.order(); ok && alone && !p.o.Shared {
		s.Add("%s LIMIT ?", order)
		s.Args = append(s.Args, int64(p.q.Limit))
	}
	return s
}

// condition is the query's, and that the rows are the account's.
func (p *Plan) condition() Part {
	c := p.o.Dialect.Condition(&p.q.Where)
	if p.q.Account == store.Operator {
		return c
	}
	return joined([]Part{{"account = ?", []any{p.q.Account}}, c}, " AND ")
}

// perInterval adds up the rows of each group that are of the same interval. Column t stays what it was.
func (p *Plan) perInterval(selected, grouped []string, from Part) (out Part) {
	// Without aliases that are also columns: databases do not agree which of the two is meant.
	out.Add("(SELECT %s FROM %s GROUP BY %s) AS y", strings.Join(append(selected, "t", "COUNT(*) AS n", "SUM(packets) AS s_packets",
		"SUM(bytes) AS s_bytes",
		"SUM(dropped) AS s_dropped", "MAX(peak_packets) AS p_packets", "MAX(peak_bytes) AS p_bytes"), ", "), from, strings.Join(append(grouped,
		"t"), ", "))
	return out
}

// order is what the database can order by: sums and dimensions. Equal groups follow each other as their dimensions do.
func (p *Plan) order() (sql string, ok bool) {
	if p.listed && p.span.From == Always.From {
		return "", false // the first row of all groups is needed
	}
	var terms []string
	for _, o := range p.q.Order {
		term := ""
		if o.Dimension != nil {
			term = p.byKey(o.Dimension, o.Descending)
		} else {
			c := p.finals[index(p.q.Measures, o.Measure)].order
			if c < 0 {
				return "", false
			}
			term = fmt.Sprintf("c%d%s", c, map[bool]string{true: " DESC"}[o.Descending])
		}
		terms = append(terms, term)
	}
	for _, d := range p.q.By {
		terms = append(terms, p.byKey(d, false))
	}
	for i := len(p.q.By); i < len(p.keys); i++ {
		terms = append(terms, fmt.Sprintf("g%d", i))
	}
	if len(terms) == 0 {
		return "", true
	}
	return " ORDER BY " + strings.Join(terms, ", "), true
}

func (p *Plan) byKey(d *dataset.Dimension, descending bool) string {
	term := fmt.Sprintf("g%d", index(p.q.By, d))
	if descending {
		term += " DESC"
	}
	if d.Bucket > 0 && !IsTime(d) { // it may be null, and null is least
		term += map[bool]string{false: " NULLS FIRST", true: " NULLS LAST"}[descending]
	}
	return term
}

func index[T comparable](list []T, x T) int {
	for i := range list {
		if list[i] == x {
			return i
		}
	}
	return -1
}
