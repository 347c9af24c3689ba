package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// TestEveryField asks for all that a dataset has at once: each field answers with its own value.
func TestEveryField(t *testing.T) {
	for _, d := range dataset.All {
		t.Run(d.Name, func(t *testing.T) {
			s := serve(t, nil)
			dims, blocks := map[string]any{}, map[string]map[string]any{}
			var dimNames []string
			for i := range d.Dimensions {
				x := &d.Dimensions[i]
				dimNames = append(dimNames, x.Name)
				dims[x.Name] = written(x.Type, sample(x, 0))
			}
			for _, m := range d.Measures {
				b := string(m.Block)
				if blocks[b] == nil {
					blocks[b] = map[string]any{}
				}
				blocks[b][m.Name] = valueOf(m)
			}
			s.store.answer = func(_ context.Context, q *store.Query) (*store.Answer, error) {
				a, _ := rows(1, 0)(context.Background(), q)
				for i, m := range q.Measures {
					a.Groups[0].Measures[i] = valueOf(m)
				}
				return a, nil
			}
			query, want := wholeOf(d, dimNames, dims, blocks)
			_, body := s.post(tokenA, about(query), nil)
			text, _ := json.Marshal(want)
			same(t, body, `{"data":{"viewer":{"accounts":[{"`+d.Name+`":[`+string(text)+`]}]}},"errors":null}`)
			if q := s.only(); len(q.By) != len(d.Dimensions) || len(q.Measures) != len(d.Measures) {
				t.Errorf("asked by %d dimensions for %d measures", len(q.By), len(q.Measures))
			}
		})
	}
}

// valueOf is a number that only this measure has.
func valueOf(m dataset.Measure) float64 {
	sum := 1000 * len(m.Block)
	for i, c := range m.Name {
		sum += i * int(c)
	}
	return float64(sum)
}

func written(t dataset.Type, v any) any {
	switch t {
	case dataset.Time:
		return v.(time.Time).Format(time.RFC3339)
	case dataset.Date:
		return v.(time.Time).Format(time.DateOnly)
	}
	return v
}

// wholeOf is the query for all fields of a dataset, and the item that it is answered with.
func wholeOf(d *dataset.Dataset, names []string, dims map[string]any, blocks map[string]map[string]any) (string, map[string]any) {
	fields, want := "", map[string]any{}
	for b, measures := range blocks {
		inner := ""
		for name, v := range measures {
			inner += " " + name
			if b == "" {
				want[name] = v
			}
		}
		if b == "" {
			fields += inner
			continue
		}
		fields += " " + b + " {" + inner + " }"
		want[b] = measures
	}
	if d == dataset.Attacks {
		for k, v := range dims {
			want[k] = v
		}
		fields += " " + strings.Join(names, " ")
	} else {
		want["dimensions"], want["resolution"] = dims, 60
		fields += " resolution dimensions { " + strings.Join(names, " ") + " }"
	}
	return d.Name + "(limit: 1, filter: {}) {" + fields + " }", want
}

// TestOnlyWhatIsAsked: fragments, aliases and directives select; what they leave out is not grouped by.
func TestOnlyWhatIsAsked(t *testing.T) {
	s := serve(t, nil)
	_, body := s.post(tokenA, `query Q($no: Boolean!, $gone: string) { viewer { accounts(filter: {accountTag: "acme"}) {
		t: magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {tunnelName: $gone,
		    OR: [{direction: "egress"}, {direction: "ingress", AND: {tunnelName_neq: "x"}}]},
		    orderBy: [max_bitRate_DESC, direction_DESC]) {
			__typename ...D ... @include(if: $no) { sum { packets } dimensions { tunnelName } }
			d: dimensions { way: direction } count: sum { b: bits c: bits }
		} } } }
		fragment D on AccountMagicTransitTunnelTrafficAdaptiveGroups { dimensions { date @skip(if: true) onRamp } }`, map[string]any{"no": false})
	same(t, body, `{"data":{"viewer":{"accounts":[{"t":[{"__typename":"AccountMagicTransitTunnelTrafficAdaptiveGroups",
		"dimensions":{"onRamp":"onRamp-0"},"d":{"way":"direction-0"},"count":{"b":327680,"c":327680}}]}]}},"errors":null}`)
	d := dataset.Traffic
	is := func(name string, op store.Op, v string) store.Where {
		return store.Where{Dimension: d.Lookup(name), Op: op, Values: []any{v}}
	}
	want := &store.Query{Dataset: d, Account: "acme", Limit: 1,
		Where: store.Where{Any: []store.Where{
			{All: []store.Where{is("direction", store.Equal, "egress")}},
			{All: []store.Where{{All: []store.Where{is("tunnelName", store.Not, "x")}}, is("direction", store.Equal, "ingress")}}}},
		By:       []*dataset.Dimension{d.Lookup("onRamp"), d.Lookup("direction")},
		Measures: []dataset.Measure{measureOf(d, dataset.Sum, "bits"), measureOf(d, dataset.Max, "bitRate")},
		Order: []store.Order{{Measure: measureOf(d, dataset.Max, "bitRate"), Descending: true},
			{Dimension: d.Lookup("direction"), Descending: true}, {Dimension: d.Lookup("onRamp")}}}
	if diff := cmp.Diff(want, s.only()); diff != "" {
		t.Error(diff)
	}
}

