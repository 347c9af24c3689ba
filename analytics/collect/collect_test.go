package collect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/pipeline"
)

// An engine counts what a test says.
type engine struct {
	samples  []pipeline.Sample
	counters map[int]*pipeline.TunnelCounters
	drops    []pipeline.Drop
	lost     uint64
	shift    uint32
}

func (e *engine) Samples(f func(time.Time, *pipeline.Sample)) {
	for i := range e.samples {
		f(time.Now(), &e.samples[i])
	}
	e.samples = nil
}
func (e *engine) TunnelCounters(n int) pipeline.TunnelCounters { return *e.counters[n] }
func (e *engine) TunnelDrops(f func(pipeline.Drop)) uint64 {
	for _, d := range e.drops {
		f(d)
	}
	return 0
}
func (e *engine) Total() pipeline.Counters  { return pipeline.Counters{SamplesLost: e.lost} }
func (e *engine) SetSamplingShift(n uint32) { e.shift = n }

// A bed is a collector whose clock stands still, and what it has written.
type bed struct {
	*Collector
	engine  *engine
	tunnels []Tunnel
	health  []Health
	wrote   []*store.Batch
	refuse  error
	log     bytes.Buffer
	now     time.Time
}

var (
	acme   = &flow.Tunnel{ID: "a", Name: "acme-1", Account: "acme", Kind: "GRE"}
	acme2  = &flow.Tunnel{ID: "b", Name: "acme-2", Account: "acme", Kind: "GRE"}
	globex = &flow.Tunnel{ID: "c", Name: "globex-1", Account: "globex", Kind: "IPSec"}
)

// began is the beginning of a minute: a clock of the day's would cross one in some runs.
const began = 1_800_000_000

func newBed(change ...func(*Options)) *bed {
	b := &bed{engine: &engine{counters: map[int]*pipeline.TunnelCounters{0: {}, 1: {}, 2: {}}}, tunnels: []Tunnel{{acme, 0}, {acme2, 1}, {globex, 2}}}
	o := Options{Engine: b.engine, Tunnels: func() []Tunnel { return b.tunnels }, Health: func() []Health { return b.health },
		Place: store.Place{Node: "edge-1"}, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Write: func(_ context.Context, x *store.Batch) error {
			if b.refuse == nil {
				b.wrote = append(b.wrote, x)
			}
			return b.refuse
		}}
	for _, f := range change {
		f(&o)
	}
	b.Collector = New(o)
	b.second = began
	b.now = time.Unix(b.second, 0)
	b.random = rand.New(rand.NewPCG(1, 2))
	return b
}

// pass lets so much time pass, and writes.
func (b *bed) pass(d time.Duration) {
	b.now = b.now.Add(d)
	b.step(b.now)
	b.write(context.Background())
}

// rows are those of all batches, with what waits.
func (b *bed) rows() (all store.Batch) {
	for _, x := range append(slices.Clone(b.wrote), b.batch) {
		all.Traffic = append(all.Traffic, x.Traffic...)
		all.Drops = append(all.Drops, x.Drops...)
		all.Samples = append(all.Samples, x.Samples...)
		all.Health = append(all.Health, x.Health...)
	}
	return all
}

