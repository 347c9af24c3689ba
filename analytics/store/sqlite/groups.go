package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// late is how much longer rows are kept than Retention says, so that a query for exactly that time is answered.
const late = time.Minute

// kept are the resolutions of exact counts, finest first.
func (s *Store) kept() []query.Kept {
	r := &s.o.Retention
	return []query.Kept{{Resolution: time.Second, For: r.Second}, {Resolution: time.Minute, For: r.Minute}, {Resolution: time.Hour, For: r.Hour}}
}

// Groups answers a query. It returns the context's error when that ends before the answer is there.
func (s *Store) Groups(ctx context.Context, q *store.Query) (*store.Answer, error) {
	p, err := s.Plan(ctx, q, query.Options{})
	if err != nil {
		return nil, err
	}
	return p.Answer(), nil
}

// Plan is the plan of an answer that has got all rows here. Of the options it looks at Shared and at Resolution: 0 is the finest that is
// kept for as long as the query reaches back. It returns the context's error when that ends before.
func (s *Store) Plan(ctx context.Context, q *store.Query, o query.Options) (*query.Plan, error) {
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
	span := query.SpanOf(&q.Where)
	days := s.between(span.From, span.To)
	o.Dialect, o.Now, o.Oldest = query.SQLite, now, now.Unix()
	if len(days) > 0 {
		o.Oldest = days[0].start
	}
	finest, err := s.resolution(ctx, q, span, days, now)
	switch {
	case err != nil:
		return nil, err
	case o.Resolution == 0:
		o.Resolution = finest
	case o.Resolution < finest:
		return nil, query.Coarser{Resolution: finest}
	}
	p, err := query.New(q, o)
	if err != nil {
		return nil, err
	}
	// A group of a time lies in one day's file: then the first groups of all are among the first ones of each file, and the others need not be held.
	alone := len(days) == 1 || slices.ContainsFunc(q.By, query.IsTime)
	for _, d := range days {
		if err := s.read(ctx, d, schemaOf(q), func(tx *sql.Tx) error { return gather(ctx, tx, d, p, q, &o, alone) }); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// resolution is that of the rows which answer. A query without a lower bound begins at its first row.
func (s *Store) resolution(ctx context.Context, q *store.Query, span query.Span, days []*day, now time.Time) (time.Duration, error) {
	switch q.Dataset.Table {
	case dataset.HealthTable:
		return time.Minute, nil
	case dataset.TrafficTable, dataset.DropsTable, dataset.TopTable:
	default:
		return time.Second, nil
	}
	from := span.From
	for i := 0; i < len(days) && from == query.Always.From; i++ {
		if err := s.read(ctx, days[i], schemaOf(q), func(tx *sql.Tx) (err error) {
			from, err = first(ctx, tx, q)
			return err
		}); err != nil {
			return 0, err
		}
	}
	kept := s.kept()
	if q.Dataset.Table == dataset.TopTable {
		r := &s.o.Retention
		kept = []query.Kept{{Resolution: time.Minute, For: r.Tops}, {Resolution: time.Hour, For: query.TopHours(r.Tops, r.Hour)}}
	}
	if from == query.Always.From { // there are no rows
		return kept[0].Resolution, nil
	}
	if q.Dataset.Table == dataset.TopTable {
		return query.TopResolution(q, from, kept, now.Add(-late))
	}
	return query.Resolution(q, from, kept, now.Add(-late))
}

// schemaOf is the first version of the schema that has the table which is asked.
func schemaOf(q *store.Query) int {
	if q.Dataset.Table == dataset.TopTable {
		return 2
	}
	return 1
}

// first is when the account's first row of exact counts, or of tops, in a file begins; if it has none, long ago.
func first(ctx context.Context, tx *sql.Tx, q *store.Query) (int64, error) {
	table := string(q.Dataset.Table)
	const account = "FROM series s WHERE ?1 = '" + store.Operator + "' OR account = ?1"
	text := "SELECT NULL AS t"
	if q.Dataset.Table != dataset.TopTable {
		text = "SELECT MIN(t) AS t FROM " + table + "_now WHERE series IN (SELECT id " + account + ")"
	}
	for _, r := range rollups { // minutes know of all seconds that are not in _now
		text += " UNION ALL SELECT (SELECT MIN(t) FROM " + table + r.suffix + " r WHERE r.series = s.id) " + account
	}
	var t sql.NullInt64
	if err := tx.QueryRowContext(ctx, "SELECT MIN(t) FROM ("+text+")", q.Account).Scan(&t); err != nil || !t.Valid {
		return query.Always.From, err
	}
	return t.Int64, nil
}

// read calls a function with a transaction that reads one day's file. It is not called for a file whose schema is older.
func (s *Store) read(ctx context.Context, d *day, since int, f func(*sql.Tx) error) error {
	err := d.read(ctx, since, f)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if isDamage(err) {
		s.writing.Lock()
		defer s.writing.Unlock()
		return s.setAside(d, err)
	}
	return err
}

func (d *day) read(ctx context.Context, since int, f func(*sql.Tx) error) (err error) {
	d.gate.RLock()
	defer d.gate.RUnlock()
	if d.gone {
		return nil
	}
	// LIKE has to tell small letters from capitals, as = does.
	db, err := sql.Open("sqlite", d.location("query_only(1)", "case_sensitive_like(1)", "cache_size(-16384)"))
	if err != nil {
		return d.fail(err)
	}
	defer func() { err = errors.Join(err, d.fail(db.Close())) }()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return d.fail(err)
	}
	defer tx.Rollback()
	v, err := schemaVersion(ctx, tx)
	if err != nil || v < since {
		return d.fail(err)
	}
	return d.fail(f(tx))
}

// gather adds what one file knows to a plan.
func gather(ctx context.Context, tx *sql.Tx, d *day, p *query.Plan, q *store.Query, o *query.Options, alone bool) error {
	done, err := rolled(ctx, tx)
	if err != nil {
		return err
	}
	src := newSource(d, p, q, int64(o.Resolution/time.Second), done)
	seconds, err := src.bySeconds(ctx, tx, p)
	switch {
	case err != nil:
		return err
	case seconds:
		return gatherSeconds(ctx, tx, src, p)
	}
	return rowsOf(ctx, tx, p.Statement(src.rows(o.Now), alone), p.Add)
}

// gatherSeconds adds the seconds that one file has, a minute at a time.
func gatherSeconds(ctx context.Context, tx *sql.Tx, src *source, p *query.Plan) error {
	var first, last sql.NullInt64 // a query may have no bounds of time
	table := string(src.q.Dataset.Table)
	err := tx.QueryRowContext(ctx, "SELECT MIN(t), MAX(t) FROM (SELECT 60 * MIN(minute) AS t FROM "+table+"_1s"+
		" UNION ALL SELECT 60 * MAX(minute) + 59 FROM "+table+"_1s UNION ALL SELECT MIN(t) FROM "+table+"_now"+
		" UNION ALL SELECT MAX(t) FROM "+table+"_now)").Scan(&first, &last)
	if err != nil {
		return err
	}
	span := src.span.And(query.Span{From: first.Int64, To: last.Int64 + 1})
	for minute := span.From / 60; 60*minute < span.To; minute++ {
		if err := rowsOf(ctx, tx, p.Seconds(src.seconds(minute)), p.AddSeconds); err != nil {
			return err
		}
		if err := p.EndMinute(); err != nil {
			return err
		}
	}
	return nil
}

// rowsOf gives the rows of a statement to a function.
func rowsOf(ctx context.Context, tx *sql.Tx, st query.Part, add func([]any) error) error {
	rows, err := tx.QueryContext(ctx, st.SQL, st.Args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	row, into := make([]any, len(names)), make([]any, len(names))
	for i := range row {
		into[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("reading a group: %w", err)
		}
		if err := add(row); err != nil {
			return err
		}
	}
	return rows.Err()
}
