package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"causeway/analytics/store/query"
)

// A day is the file of one day.
type day struct {
	start int64 // seconds since 1970
	path  string

	// gate is held by readers while they read, and wholly by whoever takes the file away.
	gate sync.RWMutex
	gone bool // the file was taken away

	// Store.writing guards what follows.
	db      *sql.DB   // to write; nil: not open
	conn    *sql.Conn // the only one of db
	inserts map[string]*sql.Stmt
	series  map[query.Series]int64
	rolled  map[int64]int64 // as table rolled
	next    int64           // when Tidy has something to do here, in seconds since 1970
}

func (d *day) name() string { return filepath.Base(d.path) }
func (d *day) end() int64   { return d.start + secs }

// location is the file as a URI with the settings of a connection.
func (d *day) location(settings ...string) string {
	v := url.Values{"mode": {"rw"}, "_pragma": append([]string{"busy_timeout(5000)", "trusted_schema(0)", "cell_size_check(1)"}, settings...)}
	u := url.URL{Scheme: "file", Path: d.path, RawQuery: v.Encode()}
	return u.String()
}

// fail says which file an error is of.
func (d *day) fail(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("analytics store %s: %w", d.path, err)
}

// isDamage reports whether a file is not what it should be.
func isDamage(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB)
}

// open makes the file if it is not there, and opens it to write.
func (d *day) open(ctx context.Context) (err error) {
	if d.db != nil {
		return nil
	}
	f, err := os.OpenFile(d.path, os.O_CREATE|os.O_EXCL, 0o600) // SQLite's own files get the same mode
	switch {
	case err == nil:
		f.Close()
	case !errors.Is(err, os.ErrExist):
		return err
	}
	// auto_vacuum has to be set before anything else.
	location := d.location("auto_vacuum(incremental)", "journal_mode(wal)", "synchronous(normal)", "journal_size_limit(67108864)",
		"cache_size(-32768)")
	if d.db, err = sql.Open("sqlite", location); err != nil {
		return d.fail(err)
	}
	d.db.SetMaxOpenConns(1)
	if d.conn, err = d.db.Conn(ctx); err == nil {
		err = d.prepare(ctx)
	}
	if err != nil {
		return errors.Join(d.fail(err), d.close())
	}
	return nil
}

// prepare makes the tables if they are not there, and reads what a writer has to know.
func (d *day) prepare(ctx context.Context) error {
	v, err := schemaVersion(ctx, d.conn)
	if err != nil {
		return err
	}
	switch v {
	case 0:
		err = d.create(ctx)
	case 1:
		err = d.transaction(ctx, func() error {
			_, err := d.conn.ExecContext(ctx, topSchema()+fmt.Sprintf("PRAGMA user_version = %d;", version))
			return err
		})
	}
	if err != nil {
		return err
	}
	d.inserts, d.series = map[string]*sql.Stmt{}, map[query.Series]int64{}
	if d.rolled, err = rolled(ctx, d.conn); err != nil {
		return err
	}
	return each(ctx, d.conn, "SELECT id, "+seriesColumns+" FROM series", func(scan func(...any) error) error {
		var id int64
		var s query.Series
		into := []any{&id}
		for _, f := range s.Fields() {
			into = append(into, f)
		}
		err := scan(into...)
		d.series[s] = id
		return err
	})
}

// rolled reads how far rows have been rolled up, by the seconds of an interval.
func rolled(ctx context.Context, db querier) (map[int64]int64, error) {
	out := map[int64]int64{}
	return out, each(ctx, db, "SELECT seconds, until FROM rolled", func(scan func(...any) error) error {
		var seconds, until int64
		err := scan(&seconds, &until)
		out[seconds] = until
		return err
	})
}

func (d *day) create(ctx context.Context) error {
	return d.transaction(ctx, func() error {
		_, err := d.conn.ExecContext(ctx, schema()+
			fmt.Sprintf("INSERT INTO rolled VALUES (60, %d), (3600, %[1]d);\nPRAGMA user_version = %d;", d.start, version))
		return err
	})
}

// transaction does all of it, or nothing.
func (d *day) transaction(ctx context.Context, do func() error) error {
	if err := d.begin(ctx); err != nil {
		return err
	}
	if err := do(); err != nil {
		d.rollback()
		return err
	}
	return d.commit(ctx)
}

func (d *day) begin(ctx context.Context) error {
	_, err := d.conn.ExecContext(ctx, "BEGIN IMMEDIATE")
	return err
}

// commit is not interrupted: nobody would know whether it was done.
func (d *day) commit(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		_, err = d.conn.ExecContext(context.WithoutCancel(ctx), "COMMIT")
	}
	if err != nil {
		d.rollback()
	}
	return err
}

// rollback leaves nothing undone: after some errors SQLite has rolled back by itself, and says so.
func (d *day) rollback() {
	_, _ = d.conn.ExecContext(context.Background(), "ROLLBACK")
}

// A querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// schemaVersion is 0 of an empty file. A file of a later program is refused.
func schemaVersion(ctx context.Context, db querier) (v int, err error) {
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return 0, err
	}
	if v > version {
		return 0, fmt.Errorf("its schema is of version %d, and this program knows %d: "+
			"it was written by a later release; use that, or move the file away",
			v, version)
	}
	return v, nil
}

func each(ctx context.Context, db querier, text string, row func(scan func(...any) error) error, args ...any) error {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// insert runs a statement of the writer, which is prepared once.
func (d *day) insert(ctx context.Context, text string, args ...any) error {
	st := d.inserts[text]
	if st == nil {
		var err error
		if st, err = d.conn.PrepareContext(ctx, text); err != nil {
			return err
		}
		d.inserts[text] = st
	}
	_, err := st.ExecContext(ctx, args...)
	return err
}

// close closes what open has opened.
func (d *day) close() error {
	if d.db == nil {
		return nil
	}
	var err error
	for _, st := range d.inserts {
		err = errors.Join(err, st.Close())
	}
	if d.conn != nil {
		err = errors.Join(err, d.conn.Close())
	}
	err = errors.Join(err, d.db.Close())
	d.db, d.conn, d.inserts, d.series, d.rolled = nil, nil, nil, nil, nil
	return d.fail(err)
}

// bytes is what the file takes on the disk, with SQLite's own beside it.
func (d *day) bytes() (n int64) {
	for _, end := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(d.path + end); err == nil {
			n += info.Size()
		}
	}
	return n
}

// remove deletes the file, and with it what SQLite made beside it.
func (d *day) remove() error {
	var failed error
	for _, end := range []string{"-wal", "-shm", ""} {
		if err := os.Remove(d.path + end); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
