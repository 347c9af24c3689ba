package dashboard

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/graph"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// hostile is the name of a tunnel that a page which made HTML of it would run.
const hostile = `<img src=x onerror="document.title='owned'">`

// fakeStore answers from rows that it makes up, the same for the same time: a slow and plain database.
type fakeStore struct {
	now     func() time.Time
	empty   bool
	missing []store.Missing
}

func newFake() *fakeStore { return &fakeStore{now: time.Now} }

// A record is a row of some table.
type record struct {
	t       int64
	account string
	dims    map[string]any
	amounts map[dataset.Value]float64
	every   float64 // of samples
}

var (
	fakeTunnels = []struct {
		name, kind, account, remote string
		rate                        float64 // bit/s of ingress at one node
	}{
		{"acme-paris-1", "GRE", "acme", "203.0.113.10", 180e6}, {"acme-paris-2", "GRE", "acme", "203.0.113.11", 120e6},
		{"acme-london-1", "IPSec", "acme", "203.0.113.20", 65e6}, {hostile, "GRE", "acme", "203.0.113.66", 9e6},
		{"beta-oslo-1", "IPSec", "beta", "2001:db8:7::1", 30e6}, {"beta-oslo-2", "GRE", "beta", "203.0.113.40", 0},
	}
	fakeNodes = []struct{ node, code, city string }{{"fra-1", "FRA", "Frankfurt"}, {"fra-2", "FRA", "Frankfurt"}, {"sin-1", "SIN", "Singapore"}}
)

// tunnelsNow is what the node knows of the tunnels.
func tunnelsNow() (out []graph.Tunnel) {
	for i, f := range fakeTunnels {
		t := graph.Tunnel{TunnelName: graph.Text(f.name), Account: graph.Text(f.account), Kind: graph.Text(f.kind), EdgePopName: "fra-2", Endpoint: "192.0.2.1",
			CustomerEndpoint: graph.Text(f.remote), InterfaceAddress: graph.Text(fmt.Sprintf("10.0.0.%d/31", 2*i)), Prefixes: []graph.Text{"198.51.100.0/24"},
			Mtu: 1476, EffectiveMtu: 1476, RouteState: "ok", IkeSas: []graph.IKESA{}, IkeElsewhere: []graph.Text{}, EspSas: []graph.ESPSA{}}
		if f.name == "acme-london-1" {
			negotiated(&t)
		}
		out = append(out, t)
	}
	return out
}

// negotiated makes a tunnel one of IPsec with all that can be told.
func negotiated(t *graph.Tunnel) {
	t.Mtu, t.EffectiveMtu, t.MssIPv4, t.MssIPv6, t.IpsecPairs = 1436, 1400, 1396, 1376, 1
	t.Health = &graph.TunnelHealth{State: "degraded", Why: "9 of 60 probes lost", FleetState: "healthy", SinceSeconds: 100, Probes: 60, Lost: 9, RttMicroseconds: 12500,
		BfdState: "up"}
	t.IkeFailure = "the peer did not answer"
	t.IkeSas = []graph.IKESA{{State: "established", Role: "responder", Suite: "AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384", LocalAddress: "192.0.2.1:4500",
		PeerAddress: "203.0.113.20:4500", LocalIdentity: "edge.example", PeerIdentity: "router@acme.example", NatPeer: true, AgeSeconds: 3600, RekeyInSeconds: 23 * 3600,
		Pairs: []graph.IPsecPair{{State: "installed", Suite: "AES_GCM_16_256", SpiIn: 0x80000001, SpiOut: 0x1234, AgeSeconds: 1800, RekeyInSeconds: 1800}}}}
	t.EspSas = []graph.ESPSA{{Direction: "in", Encryption: "AES_GCM_16_256", Spi: 0x80000001, Packets: 1200000, Bytes: 840000000, RefusedPackets: 17, Esn: true,
		UdpEncapsulation: true}, {Direction: "out", Encryption: "AES_GCM_16_256", Spi: 0x1234, Packets: 800000, Bytes: 400000000, Esn: true, UdpEncapsulation: true}}
}

