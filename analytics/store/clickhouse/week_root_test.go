package clickhouse

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"causeway/analytics/store"
	"causeway/analytics/store/sqlite"
	"causeway/analytics/store/storetest"
)

const (
	weekTunnels = 1000
	weekMinutes = 7 * 24 * 60
	weekSampled = 6 * 60 // the last minutes have samples
	weekLive    = 2 * 60 // and these are written and rolled up one by one; those before ten, and sixty, at a time, to save time
)

// A week of 1,000 tunnels by minute in both stores: they answer the same, and the test prints what that costs.
func TestRootWeek(t *testing.T) {
	if os.Getenv("CAUSEWAY_FULL") == "" {
		t.Skip("takes a quarter of an hour: CAUSEWAY_FULL=1 runs it")
	}
	var answers [2][]*store.Answer
	t.Run("sqlite", func(t *testing.T) { answers[0] = weekOfSQLite(t) })
	t.Run("clickhouse", func(t *testing.T) { answers[1] = weekOfClickHouse(t) })
	for i, q := range storetest.WeekQuestions(storetest.Noon.Unix()) {
		if d := cmp.Diff(answers[0][i], answers[1][i], cmpopts.EquateApprox(1e-9, 0)); d != "" {
			t.Errorf("%s (-sqlite +clickhouse):\n%.2000s", q.Name, d)
		}
	}
}

