package graph

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"causeway/analytics/store"
)

// listen opens a stream, and returns its events one by one: "next DATA", "complete ", or ":" for a comment.
func (s *service) listen(ctx context.Context, token, query string) (int, func() string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+StreamPath+"?query="+url.QueryEscape(query), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	return res.StatusCode, func() string {
		var event strings.Builder
		for lines.Scan() {
			switch name, value, _ := strings.Cut(lines.Text(), ":"); {
			case lines.Text() == "":
				return event.String()
			case name == "":
				event.WriteString(":")
			case name == "event":
				event.WriteString(strings.TrimSpace(value) + " ")
			default:
				event.WriteString(strings.TrimSpace(value))
			}
		}
		return "end"
	}
}

const live = `{ viewer { accounts(filter: {accountTag: "acme"}) {
	magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {datetime_geq: "-30m"}) { sum { bits } } } } }`

// TestStream: an event when the answer changes and not else, comments in between, and an end when the token is removed.
func TestStream(t *testing.T) {
	s := serve(t, nil)
	var bits atomic.Int64
	s.store.answer = func(ctx context.Context, q *store.Query) (*store.Answer, error) {
		return rows(1, float64(bits.Load()))(ctx, q)
	}
	status, next := s.listen(t.Context(), tokenA, live)
	event := func(n string) string {
		return `next {"data":{"viewer":{"accounts":[{"magicTransitTunnelTrafficAdaptiveGroups":[{"sum":{"bits":` + n + `}}]}]}},"errors":null}`
	}
	if got := next(); status != 200 || got != event("0") {
		t.Fatal(status, got)
	}
	if got := next(); got != ":" {
		t.Fatal(got) // nothing changed
	}
	bits.Store(5)
	if got := next(); got != event("5") && (got != ":" || next() != event("5")) {
		t.Fatal(got)
	}
	if err := os.WriteFile(s.options.Tokens.path, []byte(hashOf(tokenAB)+" acme"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.options.Tokens.Reload(); err != nil {
		t.Fatal(err)
	}
	got := next()
	for got == ":" {
		got = next()
	}
	if got != "complete " || next() != "end" {
		t.Error(got)
	}
}

// TestStreamLosesAccount: what a token allows is looked up each time.
func TestStreamLosesAccount(t *testing.T) {
	s := serve(t, nil)
	_, next := s.listen(t.Context(), tokenA, live)
	next()
	if err := os.WriteFile(s.options.Tokens.path, []byte(hashOf(tokenA)+" beta"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.options.Tokens.Reload(); err != nil {
		t.Fatal(err)
	}
	got := next()
	for got == ":" {
		got = next()
	}
	if !strings.HasPrefix(got, `next {"data":null`) || !strings.Contains(got, "not authorized") {
		t.Error(got)
	}
}

// TestStreamEnds: of a wrong query at once; of a right one when the handler closes.
func TestStreamEnds(t *testing.T) {
	s := serve(t, nil)
	_, next := s.listen(t.Context(), tokenA, "{ nonsense }")
	if got := next(); !strings.HasPrefix(got, `next {"data":null,"errors":[`) {
		t.Error(got)
	}
	if got := next(); got != "complete " || next() != "end" {
		t.Error(got)
	}
	_, next = s.listen(t.Context(), tokenA, live)
	next()
	s.Close()
	got := next()
	for got == ":" {
		got = next()
	}
	if got != "complete " {
		t.Error(got)
	}
}

// TestStreamsAreBounded: of one token, and a place is free when its client has gone.
func TestStreamsAreBounded(t *testing.T) {
	s := serve(t, func(o *Options) { o.Streams = 4 })
	ctx, cancel := context.WithCancel(t.Context())
	_, next := s.listen(ctx, tokenA, live)
	next()
	if status, _ := s.listen(t.Context(), tokenA, live); status != 503 {
		t.Error(status)
	}
	if status, _ := s.listen(t.Context(), tokenAB, live); status != 200 {
		t.Error(status)
	}
	cancel()
	for range 1000 {
		s.streams.mu.Lock()
		left := s.streams.sum
		s.streams.mu.Unlock()
		if left == 1 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("the stream of a client that has gone is still there")
}

// TestStreamByPost: the body is that of a query, the interval a parameter.
func TestStreamByPost(t *testing.T) {
	s := serve(t, nil)
	s.Close() // it ends after the first event
	status, body, header := s.send("POST", StreamPath+"?interval=60", tokenA, "application/json", `{"query":"query($n: Int!) {viewer{__typename}}"}`)
	if status != 200 || header.Get("Content-Type") != "text/event-stream" || !strings.HasSuffix(body, "event: complete\ndata: \n\n") {
		t.Error(status, body)
	}
}

// TestSubscription: a subscription has the fields of a query, and is a stream of its answers.
func TestSubscription(t *testing.T) {
	s := serve(t, func(o *Options) { o.Tunnels = tunnelsOfTwo })
	var bits atomic.Int64
	s.store.answer = func(ctx context.Context, q *store.Query) (*store.Answer, error) {
		return rows(1, float64(bits.Load()))(ctx, q)
	}
	_, next := s.listen(t.Context(), tokenA, "subscription Live "+live)
	event := func(n string) string {
		return `next {"data":{"viewer":{"accounts":[{"magicTransitTunnelTrafficAdaptiveGroups":[{"sum":{"bits":` + n + `}}]}]}},"errors":null}`
	}
	if got := next(); got != event("0") {
		t.Fatal(got)
	}
	bits.Store(5)
	got := next()
	for got == ":" {
		got = next()
	}
	if got != event("5") {
		t.Error(got)
	}
	if q := s.store.asked()[0]; q.Account != "acme" || len(q.Measures) != 1 {
		t.Errorf("%+v", q)
	}
}

// TestSubscriptionsRefused: what is wrong with one is said, and the stream ends; elsewhere than in a stream it is not answered.
func TestSubscriptionsRefused(t *testing.T) {
	s := serve(t, nil)
	for query, want := range map[string]string{
		strings.Replace(live, "acme", "beta", 1):                                               "not authorized for that account",
		`{ viewer { nonsense } }`:                                                              "nonsense",
		`{ a: viewer { __typename } b: viewer { __typename } }`:                                "only one top level field",
		`{ viewer { accounts(filter: {accountTag: "acme"}) { ...A } } }`:                       "Unknown fragment",
		`($n: Int!) { viewer { __typename } } query B { viewer { a: x } }`:                     "x",
		`{ ` + strings.Repeat("... {", 70) + "viewer { __typename }" + strings.Repeat("}", 71): "could not be read",
	} {
		_, next := s.listen(t.Context(), tokenA, "subscription "+query)
		if got := next(); !strings.HasPrefix(got, `next {"data":null,"errors":[`) || !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
		if got := next(); got != "complete " || next() != "end" {
			t.Errorf("%s: %s", query, got)
		}
	}
	if len(s.store.asked()) != 0 {
		t.Error("the store was asked")
	}
	const both = `query A { viewer { __typename } } subscription B ` + live
	for name, want := range map[string]string{
		"A": `{"data":{"viewer":{"__typename":"viewer"}},"errors":null}`,
		"B": `{"data":null,"errors":[{"message":"a subscription is not answered here: send it to /client/v4/graphql/stream`,
	} {
		body, err := json.Marshal(map[string]any{"query": both, "operationName": name})
		if err != nil {
			t.Fatal(err)
		}
		if status, got, _ := s.send(http.MethodPost, Path, tokenA, "application/json", string(body)); status != 200 || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %d %s", name, status, got)
		}
	}
	if _, got := s.post(tokenA, "subscription "+live, nil); !strings.Contains(got, "client/v4/graphql/stream") {
		t.Error(got)
	}
	if !strings.Contains(Schema, "type Subscription {") {
		t.Error("the schema does not show subscriptions")
	}
	if _, body := s.post(tokenA, `{ __schema { subscriptionType { name fields { name } } } }`, nil); !strings.Contains(body, `{"name":"Subscription","fields":[{"name":"viewer"}]}`) {
		t.Error(body)
	}
}

// TestSubscriptionTakesLong: the time of a query is that of an answer to a subscription, and not the library's own second.
func TestSubscriptionTakesLong(t *testing.T) {
	s := serve(t, nil)
	s.store.answer = func(ctx context.Context, q *store.Query) (*store.Answer, error) {
		time.Sleep(1100 * time.Millisecond)
		return rows(1, 1)(ctx, q)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, next := s.listen(ctx, tokenA, "subscription "+live)
	if got := next(); !strings.Contains(got, `"bits":1`) {
		t.Error(got)
	}
	cancel()
	s = serve(t, func(o *Options) { o.Timeout = 20 * time.Millisecond })
	s.store.answer = func(ctx context.Context, _ *store.Query) (*store.Answer, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	_, next = s.listen(t.Context(), tokenA, "subscription "+live)
	if got := next(); !strings.Contains(got, "the query took longer than 20ms") || next() != "complete " {
		t.Error(got)
	}
}
