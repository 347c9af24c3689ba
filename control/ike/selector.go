package ike

import (
	"net/netip"
	"slices"

	"causeway/control/ike/message"
)

// maxPrefixes bounds what a child's selectors become in the dataplane.
const maxPrefixes = 64

var anything = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// selectorsOf writes prefixes as traffic selectors; none are anything of both families.
func selectorsOf(prefixes []netip.Prefix) []message.Selector {
	if len(prefixes) == 0 {
		prefixes = anything
	}
	out := make([]message.Selector, len(prefixes))
	for i, p := range prefixes {
		out[i] = message.Selector{FromPort: 0, ToPort: 65535, From: p.Masked().Addr(), To: lastOf(p)}
	}
	return out
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// narrow is what both sides want (RFC 7296, section 2.9). The dataplane knows addresses alone, so a selector with a protocol or
// ports permits nothing.
func narrow(ours, theirs []message.Selector) []message.Selector {
	var out []message.Selector
	for _, t := range theirs {
		if t.Protocol != 0 || t.FromPort != 0 || t.ToPort != 65535 {
			continue
		}
		for _, o := range ours {
			if o.From.Is4() != t.From.Is4() {
				continue
			}
			from, to := later(o.From, t.From), earlier(o.To, t.To)
			if from.Compare(to) > 0 {
				continue
			}
			n := message.Selector{FromPort: 0, ToPort: 65535, From: from, To: to}
			if !slices.Contains(out, n) && len(out) < maxPrefixes {
				out = append(out, n)
			}
		}
	}
	return out
}

func later(a, b netip.Addr) netip.Addr {
	if a.Compare(b) > 0 {
		return a
	}
	return b
}

func earlier(a, b netip.Addr) netip.Addr {
	if a.Compare(b) < 0 {
		return a
	}
	return b
}

// within reports whether all of list lies in one selector of the others each: whether a choice is part of an offer.
func within(list, offer []message.Selector) bool {
	return len(list) > 0 && !slices.ContainsFunc(list, func(s message.Selector) bool {
		return !slices.ContainsFunc(offer, func(o message.Selector) bool {
			return o.From.Is4() == s.From.Is4() && o.From.Compare(s.From) <= 0 && s.To.Compare(o.To) <= 0 &&
				s.From.Compare(s.To) <= 0 && s.Protocol == 0 && s.FromPort == 0 && s.ToPort == 65535
		})
	})
}

// prefixesOf writes selectors as prefixes for the dataplane; nil for anything. Not ok: they are more than maxPrefixes.
func prefixesOf(list []message.Selector) (out []netip.Prefix, ok bool) {
	for _, s := range list {
		for from := s.From; ; {
			p := largest(from, s.To)
			if out = append(out, p); len(out) > maxPrefixes {
				return nil, false
			}
			last := lastOf(p)
			if last.Compare(s.To) >= 0 {
				break
			}
			from = last.Next()
		}
	}
	if slices.Contains(out, anything[0]) && slices.Contains(out, anything[1]) {
		return nil, true
	}
	return out, true
}

// largest is the largest prefix that begins at from and does not go beyond to.
func largest(from, to netip.Addr) netip.Prefix {
	for bits := 0; ; bits++ {
		p := netip.PrefixFrom(from, bits)
		if p.Masked().Addr() == from && lastOf(p).Compare(to) <= 0 {
			return p
		}
	}
}
