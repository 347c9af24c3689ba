package storetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// Minutes makes minutes of so many tunnels, as a week has them: each tunnel has a size of its own, day and night, and noise, so that numbers
// are as hard to compress as real ones. All that a minute carried stands in one of its seconds, for each tunnel and direction: stores make as
// many rows of minutes of that as of sixty seconds. One row in twenty has drops; each tunnel was probed. Sampled minutes have twenty samples a
// second as well. The same minute is the same each time.
func Minutes(n int) func(t int64, sampled bool) *store.Batch {
	second, reasons := Many(n), []string{"no_route", "ttl_expired", "inner_source", "too_big"}
	return func(t int64, sampled bool) *store.Batch {
		b, random := second(t), rand.New(rand.NewPCG(uint64(t), 1))
		for i := range b.Traffic {
			r := &b.Traffic[i]
			size := float64(i%50 + 1)
			r.Time += random.Int64N(60)
			r.Packets = 1 + uint64(600*size*size*daylight(t)*(0.5+random.Float64()))
			r.Bytes = r.Packets * (200 + random.Uint64N(1100))
			if random.IntN(20) == 0 {
				r.Dropped = 1 + random.Uint64N(1000)
				b.Drops = append(b.Drops, store.Drops{Time: r.Time, Account: r.Account, Tunnel: r.Tunnel, Direction: r.Direction,
					Reason: reasons[random.IntN(len(reasons))], Packets: r.Dropped})
			}
			if r.Direction == flow.Ingress {
				b.Health = append(b.Health, probed(t, i, r, random))
			}
		}
		for s := t; sampled && s < t+60; s++ {
			b.Samples = append(b.Samples, Samples(20, s).Samples...)
		}
		return b
	}
}

// daylight is 0.2 at two in the morning and 1 at two in the afternoon.
func daylight(t int64) float64 {
	return 0.6 - 0.4*math.Cos(2*math.Pi*float64(t%86400-7200)/86400)
}

// probed is what sixty probes of a tunnel found; one minute in five hundred was bad.
func probed(t int64, i int, r *store.Traffic, random *rand.Rand) store.Health {
	h := store.Health{Time: t, Account: r.Account, Tunnel: r.Tunnel, Remote: fmt.Sprintf("192.0.2.%d", i%256), State: "healthy", Active: true,
		Probes: 60, RTT: time.Duration(float64(i%100+1)*(1+random.Float64()/10)*1e6) * time.Nanosecond}
	if random.IntN(500) == 0 {
		h.State, h.Lost = "degraded", 1+random.Uint64N(20)
	}
	return h
}

// WeekQuestions are the five commonest ones to a week of Minutes that ends then; each tunnel's hours, which is the largest answer that can be
// had, comes last.
func WeekQuestions(end int64) (out []Question) {
	const hour, day = int64(3600), int64(86400)
	traffic, packets, drops := dataset.Traffic, dataset.Packets, dataset.Drops
	bits := Measure(traffic, dataset.Sum, "bits")
	ask := func(name string, set *dataset.Dataset, account string, since int64, limit int, by []string, measures ...dataset.Measure) *store.Query {
		q := &store.Query{Dataset: set, Account: account, By: Dimensions(set, by...), Measures: measures, Limit: limit,
			Order: []store.Order{{Measure: measures[0], Descending: true}},
			Where: store.Where{All: []store.Where{{Dimension: set.Lookup("datetime"), Op: store.AtLeast, Values: []any{time.Unix(end-since, 0)}}}}}
		out = append(out, Question{name, q})
		return q
	}
	ask("one account by five minutes, a day", traffic, "account-1", day, 10000, []string{"tunnelName", "datetimeFiveMinutes"},
		Measure(traffic, dataset.Avg, "bitRateFiveMinutes"))
	ask("all tunnels by hour, a week", traffic, store.Operator, 7*day, 10000, []string{"datetimeHour"}, bits)
	one := ask("one tunnel by minute, p95 and max, a day", traffic, "account-1", day, 10000, []string{"datetimeMinute"}, bits,
		Measure(traffic, dataset.P95, "bitRate"), Measure(traffic, dataset.Max, "bitRate"))
	one.Where.All = append(one.Where.All, store.Where{Dimension: traffic.Lookup("tunnelName"), Values: []any{"customer-0001-gre"}})
	ask("top sources, an hour of samples", packets, "account-1", hour, 100, []string{"ipSourceAddress"}, Measure(packets, dataset.Sum, "bits"))
	ask("drops by reason, a day", drops, store.Operator, day, 100, []string{"dropReason"}, Measure(drops, dataset.Sum, "packets"))
	ask("each tunnel by hour, a week", traffic, store.Operator, 7*day, 10000, []string{"tunnelName", "datetimeHour"}, bits)
	return out
}
