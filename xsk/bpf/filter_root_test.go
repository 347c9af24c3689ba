package bpf

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// content reads the prefix maps back from the kernel.
func content(t *testing.T, f *Filter) []string {
	t.Helper()
	var out []string
	for _, m := range []*ebpf.Map{f.maps[steerMapPrefixes4], f.maps[steerMapPrefixes6]} {
		var key, value []byte
		for it := m.Iterate(); it.Next(&key, &value); {
			addr, _ := netip.AddrFromSlice(key[4:])
			out = append(out, netip.PrefixFrom(addr, int(binary.NativeEndian.Uint32(key))).String())
		}
	}
	slices.Sort(out)
	return out
}

func TestRootSetPrefixesReplaces(t *testing.T) {
	f := newFilter(t, nil, nil)
	for _, step := range []struct{ set, want []string }{
		{[]string{"10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"}, []string{"10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"}},
		{[]string{"10.1.0.0/16", "2001:db8::/48"}, []string{"10.1.0.0/16", "2001:db8::/48"}},
		{[]string{"10.1.2.3/16", "10.1.0.0/16", "10.1.0.0/17"}, []string{"10.1.0.0/16", "10.1.0.0/17"}},
		{[]string{"1.2.3.4/32", "2001:db8::1/128"}, []string{"1.2.3.4/32", "2001:db8::1/128"}},
		{nil, nil},
	} {
		if err := f.SetPrefixes(prefixes(step.set...)); err != nil {
			t.Fatal(err)
		}
		if got := content(t, f); !slices.Equal(got, step.want) {
			t.Errorf("after SetPrefixes(%v) the kernel has %v, want %v", step.set, got, step.want)
		}
	}
}

