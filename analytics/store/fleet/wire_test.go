package fleet

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"causeway/analytics/store"
	"causeway/analytics/store/query"
	"causeway/analytics/store/storetest"
)

// A question that was written is read as it was.
func TestQuestion(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		o := storetest.NewOracle()
		o.Take(storetest.DrawBatch(r, storetest.Noon.Unix()))
		q, _ := storetest.DrawQuery(r, o, 1, []int64{storetest.Noon.Unix()})
		got, resolution, err := parseQuestion(appendQuestion(nil, q, time.Minute))
		if err != nil || resolution != time.Minute {
			r.Fatal(err, resolution)
		}
		want := *q
		want.Order, want.Limit = nil, 1
		if d := cmp.Diff(&want, got, cmpopts.EquateEmpty()); d != "" {
			r.Fatal(d)
		}
	})
}

// What no node of this release asks is refused, and nothing in it is believed.
func TestQuestionRefused(t *testing.T) {
	const good = `"version":1,"dataset":"magicTransitTunnelTrafficAdaptiveGroups","account":"acme","resolution":1`
	if _, _, err := parseQuestion([]byte("{" + good + "}")); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		``: "the question is none",
		`{` + strings.Replace(good, "1", "2", 1) + `}`:                                               "another release",
		`{` + strings.Replace(good, "Traffic", "Gossip", 1) + `}`:                                    "another release",
		`{` + strings.Replace(good, `"acme"`, `""`, 1) + `}`:                                         "no account",
		`{` + strings.Replace(good, `"resolution":1`, `"resolution":-1`, 1) + `}`:                    "rows of -1 seconds",
		`{` + good + `,"by":["t) FROM x --"]}`:                                                       "another release",
		`{` + good + `,"measures":[{"block":"sum","name":"1"}]}`:                                     "another release",
		`{` + good + `,"where":{"dimension":"direction","op":" OR 1=1","values":[{"s":"x"}]}}`:       "no such comparison",
		`{` + good + `,"where":{"dimension":"direction","values":[{"n":1}]}}`:                        "is no string",
		`{` + good + `,"where":{"dimension":"direction"}}`:                                           "0 values",
		`{` + good + `,"where":` + strings.Repeat(`{"all":[`, 100) + strings.Repeat(`]}`, 100) + `}`: "too deep",
	} {
		if q, _, err := parseQuestion([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v %v, want %q", text, q, err, want)
		}
	}
}

// like is a plan for a share of its columns.
type like struct{ *query.Share }

func (l like) Columns() []string { return l.Share.Columns }
func (like) MaxGroups() int      { return 1000 }

// An answer that was written is read as it was; what refuses stays what it is.
func TestAnswer(t *testing.T) {
	s := &query.Share{Columns: []string{"a", "COUNT(*)", ""}, Rows: [][]any{{"text", int64(-5), 0.25}, {nil, int64(1) << 52, 1e300}, {"", int64(0), -1e-9}}}
	got, err := parseAnswer(appendShare(nil, s), like{s})
	if d := cmp.Diff(s, got); err != nil || d != "" {
		t.Error(err, d)
	}
	none := &query.Share{Columns: []string{"a"}}
	if got, err := parseAnswer(appendShare(nil, none), like{none}); err != nil || len(got.Rows) != 0 {
		t.Error("no rows:", err, got)
	}
	many := query.TooMany{Refusal: "it makes more than 3 groups", Resolution: time.Minute, Intervals: true}
	for _, want := range []error{query.Coarser{Resolution: time.Hour}, many} {
		_, err := parseAnswer(appendRefusal(nil, want), like{none})
		if err != want {
			t.Errorf("%#v, want %#v", err, want)
		}
	}
	if _, err := parseAnswer(appendRefusal(nil, errors.New("the disk is gone")), like{none}); err == nil || err.Error() != "the disk is gone" {
		t.Error(err)
	}
	large := &query.Share{Columns: []string{"a"}, Rows: slices.Repeat([][]any{{strings.Repeat("x", 1<<20)}}, maxShare>>20+1)}
	if _, err := parseAnswer(appendShare(nil, large), like{large}); err == nil || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Error("too large:", err)
	}
	long := &query.Share{Columns: []string{"a"}, Rows: slices.Repeat([][]any{{nil}}, 1001)}
	if got, err := parseAnswer(appendShare(nil, long), like{long}); err != errAnswer {
		t.Error("too many rows:", err, got)
	}
	if got, err := parseAnswer(appendShare(nil, s), like{none}); err != errRelease {
		t.Error("other columns:", err, got)
	}
}

func FuzzQuestion(f *testing.F) {
	f.Add(appendQuestion(nil, bandwidth(1, "tunnelName", "datetime"), time.Second))
	f.Add([]byte(`{"version":1,"dataset":"dosdAttackAnalyticsGroups","account":"*","resolution":60,"where":{"any":[{"dimension":"attackId","op":"_in"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, resolution, err := parseQuestion(b)
		if err != nil {
			return
		}
		if err := query.Check(q); err != nil {
			t.Fatal(err)
		}
		again, _, err := parseQuestion(appendQuestion(nil, q, resolution))
		if d := cmp.Diff(q, again, cmpopts.EquateEmpty()); err != nil || d != "" {
			t.Fatal(err, d)
		}
	})
}

// planned is a plan without rows, by tunnel and without a bound of time.
func planned(t testing.TB) *query.Plan {
	t.Helper()
	q := bandwidth(0, "tunnelName")
	q.Where = store.Where{}
	p, err := query.New(q, query.Options{Dialect: query.SQLite, Resolution: time.Second, Now: storetest.Noon, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func FuzzAnswer(f *testing.F) {
	columns := planned(f).Columns()
	row := slices.Repeat([]any{int64(60)}, len(columns))
	row[0] = "cust-a"
	f.Add(appendShare(nil, &query.Share{Columns: columns, Rows: [][]any{row, row}}))
	f.Add(appendRefusal(nil, query.TooMany{Refusal: "many", Resolution: time.Second}))
	f.Add(appendRefusal(nil, store.Refusal("no")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := planned(t)
		s, err := parseAnswer(b, p)
		if err != nil {
			return
		}
		again, err := parseAnswer(appendShare(nil, s), p)
		if err != nil || len(again.Rows) != len(s.Rows) {
			t.Fatal(err)
		}
		if p.Take(s) == nil {
			p.Answer()
		}
	})
}
