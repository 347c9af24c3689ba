package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/storetest"
)

var dims, measure = storetest.Dimensions, storetest.Measure

// since asks for acme's packets from a time on.
func since(t time.Time, by ...string) *store.Query {
	return &store.Query{Dataset: dataset.Traffic, Account: "acme", Limit: 10_000, By: dims(dataset.Traffic, by...),
		Measures: []dataset.Measure{measure(dataset.Traffic, dataset.Sum, "packets")},
		Where:    store.Where{Dimension: dataset.Traffic.Lookup("datetime"), Op: store.AtLeast, Values: []any{t}}}
}

// count is how many rows a table of a day's file has.
func (b *bench) count(file, table string) (n int) {
	b.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(b.dir, file))
	if err != nil {
		b.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT COUNT(*) FROM " + table).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) files() (out []string) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" && !strings.Contains(e.Name(), "-wal") && !strings.Contains(e.Name(), "-shm") {
			out = append(out, e.Name())
		}
	}
	return out
}

// Each kind of row goes when it is older than it is kept, and the file with the last of them. What is rolled up stays as it was.
func TestRetention(t *testing.T) {
	day := 24 * time.Hour
	b := newBench(t, Options{Retention: Retention{Second: time.Hour, Minute: 3 * day, Hour: 5 * day, Samples: 2 * time.Hour, Health: 2 * day,
		Attacks: 4 * day, Tops: 3 * day}})
	file := "2026-11-30.db"
	for i := range int64(120) {
		b.write(oneSecond(noon.Unix()+i, 1))
	}
	b.write(storetest.Samples(2, noon.Unix()))
	b.write(&store.Batch{Health: []store.Health{{Time: noon.Unix(), Account: "acme", Tunnel: acmeA, State: "down"}},
		Attacks: []store.Attack{{ID: "1", Account: "acme", Start: noon.Unix()}},
		Tops: []store.Top{{Time: noon.Unix(), Account: "acme", Tunnel: acmeA, Packets: 5},
			{Time: noon.Unix(), Hour: true, Account: "acme", Tunnel: acmeA, Packets: 7}}})
	midnight := noon.Add(12 * time.Hour)
	for _, x := range []struct {
		after  time.Duration // noon
		tables map[string]int
	}{
		{2*time.Minute + lag, map[string]int{"traffic_now": 0, "traffic_1s": 120, "traffic_1m": 2, "traffic_1h": 0, "samples": 2}},
		{time.Hour + 3*time.Minute, map[string]int{"traffic_1s": 60, "traffic_1m": 2, "traffic_1h": 1, "samples": 2}},
		{time.Hour + 10*time.Minute, map[string]int{"traffic_1s": 0, "traffic_1m": 2, "traffic_1h": 1, "samples": 2}},
		{3 * time.Hour, map[string]int{"samples": 0, "health": 1}},
		{midnight.Sub(noon) + 2*day + time.Hour, map[string]int{"traffic_1m": 2, "tops_1m": 1, "health": 0, "attacks": 1}},
		{midnight.Sub(noon) + 3*day + time.Hour, map[string]int{"traffic_1m": 0, "tops_1m": 0, "tops_1h": 1, "traffic_1h": 1}},
		{midnight.Sub(noon) + 4*day + time.Hour, map[string]int{"attacks": 0, "traffic_1h": 1}},
	} {
		b.now = noon.Add(x.after)
		b.tidy()
		for table, want := range x.tables {
			if n := b.count(file, table); n != want {
				t.Errorf("%s after %s: %d rows, want %d", table, x.after, n, want)
			}
		}
		if a := b.ask(since(noon.Add(-time.Hour))); len(a.Groups) != 1 || a.Groups[0].Measures[0] != 120 {
			t.Errorf("after %s: %+v", x.after, a)
		}
	}
	b.now = midnight.Add(5*day + time.Hour)
	if b.tidy(); len(b.files()) != 0 {
		t.Errorf("%v are there after all is too old", b.files())
	}
	if a := b.ask(since(noon)); len(a.Groups) != 0 {
		t.Errorf("%+v of nothing", a)
	}
}

