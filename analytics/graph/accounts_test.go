package graph

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/analytics/store"
)

func hashed(token string) key { return sha256.Sum256([]byte(token)) }

// TestAccounts: whatever way a query names accounts, the store is asked for those of the token alone.
func TestAccounts(t *testing.T) {
	const set = `magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {}) { sum { bits } }`
	s := serve(t, nil)
	of := func(tag string) string { return `accounts(filter: {accountTag: ` + tag + `})` }
	for _, c := range []struct {
		name, token, query string
		variables          map[string]any
		asked              string // accounts; empty: refused
	}{
		{"its own", tokenA, "{ viewer { " + of(`"acme"`) + " { " + set + " } } }", nil, "acme"},
		{"another's", tokenA, "{ viewer { " + of(`"beta"`) + " { " + set + " } } }", nil, ""},
		{"one that there is not", tokenA, "{ viewer { " + of(`"nobody"`) + " { " + set + " } } }", nil, ""},
		{"everybody's", tokenA, "{ viewer { " + of(`"*"`) + " { " + set + " } } }", nil, ""},
		{"nobody's", tokenA, "{ viewer { " + of(`""`) + " { " + set + " } } }", nil, ""},
		{"nobody's of all", tokenAll, "{ viewer { " + of(`""`) + " { " + set + " } } }", nil, ""},
		{"other case", tokenA, "{ viewer { " + of(`"ACME"`) + " { " + set + " } } }", nil, ""},
		{"variable", tokenA, "query($t: string) { viewer { " + of("$t") + " { " + set + " } } }", map[string]any{"t": "beta"}, ""},
		{"default", tokenA, `query($t: string = "beta") { viewer { ` + of("$t") + " { " + set + " } } }", nil, ""},
		{"list", tokenA, "query($t: string) { viewer { " + of("$t") + " { " + set + " } } }", map[string]any{"t": []string{"acme", "beta"}}, ""},
		{"in the filter", tokenA, about(strings.Replace(set, "{}", `{account: "beta"}`, 1)), nil, ""},
		{"two", tokenAB, "{ viewer { " + of(`"acme"`) + " { " + set + " } } v: viewer { b: " + of(`"beta"`) + " { " + set + " } } }", nil, "acme beta"},
		{"aliases, one another's", tokenA, "{ viewer { a: " + of(`"acme"`) + " { settings { __typename } } b: " + of(`"beta"`) + ` { ...F } } }
			fragment F on account { x: ` + set + ` y: ` + set + ` }`, nil, ""},
		{"fragments", tokenAB, "{ viewer { a: " + of(`"acme"`) + " { ...F } ...G } } fragment G on viewer { b: " + of(`"beta"`) + ` { ...F } }
			fragment F on account { x: ` + set + ` y: ` + set + ` }`, nil, "acme acme beta beta"},
		{"all of all", tokenAll, "{ viewer { " + of(`"*"`) + " { " + set + " } } }", nil, "*"},
		{"one of all", tokenAll, "{ viewer { " + of(`"beta"`) + " { " + set + " } } }", nil, "beta"},
	} {
		s.store.queries = nil
		_, body := s.post(c.token, c.query, c.variables)
		var asked []string
		for _, q := range s.store.asked() {
			asked = append(asked, q.Account)
		}
		slices.Sort(asked)
		if got := strings.Join(asked, " "); got != c.asked || (c.asked == "") != strings.HasPrefix(body, `{"data":null`) {
			t.Errorf("%s: asked for %q, want %q: %s", c.name, got, c.asked, body)
		}
	}
}

// tunnelsOfTwo are one tunnel of each account, with names that both have.
func tunnelsOfTwo() []Tunnel {
	var list []Tunnel
	for _, account := range []Text{"acme", "beta"} {
		for _, name := range []Text{"one", "two"} {
			list = append(list, Tunnel{TunnelName: name, Account: account, CustomerEndpoint: "of-" + account, Prefixes: []Text{}, IkeElsewhere: []Text{},
				Mtu: 1476, MssIPv4: 1436, Health: &TunnelHealth{State: "healthy"}, EspSas: []ESPSA{},
				IkeSas: []IKESA{{PeerIdentity: "router@" + account, Pairs: []IPsecPair{{SpiIn: 1 << 31, BytesIn: 1 << 40}}}}})
		}
	}
	list[3].Health = nil
	return list
}

