package sqlite

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/storetest"
)

// topsOf asks for an account's values of a kind by packets, from a time on.
func topsOf(account, kind string, from time.Time, by ...string) *store.Query {
	d := dataset.Tops
	return &store.Query{Dataset: d, Account: account, Limit: 100, By: dims(d, append(by, "value")...),
		Measures: []dataset.Measure{measure(d, dataset.Sum, "packets"), measure(d, dataset.Max, "distinctSources")},
		Where: store.Where{All: []store.Where{{Dimension: d.Lookup("datetime"), Op: store.AtLeast, Values: []any{from}},
			{Dimension: d.Lookup("kind"), Op: store.Equal, Values: []any{kind}}}}}
}

// topRow is a row of a minute, or of an hour.
func topRow(at time.Time, hour bool, value string, packets uint64) *store.Batch {
	return &store.Batch{Place: places[0], Tops: []store.Top{{Time: at.Unix(), Hour: hour, Account: "acme", Tunnel: acmeA, Direction: flow.Ingress,
		Kind: store.TopSourceAddress, Value: value, Samples: 5, Packets: packets, Sources: packets}}}
}

// What is about a day, or by shorter times than hours, is answered of minutes, as long as there are any; else of hours, and of minutes where hours
// are not over.
func TestTopsResolution(t *testing.T) {
	b := newBench(t, Options{Retention: Retention{Tops: 48 * time.Hour}})
	b.now = noon.Add(30 * time.Minute)
	b.write(topRow(noon.Add(-2*time.Hour), false, "198.51.100.1", 1))
	b.write(topRow(noon.Add(-2*time.Hour), true, "198.51.100.2", 10))
	b.write(topRow(noon, false, "198.51.100.1", 100))
	b.write(topRow(noon, true, "198.51.100.3", 1000)) // of a daemon that ended within the hour
	b.write(topRow(noon, false, "198.51.100.1", 100)) // of one that began again within the minute
	for _, x := range []struct {
		since      time.Duration
		by         string
		resolution time.Duration
		want       map[string]float64
	}{
		{4 * time.Hour, "", time.Minute, map[string]float64{"198.51.100.1": 201}},
		{4 * time.Hour, "datetimeHour", time.Minute, map[string]float64{"198.51.100.1": 201}},
		{26 * time.Hour, "", time.Hour, map[string]float64{"198.51.100.2": 10, "198.51.100.1": 200}},
		{26 * time.Hour, "datetimeHour", time.Hour, map[string]float64{"198.51.100.2": 10, "198.51.100.1": 200}},
		{26 * time.Hour, "datetimeMinute", time.Minute, map[string]float64{"198.51.100.1": 201}},
		{60 * time.Hour, "", time.Hour, map[string]float64{"198.51.100.2": 10, "198.51.100.1": 200}},
	} {
		var by []string
		if x.by != "" {
			by = append(by, x.by)
		}
		a, got := b.ask(topsOf("acme", "ipSourceAddress", b.now.Add(-x.since), by...)), map[string]float64{}
		for _, g := range a.Groups {
			got[g.Values[len(g.Values)-1].(string)] += g.Measures[0]
			if g.Rows%5 != 0 || g.Rows == 0 || g.Measures[1] > g.Measures[0] {
				t.Errorf("since %s by %q: %+v", x.since, x.by, g)
			}
		}
		if a.Resolution != x.resolution || len(got) != len(x.want) ||
			got["198.51.100.1"] != x.want["198.51.100.1"] || got["198.51.100.2"] != x.want["198.51.100.2"] {
			t.Errorf("since %s by %q: %v at %s, want %v at %s", x.since, x.by, got, a.Resolution, x.want, x.resolution)
		}
	}
	_, err := b.Groups(context.Background(), topsOf("acme", "ipSourceAddress", b.now.Add(-60*time.Hour), "datetimeMinute"))
	if err == nil || !strings.Contains(err.Error(), "kept are rows of 1m for 2d, 1h for 30d") {
		t.Errorf("minutes that are not kept: %v", err)
	}
	q := topsOf("acme", "ipSourceAddress", b.now)
	q.Where = store.Where{}
	if _, err := b.Groups(context.Background(), q); err == nil || !strings.Contains(err.Error(), "filter by one kind") {
		t.Errorf("all kinds at once: %v", err)
	}
}

