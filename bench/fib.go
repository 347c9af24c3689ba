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

// coveredAddrs makes random addresses inside the prefixes.
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

// warmThenTimed runs f, which looks all addresses up, once unseen and then thrice for the time of one look-up. The table
// measured before has pushed this one out of the caches: the first pass would measure how fast it comes back, while a
// node looks into the same table all the time.
func warmThenTimed(f func()) float64 {
	const passes = 3
	f()
	start := time.Now()
	for range passes {
		f()
	}
	return float64(time.Since(start).Nanoseconds()) / (passes * lookups)
}

func fib4(n int, quick bool) Result {
	t := fib.NewTable4(24, nil)
	r := measureFib(t, fibtest.SyntheticBGP4(n, 1), quick, func(addrs []netip.Addr) (func(int, []fib.Value), func(int) fib.Value) {
		words := make([]uint32, len(addrs))
		for i, a := range addrs {
			b := a.As4()
			words[i] = binary.BigEndian.Uint32(b[:])
		}
		return func(i int, out []fib.Value) { t.LookupBatch(words[i:i+len(out)], out) }, func(i int) fib.Value { return t.Lookup(words[i]) }
	})
	r.Name, r.GoalNS = fmt.Sprintf("fib/ipv4/routes=%d/batch=64", n), 9
	return r
}

func fib6(n int, quick bool) Result {
	t := fib.NewTable6(24, nil)
	r := measureFib(t, fibtest.SyntheticBGP6(n, 1), quick, func(addrs []netip.Addr) (func(int, []fib.Value), func(int) fib.Value) {
		hi, lo := make([]uint64, len(addrs)), make([]uint64, len(addrs))
		for i, a := range addrs {
			b := a.As16()
			hi[i], lo[i] = binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
		}
		return func(i int, out []fib.Value) { t.LookupBatch(hi[i:i+len(out)], lo[i:i+len(out)], out) },
			func(i int) fib.Value { return t.Lookup(hi[i], lo[i]) }
	})
	r.Name = fmt.Sprintf("fib/ipv6/routes=%d/batch=64", n)
	return r
}

// A table is what fib.Table4 and fib.Table6 have in common.
type table interface {
	Insert(netip.Prefix, fib.Value) error
	MemoryBytes() int
	Close()
}

// measureFib fills t and bart with the prefixes and looks the same addresses up in both. prepare turns the addresses into
// what t is asked with, and returns its look-up of a batch that begins at an address, and of one address.
func measureFib(t table, prefixes []netip.Prefix, quick bool,
	prepare func([]netip.Addr) (batch func(int, []fib.Value), one func(int) fib.Value)) Result {
	defer t.Close()
	rival := new(bart.Fast[uint32])
	start := time.Now()
	for i, p := range prefixes {
		must(t.Insert(p, fib.Value(i%1000+1)))
	}
	updates := float64(len(prefixes)) / time.Since(start).Seconds()
	for i, p := range prefixes {
		rival.Insert(p, uint32(i%1000+1))
	}
	addrs := coveredAddrs(prefixes, lookups)
	batch, one := prepare(addrs)
	out := make([]fib.Value, 64)
	m := rounds(roundCount(quick),
		func() float64 {
			return warmThenTimed(func() {
				for i := 0; i < lookups; i += len(out) {
					batch(i, out)
				}
			})
		},
		func() float64 { return warmThenTimed(func() { lookAll(rival, addrs) }) })
	for i, a := range addrs {
		want, _ := rival.Lookup(a)
		if got := one(i); uint32(got) != want {
			panic(fmt.Sprintf("bench: %v leads to %d, bart says %d", a, got, want))
		}
	}
	return Result{PPS: 1e9 / m.a, NS: m.a, BestNS: m.bestA, Spread: m.spread, Against: "bart.Fast", AgainstNS: m.b,
		Ratio: m.a / m.b, MemoryMiB: float64(t.MemoryBytes()) / (1 << 20), UpdatesSec: updates}
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