func TestRootSetEndpointsReplaces(t *testing.T) {
	s := newSteering(t, nil, nil)
	f := newFilter(t, nil, nil)
	s.prog = newProgram(t, f, 1)
	s.before = counters(t, s.prog)
	frameTo := func(a string) []byte { return build(t, eth(0x0800), ip4(a, 47)) }
	for _, step := range []struct {
		set          []string
		worker, host string
	}{
		{[]string{"192.0.2.1", "192.0.2.2"}, "192.0.2.2", "192.0.2.3"},
		{[]string{"::ffff:192.0.2.3", "192.0.2.2", "192.0.2.2"}, "192.0.2.3", "192.0.2.1"},
		{[]string{"192.0.2.2"}, "192.0.2.2", "192.0.2.3"},
	} {
		var addrs []netip.Addr
		for _, a := range step.set {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		if err := f.SetEndpoints(addrs); err != nil {
			t.Fatal(err)
		}
		if got := s.classify(frameTo(step.worker)); got != GRE {
			t.Errorf("endpoints %v: GRE to %s is %v", step.set, step.worker, got)
		}
		if got := s.classify(frameTo(step.host)); got != Other {
			t.Errorf("endpoints %v: GRE to %s is %v", step.set, step.host, got)
		}
	}
}

// While the sets are replaced thousands of times, no packet to what stays in it may
// reach the kernel: neither to a prefix that is kept, nor to one that is replaced
// by its halves, nor to a kept endpoint.
func TestRootReplaceNeverMissesWhatStays(t *testing.T) {
	f := newFilter(t, testEndpoints, prefixes("203.0.113.0/24", "10.0.0.0/8", "2001:db8:c::/48"))
	p := newProgram(t, f, 1)
	var done atomic.Bool
	runs := make(chan error, 3)
	for _, frame := range [][]byte{
		build(t, eth(0x0800), ip4(cust4, 6)),
		build(t, eth(0x86dd), ip6(cust6, 6)),
		build(t, eth(0x0800), ip4(ep4, 47)),
	} {
		go func() {
			var err error
			for !done.Load() && err == nil {
				_, err = p.prog.Run(&ebpf.RunOptions{Data: frame, Repeat: 10000})
			}
			runs <- err
		}()
	}
	var setErr error
	for i, end := 0, time.Now().Add(700*time.Millisecond); time.Now().Before(end) && setErr == nil; i++ {
		set := prefixes("203.0.113.0/24", "11.0.0.0/8", "2001:db8:c::/48")
		endpoints := append(testEndpoints, netip.MustParseAddr("192.0.2.77"))
		if i%2 == 0 {
			set = prefixes("203.0.113.0/25", "203.0.113.128/25", "12.0.0.0/8", "2001:db8:c::/49", "2001:db8:c:8000::/49")
			endpoints = testEndpoints
		}
		setErr = errors.Join(f.SetPrefixes(set), f.SetEndpoints(endpoints))
	}
	done.Store(true)
	for range 3 {
		if err := <-runs; err != nil {
			t.Error(err)
		}
	}
	if setErr != nil {
		t.Fatal(setErr)
	}
	c := counters(t, p)
	if c[Other] != 0 || c[Prefix] < 1e6 || c[GRE] < 1e6 {
		t.Errorf("%d packets missed their entry while sets were replaced (%d and %d did not)", c[Other], c[Prefix], c[GRE])
	}
}

// The greatest set loads, is replaced by one that shares nothing with it, and one
// more entry is refused without a change.
func TestRootPrefixLimit(t *testing.T) {
	f := newFilter(t, nil, nil)
	limit := f.prefixes4.limit
	if limit != 131072 {
		t.Fatalf("limit %d, want 131072", limit)
	}
	block := func(first byte, n int) []netip.Prefix {
		var out []netip.Prefix
		for i := range n {
			a := [4]byte{first, byte(i >> 16), byte(i >> 8), byte(i)}
			out = append(out, netip.PrefixFrom(netip.AddrFrom4(a), 32))
		}
		return out
	}
	if err := f.SetPrefixes(block(20, limit)); err != nil {
		t.Fatal(err)
	}
	if err := f.SetPrefixes(block(21, limit)); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(f.prefixes4.have)
	err := f.SetPrefixes(block(22, limit+1))
	if err == nil || !strings.Contains(err.Error(), "131073 IPv4 prefixes: at most 131072") {
		t.Errorf("one too many: %v", err)
	}
	if !maps.Equal(before, f.prefixes4.have) {
		t.Error("a refused set changed the filter")
	}
}

// Programs go on with the maps of a Filter that is closed.
func TestRootProgramOutlivesFilter(t *testing.T) {
	f := newFilter(t, testEndpoints, testPrefixes)
	p := newProgram(t, f, 4)
	s := &steering{t: t, prog: p, before: counters(t, p)}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, fr := range frames(t) {
		if got := s.classify(fr.frame); got != fr.want {
			t.Errorf("%s: %v, want %v", fr.name, got, fr.want)
		}
	}
}

func TestRootProgramRefusals(t *testing.T) {
	f := newFilter(t, nil, nil)
	for _, n := range []int{-1, 0, maxQueues + 1} {
		if _, err := f.NewProgram(n); err == nil || !strings.Contains(err.Error(), "allowed are 1 to 65536") {
			t.Errorf("NewProgram(%d): %v", n, err)
		}
	}
	p := newProgram(t, f, 4)
	for _, q := range []int{-1, 4} {
		if err := p.SetSocket(q, 0); err == nil || !strings.Contains(err.Error(), "the program has queues 0 to 3") {
			t.Errorf("SetSocket(%d): %v", q, err)
		}
		if err := p.ClearSocket(q); err == nil {
			t.Errorf("ClearSocket(%d): no error", q)
		}
	}
	if err := p.SetSocket(0, f.maps[steerMapPrefixes4].FD()); err == nil {
		t.Error("SetSocket took a file descriptor that is not a socket")
	}
	if err := p.ClearSocket(3); err != nil {
		t.Errorf("clear an empty slot: %v", err)
	}
}
