package attack

import (
	"net/netip"
	"slices"
	"testing"

	"causeway/analytics/flow"
)

// explained are kinds of legitimate traffic far above the thresholds of what they look like. Each is kept from being an attack by
// another term of the rules.
var explained = []struct {
	name    string
	oneWay  bool
	traffic func(w *world, at int)
	longer  int // than a minute, in seconds
}{
	{"streams to 10,000 clients: what is acknowledged was sent", false, func(w *world, _ int) {
		client := func() (netip.Addr, uint16) {
			n := w.r.IntN(10_000)
			return netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)}), uint16(2000 + n)
		}
		w.rate(100_000, func() packet {
			a, p := client()
			return packet{src: a, dst: addr("10.0.0.80"), protocol: 6, sport: p, dport: 443, flags: flow.ACK, length: 40}
		})
		w.rate(200_000, func() packet {
			a, p := client()
			return packet{src: addr("10.0.0.80"), dst: a, protocol: 6, sport: 443, dport: p, flags: flow.ACK, length: 1500, out: true}
		})
	}, 0},
	{"a crowd whose answers go another way: SYNs come first", true, func(w *world, _ int) { w.crowd(addr("10.0.0.80"), 15_000, 12)() }, 0},
	{"a resolver's answers, all long: they were asked for", false, func(w *world, _ int) {
		w.rate(60_000, func() packet {
			return packet{src: addr("10.0.0.53"), dst: w.anyone(), protocol: 17, sport: w.port(), dport: 53, length: 70, out: true}
		})
		w.rate(60_000, func() packet {
			return packet{src: w.anyone(), dst: addr("10.0.0.53"), protocol: 17, sport: 53, dport: w.port(), length: 1200}
		})
	}, 0},
	{"a resolver's answers, one of four long: most are short", true, func(w *world, _ int) {
		w.rate(28_000, func() packet {
			return packet{src: w.anyone(), dst: addr("10.0.0.53"), protocol: 17, sport: 53, dport: w.port(), length: 100 + 300*w.r.IntN(4)}
		})
	}, 0},
	{"a fast resolver's answers, all short: they were asked for", false, func(w *world, _ int) {
		w.rate(60_000, func() packet {
			return packet{src: addr("10.0.0.53"), dst: w.anyone(), protocol: 17, sport: w.port(), dport: 53, length: 70, out: true}
		})
		w.rate(60_000, func() packet {
			return packet{src: w.anyone(), dst: addr("10.0.0.53"), protocol: 17, sport: 53, dport: w.port(), length: 200}
		})
	}, 0},
	{"QUIC: it answers", false, func(w *world, _ int) { w.datagrams(addr("10.0.0.44"), 443, 80_000, 1<<20)() }, 0},
	{"a VPN: one flow", true, func(w *world, _ int) { w.datagrams(addr("10.0.0.45"), 51820, 90_000, 1)() }, 0},
	{"a backup: one flow", true, func(w *world, _ int) { w.transfer(addr("10.0.0.5"), 200_000, true)() }, 0},
	{"a game's answers to many clients: a scan by UDP has one target", false, func(w *world, _ int) {
		w.rate(50_000, func() packet {
			return packet{src: addr("10.0.0.27"), dst: w.anyone(), protocol: 17, sport: 27015, dport: w.port(), length: 80, out: true}
		})
	}, 0},
	{"a talk by UDP with changing ports: it is answered", false, func(w *world, _ int) {
		w.rate(20_000, func() packet {
			return packet{src: addr("10.0.0.27"), dst: addr("198.51.100.3"), protocol: 17, sport: 27015, dport: w.port(), length: 80, out: true}
		})
		w.rate(20_000, func() packet {
			return packet{src: addr("198.51.100.3"), dst: addr("10.0.0.27"), protocol: 17, sport: w.port(), dport: 27015, length: 80}
		})
	}, 0},
	{"a crawler: it goes on after its SYNs, and is answered", false, func(w *world, _ int) {
		out := func(rate float64, flags uint8) {
			w.rate(rate, func() packet {
				return packet{src: addr("10.0.0.99"), dst: w.anyone(), protocol: 6, sport: w.port(), dport: 443, flags: flags, length: 52, out: true}
			})
		}
		in := func(rate float64, flags uint8) {
			w.rate(rate, func() packet {
				return packet{src: w.anyone(), dst: addr("10.0.0.99"), protocol: 6, sport: 443, dport: w.port(), flags: flags, length: 1500}
			})
		}
		out(25_000, flow.SYN)
		in(25_000, flow.SYN|flow.ACK)
		in(75_000, flow.ACK)
		out(75_000, flow.ACK)
		in(12_000, flow.RST)
	}, 0},
	{"a client of ten servers that are down: always the same port, refused", false, func(w *world, _ int) {
		server := func() netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(w.r.IntN(10))}) }
		w.rate(20_000, func() packet {
			return packet{src: addr("10.0.0.98"), dst: server(), protocol: 6, sport: w.port(), dport: 8080, flags: flow.SYN, length: 60, out: true}
		})
		w.rate(20_000, func() packet {
			return packet{src: server(), dst: addr("10.0.0.98"), protocol: 6, sport: 8080, dport: w.port(), flags: flow.RST | flow.ACK, length: 40}
		})
	}, 0},
	{"a client of ten servers whose ACKs take another way: it asked", false, func(w *world, _ int) {
		server := func() netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(w.r.IntN(10))}) }
		w.rate(20_000, func() packet {
			return packet{src: addr("10.0.0.98"), dst: server(), protocol: 6, sport: w.port(), dport: 8080, flags: flow.SYN, length: 60, out: true}
		})
		w.rate(25_000, func() packet {
			return packet{src: server(), dst: addr("10.0.0.98"), protocol: 6, sport: 8080, dport: w.port(), flags: flow.SYN | flow.ACK, length: 60}
		})
	}, 0},
	{"a monitor's pings: it asked", false, func(w *world, _ int) {
		host := func() netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(w.r.IntN(20))}) }
		w.rate(20_000, func() packet {
			return packet{src: addr("10.0.0.97"), dst: host(), protocol: 1, icmp: 8, length: 84, out: true}
		})
		w.rate(20_000, func() packet { return packet{src: host(), dst: addr("10.0.0.97"), protocol: 1, icmp: 0, length: 84} })
	}, 0},
	{"NTP, and what else is asked for", false, func(w *world, _ int) {
		w.rate(20_000, func() packet {
			return packet{src: addr("10.0.0.96"), dst: w.anyone(), protocol: 17, sport: 123, dport: 161, length: 76, out: true}
		})
		w.rate(20_000, func() packet {
			return packet{src: w.anyone(), dst: addr("10.0.0.96"), protocol: 17, sport: 161, dport: 123, length: 900}
		})
	}, 0},
	{"another tunnel's ends: both send", false, func(w *world, _ int) {
		a, b := addr("198.51.100.5"), addr("10.0.0.95")
		w.rate(60_000, func() packet { return packet{src: a, dst: b, protocol: 47, length: 1400} })
		w.rate(30_000, func() packet { return packet{src: b, dst: a, protocol: 47, length: 1400, out: true} })
		w.rate(15_000, func() packet { return packet{src: a, dst: b, protocol: 50, fragment: 1400, length: 100} })
		w.rate(15_000, func() packet { return packet{src: b, dst: a, protocol: 50, more: true, length: 1400, out: true} })
	}, 0},
	{"a long stream whose answers go another way: it is as it was", true, func(w *world, at int) {
		rate := 22_000.0
		if at > 250 {
			rate = 38_000
		}
		w.rate(rate, func() packet {
			return packet{src: w.anyone(), dst: addr("10.0.0.80"), protocol: 6, sport: w.port(), dport: 443, flags: flow.ACK, length: 40}
		})
	}, 260},
}

