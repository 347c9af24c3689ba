package clickhouse

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"causeway/analytics/store"
	"causeway/analytics/store/sqlite"
	"causeway/analytics/store/storetest"
)

// An hour of 1,000 tunnels in seconds, and of samples, in both stores: they answer the same, and the test prints how fast, and how large they are.
func TestRootSideBySide(t *testing.T) {
	if os.Getenv("CAUSEWAY_FULL") == "" {
		t.Skip("takes minutes: CAUSEWAY_FULL=1 runs it")
	}
	server, now := startServer(t), storetest.Noon
	clock := func() time.Time { return now }
	dir := t.TempDir()
	lite, err := sqlite.Open(dir, sqlite.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	house := server.open("compare", storetest.Places[0].Node, func(o *Options) { o.Now = clock })
	spent := map[string]time.Duration{}
	lap := func(of string, f func() error) {
		t.Helper()
		began := time.Now()
		if err := f(); err != nil {
			t.Fatal(of, err)
		}
		spent[of] += time.Since(began)
	}
	ctx, second, rows := context.Background(), storetest.Many(1000), 0
	for n := range int64(3600) {
		now = storetest.Noon.Add(time.Duration(n) * time.Second)
		b := second(now.Unix())
		b.Samples = storetest.Samples(20, now.Unix()).Samples
		rows += len(b.Traffic) + len(b.Samples)
		lap("sqlite", func() error { return lite.Write(ctx, b) })
		lap("clickhouse buffer", func() error { return house.Write(ctx, b) })
		if n%10 == 9 {
			lap("clickhouse send", func() error { return house.Flush(ctx) })
			lap("sqlite", func() error { return lite.Tidy(ctx) })
		}
	}
	now = storetest.Noon.Add(time.Hour)
	for _, of := range []string{"sqlite", "clickhouse buffer", "clickhouse send"} {
		t.Logf("%-18s %8.0f rows/s", of, float64(rows)/spent[of].Seconds())
	}
	size := int64(0)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			size += info.Size()
		}
	}
	t.Logf("sqlite %.1f MB, clickhouse %s MB, of %d rows", float64(size)/1e6,
		house.raw(t, "SELECT round(sum(bytes_on_disk) / 1e6, 1) FROM system.parts WHERE active AND database = 'compare'")[0], rows)
	for _, q := range storetest.Questions(now.Unix()) {
		var answers [2]*store.Answer
		line := fmt.Sprintf("%-34s", q.Name)
		for i, x := range []store.Querier{lite, house} {
			var times []time.Duration
			for range 10 {
				began := time.Now()
				if answers[i], err = x.Groups(ctx, q.Query); err != nil {
					t.Fatal(q.Name, err)
				}
				times = append(times, time.Since(began).Round(time.Millisecond/10))
			}
			slices.Sort(times)
			line += fmt.Sprintf("  %s median %s, longest %s;", []string{"sqlite", "clickhouse"}[i], times[5], times[9])
		}
		t.Log(line)
		if d := cmp.Diff(answers[0], answers[1], cmpopts.EquateApprox(1e-9, 0)); d != "" {
			t.Errorf("%s (-sqlite +clickhouse):\n%s", q.Name, d)
		}
	}
}