// Whatever moments the counters are read at, the rows add up to them, each direction for itself.
func TestTrafficAddsUp(t *testing.T) {
	b, rng := newBed(), rand.New(rand.NewPCG(3, 4))
	want := [flow.Lateral + 1]store.Traffic{}
	count := func(d flow.Direction, n, size uint64) {
		want[d].Packets += n
		want[d].Bytes += n * size
	}
	for range 300 {
		n, size := uint64(rng.IntN(1000)), uint64(20+rng.IntN(1400))
		from, to := b.engine.counters[0], b.engine.counters[1]
		switch rng.IntN(3) {
		case 0:
			to.TXPackets, to.TXBytes = to.TXPackets+n, to.TXBytes+n*size
			count(flow.Ingress, n, size)
		case 1:
			from.RXPackets, from.RXBytes = from.RXPackets+n, from.RXBytes+n*size
			count(flow.Egress, n, size)
		case 2: // it came out, and went in; the collector may look before it is known to be lateral
			from.RXPackets, from.RXBytes = from.RXPackets+n, from.RXBytes+n*size
			from.LateralRXPackets, from.LateralRXBytes = from.LateralRXPackets+n, from.LateralRXBytes+n*size
			to.TXPackets, to.TXBytes = to.TXPackets+n, to.TXBytes+n*size
			to.LateralTXPackets, to.LateralTXBytes = to.LateralTXPackets+n, to.LateralTXBytes+n*size
			count(flow.Lateral, n, size)
		}
		b.pass(time.Duration(rng.IntN(2500)) * time.Millisecond)
	}
	b.pass(time.Second)
	got := [flow.Lateral + 1]store.Traffic{}
	for _, r := range b.rows().Traffic {
		got[r.Direction].Packets += r.Packets
		got[r.Direction].Bytes += r.Bytes
		if r.Account != "acme" || r.Tunnel != map[flow.Direction]*flow.Tunnel{flow.Ingress: acme2, flow.Egress: acme, flow.Lateral: acme2}[r.Direction] {
			t.Fatalf("a row of another tunnel: %+v", r)
		}
	}
	for d := flow.Ingress; d <= flow.Lateral; d++ {
		if got[d].Packets != want[d].Packets || got[d].Bytes != want[d].Bytes {
			t.Errorf("%v: %d packets, %d bytes; want %d, %d", d, got[d].Packets, got[d].Bytes, want[d].Packets, want[d].Bytes)
		}
	}
}

// What was counted before the start is nobody's traffic now; a tunnel that gets the number of another begins at zero.
func TestBeginnings(t *testing.T) {
	b := newBed(func(o *Options) {
		*o.Engine.(*engine).counters[0] = pipeline.TunnelCounters{RXPackets: 500, RXBytes: 5000}
		o.Engine.(*engine).drops = []pipeline.Drop{{Tunnel: 0, Reason: pipeline.TooBig, N: 9}}
	})
	b.pass(time.Second)
	if r := b.rows(); len(r.Traffic)+len(r.Drops) != 0 {
		t.Errorf("before the start: %+v", r)
	}
	b.engine.counters[0].RXPackets, b.engine.counters[0].RXBytes = 510, 5100
	moved := *acme
	moved.Account, moved.ID = "globex", "d"
	b.tunnels[0] = Tunnel{&moved, 0} // the same tunnel, of another account from now on
	b.pass(time.Second)
	if r := b.rows().Traffic; len(r) != 1 || r[0].Packets != 10 || r[0].Account != "globex" {
		t.Errorf("another account: %+v", r)
	}
	b.wrote, b.batch = nil, &store.Batch{}
	b.tunnels[0] = Tunnel{globex, 0}
	*b.engine.counters[0] = pipeline.TunnelCounters{RXPackets: 600, RXBytes: 6000}
	b.pass(time.Second)
	if r := b.rows().Traffic; len(r) != 1 || r[0].Packets != 600 || r[0].Account != "globex" {
		t.Errorf("a new tunnel: %+v", r)
	}
	*b.engine.counters[0] = pipeline.TunnelCounters{RXPackets: 7, RXBytes: 70} // taken away and made again
	b.pass(time.Second)
	if r := b.rows().Traffic; len(r) != 2 || r[1].Packets != 7 || r[1].Bytes != 70 {
		t.Errorf("made again: %+v", r)
	}
}