// wave varies a rate over time: by the day and by some minutes.
func wave(t int64, seed int) float64 {
	x := float64(t)
	return 1 + 0.35*math.Sin(2*math.Pi*x/86400+float64(seed)) +
		0.15*math.Sin(2*math.Pi*x/1300+1.7*float64(seed)) + 0.08*math.Sin(float64((t/10*7919+int64(seed)*131)%1000))
}

func (f *fakeStore) Groups(_ context.Context, q *store.Query) (*store.Answer, error) {
	if err := query.Check(q); err != nil {
		return nil, err
	}
	now := f.now().Unix()
	span := query.SpanOf(&q.Where).And(query.Span{From: now - 40*86400, To: now})
	step := resolution(q.Dataset.Table, span)
	var rows []record
	if !f.empty && !span.Empty() {
		rows = f.rows(q.Dataset.Table, span, step)
	}
	rows = slices.DeleteFunc(rows, func(r record) bool {
		return q.Account != store.Operator && r.account != q.Account || !holds(&q.Where, &r)
	})
	return &store.Answer{Groups: grouped(q, rows, float64(step)), Resolution: time.Duration(step) * time.Second, Missing: f.missing}, nil
}

// resolution is that of the rows of a table: the older or the longer, the coarser.
func resolution(table dataset.Table, span query.Span) int64 {
	for _, step := range []int64{10, 60, 300, 900} {
		if (span.To-span.From)/step <= 400 && (step >= 60 || table != dataset.HealthTable) {
			return step
		}
	}
	return 3600
}

func (f *fakeStore) rows(table dataset.Table, span query.Span, step int64) (out []record) {
	if table == dataset.AttackTable {
		return f.attacks()
	}
	for t := (span.From + step - 1) / step * step; t < span.To; t += step {
		had := float64(min(step, span.To-t)) // the last one goes on
		switch table {
		case dataset.TrafficTable:
			out = append(out, traffic(t, had)...)
		case dataset.DropsTable:
			out = append(out, drops(t, had)...)
		case dataset.SampleTable:
			out = append(out, samples(t, had)...)
		case dataset.HealthTable:
			out = append(out, health(t)...)
		}
	}
	return out
}

func placed(n int, dims map[string]any) map[string]any {
	node := fakeNodes[n]
	for _, prefix := range []string{"edgeColo", "colo"} {
		dims[prefix+"Code"], dims[prefix+"Name"], dims[prefix+"City"] = node.code, node.code, node.city
	}
	dims["edgePopName"] = node.node
	return dims
}

func traffic(t int64, step float64) (out []record) {
	for i, tunnel := range fakeTunnels {
		for n := range fakeNodes {
			for k, direction := range []string{"ingress", "egress"} {
				bits := math.Round(tunnel.rate * step * wave(t, i+n) / float64(1+3*k))
				if bits == 0 {
					continue
				}
				out = append(out, record{t: t, account: tunnel.account, dims: placed(n, map[string]any{"tunnelName": tunnel.name,
					"direction": direction}),
					amounts: map[dataset.Value]float64{dataset.Bits: bits, dataset.PacketCount: math.Round(bits / 6400),
						dataset.DroppedPackets: math.Round(bits / 6400e3)}})
			}
		}
	}
	return out
}

func drops(t int64, step float64) (out []record) {
	for i, reason := range []string{"inner_ttl_expired", "mtu_exceeded_df", "no_route", "gre_bad_checksum", "esp_replay"} {
		n := i % len(fakeNodes)
		out = append(out, record{t: t, account: "acme", dims: placed(n, map[string]any{"tunnelName": fakeTunnels[i%4].name,
			"direction": "egress", "dropReason": reason}),
			amounts: map[dataset.Value]float64{dataset.PacketCount: math.Round(step * 40 / float64(1+i*i) * wave(t, i))}})
	}
	return out
}

