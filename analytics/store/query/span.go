package query

import (
	"fmt"
	"math"
	"strings"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// A Span is the seconds since 1970 from From on and before To.
type Span struct{ From, To int64 }

// Always is the span without bounds.
var Always = Span{math.MinInt64, math.MaxInt64}

// And is the time that is in both.
func (s Span) And(o Span) Span { return Span{max(s.From, o.From), min(s.To, o.To)} }

// Empty reports whether there is no second in it.
func (s Span) Empty() bool { return s.From >= s.To }

// Intervals is how many intervals of a resolution, in seconds, begin in the span. A row counts for the time that its interval begins at.
func (s Span) Intervals(resolution int64) int64 {
	if s.Empty() {
		return 0
	}
	return (up(s.To, resolution) - up(s.From, resolution)) / resolution
}

// Whole is the span that has the same beginnings of intervals, and all of these intervals to their ends.
func (s Span) Whole(resolution int64) Span { return Span{up(s.From, resolution), up(s.To, resolution)} }

// Inner is the intervals that lie wholly in the span.
func (s Span) Inner(resolution int64) Span {
	return Span{up(s.From, resolution), down(s.To, resolution)}
}

// SpanOf is the time that a condition leaves. Only comparisons that must all hold are looked at; others can but make it less.
func SpanOf(w *store.Where) Span {
	s := Always
	for i := range w.All {
		s = s.And(SpanOf(&w.All[i]))
	}
	if w.Dimension != nil && IsTime(w.Dimension) && len(w.Values) == 1 {
		if v, ok := w.Values[0].(time.Time); ok {
			s = s.And(bounds(w.Op, v, w.Dimension.Bucket))
		}
	}
	return s
}

// bounds is when a time, rounded down to a bucket, compares so with a value. A rounded time reaches a whole second when the time itself
// reaches the next multiple of the bucket.
func bounds(op store.Op, v time.Time, bucket int64) Span {
	const most = 1 << 50 // far beyond any row
	second := min(max(v.Unix(), -most), most)
	reaches, passes := second, second+1
	if v.Nanosecond() != 0 {
		reaches++
	}
	reaches, passes = up(reaches, bucket), up(passes, bucket)
	switch op {
	case store.Equal:
		return Span{reaches, passes}
	case store.AtLeast:
		return Span{reaches, math.MaxInt64}
	case store.Greater:
		return Span{passes, math.MaxInt64}
	case store.Less:
		return Span{math.MinInt64, reaches}
	case store.AtMost:
		return Span{math.MinInt64, passes}
	}
	return Always
}

// down and up round to a multiple.
func down(t, multiple int64) int64 { return t - (t%multiple+multiple)%multiple }
func up(t, multiple int64) int64   { return down(t+multiple-1, multiple) }

// Kept is how long rows of a resolution are kept.
type Kept struct{ Resolution, For time.Duration }

// Resolution chooses the finest resolution of those, finest first, that is kept for as long as the query reaches back. It is an error if
// that is coarser than a time that is grouped by.
func Resolution(q *store.Query, from int64, kept []Kept, now time.Time) (time.Duration, error) {
	best := kept[len(kept)-1].Resolution
	for _, k := range kept {
		if from >= now.Add(-k.For).Unix() {
			best = k.Resolution
			break
		}
	}
	if d := finer(q, best); d != nil {
		return 0, tooFine(d, from, best, kept)
	}
	return best, nil
}

// Fits reports whether rows of a resolution tell the times apart that are grouped by.
func Fits(q *store.Query, resolution time.Duration) bool { return finer(q, resolution) == nil }

// finer is a time that is grouped by, and that rows of a resolution do not tell apart; nil: there is none.
func finer(q *store.Query, resolution time.Duration) *dataset.Dimension {
	for _, d := range q.By {
		if IsTime(d) && time.Duration(d.Bucket)*time.Second < resolution {
			return d
		}
	}
	return nil
}

// Coarser says that the rows of a resolution do not reach back as far as a query does, and those of another do.
type Coarser struct{ Resolution time.Duration }

func (e Coarser) Error() string {
	return fmt.Sprintf("only rows of each %s reach back so far", short(e.Resolution))
}

func tooFine(d *dataset.Dimension, from int64, best time.Duration, kept []Kept) error {
	var list []string
	for _, k := range kept {
		list = append(list, fmt.Sprintf("%s for %s", short(k.Resolution), short(k.For)))
	}
	begin := "without a lower bound of time"
	if from > -1<<50 {
		begin = "from " + time.Unix(from, 0).UTC().Format(time.RFC3339)
	}
	return store.Refusal(fmt.Sprintf("grouped by %s %s: rows of that time are kept only for each %s (kept are rows of %s); begin later, or group by a longer time",
		d.Name, begin, short(best), strings.Join(list, ", ")))
}

// short leaves out the zeros of a duration.
func short(d time.Duration) string {
	switch day := 24 * time.Hour; {
	case d >= day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
