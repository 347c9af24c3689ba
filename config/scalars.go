package config

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// text returns a scalar that is text. Numbers and truth values are refused:
// 0x10, 1_000 or no would not mean what they look like.
func (v value) text() (string, bool) {
	switch v.node.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		v.fail("must be text, got %s: put it in quotes", v)
		return "", false
	}
	return v.textLike("text")
}

// textLike is text for what would be nothing better in quotes.
func (v value) textLike(what string) (string, bool) {
	switch n := v.node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	v.fail("must be %s, got %s", what, v)
	return "", false
}

// integer returns a whole number from low to high.
func (v value) integer(low, high int64) (int64, bool) { return v.integerOr("", low, high) }

// integerOr is integer of a field that may be something else too, which stands in front of the word for it.
func (v value) integerOr(otherwise string, low, high int64) (int64, bool) {
	i, ok := v.anyIntegerOr(otherwise, low, high)
	if ok && (i < low || i > high) {
		v.fail("must be %sa whole number from %d to %d, got %d", otherwise, low, high, i)
		return 0, false
	}
	return i, ok
}

// anyInteger returns a whole number of any size. The limits are for the message
// about what is none.
func (v value) anyInteger(low, high int64) (int64, bool) { return v.anyIntegerOr("", low, high) }

func (v value) anyIntegerOr(otherwise string, low, high int64) (int64, bool) {
	n, ok := v.node.(*ast.IntegerNode)
	if !ok {
		hint := ""
		if s, ok := v.node.(*ast.StringNode); ok {
			if _, err := strconv.ParseInt(s.Value, 10, 64); err == nil {
				hint = ": remove the quotes"
			}
		}
		v.fail("must be %sa whole number from %d to %d, got %s%s", otherwise, low, high, v, hint)
		return 0, false
	}
	raw := n.Token.Value
	if digits := strings.TrimLeft(raw, "+-"); len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		v.fail("%s begins with a zero, which some read as octal: write it without", raw)
		return 0, false
	}
	i, err := strconv.ParseInt(raw, 0, 64)
	if err != nil {
		v.fail("must be %sa whole number from %d to %d, got %s", otherwise, low, high, raw)
		return 0, false
	}
	return i, true
}

// durationBounds are what a duration may be, and why not less and not more.
type durationBounds struct {
	low, high         time.Duration
	tooShort, tooLong string
}

// duration returns a time with its unit, such as 90s, 1h30m or 7d. What else
// the value may be stands in front of the word for it.
func (v value) duration(b durationBounds, otherwise string) (time.Duration, bool) {
	n, ok := v.node.(*ast.StringNode)
	if !ok {
		hint := ""
		if _, number := v.node.(*ast.IntegerNode); number {
			hint = ": add a unit, s, m, h or d"
		}
		v.fail("must be %sa duration such as 30s, 8h or 1d, got %s%s", otherwise, v, hint)
		return 0, false
	}
	d, err := parseDuration(n.Value)
	switch {
	case err != nil:
		v.fail("must be %sa duration such as 30s, 8h or 1d, got %s", otherwise, quote(n.Value))
	case d < b.low:
		v.fail("%s is too short: write %s at least, since %s", plain(n.Value), spell(b.low), b.tooShort)
	case d > b.high:
		v.fail("%s is too long: write %s at most, since %s", plain(n.Value), spell(b.high), b.tooLong)
	default:
		return d, true
	}
	return 0, false
}

// parseDuration is time.ParseDuration with days, which stand first.
func parseDuration(s string) (time.Duration, error) {
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseUint(days, 10, 16) // 65535 days are less than a Duration holds
	if err != nil || rest == "" {
		return time.Duration(n) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(rest)
	if d < 0 || d >= 24*time.Hour {
		err = strconv.ErrRange
	}
	return time.Duration(n)*24*time.Hour + d, err
}

// spell writes a duration of one unit.
func spell(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	case d >= time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d%time.Second != 0:
		return strconv.Itoa(int(d/time.Millisecond)) + "ms"
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}

// boolean stores true or false in b.
func (v value) boolean(b *bool) {
	n, ok := v.node.(*ast.BoolNode)
	if !ok {
		v.fail("must be true or false, got %s", v)
		return
	}
	*b = n.Value
}

// word returns the index of the one of words that v is.
func (v value) word(words ...string) (int, bool) {
	if n, ok := v.node.(*ast.StringNode); ok {
		for i, w := range words {
			if n.Value == w {
				return i, true
			}
		}
	}
	v.fail("must be %s, got %s", oneOf("or", words), v)
	return 0, false
}

// isWord reports whether v is the text w.
func (v value) isWord(w string) bool {
	n, ok := v.node.(*ast.StringNode)
	return ok && n.Value == w
}

// nameLimit is what fits into a DNS label, a metric label and a table column.
const nameLimit = 63

const nameRule = "1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit"

// name returns the name of a node, an account or a tunnel.
func (v value) name() (string, bool) {
	s, ok := v.text()
	if !ok {
		return "", false
	}
	if !validName(s) {
		v.fail("%s is not a name: %s", quote(s), nameRule)
		return "", false
	}
	return s, true
}

func validName(s string) bool {
	if s == "" || len(s) > nameLimit || strings.ContainsRune("._-", rune(s[0])) {
		return false
	}
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// interfaceName returns a name that the kernel accepts for an interface
// (dev_valid_name in net/core/dev.c: at most 15 bytes).
func (v value) interfaceName() (string, bool) {
	s, ok := v.text()
	if !ok {
		return "", false
	}
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n\v\f\r") {
		v.fail("%s is not an interface name: 1 to 15 bytes without spaces, '/' and ':'", quote(s))
		return "", false
	}
	return s, true
}

// absolutePath returns the path of a file.
func (v value) absolutePath() (string, bool) {
	s, ok := v.textLike("an absolute path")
	if !ok {
		return "", false
	}
	if !strings.HasPrefix(s, "/") || strings.ContainsRune(s, 0) {
		v.fail("%s is not an absolute path: begin it with /", quote(s))
		return "", false
	}
	return s, true
}

// reserved are addresses that are never forwarded, and so belong to no
// endpoint, customer or route: RFC 6890, RFC 5771, RFC 4291 2.4.
var reserved = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified (0.0.0.0/8)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback (127.0.0.0/8)"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast (224.0.0.0/4)"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast (240.0.0.0/4)"},
	{netip.MustParsePrefix("::/128"), "unspecified (::)"},
	{netip.MustParsePrefix("::1/128"), "loopback (::1)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local (fe80::/10)"},
	{netip.MustParsePrefix("ff00::/8"), "multicast (ff00::/8)"},
}

