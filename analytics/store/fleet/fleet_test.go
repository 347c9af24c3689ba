package fleet

import (
	"context"
	"errors"
	"flag"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
	"causeway/analytics/store/sqlite"
	"causeway/analytics/store/storetest"
)

// A cluster is stores of nodes that ask each other without a network.
type cluster struct {
	self   string
	mu     sync.Mutex
	asked  []string
	stores map[string]*sqlite.Store
	away   []store.Missing
	silent map[string]error  // nodes that live, and what comes instead of an answer
	answer map[string][]byte // what they answer instead
}

func (c *cluster) Others() (live []string, away []store.Missing) {
	for name := range c.stores {
		if name != c.self {
			live = append(live, name)
		}
	}
	return live, c.away
}

func (c *cluster) Inquire(ctx context.Context, node string, question []byte) ([]byte, error) {
	c.mu.Lock()
	c.asked = append(c.asked, node)
	c.mu.Unlock()
	if err := c.silent[node]; err != nil {
		return nil, err
	}
	if b, ok := c.answer[node]; ok {
		return b, nil
	}
	return Respond(ctx, c.stores[node], question)
}

// newCluster has a node for each place of storetest, the first of which is asked.
func newCluster(t testing.TB, dir string, o sqlite.Options) *cluster {
	t.Helper()
	c := &cluster{self: storetest.Places[0].Node, stores: map[string]*sqlite.Store{}}
	for _, p := range storetest.Places {
		at, err := os.MkdirTemp(dir, p.Node)
		if err != nil {
			t.Fatal(err)
		}
		s, err := sqlite.Open(at, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		c.stores[p.Node] = s
	}
	if len(c.stores) < 2 {
		t.Fatal("there are no other nodes")
	}
	return c
}

func (c *cluster) fleet() *Store { return New(c.stores[c.self], c.self, c) }

// write gives rows to the node that has counted them.
func (c *cluster) write(t storetest.T, b *store.Batch) {
	t.Helper()
	if err := c.stores[b.Place.Node].Write(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// Whatever is asked of whatever nodes have written: all of them together answer as an oracle does that has the rows of all.
func TestAnswers(t *testing.T) {
	if testing.Short() {
		for name, value := range map[string]string{"rapid.checks": "15", "rapid.seed": "20261201"} {
			if err := flag.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	day := 24 * time.Hour
	for _, x := range []struct {
		name      string
		retention sqlite.Retention
		shortest  int64
	}{
		{"seconds", sqlite.Retention{Second: 9 * day}, 1},
		{"minutes", sqlite.Retention{Second: time.Hour, Minute: 9 * day}, 60},
		{"hours", sqlite.Retention{Second: time.Hour, Minute: time.Hour + time.Minute, Hour: 9 * day}, 3600},
	} {
		t.Run(x.name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) { answers(t, r, x.retention, x.shortest) })
		})
	}
}

func answers(t *testing.T, r *rapid.T, retention sqlite.Retention, shortest int64) {
	now := storetest.Noon
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, dir, sqlite.Options{Retention: retention, Now: func() time.Time { return now }})
	defer func() {
		for _, s := range c.stores {
			s.Close()
		}
	}()
	oracle := storetest.NewOracle()
	midnight := now.Truncate(24 * time.Hour)
	starts := []int64{midnight.Add(-200 * time.Second).Unix(), now.Add(-600 * time.Second).Unix()}
	for _, start := range starts {
		for range rapid.IntRange(1, 3).Draw(r, "batches") {
			now = time.Unix(start, 0)
			b := storetest.DrawBatch(r, start)
			c.write(r, b)
			oracle.Take(b)
			now = time.Unix(start+int64(rapid.IntRange(300, 700).Draw(r, "later")), 0)
			if rapid.Bool().Draw(r, "tidy") {
				if err := c.stores[b.Place.Node].Tidy(context.Background()); err != nil {
					r.Fatal(err)
				}
			}
		}
	}
	now = storetest.Noon
	for range 8 {
		q, asked := storetest.DrawQuery(r, oracle, shortest, starts)
		if shortest > 1 && (asked.From == 0 || asked.From > starts[0]) {
			continue // it may be answered from something finer, which has not all rows any more
		}
		a, err := c.fleet().Groups(context.Background(), q)
		if err != nil {
			r.Fatal(err)
		}
		oracle.Compare(r, q, a, asked, now)
	}
}

// traffic is of one tunnel at one node.
func traffic(place int, t int64, packets uint64) *store.Batch {
	return &store.Batch{Place: storetest.Places[place], Traffic: []store.Traffic{{Time: t, Account: "acme", Tunnel: storetest.AcmeA, Direction: flow.Ingress,
		Packets: packets, Bytes: 100 * packets}}}
}

// bandwidth asks for the sum of packets and the 95th percentile of their rate, since a time.
func bandwidth(since int64, by ...string) *store.Query {
	i := slices.IndexFunc(dataset.All, func(d *dataset.Dataset) bool { return d.Table == dataset.TrafficTable })
	q := &store.Query{Dataset: dataset.All[i], Account: "acme", Limit: 100}
	for _, name := range by {
		q.By = append(q.By, q.Dataset.Lookup(name))
	}
	q.Measures = make([]dataset.Measure, 2)
	for _, m := range q.Dataset.Measures {
		switch {
		case m.Block == dataset.Sum && m.Name == "packets":
			q.Measures[0] = m
		case m.Block == dataset.P95 && m.Name == "packetRate":
			q.Measures[1] = m
		}
	}
	q.Where = store.Where{Dimension: q.Dataset.Lookup("datetime"), Op: store.AtLeast, Values: []any{time.Unix(since, 0)}}
	return q
}

// What a node does not answer is missing, and the answer says who and why; a question for one node is asked of no other.
func TestMissing(t *testing.T) {
	now := storetest.Noon
	c := newCluster(t, t.TempDir(), sqlite.Options{Now: func() time.Time { return now }})
	from := now.Unix() - 60
	for i := range storetest.Places {
		c.write(t, traffic(i, from+5, 1000))
	}
	ask := func(q *store.Query) *store.Answer {
		t.Helper()
		a, err := c.fleet().Groups(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	all := float64(1000 * len(storetest.Places))
	if a := ask(bandwidth(from)); a.Groups[0].Measures[0] != all || len(a.Missing) > 0 {
		t.Fatalf("all nodes: %+v", a)
	}
	other := storetest.Places[1].Node
	c.silent, c.away = map[string]error{other: errors.New("the link is cut")}, []store.Missing{{Node: "edge-9", Why: "silent for 1m0s"}}
	want := []store.Missing{{Node: other, Why: "the link is cut"}, {Node: "edge-9", Why: "silent for 1m0s"}}
	if other > "edge-9" {
		want[0], want[1] = want[1], want[0]
	}
	if a := ask(bandwidth(from)); a.Groups[0].Measures[0] != all-1000 || cmp.Diff(want, a.Missing) != "" {
		t.Errorf("without %s: %+v", other, a)
	}
	q := bandwidth(from)
	q.Where = store.Where{All: []store.Where{q.Where, {Dimension: q.Dataset.Lookup("edgePopName"), Values: []any{c.self}}}}
	if a := ask(q); a.Groups[0].Measures[0] != 1000 || len(a.Missing) > 0 {
		t.Errorf("of %s alone: %+v", c.self, a)
	}
	q.Where.All[1].Values[0] = other
	c.silent, c.asked = nil, nil
	if a := ask(q); a.Groups[0].Measures[0] != 1000 || len(a.Missing) > 0 {
		t.Errorf("of %s alone: %+v", other, a)
	}
	if len(c.asked) != 1 {
		t.Errorf("of %s alone: asked %v", other, c.asked)
	}
	c.asked = nil
	q.Where.All[1].Values[0] = "edge-1-before" // a name that some node had, and has rows of
	if a := ask(q); len(c.asked) != len(storetest.Places)-1 || len(a.Missing) != 1 {
		t.Errorf("a name of before: asked %v, %+v", c.asked, a)
	}
	q.Where.All[1].Values[0] = other
	c.silent = map[string]error{other: context.DeadlineExceeded}
	if a := ask(q); len(a.Groups) > 0 && a.Groups[0].Measures[0] > 0 || len(a.Missing) != 1 || a.Missing[0].Why != "it has not answered in time" {
		t.Errorf("of %s, which is slow: %+v", other, a)
	}
}

// What several nodes count in one second is one second's rate: the highest, and the percentile, are of their sum.
func TestTogether(t *testing.T) {
	now := storetest.Noon
	c := newCluster(t, t.TempDir(), sqlite.Options{Now: func() time.Time { return now }})
	from := now.Unix() - 100
	for s := range int64(100) {
		for i := range storetest.Places {
			c.write(t, traffic(i, from+s, uint64(s+1)))
		}
	}
	q := bandwidth(from)
	for _, m := range q.Dataset.Measures {
		if m.Block == dataset.Max && m.Name == "packetRate" {
			q.Measures = append(q.Measures, m)
		}
	}
	a, err := c.fleet().Groups(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	nodes := float64(len(storetest.Places))
	if d := cmp.Diff([]float64{nodes * 5050, nodes * 95, nodes * 100}, a.Groups[0].Measures); d != "" || a.Resolution != time.Second {
		t.Error(d)
	}
}

// Nodes that keep seconds for a shorter time answer with minutes, all of them.
func TestCoarser(t *testing.T) {
	now := storetest.Noon
	clock := func() time.Time { return now }
	c := newCluster(t, t.TempDir(), sqlite.Options{Now: clock})
	short, err := sqlite.Open(t.TempDir(), sqlite.Options{Now: clock, Retention: sqlite.Retention{Second: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	c.stores = map[string]*sqlite.Store{c.self: c.stores[c.self], storetest.Places[1].Node: short}
	from := now.Unix() - 1200
	for i := range 2 {
		for s := range int64(20) {
			c.write(t, traffic(i, from+60*s, 60*uint64(s+1)))
		}
	}
	a, err := c.fleet().Groups(context.Background(), bandwidth(from))
	if err != nil {
		t.Fatal(err)
	}
	// 20 minutes of 2, 4, ... 40 packets a second: rank 19 of 20.
	if a.Resolution != time.Minute || a.Groups[0].Measures[0] != 2*60*210 || a.Groups[0].Measures[1] != 38 || len(a.Missing) > 0 {
		t.Errorf("%+v", a)
	}
	a, err = c.fleet().Groups(context.Background(), bandwidth(from, "datetime"))
	if err != nil || len(a.Groups) != 20 || len(a.Missing) != 1 || !strings.Contains(a.Missing[0].Why, "kept only for each 1m") {
		t.Errorf("by seconds, which one node has not: %v, %+v", err, a)
	}
}

// What a node answers that is broken, or of another release, or hostile, is that node's fault: it is missing, and nothing of it is in the answer. What
// makes too many groups is refused.
func TestBrokenAnswers(t *testing.T) {
	now := storetest.Noon
	c := newCluster(t, t.TempDir(), sqlite.Options{Now: func() time.Time { return now }})
	other, from := storetest.Places[1].Node, now.Unix()-60
	c.write(t, traffic(0, from+5, 1000))
	q := bandwidth(from, "tunnelName")
	p, err := c.stores[c.self].Plan(context.Background(), q, query.Options{Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	good := p.Share()
	change := func(column int, v any) []byte {
		row := slices.Clone(good.Rows[0])
		row[column] = v
		return appendShare(nil, &query.Share{Columns: good.Columns, Rows: [][]any{good.Rows[0], row}})
	}
	last := len(good.Columns) - 1
	for name, b := range map[string][]byte{
		"nothing": nil, "no kind": {'x'}, "cut": appendShare(nil, good)[:20], "no columns": appendShare(nil, &query.Share{}),
		"other columns":     appendShare(nil, &query.Share{Columns: slices.Repeat([]string{"a"}, len(good.Columns)), Rows: good.Rows}),
		"a number for text": change(0, int64(7)), "no text": change(0, nil), "text for a time": change(1, "x"), "a time before all": change(1, int64(-1<<62)),
		"a time after all": change(1, int64(1)<<62), "text for a number": change(last, "NaN"), "no number": change(last, nil), "infinite": change(last, math.Inf(1)),
		"less than nothing": change(last, int64(-5)), "as coarse as before": appendRefusal(nil, query.Coarser{Resolution: time.Second}),
		"coarser than there are": appendRefusal(nil, query.Coarser{Resolution: 24 * time.Hour}), "millions of rows": millions(good.Columns),
	} {
		c.answer = map[string][]byte{other: b}
		a, err := c.fleet().Groups(context.Background(), q)
		if err != nil || len(a.Missing) != 1 || a.Missing[0].Node != other || a.Groups[0].Measures[0] != 1000 {
			t.Errorf("%s: %v, %+v", name, err, a)
		}
	}
	c.answer = map[string][]byte{other: appendRefusal(nil, query.TooMany{Refusal: "it makes more than 3 groups", Resolution: time.Second})}
	if a, err := c.fleet().Groups(context.Background(), q); !errors.As(err, new(store.Refusal)) {
		t.Errorf("too many groups: %v, %+v", err, a)
	}
}

// millions is a small answer that would be a large one.
func millions(columns []string) []byte {
	return appendShare(nil, &query.Share{Columns: columns, Rows: slices.Repeat([][]any{make([]any, len(columns))}, 1_000_000)})
}

// A question for which the single intervals of all nodes are too many is answered by coarser ones.
func TestTooMany(t *testing.T) {
	q := bandwidth(0)
	many := func(resolution time.Duration, intervals bool) error {
		return query.TooMany{Refusal: "too many", Resolution: resolution, Intervals: intervals}
	}
	for _, x := range []struct {
		by   []string
		err  error
		want time.Duration
	}{
		{nil, many(time.Second, true), time.Minute},
		{nil, many(time.Minute, true), time.Hour},
		{nil, many(time.Hour, true), 0},
		{nil, many(time.Second, false), 0},
		{[]string{"datetimeFiveMinutes"}, many(time.Second, true), time.Minute},
		{[]string{"datetimeFiveMinutes"}, many(time.Minute, true), 0},
		{nil, query.Coarser{Resolution: time.Hour}, time.Hour},
		{nil, query.Coarser{Resolution: time.Second}, 0},
		{nil, query.Coarser{Resolution: 24 * time.Hour}, 0},
		{[]string{"datetimeFiveMinutes"}, query.Coarser{Resolution: time.Hour}, 0},
		{nil, errors.New("anything else"), 0},
	} {
		q.By = bandwidth(0, x.by...).By
		tried := time.Second
		if many := (query.TooMany{}); errors.As(x.err, &many) {
			tried = many.Resolution
		}
		if got, _ := coarser(q, tried, x.err); got != x.want {
			t.Errorf("by %v, %#v: %v, want %v", x.by, x.err, got, x.want)
		}
	}
}