func weekOfSQLite(t *testing.T) []*store.Answer {
	dir, now := t.TempDir(), storetest.Noon
	s, err := sqlite.Open(dir, sqlite.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := newWeek(t, os.Getpid())
	w.fill(&now, func(b *store.Batch, live bool) {
		w.lap("write", live, func() error { return s.Write(context.Background(), b) })
	}, func(live bool) {
		w.lap("roll up and tidy", live, func() error { return s.Tidy(context.Background()) })
	})
	w.report()
	w.sizes(dir)
	return w.ask(s)
}

func weekOfClickHouse(t *testing.T) []*store.Answer {
	server, now := startServer(t), storetest.Noon
	s := server.open("week", storetest.Places[0].Node, func(o *Options) {
		o.Now, o.SendTimeout = func() time.Time { return now }, 5*time.Minute // an hour in one statement, on a machine that is busy with other tests
	})
	w := newWeek(t, os.Getpid(), server.run.Process.Pid)
	w.fill(&now, func(b *store.Batch, live bool) {
		w.lap("write into the buffer", live, func() error { return s.Write(context.Background(), b) })
	}, func(live bool) {
		w.lap("send and roll up", live, func() error { return s.Flush(context.Background()) })
	})
	w.report()
	for deadline := time.Now().Add(time.Minute); s.raw(t, "SELECT count() FROM system.merges")[0] != "0" && time.Now().Before(deadline); {
		time.Sleep(time.Second)
	}
	t.Logf("MB and rows by table: %s", strings.Join(s.raw(t, "SELECT table, ' ', toString(round(sum(bytes_on_disk) / 1e6, 1)), ' ', "+
		"toString(sum(rows)) FROM system.parts WHERE active AND database = 'week' GROUP BY table ORDER BY table"), ", "))
	return w.ask(s)
}

// A work is something that is timed: of most of the week, or of its last hours.
type work struct {
	of   string
	live bool
}

// A week fills a store, asks it, and notes what that takes.
type week struct {
	t         *testing.T
	processes []*process
	rows      map[bool]int // live, or not
	spent     map[work][]time.Duration
	busy      map[work]time.Duration // of processors
}

func newWeek(t *testing.T, pids ...int) *week {
	debug.FreeOSMemory()
	w := &week{t: t, rows: map[bool]int{}, spent: map[work][]time.Duration{}, busy: map[work]time.Duration{}}
	for _, pid := range pids {
		w.processes = append(w.processes, newProcess(t, pid))
	}
	return w
}

func (w *week) lap(of string, live bool, f func() error) {
	w.t.Helper()
	x, began, busy := work{of, live}, time.Now(), w.processors()
	if err := f(); err != nil {
		w.t.Fatal(of, err)
	}
	w.spent[x], w.busy[x] = append(w.spent[x], time.Since(began)), w.busy[x]+w.processors()-busy
}

// processors is the processor time that all processes have had.
func (w *week) processors() (sum time.Duration) {
	for _, p := range w.processes {
		sum += p.busy()
	}
	return sum
}

// fill gives rows to a function, a quarter of a minute after their end, and calls another that has them rolled up.
func (w *week) fill(now *time.Time, write func(b *store.Batch, live bool), roll func(live bool)) {
	minute, end := storetest.Minutes(weekTunnels), storetest.Noon.Unix()
	b := &store.Batch{}
	for at := end - 60*weekMinutes; at < end; at += 60 {
		live := at >= end-60*weekLive
		x := minute(at, at >= end-60*weekSampled)
		b.Place = x.Place
		b.Traffic, b.Drops, b.Health = append(b.Traffic, x.Traffic...), append(b.Drops, x.Drops...), append(b.Health, x.Health...)
		b.Samples = append(b.Samples, x.Samples...)
		*now = time.Unix(at+75, 0)
		if live || at/60%10 == 9 {
			w.rows[live] += len(b.Traffic) + len(b.Drops) + len(b.Health) + len(b.Samples)
			write(b, live)
			b.Traffic, b.Drops, b.Health, b.Samples = b.Traffic[:0], b.Drops[:0], b.Health[:0], b.Samples[:0]
		}
		if live || at/60%60 == 59 {
			roll(live)
		}
	}
	*now = storetest.Noon
}

// report says what filling took.
func (w *week) report() {
	w.t.Logf("%d rows of the most of the week, and %d minute by minute; memory at most %s", w.rows[false], w.rows[true], w.peaks())
	for x, list := range w.spent {
		sum := time.Duration(0)
		for _, d := range list {
			sum += d
		}
		slices.Sort(list)
		n := len(list)
		w.t.Logf("%s, %s: %.0f rows/s, %s in all, %s of processors; median %s, p99 %s, at most %s", x.of,
			map[bool]string{false: "most of the week", true: "minute by minute"}[x.live], float64(w.rows[x.live])/sum.Seconds(),
			sum.Round(time.Millisecond), w.busy[x], list[n/2], list[n*99/100], list[n-1])
	}
}

// ask puts the questions, each a hundred times if that takes less than half a minute.
func (w *week) ask(s store.Querier) (out []*store.Answer) {
	w.t.Helper()
	for _, q := range storetest.WeekQuestions(storetest.Noon.Unix()) {
		for _, p := range w.processes {
			p.forget()
		}
		var answer *store.Answer
		var list []time.Duration
		busy := w.processors()
		for began := time.Now(); len(list) < 100 && (len(list) < 5 || time.Since(began) < 30*time.Second); {
			asked, err := time.Now(), error(nil)
			if answer, err = s.Groups(context.Background(), q.Query); err != nil {
				w.t.Fatal(q.Name, err)
			}
			list = append(list, time.Since(asked).Round(time.Millisecond/10))
		}
		slices.Sort(list)
		busy = (w.processors() - busy) / time.Duration(len(list))
		w.t.Logf("%-42s %3d times: p50 %s, p99 %s, %s of processors; %d groups, of rows of %s; memory at most %s", q.Name, len(list), list[len(list)/2],
			list[len(list)*99/100], busy.Round(time.Millisecond/10), len(answer.Groups), answer.Resolution, w.peaks())
		if len(answer.Groups) == 0 {
			w.t.Errorf("%s: no groups", q.Name)
		}
		out = append(out, answer)
	}
	return out
}

// peaks is how much memory each process had at most since the last question.
func (w *week) peaks() string {
	var list []string
	for _, p := range w.processes {
		list = append(list, fmt.Sprintf("%d MB", p.megabytes()))
	}
	return strings.Join(list, " and the server's ")
}

// sizes says what the files of SQLite take, and which tables in them.
func (w *week) sizes(dir string) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	total, tables := int64(0), map[string]int64{}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			total += info.Size()
		}
		if strings.HasSuffix(f, ".db") {
			bytesByTable(w.t, f, tables)
		}
	}
	w.t.Logf("%.1f MB on the disk, in %d files; MB by table:", float64(total)/1e6, len(files))
	for name, n := range tables {
		w.t.Logf("  %s %.1f", name, float64(n)/1e6)
	}
}

func bytesByTable(t *testing.T, file string, into map[string]int64) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT name, SUM(pgsize) FROM dbstat WHERE aggregate = TRUE GROUP BY name")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var n int64
		if err := rows.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		into[name] += n
	}
}
