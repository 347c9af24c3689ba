package sqlite

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/storetest"
)

var (
	noon   = storetest.Noon
	acmeA  = storetest.AcmeA
	places = storetest.Places
)

// A bench is a store with a clock that stands still, and what an oracle knows of it.
type bench struct {
	t storetest.T
	*Store
	oracle *storetest.Oracle
	now    time.Time
}

func newBench(t testing.TB, o Options) *bench {
	t.Helper()
	return openBench(t, t.TempDir(), o)
}

func openBench(t testing.TB, dir string, o Options) *bench {
	t.Helper()
	b := &bench{t: t, oracle: storetest.NewOracle(), now: noon}
	o.Now = func() time.Time { return b.now }
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b.Store = s
	return b
}

func (b *bench) write(batch *store.Batch) {
	b.t.Helper()
	if err := b.Write(context.Background(), batch); err != nil {
		b.t.Fatal(err)
	}
	b.oracle.Take(batch)
}

// compare asks both.
func (b *bench) compare(q *store.Query, asked storetest.Span) {
	b.t.Helper()
	b.oracle.Compare(b.t, q, b.ask(q), asked, b.now)
}

func (b *bench) tidy() {
	b.t.Helper()
	if err := b.Tidy(context.Background()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) ask(q *store.Query) *store.Answer {
	b.t.Helper()
	a, err := b.Groups(context.Background(), q)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

// Whatever is asked of whatever was written, at each resolution, over midnights, rolled up or not yet: the store answers as the oracle does.
func TestAnswers(t *testing.T) {
	if testing.Short() { // rapid divides the number by five; the same each time, so that a change fails by what it changed
		for name, value := range map[string]string{"rapid.checks": "40", "rapid.seed": "20261201"} {
			if err := flag.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	day := 24 * time.Hour
	for _, x := range []struct {
		name      string
		retention Retention
		shortest  int64
	}{
		{"seconds", Retention{Second: 9 * day}, 1},
		{"minutes", Retention{Second: time.Hour, Minute: 9 * day}, 60},
		{"hours", Retention{Second: time.Hour, Minute: time.Hour + time.Minute, Hour: 9 * day}, 3600},
	} {
		t.Run(x.name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) { answers(t, r, x.retention, x.shortest) })
		})
	}
}

func answers(t *testing.T, r *rapid.T, retention Retention, shortest int64) {
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	b := openBench(t, dir, Options{Retention: retention})
	defer b.Close()
	b.t = r
	midnight := noon.Truncate(24 * time.Hour)
	starts := []int64{midnight.Add(-24*time.Hour - 200*time.Second).Unix(), midnight.Add(-200 * time.Second).Unix(),
		noon.Add(-600 * time.Second).Unix()}
	for _, start := range starts {
		for range rapid.IntRange(0, 2).Draw(r, "batches") {
			b.now = time.Unix(start, 0)
			b.write(storetest.DrawBatch(r, start))
			b.now = time.Unix(start+int64(rapid.IntRange(300, 700).Draw(r, "later")), 0)
			if rapid.Bool().Draw(r, "tidy") {
				b.tidy()
			}
		}
	}
	b.now = noon
	questions := 20
	if testing.Short() {
		questions = 8
	}
	for range questions {
		q, asked := storetest.DrawQuery(r, b.oracle, shortest, starts)
		if shortest > 1 && (asked.From == 0 || asked.From > starts[1]) {
			continue // it may be answered from something finer, which has not all rows any more
		}
		b.compare(q, asked)
	}
}

// Files and the directory are for their owner alone, and only one process has them.
func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a dir?with%20odd#name")
	b := openBench(t, dir, Options{})
	b.write(oneSecond(noon.Unix(), 1))
	for path, want := range map[string]os.FileMode{"": 0o700, "lock": 0o600, "2026-11-30.db": 0o600, "2026-11-30.db-wal": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %o", path, info, err, want)
		}
	}
	if s, err := Open(dir, Options{}); err == nil {
		s.Close()
		t.Error("a second store could open the directory")
	}
}

// oneSecond is traffic of one tunnel in one second.
func oneSecond(t int64, packets uint64) *store.Batch {
	return &store.Batch{Place: places[0], Traffic: []store.Traffic{{Time: t, Account: "acme", Tunnel: acmeA, Direction: flow.Ingress,
		Packets: packets, Bytes: 100 * packets}}}
}

// The first group of two days is found though it is the first one of neither; by time, where each group is of one day, as well.
func TestFirstOfSeveralDays(t *testing.T) {
	b := newBench(t, Options{Retention: Retention{Second: 9 * 24 * time.Hour}})
	third := &flow.Tunnel{ID: "d0", Name: "acme-c", Account: "acme", Kind: "GRE"}
	for day, packets := range []map[*flow.Tunnel]uint64{{acmeA: 10, storetest.AcmeB: 9}, {third: 11, storetest.AcmeB: 9}} {
		batch := &store.Batch{Place: places[0]}
		for tunnel, n := range packets {
			at := noon.Unix() - 60 + int64(day-1)*86400
			batch.Traffic = append(batch.Traffic, store.Traffic{Time: at, Account: "acme", Tunnel: tunnel, Packets: n})
		}
		b.write(batch)
	}
	for by, want := range map[string]float64{"tunnelName": 18, "tunnelName datetimeHour": 11, "date": 20, "datetime": 20} {
		q := since(noon.Add(-48*time.Hour), strings.Fields(by)...)
		q.Order, q.Limit = []store.Order{{Measure: q.Measures[0], Descending: true}}, 1
		if a := b.ask(q); len(a.Groups) != 1 || a.Groups[0].Measures[0] != want {
			t.Errorf("by %s: %+v, want %v", by, a.Groups, want)
		}
	}
}
