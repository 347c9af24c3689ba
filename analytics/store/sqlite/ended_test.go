package sqlite

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/storetest"
)

// ends asks when each attack ended, by its id; 0: it goes on.
func (b *bench) ends() map[string]int64 {
	b.t.Helper()
	a := b.ask(&store.Query{Dataset: dataset.Attacks, Account: store.Operator, Limit: 100, By: dims(dataset.Attacks, "attackId", "endDatetime")})
	out := map[string]int64{}
	for _, g := range a.Groups {
		out[g.Values[0].(string)] = 0
		if end, ok := g.Values[1].(time.Time); ok {
			out[g.Values[0].(string)] = end.Unix()
		}
	}
	return out
}

// An attack of long ago, that a crash has left open, has not gone on until yesterday; files without open ones are not opened to write.
func TestEndsWhatWasLeftOpenLongAgo(t *testing.T) {
	midnight := noon.Truncate(24 * time.Hour)
	at := func(d time.Duration) int64 { return midnight.Add(d).Unix() }
	dir, day := t.TempDir(), 24*time.Hour
	b := openBench(t, dir, Options{})
	b.now = noon
	for _, r := range []int64{at(-3*day + time.Hour), at(-day + time.Hour), at(time.Hour)} {
		b.write(oneSecond(r, 1))
	}
	b.write(&store.Batch{Place: places[0], Attacks: []store.Attack{{ID: "old", Account: "acme", Start: at(-3*day + time.Minute), Vector: "SYN flood"}}})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openBench(t, dir, Options{})
	if err := b.endAttacks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.ends()["old"]; got != at(-3*day+time.Hour) {
		t.Errorf("it ended at %d, want %d", got, at(-3*day+time.Hour))
	}
	for _, d := range b.between(math.MinInt64, math.MaxInt64) {
		if d.db != nil {
			t.Errorf("%s is open", d.path)
		}
	}
}

// What a killed process has left open ends with the last row that it wrote, whatever kind of row that was and whether or not it was rolled up;
// what had ended, and what has begun since, stays as it is.
func TestEndsWhatWasLeftOpen(t *testing.T) {
	midnight := noon.Truncate(24 * time.Hour)
	at := func(d time.Duration) int64 { return midnight.Add(d).Unix() }
	for name, last := range map[string]store.Batch{
		"traffic": {Traffic: []store.Traffic{{Time: at(30 * time.Minute), Account: "acme", Tunnel: storetest.AcmeA, Packets: 1}}},
		"drops":   {Drops: []store.Drops{{Time: at(30 * time.Minute), Reason: "tunnel_unknown", Packets: 1}}},
		"samples": {Samples: storetest.Samples(3, at(30*time.Minute)).Samples},
	} {
		for _, tidied := range []bool{false, true} {
			dir := t.TempDir()
			b := openBench(t, dir, Options{})
			b.now = midnight.Add(31 * time.Minute)
			attack := func(id string, start, end int64) store.Attack {
				return store.Attack{ID: id, Account: "acme", Start: start, End: end, Vector: "SYN flood", Packets: 1}
			}
			b.write(&store.Batch{Place: places[0], Attacks: []store.Attack{attack("yesterday", at(-time.Minute), 0),
				attack("today", at(time.Minute), 0), attack("over", at(time.Minute), at(2*time.Minute))}})
			last.Place = places[0]
			b.write(&last)
			if tidied {
				b.now = midnight.Add(35 * time.Minute)
				b.tidy()
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = openBench(t, dir, Options{}) // at noon
			b.write(&store.Batch{Place: places[0], Attacks: []store.Attack{attack("now", noon.Unix(), 0)}})
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); b.Run(ctx) }()
			want := fmt.Sprint(map[string]int64{"yesterday": at(30 * time.Minute), "today": at(30 * time.Minute), "over": at(2 * time.Minute), "now": 0})
			for end := time.Now().Add(10 * time.Second); fmt.Sprint(b.ends()) != want && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			}
			if got := fmt.Sprint(b.ends()); got != want {
				t.Errorf("%s, rolled up %v: ended %s, want %s", name, tidied, got, want)
			}
			stop()
			<-done
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
