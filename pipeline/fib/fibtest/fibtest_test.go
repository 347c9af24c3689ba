package fibtest

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

func TestPrefixes(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(int, uint64) []netip.Prefix
		n      int
		common int // the length of at least 40 % of the routes
	}{
		{"v4", SyntheticBGP4, 100_000, 24},
		{"v4 small", SyntheticBGP4, 10, 0},
		{"v4 none", SyntheticBGP4, 0, 0},
		{"v6", SyntheticBGP6, 50_000, 48},
		{"v6 small", SyntheticBGP6, 10, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.make(c.n, 1)
			if len(got) != c.n {
				t.Fatalf("%d prefixes, want %d", len(got), c.n)
			}
			if !slices.Equal(got, c.make(c.n, 1)) {
				t.Error("the same seed gave another table")
			}
			if c.n > 0 && slices.Equal(got, c.make(c.n, 2)) {
				t.Error("another seed gave the same table")
			}
			seen, common := map[netip.Prefix]bool{}, 0
			for _, p := range got {
				if seen[p] || p != p.Masked() || p.Bits() == 0 || p.Addr().IsPrivate() || p.Addr().IsMulticast() {
					t.Fatalf("bad or repeated prefix %v", p)
				}
				seen[p] = true
				if p.Bits() == c.common {
					common++
				}
			}
			if c.common > 0 && common < c.n*2/5 {
				t.Errorf("%d of %d prefixes are /%d, want at least 40 %%", common, c.n, c.common)
			}
		})
	}
}

func TestCovered(t *testing.T) {
	// With a single prefix each address must be in it.
	for _, s := range []string{"198.51.100.0/22", "192.0.2.1/32", "128.0.0.0/1"} {
		p := netip.MustParsePrefix(s).Masked()
		for _, a := range CoveredAddresses4([]netip.Prefix{p}, 1000, 1) {
			if b := [4]byte(binary.BigEndian.AppendUint32(nil, a)); !p.Contains(netip.AddrFrom4(b)) {
				t.Fatalf("%v is not in %v", b, p)
			}
		}
	}
	for _, s := range []string{"2001:db8::/29", "2001:db8::/65", "2001:db8::1/128"} {
		p := netip.MustParsePrefix(s).Masked()
		hi, lo := CoveredAddresses6([]netip.Prefix{p}, 1000, 1)
		distinct := map[[2]uint64]bool{}
		for i := range hi {
			b := [16]byte(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, hi[i]), lo[i]))
			if !p.Contains(netip.AddrFrom16(b)) {
				t.Fatalf("%x is not in %v", b, p)
			}
			distinct[[2]uint64{hi[i], lo[i]}] = true
		}
		if p.Bits() < 100 && len(distinct) < 990 {
			t.Errorf("%v: only %d of 1000 addresses differ", p, len(distinct))
		}
	}
}
