package clickhouse

import (
	"fmt"
	"strconv"
	"strings"

	"causeway/analytics/store/query"
)

// escapes are the characters that cannot stand in a text literal, or in a field of TabSeparated, as they are. Both read them the same way.
var escapes = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\t", `\t`, "\n", `\n`, "\r", `\r`, "\x00", `\0`, "\b", `\b`, "\f", `\f`)

// quote is a text as a literal. There are no parameters in servers before 19.14.
func quote(s string) string { return "'" + escapes.Replace(s) + "'" }

// render puts literals in the place of the question marks of a statement.
func render(p query.Part) (string, error) {
	var b strings.Builder
	rest := p.SQL
	for _, arg := range p.Args {
		before, after, found := strings.Cut(rest, "?")
		if !found {
			return "", fmt.Errorf("clickhouse: a statement has fewer marks than its %d arguments", len(p.Args))
		}
		b.WriteString(before)
		switch v := arg.(type) {
		case string:
			b.WriteString(quote(v))
		case int64:
			b.WriteString(strconv.FormatInt(v, 10))
		case float64:
			b.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
		default:
			return "", fmt.Errorf("clickhouse: an argument is a %T", arg)
		}
		rest = after
	}
	if strings.Contains(rest, "?") {
		return "", fmt.Errorf("clickhouse: a statement has more marks than its %d arguments", len(p.Args))
	}
	b.WriteString(rest)
	return b.String(), nil
}

// fields takes a line of TabSeparated apart: text, or nil for null.
func fields(line string) ([]any, error) {
	var out []any
	for field := range strings.SplitSeq(line, "\t") {
		if field == `\N` {
			out = append(out, nil)
			continue
		}
		s, err := unescape(field)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		if i++; i == len(s) {
			return "", fmt.Errorf("clickhouse: the field %.40q ends in an escape", s)
		}
		c := s[i]
		if n := strings.IndexByte("tnr0bf", c); n >= 0 {
			c = "\t\n\r\x00\b\f"[n]
		}
		b = append(b, c)
	}
	return string(b), nil
}
