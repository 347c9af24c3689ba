package graph

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/sqlite"
)

// stored is a handler over the real store, with ten seconds of traffic of two accounts.
func stored(t *testing.T, begin time.Time) *service {
	t.Helper()
	db, err := sqlite.Open(t.TempDir(), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	b := &store.Batch{Place: store.Place{Node: "edge-1", DataCenter: "ams1"}}
	for i := range int64(10) {
		for account, bytes := range map[string]uint64{"acme": 1000, "beta": 77} {
			b.Traffic = append(b.Traffic, store.Traffic{Time: begin.Unix() + i, Account: account, Direction: flow.Ingress, Packets: 10, Bytes: bytes,
				Tunnel: &flow.Tunnel{ID: account, Name: "to-" + account, Account: account, Kind: "GRE"}})
		}
	}
	b.Attacks = append(b.Attacks, store.Attack{ID: "a1", Account: "acme", Start: begin.Unix(), Packets: 5})
	if err := db.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return serve(t, func(o *Options) { o.Store = db })
}

// TestPublishedOverStore runs the tutorial's query down to the files: the sums are those that were written, of one account alone.
func TestPublishedOverStore(t *testing.T) {
	begin := time.Now().UTC().Truncate(time.Hour).Add(-time.Hour)
	s := stored(t, begin)
	query := strings.Replace(bandwidth, "avg {", "sum { bits packets } max { bitRate } confidence { sum { bits { lower upper } } } avg {", 1)
	_, body := s.post(tokenA, query, map[string]any{"accountTag": "acme", "start": begin, "end": begin.Add(time.Hour)})
	same(t, body, fmt.Sprintf(`{"data":{"viewer":{"accounts":[{"magicTransitTunnelTrafficAdaptiveGroups":[
		{"avg":{"bitRateFiveMinutes":%d},"sum":{"bits":80000,"packets":100},"max":{"bitRate":8000},
		"confidence":{"sum":{"bits":{"lower":80000,"upper":80000}}},
		"dimensions":{"tunnelName":"to-acme","datetimeFiveMinutes":%q}}]}]}},"errors":null}`, 80000/300, begin.Format(time.RFC3339)))
}

// TestEveryFieldOverStore asks the store for all that the schema has, in all orders at once: it understands everything.
func TestEveryFieldOverStore(t *testing.T) {
	s := stored(t, time.Now().UTC().Add(-time.Minute))
	for _, d := range dataset.All {
		var names, orders []string
		blocks := map[string]map[string]any{}
		for _, x := range d.Dimensions {
			names, orders = append(names, x.Name), append(orders, x.Name+"_DESC")
		}
		for _, m := range d.Measures {
			b := string(m.Block)
			if blocks[b] == nil {
				blocks[b] = map[string]any{}
			}
			blocks[b][m.Name] = 0
			orders = append(orders, strings.TrimPrefix(b+"_"+m.Name+"_ASC", "_"))
		}
		query, _ := wholeOf(d, names, nil, blocks)
		query = strings.Replace(query, "filter: {}", `filter: {datetime_geq: "-1h"}, orderBy: [`+strings.Join(orders, ", ")+"]", 1)
		if d == dataset.Attacks {
			query = strings.Replace(query, "datetime_geq", "startDatetime_geq", 1)
		}
		if _, body := s.post(tokenA, about(query), nil); !strings.HasSuffix(body, `"errors":null}`+"\n") {
			t.Errorf("%s: %.500s", d.Name, body)
		}
	}
}

// TestAttacksUnderWay: those that were under way in a time are those that began before its end and did not end before its beginning; one
// that goes on has no end yet, however long ago it began.
func TestAttacksUnderWay(t *testing.T) {
	db, err := sqlite.Open(t.TempDir(), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	now := time.Now().Unix()
	for _, a := range []store.Attack{{ID: "old", Start: now - 40*86400}, {ID: "over", Start: now - 40*86400, End: now - 7200}, {ID: "ended", Start: now - 5000, End: now - 300},
		{ID: "new", Start: now - 100}} {
		a.Account = "acme"
		if err := db.Write(t.Context(), &store.Batch{Attacks: []store.Attack{a}}); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, func(o *Options) { o.Store = db })
	for filter, want := range map[string]string{
		`startDatetime_lt: "-1s", endDatetime_geq: "-1h"`:    "old ended new",
		`startDatetime_lt: "-10m", endDatetime_geq: "-1h"`:   "old ended",
		`startDatetime_lt: "-1s", endDatetime_gt: "-1m"`:     "old new",
		`startDatetime_geq: "-168h", endDatetime_geq: "-1h"`: "ended new",
		`endDatetime_lt: "-1h"`:                              "over",
		`endDatetime_leq: "-1s"`:                             "over ended",
		`endDatetime: null`:                                  "old over ended new", // as any variable that is left out
	} {
		_, body := s.post(tokenA, about(`dosdAttackAnalyticsGroups(limit: 9, filter: {`+filter+`}, orderBy: [startDatetime_ASC, attackId_ASC]) { attackId }`), nil)
		var list []string
		for _, id := range strings.Fields(want) {
			list = append(list, `{"attackId":"`+id+`"}`)
		}
		same(t, body, `{"data":{"viewer":{"accounts":[{"dosdAttackAnalyticsGroups":[`+strings.Join(list, ",")+`]}]}},"errors":null}`)
	}
}