// samples are some of each step; each stands for as many packets as the step has.
func samples(t int64, step float64) (out []record) {
	protocols := []string{"TCP", "TCP", "TCP", "UDP", "TCP", "UDP", "ICMP"}
	for k := range 24 {
		h := int(t/10*2654435761+int64(k)*40503) & 0xffff
		tunnel := fakeTunnels[h%4]
		every := math.Round(1000 * step / 10 * wave(t, k%3))
		length := []float64{60, 1400, 1400, 576}[h/7%4]
		dims := map[string]any{
			"ipSourceAddress": fmt.Sprintf("198.51.100.%d", 1+h*h%97%(40-k)), "ipDestinationAddress": fmt.Sprintf("192.0.2.%d", 1+h%6),
			"ipProtocolName": protocols[h%7], "destinationPort": uint64([]int{443, 443, 80, 53, 22}[h%5]), "sourcePort": uint64(1024 + h%60000),
			"direction": "ingress", "egressTunnelName": tunnel.name, "offRamp": tunnel.kind, "sourceAsnName": []string{"Example Net",
				"=cmd|' /C calc'!A0", hostile}[h%3],
			"verdict": "forwarded", "outcome": "pass", "ipTotalLength": uint64(length), "tcpFlagsString": []string{"ACK", "SYN", "PSH ACK"}[h%3],
			"sampleInterval": uint64(every),
		}
		if h%11 == 0 {
			dims["verdict"], dims["outcome"], dims["dropReason"] = "dropped", "drop", "inner_ttl_expired"
		}
		if h%13 == 0 {
			dims["direction"], dims["egressTunnelName"] = "none", ""
		}
		out = append(out, record{t: t, account: tunnel.account, dims: placed(h%3, dims), every: every,
			amounts: map[dataset.Value]float64{dataset.Bits: 8 * length * every, dataset.PacketCount: every}})
	}
	return out
}

func health(t int64) (out []record) {
	for i, tunnel := range fakeTunnels {
		for n := range fakeNodes {
			state, value, lost := "healthy", 1.0, 0.0
			switch {
			case tunnel.rate == 0:
				state, value, lost = "down", 0, 60
			case i == 2 && n == 1:
				state, value, lost = "degraded", 0.5, 9
			}
			out = append(out, record{t: t, account: tunnel.account,
				dims: placed(n, map[string]any{"tunnelName": tunnel.name, "remoteTunnelIPv4": tunnel.remote, "resultStatus": state,
					"active": uint64(1)}),
				amounts: map[dataset.Value]float64{dataset.TunnelState: value, dataset.Probes: 60, dataset.Lost: lost, dataset.RTT: 9000 * wave(t,
					i) * float64(1+n)}})
		}
	}
	return out
}

func (f *fakeStore) attacks() (out []record) {
	now := f.now().Unix()
	for i, a := range []struct {
		vector, target string
		began, lasted  int64
	}{{"SYN flood", "192.0.2.1", 900, 0}, {"UDP reflection", "192.0.2.4", 2400, 600}, {"SYN flood", "192.0.2.2", 30 * 3600, 1200},
		{"NTP reflection", "192.0.2.5", 20 * 86400, 0}, {"ICMP flood", "192.0.2.6", 20 * 86400, 7200}} {
		dims := map[string]any{"attackId": fmt.Sprintf("attack-%d", i), "attackType": "flood", "attackVector": a.vector,
			"destinationIp": a.target, "destinationPort": uint64(443),
			"sourceIp": "198.51.100.7", "sourcePort": uint64(53), "ipProtocolName": "TCP", "commonTcpFlagsNames": "SYN", "coloCode": "FRA",
			"mitigationType": "none"}
		if a.lasted > 0 {
			dims["endDatetime"] = time.Unix(now-a.began+a.lasted, 0).UTC()
		}
		out = append(out, record{t: now - a.began, account: "acme", dims: dims, amounts: map[dataset.Value]float64{dataset.Bits: 4.2e11,
			dataset.PacketCount: 8.1e8, dataset.DroppedPackets: 12e6}})
	}
	return out
}

