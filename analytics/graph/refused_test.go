package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"causeway/analytics/store"
)

// TestWrongQueries: each is refused with an answer that says why, and no data; the store is not asked.
func TestWrongQueries(t *testing.T) {
	s := serve(t, nil)
	traffic := func(args string) string {
		return about("magicTransitTunnelTrafficAdaptiveGroups(" + args + ") { sum { bits } }")
	}
	packets := func(filter string) string {
		return about("magicTransitNetworkAnalyticsAdaptiveGroups(limit: 1, filter: {" + filter + "}) { sum { bits } }")
	}
	for _, c := range []struct{ query, want string }{
		{traffic(`filter: {}`), `\"limit\"`},
		{traffic(`filter: {}, limit: 0`), "limit: 0 is not a whole number from 1 to 10000"},
		{traffic(`filter: {}, limit: 10001`), "limit: 10001 is not"},
		{traffic(`filter: {}, limit: -1`), "limit: -1 is not"},
		{traffic(`filter: {}, limit: 1.5`), "limit: 1.5 is not"},
		{traffic(`filter: {}, limit: "7"`), "is not a whole number"},
		{traffic(`filter: {}, limit: 99999999999999999999`), "is not a whole number below 2^63"},
		{traffic(`filter: {}, limit: 0x10`), "is not a whole number"},
		{traffic(`limit: 1`), "filter: is required"},
		{traffic(`limit: 1, filter: null`), "filter: is required"},
		{traffic(`limit: 1, filter: {datetime_geq: "yesterday"}`), `filter: datetime_geq: \"yesterday\" is not a time`},
		{traffic(`limit: 1, filter: {datetime_geq: 1700000000}`), "is not a time"},
		{traffic(`limit: 1, filter: {datetime_geq: "1969-12-31T00:00:00Z"}`), "is not a time"},
		{traffic(`limit: 1, filter: {datetime_geq: "9999-12-31T00:00:00Z"}`), "is not a time"},
		{traffic(`limit: 1, filter: {datetime_geq: "-1 parsec"}`), "is not a time"},
		{traffic(`limit: 1, filter: {date: "2026-02-30"}`), "is not a day"},
		{traffic(`limit: 1, filter: {tunnelName: 5}`), "filter: tunnelName: 5 is not text in quotes"},
		{traffic(`limit: 1, filter: {tunnelName_in: ["a", null]}`), "found null"},
		{traffic(`limit: 1, filter: {nonsense: 1}`), "nonsense"},
		{traffic(`limit: 1, filter: {datetime_like: "2%"}`), "datetime_like"},
		{traffic(`limit: 1, filter: {}, orderBy: [nonsense_ASC]`), "nonsense_ASC"},
		{traffic(`limit: 1, filter: {}, orderBy: [tunnelName_ASC]`), "ask for it in dimensions as well"},
		{traffic(`limit: 1, filter: {}, nonsense: 1`), "nonsense"},
		{traffic(`limit: 1, filter: {OR: {` + strings.Repeat("AND: {", 11) + strings.Repeat("}", 13)), "nested deeper than 10"},
		{traffic(`limit: 1, filter: {AND: [` + strings.Repeat(`{tunnelName: "a"}`, 257) + `]}`), "more than 256 comparisons"},
		{traffic(`limit: 1, filter: {tunnelName_in: [` + strings.Repeat(`"a",`, 1001) + `]}`), "or 1000 listed values"},
		{packets(`sourcePort: 65536`), "sourcePort: 65536 is not a whole number from 0 to 65535"},
		{packets(`sourcePort: -1`), "is not a whole number"},
		{packets(`ipTtl_in: [1, 256]`), "to 255"},
		{packets(`sourceAsn: 4294967296`), "to 4294967295"},
		{packets(`sourceAsn: true`), "is not a whole number"},
		{about(`magicTransitNetworkAnalyticsAdaptiveGroups(limit: 1, filter: {}) { confidence(level: 1) { level } }`),
			"level: 1 is not a number from 0.5 to 0.999"},
		{about(`nonsense { x }`), "nonsense"},
		{about(`magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {})`), "selection of subfields"},
		{`{ viewer { accounts { settings { __typename } } } }`, "accountTag is required"},
		{`{ viewer { accounts(filter: {accountTag: 5}) { settings { __typename } } } }`, "accountTag: 5 is not text"},
		{`mutation { viewer { __typename } }`, "mutation"},
		{`{ viewer {`, "syntax error"},
		{`{}`, "syntax error"},
		{`query A { viewer { __typename } } query B { viewer { __typename } }`, "more than one operation"},
		{`{ viewer { __typename ...A } } fragment A on viewer { ...A }`, "too much"},
		{`{ viewer { __typename ` + strings.Repeat("a: __typename ", 999) + strings.Repeat("... { __typename } ", 100), "syntax"},
		{`{ ` + strings.Repeat("... {", 70) + "viewer { __typename }" + strings.Repeat("}", 71), "could not be read"},
		{`{ __schema { types ` + strings.Repeat("{ ofType ", 18) + "{ name }" + strings.Repeat("}", 20), "depth"},
		{`"`, "syntax error"},
		{"{ \x00 }", "syntax error"},
	} {
		status, body := s.post(tokenA, c.query, nil)
		if status != 200 || !strings.HasPrefix(body, `{"data":null,"errors":[{"message":`) || !strings.Contains(body, c.want) {
			// Confidence is checked when the store has answered.
			t.Errorf("%.100s\n%d %.400s\nwant %s", c.query, status, body, c.want)
		}
	}
	if asked := s.store.asked(); len(asked) != 1 {
		t.Errorf("the store was asked %d times", len(asked))
	}
}

