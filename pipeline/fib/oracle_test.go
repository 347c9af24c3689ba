package fib

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// oracle is the slow and obvious table: all routes in a slice, the longest match by trying each.
type oracle []route

type route struct {
	prefix netip.Prefix
	value  Value
}

func (o oracle) find(p netip.Prefix) int {
	for i, r := range o {
		if r.prefix == p {
			return i
		}
	}
	return -1
}

func (o *oracle) insert(p netip.Prefix, v Value) {
	if i := o.find(p.Masked()); i >= 0 {
		(*o)[i].value = v
		return
	}
	*o = append(*o, route{p.Masked(), v})
}

func (o *oracle) delete(p netip.Prefix) bool {
	i := o.find(p.Masked())
	if i >= 0 {
		*o = append((*o)[:i], (*o)[i+1:]...)
	}
	return i >= 0
}

func (o oracle) lookup(a netip.Addr) Value {
	best := route{}
	for _, r := range o {
		if r.prefix.Contains(a) && (best.value == 0 || r.prefix.Bits() > best.prefix.Bits()) {
			best = r
		}
	}
	return best.value
}

// table is what the tests need of both tables.
type table interface {
	Insert(netip.Prefix, Value) error
	Delete(netip.Prefix) bool
	Len() int
	Close()
	one(netip.Addr) Value
	many([]netip.Addr) []Value
	inner() *trie
}

func (t *Table4) inner() *trie { return &t.trie }
func (t *Table6) inner() *trie { return &t.trie }

func (t *Table4) one(a netip.Addr) Value { return t.Lookup(host4(a)) }
func (t *Table6) one(a netip.Addr) Value { return t.Lookup(halves(a)) }

func (t *Table4) many(addrs []netip.Addr) []Value {
	in, out := make([]uint32, len(addrs)), make([]Value, len(addrs))
	for i, a := range addrs {
		in[i] = host4(a)
	}
	t.LookupBatch(in, out)
	return out
}

func (t *Table6) many(addrs []netip.Addr) []Value {
	hi, lo, out := make([]uint64, len(addrs)), make([]uint64, len(addrs)), make([]Value, len(addrs))
	for i, a := range addrs {
		hi[i], lo[i] = halves(a)
	}
	t.LookupBatch(hi, lo, out)
	return out
}

func host4(a netip.Addr) uint32 { return binary.BigEndian.Uint32(a.AsSlice()) }

func halves(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

func addr4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func addr6(hi, lo uint64) netip.Addr {
	return netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, hi), lo)))
}

type kind struct {
	name string
	bits int // of an address
	make func(retire func(func())) table
}

// kinds are the tables that each test goes through.
var kinds = []kind{
	{"v4/8", 32, func(r func(func())) table { return NewTable4(8, r) }},
	{"v4/16", 32, func(r func(func())) table { return NewTable4(16, r) }},
	{"v4/24", 32, func(r func(func())) table { return NewTable4(24, r) }},
	{"v6/8", 128, func(r func(func())) table { return NewTable6(8, r) }},
	{"v6/16", 128, func(r func(func())) table { return NewTable6(16, r) }},
	{"v6/24", 128, func(r func(func())) table { return NewTable6(24, r) }},
}

// sequential are the kinds for tests without concurrency. Under the race detector, which has nothing to find in them, a root of
// 64 MiB on its heap takes too long to make a hundred times.
func sequential() []kind {
	if !raceDetector {
		return kinds
	}
	return slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return strings.HasSuffix(k.name, "/24") })
}

