package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"causeway/analytics/store/query"
)

// lag is how long after its end a minute is rolled up. What comes later is added to it.
const lag = 15 * time.Second

// A kind is rows that are kept equally long.
type kind struct {
	tables  []string
	keep    time.Duration
	byRange bool // they go one by one; others all at once, when the day is past
}

func (s *Store) kinds() []kind {
	r := &s.o.Retention
	list := []kind{
		{[]string{"traffic_1s", "drops_1s"}, r.Second, true},
		{[]string{"samples"}, r.Samples, true},
		{[]string{"traffic_1m", "drops_1m"}, r.Minute, false},
		{[]string{"tops_1m"}, r.Tops, false},
		{[]string{"traffic_1h", "drops_1h"}, r.Hour, false},
		{[]string{"tops_1h"}, query.TopHours(r.Tops, r.Hour), false},
		{[]string{"health"}, r.Health, false},
		{[]string{"attacks"}, r.Attacks, false},
	}
	for i := range list {
		list[i].keep += 2 * late
	}
	return list
}

// Tidy rolls up minutes and hours that are over, and removes what is too old or too much. It is to be called every few seconds; what it has
// not yet done is right nevertheless. It goes on after an error with the other files.
func (s *Store) Tidy(ctx context.Context) error {
	now := s.o.Now().Unix()
	var failed []error
	for _, d := range s.between(math.MinInt64, math.MaxInt64) {
		if err := s.tidyDay(ctx, d, now); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(append(failed, s.bound(ctx))...)
}

func (s *Store) tidyDay(ctx context.Context, d *day, now int64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if d.gone || now < d.next {
		return nil
	}
	kinds := s.kinds()
	if !slices.ContainsFunc(kinds, func(k kind) bool { return k.before(now) < d.end() }) {
		_, err := s.removeDay(d)
		return err
	}
	if err := d.open(ctx); err != nil {
		return s.setAside(d, err)
	}
	err := d.transaction(ctx, func() error { return d.roll(ctx, now) })
	if err == nil {
		err = d.expire(ctx, kinds, now)
	}
	if err != nil {
		return s.failed(d, err)
	}
	d.next = d.due(kinds, now)
	if now > d.end()+int64(time.Hour/time.Second) { // nobody writes to it any more
		return d.close()
	}
	return nil
}

// before is the time before which rows are too old.
func (k *kind) before(now int64) int64 { return now - int64(k.keep/time.Second) }

// due is when there is something to do next, if nobody writes.
func (d *day) due(kinds []kind, now int64) int64 {
	if d.rolled[3600] < d.end() {
		return 0
	}
	next := int64(math.MaxInt64)
	for _, k := range kinds {
		begins, ends := d.start+int64(k.keep/time.Second), d.end()+int64(k.keep/time.Second)
		switch {
		case now < begins && k.byRange:
			next = min(next, begins)
		case now < ends && k.byRange:
			next = min(next, now+60)
		case now < ends:
			next = min(next, ends)
		}
	}
	return next
}

// roll makes minutes of seconds and hours of minutes, as far as they are over. It is part of a transaction: all of it is done, once.
func (d *day) roll(ctx context.Context, now int64) error {
	finer, until := "_now", now-int64(lag/time.Second)
	for _, r := range rollups {
		until = min(until-until%r.seconds, d.end())
		from := d.rolled[r.seconds]
		if until <= from {
			return nil
		}
		for _, table := range exact {
			if err := d.rollTable(ctx, table, finer, r.suffix, r.seconds, from, until); err != nil {
				return err
			}
		}
		if _, err := d.conn.ExecContext(ctx, "UPDATE rolled SET until = ? WHERE seconds = ?", until, r.seconds); err != nil {
			return err
		}
		d.rolled[r.seconds] = until // if the transaction fails, the file is closed and read again
		finer = r.suffix
	}
	return nil
}

func (d *day) rollTable(ctx context.Context, table, finer, suffix string, seconds, from, until int64) error {
	packets, bytes, now := "packets", "bytes", finer == "_now"
	if !now {
		packets, bytes = "peak_packets", "peak_bytes"
	}
	// Rows of minutes stand by series: without naming those, all rows would be looked at.
	_, err := d.conn.ExecContext(ctx, fmt.Sprintf("INSERT OR REPLACE INTO %[1]s%[2]s (series, t, packets, bytes, dropped, peak_packets, peak_bytes) "+
		"SELECT series, t - t %% %[3]d, SUM(packets), SUM(bytes), SUM(dropped), MAX(%[5]s), MAX(%[6]s) FROM %[1]s%[4]s "+
		"WHERE t >= ? AND t < ? AND series IN (SELECT id FROM series) GROUP BY series, t - t %% %[3]d",
		table, suffix, seconds, finer, packets, bytes), from, until)
	if err != nil || !now {
		return err
	}
	if _, err := d.conn.ExecContext(ctx, "INSERT OR REPLACE INTO "+table+"_1s (minute, series, t, packets, bytes, dropped) "+
		"SELECT t / 60, series, t, packets, bytes, dropped FROM "+table+"_now WHERE t < ? ORDER BY 1, 2, 3", until); err != nil {
		return err
	}
	_, err = d.conn.ExecContext(ctx, "DELETE FROM "+table+"_now WHERE t < ?", until)
	return err
}

// expire deletes rows that are too old. Room that a past day does not need any more is given back.
func (d *day) expire(ctx context.Context, kinds []kind, now int64) error {
	deleted := int64(0)
	for _, k := range kinds {
		before := k.before(now)
		if !k.byRange && before < d.end() {
			continue
		}
		if k.byRange && before <= d.start {
			continue
		}
		for _, table := range k.tables {
			n, err := d.delete(ctx, table, before)
			if err != nil {
				return err
			}
			deleted += n
		}
	}
	if deleted > 0 && now >= d.end() {
		return d.shrink(ctx)
	}
	return nil
}

// delete deletes rows from before a time, of seconds whole minutes, and says how many. Minutes that are not in an hour yet stay.
func (d *day) delete(ctx context.Context, table string, before int64) (int64, error) {
	text := "DELETE FROM " + table + " WHERE t < ?"
	switch {
	case strings.HasSuffix(table, "_1s"):
		text = "DELETE FROM " + table + " WHERE minute < ? / 60"
	case strings.HasSuffix(table, "_1m"):
		before = min(before, d.rolled[3600])
	}
	result, err := d.conn.ExecContext(ctx, text, before)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// shrink gives pages without rows back to the disk.
func (d *day) shrink(ctx context.Context) error {
	nothing := func(func(...any) error) error { return nil }
	if err := each(ctx, d.conn, "PRAGMA incremental_vacuum", nothing); err != nil {
		return err
	}
	return each(ctx, d.conn, "PRAGMA wal_checkpoint(TRUNCATE)", nothing) // it does what it can while others read
}

// removeDay removes a file, if nobody reads it: who writes has not to wait for a reader. s.writing is held.
func (s *Store) removeDay(d *day) (removed bool, err error) {
	if !d.gate.TryLock() {
		return false, nil
	}
	defer d.gate.Unlock()
	return true, errors.Join(s.forget(d), d.remove())
}

// bound removes files, oldest first, until the directory is no larger than it may be. Of the newest file samples and seconds are removed,
// a half at a time.
func (s *Store) bound(ctx context.Context) error {
	if s.o.MaxBytes <= 0 {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if size, _, err := s.size(); err != nil || size > s.o.MaxBytes {
		if err := errors.Join(err, s.settle(ctx)); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		size, aside, err := s.size()
		if err != nil {
			return err
		}
		if size <= s.o.MaxBytes {
			s.full.Store(false)
			return nil
		}
		name, freed, err := s.less(ctx, aside)
		if err != nil {
			return err
		}
		if freed == 0 {
			s.full.Store(true)
			return fmt.Errorf("analytics store %s: it takes %d bytes, and %d are allowed: %w", s.dir, size, s.o.MaxBytes, errFull)
		}
		if s.o.Removed != nil {
			s.o.Removed(name, freed)
		}
	}
	return ctx.Err()
}

// settle brings what was written last from the logs into the files that are open. s.writing is held.
func (s *Store) settle(ctx context.Context) error {
	var failed []error
	for _, d := range s.between(math.MinInt64, math.MaxInt64) {
		if d.db != nil {
			if err := d.shrink(ctx); err != nil {
				failed = append(failed, s.failed(d, err))
			}
		}
	}
	return errors.Join(failed...)
}

// size is what lies in the directory, and the damaged files in it, oldest first.
func (s *Store) size() (total int64, aside []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, nil, err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else it has just gone
			total += info.Size()
		}
		if strings.Contains(e.Name(), damaged) {
			aside = append(aside, e.Name())
		}
	}
	return total, aside, nil
}

// less removes what can be spared most, and says how many bytes that were; 0: there is nothing.
func (s *Store) less(ctx context.Context, aside []string) (name string, freed int64, err error) {
	if len(aside) > 0 {
		path := filepath.Join(s.dir, aside[0])
		info, err := os.Stat(path)
		if err != nil {
			return "", 0, err
		}
		return aside[0], max(info.Size(), 1), os.Remove(path)
	}
	days := s.between(math.MinInt64, math.MaxInt64)
	if len(days) == 0 {
		return "", 0, nil
	}
	d := days[0]
	before := d.bytes()
	if len(days) > 1 {
		removed, err := s.removeDay(d)
		if err == nil && !removed {
			err = fmt.Errorf("analytics store %s: it is to be removed, because %d bytes are allowed, and is being read; it is tried again",
				d.path, s.o.MaxBytes)
		}
		return d.name(), max(before, 1), err
	}
	if err := d.open(ctx); err != nil {
		return "", 0, s.setAside(d, err)
	}
	if err := d.trim(ctx); err != nil {
		return "", 0, s.failed(d, err)
	}
	return d.name(), max(before-d.bytes(), 0), nil
}

// trim removes the older half of the samples, of the minutes of tops, and of the seconds that have been rolled up.
func (d *day) trim(ctx context.Context) error {
	for _, x := range [][2]string{{"samples", "t"}, {"tops_1m", "t"}, {"traffic_1s", "minute"}, {"drops_1s", "minute"}} {
		if _, err := d.conn.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s WHERE %s <= (SELECT (MIN(%[2]s) + MAX(%[2]s)) / 2 FROM %[1]s)", x[0],
			x[1])); err != nil {
			return err
		}
	}
	return d.shrink(ctx)
}
