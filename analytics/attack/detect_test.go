package attack

import (
	"encoding/hex"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// attacks are the vectors, as packets to a victim; the scan's are from one source to everybody's.
var attacks = []struct {
	name   string
	vector Vector
	text   string // of the attack's row
	packet func(w *world, victim netip.Addr) packet
	row    store.Attack // what is common to all packets
}{
	{"SYN, spoofed", SYNFlood, "SYN flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 6, sport: w.port(), dport: 443, flags: flow.SYN, length: 44}
	}, store.Attack{DstPort: 443, Protocol: 6, TCPFlags: flow.SYN}},
	{"SYN, from one", SYNFlood, "SYN flood", func(w *world, v netip.Addr) packet {
		return packet{src: addr("198.51.100.9"), dst: v, protocol: 6, sport: 4444, dport: 80, flags: flow.SYN, length: 44}
	}, store.Attack{Src: "198.51.100.9", SrcPort: 4444, DstPort: 80, Protocol: 6, TCPFlags: flow.SYN}},
	{"SYN-ACK, reflected", SYNACKFlood, "SYN-ACK flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 6, sport: 443, dport: w.port(), flags: flow.SYN | flow.ACK, length: 44}
	}, store.Attack{SrcPort: 443, Protocol: 6, TCPFlags: flow.SYN | flow.ACK}},
	{"ACK", ACKFlood, "ACK flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 6, sport: w.port(), dport: 443, flags: flow.ACK, length: 40}
	}, store.Attack{DstPort: 443, Protocol: 6, TCPFlags: flow.ACK}},
	{"ACK of a botnet", ACKFlood, "ACK flood", func(w *world, v netip.Addr) packet {
		n := w.r.IntN(1000)
		return packet{src: netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)}), dst: v, protocol: 6, sport: 7777, dport: 443,
			flags: flow.PSH | flow.ACK, length: 900}
	}, store.Attack{SrcPort: 7777, DstPort: 443, Protocol: 6, TCPFlags: flow.PSH | flow.ACK}},
	{"RST", RSTFlood, "RST flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 6, sport: 80, dport: w.port(), flags: flow.RST, length: 40}
	}, store.Attack{SrcPort: 80, Protocol: 6, TCPFlags: flow.RST}},
	{"UDP", UDPFlood, "UDP flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, sport: w.port(), dport: 9999, length: 512}
	}, store.Attack{DstPort: 9999, Protocol: 17}},
	{"UDP from port 53, short", UDPFlood, "UDP flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, sport: 53, dport: w.port(), length: 60}
	}, store.Attack{SrcPort: 53, Protocol: 17}},
	{"ICMP", ICMPFlood, "ICMP flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 1, icmp: 8, length: 1000}
	}, store.Attack{Protocol: 1}},
	{"DNS", DNSReflection, "DNS reflection", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, sport: 53, dport: w.port(), length: 1400}
	}, store.Attack{SrcPort: 53, Protocol: 17}},
	{"NTP", Reflection, "NTP reflection", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, sport: 123, dport: 80, length: 468}
	}, store.Attack{SrcPort: 123, DstPort: 80, Protocol: 17}},
	{"memcached", Reflection, "memcached reflection", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, sport: 11211, dport: w.port(), length: 1428}
	}, store.Attack{SrcPort: 11211, Protocol: 17}},
	{"CLDAP", Reflection, "CLDAP reflection", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, sport: 389, dport: w.port(), length: 1500}
	}, store.Attack{SrcPort: 389, Protocol: 17}},
	{"SSDP", Reflection, "SSDP reflection", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, sport: 1900, dport: w.port(), length: 320}
	}, store.Attack{SrcPort: 1900, Protocol: 17}},
	{"fragments", FragmentFlood, "fragment flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, fragment: 1480, more: true, length: 1500}
	}, store.Attack{Protocol: 17}},
	{"GRE at an endpoint", GREFlood, "GRE flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 47, length: 1200, dropped: "tunnel_unknown"}
	}, store.Attack{Protocol: 47}},
	{"ESP at an endpoint", ESPFlood, "ESP flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 50, length: 1200, dropped: "esp_no_sa"}
	}, store.Attack{Protocol: 50}},
	{"ESP in UDP at an endpoint", ESPFlood, "ESP flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 17, sport: 4500, dport: 4500, length: 1200, dropped: "esp_no_sa"}
	}, store.Attack{SrcPort: 4500, DstPort: 4500, Protocol: 17}},
	{"another protocol", OtherFlood, "protocol flood", func(w *world, v netip.Addr) packet {
		return packet{src: w.anyone(), dst: v, protocol: 132, length: 100}
	}, store.Attack{Protocol: 132}},
}

