package sqlite

import (
	"context"
	"errors"
	"math"
	"slices"
)

// lastRow is the time of the last row of what is counted or sampled. Seconds that have been rolled up stand by minutes.
const lastRow = `SELECT MAX(0, (SELECT IFNULL(MAX(t), 0) FROM traffic_now WHERE t < ?1), (SELECT IFNULL(MAX(t), 0) FROM drops_now WHERE t < ?1),
	(SELECT IFNULL(MAX(t), 0) FROM samples WHERE t < ?1), (SELECT IFNULL(MAX(t), 0) FROM traffic_1s WHERE minute = (SELECT MAX(minute) FROM traffic_1s)),
	(SELECT IFNULL(MAX(t), 0) FROM drops_1s WHERE minute = (SELECT MAX(minute) FROM drops_1s)))`

// endAttacks ends what a process that was killed has left open: nobody watches those attacks any more. All that is known of when they ended
// is that they went on when the last row was written. What has begun since the store was opened is this process's.
func (s *Store) endAttacks(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var failed []error
	last := int64(0)
	for _, d := range slices.Backward(s.between(math.MinInt64, math.MaxInt64)) {
		if err := d.open(ctx); err != nil {
			failed = append(failed, s.setAside(d, err))
			continue
		}
		var t int64
		err := d.conn.QueryRowContext(ctx, lastRow, s.opened).Scan(&t)
		if last = max(last, t); err == nil {
			_, err = d.conn.ExecContext(ctx, "UPDATE attacks SET ended = MAX(t, ?) WHERE ended IS NULL AND t < ?", last, s.opened)
		}
		if err != nil {
			failed = append(failed, s.failed(d, err))
		}
	}
	return errors.Join(failed...)
}
