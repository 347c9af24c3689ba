package fib

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// epochs is the owner's part of the retire contract: what was freed is recycled after each reader has passed a batch boundary.
type epochs struct {
	readers []atomic.Uint64 // batches that each reader has begun
	waiting []freed
}

type freed struct {
	free func()
	seen []uint64 // what readers were at when it was freed
}

func (e *epochs) retire(free func()) {
	seen := make([]uint64, len(e.readers))
	for i := range e.readers {
		seen[i] = e.readers[i].Load()
	}
	e.waiting = append(e.waiting, freed{free, seen})
}

// collect runs what is due, on the writer's goroutine.
func (e *epochs) collect() {
	for len(e.waiting) > 0 {
		for i, n := range e.waiting[0].seen {
			if e.readers[i].Load() == n {
				return
			}
		}
		e.waiting[0].free()
		e.waiting = e.waiting[1:]
	}
}

// A route's value names the route in its lower bits and counts its replacements in the upper ones.
const routeBits = 12

type family struct {
	cover  netip.Prefix   // always there
	fixed  []netip.Prefix // always there, values change
	coming []netip.Prefix // come and go
}

var families = map[int]family{
	32: {
		prefix("10.0.0.0/8"),
		prefixes("10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/25", "10.200.0.1/32"),
		prefixes("10.1.2.3/32", "10.1.0.0/17", "10.1.2.0/26", "10.64.0.0/10", "10.200.0.0/28", "10.1.3.0/30", "10.1.2.128/26"),
	},
	128: {
		prefix("2001:db8::/32"),
		prefixes("2001:db8:1::/48", "2001:db8:1:2::/64", "2001:db8:ff::/40", "2001:db8:1:2::1/128"),
		prefixes("2001:db8:1::/49", "2001:db8:1:2:3::/80", "2001:db8:1::/47", "2001:db8:1:2::2/127", "2001:db8:ff00:1::/64", "2001:db8:ff00::/44", "2001:db8:7:7::/64"),
	},
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, prefix(s).Masked())
	}
	return p
}

// TestConcurrent: while routes are replaced, come and go, blocks and leaves are split, freed and reused, and the pools grow, each
// lookup gives a route that covers the address, never one shorter than the longest that is always there, and the values of a route
// never go back in time for one reader.
func TestConcurrent(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			fam := families[kind.bits]
			all := append(append([]netip.Prefix{fam.cover}, fam.fixed...), fam.coming...)
			always := 1 + len(fam.fixed)
			e := &epochs{readers: make([]atomic.Uint64, 2)}
			fib := kind.make(e.retire)
			version := Value(0)
			insert := func(i int) {
				if err := fib.Insert(all[i], version<<routeBits|Value(i+1)); err != nil {
					t.Error(err)
				}
			}
			for i := range always {
				insert(i)
			}
			var stop atomic.Bool
			var wg sync.WaitGroup
			for n := range e.readers {
				wg.Go(func() { read(t, fib, all, always, &e.readers[n], &stop) })
			}
			r := rand.New(rand.NewPCG(1, uint64(kind.bits)))
			for deadline, n := time.Now().Add(250*time.Millisecond), 0; time.Now().Before(deadline) && n < 60_000; n++ {
				version = Value(n)
				switch i := r.IntN(len(all)); {
				case i < always || r.IntN(2) == 0:
					insert(i)
				default:
					fib.Delete(all[i])
				}
				if n%50 == 0 { // elsewhere, to make pools grow and blocks move between places
					far := netip.PrefixFrom(farAddr(kind.bits, r.IntN(500)), kind.bits)
					if !fib.Delete(far) {
						_ = fib.Insert(far, 1)
					}
				}
				e.collect()
			}
			stop.Store(true)
			wg.Wait()
			fib.Close()
		})
	}
}

func farAddr(bits, n int) netip.Addr {
	if bits == 32 {
		return addr4(0xc0000000 + uint32(n)<<8)
	}
	return addr6(0x26000000_00000000+uint64(n)<<16, uint64(n))
}

func read(t *testing.T, fib table, all []netip.Prefix, always int, batches *atomic.Uint64, stop *atomic.Bool) {
	var addrs []netip.Addr
	for _, p := range all {
		for _, a := range edges(p) {
			if all[0].Contains(a) {
				addrs = append(addrs, a)
			}
		}
	}
	shortest := make([]int, len(addrs)) // length of the longest route that is always there
	for i, a := range addrs {
		for _, p := range all[:always] {
			if p.Contains(a) {
				shortest[i] = max(shortest[i], p.Bits())
			}
		}
	}
	newest := make([][]Value, len(addrs))
	for i := range newest {
		newest[i] = make([]Value, len(all))
	}
	for !stop.Load() && !t.Failed() {
		batches.Add(1)
		for i, v := range fib.many(addrs) {
			n := int(v&(1<<routeBits-1)) - 1
			if n < 0 || n >= len(all) || !all[n].Contains(addrs[i]) || all[n].Bits() < shortest[i] {
				t.Errorf("%v: got value %#x, which is no route of it", addrs[i], v)
				return
			}
			if v < newest[i][n] {
				t.Errorf("%v: route %v was at %d and is at %d again", addrs[i], all[n], newest[i][n]>>routeBits, v>>routeBits)
			}
			newest[i][n] = v
		}
	}
	batches.Add(1 << 32) // what this reader held up is free now
}