// TestEachVector: at 100,000 packets a second beside clean traffic, of which one in a thousand is sampled, each vector is detected
// within 10 s, by its name and no other, and has ended 30 s after it stops.
func TestEachVector(t *testing.T) {
	for i, a := range attacks {
		for _, oneWay := range []bool{false, true} {
			// A victim without traffic of its own, and one with.
			for _, victim := range []netip.Addr{addr("10.0.0.200"), addr("10.0.0.81")} {
				if testing.Short() && oneWay == (victim == addr("10.0.0.81")) {
					continue
				}
				w := newWorld(uint64(i), 1000, nil)
				w.oneWay = oneWay
				during, after := w.attack(func() {
					w.rate(100_000, func() packet { return a.packet(w, victim) })
				})
				if during > 10 || after > 30 {
					t.Errorf("%s at %v, one way %v: began after %d s, ended after %d s", a.name, victim, oneWay, during, after)
				}
				want := []string{a.vector.String() + " at " + victim.String() + " of acme"}
				if !slices.Equal(w.seen(Started), want) || !slices.Equal(w.seen(Ended), want) {
					t.Errorf("%s at %v, one way %v: started %q, ended %q", a.name, victim, oneWay, w.seen(Started), w.seen(Ended))
					continue
				}
				last := w.events[len(w.events)-1]
				checkRow(t, a.name, last, a.row, a.text)
			}
		}
	}
}

// attack lets clean traffic pass for 20 s, the attack beside it for 30 s, and the clean traffic for 40 s more. It is how many
// seconds passed until the first event, and from the end of the attack until the last one.
func (w *world) attack(traffic func()) (during, after int) {
	during, after = math.MaxInt, math.MaxInt
	for at := range 90 {
		all := w.clean(at)
		if at >= 20 && at < 50 {
			all = append(all, traffic)
		}
		before := len(w.events)
		w.second(all...)
		if len(w.events) > before {
			during = min(during, at-19)
			after = at - 49
		}
	}
	return
}

func checkRow(t *testing.T, name string, e Event, want store.Attack, text string) {
	t.Helper()
	got := e.Attack
	if got.Vector != text || got.Type != e.Vector.Type() || len(got.ID) != 32 {
		t.Errorf("%s: vector %q, type %q, id %q", name, got.Vector, got.Type, got.ID)
	}
	if got.Src != want.Src || got.SrcPort != want.SrcPort || got.DstPort != want.DstPort ||
		got.Protocol != want.Protocol || got.TCPFlags != want.TCPFlags {
		t.Errorf("%s: common are %+v, want %+v", name, got, want)
	}
	// Of 30 s some pass before the attack is known, and of a botnet's packets not all count.
	if got.Packets < 1_500_000 || got.Packets > 3_300_000 || got.Bits < got.Packets*40*8 || got.Bits > got.Packets*1500*8 {
		t.Errorf("%s: %d packets, %d bits", name, got.Packets, got.Bits)
	}
	dropped := e.Vector == GREFlood || e.Vector == ESPFlood
	if dropped != (got.DroppedPackets == got.Packets) || dropped != (got.DroppedBits == got.Bits) {
		t.Errorf("%s: %d of %d packets were dropped, %d of %d bits", name, got.DroppedPackets, got.Packets, got.DroppedBits, got.Bits)
	}
	if start, end := got.Start-1_000_000, got.End-1_000_000; start < 20 || start > 30 || end < 49 || end > 56 {
		t.Errorf("%s: from second %d to second %d, not from 20 to 50", name, start, end)
	}
	if len(e.Sources) == 0 || len(e.Sources) > 16 || len(e.Headers) != 8 {
		t.Errorf("%s: %d sources, %d headers", name, len(e.Sources), len(e.Headers))
	}
	if len(e.Headers) > 0 && flow.Parse(e.Headers[0]).Protocol != want.Protocol {
		t.Errorf("%s: the first header is %s", name, hex.EncodeToString(e.Headers[0]))
	}
}

