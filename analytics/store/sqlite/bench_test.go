package sqlite

import (
	"context"
	"testing"
	"time"

	"causeway/analytics/store/storetest"
)

// Rows of exact counts a second, in batches of one second of 1,000 tunnels.
func BenchmarkWriteTraffic(b *testing.B) {
	s, second := newBench(b, Options{}), storetest.Many(1000)
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

// Samples a second, in batches of 1,000, and what each takes on the disk.
func BenchmarkWriteSamples(b *testing.B) {
	s := newBench(b, Options{})
	t, rows := noon.Unix(), 0
	for b.Loop() {
		t++
		if err := s.Write(context.Background(), storetest.Samples(1000, t)); err != nil {
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
	second, from := storetest.Many(1000), noon.Unix()
	for t := from; t < from+3600; t++ {
		batch := second(t)
		batch.Samples = storetest.Samples(20, t).Samples
		if err := s.Write(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		if s.now = time.Unix(t, 0); t%60 == 0 {
			s.tidy()
		}
	}
	s.now = time.Unix(from+3600, 0)
	b.Logf("an hour takes %d MB", s.between(from, from+1)[0].bytes()>>20)
	for _, x := range storetest.Questions(from + 3600) {
		b.Run(x.Name, func(b *testing.B) {
			for b.Loop() {
				if a := s.ask(x.Query); len(a.Groups) == 0 {
					b.Fatal("no groups")
				}
			}
		})
	}
}
