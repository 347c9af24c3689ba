package query

import (
	"math"
	"time"

	"causeway/analytics/store"
)

// shortTops is the longest time that tops are answered of minutes for, if nothing asks for less than hours.
const shortTops = 25 * time.Hour

// topsSettled is how long after the end of an hour its rows are there for sure, in seconds.
const topsSettled = 300

// TopHours is for how long hours of tops are kept: fifteen times as long as minutes of them, and no longer than hours of what is counted.
func TopHours(minutes, hours time.Duration) time.Duration { return min(15*minutes, hours) }

// TopResolution chooses of which rows of tops a query is answered: of minutes if it groups by shorter times than hours, or is about no more than a
// day; else of hours, which are 60 times fewer. Kept says for how long there are minutes, and hours; it is an error if minutes are needed that
// are not kept any more.
func TopResolution(q *store.Query, from int64, kept []Kept, now time.Time) (time.Duration, error) {
	first := now.Add(-kept[0].For).Unix()
	needed := from >= min(SpanOf(&q.Where).To, now.Unix())-int64(shortTops/time.Second)
	for _, d := range q.By {
		if IsTime(d) && d.Bucket < 3600 {
			if needed = true; from < first {
				return 0, tooFine(d, from, time.Hour, kept)
			}
		}
	}
	if needed && from >= first {
		return time.Minute, nil
	}
	return time.Hour, nil
}

// TopSpans are the parts of a span that an answer of hours takes of hours, and of minutes: the last hours may not be there yet.
func TopSpans(span Span, now int64) (hours, minutes Span) {
	span, cut := span.Whole(3600), down(now-topsSettled, 3600)
	return span.And(Span{math.MinInt64, cut}), span.And(Span{cut, math.MaxInt64})
}

// TopColumns are the columns of tops beside the time, the series, kind and value: whole numbers, and floating point.
var (
	TopNumbers = []string{"samples", "packets", "bytes", "packets_error", "bytes_error", "sources"}
	TopFloats  = []string{"packets_var", "bits_var"}
)

// TopValues are a row's values of TopNumbers and TopFloats.
func TopValues(r *store.Top) (numbers []int64, floats []float64) {
	return []int64{Clamp(r.Samples), Clamp(r.Packets), Clamp(r.Bytes), Clamp(r.PacketsError), Clamp(r.BytesError), Clamp(r.Sources)},
		[]float64{r.PacketsVariance, r.BitsVariance}
}

// UsesOnly reports whether a condition speaks of nothing but some columns.
func UsesOnly(w *store.Where, columns ...string) bool {
	for _, list := range [][]store.Where{w.All, w.Any} {
		for i := range list {
			if !UsesOnly(&list[i], columns...) {
				return false
			}
		}
	}
	if w.Dimension == nil {
		return true
	}
	for _, c := range columns {
		if Expression(w.Dimension) == c {
			return true
		}
	}
	return false
}
