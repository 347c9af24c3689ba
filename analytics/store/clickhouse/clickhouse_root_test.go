package clickhouse

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
	"causeway/analytics/store/storetest"
)

// A cluster is a store for each node, with a clock that stands still.
type cluster struct {
	t      storetest.T
	nodes  map[string]*Store
	oracle *storetest.Oracle
	now    time.Time
}

func newCluster(s *server, t storetest.T, database string, r Retention) *cluster {
	c := &cluster{t: t, nodes: map[string]*Store{}, oracle: storetest.NewOracle(), now: storetest.Noon}
	for _, p := range storetest.Places {
		c.nodes[p.Node] = s.open(database, p.Node, func(o *Options) { o.Retention, o.Now = r, func() time.Time { return c.now } })
	}
	return c
}

func (c *cluster) write(b *store.Batch) {
	c.t.Helper()
	if err := c.nodes[b.Place.Node].Write(context.Background(), b); err != nil {
		c.t.Fatal(err)
	}
	c.oracle.Take(b)
}

func (c *cluster) flush() {
	c.t.Helper()
	for _, p := range storetest.Places {
		if err := c.nodes[p.Node].Flush(context.Background()); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) any() *Store { return c.nodes[storetest.Places[0].Node] }

func (c *cluster) ask(q *store.Query) *store.Answer {
	c.t.Helper()
	a, err := c.any().Groups(context.Background(), q)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *cluster) compare(q *store.Query, asked storetest.Span) {
	c.t.Helper()
	c.oracle.Compare(c.t, q, c.ask(q), asked, c.now)
}

// Whatever two nodes have written, at each resolution, rolled up or not yet, late or in time: each of them answers as the oracle does.
func TestRootAnswers(t *testing.T) {
	if testing.Short() { // rapid divides the number by five; the same each time, so that a change fails by what it changed
		for name, value := range map[string]string{"rapid.checks": "25", "rapid.seed": "14905043102754593904"} {
			if err := flag.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := startServer(t)
	day := 24 * time.Hour
	databases := 0
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
			rapid.Check(t, func(r *rapid.T) {
				databases++
				c := newCluster(s, r, fmt.Sprint("db", databases), x.retention)
				answers(r, c, x.shortest)
				if err := c.any().client.exec(context.Background(), "DROP DATABASE "+c.any().client.database, url.Values{}); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func answers(r *rapid.T, c *cluster, shortest int64) {
	midnight := storetest.Noon.Truncate(24 * time.Hour)
	starts := []int64{midnight.Add(-24*time.Hour - 200*time.Second).Unix(), midnight.Add(-200 * time.Second).Unix(),
		storetest.Noon.Add(-600 * time.Second).Unix()}
	for _, start := range starts {
		for range rapid.IntRange(0, 2).Draw(r, "batches") {
			c.now = time.Unix(start, 0)
			c.write(storetest.DrawBatch(r, start))
			c.now = time.Unix(start+int64(rapid.IntRange(300, 700).Draw(r, "later")), 0)
			if start != starts[0] && rapid.Bool().Draw(r, "flush") {
				c.flush()
			}
		}
		if start == starts[0] && rapid.Bool().Draw(r, "in time") { // else all of it comes later than seconds are kept
			c.flush()
		}
	}
	c.now = storetest.Noon
	c.flush()
	for range 20 {
		q, asked := storetest.DrawQuery(r, c.oracle, shortest, starts)
		if shortest > 1 && (asked.From == 0 || asked.From > starts[1]) {
			continue // it may be answered from something finer, which has not all rows any more
		}
		c.compare(q, asked)
	}
}

// A thief stands before a server. He takes some answers away after the server has done what it was asked, and some before.
type thief struct {
	proxy  *httputil.ReverseProxy
	honest atomic.Bool
	n      atomic.Uint32
}

func (x *thief) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := x.n.Add(1)
	switch {
	case x.honest.Load() || n%3 == 0:
		x.proxy.ServeHTTP(w, r)
		return
	case n%3 == 1:
		x.proxy.ServeHTTP(httptest.NewRecorder(), r)
	default:
		body, _ := io.ReadAll(r.Body)
		again := r.Clone(context.Background())
		again.Body = io.NopCloser(bytes.NewReader(body))
		go x.proxy.ServeHTTP(httptest.NewRecorder(), again)
	}
	panic(http.ErrAbortHandler)
}

// Two nodes write while the server is killed again and again, and answers get lost: each row is there once, in seconds and rolled up.
func TestRootOnce(t *testing.T) {
	s := startServer(t)
	target, err := url.Parse(s.host())
	if err != nil {
		t.Fatal(err)
	}
	robber := &thief{proxy: httputil.NewSingleHostReverseProxy(target)}
	robber.proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	robber.proxy.ErrorLog = log.New(io.Discard, "", 0)
	front := httptest.NewUnstartedServer(robber)
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.Start()
	defer front.Close()
	var nodes []*Store
	for _, p := range storetest.Places {
		nodes = append(nodes, s.open("once", p.Node, func(o *Options) { o.URL = strings.Replace(front.URL, "//", "//edge@", 1) + "/once" }))
	}
	robber.honest.Store(true)
	for _, x := range nodes { // makes the tables
		if err := x.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	robber.honest.Store(false)
	start := time.Now().Add(-20*time.Minute).Unix() / 60 * 60
	const batches = 40
	var parts sync.WaitGroup
	done := make(chan struct{})
	for i, x := range nodes {
		parts.Go(func() {
			for n := range int64(batches) {
				b := &store.Batch{Place: storetest.Places[i]}
				for k := range int64(20) {
					b.Traffic = append(b.Traffic, store.Traffic{Time: start + 7*k, Account: "acme", Tunnel: storetest.AcmeA, Packets: 1 << uint(i), Bytes: 1})
					one := store.Sample{Account: "acme"}
					one.Time, one.Every = time.Unix(start+n, 0), 1
					b.Samples = append(b.Samples, one)
				}
				if err := x.Write(context.Background(), b); err != nil {
					t.Error(err)
				}
				time.Sleep(25 * time.Millisecond)
			}
		})
		parts.Go(func() {
			for {
				err := x.Flush(context.Background())
				select {
				case <-done:
					if err == nil {
						return
					}
				default:
				}
			}
		})
	}
	for range 3 {
		time.Sleep(600 * time.Millisecond)
		s.kill()
		time.Sleep(100 * time.Millisecond)
		s.start()
	}
	robber.honest.Store(true)
	close(done)
	parts.Wait()
	for _, x := range nodes {
		if err := x.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	x := nodes[0]
	for sql, want := range map[string]int{
		"SELECT sum(packets) FROM traffic_1s":                                   batches * 20 * 3,
		"SELECT sum(packets) FROM traffic_1m":                                   batches * 20 * 3,
		"SELECT sum(bytes) FROM traffic_1m":                                     batches * 20 * 2,
		"SELECT max(peak_packets) FROM traffic_1m WHERE node = 'edge-2'":        batches * 2,
		"SELECT count() FROM samples":                                           batches * 20 * 2,
		"SELECT count() FROM (SELECT node, t FROM traffic_1m GROUP BY node, t)": 6,
		"SELECT countIf(packets < 0) FROM traffic_1m":                           0,
	} {
		if got := x.raw(t, sql); !slices.Equal(got, []string{fmt.Sprint(want)}) {
			t.Errorf("%s: %v, want %d", sql, got, want)
		}
	}
	for _, x := range nodes {
		if st := x.Stats(); st.Lost != 0 || st.Refused != 0 || st.Buffered != 0 {
			t.Errorf("%+v", st)
		}
	}
}

// A literal is read by the server as the text that it was made of, and comes back as it; what looks like SQL in it is text.
func TestRootLiterals(t *testing.T) {
	s := startServer(t)
	x := s.open("default", "edge-1", nil)
	texts := []string{"", "'", `\`, `\'`, `';DROP TABLE traffic_1s;--`, "\x00\t\n\r\b\f\a\v", "ä\u2028😀", "\xff\xfe'",
		"%_", "`\"", "?", "{a:String}", `\N`, `\x41`}
	const alphabet = "'\\\x00\t\n\rntx0N4-;`\"\xc3\xa4"
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := make([]byte, random.IntN(12))
		for i := range b {
			b[i] = alphabet[random.IntN(len(alphabet))]
		}
		texts = append(texts, string(b))
	}
	var p query.Part
	p.SQL = "SELECT arrayJoin([?" + strings.Repeat(", ?", len(texts)-1) + "])"
	for _, v := range texts {
		p.Args = append(p.Args, v)
	}
	var got []string
	if err := x.ask(context.Background(), p, func(row []any) error {
		v, _ := row[0].(string)
		got = append(got, v)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, texts) {
		for i := range got {
			if got[i] != texts[i] {
				t.Fatalf("%q came back as %q", texts[i], got[i])
			}
		}
		t.Fatalf("%d texts came back of %d", len(got), len(texts))
	}
}

// What an account asks cannot change anything, names no other account's rows, and stops when nobody waits for it.
func TestRootQueries(t *testing.T) {
	s := startServer(t)
	c := newCluster(s, t, "queries", Retention{})
	for i, account := range []string{"acme", "other", "it's; DROP TABLE traffic_1s --", `\`} {
		c.write(&store.Batch{Place: storetest.Places[i%2], Traffic: []store.Traffic{{Time: c.now.Unix() - 5, Account: account,
			Tunnel: storetest.AcmeA, Packets: 1 << uint(i)}}})
	}
	c.flush()
	packets := storetest.Measure(dataset.Traffic, dataset.Sum, "packets")
	for account, want := range map[string]float64{"acme": 1, "other": 2, "it's; DROP TABLE traffic_1s --": 4, `\`: 8, store.Operator: 15} {
		q := &store.Query{Dataset: dataset.Traffic, Account: account, Limit: 10, Measures: []dataset.Measure{packets},
			Where: store.Where{Any: []store.Where{{Dimension: dataset.Traffic.Lookup("tunnelName"), Op: store.Like, Values: []any{"%' OR 1=1 --"}},
				{Dimension: dataset.Traffic.Lookup("tunnelName"), Op: store.Not, Values: []any{`\' OR account <> '`}}}}}
		if a := c.ask(q); len(a.Groups) != 1 || a.Groups[0].Measures[0] != want {
			t.Errorf("%s sees %+v, want %v", account, a.Groups, want)
		}
	}
	x := c.any()
	err := x.ask(context.Background(), query.Part{SQL: "DROP TABLE samples"}, nil)
	if codeOf(err) != 164 {
		t.Errorf("a question that writes: %v, want code 164", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(200*time.Millisecond, cancel)
	began := time.Now()
	const endless = "SELECT count() FROM (SELECT number AS n FROM system.numbers) WHERE n = -1"
	if err := x.ask(ctx, query.Part{SQL: endless}, nil); !errors.Is(err, context.Canceled) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	x.killing.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if got := x.raw(t, "SELECT count() FROM system.processes WHERE query LIKE '%n = -1%' AND query NOT LIKE '%processes%'"); got[0] == "0" {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("a query goes on that nobody waits for")
		}
	}
	x.o.QueryTimeout = time.Second
	if err := x.ask(context.Background(), query.Part{SQL: endless}, nil); codeOf(err) != 159 {
		t.Errorf("an endless query: %v, want code 159", err)
	}
	x.o.QueryMemory = 10 << 20
	big := "SELECT uniqExact(n) FROM (SELECT number AS n FROM system.numbers LIMIT 10000000)"
	if err := x.ask(context.Background(), query.Part{SQL: big}, nil); codeOf(err) != 241 {
		t.Errorf("a query that needs much memory: %v, want code 241", err)
	}
	wrong := s.open("queries", "edge-3", func(o *Options) { o.Password = "wr0ng" })
	if err := wrong.Flush(context.Background()); err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// What is too old goes, by whole partitions; what came late stays for a while.
func TestRootTidy(t *testing.T) {
	s := startServer(t)
	c := newCluster(s, t, "tidy", Retention{Minute: 48 * time.Hour, Samples: 48 * time.Hour})
	count := func(table string) string {
		return c.any().raw(t, "SELECT count() FROM "+table)[0]
	}
	old := c.now.Add(-24 * time.Hour).Unix()
	b := &store.Batch{Place: storetest.Places[0], Traffic: []store.Traffic{{Time: old, Account: "acme", Tunnel: storetest.AcmeA, Packets: 3}},
		Samples: []store.Sample{{Account: "acme"}}}
	b.Samples[0].Time = time.Unix(old, 0)
	c.write(b)
	c.flush()
	c.now = c.now.Add(72 * time.Hour)
	c.flush()
	if count("samples") != "1" || count("traffic_1s") != "1" {
		t.Error("what has just been written was dropped")
	}
	s.kill() // the times of parts are those of their files
	past := time.Now().Add(-3 * time.Hour)
	if err := filepath.WalkDir(filepath.Join(s.dir, "data", "data"), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, past, past))
	}); err != nil {
		t.Fatal(err)
	}
	s.start()
	c.now = c.now.Add(time.Hour)
	c.flush()
	for table, want := range map[string]string{"samples": "0", "traffic_1s": "0", "traffic_1m": "0", "traffic_1h": "1"} {
		if got := count(table); got != want {
			t.Errorf("%s has %s rows, want %s", table, got, want)
		}
	}
}

// What a killed process of a node has left open ends with the last row that it wrote, wherever that waited; what has begun since, and
// another node's, goes on.
func TestRootEndsWhatWasLeftOpen(t *testing.T) {
	s := startServer(t)
	buffer, now := t.TempDir(), storetest.Noon
	change := func(o *Options) { o.Buffer, o.Now = buffer, func() time.Time { return now } }
	write := func(x *Store, place store.Place, id string, start, last int64) {
		b := store.Batch{Place: place, Attacks: []store.Attack{{ID: id, Account: "acme", Start: start, Vector: "SYN flood", Packets: 7}},
			Traffic: []store.Traffic{{Time: last, Account: "acme", Tunnel: storetest.AcmeA, Packets: 1}}}
		if err := x.Write(context.Background(), &b); err != nil {
			t.Fatal(err)
		}
	}
	noon := now.Unix()
	other := s.open("left", storetest.Places[1].Node, func(o *Options) { o.Now = func() time.Time { return now } })
	write(other, storetest.Places[1], "another node's", noon, noon+90)
	if err := other.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	killed := s.open("left", storetest.Places[0].Node, change)
	write(killed, storetest.Places[0], "sent", noon, noon+10)
	if err := killed.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	write(killed, storetest.Places[0], "buffered", noon+20, noon+60)
	if err := killed.lock.Close(); err != nil { // all that a kill does here
		t.Fatal(err)
	}
	now = now.Add(2 * time.Minute)
	next := s.open("left", storetest.Places[0].Node, change)
	write(next, storetest.Places[0], "of now", now.Unix(), now.Unix())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); next.Run(ctx) }()
	want := []string{"another node's <nil>", fmt.Sprint("buffered ", noon+60), "of now <nil>", fmt.Sprint("sent ", noon+60)}
	var got []string
	for end := time.Now().Add(20 * time.Second); !slices.Equal(got, want) && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		got = next.raw(t, "SELECT concat(id, ' '), ended FROM attacks FINAL WHERE packets = 7 ORDER BY id")
	}
	if !slices.Equal(got, want) {
		t.Errorf("attacks %q, want %q", got, want)
	}
	stop()
	<-done
}
