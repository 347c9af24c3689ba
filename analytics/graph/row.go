package graph

import (
	"fmt"
	"math"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// A row is one group; the generated types are rows with methods. The arguments of its methods are numbers of dimensions and
// measures in the dataset: only what was selected is read, and that was asked for.
type row struct {
	*asked
	group *store.Group
}

func (r row) text(i int) text       { return text(r.group.Values[r.dimensions[i]].(string)) }
func (r row) number(i int) number   { return number(r.group.Values[r.dimensions[i]].(uint64)) }
func (r row) instant(i int) instant { return instant(r.group.Values[r.dimensions[i]].(time.Time)) }
func (r row) day(i int) day         { return day(r.group.Values[r.dimensions[i]].(time.Time)) }

// maybeInstant is a time that may be missing.
func (r row) maybeInstant(i int) *instant {
	t, ok := r.group.Values[r.dimensions[i]].(time.Time)
	if !ok || t.IsZero() || t.Unix() == 0 {
		return nil
	}
	return (*instant)(&t)
}

func (r row) measured(i int) float64 { return r.group.Measures[r.measures[i]] }
func (r row) count(i int) number     { return whole(r.measured(i)) }
func (r row) mean(i int) single      { return single(finite(r.measured(i))) }
func (r row) seconds() number        { return number(r.resolution / time.Second) }

// levelArgs are the arguments of confidence.
type levelArgs struct{ Level given }

// estimates is a group with the width of its intervals.
type estimates struct {
	row
	level, z float64 // z: so many standard deviations to each side
}

// The levels of confidence. Without one the product gives no interval; here it is 95 %.
const (
	minLevel     = 0.5
	maxLevel     = 0.999
	defaultLevel = 0.95
)

func (r row) estimates(args levelArgs) (estimates, error) {
	level := defaultLevel
	if args.Level.value != nil {
		x, ok := decimal(args.Level.value)
		if !ok || !(x >= minLevel && x <= maxLevel) {
			return estimates{}, at("level", wrong(args.Level.value, fmt.Sprintf("a number from %v to %v", minLevel, maxLevel)))
		}
		level = x
	}
	return estimates{r, level, math.Sqrt2 * math.Erfinv(level)}, nil
}

// Level is the share of such intervals that the truth lies in.
func (e estimates) Level() double { return double(e.level) }

// An interval is a measure with its confidence.
type interval struct {
	Estimate     double
	IsValid      bool
	Lower, Upper double
	SampleSize   number
}

// minSamples is what a normal approximation needs at the least. Near it the interval holds somewhat less often than its level says.
const minSamples = 5

// interval is the normal approximation about the Horvitz-Thompson estimate. What every packet was counted for has no width: of
// exact tables, and where one in one was sampled.
func (e estimates) interval(i int) interval {
	x := finite(e.measured(i))
	variance, known := e.variance(e.shape.Measures[i])
	half := e.z * math.Sqrt(variance)
	return interval{
		Estimate: double(x), Lower: double(max(0, x-half)), Upper: double(x + half), SampleSize: number(e.group.Rows),
		IsValid: known && (variance == 0 || e.group.Rows >= minSamples),
	}
}

// variance is that of a measure, and whether it is known: the mean of the sampling itself has none, nor has the bound of an error.
func (e estimates) variance(m dataset.Measure) (float64, bool) {
	switch {
	case e.shape.Table != dataset.SampleTable && e.shape.Table != dataset.TopTable, m.Value == dataset.SampleCount:
		return 0, true
	}
	window := float64(max(1, m.Seconds))
	switch m.Value {
	case dataset.Bits:
		return max(0, finite(e.group.BitsVariance)) / (window * window), true
	case dataset.PacketCount:
		return max(0, finite(e.group.PacketsVariance)) / (window * window), true
	}
	return 0, false
}
