package clickhouse

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// late is how much longer rows are kept than Retention says, so that a query for exactly that time is answered.
const late = time.Minute

// maxRows bounds the rows of an answer that the server gives; a plan bounds the groups.
const maxRows = 260_000

// Groups answers a query. It returns the context's error when that ends before the answer is there; the server is told then.
func (s *Store) Groups(ctx context.Context, q *store.Query) (*store.Answer, error) {
	if err := query.Check(q); err != nil {
		return nil, err
	}
	select {
	case s.readers <- struct{}{}:
		defer func() { <-s.readers }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now := s.o.Now()
	o := query.Options{Dialect: dialect, Now: now}
	var err error
	if o.Resolution, o.Oldest, err = s.resolution(ctx, q, now); err != nil {
		return nil, err
	}
	p, err := query.New(q, o)
	if err != nil {
		return nil, err
	}
	source := newSource(q, p, now.Unix()).rows(int64(o.Resolution/time.Second), now.Unix())
	if err := s.ask(ctx, p.Statement(source, true), p.Add); err != nil {
		return nil, err
	}
	return p.Answer(), nil
}

// resolution is that of the rows which answer. A query without a lower bound begins at its first row, which is the oldest.
func (s *Store) resolution(ctx context.Context, q *store.Query, now time.Time) (time.Duration, int64, error) {
	oldest := query.SpanOf(&q.Where).From
	if oldest == query.Always.From {
		var err error
		if oldest, err = s.first(ctx, q, now.Unix()); err != nil {
			return 0, 0, err
		}
	}
	switch q.Dataset.Table {
	case dataset.HealthTable:
		return time.Minute, oldest, nil
	case dataset.TrafficTable, dataset.DropsTable, dataset.TopTable:
	default:
		return time.Second, oldest, nil
	}
	r := &s.o.Retention
	if q.Dataset.Table == dataset.TopTable {
		kept := []query.Kept{{Resolution: time.Minute, For: r.Tops}, {Resolution: time.Hour, For: query.TopHours(r.Tops, r.Hour)}}
		resolution, err := query.TopResolution(q, oldest, kept, now.Add(-late))
		return resolution, oldest, err
	}
	kept := []query.Kept{{Resolution: time.Second, For: r.Second}, {Resolution: time.Minute, For: r.Minute}, {Resolution: time.Hour, For: r.Hour}}
	resolution, err := query.Resolution(q, oldest, kept, now.Add(-late))
	return resolution, oldest, err
}

// first is when the account's first row begins; now, if it has none.
func (s *Store) first(ctx context.Context, q *store.Query, now int64) (int64, error) {
	names := []string{string(q.Dataset.Table)}
	switch q.Dataset.Table {
	case dataset.TrafficTable, dataset.DropsTable:
		names = []string{names[0] + "_1s", names[0] + "_1m", names[0] + "_1h"}
	case dataset.TopTable:
		names = []string{names[0] + "_1m", names[0] + "_1h"}
	}
	var parts []query.Part
	for _, n := range names {
		p := query.Part{SQL: "SELECT toUInt64(count()) AS n, toUInt32(min(t)) AS first FROM " + n}
		if q.Account != store.Operator {
			p.Add("%s", query.Part{SQL: " WHERE account = ?", Args: []any{q.Account}})
		}
		parts = append(parts, p)
	}
	oldest := now
	var p query.Part
	p.Add("SELECT first FROM (%s) WHERE n > 0", union(parts))
	err := s.ask(ctx, p, func(row []any) error {
		text, _ := row[0].(string)
		n, err := strconv.ParseInt(text, 10, 64)
		oldest = min(oldest, n)
		return err
	})
	return oldest, err
}

// ask runs a statement that only reads, within bounds.
func (s *Store) ask(ctx context.Context, p query.Part, each func([]any) error) error {
	sql, err := render(p)
	if err != nil {
		return err
	}
	most := s.o.QueryTimeout
	ctx, cancel := context.WithTimeout(ctx, most+5*time.Second)
	defer cancel()
	id := s.id("query", rand.Text())
	// The server holds the answer back until it is whole: else an error could come after half of it, with a status that says all is well.
	err = s.client.rows(ctx, sql, url.Values{"query_id": {id}, "readonly": {"1"}, "wait_end_of_query": {"1"},
		"max_execution_time": {strconv.Itoa(max(int(most/time.Second), 1))}, "max_result_rows": {strconv.Itoa(maxRows)},
		"max_memory_usage": {strconv.FormatInt(s.o.QueryMemory, 10)}, "max_bytes_before_external_group_by": {strconv.FormatInt(s.o.QueryMemory/4, 10)},
		"max_query_size": {"16777216"}}, each)
	if ctx.Err() != nil {
		s.killing.Go(func() { s.kill(id) })
	}
	return err
}

// kill stops a query that nobody waits for. That its connection is closed an old server does not see.
func (s *Store) kill(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.client.exec(ctx, "KILL QUERY WHERE query_id = "+quote(id), url.Values{}); err != nil {
		s.o.Log.Debug("analytics: a query goes on in ClickHouse until its time is over", "error", fmt.Sprint(err))
	}
}
