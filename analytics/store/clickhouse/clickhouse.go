// Package clickhouse keeps rows in a ClickHouse server, by its HTTP interface: several nodes write to one, and each answers for all. Rows
// wait in files, a buffer, until the server has them; so they survive the process, and the server's absence.
//
// Each row is there once, whatever gets lost between here and there: see Store.insert, and Store.rollup. That holds for one server; behind an
// address that stands for several, rows that were sent again because an answer was lost may be there twice.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// Retention is how long rows are kept; zero is the default. Second, Minute and Hour are exact counts of intervals of that length; none can be
// kept for longer than the next. All nodes of a server should have the same.
type Retention struct {
	Second  time.Duration // default 1 hour; they stay a day longer, because rows may come late
	Minute  time.Duration // default 30 days
	Hour    time.Duration // default 400 days
	Samples time.Duration // default 7 days
	Tops    time.Duration // of minutes, default 30 days, and at most Hour: those of hours are kept so long
	Health  time.Duration // default 90 days
	Attacks time.Duration // default 400 days
}

// Options are those of a store. URL, Node, Buffer and Log must be there.
type Options struct {
	URL       string // http or https, host and port; a user, and the database as path: http://edge@host:8123/causeway. Default database: causeway
	Password  string // of the user; it may stand in URL instead
	Node      string // whose rows are written
	Buffer    string // directory; made if it is not there
	MaxBuffer int64  // bytes; default 1 GiB. When there are more the oldest rows are dropped
	Retention Retention

	Readers      int           // queries at once; default 4
	QueryTimeout time.Duration // default 30 seconds
	QueryMemory  int64         // bytes of the server; default 2 GiB
	SendTimeout  time.Duration // of one request with rows; default 60 seconds

	Log *slog.Logger
	Now func() time.Time // default time.Now
}

// Stats are counts of rows since the start, but for Buffered and Limit.
type Stats struct {
	Buffered int64  // bytes that wait in files
	Limit    int64  // bytes that may
	Sent     uint64 // rows that the server has taken
	Lost     uint64 // there was no room in the buffer
	Refused  uint64 // the server would not have them
	Away     bool   // the last try to reach the server failed
}

// A Store is a server's database. Its methods may be called by any goroutine.
type Store struct {
	o       Options
	client  *client
	buffer  *buffer
	lock    *os.File
	opened  int64 // when, in seconds since 1970
	readers chan struct{}
	killing sync.WaitGroup

	writing sync.Mutex // guards encoder, and the order of rows
	encoder encoder

	sending sync.Mutex // guards what follows, and is held while the server is spoken to
	ready   bool       // the tables are there
	pending pending
	tidied  time.Time

	away          atomic.Bool
	sent, refused atomic.Uint64
}

var (
	_ store.Ingester = (*Store)(nil)
	_ store.Querier  = (*Store)(nil)
)

// Open opens the buffer. The server need not be there: Run looks for it, and makes the tables.
func Open(o Options) (*Store, error) {
	c, err := o.complete()
	if err != nil {
		return nil, fmt.Errorf("analytics store: %w", err)
	}
	if err := os.MkdirAll(o.Buffer, 0o700); err != nil {
		return nil, err
	}
	s := &Store{o: o, client: c, opened: o.Now().Unix(), readers: make(chan struct{}, o.Readers), encoder: encoder{ids: map[query.Series]uint64{}}}
	if s.lock, err = os.OpenFile(filepath.Join(o.Buffer, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("analytics store: buffer %s: another process has it open: %w", o.Buffer, err), s.lock.Close())
	}
	if s.buffer, err = openBuffer(o.Buffer, o.MaxBuffer); err == nil {
		err = s.load()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("analytics store: buffer %s: %w", o.Buffer, err), s.lock.Close())
	}
	return s, nil
}

var databaseName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