// reservedName returns what p is when all of it is reserved.
func reservedName(p netip.Prefix) (string, bool) {
	for _, r := range reserved {
		if r.prefix.Contains(p.Addr()) && p.Bits() >= r.prefix.Bits() {
			return r.name, true
		}
	}
	return "", false
}

// address returns an IP address, of any kind.
func (v value) address() (netip.Addr, bool) {
	s, ok := v.textLike("an IP address such as 192.0.2.1 or 2001:db8::1")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		v.fail("%s is not an IP address: write it without the prefix length", quote(s))
	case err != nil:
		v.fail("%s is not an IP address: write one such as 192.0.2.1 or 2001:db8::1", quote(s))
	case a.Zone() != "":
		v.fail("%s has a zone: write %s", quote(s), a.WithZone(""))
	case a.Is4In6():
		v.fail("%s is an IPv4 address in IPv6 form: write %s", quote(s), a.Unmap())
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// unicast returns an address that can be reached over routers.
func (v value) unicast() (netip.Addr, bool) {
	a, ok := v.address()
	if !ok {
		return netip.Addr{}, false
	}
	kind, bad := reservedName(netip.PrefixFrom(a, a.BitLen()))
	if a.Is4() && a.IsLinkLocalUnicast() {
		kind, bad = "link-local (169.254.0.0/16)", true
	}
	if bad {
		v.fail("%s is %s: it must be a unicast address that routers reach", a, kind)
		return netip.Addr{}, false
	}
	return a, true
}

// anyPrefix returns an address with a prefix length; host bits may be set.
func (v value) anyPrefix(example string) (netip.Prefix, bool) {
	s, ok := v.textLike("an address with a prefix length such as " + example)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil && !strings.Contains(s, "/"):
		v.fail("%s has no prefix length: write one such as %s", quote(s), example)
	case err != nil:
		v.fail("%s is not an address with a prefix length: write one such as %s", quote(s), example)
	case p.Addr().Is4In6():
		v.fail("%s is IPv4 in IPv6 form: write it as IPv4", quote(s))
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// prefix returns a prefix without host bits of addresses that are forwarded.
func (v value) prefix() (netip.Prefix, bool) {
	p, ok := v.anyPrefix("203.0.113.0/24")
	if !ok {
		return netip.Prefix{}, false
	}
	if p != p.Masked() {
		v.fail("%s has bits set beyond its length: write %s, or %s/%d for the one address",
			p, p.Masked(), p.Addr(), p.Addr().BitLen())
		return netip.Prefix{}, false
	}
	if kind, bad := reservedName(p); bad {
		v.fail("%s is %s: such addresses are not forwarded", p, kind)
		return netip.Prefix{}, false
	}
	return p, true
}

// listen returns the address and port of a listener. An empty host means all
// addresses; host names other than localhost are refused, since what they mean
// is known only later and elsewhere.
func (v value) listen() (netip.AddrPort, bool) {
	s, ok := v.textLike("an address and a port such as 127.0.0.1:9150")
	if !ok {
		return netip.AddrPort{}, false
	}
	full := s
	switch host, port, _ := strings.Cut(s, ":"); host {
	case "":
		full = "[::]:" + port
	case "localhost":
		full = "127.0.0.1:" + port
	}
	ap, err := netip.ParseAddrPort(full)
	if err != nil || ap.Port() == 0 {
		v.fail("%s is not an address and a port: write one such as 127.0.0.1:9150 or [::1]:9150", quote(s))
		return netip.AddrPort{}, false
	}
	return ap, true
}