// A reader that was late gives each second its part, and a clock that was set does not make a thousand rows.
func TestLateReader(t *testing.T) {
	b := newBed()
	b.engine.counters[0].RXPackets, b.engine.counters[0].RXBytes = 10, 1001
	b.engine.drops = []pipeline.Drop{{Tunnel: 0, Into: true, Reason: pipeline.TooBig, N: 7}}
	b.pass(3 * time.Second)
	var packets, bytes, drops []uint64
	for i, r := range b.rows().Traffic {
		packets, bytes = append(packets, r.Packets), append(bytes, r.Bytes)
		if r.Time != began+int64(i) {
			t.Errorf("row %d is of second %d", i, r.Time-began)
		}
	}
	for _, r := range b.rows().Drops {
		drops = append(drops, r.Packets)
		if r.Direction != flow.Ingress || r.Reason != "too_big" || r.Account != "acme" {
			t.Errorf("%+v", r)
		}
	}
	if !slices.Equal(packets, []uint64{3, 3, 4}) || !slices.Equal(bytes, []uint64{333, 334, 334}) || !slices.Equal(drops, []uint64{2, 2, 3}) {
		t.Errorf("packets %v, bytes %v, drops %v", packets, bytes, drops)
	}
	for _, jump := range []time.Duration{24 * time.Hour, -48 * time.Hour} {
		n := len(b.rows().Traffic)
		b.pass(jump)
		b.engine.counters[0].RXPackets++
		b.pass(time.Second)
		if r := b.rows().Traffic[n:]; len(r) != 1 || r[0].Time != b.now.Unix()-1 {
			t.Errorf("after a jump of %v: %+v", jump, r)
		}
	}
}

func TestDropRows(t *testing.T) {
	b := newBed()
	b.engine.drops = []pipeline.Drop{{Tunnel: 0, Reason: pipeline.InnerSource, N: 3}, {Tunnel: 0, Reason: pipeline.InnerSource, N: 4}, // of two workers
		{Tunnel: -1, Reason: pipeline.TunnelUnknown, N: 5}, {Tunnel: 77, Reason: pipeline.TooBig, N: 6}}
	b.engine.counters[0].RXDrops = 7
	b.pass(time.Second)
	got := map[string]uint64{}
	for _, r := range b.rows().Drops {
		got[r.Account+"/"+r.Direction.String()+"/"+r.Reason] += r.Packets
	}
	if len(got) != 3 || got["acme/egress/inner_source"] != 7 || got["/none/tunnel_unknown"] != 5 || got["/none/too_big"] != 6 {
		t.Errorf("%v", got)
	}
	if r := b.rows().Traffic; len(r) != 1 || r[0].Dropped != 7 || r[0].Packets != 0 || r[0].Direction != flow.Egress {
		t.Errorf("%+v", r)
	}
}

func TestHealthRows(t *testing.T) {
	b := newBed()
	b.health = []Health{{Tunnel: "acme-1", Remote: "198.51.100.2", State: "healthy", Answered: 10, Lost: 1, RTT: time.Millisecond}}
	b.pass(time.Second)
	b.engine.counters[0].RXPackets = 1
	b.now = b.now.Truncate(time.Minute).Add(time.Minute)
	b.pass(0)
	b.health[0].Answered, b.health[0].Lost, b.health[0].State = 40, 3, "degraded"
	b.pass(time.Minute)
	b.health[0].Answered, b.health[0].Lost = 5, 0 // probed anew
	b.pass(time.Minute)
	r := b.rows().Health
	if len(r) != 3 || r[0].Time%60 != 0 || r[1].Time != r[0].Time+60 || r[0].Account != "acme" || r[0].Remote != "198.51.100.2" {
		t.Fatalf("%+v", r)
	}
	if r[0].Probes != 11 || r[0].Lost != 1 || !r[0].Active || r[1].Probes != 32 || r[1].Lost != 2 || r[1].Active || r[1].State != "degraded" || r[2].Probes != 5 {
		t.Errorf("%+v", r)
	}
}

// packet is a UDP packet as a sample.
func packet(in, out int32, src, dst string) pipeline.Sample {
	s := pipeline.Sample{Every: 10, In: in, Out: out, Length: 128, Size: 128}
	ip := s.Header[:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], 128)
	copy(ip[12:], netip.MustParseAddr(src).AsSlice())
	copy(ip[16:], netip.MustParseAddr(dst).AsSlice())
	binary.BigEndian.PutUint16(ip[22:], 53)
	return s
}

