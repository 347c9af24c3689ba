// Package sqlite keeps what analytics knows in files of its own, one for each day (UTC), without a server.
//
// What Write has returned for is there after the process was killed, for each commit is in the kernel's hands (WAL, synchronous NORMAL).
// A computer that loses its power may lose what was written since the last checkpoint, some thousand pages, and is consistent nevertheless.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"causeway/analytics/store"
)

// Retention is how long rows are kept; zero is the default. Second, Minute and Hour are exact counts of intervals of that length; none can be
// kept for longer than the next.
type Retention struct {
	Second  time.Duration // default 1 hour
	Minute  time.Duration // default 30 days
	Hour    time.Duration // default 400 days
	Samples time.Duration // default 7 days
	Tops    time.Duration // of minutes, default 2 days; those of hours are kept for query.TopHours
	Health  time.Duration // default 90 days
	Attacks time.Duration // default 400 days
}

// Options are those of a store.
type Options struct {
	Retention Retention
	// MaxBytes bounds what lies in the directory, as Tidy finds it; 0: nothing does. Between two calls of Tidy it may be passed.
	MaxBytes int64
	Readers  int              // queries at once; default 2
	Now      func() time.Time // default time.Now

	// Removed is told each file, or part of the newest file, that was removed because of MaxBytes. Failed is told what Run could not do.
	// Both are called by the goroutine of Run or Tidy, and may be nil.
	Removed func(name string, bytes int64)
	Failed  func(error)
}

const (
	suffix  = ".db"
	damaged = ".damaged"
	secs    = int64(86400)
)

// A Store is a directory of files. Its methods may be called by any goroutine.
type Store struct {
	dir     string
	o       Options
	lock    *os.File
	opened  int64 // when, in seconds since 1970
	killed  bool  // the process before was
	readers chan struct{}
	full    atomic.Bool // MaxBytes is reached, and nothing more can be removed

	writing sync.Mutex // is held by whoever writes files, or removes them
	half    *half

	mu   sync.Mutex
	days map[int64]*day // by start, those that have files
}

var (
	_ store.Ingester = (*Store)(nil)
	_ store.Querier  = (*Store)(nil)
)

// Open keeps a store in a directory, which is made if it is not there. Only one process at a time can have it. Files are opened when they
// are needed.
func Open(dir string, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, o: o, opened: o.Now().Unix(), readers: make(chan struct{}, o.Readers), days: map[int64]*day{}}
	if s.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("analytics store %s: another process has it open: %w", dir, err), s.lock.Close())
	}
	if err := errors.Join(s.takeOver(), s.list()); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

func (o *Options) complete() error {
	const day = 24 * time.Hour
	r := &o.Retention
	for _, x := range []struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{{"seconds", &r.Second, time.Hour}, {"minutes", &r.Minute, 30 * day}, {"hours", &r.Hour, 400 * day},
		{"samples", &r.Samples, 7 * day}, {"tops", &r.Tops, 2 * day}, {"health", &r.Health, 90 * day}, {"attacks", &r.Attacks, 400 * day}} {
		if *x.d < 0 {
			return fmt.Errorf("analytics store: retention of %s is %s; it cannot be negative", x.name, *x.d)
		}
		if *x.d == 0 {
			*x.d = x.def
		}
	}
	if r.Second > r.Minute || r.Minute > r.Hour {
		return fmt.Errorf("analytics store: retention of seconds is %s, of minutes %s, of hours %s; none can be longer than the next", r.Second,
			r.Minute, r.Hour)
	}
	r.Tops = min(r.Tops, r.Hour)
	if o.Readers <= 0 {
		o.Readers = 2
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// list finds the files of days.
func (s *Store) list() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if t, err := time.Parse(time.DateOnly, name); ok && err == nil {
			s.days[t.Unix()] = &day{start: t.Unix(), path: filepath.Join(s.dir, e.Name())}
		}
	}
	return nil
}

// between returns the days that have files and lie in a span, oldest first.
func (s *Store) between(from, to int64) (out []*day) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for start, d := range s.days {
		if start < to && start+secs > from {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *day) int { return int(a.start - b.start) })
	return out
}

// day returns the day of a time, to write to. s.writing is held.
func (s *Store) day(start int64) *day {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.days[start]
	if d == nil {
		d = &day{start: start, path: filepath.Join(s.dir, time.Unix(start, 0).UTC().Format(time.DateOnly)+suffix)}
	}
	return d
}

// forget takes a day out of the list, because its file goes away. s.writing and d.gate are held.
func (s *Store) forget(d *day) error {
	s.mu.Lock()
	if s.days[d.start] == d {
		delete(s.days, d.start)
	}
	s.mu.Unlock()
	d.gone = true
	return d.close()
}

// setAside renames a damaged file, if the error says that it is one, so that the next who needs that day begins anew. It returns the error,
// with what became of the file. s.writing is held.
func (s *Store) setAside(d *day, err error) error {
	if !isDamage(err) {
		return err
	}
	d.gate.Lock()
	defer d.gate.Unlock()
	if d.gone { // somebody else was first
		return err
	}
	closed := s.forget(d)
	if isDamage(closed) {
		closed = nil
	}
	aside := fmt.Sprintf("%s.%d%s", d.path, s.o.Now().UnixNano(), damaged)
	var failed error
	for _, end := range []string{"", "-wal", "-shm"} {
		if e := os.Rename(d.path+end, aside+end); e != nil && !errors.Is(e, fs.ErrNotExist) {
			failed = errors.Join(failed, e)
		}
	}
	return errors.Join(fmt.Errorf("%w: the file is damaged and was set aside as %s", err, filepath.Base(aside)), failed, closed)
}

// Run ends the attacks that a killed process has left open, and counts again what was most frequent then. Then it rolls up, and removes what is too
// old or too much, until the context ends.
func (s *Store) Run(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for mended := false; ; {
		var err error
		if !mended {
			err = s.mend(ctx)
			mended = err == nil
		}
		if err = errors.Join(err, s.Tidy(ctx)); err != nil && ctx.Err() == nil && s.o.Failed != nil {
			s.o.Failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// mend does what the process before would have done if it had not been killed.
func (s *Store) mend(ctx context.Context) error {
	err := s.endAttacks(ctx)
	if s.killed {
		err = errors.Join(err, s.recount(ctx))
	}
	return err
}

// Close closes all files. Queries that run are waited for; no other method may be called afterwards.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var failed []error
	for _, d := range s.between(-1<<62, 1<<62) {
		d.gate.Lock()
		failed = append(failed, s.forget(d))
		d.gate.Unlock()
	}
	return errors.Join(append(failed, letGo(s.lock))...)
}
