package query

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Highest and percentile look at each second of a group: its rows, one of each series, are added up first. A database sorts all rows of
// all groups for that. A store that keeps a series' seconds of one minute together can give them as lists instead, a minute at a time, and
// they are added up here: see Seconds.

// An interval is what the rows of one group in one second add up to.
type interval struct {
	t                             int64
	rows, packets, bytes, dropped float64
	peakPackets, peakBytes        float64 // of one row
}

// added is a sum of an interval; nil if it has none of that name.
func added(name string) func(*interval) float64 {
	return map[string]func(*interval) float64{
		"packets": func(x *interval) float64 { return x.packets }, "bytes": func(x *interval) float64 { return x.bytes },
		"dropped": func(x *interval) float64 { return x.dropped },
	}[name]
}

// peaked is the highest row of an interval.
func peaked(name string) func(*interval) float64 {
	if name == "bytes" {
		return func(x *interval) float64 { return x.peakBytes }
	}
	return func(x *interval) float64 { return x.peakPackets }
}

// A minute is the seconds of all groups in one minute, by the group's name.
type minute map[string]*seconds

type seconds struct {
	keys []any
	each [60]interval
}

// Seconds is a statement for the seconds of one minute of a table of exact counts, of which source is a SELECT with the columns series, t,
// packets, bytes and dropped: a row for each series, with lists. AddSeconds takes its rows, and EndMinute adds up. The query's condition and
// its account must have been applied: the plan knows of none. No dimension may be a time.
func (p *Plan) Seconds(source Part) (s Part) {
	var selected []string
	for i, k := range p.keys {
		selected = append(selected, fmt.Sprintf("%s AS g%d", k, i))
	}
	var lists []string
	for _, i := range p.amounts() {
		name := amountNames[i]
		lists = append(lists, fmt.Sprintf(p.o.Dialect.Join, name)+" AS l_"+name)
		selected = append(selected, "r.l_"+name)
	}
	s.Add("SELECT %s FROM (SELECT series, %s FROM (%s) GROUP BY series) AS r CROSS JOIN series s ON s.id = r.series", strings.Join(selected, ", "),
		strings.Join(lists, ", "), source)
	return s
}

var amountNames = [...]string{"t", "packets", "bytes", "dropped"}

// amounts are the numbers of those of amountNames that are looked at: lists of others would be made for nothing.
func (p *Plan) amounts() (out []int) {
	for i, name := range amountNames {
		if i == 0 || slices.ContainsFunc(p.columns, func(c column) bool { return strings.Contains(c.sql, "_"+name) }) {
			out = append(out, i)
		}
	}
	return out
}

// AddSeconds takes a row that a statement of Seconds gave.
func (p *Plan) AddSeconds(row []any) error {
	amounts := p.amounts()
	if len(row) != len(p.keys)+len(amounts) {
		return fmt.Errorf("query of %s: a row of seconds has %d columns, not %d", p.q.Dataset.Name, len(row), len(p.keys)+len(amounts))
	}
	keys, name, err := p.identify(row[:len(p.keys)])
	if err != nil {
		return err
	}
	if p.minute == nil {
		p.minute = minute{}
	}
	g := p.minute[name]
	if g == nil {
		g = &seconds{keys: keys}
		p.minute[name] = g
	}
	return g.add(row[len(p.keys):], amounts)
}

// add adds the lists of a series, which are of those amounts.
func (g *seconds) add(lists []any, amounts []int) error {
	rest := make([]string, len(lists))
	for i, v := range lists {
		text, ok := v.(string)
		if !ok {
			return fmt.Errorf("query: the database gave a %T where a list was expected", v)
		}
		rest[i] = text
	}
	for rest[0] != "" {
		var n [len(amountNames)]int64
		for i := range rest {
			item, after, _ := strings.Cut(rest[i], ",")
			var err error
			if n[amounts[i]], err = strconv.ParseInt(item, 10, 64); err != nil {
				return err
			}
			rest[i] = after
		}
		g.each[(n[0]%60+60)%60].row(n)
	}
	return nil
}

// row adds a row, which has its time and its amounts.
func (x *interval) row(n [len(amountNames)]int64) {
	packets, bytes := float64(n[1]), float64(n[2])
	x.t, x.rows, x.packets, x.bytes, x.dropped = n[0], x.rows+1, x.packets+packets, x.bytes+bytes, x.dropped+float64(n[3])
	x.peakPackets, x.peakBytes = max(x.peakPackets, packets), max(x.peakBytes, bytes)
}

// EndMinute adds up what AddSeconds has taken: all rows of a minute.
func (p *Plan) EndMinute() error {
	for name, m := range p.minute {
		var g *group
		for i := range m.each {
			x := &m.each[i]
			if x.rows == 0 {
				continue
			}
			if g == nil {
				var err error
				if g, err = p.group(name, m.keys); err != nil {
					return err
				}
			}
			for j, c := range p.columns {
				g.take(j, c.fold, c.of(x))
			}
			*x = interval{}
		}
		for j, c := range p.columns {
			if g != nil && c.fold == list {
				p.trim(g, j)
			}
		}
	}
	return nil
}
