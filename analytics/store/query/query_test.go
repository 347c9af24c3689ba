package query

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

func compare(set *dataset.Dataset, name string, op store.Op, values ...any) store.Where {
	return store.Where{Dimension: set.Lookup(name), Op: op, Values: values}
}

// The span of a condition is the seconds that it lets through, tried one by one.
func TestSpanOf(t *testing.T) {
	names := []string{"date", "datetime", "datetimeTenSeconds", "datetimeMinute", "datetimeFiveMinutes", "datetimeHour"}
	ops := []store.Op{store.Equal, store.AtLeast, store.Greater, store.Less, store.AtMost}
	const around, window = int64(86400 * 1000), int64(2000)
	rapid.Check(t, func(t *rapid.T) {
		var w store.Where
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			x := compare(dataset.Traffic, rapid.SampledFrom(names).Draw(t, "name"), rapid.SampledFrom(ops).Draw(t, "op"),
				time.Unix(around+rapid.Int64Range(-window, window).Draw(t, "value")/10*10, rapid.SampledFrom([]int64{0, 0, 5e8}).Draw(t, "ns")))
			w = store.Where{All: []store.Where{w, x}}
		}
		span := SpanOf(&w)
		for s := around - 2*window; s < around+2*window; s++ {
			want := true
			for _, c := range Conjuncts(&w) {
				v, at := c.Values[0].(time.Time), time.Unix(s/c.Dimension.Bucket*c.Dimension.Bucket, 0)
				want = want && map[store.Op]bool{store.Equal: at.Equal(v), store.AtLeast: !at.Before(v), store.Greater: at.After(v),
					store.Less: at.Before(v), store.AtMost: !at.After(v)}[c.Op]
			}
			if got := s >= span.From && s < span.To; got != want {
				t.Fatalf("second %d: in %v is %v, want %v of %+v", s-around, span, got, want, Conjuncts(&w))
			}
		}
	})
	for _, v := range []time.Time{{}, time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64, 0)} {
		w := compare(dataset.Traffic, "date", store.Less, v)
		if s := SpanOf(&w); s.From != math.MinInt64 {
			t.Errorf("before %v: %v", v, s)
		}
	}
}

// The intervals of a span are those that begin in it, counted one by one.
func TestIntervals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Span{rapid.Int64Range(-200, 200).Draw(t, "from"), rapid.Int64Range(-200, 200).Draw(t, "to")}
		resolution, want := rapid.Int64Range(1, 70).Draw(t, "resolution"), int64(0)
		for x := s.From; x < s.To; x++ {
			if x%resolution == 0 {
				want++
			}
		}
		if got := s.Intervals(resolution); got != want {
			t.Fatalf("%v has %d intervals of %d, want %d", s, got, resolution, want)
		}
	})
}

