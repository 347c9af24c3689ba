package collect

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/pipeline"
)

// topRows are the rows of tops that were written, by what they are of.
func (b *bed) topRows(hour bool, kind store.TopKind) map[string]store.Top {
	out := map[string]store.Top{}
	for _, x := range b.wrote {
		for _, r := range x.Tops {
			if r.Hour == hour && r.Kind == kind {
				name := ""
				if r.Tunnel != nil {
					name = r.Tunnel.Name
				}
				out[fmt.Sprint(r.Time-began, " ", r.Account, " ", name, " ", r.Direction, " ", r.Value)] = r
			}
		}
	}
	return out
}

// Tops are made of all samples, of how few the store ever gets, for each account what it may see, with addresses as they are kept.
func TestTops(t *testing.T) {
	b := newBed(func(o *Options) {
		o.Keep4 = 24
		o.Origin = func(a [16]byte) store.Origin { return store.Origin{ASN: uint32(a[15]), Country: "NL"} }
	})
	b.thin = 1 << 20 // what the store gets of samples
	for range 5 {
		for _, way := range [][2]int32{{-1, 0}, {0, -1}, {0, 1}, {0, 2}, {-1, -1}} {
			b.engine.samples = append(b.engine.samples, packet(way[0], way[1], "192.0.2.9", "198.51.100.77"))
		}
		b.pass(11 * time.Second)
	}
	if n := len(b.topRows(false, store.TopTotal)); n != 0 {
		t.Errorf("%d rows before the minute is over", n)
	}
	b.pass(10 * time.Second)
	slots := []string{"acme acme-1 ingress", "acme acme-1 egress", "acme acme-2 lateral", "globex globex-1 ingress", "  none"}
	for kind, value := range map[store.TopKind]string{store.TopTotal: "", store.TopSourceAddress: "192.0.2.0",
		store.TopDestinationAddress: "198.51.100.0",
		store.TopDestinationPort:    "53", store.TopProtocol: "UDP", store.TopPacketSize: "100",
		store.TopSourceASN: "9", store.TopDestinationCountry: "NL"} {
		rows := b.topRows(false, kind)
		for i, slot := range slots {
			r, want := rows["0 "+slot+" "+value], uint64(5)
			if i == 1 {
				want = 10 // from the one account to the other it left the one
			}
			if r.Samples != want || r.Packets != 10*want || r.Bytes != 1280*want || r.PacketsVariance != float64(90*want) || r.PacketsError != 0 {
				t.Errorf("%s of %s: %+v", kind, slot, r)
			}
		}
		if len(rows) != len(slots) {
			t.Errorf("%s: %d rows: %v", kind, len(rows), rows)
		}
	}
	if n := len(b.rows().Samples); n != 0 {
		t.Errorf("%d samples were kept", n)
	}
}

// Rows come at the ends of minutes and of hours; rows of many tunnels in the course of the next minute, and no batch has very many.
func TestTopsInTime(t *testing.T) {
	b := newBed()
	for i := range 300 {
		b.engine.counters[i] = &pipeline.TunnelCounters{}
		b.tunnels = append(b.tunnels, Tunnel{&flow.Tunnel{ID: fmt.Sprint(i), Name: fmt.Sprint(i), Account: "many", Kind: "GRE"}, i})
	}
	b.pass(time.Second)
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		src := fmt.Sprintf("192.0.2.%d", r.IntN(20))
		b.engine.samples = append(b.engine.samples, packet(-1, int32(r.IntN(300)), src, "198.51.100.77"))
	}
	b.pass(0)
	const hour = 3600 - began%3600
	for range hour + 120 {
		b.pass(time.Second)
	}
	most, samples := 0, [2]uint64{}
	for _, x := range b.wrote {
		most = max(most, len(x.Tops))
		for _, r := range x.Tops {
			at, which := int64(began), 0
			if r.Hour {
				at, which = began-began%3600, 1
			}
			if r.Time != at {
				t.Fatalf("a row of %d: %+v", r.Time-began, r)
			}
			if r.Kind == store.TopTotal {
				samples[which] += r.Samples
			}
		}
	}
	if samples != [2]uint64{20_000, 20_000} || most > topsAtOnce {
		t.Errorf("%d samples in minutes and hours; at most %d rows in a batch", samples, most)
	}
}

// At the end the minute and the hour that have begun are written.
func TestTopsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed()
		b.second = time.Now().Unix()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() { b.Run(ctx); close(done) }()
		b.engine.samples = []pipeline.Sample{packet(-1, 0, "192.0.2.9", "198.51.100.77")}
		time.Sleep(2200 * time.Millisecond)
		stop()
		<-done
		var rows []store.Top
		for _, x := range b.wrote {
			rows = append(rows, x.Tops...)
		}
		rows = slices.DeleteFunc(rows, func(r store.Top) bool { return r.Kind != store.TopTotal })
		if len(rows) != 2 || rows[0].Packets != 10 || rows[0].Hour || !rows[1].Hour || rows[0].Time%60 != 0 || rows[1].Time%3600 != 0 {
			t.Errorf("%+v", rows)
		}
	})
}
