package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
)

const xdpPass = 2

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: loads programs into the kernel; run make test-root, or sudo go test")
	}
}

// steering is the program in the kernel, run on frames of memory. It has no
// sockets, so the verdict is always PASS and the class is read from the counters.
type steering struct {
	t      testing.TB
	prog   *Program
	before map[Class]uint64
}

func newFilter(t testing.TB, endpoints []netip.Addr, prefixes []netip.Prefix) *Filter {
	t.Helper()
	needsRoot(t)
	f, err := NewFilter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.SetEndpoints(endpoints); err != nil {
		t.Fatal(err)
	}
	if err := f.SetPrefixes(prefixes); err != nil {
		t.Fatal(err)
	}
	return f
}

func newProgram(t testing.TB, f *Filter, queues int) *Program {
	t.Helper()
	p, err := f.NewProgram(queues)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func newSteering(t testing.TB, endpoints []netip.Addr, prefixes []netip.Prefix) *steering {
	t.Helper()
	p := newProgram(t, newFilter(t, endpoints, prefixes), 1)
	return &steering{t: t, prog: p, before: counters(t, p)}
}

func counters(t testing.TB, p *Program) map[Class]uint64 {
	t.Helper()
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// classify runs the program once and finds the one class that was counted.
func (s *steering) classify(frame []byte) Class {
	s.t.Helper()
	verdict, err := s.prog.prog.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		s.t.Fatalf("run on %d bytes: %v", len(frame), err)
	}
	if verdict != xdpPass {
		s.t.Fatalf("verdict %d without a socket, want XDP_PASS\n% x", verdict, frame)
	}
	after := counters(s.t, s.prog)
	counted, class := uint64(0), NoSocket
	for c := range NoSocket {
		if n := after[c] - s.before[c]; n > 0 {
			counted, class = counted+n, c
		}
	}
	noSocket := after[NoSocket] - s.before[NoSocket]
	s.before = after
	if counted != 1 {
		s.t.Fatalf("one frame was counted %d times\n% x", counted, frame)
	}
	if want := class.ToWorker(); (noSocket == 1) != want || noSocket > 1 {
		s.t.Fatalf("class %v: %d counted without a socket, want %v\n% x", class, noSocket, want, frame)
	}
	return class
}

func TestRootSteerTable(t *testing.T) {
	s := newSteering(t, testEndpoints, testPrefixes)
	for _, f := range frames(t) {
		if got := s.classify(f.frame); got != f.want {
			t.Errorf("%s: %v, want %v\n% x", f.name, got, f.want, f.frame)
		}
	}
}

// Every frame of the table, cut off at every byte. The kernel refuses to run a
// program on less than an Ethernet header, as no driver delivers less.
func TestRootSteerTruncated(t *testing.T) {
	s := newSteering(t, testEndpoints, testPrefixes)
	o := oracle{testEndpoints, testPrefixes}
	for _, f := range frames(t) {
		for n := 14; n < min(len(f.frame), 200); n++ {
			if got, want := s.classify(f.frame[:n]), o.classify(f.frame[:n]); got != want {
				t.Fatalf("%s, first %d of %d bytes: %v, want %v\n% x", f.name, n, len(f.frame), got, want, f.frame[:n])
			}
		}
	}
}

// Frames of the table with random damage, against the oracle. Each class must
// have been met often, or the test says nothing.
func TestRootSteerRandom(t *testing.T) {
	s := newSteering(t, testEndpoints, testPrefixes)
	o := oracle{testEndpoints, testPrefixes}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	table := frames(t)
	met := make(map[Class]int)
	for range 20000 {
		frame := damage(rng, table[rng.IntN(len(table))].frame)
		got, want := s.classify(frame), o.classify(frame)
		if got != want {
			t.Fatalf("seed %d: %v, want %v\n% x", seed, got, want, frame)
		}
		met[got]++
	}
	for c := range NoSocket {
		if met[c] < 50 {
			t.Errorf("seed %d: class %v met %d times of 20000, too few to mean anything", seed, c, met[c])
		}
	}
}

// damage changes a few bytes, most of them where decisions are made, and cuts
// some frames.
func damage(rng *rand.Rand, frame []byte) []byte {
	frame = append([]byte(nil), frame...)
	interesting := []byte{0, 1, 2, 4, 6, 8, 17, 43, 44, 47, 50, 60, 0x20, 0x40, 0x45, 0x46, 0x4f, 0x60, 0x81, 0x86, 0xdd, 0xfe, 0xff}
	for range rng.IntN(4) {
		at := rng.IntN(min(len(frame), 100))
		if rng.IntN(4) > 0 {
			at = min(12+rng.IntN(60), len(frame)-1)
		}
		if rng.IntN(2) == 0 {
			frame[at] = interesting[rng.IntN(len(interesting))]
		} else {
			frame[at] ^= 1 << rng.IntN(8)
		}
	}
	if rng.IntN(6) == 0 {
		frame = frame[:14+rng.IntN(len(frame)-13)]
	}
	return frame
}

// With prefixes that cover every address, the destinations that stay with the
// kernel are exactly the reserved ones and the endpoints' other traffic.
func TestRootSteerReserved(t *testing.T) {
	all := []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1"),
		netip.MustParsePrefix("::/1"), netip.MustParsePrefix("8000::/1"),
	}
	s := newSteering(t, nil, all)
	o := oracle{nil, all}
	check := func(dst netip.Addr) {
		t.Helper()
		stack := []gopacket.SerializableLayer{eth(0x86dd), ip6(dst.String(), 6)}
		if dst.Is4() {
			stack = []gopacket.SerializableLayer{eth(0x0800), ip4(dst.String(), 6)}
		}
		frame := build(t, stack...)
		if got, want := s.classify(frame), o.classify(frame); got != want {
			t.Errorf("to %s: %v, want %v", dst, got, want)
		}
	}
	for _, p := range reservedPrefixes {
		first, last := p.Addr(), lastOf(p)
		for _, dst := range []netip.Addr{first, last, first.Prev(), last.Next()} {
			if dst.IsValid() {
				check(dst)
			}
		}
	}
	for i := range 256 {
		check(netip.AddrFrom4([4]byte{byte(i), 254, 3, 4}))
		check(netip.AddrFrom16([16]byte{0xfe, byte(i), 15: 1}))
	}
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// Empty maps leave everything to the kernel.
func TestRootSteerEmptyFilter(t *testing.T) {
	s := newSteering(t, nil, nil)
	for _, f := range frames(t) {
		if got := s.classify(f.frame); got.ToWorker() {
			t.Errorf("%s: %v with an empty filter", f.name, got)
		}
	}
}

// The whole IPv4 fragment field: every offset and flag.
func TestRootSteerFragmentField(t *testing.T) {
	s := newSteering(t, testEndpoints, testPrefixes)
	frame := build(t, eth(0x0800), ip4(ep4, 47))
	for field := range 1 << 16 {
		if field&0x1fff > 8 && field&(field-1) != 0 && field%97 != 0 {
			continue // all flags, small offsets, single bits, and a sample
		}
		binary.BigEndian.PutUint16(frame[20:], uint16(field))
		want := GRE
		if field&0x3fff != 0 {
			want = Fragment
		}
		if got := s.classify(frame); got != want {
			t.Fatalf("fragment field %#04x: %v, want %v", field, got, want)
		}
	}
}

func BenchmarkRootSteer(b *testing.B) {
	s := newSteering(b, testEndpoints, testPrefixes)
	for _, f := range frames(b) {
		switch f.name {
		case "gre to the v4 endpoint", "gre behind a destination option, as linux sends it", "tcp to a customer", "tcp to a customer over ipv6", "arp":
			b.Run(f.want.String()+"/"+f.name, func(b *testing.B) {
				if _, err := s.prog.prog.Run(&ebpf.RunOptions{Data: f.frame, Repeat: uint32(b.N)}); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
