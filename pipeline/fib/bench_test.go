package fib

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"causeway/pipeline/fib/fibtest"

	"github.com/gaissmai/bart"
)

const (
	routes4   = 1_000_000
	routes6   = 200_000
	addresses = 1 << 20
	batch     = 64 // as the workers have
)

var (
	table4 = sync.OnceValue(func() []netip.Prefix { return fibtest.SyntheticBGP4(routes4, 1) })
	table6 = sync.OnceValue(func() []netip.Prefix { return fibtest.SyntheticBGP6(routes6, 1) })
)

func full4(tb testing.TB, rootBits int) *Table4 {
	t := NewTable4(rootBits, nil)
	tb.Cleanup(t.Close)
	fillTable(tb, t.Insert, table4())
	return t
}

func full6(tb testing.TB, rootBits int) *Table6 {
	t := NewTable6(rootBits, nil)
	tb.Cleanup(t.Close)
	fillTable(tb, t.Insert, table6())
	return t
}

func fillTable(tb testing.TB, insert func(netip.Prefix, Value) error, prefixes []netip.Prefix) {
	for i, p := range prefixes {
		if err := insert(p, Value(i+1)); err != nil {
			tb.Fatal(err)
		}
	}
}

// A bart table is looked up through this, as a worker would have to: from the bytes of the packet.
type bartTable interface {
	Insert(netip.Prefix, Value)
	Lookup(netip.Addr) (Value, bool)
}

func BenchmarkTable4(b *testing.B) {
	addrs := fibtest.CoveredAddresses4(table4(), addresses, 2)
	for _, rootBits := range []int{24, 16} {
		t := full4(b, rootBits)
		name := map[int]string{24: "Root24", 16: "Root16"}[rootBits]
		b.Run("LookupBatch/"+name, func(b *testing.B) {
			var out [batch]Value
			i := 0
			for b.Loop() {
				t.LookupBatch(addrs[i:i+batch], out[:])
				i = (i + batch) & (addresses - 1)
			}
			perAddress(b, batch)
		})
		b.Run("Lookup/"+name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				sink = t.Lookup(addrs[i])
				i = (i + 1) & (addresses - 1)
			}
		})
		b.Run("Update/"+name, func(b *testing.B) { benchUpdate(b, t.Insert, t.Delete, table4()) })
	}
	b.Run("Lookup/bart.Table", func(b *testing.B) { benchBart4(b, new(bart.Table[Value]), addrs) })
	b.Run("Lookup/bart.Fast", func(b *testing.B) { benchBart4(b, new(bart.Fast[Value]), addrs) })
}

func BenchmarkTable6(b *testing.B) {
	hi, lo := fibtest.CoveredAddresses6(table6(), addresses, 2)
	for _, rootBits := range []int{24, 16} {
		t := full6(b, rootBits)
		name := map[int]string{24: "Root24", 16: "Root16"}[rootBits]
		b.Run("LookupBatch/"+name, func(b *testing.B) {
			var out [batch]Value
			i := 0
			for b.Loop() {
				t.LookupBatch(hi[i:i+batch], lo[i:i+batch], out[:])
				i = (i + batch) & (addresses - 1)
			}
			perAddress(b, batch)
		})
		b.Run("Lookup/"+name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				sink = t.Lookup(hi[i], lo[i])
				i = (i + 1) & (addresses - 1)
			}
		})
		b.Run("Update/"+name, func(b *testing.B) { benchUpdate(b, t.Insert, t.Delete, table6()) })
	}
	b.Run("Lookup/bart.Table", func(b *testing.B) { benchBart6(b, new(bart.Table[Value]), hi, lo) })
	b.Run("Lookup/bart.Fast", func(b *testing.B) { benchBart6(b, new(bart.Fast[Value]), hi, lo) })
}

var sink Value

func perAddress(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/address")
}

// benchUpdate counts a withdrawal and the announcement that follows it as two updates.
func benchUpdate(b *testing.B, insert func(netip.Prefix, Value) error, remove func(netip.Prefix) bool, prefixes []netip.Prefix) {
	i := 0
	for b.Loop() {
		p := prefixes[i]
		if !remove(p) || insert(p, Value(i+1)) != nil {
			b.Fatal("update failed", p)
		}
		i = (i + 1) % len(prefixes)
	}
	b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func benchBart4(b *testing.B, t bartTable, addrs []uint32) {
	for i, p := range table4() {
		t.Insert(p, Value(i+1))
	}
	i := 0
	for b.Loop() {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], addrs[i])
		sink, _ = t.Lookup(netip.AddrFrom4(a))
		i = (i + 1) & (addresses - 1)
	}
}

func benchBart6(b *testing.B, t bartTable, hi, lo []uint64) {
	for i, p := range table6() {
		t.Insert(p, Value(i+1))
	}
	i := 0
	for b.Loop() {
		var a [16]byte
		binary.BigEndian.PutUint64(a[:], hi[i])
		binary.BigEndian.PutUint64(a[8:], lo[i])
		sink, _ = t.Lookup(netip.AddrFrom16(a))
		i = (i + 1) & (addresses - 1)
	}
}

// BenchmarkLoad reports the time to build each table and its memory: address space for slots, and the Go heap for the RIB.
func BenchmarkLoad(b *testing.B) {
	b.Run("Table4", func(b *testing.B) {
		prefixes := table4()
		for b.Loop() {
			before := heap()
			t := NewTable4(24, nil)
			fillTable(b, t.Insert, prefixes)
			b.ReportMetric(float64(heap()-before)/1e6, "heap-MB")
			b.ReportMetric(float64(t.MemoryBytes())/1e6, "table-MB")
			t.Close()
		}
	})
	b.Run("Table6", func(b *testing.B) {
		prefixes := table6()
		for b.Loop() {
			before := heap()
			t := NewTable6(24, nil)
			fillTable(b, t.Insert, prefixes)
			b.ReportMetric(float64(heap()-before)/1e6, "heap-MB")
			b.ReportMetric(float64(t.MemoryBytes())/1e6, "table-MB")
			t.Close()
		}
	})
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkGroup(b *testing.B) {
	g := NewGroup([]Member{{1, 1}, {2, 3}, {3, 5}})
	h := uint32(0)
	for b.Loop() {
		sink = g.Pick(h)
		h += 0x9e3779b9
	}
}