// TestReplaceIsAtomic: a reader of a route that is replaced sees one of its two values and nothing else.
func TestReplaceIsAtomic(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			fib := kind.make(nil) // a replacement frees nothing
			defer fib.Close()
			p := families[kind.bits].fixed[1]
			if err := fib.Insert(p, 1); err != nil {
				t.Fatal(err)
			}
			var stop atomic.Bool
			var wg sync.WaitGroup
			wg.Go(func() {
				for !stop.Load() {
					if v := fib.one(p.Addr()); v != 1 && v != 2 {
						t.Errorf("value %d, want 1 or 2", v)
						return
					}
				}
			})
			for deadline, v := time.Now().Add(30*time.Millisecond), Value(1); time.Now().Before(deadline); v = 3 - v {
				if err := fib.Insert(p, v); err != nil {
					t.Error(err)
				}
			}
			stop.Store(true)
			wg.Wait()
		})
	}
}

// TestDefaultHandsOver: an address that always has a route, now the default and now a longer one, is never without.
func TestDefaultHandsOver(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			e := &epochs{readers: make([]atomic.Uint64, 1)}
			fib := kind.make(e.retire)
			defer fib.Close()
			long := families[kind.bits].fixed[1]
			def := netip.PrefixFrom(long.Addr(), 0)
			insert := func(p netip.Prefix, v Value) {
				if err := fib.Insert(p, v); err != nil {
					t.Error(err)
				}
			}
			insert(def, 1)
			var stop atomic.Bool
			var wg sync.WaitGroup
			wg.Go(func() {
				addrs := slices.Repeat([]netip.Addr{long.Addr()}, 100)
				for !stop.Load() && !t.Failed() {
					e.readers[0].Add(1)
					if v := fib.one(addrs[0]); v != 1 && v != 2 {
						t.Errorf("Lookup: %d, want 1 or 2", v)
					}
					for _, v := range fib.many(addrs) {
						if v != 1 && v != 2 {
							t.Errorf("LookupBatch: %d, want 1 or 2", v)
							break
						}
					}
				}
				e.readers[0].Add(1 << 32)
			})
			for deadline := time.Now().Add(50 * time.Millisecond); time.Now().Before(deadline); e.collect() {
				insert(long, 2)
				fib.Delete(def)
				insert(def, 1)
				fib.Delete(long)
			}
			stop.Store(true)
			wg.Wait()
		})
	}
}

// TestRetire: nothing is reused before the owner lets it, and all of it afterwards.
func TestRetire(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			var held []func()
			fib := kind.make(func(free func()) { held = append(held, free) })
			defer fib.Close()
			tr := fib.inner()
			cycle := func() {
				for i := range 100 {
					if err := fib.Insert(netip.PrefixFrom(farAddr(kind.bits, i), kind.bits), 1); err != nil {
						t.Fatal(err)
					}
				}
				for i := range 100 {
					fib.Delete(netip.PrefixFrom(farAddr(kind.bits, i), kind.bits))
				}
			}
			cycle()
			if len(tr.blocks.free)+len(tr.leaves.free) != 0 || len(held) == 0 {
				t.Fatalf("%d blocks and %d leaves are free, %d retired", len(tr.blocks.free), len(tr.leaves.free), len(held))
			}
			blocks, leaves := tr.blocks.made, tr.leaves.made
			cycle()
			if tr.blocks.made+tr.leaves.made != 2*(blocks+leaves) {
				t.Fatalf("the second time made %d blocks and %d leaves, want as many as before: %d and %d", tr.blocks.made-blocks, tr.leaves.made-leaves, blocks, leaves)
			}
			for _, free := range held {
				free()
			}
			checkEmpty(t, tr)
			blocks, leaves = tr.blocks.made, tr.leaves.made
			cycle()
			if tr.blocks.made != blocks || tr.leaves.made != leaves {
				t.Fatal("freed blocks or leaves were not used again")
			}
		})
	}
}

// TestGroupConcurrent: a flow always has a member, and a member of the old or the new set.
func TestGroupConcurrent(t *testing.T) {
	g := NewGroup(equal(10))
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for h := uint32(0); !stop.Load(); h += 0x9e3779b9 {
			if v := g.Pick(h); v < 1 || v > 10 {
				t.Errorf("picked %d, want 1 to 10", v)
				return
			}
		}
	})
	for i := range 2000 {
		g.Update(equal(1 + i%10))
	}
	stop.Store(true)
	wg.Wait()
}