// An account sees its tops, whatever it filters; those of nobody only the operator sees.
func TestTopsOfAccounts(t *testing.T) {
	b := newBench(t, Options{})
	for i, x := range []*flow.Tunnel{acmeA, storetest.OtherA, nil} {
		r := store.Top{Time: noon.Unix(), Tunnel: x, Value: "", Packets: uint64(1) << i}
		if x != nil {
			r.Account, r.Direction = x.Account, flow.Egress
		}
		b.write(&store.Batch{Place: places[0], Tops: []store.Top{r}})
	}
	for account, want := range map[string]float64{"acme": 1, "other": 2, "nobody": 0, store.Operator: 7, "' OR 1=1 --": 0} {
		for _, where := range []string{"total", "' OR 1=1 --"} {
			q, sum := topsOf(account, "total", noon.Add(-time.Hour)), 0.0
			q.Where.All = append(q.Where.All, store.Where{Any: []store.Where{{Dimension: dataset.Tops.Lookup("value"), Op: store.Not, Values: []any{where}},
				{Dimension: dataset.Tops.Lookup("tunnelName"), Op: store.Like, Values: []any{"%"}}}})
			for _, g := range b.ask(q).Groups {
				sum += g.Measures[0]
			}
			if sum != want {
				t.Errorf("%q sees %v, want %v", account, sum, want)
			}
		}
	}
}

// A file of the release before has no tables of tops: it is asked, written to and tidied nevertheless.
func TestTopsOfEarlierSchema(t *testing.T) {
	b := newBench(t, Options{})
	b.write(oneSecond(noon.Unix(), 1))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(b.dir, "2026-11-30.db"))
	if err == nil {
		_, err = db.Exec("DROP TABLE tops_1m; DROP TABLE tops_1h; PRAGMA user_version = 1")
	}
	if err != nil || db.Close() != nil {
		t.Fatal(err)
	}
	b = openBench(t, b.dir, Options{})
	if a := b.ask(topsOf("acme", "total", noon.Add(-time.Hour))); len(a.Groups) != 0 {
		t.Errorf("%+v of nothing", a)
	}
	if a := b.ask(since(noon.Add(-time.Hour))); len(a.Groups) != 1 {
		t.Errorf("%+v of the traffic", a)
	}
	b.write(topRow(noon, false, "198.51.100.1", 3))
	b.tidy()
	if a := b.ask(topsOf("acme", "ipSourceAddress", noon.Add(-time.Hour))); len(a.Groups) != 1 || a.Groups[0].Measures[0] != 3 {
		t.Errorf("%+v afterwards", a)
	}
}

// What a minute of tops of 100 tunnels in both directions takes, with lists of such lengths, on the disk and to write; and the commonest question.
func BenchmarkTops(b *testing.B) {
	s, minutes, rows := newBench(b, Options{}), int64(0), 0
	batch := storetest.Tops(100, noon.Unix())
	for b.Loop() {
		for i := range batch.Tops {
			batch.Tops[i].Time = noon.Unix() + 60*minutes
		}
		if err := s.Write(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		minutes++
		rows += len(batch.Tops)
	}
	b.ReportMetric(float64(len(batch.Tops)), "rows/minute")
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	d := s.between(noon.Unix(), noon.Unix()+1)[0]
	if err := d.shrink(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(d.bytes())/float64(rows), "bytes/row")
	b.ReportMetric(float64(d.bytes())/float64(minutes), "bytes/minute")
	s.now = time.Unix(noon.Unix()+60*minutes, 0)
	began := time.Now()
	if a := s.ask(topsOf("account-1", "ipSourceAddress", noon)); len(a.Groups) == 0 {
		b.Fatal("no groups")
	}
	b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/question")
}
