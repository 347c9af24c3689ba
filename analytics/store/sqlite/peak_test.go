package sqlite

import (
	"testing"
	"time"

	"causeway/analytics/dataset"
)

// The highest rate of a second is kept when seconds become minutes, and minutes hours.
func TestPeaks(t *testing.T) {
	b := newBench(t, Options{})
	hour := noon.Add(-6 * time.Hour).Truncate(time.Hour)
	for i, packets := range []uint64{10, 50, 20} {
		b.write(oneSecond(hour.Unix()+int64(i), packets))
		b.write(oneSecond(hour.Unix()+600+int64(i), packets/2))
	}
	b.tidy()
	for _, x := range []struct {
		since time.Duration
		want  time.Duration
	}{{12 * time.Hour, time.Minute}, {60 * 24 * time.Hour, time.Hour}} {
		q := since(noon.Add(-x.since), "tunnelName", "direction", "edgePopName")
		q.Measures = append(q.Measures, measure(dataset.Traffic, dataset.Max, "packetRate"))
		a := b.ask(q)
		if a.Resolution != x.want || len(a.Groups) != 1 || a.Groups[0].Measures[0] != 120 || a.Groups[0].Measures[1] != 50 {
			t.Errorf("by %v: %+v, want 120 packets and 50 in a second, by %v", a.Resolution, a.Groups, x.want)
		}
	}
}

// The 95th percentile of 40 seconds is the 38th of their rates, by nearest rank; seconds without a row are rates too.
func TestPercentile(t *testing.T) {
	b := newBench(t, Options{})
	for i := range 40 {
		b.write(oneSecond(noon.Unix()-40+int64(i), uint64(i+1)))
	}
	for span, want := range map[time.Duration]float64{40 * time.Second: 38, 80 * time.Second: 36, 1000 * time.Second: 0} {
		q := since(noon.Add(-span), "tunnelName")
		q.Measures = []dataset.Measure{measure(dataset.Traffic, dataset.P95, "packetRate")}
		if a := b.ask(q); len(a.Groups) != 1 || a.Groups[0].Measures[0] != want {
			t.Errorf("of %v: %+v, want %v", span, a.Groups, want)
		}
	}
}