// drawAddr draws each byte from a few values, so that prefixes nest, meet and share blocks.
func drawAddr(t *rapid.T, bits int) netip.Addr {
	b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xff}), bits/8, bits/8).Draw(t, "addr")
	if rapid.Bool().Draw(t, "plain") { // most addresses agree in most bytes
		for i := range b {
			if i != bits/16 {
				b[i] = 10
			}
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func drawPrefix(t *rapid.T, bits int) netip.Prefix {
	lengths := rapid.OneOf(rapid.IntRange(0, bits), rapid.IntRange(bits*3/8, bits*3/4), rapid.SampledFrom([]int{8, 16, 24, 32, bits}))
	n := lengths.Draw(t, "length")
	if n > 0 && n < 8 {
		n = 8 // shorter ones touch millions of slots of a large root: TestShortPrefixes has them
	}
	return netip.PrefixFrom(drawAddr(t, bits), n)
}

// edges are the addresses where an error in the range of p would show.
func edges(p netip.Prefix) []netip.Addr {
	first := p.Masked().Addr()
	b := first.AsSlice()
	for i := range b {
		b[i] |= byte(0xff) >> min(max(p.Bits()-8*i, 0), 8)
	}
	last, _ := netip.AddrFromSlice(b)
	addrs := []netip.Addr{p.Addr(), first, last}
	for _, a := range []netip.Addr{first.Prev(), last.Next()} {
		if a.IsValid() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

func TestAgainstOracle(t *testing.T) {
	for _, kind := range sequential() {
		t.Run(kind.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				fib := kind.make(nil)
				defer fib.Close()
				var want oracle
				check := func(p netip.Prefix) {
					addrs := append(edges(p), drawAddr(t, kind.bits))
					for _, r := range want {
						addrs = append(addrs, edges(r.prefix)...)
					}
					got := fib.many(addrs)
					for i, a := range addrs {
						if w := want.lookup(a); fib.one(a) != w || got[i] != w {
							t.Fatalf("%v: Lookup %d, LookupBatch %d, want %d of %v", a, fib.one(a), got[i], w, want)
						}
					}
					if fib.Len() != len(want) {
						t.Fatalf("Len %d, want %d", fib.Len(), len(want))
					}
				}
				t.Repeat(map[string]func(*rapid.T){
					"insert": func(t *rapid.T) {
						p, v := drawPrefix(t, kind.bits), Value(rapid.IntRange(1, int(MaxValue)).Draw(t, "value"))
						if err := fib.Insert(p, v); err != nil {
							t.Fatal(err)
						}
						want.insert(p, v)
						check(p)
					},
					"delete": func(t *rapid.T) {
						p := drawPrefix(t, kind.bits)
						if len(want) > 0 && rapid.IntRange(0, 3).Draw(t, "present") > 0 {
							p = rapid.SampledFrom(want).Draw(t, "route").prefix
						}
						if got, w := fib.Delete(p), want.delete(p); got != w {
							t.Fatalf("Delete(%v) = %v, want %v", p, got, w)
						}
						check(p)
					},
				})
				for len(want) > 0 {
					p := want[len(want)-1].prefix
					if !fib.Delete(p) || !want.delete(p) {
						t.Fatalf("Delete(%v) = false", p)
					}
					check(p)
				}
				checkEmpty(t, fib.inner())
			})
		})
	}
}

// checkEmpty fails if a trie without routes still holds blocks, leaves or users of blocks.
func checkEmpty(t interface{ Fatalf(string, ...any) }, tr *trie) {
	if len(tr.blocks.free) != tr.blocks.made || len(tr.leaves.free) != tr.leaves.made {
		t.Fatalf("empty table: %d of %d blocks and %d of %d leaves are free", len(tr.blocks.free), tr.blocks.made, len(tr.leaves.free), tr.leaves.made)
	}
	for b := range tr.blocks.made {
		if n := tr.info.items[b].users; n != 0 {
			t.Fatalf("free block %d has %d users", b, n)
		}
	}
}

// TestShortPrefixes: routes that cover a large part of a root, with longer ones inside that must survive.
func TestShortPrefixes(t *testing.T) {
	for _, kind := range sequential() {
		t.Run(kind.name, func(t *testing.T) {
			fib := kind.make(nil)
			defer fib.Close()
			var want oracle
			base := netip.MustParseAddr("10.20.30.40")
			if kind.bits == 128 {
				base = netip.MustParseAddr("2001:db8:1:2:3:4:5:6")
			}
			var addrs []netip.Addr
			check := func(step string) {
				t.Helper()
				got := fib.many(addrs)
				for i, a := range addrs {
					if w := want.lookup(a); got[i] != w || fib.one(a) != w {
						t.Fatalf("%s, %v: Lookup %d, LookupBatch %d, want %d", step, a, fib.one(a), got[i], w)
					}
				}
			}
			lengths := []int{kind.bits, kind.bits - 1, 26, 25, 24, 17, 9, 8, 7, 3, 1, 0}
			for i, n := range lengths {
				p := netip.PrefixFrom(base, n)
				if err := fib.Insert(p, Value(i+1)); err != nil {
					t.Fatal(err)
				}
				want.insert(p, Value(i+1))
				addrs = append(addrs, edges(p)...)
				check("insert " + p.String())
			}
			for i := range lengths { // every second first, so that covers are not always the neighbours
				p := netip.PrefixFrom(base, lengths[(i*5)%len(lengths)])
				if !fib.Delete(p) || !want.delete(p) {
					t.Fatalf("Delete(%v) = false", p)
				}
				check("delete " + p.String())
			}
			checkEmpty(t, fib.inner())
		})
	}
}

func TestBatchSizes(t *testing.T) {
	for _, kind := range kinds {
		fib := kind.make(nil)
		defer fib.Close()
		base := netip.MustParsePrefix("192.0.2.0/24").Addr()
		if kind.bits == 128 {
			base = netip.MustParsePrefix("2001:db8::/32").Addr()
		}
		var addrs []netip.Addr
		for i := range 3*chunk + 1 {
			if err := fib.Insert(netip.PrefixFrom(base, kind.bits), Value(i+1)); err != nil {
				t.Fatal(err)
			}
			addrs = append(addrs, base)
			base = base.Next()
		}
		for _, n := range []int{0, 1, 2, 63, 64, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 1} {
			for i, v := range fib.many(addrs[:n]) {
				if v != Value(i+1) {
					t.Fatalf("%s: %d addresses: result %d is %d, want %d", kind.name, n, i, v, i+1)
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	t4, t6 := NewTable4(8, nil), NewTable6(8, nil)
	four, six := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")
	for _, c := range []struct {
		err  error
		want string
	}{
		{t4.Insert(netip.Prefix{}, 1), "fib: route invalid Prefix: not a valid prefix"},
		{t4.Insert(six, 1), "fib: route 2001:db8::/32: wrong family, this table holds prefixes of 32-bit addresses"},
		{t6.Insert(four, 1), "fib: route 192.0.2.0/24: wrong family, this table holds prefixes of 128-bit addresses"},
		{t4.Insert(four, 0), "fib: route 192.0.2.0/24: value 0, want 1 to 1073741823 (to remove a route, delete it)"},
		{t6.Insert(six, MaxValue+1), "fib: route 2001:db8::/32: value 1073741824, want 1 to 1073741823 (to remove a route, delete it)"},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", c.err, c.want)
		}
	}
	if t4.Len() != 0 || t6.Len() != 0 || t4.Delete(four) || t4.Delete(six) || t6.Delete(netip.Prefix{}) {
		t.Error("a refused route left something behind")
	}
	for _, bits := range []int{0, 12, 25, 32} {
		func() {
			defer func() {
				if got, want := fmt.Sprint(recover()), fmt.Sprintf("fib: a root of %d bits, want 8, 16 or 24", bits); got != want {
					t.Errorf("panic %q, want %q", got, want)
				}
			}()
			NewTable4(bits, nil)
		}()
	}
}
