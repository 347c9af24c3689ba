package graph

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"causeway/analytics/dataset"
)

// value reads an argument of a dimension's type, as store.Where wants it: string, uint64 or time.Time.
func value(t dataset.Type, v any, now time.Time) (any, error) {
	switch t {
	case dataset.String:
		s, ok := v.(string)
		if !ok {
			return nil, wrong(v, "text in quotes")
		}
		return s, nil
	case dataset.Time:
		return timeOf(v, now)
	case dataset.Date:
		return dateOf(v)
	}
	return unsigned(v, map[dataset.Type]uint64{dataset.Uint8: math.MaxUint8, dataset.Uint16: math.MaxUint16,
		dataset.Uint32: math.MaxUint32, dataset.Uint64: math.MaxUint64}[t])
}

// unsigned reads a whole number of at most limit. Literals come as int32, int64 or float64, variables as json.Number.
func unsigned(v any, limit uint64) (uint64, error) {
	var n uint64
	ok := true
	switch x := v.(type) {
	case int32:
		n, ok = uint64(x), x >= 0
	case int64:
		n, ok = uint64(x), x >= 0
	case json.Number:
		u, err := strconv.ParseUint(x.String(), 10, 64)
		n, ok = u, err == nil
	default:
		ok = false
	}
	if !ok || n > limit {
		return 0, wrong(v, fmt.Sprintf("a whole number from 0 to %d", limit))
	}
	return n, nil
}

// decimal reads a number with or without a fraction.
func decimal(v any) (float64, bool) {
	switch x := v.(type) {
	case int32:
		return float64(x), true
	case int64:
		return float64(x), true
	case float64:
		return x, true
	case json.Number:
		f, err := x.Float64()
		return f, err == nil
	}
	return 0, false
}

// lastYear is where times end: stores count nanoseconds in 64 bits, which 2262 exceeds.
const lastYear = 2200

// timeOf reads a time of RFC 3339, or a span before now.
func timeOf(v any, now time.Time) (time.Time, error) {
	const allowed = `a time as "2026-01-31T12:00:00Z" from 1970 to 2200, or a span before now as "-30m"`
	s, ok := v.(string)
	if !ok {
		return time.Time{}, wrong(v, allowed)
	}
	if strings.HasPrefix(s, "-") {
		if d, err := time.ParseDuration(s); err == nil {
			return now.Add(d), nil
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Unix() < 0 || t.Year() > lastYear {
		return time.Time{}, wrong(v, allowed)
	}
	return t.UTC(), nil
}

func dateOf(v any) (time.Time, error) {
	s, _ := v.(string)
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Unix() < 0 || t.Year() > lastYear {
		return time.Time{}, wrong(v, `a day as "2026-01-31" from 1970 to 2200`)
	}
	return t, nil
}

// wrong says what came and what is allowed. Of long values it shows the beginning.
func wrong(v any, allowed string) error {
	shown := fmt.Sprintf("%v", v)
	if s, ok := v.(string); ok {
		shown = strconv.Quote(s)
	}
	if len(shown) > 60 {
		shown = strings.ToValidUTF8(shown[:60], "") + "..."
	}
	return refusal(fmt.Sprintf("%s is not %s", shown, allowed))
}
