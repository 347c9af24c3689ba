package storetest

import (
	"fmt"
	"math"
	"time"

	"github.com/google/go-cmp/cmp"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// A T is a test, of testing or of rapid.
type T interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// Compare fails if a store's answer is not the oracle's. Asked is the time that the query names.
func (o *Oracle) Compare(t T, q *store.Query, a *store.Answer, asked Span, now time.Time) {
	t.Helper()
	want := o.Groups(q, int64(a.Resolution/time.Second), asked, now.Unix())
	for _, list := range [][]store.Group{a.Groups, want} {
		for i := range list {
			for j := range list[i].Measures {
				list[i].Measures[j] = rounded(list[i].Measures[j])
			}
			list[i].PacketsVariance, list[i].BitsVariance = rounded(list[i].PacketsVariance), rounded(list[i].BitsVariance)
		}
	}
	if d := cmp.Diff(want, a.Groups); d != "" {
		t.Fatalf("%s at %s (-oracle +store):\n%s\nwhere %s\nby %s measures %v order %v limit %d account %s", q.Dataset.Name, a.Resolution, d,
			show(&q.Where), names(q.By), q.Measures, q.Order, q.Limit, q.Account)
	}
}

// rounded forgets what comes of adding in another order.
func rounded(x float64) float64 {
	if x == 0 {
		return 0
	}
	scale := math.Pow(10, 10-math.Ceil(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}

func names(list []*dataset.Dimension) (out []string) {
	for _, d := range list {
		out = append(out, d.Name)
	}
	return out
}

func show(w *store.Where) string {
	text := ""
	for i := range w.All {
		text += " and " + show(&w.All[i])
	}
	for i := range w.Any {
		text += " or " + show(&w.Any[i])
	}
	if w.Dimension != nil {
		text += fmt.Sprint(" ", w.Dimension.Name, w.Op, w.Values)
	}
	return "(" + text + ")"
}