// TestAttacks is a list: each attack is a row, whatever is asked of it, and one that goes on has no end.
func TestAttacks(t *testing.T) {
	s := serve(t, nil)
	for _, end := range []any{nil, time.Time{}, time.Unix(0, 0)} {
		s.store.answer = func(_ context.Context, q *store.Query) (*store.Answer, error) {
			if q.By[len(q.By)-1].Name != "attackId" {
				t.Error("attacks are not told apart")
			}
			return &store.Answer{Groups: []store.Group{{Values: []any{end, "a1"}, Measures: []float64{7}}}}, nil
		}
		_, body := s.post(tokenA, about(`dosdAttackAnalyticsGroups(limit: 3, filter: {}, orderBy: [attackId_ASC, packets_DESC]) {
			endDatetime packets }`), nil)
		same(t, body, `{"data":{"viewer":{"accounts":[{"dosdAttackAnalyticsGroups":[{"endDatetime":null,"packets":7}]}]}},"errors":null}`)
	}
}

// TestSettings shows what may be asked.
func TestSettings(t *testing.T) {
	s := serve(t, func(o *Options) { o.NotOlderThan = map[dataset.Table]time.Duration{dataset.DropsTable: 48 * time.Hour} })
	_, body := s.post(tokenA, about(`settings { magicTransitTunnelDropsAdaptiveGroups {
		availableFields enabled maxDuration maxNumberOfFields maxPageSize notOlderThan } }`), nil)
	names := ""
	for _, d := range dataset.Drops.Dimensions {
		names += `"dimensions_` + d.Name + `",`
	}
	same(t, body, fmt.Sprintf(`{"data":{"viewer":{"accounts":[{"settings":{"magicTransitTunnelDropsAdaptiveGroups":{"availableFields":[%s"sum_packets"],
		"enabled":true,"maxDuration":172800,"notOlderThan":172800,"maxPageSize":10000,"maxNumberOfFields":%d}}}]}},"errors":null}`,
		names, len(dataset.Drops.Dimensions)+1))
}

// TestMovingTime: a span before now, in a filter.
func TestMovingTime(t *testing.T) {
	s := serve(t, nil)
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	s.post(tokenA, about(`magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {datetime_geq: "-30m"}) { sum { bits } }`), nil)
	if got := s.only().Where.All[0].Values[0]; got != now.Add(-30*time.Minute) {
		t.Errorf("since %v", got)
	}
}