// TestScan: a source that asks many ports or hosts is told with its address, and nobody that was asked is said to be flooded.
func TestScan(t *testing.T) {
	scanner := addr("192.0.2.66")
	for name, make := range map[string]func(w *world) packet{
		"of hosts": func(w *world) packet {
			return packet{src: scanner, dst: netip.AddrFrom4([4]byte{10, 0, byte(w.r.Uint32()), byte(w.r.Uint32())}), protocol: 6, sport: 55555,
				dport: 22, flags: flow.SYN, length: 44}
		},
		"of hosts and ports": func(w *world) packet {
			return packet{src: scanner, dst: netip.AddrFrom4([4]byte{10, 0, 0, byte(w.r.Uint32())}), protocol: 6, sport: w.port(),
				dport: uint16(w.r.Uint32()), flags: flow.FIN, length: 40}
		},
		"of hosts by ping": func(w *world) packet {
			dst := netip.AddrFrom4([4]byte{10, 0, byte(w.r.Uint32()), byte(w.r.Uint32())})
			return packet{src: scanner, dst: dst, protocol: 1, icmp: 8, length: 28}
		},
		"of ports by UDP": func(w *world) packet {
			return packet{src: scanner, dst: addr("10.0.0.7"), protocol: 17, sport: 40000, dport: uint16(w.r.Uint32()), length: 28}
		},
	} {
		w := newWorld(3, 1000, nil)
		rate := 100_000.0
		if name == "of ports by UDP" {
			rate = 20_000 // more would be a flood as well
		}
		during, after := w.attack(func() { w.rate(rate, func() packet { return make(w) }) })
		if during > 10 || after > 30 || len(w.seen(Started)) != 1 || len(w.seen(Ended)) != 1 {
			t.Errorf("scan %s: began after %d s, ended after %d s, %q", name, during, after, w.seen(Started))
			continue
		}
		if a := w.events[0].Attack; a.Src != scanner.String() || a.Type != "scan" || a.Vector != "port scan" {
			t.Errorf("scan %s: %+v", name, a)
		}
	}
}

// TestScanNamesNoTarget: of the few samples that there are when a slow scan is found, some have the same target by chance. It is not what all
// have in common.
func TestScanNamesNoTarget(t *testing.T) {
	for seed := range uint64(30) {
		w := newWorld(seed, 1000, nil)
		for range 10 {
			w.second(func() {
				w.rate(8000, func() packet {
					return packet{src: addr("192.0.2.66"), dst: netip.AddrFrom4([4]byte{10, 0, 0, byte(w.r.Uint32())}), protocol: 6, sport: 55555,
						dport: uint16(w.r.Uint32()), flags: flow.SYN, length: 44}
				})
			})
		}
		if len(w.events) == 0 || w.events[0].Attack.Dst != "" || w.events[0].Attack.DstPort != 0 || w.events[0].Attack.Src != "192.0.2.66" {
			t.Errorf("seed %d: %+v", seed, w.events)
		}
	}
}

