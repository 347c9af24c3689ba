package graph

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/sqlite"
)

// everything is rows of each table of an account, which names itself wherever there is text; those of tops are of an hour that is over.
func everything(account string, at time.Time) *store.Batch {
	x := &flow.Tunnel{ID: account + "-id", Name: account + "-tunnel", Account: account, Kind: "GRE"}
	b := &store.Batch{Place: store.Place{Node: "edge-1", DataCenter: "ams1"},
		Traffic: []store.Traffic{{Time: at.Unix(), Account: account, Tunnel: x, Direction: flow.Ingress, Packets: 10, Bytes: 1000}},
		Drops:   []store.Drops{{Time: at.Unix(), Account: account, Tunnel: x, Direction: flow.Ingress, Reason: account + "-reason", Packets: 3}},
		Health: []store.Health{{Time: at.Truncate(time.Minute).Unix(), Account: account, Tunnel: x, Remote: account + "-remote", State: "healthy",
			Probes: 1}},
		Attacks: []store.Attack{{ID: account + "-attack", Account: account, Start: at.Unix(), Packets: 5}}}
	s := store.Sample{Account: account, Src: store.Origin{ASName: account + "-network"}}
	s.Time, s.Every, s.Out, s.Length = at, 100, x, 1000
	b.Samples = append(b.Samples, s)
	for _, hour := range []bool{false, true} {
		r := store.Top{Time: at.Add(-90 * time.Minute).Truncate(time.Hour).Unix(), Hour: hour, Account: account, Tunnel: x,
			Direction: flow.Ingress, Samples: 25, Packets: 2500,
			Bytes: 250_000, PacketsVariance: 25 * 100 * 99, BitsVariance: 25 * 100 * 99 * 800 * 800, Sources: 7}
		b.Tops = append(b.Tops, r)
		r.Kind, r.Value, r.PacketsError, r.BytesError = store.TopSourceCountry, account+"-land", 100, 11
		r.Samples, r.Packets = 20, 2000
		b.Tops = append(b.Tops, r)
		r.Value, r.Samples, r.Packets = store.TopOther, 5, 500
		b.Tops = append(b.Tops, r)
	}
	return b
}

// withEverything is a handler over the real store, with rows of two accounts in each table.
func withEverything(t *testing.T) *service {
	t.Helper()
	db, err := sqlite.Open(t.TempDir(), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for _, account := range []string{"acme", "beta"} {
		if err := db.Write(t.Context(), everything(account, time.Now().Add(-30*time.Minute))); err != nil {
			t.Fatal(err)
		}
	}
	return serve(t, func(o *Options) { o.Store = db })
}

// TestAccountsOverStore: of each dataset an account sees its own rows, and nothing that another has written, by whatever filter.
func TestAccountsOverStore(t *testing.T) {
	s := withEverything(t)
	for _, d := range dataset.All {
		var names []string
		for _, x := range d.Dimensions {
			names = append(names, x.Name)
		}
		query, _ := wholeOf(d, names, nil, nil)
		text := "tunnelName"
		if d == dataset.Attacks {
			text = "attackId"
		}
		if d == dataset.Packets {
			text = "egressTunnelName"
		}
		for _, filter := range []string{"", text + `_like: "%"`, `OR: [{` + text + `_like: "beta%"}, {` + text + `_neq: "x' OR 1=1 --"}]`} {
			_, body := s.post(tokenA, about(strings.NewReplacer("limit: 1", "limit: 100", "filter: {}", "filter: {"+filter+"}").Replace(query)), nil)
			if strings.Contains(body, "beta") || !strings.Contains(body, "acme-") || !strings.HasSuffix(body, `"errors":null}`+"\n") {
				t.Errorf("%s, filter %q: %.2000s", d.Name, filter, body)
			}
		}
	}
}

// TestTopTalkers runs the query for top talkers down to the files: values by bits with their intervals of confidence, of minutes and of hours.
func TestTopTalkers(t *testing.T) {
	s := withEverything(t)
	half := math.Sqrt2 * math.Erfinv(0.95)
	for since, resolution := range map[string]int{"-4h": 60, "-100h": 3600} {
		_, body := s.post(tokenA, about(fmt.Sprintf(`magicTransitTopTalkersAdaptiveGroups(limit: 5, orderBy: [sum_packets_DESC],
			filter: {datetime_geq: %q, kind: "sourceCountry"}) { resolution dimensions { value } sum { packets bits samples packetsError bitsError }
			confidence { sum { packets { estimate isValid lower upper sampleSize } samples { isValid lower } packetsError { isValid } } } }`, since)), nil)
		group := func(value string, samples int) string {
			packets := float64(100 * samples)
			width := half * math.Sqrt(25*100*99)
			return fmt.Sprintf(`{"resolution":%d,"dimensions":{"value":%q},
				"sum":{"packets":%v,"bits":2000000,"samples":%d,"packetsError":100,"bitsError":88},
				"confidence":{"sum":{"packets":{"estimate":%[3]v,"isValid":true,"lower":%[5]v,"upper":%[6]v,"sampleSize":%[4]d},
				"samples":{"isValid":true,"lower":%[4]d},"packetsError":{"isValid":false}}}}`, resolution, value, packets, samples,
				max(0, packets-width), packets+width)
		}
		same(t, body, `{"data":{"viewer":{"accounts":[{"magicTransitTopTalkersAdaptiveGroups":[`+group("acme-land", 20)+","+group("other", 5)+
			`]}]}},"errors":null}`)
	}
	_, body := s.post(tokenA, about(`magicTransitTopTalkersAdaptiveGroups(limit: 5, filter: {kind: "total"}) { max { distinctSources } sum { packets } }`), nil)
	same(t, body, `{"data":{"viewer":{"accounts":[{"magicTransitTopTalkersAdaptiveGroups":[
		{"max":{"distinctSources":7},"sum":{"packets":2500}}]}]}},"errors":null}`)
	_, body = s.post(tokenA, about(`magicTransitTopTalkersAdaptiveGroups(limit: 5, filter: {kind_neq: "total"}) { sum { packets } }`), nil)
	if !strings.Contains(body, `filter by one kind, for example kind: \"ipSourceAddress\", or ask for the dimension kind`) {
		t.Error(body)
	}
}
