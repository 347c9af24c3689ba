package clickhouse

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// A chunk is rows of one table and one partition, as lines of TabSeparated: what one INSERT writes whole or not at all.
type chunk struct {
	table     int
	partition uint32
	rows      uint32
	from, to  uint32 // times of the first row and the last
	text      []byte
}

// An encoder makes chunks of batches.
type encoder struct {
	chunks []*chunk
	now    int64
	number uint32 // of the last row in the segment
	ids    map[query.Series]uint64
	err    error
}

// maxSeries bounds the numbers of series that are remembered.
const maxSeries = 100_000

// series numbers a series as every node does. Two of a hundred thousand have the same number once in four billion stores.
func (e *encoder) series(s *query.Series) uint64 {
	id, ok := e.ids[*s]
	if !ok {
		h := sha256.New()
		for _, f := range s.Fields() {
			fmt.Fprintf(h, "%d:%s", len(*f), *f)
		}
		id = binary.LittleEndian.Uint64(h.Sum(nil))
		if len(e.ids) >= maxSeries {
			clear(e.ids)
		}
		e.ids[*s] = id
	}
	return id
}

// begin begins a row in the chunk that it belongs to; nil: it belongs to none, and e.err says so.
func (e *encoder) begin(table int, at int64) *chunk {
	if latest := e.now + daySeconds; at <= 0 || at > latest {
		e.err = fmt.Errorf("a row is of %s; it cannot be more than a day after now, %s: compare the clocks",
			time.Unix(at, 0).UTC().Format(time.RFC3339), time.Unix(e.now, 0).UTC().Format(time.RFC3339))
		return nil
	}
	t, partition := uint32(at), uint32(at/tables[table].partition)
	var c *chunk
	for _, x := range e.chunks {
		if x.table == table && x.partition == partition {
			c = x
			break
		}
	}
	if c == nil {
		c = &chunk{table: table, partition: partition, from: t, to: t}
		e.chunks = append(e.chunks, c)
	}
	c.rows++
	c.from, c.to = min(c.from, t), max(c.to, t)
	c.text = strconv.AppendInt(c.text, at, 10)
	return c
}

func (c *chunk) number(n int64) { c.text = strconv.AppendInt(append(c.text, '\t'), n, 10) }

func (c *chunk) string(s string) { c.text = append(append(c.text, '\t'), escapes.Replace(s)...) }

func (c *chunk) end() { c.text = append(c.text, '\n') }

func (e *encoder) named(c *chunk, s *query.Series) {
	c.text = strconv.AppendUint(append(c.text, '\t'), e.series(s), 10)
	for _, f := range s.Fields() {
		c.string(*f)
	}
}

// replaces ends a row that replaces earlier ones.
func (e *encoder) replaces(c *chunk) {
	e.number++
	c.number(int64(e.number))
	c.end()
}

func (e *encoder) batch(b *store.Batch) {
	for i := range b.Traffic {
		r := &b.Traffic[i]
		s := query.SeriesOf(&b.Place, r.Account, r.Tunnel, r.Direction, "")
		e.exact(trafficNow, r.Time, &s, r.Packets, r.Bytes, r.Dropped)
	}
	for i := range b.Drops {
		r := &b.Drops[i]
		s := query.SeriesOf(&b.Place, r.Account, r.Tunnel, r.Direction, r.Reason)
		e.exact(dropsNow, r.Time, &s, r.Packets, 0, 0)
	}
	for i := range b.Samples {
		e.sample(&b.Place, &b.Samples[i])
	}
	for i := range b.Health {
		e.health(&b.Place, &b.Health[i])
	}
	for i := range b.Attacks {
		e.attack(&b.Place, &b.Attacks[i])
	}
	for i := range b.Tops {
		e.top(&b.Place, &b.Tops[i])
	}
}

func (e *encoder) exact(table int, at int64, s *query.Series, packets, bytes, dropped uint64) {
	if c := e.begin(table, at); c != nil {
		e.named(c, s)
		c.number(query.Clamp(packets))
		c.number(query.Clamp(bytes))
		c.number(query.Clamp(dropped))
		c.end()
	}
}

func (e *encoder) sample(p *store.Place, r *store.Sample) {
	c := e.begin(samples, r.Time.Unix())
	if c == nil {
		return
	}
	s := query.SampleSeries(p, r)
	e.named(c, &s)
	for i := range query.SampleColumns {
		if x := &query.SampleColumns[i]; x.Number != nil {
			c.number(min(max(x.Number(r), 0), 1<<32-1))
		} else {
			c.string(x.Text(r))
		}
	}
	c.end()
}

func (e *encoder) health(p *store.Place, r *store.Health) {
	c := e.begin(health, r.Time)
	if c == nil {
		return
	}
	s := query.SeriesOf(p, r.Account, r.Tunnel, flow.NoTunnel, "")
	e.named(c, &s)
	c.string(r.Remote)
	c.string(r.State)
	active := int64(0)
	if r.Active {
		active = 1
	}
	c.number(active)
	c.number(query.Clamp(r.Probes))
	c.number(query.Clamp(min(r.Lost, r.Probes)))
	c.text = strconv.AppendFloat(append(c.text, '\t'), float64(r.RTT)/float64(time.Microsecond), 'g', -1, 64)
	e.replaces(c)
}

func (e *encoder) top(p *store.Place, r *store.Top) {
	table := topMinutes
	if r.Hour {
		table = topHours
	}
	c := e.begin(table, r.Time)
	if c == nil {
		return
	}
	s := query.SeriesOf(p, r.Account, r.Tunnel, r.Direction, "")
	e.named(c, &s)
	c.string(r.Kind.String())
	c.string(r.Value)
	numbers, floats := query.TopValues(r)
	for _, n := range numbers {
		c.number(n)
	}
	for _, x := range floats {
		c.text = strconv.AppendFloat(append(c.text, '\t'), x, 'g', -1, 64)
	}
	c.end()
}

func (e *encoder) attack(p *store.Place, r *store.Attack) {
	c := e.begin(attacks, r.Start)
	if c == nil {
		return
	}
	if r.End == 0 {
		c.text = append(c.text, "\t\\N"...)
	} else {
		c.number(min(max(r.End, 0), 1<<32-1))
	}
	texts, numbers := query.AttackValues(p, r)
	for _, v := range texts {
		c.string(v)
	}
	for _, v := range numbers {
		c.number(v)
	}
	e.replaces(c)
}