// TestJump: ten times of what is normal is told where it is below all thresholds, if there is enough history, and otherwise not.
func TestJump(t *testing.T) {
	victim := addr("10.0.0.99")
	other := func(w *world, rate float64) func() {
		return func() {
			w.rate(rate, func() packet {
				return packet{src: w.anyone(), dst: victim, protocol: 17, sport: w.port(), dport: 5060, length: 400}
			})
		}
	}
	for _, history := range []int{100, 400} {
		w := newWorld(9, 1000, nil)
		w.oneWay = true // what is answered is explained
		for at := range history {
			w.second(append(w.clean(at), other(w, 2000))...)
		}
		for at := range 15 {
			w.second(append(w.clean(history+at), other(w, 25_000))...)
		}
		var want []string
		if history > 300 {
			want = []string{"traffic jump at 10.0.0.99 of acme"}
		}
		if got := w.seen(Started); !slices.Equal(got, want) {
			t.Errorf("after %d s of history: %q", history, got)
		}
		for at := range 40 {
			w.second(append(w.clean(history+15+at), other(w, 2000))...)
		}
		if w.d.Active() != 0 || len(w.seen(Ended)) != len(w.seen(Started)) {
			t.Errorf("after %d s of history: %d jumps go on, %q ended", history, w.d.Active(), w.seen(Ended))
		}
	}
}

// TestAccounts: the same private address of two accounts is two targets, and what one account has explains nothing of another's.
func TestAccounts(t *testing.T) {
	victim := addr("10.0.0.80")
	flood := func(w *world) func() {
		return func() { w.rate(20_000, func() packet { return attacks[0].packet(w, victim) }) }
	}
	w := newWorld(4, 1000, nil)
	for range 20 {
		w.second(func() { w.account = "acme" }, flood(w), func() { w.account = "umbrella" }, w.crowd(victim, 20_000, 6))
	}
	if got := w.seen(Started); !slices.Equal(got, []string{"SYN flood at 10.0.0.80 of acme"}) {
		t.Fatalf("started %q", got)
	}
	for range 10 {
		w.second(func() { w.account = "acme" }, flood(w), func() { w.account = "umbrella" }, flood(w))
	}
	if got := w.seen(Started); len(got) != 2 || got[1] != "SYN flood at 10.0.0.80 of umbrella" {
		t.Fatalf("started %q", got)
	}
	if w.events[0].Attack.ID == w.events[len(w.events)-1].Attack.ID {
		t.Error("two attacks have the same ID")
	}
}

// TestIPv6: addresses of IPv6 are hosts as well.
func TestIPv6(t *testing.T) {
	victim := addr("2001:db8::80")
	for i, protocol := range map[int]uint8{0: 6, 3: 6, 6: 17, 8: 58} { // floods of SYN, ACK, UDP and ICMP
		w := newWorld(14, 1000, nil)
		for range 10 {
			w.second(func() {
				w.rate(100_000, func() packet {
					p := attacks[i].packet(w, victim)
					p.src, p.protocol = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 8: byte(w.r.Uint32()), 15: byte(w.r.Uint32())}), protocol
					p.length += 40
					return p
				})
			})
		}
		if want := []string{attacks[i].vector.String() + " at 2001:db8::80 of acme"}; !slices.Equal(w.seen(Started), want) {
			t.Errorf("%s: started %q", attacks[i].name, w.seen(Started))
		}
	}
}

// TestFewSamples: however rare samples are, a few of them are no attack, though each stands for as many packets as would be one.
func TestFewSamples(t *testing.T) {
	w := newWorld(5, 1_000_000, nil)
	for range 3600 {
		w.second(func() { w.rate(300_000, func() packet { return attacks[0].packet(w, addr("10.0.0.1")) }) })
	}
	if len(w.events) != 0 {
		t.Errorf("events %q", w.seen(Started))
	}
}

