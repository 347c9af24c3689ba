// Package fibtest makes routing tables and addresses for tests and benchmarks of lookup tables. The same arguments give the
// same result on every machine.
package fibtest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// portion says how many of 100,000 routes have this length.
type portion struct{ bits, count int }

// Lengths in the IPv4 table of the default-free zone, with some longer routes as a node has for its own customers.
var lengths4 = []portion{
	{8, 2}, {9, 2}, {10, 4}, {11, 10}, {12, 30}, {13, 60}, {14, 120}, {15, 210}, {16, 1400}, {17, 850}, {18, 1400}, {19, 2500},
	{20, 4500}, {21, 5200}, {22, 11200}, {23, 10200}, {24, 62000}, {25, 60}, {26, 60}, {27, 50}, {28, 50}, {29, 50}, {30, 12}, {32, 30},
}

// Lengths in the IPv6 table of the default-free zone.
var lengths6 = []portion{
	{20, 10}, {24, 20}, {26, 10}, {28, 100}, {29, 2800}, {30, 400}, {31, 200}, {32, 12800}, {33, 2600}, {34, 1700}, {35, 500}, {36, 5800},
	{37, 300}, {38, 800}, {39, 500}, {40, 9300}, {41, 300}, {42, 1300}, {43, 200}, {44, 9800}, {45, 400}, {46, 2200}, {47, 1600}, {48, 46000},
	{52, 10}, {56, 150}, {64, 190}, {128, 10},
}

// The parts of 2000::/3 that the registries hand out, with the share of each in percent.
var blocks6 = []struct {
	prefix string
	share  int
}{{"2001::/16", 12}, {"2400::/12", 27}, {"2600::/12", 18}, {"2800::/12", 13}, {"2a00::/12", 25}, {"2c00::/12", 5}}

// SyntheticBGP4 returns n distinct IPv4 prefixes with lengths as in the Internet's table: most are /24, two thirds of those and
// of other long ones lie inside a shorter route of the table, the rest anywhere in unicast space. There are no routes in private space and no
// default route. n up to 2 million.
func SyntheticBGP4(n int, seed uint64) []netip.Prefix {
	return synthetic(n, seed, lengths4, func(r *rand.Rand) netip.Addr {
		for {
			a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, r.Uint32())))
			if b := a.As4(); b[0] != 0 && b[0] != 127 && b[0] < 224 && !a.IsPrivate() && !a.IsLinkLocalUnicast() {
				return a
			}
		}
	})
}

// SyntheticBGP6 returns n distinct IPv6 prefixes with lengths as in the Internet's table: nearly half are /48, and most of those
// lie inside a shorter route of the table. n up to 1 million.
func SyntheticBGP6(n int, seed uint64) []netip.Prefix {
	return synthetic(n, seed, lengths6, func(r *rand.Rand) netip.Addr {
		pick := r.IntN(100)
		for _, b := range blocks6 {
			if pick -= b.share; pick < 0 {
				// Registries fill their blocks from one end; half of each has been handed out.
				p := netip.MustParsePrefix(b.prefix)
				return within(r, netip.PrefixFrom(p.Addr(), p.Bits()+1))
			}
		}
		panic("fibtest: shares of blocks6 do not add up to 100")
	})
}

func synthetic(n int, seed uint64, lengths []portion, anywhere func(*rand.Rand) netip.Addr) []netip.Prefix {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	prefixes := make([]netip.Prefix, 0, n)
	seen := make(map[netip.Prefix]struct{}, n)
	for i, l := range lengths {
		// Short ones first, so that longer ones find something to lie in; the last length takes what rounding left over.
		shorter := len(prefixes)
		want := l.count * n / 100_000
		if i == len(lengths)-1 {
			want = n - shorter
		}
		for failed := 0; len(prefixes) < shorter+want; {
			a := anywhere(r)
			if shorter > 0 && r.IntN(3) < 2 && failed < 64 {
				a = within(r, prefixes[r.IntN(shorter)])
			}
			p := netip.PrefixFrom(a, l.bits).Masked()
			if _, ok := seen[p]; ok {
				failed++
				continue
			}
			failed = 0
			seen[p] = struct{}{}
			prefixes = append(prefixes, p)
		}
	}
	r.Shuffle(len(prefixes), func(i, j int) { prefixes[i], prefixes[j] = prefixes[j], prefixes[i] })
	return prefixes
}

// within returns a random address that p covers.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	var random [16]byte
	binary.BigEndian.PutUint64(random[:], r.Uint64())
	binary.BigEndian.PutUint64(random[8:], r.Uint64())
	b := p.Addr().AsSlice()
	for i := range b {
		free := byte(0xff) >> min(max(p.Bits()-8*i, 0), 8)
		b[i] = b[i]&^free | random[i]&free
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// CoveredAddresses4 returns n addresses in host byte order, each random within a random prefix. All prefixes are as likely, so
// nearly each address has another part of the table to itself: the worst case for a lookup.
func CoveredAddresses4(prefixes []netip.Prefix, n int, seed uint64) []uint32 {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	addrs := make([]uint32, n)
	for i := range addrs {
		a := within(r, prefixes[r.IntN(len(prefixes))]).As4()
		addrs[i] = binary.BigEndian.Uint32(a[:])
	}
	return addrs
}

// CoveredAddresses6 is as CoveredAddresses4 for IPv6: hi holds the first 8 bytes of each address and lo the last 8.
func CoveredAddresses6(prefixes []netip.Prefix, n int, seed uint64) (hi, lo []uint64) {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	hi, lo = make([]uint64, n), make([]uint64, n)
	for i := range hi {
		a := within(r, prefixes[r.IntN(len(prefixes))]).As16()
		hi[i], lo[i] = binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(a[8:])
	}
	return hi, lo
}