// TestTunnelsOfAccounts: a token sees the tunnels of its account alone, whatever it filters by.
func TestTunnelsOfAccounts(t *testing.T) {
	s := serve(t, func(o *Options) { o.Tunnels = tunnelsOfTwo })
	for _, c := range []struct{ token, tag, filter, want string }{
		{tokenA, "acme", "", "one@acme two@acme"},
		{tokenA, "acme", `(filter: {tunnelName: "two"})`, "two@acme"},
		{tokenA, "acme", `(filter: {})`, "one@acme two@acme"},
		{tokenA, "acme", `(filter: {tunnelName: "none"})`, ""},
		{tokenA, "beta", "", "refused"},
		{tokenA, "*", "", "refused"},
		{tokenAB, "beta", `(filter: {tunnelName: "one"})`, "one@beta"},
		{tokenAll, "*", `(filter: {tunnelName: "one"})`, "one@acme one@beta"},
		{tokenAll, "beta", "", "one@beta two@beta"},
	} {
		_, body := s.post(c.token, `query($t: String) { viewer { accounts(filter: {accountTag: $t}) { causewayTunnels`+c.filter+
			` { tunnelName account customerEndpoint health { state } ikeSas { peerIdentity pairs { spiIn bytesIn } } } } } }`, map[string]any{"t": c.tag})
		var answer struct {
			Data *struct {
				Viewer struct {
					Accounts []struct {
						CausewayTunnels []struct {
							TunnelName, Account, CustomerEndpoint string
							IkeSas                                []struct{ PeerIdentity string }
						}
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		got := "refused"
		if answer.Data != nil {
			var names []string
			for _, x := range answer.Data.Viewer.Accounts[0].CausewayTunnels {
				if names = append(names, x.TunnelName+"@"+x.Account); x.CustomerEndpoint != "of-"+x.Account || x.IkeSas[0].PeerIdentity != "router@"+x.Account {
					t.Errorf("%+v", x)
				}
			}
			got = strings.Join(names, " ")
		}
		if got != c.want {
			t.Errorf("%s of %s%s: %q, want %q: %s", c.token[:1], c.tag, c.filter, got, c.want, body)
		}
	}
	_, body := s.post(tokenA, about(`causewayTunnels(filter: {tunnelName: "one"}) { mtu mssIPv4 health { state } ikeSas { pairs { spiIn bytesIn } } prefixes }`), nil)
	same(t, body, `{"data":{"viewer":{"accounts":[{"causewayTunnels":[{"mtu":1476,"mssIPv4":1436,"health":{"state":"healthy"},
		"ikeSas":[{"pairs":[{"spiIn":2147483648,"bytesIn":1099511627776}]}],"prefixes":[]}]}]}},"errors":null}`)
	_, body = s.post(tokenAB, `{ viewer { accounts(filter: {accountTag: "beta"}) { causewayTunnels(filter: {tunnelName: "two"}) { health { state } } } } }`, nil)
	same(t, body, `{"data":{"viewer":{"accounts":[{"causewayTunnels":[{"health":null}]}]}},"errors":null}`)
	if _, body = s.post(tokenA, about(`causewayTunnels(filter: {tunnelName: 5}) { mtu }`), nil); !strings.Contains(body, "tunnelName: 5 is not text") {
		t.Error(body)
	}
}

// TestTunnelsAreBounded: the node is asked once a second, whatever is asked of it, and large answers are refused before they are written.
func TestTunnelsAreBounded(t *testing.T) {
	asked, now := 0, time.Unix(1e9, 0)
	s := serve(t, func(o *Options) {
		o.Tunnels = func() []Tunnel {
			asked++
			return slices.Repeat(tunnelsOfTwo(), 2000)
		}
	})
	s.now = func() time.Time { return now }
	for range 3 {
		s.post(tokenA, about(`causewayTunnels { mtu } again: causewayTunnels { mtu }`), nil)
	}
	if asked != 1 {
		t.Errorf("the node was asked %d times within a second", asked)
	}
	now = now.Add(time.Second)
	if s.post(tokenA, about(`causewayTunnels { mtu }`), nil); asked != 2 {
		t.Errorf("a second later the node was asked %d times", asked)
	}
	_, body := s.post(tokenA, about(strings.Join(aliases(30), " ")), nil)
	if !strings.Contains(body, "more than 1,000,000 values") {
		t.Errorf("%.300s", body)
	}
	long := Tunnel{Prefixes: make([]Text, 2), IkeElsewhere: make([]Text, 3), EspSas: make([]ESPSA, 4), IkeSas: []IKESA{{Pairs: make([]IPsecPair, 5)}, {}}}
	if n := long.entries([]string{"prefixes", "ikeSas", "ikeSas.state", "ikeSas.pairs", "espSas", "ikeElsewhere"}); n != 1+2+3+4+5+2 {
		t.Errorf("%d entries", n)
	}
	if _, body = s.post(tokenA, about(strings.Join(aliases(33), " ")), nil); !strings.HasPrefix(body, `{"data":null`) {
		t.Errorf("%.300s", body)
	}
}

func aliases(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("x%d: causewayTunnels { mtu }", i))
	}
	return out
}

// TestListOfAccounts: a token reads the names of the accounts that it may see, and no others.
func TestListOfAccounts(t *testing.T) {
	s := serve(t, func(o *Options) { o.Accounts = func() []string { return []string{"gamma", "acme", "beta"} } })
	for token, want := range map[string]string{tokenA: `"acme"`, tokenAB: `"acme","beta"`, tokenAll: `"*","acme","beta","gamma"`} {
		_, body := s.post(token, `{ viewer { causewayAccounts } }`, nil)
		same(t, body, `{"data":{"viewer":{"causewayAccounts":[`+want+`]}},"errors":null}`)
	}
	s = serve(t, func(o *Options) { o.Open, o.Tokens = true, nil })
	_, body := s.post("", `{ viewer { causewayAccounts } }`, nil)
	same(t, body, `{"data":{"viewer":{"causewayAccounts":["*"]}},"errors":null}`)
}

// TestNoOracle: an account that is another's and one that there is not get the same answer.
func TestNoOracle(t *testing.T) {
	s := serve(t, nil)
	query := `{ viewer { accounts(filter: {accountTag: "%s"}) { settings { __typename } } } }`
	_, a := s.post(tokenA, fmt.Sprintf(query, "beta"), nil)
	_, b := s.post(tokenA, fmt.Sprintf(query, "nobody"), nil)
	if a != b || !strings.Contains(a, "not authorized for that account") {
		t.Error(a, b)
	}
}

// TestReload: a token that is removed is not admitted, one that is added is, and a file with errors changes nothing.
func TestReload(t *testing.T) {
	s := serve(t, nil)
	write := func(text string) error {
		if err := os.WriteFile(s.options.Tokens.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.options.Tokens.Reload()
	}
	status := func(token string) int { n, _ := s.post(token, "{ viewer { __typename } }", nil); return n }
	if err := write(tokenA + " acme"); err == nil || strings.Contains(err.Error(), tokenA) || status(tokenA) != 200 {
		t.Errorf("a bad file: %v, then %d", err, status(tokenA))
	}
	if err := write(hashOf(tokenAB) + " acme"); err != nil || status(tokenA) != 401 || status(tokenAB) != 200 {
		t.Errorf("%v, then %d and %d", err, status(tokenA), status(tokenAB))
	}
	if err := os.Chmod(s.options.Tokens.path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := s.options.Tokens.Reload(); err == nil || !strings.Contains(err.Error(), "others may read or change it (0640): chmod 600") {
		t.Error(err)
	}
	if _, err := LoadTokens(t.TempDir()); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Error(err)
	}
	if _, err := LoadTokens(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// TestTokensFile: all errors of a file, with their lines, and no text of it.
func TestTokensFile(t *testing.T) {
	h := hashOf(tokenA)
	_, err := parseTokens("f", []byte(strings.Join([]string{"# ok", h + " acme", h, "secret acme",
		h[1:] + " acme", hashOf("x") + " a,,b", hashOf("y") + " a,*",
		strings.ToUpper(h) + " beta", hashOf("z") + " a n more", "", "\t" + hashOf("w") + "\ta,b\tname\r"}, "\n")))
	want := `f:3: 1 fields: write SHA256 ACCOUNT[,ACCOUNT...] [NAME], with blanks between
f:4: the first field is not the SHA-256 of a token in 64 hex digits; never write the token itself
f:5: the first field is not the SHA-256 of a token in 64 hex digits; never write the token itself
f:6: the second field must be names of accounts with a comma between, none empty or longer than 255 bytes, or * alone
f:7: the second field must be names of accounts with a comma between, none empty or longer than 255 bytes, or * alone
f:8: the token of line 2 again: name all its accounts there
f:9: 4 fields: write SHA256 ACCOUNT[,ACCOUNT...] [NAME], with blanks between`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	grants, err := parseTokens("f", []byte(h+" acme\n"+hashOf("w")+"\ta,b\tname\r\n"))
	if err != nil || len(grants) != 2 || grants[0].name != h[:8] || grants[1].name != "name" || len(grants[1].accounts) != 2 {
		t.Errorf("%+v %v", grants, err)
	}
}

// TestOpen: without tokens all is shown, under names that only this machine has.
func TestOpen(t *testing.T) {
	s := serve(t, func(o *Options) { o.Open, o.Tokens = true, nil })
	query := about(`magicTransitTunnelTrafficAdaptiveGroups(limit: 1, filter: {}) { resolution }`)
	if _, body := s.post("", strings.ReplaceAll(query, "acme", "*"), nil); s.only().Account != store.Operator {
		t.Error(body)
	}
	for host, want := range map[string]int{"localhost:9151": 200, "127.0.0.1": 200, "[::1]:9151": 200, "::1": 200,
		"evil.example": 421, "127.0.0.1.evil.example:80": 421, "": 421, "192.0.2.1": 421} {
		r := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(`{"query":"{viewer{__typename}}"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Host = host
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
	}
}

// TestOptions: a handler without a decision about who may ask is none.
func TestOptions(t *testing.T) {
	f := &fakeStore{answer: rows(1, 1)}
	for _, o := range []Options{{}, {Store: f}, {Store: f, Open: true, Tokens: tokensOf(t)}, {Open: true}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

// TestCancelled: a client that goes away stops its query.
func TestCancelled(t *testing.T) {
	s := serve(t, nil)
	began, ended := make(chan struct{}), make(chan struct{})
	s.store.answer = func(ctx context.Context, _ *store.Query) (*store.Answer, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(context.Background())
	body, _ := json.Marshal(map[string]any{"query": live})
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, Path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+tokenA)
	go s.ServeHTTP(httptest.NewRecorder(), r)
	<-began
	cancel()
	<-ended
}
