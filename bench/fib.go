package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/gaissmai/bart"

	"causeway/pipeline/fib"
	"causeway/pipeline/fib/fibtest"
)

// The fib scenario looks up random covered destinations in a table of BGP's shape, against bart on the same table.
func fibScenario(o options, report func(Result)) error {
	n4, n6 := 1000000, 200000
	if o.quick {
		n4, n6 = 20000, 5000
	}
	if strings.Contains("fib/ipv4", o.only) {
		report(fib4(n4, o.quick))
	}
	if strings.Contains("fib/ipv6", o.only) {
		report(fib6(n6, o.quick))
	}
	return nil
}

const lookups = 1 << 20

// covered makes random addresses inside the prefixes.
func coveredAddrs(prefixes []netip.Prefix, n int) []netip.Addr {
	rng := rand.New(rand.NewPCG(3, 4))
	out := make([]netip.Addr, n)
	for i := range out {
		p := prefixes[rng.IntN(len(prefixes))]
		if p.Addr().Is4() {
			out[i] = hostIn(p, rng)
			continue
		}
		b := p.Addr().As16()
		for k := p.Bits(); k < 128; k++ {
			if rng.Uint32()&1 != 0 {
				b[k/8] |= 0x80 >> (k % 8)
			}
		}
		out[i] = netip.AddrFrom16(b)
	}
	return out
}

func timed(n int, f func()) float64 {
	start := time.Now()
	f()
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}

func fib4(n int, quick bool) Result {
	prefixes := fibtest.SyntheticBGP4(n, 1)
	table, rival := fib.NewTable4(24, nil), new(bart.Fast[uint32])
	defer table.Close()
	start := time.Now()
	for i, p := range prefixes {
		must(table.Insert(p, fib.Value(i%1000+1)))
	}
	updates := float64(n) / time.Since(start).Seconds()
	for i, p := range prefixes {
		rival.Insert(p, uint32(i%1000+1))
	}
	addrs := coveredAddrs(prefixes, lookups)
	words := make([]uint32, len(addrs))
	for i, a := range addrs {
		b := a.As4()
		words[i] = binary.BigEndian.Uint32(b[:])
	}
	out := make([]fib.Value, 64)
	m := rounds(roundCount(quick),
		func() float64 {
			return timed(lookups, func() {
				for i := 0; i < lookups; i += 64 {
					table.LookupBatch(words[i:i+64], out)
				}
			})
		},
		func() float64 { return timed(lookups, func() { lookAll(rival, addrs) }) })
	for i, a := range addrs {
		want, _ := rival.Lookup(a)
		if got := table.Lookup(words[i]); uint32(got) != want {
			panic(fmt.Sprintf("bench: %v leads to %d, bart says %d", a, got, want))
		}
	}
	return Result{Name: fmt.Sprintf("fib/ipv4/routes=%d/batch=64", n), PPS: 1e9 / m.a, NS: m.a, BestNS: m.bestA, Spread: m.spread, Against: "bart.Fast", AgainstNS: m.b,
		Ratio: m.a / m.b, GoalNS: 9, MemoryMiB: float64(table.MemoryBytes()) / (1 << 20), UpdatesSec: updates}
}

func fib6(n int, quick bool) Result {
	prefixes := fibtest.SyntheticBGP6(n, 1)
	table, rival := fib.NewTable6(24, nil), new(bart.Fast[uint32])
	defer table.Close()
	start := time.Now()
	for i, p := range prefixes {
		must(table.Insert(p, fib.Value(i%1000+1)))
	}
	updates := float64(n) / time.Since(start).Seconds()
	for i, p := range prefixes {
		rival.Insert(p, uint32(i%1000+1))
	}
	addrs := coveredAddrs(prefixes, lookups)
	hi, lo := make([]uint64, len(addrs)), make([]uint64, len(addrs))
	for i, a := range addrs {
		b := a.As16()
		hi[i], lo[i] = binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	}
	out := make([]fib.Value, 64)
	m := rounds(roundCount(quick),
		func() float64 {
			return timed(lookups, func() {
				for i := 0; i < lookups; i += 64 {
					table.LookupBatch(hi[i:i+64], lo[i:i+64], out)
				}
			})
		},
		func() float64 { return timed(lookups, func() { lookAll(rival, addrs) }) })
	for i, a := range addrs {
		want, _ := rival.Lookup(a)
		if got := table.Lookup(hi[i], lo[i]); uint32(got) != want {
			panic(fmt.Sprintf("bench: %v leads to %d, bart says %d", a, got, want))
		}
	}
	return Result{Name: fmt.Sprintf("fib/ipv6/routes=%d/batch=64", n), PPS: 1e9 / m.a, NS: m.a, BestNS: m.bestA, Spread: m.spread, Against: "bart.Fast", AgainstNS: m.b,
		Ratio: m.a / m.b, MemoryMiB: float64(table.MemoryBytes()) / (1 << 20), UpdatesSec: updates}
}

func lookAll(t *bart.Fast[uint32], addrs []netip.Addr) {
	for _, a := range addrs {
		if _, ok := t.Lookup(a); !ok {
			panic("bench: a covered address has no route")
		}
	}
}

func roundCount(quick bool) int {
	if quick {
		return 1
	}
	return 7
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
