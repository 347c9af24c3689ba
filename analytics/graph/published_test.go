package graph

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// The queries of the product's documentation, restated in magic-transit.md 6.1.
const (
	bandwidth = `query Bandwidth($accountTag: string!, $start: Time!, $end: Time!) {
  viewer {
    accounts(filter: { accountTag: $accountTag }) {
      magicTransitTunnelTrafficAdaptiveGroups(
        limit: 100
        filter: { datetime_geq: $start, datetime_lt: $end, direction: "ingress" }
      ) {
        avg { bitRateFiveMinutes }
        dimensions { tunnelName datetimeFiveMinutes }
      }
    }
  }
}`
	health = `query Health($accountTag: string) {
  viewer {
    accounts(filter: {accountTag: $accountTag}) {
      magicTransitTunnelHealthChecksAdaptiveGroups(
        limit: 100,
        filter: { datetime_geq: "2024-01-01T00:00:00Z", datetime_lt: "2024-01-02T00:00:00Z" }
      ) {
        avg { tunnelState }
        dimensions { tunnelName edgeColoName }
      }
    }
  }
}`
)

var times6 = map[string]any{"accountTag": "acme", "start": "2021-05-12T00:00:00Z", "end": "2021-05-13T00:00:00Z"}

// TestPublishedBandwidth runs the query unchanged: the answer is byte for byte of the documented shape.
func TestPublishedBandwidth(t *testing.T) {
	s := serve(t, nil)
	status, body := s.post(tokenA, bandwidth, times6)
	want := `{"data":{"viewer":{"accounts":[{"magicTransitTunnelTrafficAdaptiveGroups":[{"avg":{"bitRateFiveMinutes":327680},` +
		`"dimensions":{"tunnelName":"tunnelName-0","datetimeFiveMinutes":"2021-05-12T22:00:00Z"}}]}]}},"errors":null}` + "\n"
	if status != 200 || body != want {
		t.Errorf("%d %s\nwant %s", status, body, want)
	}
	d := dataset.Traffic
	compare := func(name string, op store.Op, v any) store.Where {
		return store.Where{Dimension: d.Lookup(name), Op: op, Values: []any{v}}
	}
	wantQuery := &store.Query{
		Dataset: d, Account: "acme", Limit: 100,
		Where: store.Where{All: []store.Where{
			compare("datetime", store.AtLeast, time.Date(2021, 5, 12, 0, 0, 0, 0, time.UTC)),
			compare("datetime", store.Less, time.Date(2021, 5, 13, 0, 0, 0, 0, time.UTC)),
			compare("direction", store.Equal, "ingress"),
		}},
		By:       []*dataset.Dimension{d.Lookup("tunnelName"), d.Lookup("datetimeFiveMinutes")},
		Measures: []dataset.Measure{measureOf(d, dataset.Avg, "bitRateFiveMinutes")},
		Order:    []store.Order{{Dimension: d.Lookup("tunnelName")}, {Dimension: d.Lookup("datetimeFiveMinutes")}},
	}
	if diff := cmp.Diff(wantQuery, s.only()); diff != "" {
		t.Error(diff)
	}
}

func measureOf(d *dataset.Dataset, b dataset.Block, name string) dataset.Measure {
	for _, m := range d.Measures {
		if m.Block == b && m.Name == name {
			return m
		}
	}
	panic("no measure " + name)
}

// TestPublishedHourly is the hourly variant.
func TestPublishedHourly(t *testing.T) {
	s := serve(t, nil)
	query := strings.NewReplacer("bitRateFiveMinutes", "bitRateHour", "datetimeFiveMinutes", "datetimeHour").Replace(bandwidth)
	_, body := s.post(tokenA, query, times6)
	same(t, body, `{"data":{"viewer":{"accounts":[{"magicTransitTunnelTrafficAdaptiveGroups":[
		{"avg":{"bitRateHour":327680},"dimensions":{"datetimeHour":"2021-05-12T22:00:00Z","tunnelName":"tunnelName-0"}}]}]}},"errors":null}`)
	if got := s.only().Measures[0].Seconds; got != 3600 {
		t.Errorf("averaged over %d seconds", got)
	}
}

// TestPublishedHealth has nullable variables in the place of what is required, as the product's own samples do.
func TestPublishedHealth(t *testing.T) {
	s := serve(t, nil)
	s.store.answer = rows(1, 0.5)
	_, body := s.post(tokenA, health, map[string]any{"accountTag": "acme"})
	same(t, body, `{"data":{"viewer":{"accounts":[{"magicTransitTunnelHealthChecksAdaptiveGroups":[
		{"avg":{"tunnelState":0.5},"dimensions":{"tunnelName":"tunnelName-0","edgeColoName":"edgeColoName-0"}}]}]}},"errors":null}`)
}

// TestOwnTypes sends what clients in the wild send: types of GraphQL's own, a filter as a variable, an alias, an order.
func TestOwnTypes(t *testing.T) {
	s := serve(t, nil)
	query := `# String! is no type: "String!"
query Q($accountTag: String!, $filter: AccountMagicTransitNetworkAnalyticsAdaptiveGroupsFilter_InputObject,
    $limit: Int!, $ports: [Int!]!, $since: String!, $level: Float) {
  viewer { accounts(filter: {accountTag: $accountTag}) {
    a: magicTransitNetworkAnalyticsAdaptiveGroups(limit: $limit, filter: $filter, orderBy: [sum_bits_DESC]) {
      sum { bits } confidence(level: $level) { level } }
    b: magicTransitNetworkAnalyticsAdaptiveGroups(limit: 5, filter: {destinationPort_in: $ports, datetime_gt: $since}) { sum { packets } }
  } }
}`
	status, body := s.post(tokenA, query, map[string]any{"accountTag": "acme", "limit": 7, "ports": []int{53, 123}, "since": "2021-01-01T00:00:00+01:00",
		"filter": map[string]any{"destinationAsn": uint32(4294967295), "ipSourceAddress_like": "10.%"}, "level": 0.9})
	same(t, body, `{"data":{"viewer":{"accounts":[{"a":[{"sum":{"bits":327680},"confidence":{"level":0.9}}],
		"b":[{"sum":{"packets":327680}}]}]}},"errors":null}`)
	for _, q := range s.store.asked() {
		switch {
		case q.Limit == 7 && q.Where.All[0].Values[0] == uint64(4294967295) && q.Where.All[1].Op == store.Like:
		case q.Limit == 5 && q.Where.All[1].Values[0] == uint64(53) && q.Where.All[1].Values[1] == uint64(123) && q.Where.All[1].Op == store.In:
		default:
			t.Errorf("%d: asked %+v", status, q)
		}
	}
}