// An answer is of the finest rows that are kept for as long as the query reaches back, and a time that is shorter than that is an error
// which says so.
func TestResolution(t *testing.T) {
	b := newBench(t, Options{})
	b.write(oneSecond(noon.Unix()-10, 7))
	for _, x := range []struct {
		since time.Duration
		want  time.Duration
		fine  string // shortest time that can be grouped by
	}{{time.Hour, time.Second, "datetime"}, {2 * time.Hour, time.Minute, "datetimeMinute"}, {31 * 24 * time.Hour, time.Hour, "datetimeHour"}} {
		if a := b.ask(since(noon.Add(-x.since), x.fine)); a.Resolution != x.want {
			t.Errorf("since %s: resolution %s, want %s", x.since, a.Resolution, x.want)
		}
		if x.want == time.Second {
			continue
		}
		_, err := b.Groups(context.Background(), since(noon.Add(-x.since), "datetimeTenSeconds"))
		if err == nil || !strings.Contains(err.Error(), "1s for 1h, 1m0s for") && !strings.Contains(err.Error(),
			"1s for 1h, 1m for 30d, 1h for 400d") {
			t.Errorf("since %s by ten seconds: %v", x.since, err)
		}
	}
	q := since(noon, "datetime")
	q.Where = store.Where{}
	if a := b.ask(q); a.Resolution != time.Second || len(a.Groups) != 1 {
		t.Errorf("always: %+v", a)
	}
	b.now = noon.Add(3 * time.Hour)
	if _, err := b.Groups(context.Background(), q); err == nil {
		t.Error("always, when the first row is three hours old: by seconds")
	}
}