// TestBelowThreshold: a rate just below the threshold raises nothing in ten minutes, at any sampling.
func TestBelowThreshold(t *testing.T) {
	for _, every := range []uint32{1, 100, 1000} {
		threshold := 1000 * float64(min(every, 10))
		w := newWorld(6, every, func(c *Config) { c.Thresholds[SYNFlood] = threshold })
		for range 600 {
			w.second(func() { w.rate(0.9*threshold, func() packet { return attacks[0].packet(w, addr("10.0.0.1")) }) })
		}
		if len(w.events) != 0 {
			t.Errorf("1 in %d: events %q", every, w.seen(Started))
		}
	}
}

// TestBesides: what is legitimate at the same address hides no SYN flood: a backup in one direction or the other, a crowd.
func TestBesides(t *testing.T) {
	victim := addr("10.0.0.5")
	for _, c := range []struct {
		name   string
		beside func(w *world) func()
		rate   float64
	}{
		{"backup to the victim", func(w *world) func() { return w.transfer(victim, 100_000, true) }, 30_000},
		{"backup from the victim", func(w *world) func() { return w.transfer(victim, 100_000, false) }, 30_000},
		{"crowd", func(w *world) func() { return w.crowd(victim, 5_000, 5) }, 60_000},
	} {
		for _, every := range []uint32{100, 1000} {
			w := newWorld(13, every, nil)
			beside := c.beside(w)
			during, after := w.attack(func() {
				beside()
				w.rate(c.rate, func() packet { return attacks[0].packet(w, victim) })
			})
			if want := []string{"SYN flood at 10.0.0.5 of acme"}; during > 10 || after > 30 || !slices.Equal(w.seen(Started), want) {
				t.Errorf("%s, 1 in %d: began after %d s, ended after %d s, %q", c.name, every, during, after, w.seen(Started))
			}
		}
	}
}

// TestPauses: an attack that pauses for ten seconds is one attack; its numbers are told every ten seconds.
func TestPauses(t *testing.T) {
	w := newWorld(7, 100, nil)
	for at := range 60 {
		w.second(func() {
			if at%20 < 10 {
				w.rate(50_000, func() packet { return attacks[0].packet(w, addr("10.0.0.1")) })
			}
		})
	}
	if len(w.seen(Started)) != 1 || len(w.seen(Ended)) != 0 || len(w.seen(Changed)) != 5 || w.d.Active() != 1 {
		t.Errorf("started %d, changed %d, ended %d times, %d go on", len(w.seen(Started)), len(w.seen(Changed)), len(w.seen(Ended)), w.d.Active())
	}
	var last uint64
	for _, e := range w.events {
		if e.Attack.ID != w.events[0].Attack.ID || e.Attack.Packets < last || e.Attack.Start != w.events[0].Attack.Start {
			t.Errorf("event %+v after %+v", e.Attack, w.events[0].Attack)
		}
		last = e.Attack.Packets
	}
}

// TestExactCounts: where samples are lost, exact counts of drops show the flood that the few samples that are there are of.
func TestExactCounts(t *testing.T) {
	for _, c := range []struct {
		reason string
		want   []string
	}{
		{"gre_key", []string{"GRE flood at 192.0.2.1 of acme"}}, {"esp_no_sa", []string{"ESP flood at 192.0.2.1 of acme"}},
		{"esp_no_outbound", nil}, {"no_route", nil},
	} {
		w := newWorld(8, 1000, nil)
		for range 15 {
			w.second(func() {
				w.rate(2000, func() packet {
					return packet{src: w.anyone(), dst: addr("192.0.2.1"), protocol: 47, length: 100, dropped: "gre_key"}
				})
				w.rate(2000, func() packet {
					return packet{src: w.anyone(), dst: addr("192.0.2.1"), protocol: 50, length: 100, dropped: "esp_no_sa"}
				})
				w.d.Count([]store.Drops{{Reason: c.reason, Packets: 50_000}, {Reason: c.reason, Packets: 50_000}})
			})
		}
		if got := w.seen(Started); !slices.Equal(got, c.want) {
			t.Errorf("100,000 drops a second by %s: %q, want %q", c.reason, got, c.want)
		} else if len(got) > 0 && math.Abs(w.events[len(w.events)-1].Rate-100_000) > 10_000 {
			t.Errorf("%.0f packets a second by %s, want 100,000", w.events[len(w.events)-1].Rate, c.reason)
		}
	}
}

