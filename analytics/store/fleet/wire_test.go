package fleet

import (
	"errors"
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

// An answer that was written is read as it was; what refuses stays what it is.
func TestAnswer(t *testing.T) {
	s := &query.Share{Columns: []string{"a", "COUNT(*)", ""}, Rows: [][]any{{"text", int64(-5), 0.25}, {nil, int64(1) << 52, 1e300}, {"", int64(0), -1e-9}}}
	got, err := parseAnswer(appendShare(nil, s))
	if d := cmp.Diff(s, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if got, err := parseAnswer(appendShare(nil, &query.Share{Columns: []string{"a"}})); err != nil || len(got.Rows) != 0 {
		t.Error("no rows:", err, got)
	}
	many := query.TooMany{Refusal: "it makes more than 3 groups", Resolution: time.Minute, Intervals: true}
	for _, want := range []error{query.Coarser{Resolution: time.Hour}, many} {
		_, err := parseAnswer(appendRefusal(nil, want))
		if err != want {
			t.Errorf("%#v, want %#v", err, want)
		}
	}
	if _, err := parseAnswer(appendRefusal(nil, errors.New("the disk is gone"))); err == nil || err.Error() != "the disk is gone" {
		t.Error(err)
	}
	row := []any{strings.Repeat("x", 1<<20)}
	large := &query.Share{Columns: []string{"a"}}
	for range maxShare>>20 + 1 {
		large.Rows = append(large.Rows, row)
	}
	if _, err := parseAnswer(appendShare(nil, large)); err == nil || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Error("too large:", err)
	}
}

// An answer that unpacks to much more than a share may have is not read to its end.
func TestAnswerIsBounded(t *testing.T) {
	row := []any{strings.Repeat("x", maxShare/2)}
	b := appendShare(nil, &query.Share{Columns: []string{"a"}, Rows: [][]any{row}})
	if _, err := parseAnswer(b); err != nil || len(b) > 1<<20 {
		t.Fatal(err, len(b))
	}
	s := &query.Share{Columns: []string{"a"}, Rows: [][]any{{strings.Repeat("x", maxShare-20)}}}
	if _, err := parseAnswer(append(appendShare(nil, s), b...)); err != nil { // what follows is not read
		t.Error(err)
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

func FuzzAnswer(f *testing.F) {
	f.Add(appendShare(nil, &query.Share{Columns: []string{"a", "b"}, Rows: [][]any{{"x", 1.5}, {nil, int64(3)}}}))
	f.Add(appendRefusal(nil, query.TooMany{Refusal: "many", Resolution: time.Second}))
	f.Add(appendRefusal(nil, store.Refusal("no")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseAnswer(b)
		if err != nil {
			return
		}
		again, err := parseAnswer(appendShare(nil, s))
		if err != nil || len(again.Rows) != len(s.Rows) {
			t.Fatal(err)
		}
		q := bandwidth(0, "tunnelName", "datetime")
		p, err := query.New(q, query.Options{Dialect: query.SQLite, Resolution: time.Second, Now: storetest.Noon, Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		s.Columns = p.Share().Columns
		for i, row := range s.Rows { // as if they meant what is asked for
			if len(row) < len(s.Columns) {
				s.Rows[i] = append(row, make([]any, len(s.Columns)-len(row))...)
			}
			s.Rows[i] = s.Rows[i][:len(s.Columns)]
		}
		if p.Take(s) == nil {
			p.Answer()
		}
	})
}
