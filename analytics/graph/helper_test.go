package graph

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// fakeStore remembers what it was asked, and answers with what answer returns.
type fakeStore struct {
	mu      sync.Mutex
	queries []*store.Query
	answer  func(ctx context.Context, q *store.Query) (*store.Answer, error)
}

func (f *fakeStore) Groups(ctx context.Context, q *store.Query) (*store.Answer, error) {
	f.mu.Lock()
	f.queries = append(f.queries, q)
	f.mu.Unlock()
	return f.answer(ctx, q)
}

func (f *fakeStore) asked() []*store.Query {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*store.Query{}, f.queries...)
}

// rows makes n groups of whatever is asked: values by type, measures counted up from first.
func rows(n int, first float64) func(context.Context, *store.Query) (*store.Answer, error) {
	return func(_ context.Context, q *store.Query) (*store.Answer, error) {
		out := &store.Answer{Resolution: time.Minute}
		for i := range n {
			g := store.Group{Rows: 100, PacketsVariance: 400, BitsVariance: 10000}
			for _, d := range q.By {
				g.Values = append(g.Values, sample(d, i))
			}
			for j := range q.Measures {
				g.Measures = append(g.Measures, first+float64(j))
			}
			out.Groups = append(out.Groups, g)
		}
		return out, nil
	}
}

func sample(d *dataset.Dimension, i int) any {
	switch d.Type {
	case dataset.String:
		return fmt.Sprintf("%s-%d", d.Name, i)
	case dataset.Time, dataset.Date:
		return time.Date(2021, 5, 12, 22, 0, 0, 0, time.UTC)
	}
	return uint64(i + 1)
}

const (
	tokenA   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	tokenAB  = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	tokenAll = "cccccccccccccccccccccccccccccccccccc"
)

func hashOf(token string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(token))) }

func tokensOf(t testing.TB, lines ...string) *Tokens {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// service is a handler behind a real HTTP server.
type service struct {
	*Handler
	store *fakeStore
	url   string
	t     testing.TB
}

func serve(t testing.TB, change func(*Options)) *service {
	t.Helper()
	f := &fakeStore{answer: rows(1, 327680)}
	o := Options{Store: f, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Rate: 1000000,
		Tokens: tokensOf(t, hashOf(tokenA)+" acme", hashOf(tokenAB)+" acme,beta two", "# all:", "", hashOf(tokenAll)+" * noc")}
	if change != nil {
		change(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	h.second = 5 * time.Millisecond
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	t.Cleanup(h.Close)
	return &service{h, f, s.URL, t}
}

// post sends a query, and returns the status and the body.
func (s *service) post(token, query string, variables map[string]any) (int, string) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		s.t.Fatal(err)
	}
	status, text, _ := s.send(http.MethodPost, Path, token, "application/json", string(body))
	return status, text
}

func (s *service) send(method, path, token, kind, body string) (int, string, http.Header) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(text), res.Header
}

// only returns the one query that the store was asked.
func (s *service) only() *store.Query {
	s.t.Helper()
	q := s.store.asked()
	if len(q) != 1 {
		s.t.Fatalf("the store was asked %d times", len(q))
	}
	return q[0]
}

// about asks for one field of account acme.
func about(field string) string {
	return `{ viewer { accounts(filter: {accountTag: "acme"}) { ` + field + ` } } }`
}

// same compares JSON, whatever the order of keys.
func same(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal([]byte(got), &g), json.Unmarshal([]byte(want), &w)); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	a, _ := json.Marshal(g)
	b, _ := json.Marshal(w)
	if string(a) != string(b) {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}