// What is wrong with a query is refused, with its name; nothing but values reaches the SQL, and those only as arguments.
func TestCheck(t *testing.T) {
	bits := dataset.Measure{Block: dataset.Sum, Name: "bits", Type: dataset.Uint64, Doc: "bits of inner IP packets", Value: dataset.Bits}
	good := func() *store.Query {
		return &store.Query{Dataset: dataset.Traffic, Account: "acme", Limit: 1, Measures: []dataset.Measure{bits}}
	}
	if err := Check(good()); err != nil {
		t.Fatal(err)
	}
	deep := store.Where{}
	for range maxDepth + 1 {
		deep = store.Where{All: []store.Where{deep}}
	}
	own := *dataset.Traffic.Lookup("tunnelName")
	own.SQL = "(SELECT account FROM series)"
	for want, change := range map[string]func(*store.Query){
		"no dataset":      func(q *store.Query) { q.Dataset = nil },
		"no account":      func(q *store.Query) { q.Account = "" },
		"limit is 0":      func(q *store.Query) { q.Limit = 0 },
		"no measure":      func(q *store.Query) { q.Measures[0].Name = "bits FROM series --" },
		"is nil":          func(q *store.Query) { q.By = []*dataset.Dimension{nil} },
		"no dimension":    func(q *store.Query) { q.By = []*dataset.Dimension{&own} },
		"asked for":       func(q *store.Query) { q.Order = []store.Order{{Measure: dataset.Traffic.Measures[0]}} },
		"not grouped by":  func(q *store.Query) { q.Order = []store.Order{{Dimension: dataset.Traffic.Lookup("date")}} },
		"deeper than":     func(q *store.Query) { q.Where = deep },
		"500 conditions":  func(q *store.Query) { q.Where.Any = make([]store.Where, 1000) },
		"5000 values":     func(q *store.Query) { q.Where = compare(dataset.Traffic, "tunnelName", store.In, make([]any, 6000)...) },
		"exactly 1":       func(q *store.Query) { q.Where = compare(dataset.Traffic, "tunnelName", store.Equal) },
		"no such":         func(q *store.Query) { q.Where = compare(dataset.Traffic, "tunnelName", "= 1 OR", "x") },
		"which is no str": func(q *store.Query) { q.Where = compare(dataset.Traffic, "tunnelName", store.Equal, uint64(1)) },
		"no Time":         func(q *store.Query) { q.Where = compare(dataset.Traffic, "datetime", store.Equal, "2026") },
		"like a pattern":  func(q *store.Query) { q.Where = compare(dataset.Traffic, "datetime", store.Like, "2026%") },
		"without NUL":     func(q *store.Query) { q.Where = compare(dataset.Traffic, "tunnelName", store.Like, "a\x00b") },
	} {
		q := good()
		change(q)
		if err := Check(q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
	q := good()
	hostile := "x' OR 1=1; --?"
	q.Account = hostile
	q.Where = store.Where{Any: []store.Where{compare(dataset.Traffic, "tunnelName", store.Like, hostile), compare(dataset.Traffic, "onRamp",
		store.NotIn, hostile, hostile)}}
	p, err := New(q, Options{Dialect: SQLite, Resolution: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s := p.Statement(Part{SQL: "SELECT ?", Args: []any{hostile}}, true)
	if strings.Contains(s.SQL, "OR 1=1") || strings.Count(s.SQL, "?") != len(s.Args) {
		t.Errorf("%s with %d arguments", s.SQL, len(s.Args))
	}
}

// A dialect is where databases differ.
func TestDialect(t *testing.T) {
	other := &Dialect{Join: "joined(%s)", Pattern: func(p string) string { return strings.ReplaceAll(p, `\`, `\\`) }}
	q := &store.Query{Dataset: dataset.Traffic, Account: store.Operator, Limit: 5, By: []*dataset.Dimension{dataset.Traffic.Lookup("datetimeMinute")},
		Measures: []dataset.Measure{dataset.Traffic.Measures[slices.IndexFunc(dataset.Traffic.Measures,
			func(m dataset.Measure) bool { return m.Block == dataset.P95 })]},
		Where: compare(dataset.Traffic, "tunnelName", store.Like, `a\b%`)}
	p, err := New(q, Options{Dialect: other, Resolution: time.Second, Now: time.Unix(120, 0)})
	if err != nil {
		t.Fatal(err)
	}
	s := p.Statement(Part{SQL: "SELECT 1"}, true)
	if !strings.Contains(s.SQL, "joined(s_bytes)") || !slices.Contains(s.Args, any(`a\\b%`)) {
		t.Errorf("%s %v", s.SQL, s.Args)
	}
	// Rows may come as text: some databases write large numbers so.
	for i, row := range [][]any{{"60", "2", "60", "10,20"}, {"60", "2", "62", "30,40"}, {int64(0), int64(0), nil, nil}} {
		if err := p.Add(row); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
	}
	// 4 of 60 seconds have rows: the 57th of 60 is the fourth highest.
	if a := p.Answer(); len(a.Groups) != 1 || a.Groups[0].Measures[0] != 8*10 || a.Groups[0].Values[0] != time.Unix(60, 0).UTC() {
		t.Errorf("%+v", a)
	}
	for _, row := range [][]any{{"60"}, {"x", "2", "60", "1"}, {"60", "x", "60", "1"}, {"60", "2", "60", "1,x"}, {"60", "2", "60", 7}, {true, "2",
		"60", "1"}} {
		if p.Add(row) == nil {
			t.Errorf("%v was taken", row)
		}
	}
}

// A query that makes too many groups is refused before they fill the memory.
func TestTooManyGroups(t *testing.T) {
	q := &store.Query{Dataset: dataset.Packets, Account: "acme", Limit: 1, By: []*dataset.Dimension{dataset.Packets.Lookup("ipSourceAddress")}}
	p, err := New(q, Options{Dialect: SQLite, Resolution: time.Second, MaxGroups: 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 11 {
		err = p.Add([]any{fmt.Sprint(i), int64(1), int64(1), 0.0, 0.0})
		if (err != nil) != (i == 10) {
			t.Errorf("group %d: %v", i, err)
		}
	}
	if err = p.Add([]any{"3", int64(1), int64(1), 0.0, 0.0}); err != nil {
		t.Errorf("a group that is there: %v", err)
	}
}

// Every dimension of samples is a column that a packet fills, or one that stores make for all tables.
func TestSampleColumns(t *testing.T) {
	known := strings.Fields("'' t direction out_id out_name in_id in_name off_ramp on_ramp city datacenter country geohash " +
		"traffic_type outcome verdict reason mitigation node")
	for _, c := range SampleColumns {
		if (c.Number == nil) == (c.Text == nil) {
			t.Errorf("column %s is not one of number and text", c.Name)
		}
		known = append(known, c.Name)
	}
	for _, d := range dataset.Packets.Dimensions {
		if d.SQL != "" && !slices.Contains(known, d.SQL) {
			t.Errorf("%s is made of %s, which is no column", d.Name, d.SQL)
		}
	}
	var empty store.Sample
	for _, c := range SampleColumns {
		if v := c.Value(&empty); v != any(int64(0)) && v != any("") {
			t.Errorf("column %s of nothing is %v", c.Name, v)
		}
	}
}

// Hours of tops go before those of what is counted, if they have to.
func TestTopHours(t *testing.T) {
	const day = 24 * time.Hour
	if a, b := TopHours(2*day, 400*day), TopHours(2*day, 10*day); a != 30*day || b != 10*day {
		t.Error(a, b)
	}
}

// Lists of seconds make the answer that single rows make: those of several series of a group in the same second are added up.
func TestSeconds(t *testing.T) {
	measure := func(block dataset.Block, name string) dataset.Measure {
		return dataset.Traffic.Measures[slices.IndexFunc(dataset.Traffic.Measures, func(m dataset.Measure) bool { return m.Block == block && m.Name == name })]
	}
	q := &store.Query{Dataset: dataset.Traffic, Account: store.Operator, Limit: 5, By: []*dataset.Dimension{dataset.Traffic.Lookup("tunnelName")},
		Measures: []dataset.Measure{measure(dataset.Max, "bitRate"), measure(dataset.P95, "bitRate"), measure(dataset.Sum, "bits"), measure(dataset.Sum, "droppedPackets")},
		Where:    store.Where{All: []store.Where{{Dimension: dataset.Traffic.Lookup("datetime"), Op: store.AtLeast, Values: []any{time.Unix(60, 0)}}}}}
	p, err := New(q, Options{Dialect: SQLite, Resolution: time.Second, Now: time.Unix(180, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Seconds(Part{SQL: "SELECT ?", Args: []any{7}}); strings.Contains(s.SQL, "l_packets") || !strings.Contains(s.SQL, "group_concat(bytes) AS l_bytes") || len(s.Args) != 1 {
		t.Errorf("%s %v", s.SQL, s.Args)
	}
	for _, m := range [][][]any{
		{{"a", "60,61,119", "10,20,30", "1,0,0"}, {"a", "61,62,63", "5,6,7", "0,0,4"}, {"b", "60", "1", "0"}},
		{{"a", "121,122,123", "40,8,9", "0,0,0"}, {"b", "120", "2", "0"}},
	} {
		for _, row := range m {
			if err := p.AddSeconds(row); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.EndMinute(); err != nil {
			t.Fatal(err)
		}
	}
	// Of 120 seconds a has rates in 8: 40 30 25 10 9 8 7 6. Six are above the 95th percentile.
	a := p.Answer()
	want := [][]float64{{8 * 40, 8 * 7, 8 * 135, 5}, {8 * 2, 0, 8 * 3, 0}}
	for i := range want {
		if len(a.Groups) != 2 || !slices.Equal(a.Groups[i].Measures, want[i]) {
			t.Fatalf("%+v, want %v", a.Groups, want)
		}
	}
	for _, row := range [][]any{{"a", "60", "1"}, {"a", "x", "1", "1"}, {"a", "60,61", "1", "1,1"}, {7, "60", "1", "1"}, {"a", 60, "1", "1"}} {
		if p.AddSeconds(row) == nil {
			t.Errorf("%v was taken", row)
		}
	}
}
