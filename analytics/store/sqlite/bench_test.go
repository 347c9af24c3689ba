package sqlite

import (
	"context"
	"fmt"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// many is a second of traffic of so many tunnels, in and out.
func many(n int) func(t int64) *store.Batch {
	var all []*flow.Tunnel
	for i := range n {
		all = append(all, &flow.Tunnel{ID: fmt.Sprintf("%032x", i), Name: fmt.Sprintf("customer-%04d-gre", i), Account: fmt.Sprintf("account-%d",
			i%100), Kind: "GRE"})
	}
	return func(t int64) *store.Batch {
		b := &store.Batch{Place: places[0]}
		for i, x := range all {
			for _, d := range []flow.Direction{flow.Ingress, flow.Egress} {
				b.Traffic = append(b.Traffic, store.Traffic{Time: t, Account: x.Account, Tunnel: x, Direction: d, Packets: uint64(i)*7 +
					uint64(t%60), Bytes: uint64(i) * 7000})
			}
		}
		return b
	}
}

// Rows of exact counts a second, in batches of one second of 1,000 tunnels.
func BenchmarkWriteTraffic(b *testing.B) {
	s, second := newBench(b, Options{}), many(1000)
	t, rows := noon.Unix(), 0
	for b.Loop() {
		t++
		batch := second(t)
		if err := s.Write(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		rows += len(batch.Traffic)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}

// samples are such as a tunnel with many flows has.
func samples(n int, t int64) *store.Batch {
	b := &store.Batch{Place: places[0]}
	for i := range n {
		s := store.Sample{Account: "account-1"}
		s.Time, s.Every, s.Out, s.Length = time.Unix(t, 0), 1000, acmeA, 1500
		s.Packet = flow.Parse([]byte{0x45, 0, 5, 0xdc, byte(i), byte(t), 0x40, 0, 60, 6, 0x12, 0x34, 198, 51, byte(i), byte(t), 203, 0, 113, 7,
			byte(t), byte(i), 1, 0xbb, 1, 2, byte(i), 4, 5, 6, byte(t), 8, 0x50, 0x10, 1, 0xf6, byte(i), byte(t), 0, 0})
		b.Samples = append(b.Samples, s)
	}
	return b
}

// Samples a second, in batches of 1,000, and what each takes on the disk.
func BenchmarkWriteSamples(b *testing.B) {
	s := newBench(b, Options{})
	t, rows := noon.Unix(), 0
	for b.Loop() {
		t++
		if err := s.Write(context.Background(), samples(1000, t)); err != nil {
			b.Fatal(err)
		}
		rows += 1000
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	d := s.between(noon.Unix(), noon.Unix()+1)[0]
	if err := d.shrink(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(d.bytes())/float64(rows), "bytes/row")
}

// The commonest questions, to an hour of 1,000 tunnels in seconds and of samples.
func BenchmarkQueries(b *testing.B) {
	s := newBench(b, Options{})
	second, from := many(1000), noon.Unix()
	for t := from; t < from+3600; t++ {
		batch := second(t)
		batch.Samples = samples(20, t).Samples
		if err := s.Write(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		if s.now = time.Unix(t, 0); t%60 == 0 {
			s.tidy()
		}
	}
	s.now = time.Unix(from+3600, 0)
	b.Logf("an hour takes %d MB", s.between(from, from+1)[0].bytes()>>20)
	traffic, packets := dataset.Traffic, dataset.Packets
	bits := measure(packets, dataset.Sum, "bits")
	for _, x := range []struct {
		name    string
		set     *dataset.Dataset
		account string
		since   int64
		by      []string
		measure dataset.Measure
		tunnel  string
	}{
		{"one account by five minutes", traffic, "account-1", 3600, []string{"tunnelName", "datetimeFiveMinutes"}, measure(traffic, dataset.Avg,
			"bitRateFiveMinutes"), ""},
		{"one tunnel by second", traffic, "account-1", 3600, []string{"datetime"}, measure(traffic, dataset.Avg, "bitRate"), "customer-0001-gre"},
		{"one account p95", traffic, "account-1", 3600, []string{"tunnelName"}, measure(traffic, dataset.P95, "bitRate"), ""},
		{"all tunnels by minute", traffic, store.Operator, 3600, []string{"datetimeMinute"}, measure(traffic, dataset.Sum, "bits"), ""},
		{"all tunnels by minute, of minutes", traffic, store.Operator, 4000, []string{"datetimeMinute"}, measure(traffic, dataset.Sum, "bits"), ""},
		{"one tunnel by minute, of minutes", traffic, "account-1", 4000, []string{"datetimeMinute"}, measure(traffic, dataset.Sum, "bits"),
			"customer-0001-gre"},
		{"all tunnels p95", traffic, store.Operator, 3600, []string{"tunnelName"}, measure(traffic, dataset.P95, "bitRate"), ""},
		{"top sources", packets, "account-1", 3600, []string{"ipSourceAddress"}, bits, ""},
		{"top ports of five minutes", packets, "account-1", 300, []string{"destinationPort"}, bits, ""},
	} {
		q := &store.Query{Dataset: x.set, Account: x.account, By: dims(x.set, x.by...), Measures: []dataset.Measure{x.measure}, Limit: 100,
			Order: []store.Order{{Measure: x.measure, Descending: true}},
			Where: store.Where{All: []store.Where{{Dimension: x.set.Lookup("datetime"), Op: store.AtLeast,
				Values: []any{time.Unix(from+3600-x.since, 0)}}}}}
		if x.tunnel != "" {
			q.Where.All = append(q.Where.All, store.Where{Dimension: x.set.Lookup("tunnelName"), Values: []any{x.tunnel}})
		}
		b.Run(x.name, func(b *testing.B) {
			for b.Loop() {
				if a := s.ask(q); len(a.Groups) == 0 {
					b.Fatal("no groups")
				}
			}
		})
	}
}