// The directory does not grow beyond its bound: the oldest file goes first, then the oldest rows that are also in minutes.
func TestBound(t *testing.T) {
	var removed []string
	b := newBench(t, Options{MaxBytes: 1 << 20, Removed: func(name string, bytes int64) { removed = append(removed, name) }})
	old := noon.Add(-48 * time.Hour)
	b.now = noon
	b.write(storetest.Samples(1500, old.Unix()))
	b.write(storetest.Samples(1500, old.Add(24*time.Hour).Unix()))
	if err := os.WriteFile(filepath.Join(b.dir, "2026-01-01.db.7"+damaged), make([]byte, 10), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range int64(20) {
		b.write(storetest.Samples(400, noon.Unix()+i))
		b.tidy()
		if size, _, _ := b.size(); size > b.o.MaxBytes {
			t.Fatalf("%d bytes after %d batches", size, i)
		}
	}
	want := []string{"2026-01-01.db.7" + damaged, "2026-11-28.db", "2026-11-29.db", "2026-11-30.db"}
	if got := slices.Compact(removed); !slices.Equal(got, want) {
		t.Errorf("removed %v, want %v", got, want)
	}
	a := b.ask(&store.Query{Dataset: dataset.Packets, Account: "account-1", Limit: 100, By: dims(dataset.Packets, "datetime")})
	if n := len(a.Groups); n == 0 || n == 20 || a.Groups[n-1].Values[0] != time.Unix(noon.Unix()+19, 0).UTC() {
		t.Errorf("of 20 seconds are left: %d", n)
	}
	b.o.MaxBytes = 1
	if err := b.Tidy(context.Background()); !errors.Is(err, errFull) {
		t.Errorf("a bound that cannot be kept: %v", err)
	}
	if err := b.Write(context.Background(), oneSecond(noon.Unix(), 1)); !errors.Is(err, errFull) {
		t.Errorf("writing beyond the bound: %v", err)
	}
	b.o.MaxBytes = 100 << 20
	b.tidy()
	b.write(oneSecond(noon.Unix(), 1))
}

// A damaged file is set aside with one error, found by whoever meets it, and the others answer.
func TestDamaged(t *testing.T) {
	for _, x := range []struct {
		name string
		meet func(*bench) error
	}{
		{"query", func(b *bench) error {
			_, err := b.Groups(context.Background(), since(noon.Add(-48*time.Hour)))
			return err
		}},
		{"write", func(b *bench) error { return b.Write(context.Background(), oneSecond(noon.Unix()+1, 1)) }},
		{"tidy", func(b *bench) error { return b.Tidy(context.Background()) }},
	} {
		for kind, hurt := range map[string]func([]byte) []byte{
			"no database": func(data []byte) []byte { return []byte(strings.Repeat("not a database ", 1000)) },
			"cut off":     func(data []byte) []byte { return data[:len(data)/2/4096*4096] },
			"bad pages": func(data []byte) []byte {
				for i := 4096; i < len(data); i++ {
					data[i] = 0xa5
				}
				return data
			},
		} {
			t.Run(x.name+" "+kind, func(t *testing.T) {
				dir := t.TempDir()
				b := openBench(t, dir, Options{})
				b.write(oneSecond(noon.Unix(), 1))
				b.write(oneSecond(noon.Unix()-86400, 10))
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, "2026-11-30.db")
				data, err := os.ReadFile(path)
				if err == nil {
					err = os.WriteFile(path, hurt(data), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				b = openBench(t, dir, Options{})
				if err := x.meet(b); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "set aside") {
					t.Fatalf("the error is %v", err)
				}
				b.write(oneSecond(noon.Unix()+1, 100))
				if a := b.ask(since(noon.Add(-48 * time.Hour))); len(a.Groups) != 1 || a.Groups[0].Measures[0] != 110 {
					t.Errorf("%+v afterwards", a)
				}
				if files := b.files(); len(files) != 3 || !strings.HasSuffix(files[2], damaged) {
					t.Errorf("files: %v", files)
				}
			})
		}
	}
}

// A file of a later program is not touched.
func TestLaterSchema(t *testing.T) {
	b := newBench(t, Options{})
	path := filepath.Join(b.dir, "2026-11-30.db")
	db, err := sql.Open("sqlite", path)
	if err == nil {
		_, err = db.Exec("CREATE TABLE x (y); PRAGMA user_version = 3")
	}
	if err != nil || db.Close() != nil {
		t.Fatal(err)
	}
	if err := b.list(); err != nil {
		t.Fatal(err)
	}
	_, asked := b.Groups(context.Background(), since(noon))
	for what, err := range map[string]error{"write": b.Write(context.Background(), oneSecond(noon.Unix(), 1)),
		"tidy": b.Tidy(context.Background()), "query": asked} {
		if err == nil || !strings.Contains(err.Error(), "version 3") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if b.count("2026-11-30.db", "x") != 0 {
		t.Error("it has changed")
	}
}

// An account sees its rows, whatever it writes into its filters; what belongs to nobody only the operator sees.
func TestAccounts(t *testing.T) {
	b := newBench(t, Options{})
	b.write(&store.Batch{Place: places[0],
		Traffic: []store.Traffic{{Time: noon.Unix(), Account: "acme", Tunnel: acmeA, Packets: 1}, {Time: noon.Unix(), Account: "other",
			Tunnel: storetest.OtherA, Packets: 10}},
		Drops: []store.Drops{{Time: noon.Unix(), Reason: "no_tunnel", Packets: 5}}})
	b.now = noon.Add(time.Second)
	name := dataset.Traffic.Lookup("tunnelName")
	for _, value := range []string{"acme-a", "' OR account = 'other", "acme-a' OR '1'='1", "x\"; DROP TABLE series; --", "?1", "%", "other"} {
		for _, op := range []store.Op{store.Equal, store.Not, store.Like, store.NotLike, store.In, store.NotIn, store.Greater, store.AtMost} {
			q := since(noon, "tunnelName")
			q.Where = store.Where{Any: []store.Where{q.Where, {Dimension: name, Op: op, Values: []any{value}}}}
			for account, want := range map[string]float64{"acme": 1, "other": 10, store.Operator: 11} {
				q.Account = account
				if a := b.ask(q); len(a.Groups) != 1 || a.Groups[0].Measures[0] != want {
					t.Errorf("%s %s %q: %+v", account, op, value, a.Groups)
				}
			}
			for _, account := range []string{"' OR '1'='1", "%", "acme' --", "nobody"} {
				q.Account = account
				if a := b.ask(q); len(a.Groups) != 0 {
					t.Errorf("account %q sees %+v", account, a.Groups)
				}
			}
		}
	}
	q := since(noon)
	q.Account = ""
	if _, err := b.Groups(context.Background(), q); err == nil {
		t.Error("a query without an account was answered")
	}
	drops := &store.Query{Dataset: dataset.Drops, Account: "acme", Limit: 1, Measures: dataset.Drops.Measures}
	if a := b.ask(drops); len(a.Groups) != 0 {
		t.Errorf("acme sees drops of nobody: %+v", a.Groups)
	}
	drops.Account = store.Operator
	if a := b.ask(drops); len(a.Groups) != 1 || a.Groups[0].Measures[0] != 5 {
		t.Errorf("the operator sees %+v", a.Groups)
	}
}

// A query ends with its context, also while it waits for others; the writer does not wait for queries.
func TestInterrupted(t *testing.T) {
	b := newBench(t, Options{Readers: 1})
	for i := range int64(5) {
		b.write(storetest.Samples(1000, noon.Unix()+i))
	}
	slow := &store.Query{Dataset: dataset.Packets, Account: store.Operator, Limit: 1, By: dims(dataset.Packets, "ipSourceAddress",
		"tcpSequenceNumber", "datetime")}
	for range 300 {
		slow.Where.All = append(slow.Where.All, store.Where{Dimension: slow.By[0], Op: store.NotLike, Values: []any{strings.Repeat("%1", 20) + "x"}})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, err := b.Groups(ctx, slow); done <- err }()
	for len(b.readers) == 0 {
		time.Sleep(time.Millisecond)
	}
	waiting, stop := context.WithCancel(context.Background())
	stop()
	if _, err := b.Groups(waiting, since(noon)); !errors.Is(err, context.Canceled) {
		t.Errorf("a query that waits: %v", err)
	}
	b.write(oneSecond(noon.Unix(), 1))
	select {
	case err := <-done:
		t.Fatalf("the query was not slow: %v", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a query that runs: %v", err)
	}
}

// A batch around midnight of which one day fails is written once when it is given again.
func TestHalf(t *testing.T) {
	b := newBench(t, Options{})
	midnight := noon.Add(12 * time.Hour)
	b.now = midnight
	batch := &store.Batch{Place: places[0]}
	for i := int64(-2); i < 2; i++ {
		batch.Traffic = append(batch.Traffic, store.Traffic{Time: midnight.Unix() + i, Account: "acme", Tunnel: acmeA, Direction: flow.Egress,
			Packets: 1})
	}
	obstacle := filepath.Join(b.dir, "2026-12-01.db")
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := b.Write(context.Background(), batch); err == nil || !strings.Contains(err.Error(), "2026-12-01.db") {
		t.Fatalf("the error is %v", err)
	}
	if n := len(b.bySecond()); n != 0 {
		t.Errorf("%d seconds of a batch that failed", n)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	b.half = &half{batch, map[int64]bool{midnight.Unix(): true}} // as if the second day alone had been committed
	b.write(batch)
	if got := fmt.Sprint(b.bySecond()); got != fmt.Sprint(map[int64]float64{midnight.Unix() - 2: 1, midnight.Unix() - 1: 1}) {
		t.Errorf("of the first day are written %v", got)
	}
	if b.half != nil {
		t.Error("it is still thought to be half")
	}
	b.write(batch)
	if n := len(b.bySecond()); n != 4 {
		t.Errorf("%d seconds", n)
	}
	if err := b.Write(context.Background(), oneSecond(midnight.Unix()+2*86400, 1)); err == nil || !strings.Contains(err.Error(), "clocks") {
		t.Errorf("a row of the day after tomorrow: %v", err)
	}
}

// While one writes and another rolls up, a query sees each second that was written before it began, once.
func TestTogether(t *testing.T) {
	b := newBench(t, Options{Retention: Retention{Second: 24 * time.Hour}})
	const seconds = 300
	var written, clock atomic.Int64
	clock.Store(noon.Unix())
	b.o.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	failed := make(chan error, 3)
	go func() {
		for i := range int64(seconds) {
			if err := b.Write(context.Background(), oneSecond(noon.Unix()+7*i, 1)); err != nil {
				failed <- err
				return
			}
			written.Add(1)
			clock.Store(noon.Unix() + 7*i)
		}
		failed <- nil
	}()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				failed <- nil
				return
			default:
			}
			if err := b.Tidy(context.Background()); err != nil {
				failed <- err
				return
			}
		}
	}()
	for written.Load() < seconds && len(failed) == 0 {
		before := written.Load()
		for _, by := range [][]string{nil, {"datetimeMinute"}, {"datetime"}} {
			sum := 0.0
			for _, g := range b.ask(since(noon, by...)).Groups {
				sum += g.Measures[0]
			}
			if after := written.Load(); int64(sum) < before || int64(sum) > after+1 {
				t.Fatalf("by %v: %v packets, of %d written before and %d after", by, sum, before, after)
			}
		}
	}
	close(done)
	for range 2 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}
