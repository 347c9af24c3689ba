// Package match says which packets an operator wants to see. Its language is tcpdump's (pcap-filter(7)) as far as addresses, ports,
// protocols and lengths go, with what a tunnel node knows in addition: tunnels, accounts and what became of a packet.
//
//	host A, net P/N, port N, portrange N-M   of source or destination; src, dst, "src or dst", "src and dst" in front say which;
//	                                         ip, ip6, tcp, udp, sctp in front restrict the packets
//	ip, ip6, tcp, udp, sctp, icmp, icmp6, gre, esp, ah, proto N, ip proto N, ip6 proto N
//	less N, greater N                        the frame is so many bytes long, or shorter, or longer
//	tunnel NAME, account NAME                it came out of it (src), or goes into it (dst), or either
//	forwarded, delivered, punted, dropped    what became of it
//	reason LABEL                             it was dropped for that, by the label of `causeway show drops`
//
// not, and, or (!, &&, ||) and parentheses join them. As in tcpdump, not binds the strongest, and "and" and "or" are as strong as each
// other and are taken from left to right. A condition about headers holds if it does for the outer packet or for the inner one.
//
// A Program is made once, and asked by the workers: it allocates nothing, and takes a time bounded by MaxConditions.
package match

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Limits of an expression: MaxConditions bounds what a packet costs, MaxText what is parsed.
const (
	MaxConditions = 32
	MaxText       = 4096
)

// Names finds the numbers of what an expression names.
type Names struct {
	Tunnel  func(name string) (id int, ok bool)
	Account func(name string) (id int, ok bool)
	Reason  func(label string) (reason uint8, ok bool)
	Verdict func(word string) (uint8, bool)
}

// Parse makes a program of an expression; an empty one matches every packet. The error says which word is wrong.
func Parse(text string, names Names) (*Program, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("filter: %d bytes: %d are possible", len(text), MaxText)
	}
	p := &parser{words: split(text), names: names}
	if len(p.words) == 0 {
		return new(Program), nil
	}
	if err := p.expression(0); err != nil {
		return nil, err
	}
	if p.at < len(p.words) {
		return nil, p.wrong("", "and, or, or the end")
	}
	return &Program{p.ops}, nil
}

// split makes words. Parentheses and an exclamation mark in front are words of their own.
func split(text string) (words []string) {
	for _, f := range strings.Fields(text) {
		for f != "" {
			n := 1
			switch {
			case strings.HasPrefix(f, "&&"), strings.HasPrefix(f, "||"):
				n = 2
			case !strings.ContainsRune("()!", rune(f[0])):
				if n = strings.IndexAny(f, "()&|"); n <= 0 {
					n = len(f)
				}
			}
			words = append(words, f[:n])
			f = f[n:]
		}
	}
	return words
}

type parser struct {
	words []string
	at    int
	names Names
	ops   []op
}

// word is the next word, "" at the end.
func (p *parser) word() string {
	if p.at < len(p.words) {
		return p.words[p.at]
	}
	return ""
}

// take reports whether the next word is one of these, and goes beyond it.
func (p *parser) take(words ...string) bool {
	for _, w := range words {
		if p.word() == w {
			p.at++
			return true
		}
	}
	return false
}

// wrong is the error about the next word.
func (p *parser) wrong(what, want string) error {
	if what != "" {
		want = what + " wants " + want
	} else {
		want += " expected"
	}
	if p.at >= len(p.words) {
		return fmt.Errorf("filter: it ends too early: %s", want)
	}
	return fmt.Errorf("filter: word %d, %q: %s", p.at+1, p.words[p.at], want)
}

func (p *parser) add(o op) error {
	if o.kind > opNot {
		n := 0
		for _, x := range p.ops {
			if x.kind > opNot {
				n++
			}
		}
		if n == MaxConditions {
			return fmt.Errorf("filter: more than %d conditions", MaxConditions)
		}
	}
	p.ops = append(p.ops, o)
	return nil
}

// maxDepth bounds parentheses and repeated "not".
const maxDepth = 32

func (p *parser) expression(depth int) error {
	if err := p.term(depth); err != nil {
		return err
	}
	for {
		kind := opAnd
		switch {
		case p.take("and", "&&"):
		case p.take("or", "||"):
			kind = opOr
		default:
			return nil
		}
		if err := p.term(depth); err != nil {
			return err
		}
		if err := p.add(op{kind: kind}); err != nil {
			return err
		}
	}
}

func (p *parser) term(depth int) error {
	switch {
	case depth > maxDepth:
		return fmt.Errorf("filter: parentheses and negations are nested more than %d deep", maxDepth)
	case p.take("not", "!"):
		if err := p.term(depth + 1); err != nil {
			return err
		}
		return p.add(op{kind: opNot})
	case p.take("("):
		if err := p.expression(depth + 1); err != nil {
			return err
		}
		if !p.take(")") {
			return p.wrong("", "and, or, or a closing parenthesis")
		}
		return nil
	}
	return p.condition()
}

