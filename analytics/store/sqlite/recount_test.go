package sqlite

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/storetest"
	"causeway/analytics/top"
)

// kill ends a store as kill -9 does: what it has written is there, and nothing says that it was closed.
func (b *bench) kill(t *testing.T, dir string) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "lock"), 0); err != nil {
		t.Fatal(err)
	}
}

// talk is samples of three tunnels in a second, with ports, flags, countries and packets that could not be read.
func talk(at time.Time, n int) (out []store.Sample) {
	for i := range n {
		r := store.Sample{Account: "acme", Src: store.Origin{Country: "NL", ASN: uint32(64500 + i%3)}}
		r.Time, r.Every, r.Length = at, 10, 40+100*(i%5)
		r.Packet = flow.Parse([]byte{0x45, 0, 0, 40, 0, byte(i), 0x40, 0, 60, 6, 0, 0, 198, 51, 100, byte(i % 7), 203, 0, 113, byte(i % 2), 1, byte(i % 4), 1, 0xbb,
			0, 0, 0, 1, 0, 0, 0, 1, 0x50, []byte{2, 16, 18}[i%3], 1, 0, 0, 0, 0, 0})
		switch i % 4 {
		case 0:
			r.In = storetest.AcmeA
		case 1:
			r.Out = storetest.AcmeB
		case 2:
			r.In, r.Out = storetest.AcmeA, storetest.AcmeB
		case 3:
			r.Account, r.Packet = "", flow.Parse([]byte{0xff})
		}
		out = append(out, r)
	}
	return out
}

// tops asks for all rows of the most frequent, as text, in the order of the text.
func (b *bench) tops(from time.Time, by string) (out []store.Group) {
	b.t.Helper()
	d := dataset.Tops
	a := b.ask(&store.Query{Dataset: d, Account: store.Operator, Limit: 10_000, By: dims(d, "edgePopName", "tunnelName", "direction", "kind", "value", by),
		Measures: []dataset.Measure{measure(d, dataset.Sum, "packets"), measure(d, dataset.Sum, "bits"), measure(d, dataset.Sum, "samples"),
			measure(d, dataset.Max, "distinctSources")},
		Where: store.Where{Dimension: d.Lookup("datetime"), Op: store.AtLeast, Values: []any{from}}})
	return a.Groups
}

// After a process was killed the lists of its last minutes and hours are those that it would have written; after one that was closed, they are as it
// has written them.
func TestRecount(t *testing.T) {
	hour := noon.Truncate(time.Hour)
	for name, killed := range map[string]time.Time{
		"in a minute": hour.Add(30*time.Minute + 20*time.Second), "in the first minute of an hour": hour.Add(20 * time.Second),
		"after midnight": noon.Truncate(24 * time.Hour).Add(20 * time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			minute := killed.Truncate(time.Minute)
			samples := slices.Concat(talk(minute.Add(-50*time.Second), 400), talk(minute.Add(-20*time.Minute), 300), talk(minute.Add(5*time.Second), 200))
			want := newBench(t, Options{}) // of a process that was not killed
			want.now = killed.Add(2 * time.Hour)
			for _, x := range []interval{{60, 60}, {3600, 3600}} {
				counters := map[int64]*top.Counter{}
				for i := range samples {
					start := samples[i].Time.Unix() / x.length * x.length
					if counters[start] == nil {
						counters[start] = top.New(top.Options{Origins: true, Values: map[bool]int{false: top.OfMinute, true: top.OfHour}[x.hour()]})
					}
					counters[start].Observe(&samples[i])
				}
				for start, c := range counters {
					if x.hour() || start >= minute.Unix()-60 {
						want.write(&store.Batch{Place: places[0], Tops: c.End(start, x.hour())})
					}
				}
			}
			dir := t.TempDir()
			b := openBench(t, dir, Options{})
			b.now = killed
			b.write(&store.Batch{Place: places[0], Samples: samples, Tops: []store.Top{ // a part of what it had to write
				{Time: minute.Unix() - 60, Account: "acme", Tunnel: acmeA, Direction: flow.Egress, Kind: store.TopSourceAddress, Value: "198.51.100.1", Packets: 5, Samples: 1}}})
			b.kill(t, dir)
			b = openBench(t, dir, Options{})
			b.now = killed.Add(time.Second)
			b.opened = b.now.Unix()
			if !b.killed {
				t.Fatal("it is not noticed")
			}
			if err := b.mend(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.now = want.now
			for _, by := range []string{"datetimeMinute", "datetimeHour"} {
				from := killed.Add(-time.Hour)
				if by == "datetimeHour" {
					from = killed.Add(-30 * time.Hour)
				}
				wanted := want.tops(from, by)
				if d := cmp.Diff(wanted, b.tops(from, by)); d != "" || len(wanted) < 40 {
					t.Errorf("%s (-not killed +killed):\n%.3000s", by, d)
				}
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if b = openBench(t, dir, Options{}); b.killed {
				t.Error("it was closed, and seems to have been killed")
			}
		})
	}
}

// What the process that runs may have written of the same interval stays.
func TestRecountLeavesItsOwn(t *testing.T) {
	dir := t.TempDir()
	b := openBench(t, dir, Options{})
	b.now = noon.Add(20 * time.Second)
	b.write(&store.Batch{Place: places[0], Samples: talk(noon.Add(5*time.Second), 100)})
	b.kill(t, dir)
	b = openBench(t, dir, Options{})
	b.opened, b.now = noon.Unix()+30, noon.Add(2*time.Minute) // a machine that stood still
	own := store.Top{Time: noon.Unix(), Account: "acme", Tunnel: acmeA, Direction: flow.Egress, Kind: store.TopSourceAddress, Value: "192.0.2.1", Packets: 7, Samples: 1}
	b.write(&store.Batch{Place: places[0], Tops: []store.Top{own}})
	if err := b.mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.tops(noon, "datetimeMinute"); len(got) != 1 || got[0].Values[4] != "192.0.2.1" {
		t.Errorf("%+v", got)
	}
}