// Each account sees its own: what goes from one to another leaves the one and comes to the other.
func TestSampleRows(t *testing.T) {
	var sunk []flow.Sample
	b := newBed(func(o *Options) {
		o.Keep4 = 24
		o.Sinks = []Sink{func(s *flow.Sample, h *flow.Header) {
			if h.Dst.String() != "198.51.100.77" || h.DstPort != 53 {
				t.Errorf("a sink gets %+v", h)
			}
			sunk = append(sunk, *s)
		}}
		o.Origin = func(a [16]byte) store.Origin { return store.Origin{ASN: uint32(a[15])} }
	})
	for _, way := range [][2]int32{{-1, 0}, {0, -1}, {0, 1}, {0, 2}, {-1, -1}} {
		b.engine.samples = append(b.engine.samples, packet(way[0], way[1], "192.0.2.9", "198.51.100.77"))
	}
	b.engine.samples[4].Verdict, b.engine.samples[4].Reason = pipeline.Dropped, pipeline.NoRoute
	b.engine.samples[0].Probe = true
	b.pass(0)
	var got []string
	for _, r := range b.rows().Samples {
		got = append(got, r.Account+" "+r.Direction().String())
		if r.Packet.Src.String() != "192.0.2.0" || r.Packet.Dst.String() != "198.51.100.0" || r.Src.ASN != 9 || r.Dst.ASN != 77 || r.Every != 10 {
			t.Errorf("%+v", r)
		}
	}
	if want := []string{"acme ingress", "acme egress", "acme lateral", "acme egress", "globex ingress", " none"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if r := b.rows().Samples; !r[0].Probe || r[5].Reason != "no_route" || r[5].Verdict != flow.Dropped || r[3].Out != nil || r[4].In != nil {
		t.Errorf("%+v", r)
	}
	if len(sunk) != 5 || sunk[3].Direction() != flow.Lateral {
		t.Errorf("%d samples sunk", len(sunk))
	}
}

// Of too many samples some stand for the others, without a bias.
func TestThinned(t *testing.T) {
	b := newBed()
	const each, seconds = 10_000, 40
	for range seconds {
		for range each {
			b.engine.samples = append(b.engine.samples, packet(-1, 0, "192.0.2.9", "198.51.100.77"))
		}
		b.pass(time.Second)
	}
	sum, squares := 0.0, 0.0
	rows := b.rows().Samples
	for _, r := range rows {
		sum += float64(r.Every)
		squares += float64(r.Every) * float64(r.Every)
	}
	if want := float64(each * seconds * 10); math.Abs(sum-want) > 4*math.Sqrt(squares) {
		t.Errorf("they stand for %.0f, want %.0f", sum, want)
	}
	if n := len(rows) / seconds; n > 2*samplesPerSecond || b.Stats().Samples != each*seconds || b.Stats().Thinned != uint64(each*seconds-len(rows)) {
		t.Errorf("%d samples a second are kept; %+v", n, b.Stats())
	}
}

// While the rings overflow samples are made rarer, and half a minute after that less rare.
func TestAdapts(t *testing.T) {
	b := newBed()
	for i := range 3 {
		b.engine.lost += 5
		b.pass(time.Second)
		if b.engine.shift != uint32(i+1) || b.Stats().Shift != b.engine.shift {
			t.Errorf("after %d seconds the shift is %d", i+1, b.engine.shift)
		}
	}
	for range 29 {
		b.pass(time.Second)
	}
	if b.engine.shift != 3 {
		t.Errorf("too soon: %d", b.engine.shift)
	}
	b.pass(time.Second)
	if b.engine.shift != 2 {
		t.Errorf("after half a minute the shift is %d", b.engine.shift)
	}
}

// What was counted while nobody looked for long is spread, not a peak.
func TestLongPause(t *testing.T) {
	b := newBed()
	b.engine.counters[0].RXPackets = 70_000
	b.pass(70 * time.Second)
	b.engine.counters[0].RXPackets += 400_000
	b.pass(400 * time.Second)
	sum := uint64(0)
	for _, r := range b.rows().Traffic {
		if sum += r.Packets; r.Packets > 3334 {
			t.Fatalf("%d packets in a second", r.Packets)
		}
	}
	if sum != 470_000 {
		t.Errorf("%d packets", sum)
	}
}

// A store that refuses is told again; what waits is bounded, the loss counted, and the operator told once.
func TestStoreRefuses(t *testing.T) {
	b := newBed()
	b.refuse = errors.New("no space left on device")
	for range 200 {
		b.engine.counters[0].RXPackets++
		b.pass(time.Second)
	}
	if len(b.waiting) != heldSeconds/writeEvery || b.Stats().Unwritten != 100-heldSeconds/writeEvery {
		t.Errorf("%d batches wait, %d are lost", len(b.waiting), b.Stats().Unwritten)
	}
	b.refuse = nil
	b.pass(2 * time.Second)
	if len(b.waiting) != 0 || len(b.rows().Traffic) < heldSeconds {
		t.Errorf("%d batches wait, %d rows", len(b.waiting), len(b.rows().Traffic))
	}
	if log := b.log.String(); strings.Count(log, "cannot be written") != 1 || strings.Count(log, "written again") != 1 || !strings.Contains(log, "no space left") {
		t.Error(log)
	}
}

// Run writes every two seconds, and at the end what is left.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed()
		b.second = time.Now().Unix()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() { b.Run(ctx); close(done) }()
		b.engine.counters[0].RXPackets = 1
		time.Sleep(2200 * time.Millisecond)
		if n := len(b.wrote); n != 1 || len(b.wrote[0].Traffic) != 1 || b.wrote[0].Place.Node != "edge-1" {
			t.Errorf("%d batches", n)
		}
		b.engine.counters[0].RXPackets = 5
		stop()
		<-done
		if r := b.rows().Traffic; len(r) != 2 || r[1].Packets != 4 || len(b.batch.Traffic)+len(b.waiting) > 0 {
			t.Errorf("at the end: %+v", r)
		}
	})
}

