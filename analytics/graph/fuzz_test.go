package graph

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"causeway/analytics/store"
)

// FuzzBody sends any body with the token of one account: the answer is JSON of the two keys, and no other account is asked for.
func FuzzBody(f *testing.F) {
	for _, query := range []string{bandwidth, health, introspection, live,
		`{ viewer { accounts(filter: {accountTag: "*"}) { settings { __typename } } } }`,
		"{ a(b: \"\"\"x\"\"\") @c(d: [-1.5e3, {e: $f}]) { ...g ... on h { i } } } # j", `query($x: [String!]! = ["\u{22}"]) { viewer { __typename } }`} {
		body, err := json.Marshal(map[string]any{"query": query, "variables": times6})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	fake := &fakeStore{answer: rows(1, 1)}
	h, err := New(Options{Store: fake, Tokens: tokensOf(f, hashOf(tokenA)+" acme"), Rate: 1 << 20, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		h.rate = newRate(1)
		r := httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+tokenA)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var answer map[string]json.RawMessage
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer["data"] == nil || answer["errors"] == nil || len(answer) != 2 {
			t.Errorf("%d %v %s", w.Code, err, w.Body)
		}
		if slices.ContainsFunc(fake.asked(), func(q *store.Query) bool { return q.Account != "acme" }) {
			t.Error("another account was asked for")
		}
		fake.queries = nil
	})
}

// FuzzTokens: what is admitted has a hash and accounts, and nothing of a line is in an error.
func FuzzTokens(f *testing.F) {
	f.Add([]byte(hashOf("a") + " acme,beta name\n# x\n\n" + hashOf("b") + " *\n"))
	f.Add([]byte("token acme\n" + hashOf("a") + " a,,b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		grants, err := parseTokens("f", data)
		lines := strings.Count(string(data), "\n") + 1
		if len(grants) > lines {
			t.Errorf("%d tokens in %d lines", len(grants), lines)
		}
		for _, g := range grants {
			if g.hash == (key{}) && !bytes.Contains(data, bytes.Repeat([]byte("0"), 64)) ||
				len(g.accounts) == 0 || slices.Contains(g.accounts, "") || g.name == "" {
				t.Errorf("%+v", g)
			}
			if g.covers("") || len(g.accounts) > 1 && g.covers(store.Operator) {
				t.Errorf("%+v covers too much", g)
			}
		}
		if err == nil {
			return
		}
		for _, word := range strings.Fields(string(data)) {
			if len(word) >= minToken && strings.Contains(err.Error(), word) {
				t.Errorf("%q is in %v", word, err)
			}
		}
	})
}
