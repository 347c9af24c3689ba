package clickhouse

import (
	"strings"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
	"causeway/analytics/store/storetest"
)

func aQuery() *store.Query {
	return &store.Query{Dataset: dataset.Traffic, Account: "acme", Limit: 1, Where: store.Where{Dimension: dataset.Traffic.Lookup("datetime"),
		Op: store.AtLeast, Values: []any{storetest.Noon.Add(-time.Minute)}}}
}

// literal reads a text literal as ClickHouse's documentation says: up to the first quote that no backslash stands before. It returns what
// follows too.
func literal(t testing.TB, s string) (text, rest string) {
	t.Helper()
	if !strings.HasPrefix(s, "'") {
		t.Fatalf("%q does not begin with a quote", s)
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '\'':
			return text, s[i+1:]
		case '\\':
			i++
			if i == len(s) {
				t.Fatalf("%q ends in a backslash", s)
			}
			c = s[i]
			if meant, ok := map[byte]string{'b': "\b", 'f': "\f", 'r': "\r", 'n': "\n", 't': "\t", '0': "\x00", '\\': `\`, '\'': "'"}[c]; ok {
				text += meant
				continue
			}
			t.Fatalf("%q has the escape %q", s, c)
		default:
			text += string([]byte{c})
		}
	}
	t.Fatalf("%q has no end", s)
	return "", ""
}

// A text is one literal, wherever it stands and whatever it has; and a field of a row comes back as it went.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "'", `\`, `\'`, `'; DROP TABLE samples; --`, "\x00\t\n\r\b\f", "ä\xff", "?", `\N`} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		sql, err := render(query.Part{SQL: "? ?", Args: []any{a, b}})
		if err != nil {
			t.Fatal(err)
		}
		first, rest := literal(t, sql)
		second, end := literal(t, strings.TrimPrefix(rest, " "))
		if first != a || second != b || end != "" {
			t.Errorf("%q and %q became %q", a, b, sql)
		}
		row, err := fields(escapes.Replace(a) + "\t" + escapes.Replace(b) + "\t\\N")
		if err != nil || len(row) != 3 || row[0] != a || row[1] != b || row[2] != nil {
			t.Errorf("%q and %q came back as %v, %v", a, b, row, err)
		}
	})
}

func TestRender(t *testing.T) {
	for _, x := range []struct {
		part query.Part
		want string // empty: an error
	}{
		{query.Part{SQL: "a = ? AND b < ?", Args: []any{int64(-5), 1.5}}, "a = -5 AND b < 1.5"},
		{query.Part{SQL: "a = ?", Args: []any{1.8446744073709552e19}}, "a = 1.8446744073709552e+19"},
		{query.Part{SQL: "a = ?"}, ""},
		{query.Part{SQL: "a", Args: []any{int64(1)}}, ""},
		{query.Part{SQL: "?", Args: []any{true}}, ""},
	} {
		if got, err := render(x.part); got != x.want || (err != nil) != (x.want == "") {
			t.Errorf("%+v: %q, %v", x.part, got, err)
		}
	}
	if _, err := fields(`a\`); err == nil {
		t.Error("half an escape was taken")
	}
}

// Whatever stands in a file of the buffer, it is read or refused.
func FuzzRecord(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, '1', '\n'})
	f.Add([]byte{9, 1})
	f.Fuzz(func(t *testing.T, text []byte) {
		record(text)
		chunks, _ := merge(nil, text)
		total := 0
		for _, c := range chunks {
			total += len(c.text)
		}
		if total > len(text) {
			t.Errorf("%d bytes came of %d", total, len(text))
		}
	})
}
