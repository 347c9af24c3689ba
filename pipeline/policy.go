package pipeline

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// prefixes are what a child's selectors let be behind us and behind the customer; none of a side: anything.
type prefixes struct{ local, remote []netip.Prefix }

func (s *prefixes) any() bool { return len(s.local) == 0 && len(s.remote) == 0 }

// any4 reports whether all IPv4 packets lie within them.
func (s *prefixes) any4() bool { return holdsAll4(s.local) && holdsAll4(s.remote) }

func holdsAll4(list []netip.Prefix) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr().Is4() && p.Bits() == 0 })
}

// policy is the selectors of a tunnel's children (RFC 4301 4.4.1). A customer chooses them, and the packets too: the time for one
// packet must not grow with their number, as it would if each prefix were asked. Policies do not change.
type policy struct{ of [2]sides } // of IPv4 and of IPv6

type sides struct{ local, remote pieces }

// pieces are the addresses of a family, cut where a prefix of any of the selectors begins or ends. All addresses of a piece lie
// within the same ones.
type pieces struct {
	from  []address // the first of each, ascending
	sets  []uint64  // which selectors a piece lies within, a bit for each, in words words
	words int
}

// address is one of either family, as a number. Unlike an array it stays in registers.
type address struct{ hi, lo uint64 }

// newPolicy is that of selectors with these numbers, or nil if all let through anything.
func newPolicy(of []prefixes) *policy {
	if !slices.ContainsFunc(of, func(s prefixes) bool { return !s.any() }) {
		return nil
	}
	local, remote := make([][]netip.Prefix, len(of)), make([][]netip.Prefix, len(of))
	for i, s := range of {
		local[i], remote[i] = s.local, s.remote
	}
	p := &policy{}
	for family := range p.of {
		p.of[family] = sides{newPieces(local, family == 1), newPieces(remote, family == 1)}
	}
	return p
}

// cut is where addresses begin to lie within a prefix of the selectors with a number, or cease to.
type cut struct {
	at     address
	number int
	enters int // 1 or -1
}

func newPieces(of [][]netip.Prefix, v6 bool) pieces {
	s := pieces{words: (len(of) + 63) / 64}
	s.from, s.sets = make([]address, 1), make([]uint64, s.words)
	depth := make([]int, len(of)) // prefixes may overlap
	for _, c := range cutsOf(of, v6) {
		if last := len(s.from) - 1; c.at != s.from[last] {
			s.from = append(s.from, c.at)
			s.sets = append(s.sets, s.sets[last*s.words:]...)
		}
		depth[c.number] += c.enters
		set := s.sets[len(s.sets)-s.words:]
		if bit := uint64(1) << (c.number % 64); depth[c.number] > 0 {
			set[c.number/64] |= bit
		} else {
			set[c.number/64] &^= bit
		}
	}
	return s
}

// cutsOf is ascending.
func cutsOf(of [][]netip.Prefix, v6 bool) (cuts []cut) {
	for i, list := range of {
		if len(list) == 0 {
			cuts = append(cuts, cut{number: i, enters: 1})
		}
		for _, p := range list {
			if !p.IsValid() || p.Addr().Is6() != v6 {
				continue
			}
			first, next := span(p)
			cuts = append(cuts, cut{first, i, 1})
			if next != (address{}) { // else it goes up to the last address
				cuts = append(cuts, cut{next, i, -1})
			}
		}
	}
	slices.SortFunc(cuts, func(a, b cut) int { return cmp.Or(cmp.Compare(a.at.hi, b.at.hi), cmp.Compare(a.at.lo, b.at.lo)) })
	return cuts
}

// span is the first address of a prefix and the one behind its last; zero: there is none.
func span(p netip.Prefix) (first, next address) {
	host := p.Addr().BitLen() - p.Bits() // bits
	p = p.Masked()
	if p.Addr().Is4() {
		first.lo = uint64(word4(p.Addr()))
		next.lo = uint64(uint32(first.lo + 1<<host))
		return first, next
	}
	a := words6(p.Addr().As16())
	first = address{a[0], a[1]}
	if host >= 64 {
		return first, address{first.hi + 1<<(host-64), 0} // a shift by 64 is 0
	}
	var carry uint64
	next.lo, carry = bits.Add64(first.lo, 1<<host, 0)
	next.hi = first.hi + carry
	return first, next
}

// at is the set of the piece that an address lies in. The steps have no branches: which way they go nobody can predict.
func (s *pieces) at(a address) []uint64 {
	i := 0
	for n := len(s.from); n > 1; {
		half := n / 2
		from := &s.from[i+half]
		_, less := bits.Sub64(a.lo, from.lo, 0)
		_, less = bits.Sub64(a.hi, from.hi, less)
		i += half & (int(less) - 1)
		n -= half
	}
	return s.sets[i*s.words:][:s.words]
}

// sets are which selectors hold an address on our side, and which one on the customer's.
func (p *policy) sets(family int, local, remote address) (in, also []uint64) {
	of := &p.of[family]
	return of.local.at(local), of.remote.at(remote)
}

// selects is the lowest number of selectors that a packet for the customer lies within, or -1 (RFC 4301 5.1).
func (p *policy) selects(ip []byte) int {
	family, src, dst := addresses(ip)
	if family < 0 {
		return -1
	}
	in, also := p.sets(family, src, dst)
	for i := range in {
		if both := in[i] & also[i]; both != 0 {
			return i*64 + bits.TrailingZeros64(both)
		}
	}
	return -1
}

// admits is described with selectors.
func (p *policy) admits(number int, ip []byte) bool {
	family, src, dst := addresses(ip)
	if family < 0 {
		return true
	}
	in, also := p.sets(family, dst, src)
	return in[number/64]&also[number/64]>>(number%64)&1 != 0
}

// addresses are those of a packet, and which policy.of they are for; -1: it has none.
func addresses(ip []byte) (family int, src, dst address) {
	switch {
	case len(ip) >= ip4Len && ip[0]>>4 == 4:
		return 0, address{0, uint64(binary.BigEndian.Uint32(ip[12:]))}, address{0, uint64(binary.BigEndian.Uint32(ip[16:]))}
	case len(ip) >= ip6Len && ip[0]>>4 == 6:
		s, d := ip[8:24], ip[24:40]
		return 1, address{binary.BigEndian.Uint64(s), binary.BigEndian.Uint64(s[8:])}, address{binary.BigEndian.Uint64(d), binary.BigEndian.Uint64(d[8:])}
	}
	return -1, src, dst
}