func (o *Options) complete() (*client, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil: // its text has the URL, and with it perhaps the password
		return nil, errors.New("the URL of ClickHouse cannot be read; write one such as http://edge@clickhouse.example.net:8123/causeway")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("the URL of ClickHouse, %s, is not one such as http://edge@clickhouse.example.net:8123/causeway", u.Redacted())
	case o.Node == "" || o.Buffer == "" || o.Log == nil:
		return nil, errors.New("ClickHouse needs a node's name, a directory for the buffer, and a log")
	}
	database := strings.Trim(u.Path, "/")
	if database == "" {
		database = "causeway"
	}
	if !databaseName.MatchString(database) {
		return nil, fmt.Errorf("the database %q in the URL of ClickHouse is not letters, digits and _", database)
	}
	password, given := u.User.Password()
	if given && o.Password != "" {
		return nil, fmt.Errorf("the URL of ClickHouse, %s, has a password, and there is another: remove one", u.Redacted())
	}
	if o.Password != "" {
		password = o.Password
	}
	if err := o.Retention.complete(); err != nil {
		return nil, err
	}
	orElse(&o.MaxBuffer, 1<<30)
	orElse(&o.Readers, 4)
	orElse(&o.QueryTimeout, 30*time.Second)
	orElse(&o.QueryMemory, 2<<30)
	orElse(&o.SendTimeout, time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	return newClient(&url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}, database, u.User.Username(), password, o.SendTimeout), nil
}

func orElse[T int | int64 | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

func (r *Retention) complete() error {
	const day = 24 * time.Hour
	orElse(&r.Second, time.Hour)
	orElse(&r.Minute, 30*day)
	orElse(&r.Hour, 400*day)
	orElse(&r.Samples, 7*day)
	orElse(&r.Tops, 2*day)
	r.Tops = min(r.Tops, r.Hour)
	orElse(&r.Health, 90*day)
	orElse(&r.Attacks, 400*day)
	if r.Second > r.Minute || r.Minute > r.Hour {
		return fmt.Errorf("retention of seconds is %s, of minutes %s, of hours %s; none can be longer than the next", r.Second, r.Minute, r.Hour)
	}
	return nil
}

// Write puts a batch into the buffer's file, where a killed process leaves it. After an error nothing of it is there. Exact counts of the same
// second are added up, health of the same minute and attacks with the same account and id are replaced, tops of the same value are added up.
func (s *Store) Write(ctx context.Context, b *store.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.Place.Node != s.o.Node {
		return fmt.Errorf("analytics store: a batch is of node %q; this store writes for %q", b.Place.Node, s.o.Node)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	e := &s.encoder
	e.chunks, e.err, e.now = nil, nil, s.o.Now().Unix()
	e.batch(b)
	if e.err != nil {
		return fmt.Errorf("analytics store: %w", e.err)
	}
	if len(e.chunks) == 0 {
		return nil
	}
	fresh, err := s.buffer.write(e.chunks, uint64(s.o.Now().UnixMilli()))
	e.chunks = nil
	if fresh {
		e.number = 0
	}
	if err != nil {
		return fmt.Errorf("analytics store: buffer %s: %w", s.o.Buffer, err)
	}
	return nil
}

const (
	sendEvery = 2 * time.Second
	slowest   = 30 * time.Second // between two tries to reach a server that is away
)

// Run sends what is buffered, until the context ends, and once that is there ends the attacks that a killed process of this node has left
// open. What is written afterwards Close tries to send.
func (s *Store) Run(ctx context.Context) {
	wait := sendEvery
	for ended := false; ; {
		err := s.Flush(ctx)
		if err == nil && !ended {
			err = s.endAttacks(ctx)
			ended = err == nil
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !s.away.Swap(true) {
			s.o.Log.Warn("analytics: ClickHouse does not take rows; they wait in the buffer", "error", err)
		}
		if err == nil {
			wait = sendEvery
			if s.away.Swap(false) {
				s.o.Log.Info("analytics: ClickHouse takes rows again")
			}
		} else {
			wait = min(2*wait, slowest)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait - time.Duration(rand.Int64N(int64(wait)/4))): // not all nodes at once
		}
	}
}

// Stats may be called at any time.
func (s *Store) Stats() Stats {
	st := Stats{Limit: s.buffer.max, Sent: s.sent.Load(), Refused: s.refused.Load(), Away: s.away.Load()}
	st.Buffered, st.Lost = s.buffer.size()
	return st
}

// Close sends what is left, if that takes no longer than two seconds; what is not sent stays in the buffer. Run must have returned, and no
// other method may be called afterwards.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if bytes, _ := s.buffer.size(); bytes > 0 && !s.away.Load() {
		if err := s.Flush(ctx); err != nil {
			s.o.Log.Info("analytics: what is in the buffer is sent at the next start", "error", err)
		}
	}
	_, err := s.buffer.seal()
	s.killing.Wait()
	s.client.web.CloseIdleConnections()
	return errors.Join(err, s.lock.Close())
}
