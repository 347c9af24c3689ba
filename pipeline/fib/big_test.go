package fib

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"causeway/pipeline/fib/fibtest"
)

// compare looks up covered and random addresses, one by one and in batches, in a table and in bart.
func compare(t *testing.T, fib table, want *bart.Table[Value], addrs []netip.Addr) {
	t.Helper()
	got := fib.many(addrs)
	for i, a := range addrs {
		w, _ := want.Lookup(a)
		if got[i] != w || fib.one(a) != w {
			t.Fatalf("%v: Lookup %d, LookupBatch %d, bart %d", a, fib.one(a), got[i], w)
		}
	}
}

// part is what to divide the size of a test by: the race detector makes everything ten to twenty times slower.
func part() int {
	if raceDetector {
		return 20
	}
	return 1
}

// TestInternetTable builds tables of Internet size, compares them with bart, withdraws every other route and compares again.
func TestInternetTable(t *testing.T) {
	part := part()
	n := 100_000 / part
	r := rand.New(rand.NewPCG(3, 4))
	var addrs4, addrs6 []netip.Addr
	for _, a := range fibtest.CoveredAddresses4(table4(), n, 5) {
		addrs4 = append(addrs4, addr4(a), addr4(r.Uint32()))
	}
	hi, lo := fibtest.CoveredAddresses6(table6(), n, 5)
	for i := range hi {
		addrs6 = append(addrs6, addr6(hi[i], lo[i]), addr6(hi[i]^r.Uint64()>>(24+i%40), lo[i]))
	}
	for _, c := range []struct {
		name     string
		fib      table
		prefixes []netip.Prefix
		addrs    []netip.Addr
	}{
		{"v4", NewTable4(24, nil), table4()[:routes4/part], addrs4},
		{"v6", NewTable6(24, nil), table6()[:routes6/part], addrs6},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer c.fib.Close()
			want := new(bart.Table[Value])
			fillTable(t, c.fib.Insert, c.prefixes)
			for i, p := range c.prefixes {
				want.Insert(p, Value(i+1))
			}
			if c.fib.Len() != len(c.prefixes) {
				t.Fatalf("Len %d, want %d", c.fib.Len(), len(c.prefixes))
			}
			compare(t, c.fib, want, c.addrs)
			for i := 0; i < len(c.prefixes); i += 2 {
				c.fib.Delete(c.prefixes[i])
				want.Delete(c.prefixes[i])
			}
			compare(t, c.fib, want, c.addrs)
		})
	}
}

// TestChurn: many inserts, replacements and deletes in a small dense space, with bart as the oracle.
func TestChurn(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			fib, want := kind.make(nil), new(bart.Table[Value])
			defer fib.Close()
			random := func() netip.Addr {
				n := r.Uint64()
				if kind.bits == 32 {
					return addr4(0x0a000000 | uint32(n)&0x00071f3f)
				}
				return addr6(0x20010db8_00000000|n&0x0000_0007_0303_000f, n>>32&0xf000_0000_0000_0003)
			}
			steps := 30_000 / part()
			shortest := map[int]int{32: 12, 128: 33}[kind.bits]
			for i := range steps {
				p := netip.PrefixFrom(random(), kind.bits-r.IntN(kind.bits-shortest+1)).Masked()
				_, there := want.Get(p)
				if r.IntN(5) < 2 != (i/(steps/3) == 1) { // grow, shrink, grow
					if fib.Delete(p) != there {
						t.Fatalf("step %d: Delete(%v), want %v", i, p, there)
					}
					want.Delete(p)
				} else {
					if err := fib.Insert(p, Value(i+1)); err != nil {
						t.Fatal(err)
					}
					want.Insert(p, Value(i+1))
				}
				if i%100 == 0 {
					addrs := edges(p)
					for range 100 {
						addrs = append(addrs, random())
					}
					compare(t, fib, want, addrs)
				}
			}
			for p := range want.All() {
				fib.Delete(p)
			}
			if fib.Len() != 0 {
				t.Fatalf("%d routes left", fib.Len())
			}
			checkEmpty(t, fib.inner())
		})
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	t4, t6 := NewTable4(8, nil), NewTable6(8, nil)
	g := NewGroup(equal(3))
	if t4.Insert(netip.MustParsePrefix("10.1.2.3/32"), 1) != nil || t6.Insert(netip.MustParsePrefix("2001:db8::1/128"), 1) != nil {
		t.Fatal("insert failed")
	}
	addrs, hi, lo, out := make([]uint32, 600), make([]uint64, 600), make([]uint64, 600), make([]Value, 600)
	for i := range addrs {
		addrs[i] = 0x0a010203
		hi[i], lo[i] = halves(netip.MustParseAddr("2001:db8::1"))
	}
	if n := testing.AllocsPerRun(100, func() {
		t4.LookupBatch(addrs, out)
		t6.LookupBatch(hi, lo, out)
		sink = t4.Lookup(addrs[0]) + t6.Lookup(hi[0], lo[0]) + g.Pick(7)
	}); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}

// TestInlined: Pick and the comparison with a leaf are paid per packet; a call would cost as much as their work.
func TestInlined(t *testing.T) {
	out, err := exec.Command("go", "build", "-gcflags=-m", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, f := range []string{"(*Group).Pick", "(*leaf).lookup"} {
		if !strings.Contains(string(out), "can inline "+f) {
			t.Errorf("%s is not inlined any more", f)
		}
	}
}

// TestEmptyTableIsCheap: a large root with a few routes uses a few huge pages, not all of its 64 MiB. Nor does reading make
// pages, where the kernel shows one zero page for all that was never written; not all kernels do that for huge pages.
func TestEmptyTableIsCheap(t *testing.T) {
	before := resident(t)
	fib := NewTable4(24, nil)
	defer fib.Close()
	for _, p := range []string{"0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/24", "192.0.2.1/32"} {
		if err := fib.Insert(netip.MustParsePrefix(p), 1); err != nil {
			t.Fatal(err)
		}
	}
	if grown := resident(t) - before; grown > 20<<20 {
		t.Errorf("4 routes use %d KiB", grown>>10)
	}
	for a := uint32(0); a < 0xff000000; a += 1 << 20 {
		sink += fib.Lookup(a)
	}
	if grown := resident(t) - before; grown > 20<<20 {
		if readingIsFree(t) {
			t.Errorf("4 routes use %d KiB after looking through the table", grown>>10)
		} else {
			t.Logf("this kernel has no huge zero page: %d KiB after looking through the table", grown>>10)
		}
	}
	if n := fib.MemoryBytes(); n < 64<<20 || n > 90<<20 {
		t.Errorf("MemoryBytes %d, want a root of 64 MiB and 16 MiB for the writer", n)
	}
}

// readingIsFree reports whether huge pages that are only read take no memory.
func readingIsFree(t *testing.T) bool {
	m, err := unix.Mmap(-1, 0, 32<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	if err := unix.Madvise(m, unix.MADV_HUGEPAGE); err != nil {
		return true
	}
	before := resident(t)
	for at := 0; at < len(m); at += 1 << 20 {
		sink += Value(m[at])
	}
	return resident(t)-before < 16<<20
}

// resident memory of this process in bytes.
func resident(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
