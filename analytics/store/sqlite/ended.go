package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"math"
)

// lastRow is the time of the last row of what is counted or sampled. Seconds that have been rolled up stand by minutes.
const lastRow = `SELECT MAX(0, (SELECT IFNULL(MAX(t), 0) FROM traffic_now WHERE t < ?1), (SELECT IFNULL(MAX(t), 0) FROM drops_now WHERE t < ?1),
	(SELECT IFNULL(MAX(t), 0) FROM samples WHERE t < ?1), (SELECT IFNULL(MAX(t), 0) FROM attacks WHERE t < ?1),
	(SELECT IFNULL(MAX(t), 0) FROM traffic_1s WHERE t < ?1 AND minute = (SELECT MAX(minute) FROM traffic_1s WHERE minute <= ?1 / 60)),
	(SELECT IFNULL(MAX(t), 0) FROM drops_1s WHERE t < ?1 AND minute = (SELECT MAX(minute) FROM drops_1s WHERE minute <= ?1 / 60)))`

// pause is how long a node that works may write no row.
const pause = 10 * 60

// endAttacks ends what a process that was killed has left open: nobody watches those attacks any more. All that is known of when they ended
// is that they went on when the last row was written, of their day or, where rows went on over midnight, of the next. What has begun since the
// store was opened is this process's. Files that have none of them are only read.
func (s *Store) endAttacks(ctx context.Context) error {
	days := s.between(math.MinInt64, math.MaxInt64)
	var failed []error
	for i, d := range days {
		var open int
		err := s.read(ctx, d, 1, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM attacks WHERE ended IS NULL AND t < ?", s.opened).Scan(&open)
		})
		if err == nil && open > 0 {
			var last int64
			if last, err = s.lastRow(ctx, days[i:]); err == nil {
				err = s.endIn(ctx, d, last)
			}
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// lastRow is the time of the last row of the first of these days, or of those that follow it without a pause.
func (s *Store) lastRow(ctx context.Context, days []*day) (last int64, err error) {
	for i, d := range days {
		if i > 0 && (d.start != days[i-1].end() || last < d.start-pause) {
			break
		}
		var t int64
		if err := s.read(ctx, d, 1, func(tx *sql.Tx) error { return tx.QueryRowContext(ctx, lastRow, s.opened).Scan(&t) }); err != nil {
			return 0, err
		}
		last = max(last, t)
	}
	return last, nil
}

// endIn writes that the open attacks of a day's file ended at a time.
func (s *Store) endIn(ctx context.Context, d *day, at int64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if d.gone {
		return nil
	}
	if err := d.open(ctx); err != nil {
		return s.setAside(d, err)
	}
	if _, err := d.conn.ExecContext(ctx, "UPDATE attacks SET ended = MAX(t, ?) WHERE ended IS NULL AND t < ?", at, s.opened); err != nil {
		return s.failed(d, err)
	}
	if s.o.Now().Unix() > d.end() { // who writes to it opens it again
		return d.close()
	}
	return nil
}