// detector remembers what it gets.
type detector struct {
	accounts []string
	whole    bool
	drops    uint64
	ticks    int
}

func (d *detector) Observe(s *store.Sample) {
	d.accounts = append(d.accounts, s.Account)
	d.whole = s.Packet.Src.String() == "192.0.2.9"
}
func (d *detector) Count(rows []store.Drops) {
	for _, r := range rows {
		d.drops += r.Packets
	}
}
func (d *detector) Tick(time.Time) { d.ticks++ }
func (d *detector) End(time.Time)  {}

// A detector gets each sample as each account may see it, with whole addresses, each drop once, and a tick a second; its attacks are written.
func TestDetector(t *testing.T) {
	d := &detector{}
	b := newBed(func(o *Options) { o.Detect, o.Keep4 = d, 8 })
	b.engine.samples = []pipeline.Sample{packet(-1, 0, "192.0.2.9", "198.51.100.77"), packet(0, 2, "192.0.2.9", "198.51.100.77")}
	b.engine.drops = []pipeline.Drop{{Tunnel: -1, Reason: pipeline.TunnelUnknown, N: 5}}
	b.pass(time.Second)
	b.engine.drops[0].N = 8
	b.pass(time.Second)
	if !slices.Equal(d.accounts, []string{"acme", "acme", "globex"}) || !d.whole || d.drops != 8 || d.ticks != 2 {
		t.Errorf("%+v", d)
	}
	b.AddAttack(store.Attack{ID: "x", Src: "192.0.2.9", Dst: "198.51.100.77"})
	b.pass(2 * time.Second)
	if w := b.wrote[len(b.wrote)-1]; len(w.Attacks) != 1 || w.Attacks[0] != (store.Attack{ID: "x", Src: "192.0.0.0", Dst: "198.51.100.77"}) {
		t.Errorf("%+v", w)
	}
}