// protocols by name, as in tcpdump; gre is ours.
var protocols = map[string]int16{"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "sctp": 132}

// hasPorts are those that begin with a source and a destination port.
func hasPorts(proto uint8) bool { return proto == 6 || proto == 17 || proto == 132 }

func (p *parser) condition() error {
	o := op{proto: any}
	qualified := true
	switch w := p.word(); w {
	case "ip":
		o.family = 4
	case "ip6":
		o.family = 6
	case "icmp": // over IPv4 alone, as icmp6 is over IPv6
		o.family, o.proto = 4, 1
	case "icmp6":
		o.family, o.proto = 6, 58
	default:
		if n, ok := protocols[w]; ok {
			o.proto = n
		} else {
			qualified = false
		}
	}
	if qualified {
		p.at++
	}
	directed := p.direction(&o)
	switch w := p.word(); {
	case w == "host" || w == "net" || w == "port" || w == "portrange":
		p.at++
		return p.headers(w, o)
	case w == "proto" && !directed && o.proto == any:
		p.at++
		return p.protocol(o)
	case w == "tunnel" && !qualified:
		return p.named(o, opTunnel, p.names.Tunnel, "`causeway show tunnels` lists them")
	case w == "account" && !qualified:
		return p.named(o, opAccount, p.names.Account, "`causeway show tunnels` lists them")
	case directed:
		return p.wrong("a direction", "host, net, port, portrange, tunnel or account")
	case qualified:
		o.kind = opHeader
		return p.add(o)
	}
	return p.other()
}

// direction reads which end is meant.
func (p *parser) direction(o *op) bool {
	other := ""
	switch {
	case p.take("src"):
		o.dir, other = dirSrc, "dst"
	case p.take("dst"):
		o.dir, other = dirDst, "src"
	default:
		return false
	}
	if p.at+1 < len(p.words) && p.words[p.at+1] == other {
		switch {
		case p.take("or", "||"):
			o.dir = dirEither
			p.at++
		case p.take("and", "&&"):
			o.dir = dirBoth
			p.at++
		}
	}
	return true
}

func (p *parser) headers(what string, o op) error {
	w := p.word()
	switch what {
	case "host", "net":
		if what == "host" && o.proto != any || what == "net" && o.proto != any {
			return p.wrong(what, "ip or ip6 in front of it, or nothing: write `tcp and host` for both")
		}
		prefix, err := prefixOf(what, w)
		if err != nil {
			return p.wrong(what, err.Error())
		}
		if family := 4 + 2*btoi(prefix.Addr().Is6()); o.family != 0 && o.family != uint8(family) {
			return p.wrong(what, "an address of the family in front of it")
		} else {
			o.family = uint8(family)
		}
		o.setPrefix(prefix)
	default:
		if o.proto != any && !hasPorts(uint8(o.proto)) {
			return p.wrong(what, "tcp, udp, sctp, ip or ip6 in front of it, or nothing")
		}
		low, high, found := strings.Cut(w, "-")
		if what == "port" && found || what == "portrange" && !found {
			return p.wrong(what, map[bool]string{true: "one number: `portrange` takes two", false: "two numbers, as in 1000-2000"}[found])
		}
		if !found {
			high = low
		}
		a, err1 := strconv.ParseUint(low, 10, 16)
		b, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			return p.wrong(what, "numbers from 0 to 65535, the lower one first")
		}
		o.kind, o.low, o.high = opPort, uint32(a), uint32(b)
	}
	p.at++
	return p.add(o)
}

func prefixOf(what, w string) (netip.Prefix, error) {
	if what == "host" {
		a, err := netip.ParseAddr(w)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return netip.Prefix{}, fmt.Errorf("an IPv4 or IPv6 address: names are not looked up")
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(w)
	if err != nil || prefix.Addr().Is4In6() {
		return prefix, fmt.Errorf("a prefix, as in 198.18.0.0/16")
	}
	if prefix != prefix.Masked() {
		return prefix, fmt.Errorf("a prefix without host bits: %v", prefix.Masked())
	}
	return prefix, nil
}

func (p *parser) protocol(o op) error {
	w := strings.TrimPrefix(p.word(), `\`)
	n, ok := protocols[w]
	if !ok {
		v, err := strconv.ParseUint(w, 10, 8)
		if err != nil {
			return p.wrong("proto", "a number from 0 to 255, or one of icmp, tcp, udp, gre, esp, ah, icmp6, sctp")
		}
		n = int16(v)
	}
	p.at++
	o.kind, o.proto = opHeader, n
	return p.add(o)
}

func (p *parser) named(o op, kind opKind, find func(string) (int, bool), hint string) error {
	what := p.word()
	p.at++
	id, ok := 0, false
	if p.at < len(p.words) && find != nil {
		id, ok = find(p.word())
	}
	if !ok {
		return p.wrong(what, "the name of one that there is: "+hint)
	}
	p.at++
	o.kind, o.id = kind, int32(id)
	return p.add(o)
}

// other reads conditions without qualifiers.
func (p *parser) other() error {
	w := p.word()
	if v, ok := p.names.Verdict(w); ok {
		p.at++
		return p.add(op{kind: opVerdict, low: uint32(v)})
	}
	switch w {
	case "less", "greater":
		p.at++
		n, err := strconv.ParseUint(p.word(), 10, 16)
		if err != nil {
			return p.wrong(w, "a number of bytes, up to 65535")
		}
		p.at++
		if w == "less" {
			return p.add(op{kind: opLength, high: uint32(n)})
		}
		return p.add(op{kind: opLength, low: uint32(n), high: 1 << 16})
	case "reason":
		p.at++
		r, ok := uint8(0), false
		if p.at < len(p.words) && p.names.Reason != nil {
			r, ok = p.names.Reason(p.word())
		}
		if !ok {
			return p.wrong("reason", "the label of a reason: `causeway show drops -o json` lists them")
		}
		p.at++
		return p.add(op{kind: opReason, low: uint32(r)})
	}
	return p.wrong("", "a condition, such as host, net, port, proto, tcp, tunnel, account, dropped or reason,")
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