// TestConfidence compares with a table of the normal distribution: 1.6449 deviations for 90 %, 1.9600 for 95 %, 2.5758 for 99 %.
func TestConfidence(t *testing.T) {
	const query = `magicTransitNetworkAnalyticsAdaptiveGroups(limit: 1, filter: {}) { confidence%s { level
		sum { packets { estimate isValid lower upper sampleSize } bits { lower upper } }
		avg { bitRateMinute { lower upper } sampleInterval { isValid } } } }`
	for _, c := range []struct {
		args     string
		level, z float64
	}{{"", 0.95, 1.95996}, {"(level: null)", 0.95, 1.95996}, {"(level: 0.9)", 0.9, 1.64485}, {"(level: 0.99)", 0.99, 2.57583}} {
		s := serve(t, nil)
		s.store.answer = rows(1, 1000)
		_, body := s.post(tokenA, about(fmt.Sprintf(query, c.args)), nil)
		var got struct {
			Data struct {
				Viewer struct {
					Accounts []map[string][]struct {
						Confidence struct {
							Level float64
							Sum   struct {
								Packets, Bits struct {
									Estimate, Lower, Upper, SampleSize float64
									IsValid                            bool
								}
							}
							Avg struct {
								BitRateMinute  struct{ Lower, Upper float64 }
								SampleInterval struct{ IsValid bool }
							}
						}
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err, body)
		}
		x := got.Data.Viewer.Accounts[0]["magicTransitNetworkAnalyticsAdaptiveGroups"][0].Confidence
		p, b, r := x.Sum.Packets, x.Sum.Bits, x.Avg.BitRateMinute
		near := func(what string, got, want float64) {
			if math.Abs(got-want) > 1e-3*math.Abs(want) {
				t.Errorf("%s at %s is %v, want %v", what, c.args, got, want)
			}
		}
		near("level", x.Level, c.level)
		near("lower", p.Lower, p.Estimate-c.z*20) // the fake's variances are 400 and 10,000
		near("upper", p.Upper, p.Estimate+c.z*20)
		near("width of bits", b.Upper-b.Lower, 2*c.z*100)
		near("width of rate", r.Upper-r.Lower, 2*c.z*100/60)
		if !p.IsValid || p.SampleSize != 100 || x.Avg.SampleInterval.IsValid {
			t.Errorf("%s", body)
		}
	}
}

// TestCoverage draws samples of a known number of packets: so often as the level says, the truth lies in the interval.
func TestCoverage(t *testing.T) {
	const packets, every, rounds = 50000, 100, 400
	rnd := rand.New(rand.NewPCG(1, 2))
	i := len(dataset.Packets.Measures) - 1
	places := absent(i + 1)
	places[i] = 0
	hit := 0
	for range rounds {
		seen := 0
		for range packets {
			if rnd.IntN(every) == 0 {
				seen++
			}
		}
		g := store.Group{Measures: []float64{float64(seen * every)}, Rows: uint64(seen), PacketsVariance: float64(seen * every * (every - 1))}
		e, err := row{&asked{shape: magicTransitNetworkAnalytics, measures: places}, &g}.estimates(levelArgs{given{0.9}})
		if err != nil {
			t.Fatal(err)
		}
		if x := e.interval(i); x.Lower <= packets && packets <= x.Upper {
			hit++
		}
	}
	if share := float64(hit) / rounds; math.Abs(share-0.9) > 0.04 {
		t.Errorf("the truth was in %.3f of the intervals, want 0.9", share)
	}
}

// TestExactConfidence: what was counted has no width; few samples make no interval to rely on.
func TestExactConfidence(t *testing.T) {
	s := serve(t, nil)
	_, body := s.post(tokenA, about(`magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {}) {
		confidence { sum { bits { estimate isValid lower upper } } } }`), nil)
	if !strings.Contains(body, `{"estimate":327680,"isValid":true,"lower":327680,"upper":327680}`) {
		t.Error(body)
	}
	for rows, valid := range map[uint64]bool{minSamples - 1: false, minSamples: true} {
		g := &store.Group{Measures: []float64{3}, Rows: rows, PacketsVariance: 90, BitsVariance: 90}
		e := estimates{row{&asked{shape: magicTransitNetworkAnalytics, measures: make([]int, 32)}, g}, 0.9, 1.6}
		if x := e.interval(0); x.IsValid != valid || x.Lower != 0 {
			t.Errorf("%d samples: %+v", rows, x)
		}
	}
}

// TestNumbers: what JSON has no number for, and what does not fit.
func TestNumbers(t *testing.T) {
	for in, want := range map[float64]number{math.NaN(): 0, math.Inf(1): 0, -3: 0, 2.99: 2, 1 << 53: 1 << 53, 1e30: math.MaxUint64} {
		if got := whole(in); got != want {
			t.Errorf("%v is %d, want %d", in, got, want)
		}
	}
	if b, _ := json.Marshal(single(0.1)); string(b) != "0.1" {
		t.Errorf("a float32 is written %s", b)
	}
}