// TestExplained: they raise no alarm, from the first second on.
func TestExplained(t *testing.T) {
	for _, every := range []uint32{1000, 200} {
		if every < 1000 && testing.Short() {
			continue
		}
		for i, e := range explained {
			w := newWorld(uint64(i), every, nil)
			w.oneWay = e.oneWay
			for at := range 60 + e.longer {
				w.second(func() { e.traffic(w, at) })
			}
			if len(w.events) != 0 {
				t.Errorf("%s (1 in %d): %q", e.name, every, w.seen(Started))
			}
		}
	}
}

// TestLong: an attack does not become normal while it goes on.
func TestLong(t *testing.T) {
	w := newWorld(1, 1000, nil)
	for at := range 700 {
		w.second(func() { w.crowd(addr("10.0.0.80"), 500, 5)() }, func() {
			if at >= 100 && at < 600 {
				w.rate(40_000, func() packet { return attacks[0].packet(w, addr("10.0.0.80")) })
			}
		})
	}
	if len(w.seen(Started)) != 1 || len(w.seen(Ended)) != 1 || w.events[len(w.events)-1].Attack.End < 1_000_000+599 {
		t.Errorf("started %q, ended %q", w.seen(Started), w.seen(Ended))
	}
}

// TestForgedExplanations: packets in the victim's name, which are dropped because they do not come from its tunnel, explain nothing;
// neither does what it answers to the attack.
func TestForgedExplanations(t *testing.T) {
	victim := addr("10.0.0.80")
	for name, answer := range map[string]packet{
		"forged":   {src: victim, protocol: 6, flags: flow.ACK, length: 1000, dropped: "inner_source"},
		"SYN-ACKs": {src: victim, protocol: 6, flags: flow.SYN | flow.ACK, length: 60, out: true},
		"RSTs":     {src: victim, protocol: 6, flags: flow.RST, length: 40, out: true},
		"replies":  {src: victim, protocol: 1, length: 84, out: true},
		"errors":   {src: victim, protocol: 1, icmp: 3, length: 84, out: true},
	} {
		for _, i := range []int{0, 3, 6, 8} { // floods of SYN, ACK, UDP and ICMP
			w := newWorld(2, 1000, nil)
			for range 10 {
				w.second(func() {
					w.rate(100_000, func() packet { return attacks[i].packet(w, victim) })
					w.rate(100_000, func() packet {
						p := answer
						p.dst, p.dport = w.anyone(), w.port()
						return p
					})
				})
			}
			if want := []string{attacks[i].vector.String() + " at 10.0.0.80 of acme"}; !slices.Equal(w.seen(Started), want) {
				t.Errorf("%s beside %s: started %q", name, attacks[i].name, w.seen(Started))
			}
		}
	}
}