// TestOff: a vector without a threshold is not looked for, and what is no packet, or a probe, is not counted.
func TestOff(t *testing.T) {
	w := newWorld(10, 1000, func(c *Config) { c.Thresholds = [Vectors]float64{UDPFlood: 1000} })
	for range 20 {
		w.second(func() { w.rate(100_000, func() packet { return attacks[0].packet(w, addr("10.0.0.1")) }) })
	}
	for range 1000 {
		w.d.Observe(&store.Sample{Sample: flow.Sample{Every: 1000, Header: []byte{1}}})
		p := attacks[6].packet(w, addr("10.0.0.1"))
		w.d.Observe(&store.Sample{Sample: flow.Sample{Every: 1000}, Packet: flow.Parse(p.bytes()), Probe: true})
	}
	w.second()
	w.second()
	if len(w.events) != 0 {
		t.Errorf("events %q", w.seen(Started))
	}
}

// TestClock: a clock that is set back or stands still does not stop detection, and raises nothing.
func TestClock(t *testing.T) {
	w := newWorld(11, 1000, nil)
	for i := range 30 {
		if i == 10 {
			w.now = w.now.Add(-time.Hour)
		}
		w.second(func() { w.rate(5000, func() packet { return attacks[0].packet(w, addr("10.0.0.1")) }) })
		w.d.Tick(w.now) // at once again
	}
	if len(w.events) != 0 {
		t.Errorf("events %q", w.seen(Started))
	}
	w.now = w.now.Add(time.Hour)
	for range 10 {
		w.second(func() { w.rate(100_000, func() packet { return attacks[0].packet(w, addr("10.0.0.1")) }) })
	}
	if len(w.seen(Started)) != 1 {
		t.Errorf("events %q", w.seen(Started))
	}
}

// TestEnd: who stops says so of what goes on, once.
func TestEnd(t *testing.T) {
	w := newWorld(13, 1000, nil)
	for range 10 {
		w.second(func() { w.rate(100_000, func() packet { return attacks[0].packet(w, addr("10.0.0.1")) }) })
	}
	w.d.End(w.now)
	w.d.End(w.now)
	if len(w.seen(Started)) != 1 || len(w.seen(Ended)) != 1 || w.d.Active() != 0 {
		t.Errorf("started %q, ended %q, %d go on", w.seen(Started), w.seen(Ended), w.d.Active())
	}
}

// TestEndsAfterItBegan: whatever the clock does in between.
func TestEndsAfterItBegan(t *testing.T) {
	w := newWorld(14, 1000, nil)
	for i := range 60 {
		if i == 12 {
			w.now = w.now.Add(-time.Hour)
		}
		w.second(func() {
			if i < 20 {
				w.rate(100_000, func() packet { return attacks[0].packet(w, addr("10.0.0.1")) })
			}
		})
	}
	ended := false
	for _, e := range w.events {
		if e.Change == Ended {
			ended = true
			if e.Attack.End < e.Attack.Start {
				t.Errorf("it began at %d and ended at %d", e.Attack.Start, e.Attack.End)
			}
		}
	}
	if !ended {
		t.Error("it did not end")
	}
}

// TestDeterministic: the same samples and seed give the same events.
func TestDeterministic(t *testing.T) {
	run := func() []Event {
		w := newWorld(12, 1000, nil)
		w.attack(func() {
			for i := range 5 {
				w.rate(60_000, func() packet { return attacks[i].packet(w, netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + i)})) })
			}
		})
		return w.events
	}
	if a, b := run(), run(); !reflect.DeepEqual(a, b) || len(a) < 10 {
		t.Errorf("%d and %d events that differ", len(a), len(b))
	}
}
