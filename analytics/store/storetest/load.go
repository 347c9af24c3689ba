package storetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/top"
)

// Many is a second of traffic of so many tunnels, in and out.
func Many(n int) func(t int64) *store.Batch {
	var all []*flow.Tunnel
	for i := range n {
		all = append(all, &flow.Tunnel{ID: fmt.Sprintf("%032x", i), Name: fmt.Sprintf("customer-%04d-gre", i), Account: fmt.Sprintf("account-%d",
			i%100), Kind: "GRE"})
	}
	return func(t int64) *store.Batch {
		b := &store.Batch{Place: Places[0]}
		for i, x := range all {
			for _, d := range []flow.Direction{flow.Ingress, flow.Egress} {
				b.Traffic = append(b.Traffic, store.Traffic{Time: t, Account: x.Account, Tunnel: x, Direction: d, Packets: uint64(i)*7 +
					uint64(t%60), Bytes: uint64(i) * 7000})
			}
		}
		return b
	}
}

// Samples are such as a tunnel with many flows has.
func Samples(n int, t int64) *store.Batch {
	b := &store.Batch{Place: Places[0]}
	for i := range n {
		s := store.Sample{Account: "account-1"}
		s.Time, s.Every, s.Out, s.Length = time.Unix(t, 0), 1000, AcmeA, 1500
		s.Packet = flow.Parse([]byte{0x45, 0, 5, 0xdc, byte(i), byte(t), 0x40, 0, 60, 6, 0x12, 0x34, 198, 51, byte(i), byte(t), 203, 0, 113, 7,
			byte(t), byte(i), 1, 0xbb, 1, 2, byte(i), 4, 5, 6, byte(t), 8, 0x50, 0x10, 1, 0xf6, byte(i), byte(t), 0, 0})
		b.Samples = append(b.Samples, s)
	}
	return b
}

// Measure is a dataset's measure by name.
func Measure(set *dataset.Dataset, block dataset.Block, name string) dataset.Measure {
	return set.Measures[slices.IndexFunc(set.Measures, func(m dataset.Measure) bool { return m.Block == block && m.Name == name })]
}

// Dimensions are a dataset's dimensions by name.
func Dimensions(set *dataset.Dataset, names ...string) (out []*dataset.Dimension) {
	for _, n := range names {
		out = append(out, set.Lookup(n))
	}
	return out
}

// A Question is a query by what it asks.
type Question struct {
	Name  string
	Query *store.Query
}

// Questions are the commonest ones, to the hour before end in which Many and Samples were written each second.
func Questions(end int64) (out []Question) {
	traffic, packets := dataset.Traffic, dataset.Packets
	bits := Measure(packets, dataset.Sum, "bits")
	for _, x := range []struct {
		name    string
		set     *dataset.Dataset
		account string
		since   int64
		by      []string
		measure dataset.Measure
		tunnel  string
	}{
		{"one account by five minutes", traffic, "account-1", 3600, []string{"tunnelName", "datetimeFiveMinutes"}, Measure(traffic, dataset.Avg,
			"bitRateFiveMinutes"), ""},
		{"one tunnel by second", traffic, "account-1", 3600, []string{"datetime"}, Measure(traffic, dataset.Avg, "bitRate"), "customer-0001-gre"},
		{"one account p95", traffic, "account-1", 3600, []string{"tunnelName"}, Measure(traffic, dataset.P95, "bitRate"), ""},
		{"all tunnels by minute", traffic, store.Operator, 3600, []string{"datetimeMinute"}, Measure(traffic, dataset.Sum, "bits"), ""},
		{"all tunnels by minute, of minutes", traffic, store.Operator, 4000, []string{"datetimeMinute"}, Measure(traffic, dataset.Sum, "bits"), ""},
		{"one tunnel by minute, of minutes", traffic, "account-1", 4000, []string{"datetimeMinute"}, Measure(traffic, dataset.Sum, "bits"),
			"customer-0001-gre"},
		{"all tunnels p95", traffic, store.Operator, 3600, []string{"tunnelName"}, Measure(traffic, dataset.P95, "bitRate"), ""},
		{"top sources", packets, "account-1", 3600, []string{"ipSourceAddress"}, bits, ""},
		{"top ports of five minutes", packets, "account-1", 300, []string{"destinationPort"}, bits, ""},
	} {
		q := &store.Query{Dataset: x.set, Account: x.account, By: Dimensions(x.set, x.by...), Measures: []dataset.Measure{x.measure}, Limit: 100,
			Order: []store.Order{{Measure: x.measure, Descending: true}},
			Where: store.Where{All: []store.Where{{Dimension: x.set.Lookup("datetime"), Op: store.AtLeast,
				Values: []any{time.Unix(end-x.since, 0)}}}}}
		if x.tunnel != "" {
			q.Where.All = append(q.Where.All, store.Where{Dimension: x.set.Lookup("tunnelName"), Values: []any{x.tunnel}})
		}
		out = append(out, Question{x.name, q})
	}
	return out
}

// Tops is what a minute of so many tunnels has, in and out: of 1,200 samples of each, with addresses, ports, sizes and autonomous systems as
// often as Zipf's law says.
func Tops(n int, t int64) *store.Batch {
	r := rand.New(rand.NewPCG(uint64(t), 1))
	zipf := rand.NewZipf(r, 1.1, 1, 50_000)
	c := top.New(top.Options{Values: top.OfMinute})
	for i := range n {
		x := &flow.Tunnel{ID: fmt.Sprintf("%032x", i), Name: fmt.Sprintf("customer-%04d-gre", i), Account: fmt.Sprintf("account-%d", i%100), Kind: "GRE"}
		for j := range 2400 {
			s := store.Sample{}
			s.Account, s.Every, s.Length = x.Account, 1000, 40+int(zipf.Uint64()%1460)
			if s.In = x; j%2 == 0 {
				s.In, s.Out = nil, x
			}
			h := &s.Packet
			h.Version, h.Protocol, h.TCP.Flags = 4, []uint8{6, 6, 6, 17, 1, 50}[r.IntN(6)], []uint8{16, 16, 24, 2, 18, 17}[r.IntN(6)]
			src, dst := zipf.Uint64(), zipf.Uint64()%254
			h.Src, h.Dst = netip.AddrFrom4([4]byte{198, byte(src >> 16), byte(src >> 8), byte(src)}), netip.AddrFrom4([4]byte{203, 0, 113, byte(dst)})
			h.SrcPort, h.DstPort = uint16(1024+zipf.Uint64()), uint16(zipf.Uint64())
			c.Observe(&s)
		}
	}
	return &store.Batch{Place: Places[0], Tops: c.End(t, false)}
}