// TestRefusedRequests: what is wrong before GraphQL begins has a status of HTTP.
func TestRefusedRequests(t *testing.T) {
	s := serve(t, nil)
	many, _ := json.Marshal(map[string]any{"query": bandwidth, "variables": map[string]any{"x": make([]int, 2001)}})
	const ok = `{"query":"{viewer{__typename}}"}`
	for _, c := range []struct {
		method, path, token, kind, body string
		status                          int
		code                            string
	}{
		{"POST", Path, tokenA, "application/json; charset=utf-8", ok, 200, ""},
		{"GET", Path, tokenA, "", "", 405, "method"},
		{"PUT", StreamPath, tokenA, "application/json", ok, 405, "method"},
		{"POST", "/client/v4/other", tokenA, "application/json", ok, 404, "not_found"},
		{"POST", Path, "", "application/json", ok, 401, "authn"},
		{"POST", Path, "short", "application/json", ok, 401, "authn"},
		{"POST", Path, tokenA[1:] + "x", "application/json", ok, 401, "authn"},
		{"POST", Path, hashOf(tokenA), "application/json", ok, 401, "authn"},
		{"POST", StreamPath, tokenA + "x", "application/json", ok, 401, "authn"},
		{"POST", Path, tokenA, "text/plain", ok, 415, "media_type"},
		{"POST", Path, tokenA, "", ok, 415, "media_type"},
		{"POST", Path, tokenA, "application/json", ok[:9], 400, "body"},
		{"POST", Path, tokenA, "application/json", ok + ok, 400, "body"},
		{"POST", Path, tokenA, "application/json", "[]", 400, "body"},
		{"POST", Path, tokenA, "application/json", `{"query":5}`, 400, "body"},
		{"POST", Path, tokenA, "application/json", "{}", 400, "body"},
		{"POST", Path, tokenA, "application/json", strings.Repeat("[", 20000), 400, "body"},
		{"POST", Path, tokenA, "application/json", string(many), 400, "body"},
		{"POST", Path, tokenA, "application/json", `{"query":"` + strings.Repeat(" ", 17<<10) + `"}`, 400, "body"},
		{"POST", Path, tokenA, "application/json", `{"query":"` + strings.Repeat(" ", 65<<10) + `"}`, 413, "size"},
		{"GET", StreamPath + "?interval=0&query=x", tokenA, "", "", 400, "interval"},
		{"GET", StreamPath + "?interval=61&query=x", tokenA, "", "", 400, "interval"},
		{"GET", StreamPath, tokenA, "", "", 400, "query"},
		{"GET", StreamPath + "?query=x&variables=5", tokenA, "", "", 400, "variables"},
	} {
		status, body, _ := s.send(c.method, c.path, c.token, c.kind, c.body)
		want := `"extensions":{"code":"` + c.code + `"}`
		if status != c.status || c.code != "" && (!strings.HasPrefix(body, `{"data":null,"errors":[{"message":"`) || !strings.Contains(body, want)) {
			t.Errorf("%s %s %.60s: %d %.200s, want %d %s", c.method, c.path, c.body, status, body, c.status, c.code)
		}
	}
}

