package clickhouse

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"causeway/analytics/store/query"
)

// endAttacks ends what a process of this node that was killed has left open: nobody watches those attacks any more. All that is known of when
// they ended is that they went on when the node's last row was written. What has begun since the store was opened is this process's.
// A row replaces one with the same id by a higher version; done twice, it finds nothing.
func (s *Store) endAttacks(ctx context.Context) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	open := fmt.Sprintf("FROM attacks FINAL WHERE node = %s AND ended IS NULL AND t < %d", quote(s.o.Node), s.opened)
	first, err := s.number(ctx, "SELECT min(t) "+open)
	if err != nil || first == 0 {
		return err
	}
	last := first
	for _, table := range []string{"traffic_1s", "drops_1s", "samples"} {
		t, err := s.number(ctx, fmt.Sprintf("SELECT max(t) FROM %s WHERE node = %s AND t >= %d AND t < %d", table, quote(s.o.Node), first, s.opened))
		if err != nil {
			return err
		}
		last = max(last, t)
	}
	rest := strings.Join(append(append([]string{}, query.AttackTexts...), query.AttackNumbers...), ", ")
	sql := fmt.Sprintf("INSERT INTO attacks (t, ended, %s, version) SELECT t, toUInt32(greatest(t, %d)), %[1]s, version + 1 %[3]s", rest, last, open)
	return s.client.exec(ctx, sql, url.Values{})
}

// number asks for one; 0 if there is none.
func (s *Store) number(ctx context.Context, sql string) (n int64, err error) {
	err = s.client.rows(ctx, sql, url.Values{}, func(row []any) error {
		n, err = strconv.ParseInt(fmt.Sprint(row[0]), 10, 64)
		return err
	})
	return n, err
}