// valueOf is the value of a dimension.
func valueOf(d *dataset.Dimension, r *record) any {
	if v, ok := r.dims[d.Name]; ok {
		return v
	}
	switch {
	case d.Nullable:
		return nil
	case d.Bucket > 0:
		return time.Unix(r.t-r.t%d.Bucket, 0).UTC()
	case d.Type == dataset.String:
		return ""
	}
	return uint64(0)
}

func holds(w *store.Where, r *record) bool {
	for i := range w.All {
		if !holds(&w.All[i], r) {
			return false
		}
	}
	if len(w.Any) > 0 && !slices.ContainsFunc(w.Any, func(x store.Where) bool { return holds(&x, r) }) {
		return false
	}
	return w.Dimension == nil || compared(w, valueOf(w.Dimension, r))
}

func compared(w *store.Where, v any) bool {
	in := slices.ContainsFunc(w.Values, func(x any) bool { return order(v, x) == 0 })
	switch w.Op {
	case store.Equal, store.In:
		return in
	case store.Not, store.NotIn:
		return !in
	case store.Greater:
		return order(v, w.Values[0]) > 0
	case store.AtLeast:
		return order(v, w.Values[0]) >= 0
	case store.Less:
		return order(v, w.Values[0]) < 0
	case store.AtMost:
		return order(v, w.Values[0]) <= 0
	}
	like, _ := path.Match(strings.NewReplacer("%", "*", "_", "?").Replace(w.Values[0].(string)), v.(string))
	return like == (w.Op == store.Like)
}

// order compares two values of one dimension; no value has not come yet, and is later than any.
func order(a, b any) int {
	switch x := a.(type) {
	case string:
		return cmp.Compare(x, b.(string))
	case uint64:
		return cmp.Compare(x, b.(uint64))
	case time.Time:
		if b != nil {
			return x.Compare(b.(time.Time))
		}
		return -1
	}
	return 1
}

// grouped adds rows up.
func grouped(q *store.Query, rows []record, step float64) []store.Group {
	members := map[string][]record{}
	var out []store.Group
	var keys []string
	for _, r := range rows {
		var values []any
		for _, d := range q.By {
			values = append(values, valueOf(d, &r))
		}
		key := fmt.Sprintf("%q", values)
		if members[key] == nil {
			keys = append(keys, key)
			out = append(out, store.Group{Values: values})
		}
		members[key] = append(members[key], r)
	}
	for i := range out {
		g := &out[i]
		g.Rows = uint64(len(members[keys[i]]))
		for _, m := range q.Measures {
			g.Measures = append(g.Measures, measured(m, members[keys[i]], step))
		}
		for _, r := range members[keys[i]] {
			g.PacketsVariance += r.every * (r.every - 1)
			g.BitsVariance += r.every * (r.every - 1) * math.Pow(r.amounts[dataset.Bits]/max(1, r.every), 2)
		}
	}
	slices.SortStableFunc(out, func(a, b store.Group) int {
		for _, o := range q.Order {
			var c int
			if o.Dimension != nil {
				i := slices.Index(q.By, o.Dimension)
				c = order(a.Values[i], b.Values[i])
			} else {
				i := slices.Index(q.Measures, o.Measure)
				c = cmp.Compare(a.Measures[i], b.Measures[i])
			}
			if o.Descending {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	return out[:min(len(out), q.Limit)]
}

func measured(m dataset.Measure, rows []record, step float64) float64 {
	var sum, weight float64
	intervals := map[int64]float64{}
	for _, r := range rows {
		sum += r.amounts[m.Value]
		weight++
		intervals[r.t] += r.amounts[m.Value] / step
	}
	rates := slices.Collect(func(yield func(float64) bool) {
		for _, x := range intervals {
			if !yield(x) {
				return
			}
		}
	})
	slices.Sort(rates)
	switch {
	case m.Value == dataset.Rows:
		return weight
	case m.Block == dataset.Max:
		return rates[len(rates)-1]
	case m.Block == dataset.P95:
		return rates[int(math.Ceil(0.95*float64(len(rates))))-1]
	case m.Value == dataset.TunnelState || m.Value == dataset.RTT || m.Value == dataset.SampleInterval:
		return sum / weight
	}
	return sum / float64(max(1, m.Seconds))
}