// TestVariablesAreBounded: the library looks for names that are like those it does not know.
func TestVariablesAreBounded(t *testing.T) {
	s := serve(t, nil)
	filter := map[string]any{}
	for i := range 190 {
		filter[fmt.Sprintf("nonsense%d", i)] = 1
	}
	_, body := s.post(tokenA, `query Q($f: AccountMagicTransitNetworkAnalyticsAdaptiveGroupsFilter_InputObject!) {
		viewer { accounts(filter: {accountTag: "acme"}) { magicTransitNetworkAnalyticsAdaptiveGroups(limit: 1, filter: $f) { sum { bits } } } } }`,
		map[string]any{"f": filter})
	if n := strings.Count(body, `"message"`); n != maxErrors {
		t.Errorf("%d errors", n)
	}
	for i := range 20 {
		filter[fmt.Sprintf("more%d", i)] = 1
	}
	if status, body := s.post(tokenA, bandwidth, map[string]any{"f": filter}); status != 400 || !strings.Contains(body, "200 names") {
		t.Error(status, body)
	}
}

// TestSlow: the store is told to stop, and the client reads why.
func TestSlow(t *testing.T) {
	s := serve(t, func(o *Options) { o.Timeout = 10 * time.Millisecond })
	s.store.answer = func(ctx context.Context, _ *store.Query) (*store.Answer, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	status, body := s.post(tokenA, bandwidth, times6)
	if status != 504 || !strings.Contains(body, `{"data":null,"errors":[{"message":"the query took longer than 10ms`) {
		t.Error(status, body)
	}
}

// TestStoreFails: its words, which may name tables and paths, are not the client's business.
func TestStoreFails(t *testing.T) {
	s := serve(t, nil)
	for name, answer := range map[string]func(context.Context, *store.Query) (*store.Answer, error){
		"error": func(context.Context, *store.Query) (*store.Answer, error) { return nil, errors.New("secret") },
		"panic": func(context.Context, *store.Query) (*store.Answer, error) { panic("secret") },
		"rows":  rows(101, 1),
		"width": func(context.Context, *store.Query) (*store.Answer, error) {
			return &store.Answer{Groups: []store.Group{{}}}, nil
		},
		"type": func(_ context.Context, q *store.Query) (*store.Answer, error) {
			return &store.Answer{Groups: []store.Group{{Values: []any{"a", "secret"}, Measures: []float64{1}}}}, nil
		},
	} {
		s.store.answer = answer
		status, body := s.post(tokenA, bandwidth, times6)
		if status != 200 || !strings.HasPrefix(body, `{"data":null,"errors":[{"message":"`) ||
			strings.Contains(body, "secret") || !strings.Contains(body, "log says") {
			t.Error(name, status, body)
		}
	}
}

// TestStoreRefuses: what is wrong with the question is told, and not logged.
func TestStoreRefuses(t *testing.T) {
	s := serve(t, nil)
	s.store.answer = func(context.Context, *store.Query) (*store.Answer, error) {
		return nil, fmt.Errorf("day 1: %w", store.Refusal("rows are kept for each 1m only"))
	}
	if status, body := s.post(tokenA, bandwidth, times6); status != 200 || !strings.Contains(body, `"message":"rows are kept for each 1m only"`) {
		t.Error(status, body)
	}
}

// TestLargeAnswers: neither many rows of many fields nor many datasets are written.
func TestLargeAnswers(t *testing.T) {
	s := serve(t, nil)
	s.store.answer = rows(10000, 1)
	fields := ""
	for i := range 300 {
		fields += fmt.Sprintf(" a%d: packets", i)
	}
	_, body := s.post(tokenA, about("magicTransitTunnelTrafficAdaptiveGroups(limit: 10000, filter: {}) { sum {"+fields+"} }"), nil)
	if !strings.Contains(body, "more than 1,000,000 values") {
		t.Errorf("%.200s", body)
	}
	s.store.answer = rows(1, 1)
	fields = ""
	for i := range 33 {
		fields += fmt.Sprintf(" a%d: magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {}) { resolution }", i)
	}
	if _, body := s.post(tokenA, about(fields), nil); !strings.Contains(body, "more than 32 datasets") {
		t.Errorf("%.200s", body)
	}
}

// TestRate: 3 queries in five minutes, of each token, at any time.
func TestRate(t *testing.T) {
	s := serve(t, func(o *Options) { o.Rate = 3 })
	now := time.Unix(1e9, 0)
	s.now = func() time.Time { return now }
	ask := func(token string) int {
		status, _, header := s.send("POST", Path, token, "application/json", `{"query":"{viewer{__typename}}"}`)
		if status == 429 && header.Get("Retry-After") != "240" {
			t.Errorf("retry after %s", header.Get("Retry-After"))
		}
		return status
	}
	got := fmt.Sprint(ask(tokenA), ask(tokenA))
	now = now.Add(time.Minute)
	got += fmt.Sprint(" ", ask(tokenA), ask(tokenA), ask(tokenAB))
	now = now.Add(4 * time.Minute)
	got += fmt.Sprint(" ", ask(tokenA), ask(tokenA))
	if got != "200 200 200 429 200 200 200" {
		t.Error(got)
	}
	now = now.Add(10 * time.Minute)
	if ask(tokenAll); len(s.rate.spent) != 1 {
		t.Errorf("%d tokens are remembered", len(s.rate.spent))
	}
}

// TestSlots: all places, and those of one.
func TestSlots(t *testing.T) {
	s := newSlots(3, 2)
	a, b := key{1}, key{2}
	take := func(k key, wait time.Duration) bool { return s.take(context.Background(), k, wait) }
	if !take(a, 0) && !take(a, time.Minute) || !take(a, time.Minute) || take(a, time.Millisecond) || !take(b, time.Minute) || take(b, time.Millisecond) {
		t.Error("not two of one and three of all")
	}
	go s.free(a)
	if !take(b, time.Minute) {
		t.Error("who waits was not woken")
	}
	s.free(a)
	s.free(b)
	s.free(b)
	if s.sum != 0 || len(s.used) != 0 {
		t.Errorf("%d are used by %d", s.sum, len(s.used))
	}
}

// TestBusy: one token cannot take all places.
func TestBusy(t *testing.T) {
	s := serve(t, func(o *Options) { o.Concurrent, o.Rate = 2, 1000 })
	s.running.take(context.Background(), hashed(tokenA), time.Minute)
	if status, _ := s.post(tokenAB, bandwidth, times6); status != 200 {
		t.Error(status)
	}
	s.running.take(context.Background(), hashed(tokenAB), time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if s.running.take(ctx, hashed(tokenAll), time.Minute) {
		t.Error("a third place")
	}
}

// TestOtherSites: where no token is asked for, a page of another site gets nothing, not even work done.
func TestOtherSites(t *testing.T) {
	for site, want := range map[string]int{"": 200, "same-origin": 200, "none": 200, "cross-site": 403, "same-site": 403} {
		h, err := New(Options{Store: &fakeStore{}, Open: true})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1"+Path, strings.NewReader(`{"query": "{ __typename }"}`))
		r.Header.Set("Content-Type", "application/json")
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%q: %d %s", site, w.Code, w.Body)
		}
	}
}
