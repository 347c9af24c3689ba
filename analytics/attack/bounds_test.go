package attack

import (
	"math"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// TestFloodOfAddresses: packets from random sources to random destinations, as many as may be and with any number of samples of
// each, leave the detector within its bounds; and an attack that begins then is found.
func TestFloodOfAddresses(t *testing.T) {
	const hosts, most = 200, 10
	for _, repeat := range []int{1, 3, 20} {
		w := newWorld(uint64(repeat), 1000, func(c *Config) { c.Hosts, c.Attacks = hosts, most })
		victim := addr("192.0.2.200")
		flood := func() {
			w.rate(1_500_000, func() packet {
				// Each address is seen so many times, within a short time.
				src, dst := w.anyone(), w.anyone()
				for range repeat - 1 {
					w.show(packet{src: src, dst: dst, protocol: 17, sport: 99, dport: 99, length: 99, dropped: "no_route"})
				}
				return packet{src: src, dst: dst, protocol: 17, sport: 99, dport: 99, length: 99, dropped: "no_route"}
			})
		}
		for range 10 {
			w.second(flood)
			if n := w.d.Hosts(); n > hosts || n != len(w.d.hosts) {
				t.Fatalf("%d hosts, %d in the map, %d are allowed", n, len(w.d.hosts), hosts)
			}
		}
		before := len(w.events)
		for range 10 {
			w.second(flood, func() { w.rate(100_000, func() packet { return attacks[0].packet(w, victim) }) })
		}
		if got := w.seen(Started)[min(before, len(w.seen(Started))):]; !slices.Contains(got, "SYN flood at 192.0.2.200 of acme") {
			t.Errorf("each address %d times: %q", repeat, got)
		}
	}
}

// TestManyAttacks: beyond the bound attacks are let go, and counted; when others have ended there is room again.
func TestManyAttacks(t *testing.T) {
	w := newWorld(1, 1000, func(c *Config) { c.Attacks = 10 })
	victims := func(from, to int) func() {
		return func() {
			for i := from; i < to; i++ {
				w.rate(100_000, func() packet { return attacks[0].packet(w, netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})) })
			}
		}
	}
	for range 10 {
		w.second(victims(0, 30))
	}
	if len(w.seen(Started)) != 10 || w.d.Active() != 10 || w.d.made != 10 || w.d.Missed() == 0 {
		t.Errorf("%d attacks started, %d go on, with %d pieces of evidence; %d missed", len(w.seen(Started)), w.d.Active(), w.d.made, w.d.Missed())
	}
	for range 25 {
		w.second()
	}
	if w.d.Active() != 0 || len(w.d.spare) != 10 {
		t.Errorf("%d go on, %d spare", w.d.Active(), len(w.d.spare))
	}
	for range 10 {
		w.second(victims(100, 105))
	}
	if w.d.Active() != 5 {
		t.Errorf("%d of 5 new attacks go on", w.d.Active())
	}
}

// TestHostile: whatever the bytes and however much a sample stands for, nothing panics, no rate is not a number, and bounds hold.
func TestHostile(t *testing.T) {
	w := newWorld(3, 1, func(c *Config) {
		c.Hosts, c.Attacks, c.Thresholds = 50, 5, [Vectors]float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
	})
	for at := range 60 {
		everies := []uint32{0, 1, 1000}
		if at%20 == 15 {
			everies[2] = math.MaxUint32
		}
		w.second(func() {
			for range 500 {
				b := make([]byte, w.r.IntN(flow.HeaderLen+1))
				for i := range b {
					b[i] = byte(w.r.Uint32() >> (w.r.Uint32() % 32)) // many small ones
				}
				if len(b) > 20 {
					b[0], b[9] = 0x45+byte(w.r.IntN(2))*0x1b, []byte{1, 6, 17, 47, 50}[w.r.IntN(5)]
					copy(b[12:], []byte{10, 0, 0, b[15] % 4, 10, 0, 0, b[19] % 4})
				}
				verdict := flow.Verdict(w.r.IntN(4))
				sample := flow.Sample{Every: everies[w.r.IntN(3)], Length: w.r.IntN(65536), Header: b, Verdict: verdict}
				w.d.Observe(&store.Sample{Sample: sample, Packet: flow.Parse(b)})
			}
		})
		if w.d.Hosts() > 50 || w.d.Active() > 5 {
			t.Fatalf("%d hosts, %d attacks", w.d.Hosts(), w.d.Active())
		}
	}
	for _, e := range w.events {
		if math.IsNaN(e.Rate) || math.IsInf(e.Rate, 0) || len(e.Attack.ID) != 32 {
			t.Fatalf("event %+v", e)
		}
	}
	if len(w.events) == 0 {
		t.Error("no attack at all")
	}
}

// TestCold: who is silent for a quarter of an hour is given up.
func TestCold(t *testing.T) {
	w := newWorld(2, 1000, nil)
	for range 10 {
		w.second(func() { w.rate(10_000, func() packet { return attacks[6].packet(w, addr("10.0.0.1")) }) })
	}
	if w.d.Hosts() == 0 {
		t.Fatal("no host")
	}
	for range 900 {
		w.second()
	}
	if w.d.Hosts() != 0 {
		t.Errorf("%d hosts", w.d.Hosts())
	}
}

// TestSizes: Config says what hosts and attacks cost.
func TestSizes(t *testing.T) {
	if size := unsafe.Sizeof(host{}); size > 3500 {
		t.Errorf("a host has %d bytes", size)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 100
	for range n {
		kept = append(kept, newEvidence(1))
	}
	runtime.ReadMemStats(&after)
	if size := (after.TotalAlloc - before.TotalAlloc) / n; size > 6000 {
		t.Errorf("evidence has %d bytes", size)
	}
	kept = nil
}

var kept []*evidence

// observed are samples of clean traffic and of an attack, so many of each second.
func observed(w *world) (out []store.Sample) {
	add := func(p packet) {
		b := p.bytes()
		out = append(out, store.Sample{Account: w.account, Sample: flow.Sample{Every: 1000, Length: p.length, Header: b}, Packet: flow.Parse(b)})
	}
	for i := range 4096 {
		add(attacks[i%len(attacks)].packet(w, netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 5)})))
	}
	return
}

func TestObserveAllocates(t *testing.T) {
	w := newWorld(1, 1000, nil)
	samples := observed(w)
	observe := func() {
		for i := range samples {
			w.d.Observe(&samples[i])
		}
	}
	for range 5 {
		w.second(observe)
	}
	if w.d.Active() == 0 {
		t.Fatal("no attack goes on: evidence is not gathered")
	}
	// The sources become hosts, which is no steady state.
	for range 20 {
		observe()
	}
	if n := testing.AllocsPerRun(10, observe); n != 0 {
		t.Errorf("%v allocations for %d samples, want none", n, len(samples))
	}
}

func BenchmarkObserve(b *testing.B) {
	w := newWorld(1, 1000, nil)
	samples := observed(w)
	for range 5 {
		w.second(func() {
			for i := range samples {
				w.d.Observe(&samples[i])
			}
		})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.d.Observe(&samples[i&4095])
	}
}

// BenchmarkTick is with as many hosts as the default allows before it gives up the quietest.
func BenchmarkTick(b *testing.B) {
	w := newWorld(1, 1000, nil)
	for i := range 3500 {
		for range enough {
			w.show(packet{src: addr("192.0.2.1"), dst: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), protocol: 17, length: 100})
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		w.second()
	}
	b.ReportMetric(float64(w.d.Hosts()), "hosts")
}
