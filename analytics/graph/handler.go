package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	qlerrors "github.com/graph-gophers/graphql-go/errors"

	"causeway/analytics/store"
)

// Bounds of a request.
const (
	maxBody      = 64 << 10 // bytes
	maxVariables = 2000     // values in variables, the inner ones counted
	maxNames     = 200      // of variables and of fields in them
	maxErrors    = 20       // of an answer
	readTime     = 10 * time.Second
	queueTime    = 2 * time.Second // that a query waits for its turn
)

// params are what a client sends.
type params struct {
	Query         string         `json:"query"`
	OperationName string         `json:"operationName"`
	Variables     map[string]any `json:"variables"`
}

func (h *Handler) serveQuery(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "method", r.Method+" is not served here: send the query by POST, as JSON")
		return
	}
	g, ok := h.admit(w, r)
	if !ok {
		return
	}
	p, ok := posted(w, r)
	if !ok {
		return
	}
	if !h.running.take(r.Context(), g.hash, queueTime) {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "busy", "too many queries run at once: try again")
		return
	}
	body, status := h.execute(r.Context(), p, g, false)
	h.running.free(g.hash)
	answer(w, status, body)
}

// admit finds out who asks, and whether he has asked too often.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request) (grant, bool) {
	if h.options.Open {
		if !loopback(r.Host) {
			refuse(w, http.StatusMisdirectedRequest, "host",
				"without tokens only names of loopback are served, such as localhost: configure analytics.tokens")
			return grant{}, false
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
			refuse(w, http.StatusForbidden, "site", "without tokens pages of other sites are not served")
			return grant{}, false
		}
		return grant{accounts: []string{store.Operator}, name: "loopback"}, true
	}
	g, ok := h.options.Tokens.find(bearer(r))
	if !ok {
		w.Header().Set("WWW-Authenticate", `Bearer realm="causeway analytics"`)
		refuse(w, http.StatusUnauthorized, "authn", "no valid token: send the header `Authorization: Bearer TOKEN`")
		return g, false
	}
	if wait := h.rate.spend(g.hash, h.now()); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		refuse(w, http.StatusTooManyRequests, "rate",
			fmt.Sprintf("more than %d queries in five minutes: wait, or ask for several datasets in one query", h.options.Rate))
		return g, false
	}
	return g, true
}

// bearer is the token of a request (RFC 6750, 2.1), or nothing.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// loopback reports whether a Host header names this machine in a way that nobody else's DNS can.
func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && a.IsLoopback()
}

// posted reads the body. Browsers send application/json to other origins only when these have agreed, which we never do.
func posted(w http.ResponseWriter, r *http.Request) (*params, bool) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "media_type", "send the query as application/json")
		return nil, false
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(readTime)) // not every ResponseWriter has one
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		_ = c.SetReadDeadline(time.Time{}) // else what is left of the body has no more time either
	}
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		refuse(w, http.StatusRequestEntityTooLarge, "size", "the body is longer than 64 KiB")
		return nil, false
	}
	p := &params{}
	if err == nil {
		err = parseParams(body, p)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "body", err.Error())
		return nil, false
	}
	return p, true
}

// parseParams reads the JSON of a body.
func parseParams(body []byte, p *params) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // a float64 has not all of uint64
	if err := d.Decode(p); err != nil {
		return fmt.Errorf(`the body is not JSON as {"query": "...", "variables": {...}}: %w`, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("the body goes on after its JSON")
	}
	return p.check()
}

// parseVariables reads the JSON of the parameter of that name.
func parseVariables(v string, p *params) error {
	if len(v) > maxBody {
		return errors.New("variables are longer than 64 KiB")
	}
	d := json.NewDecoder(strings.NewReader(v))
	d.UseNumber()
	if err := d.Decode(&p.Variables); err != nil {
		return fmt.Errorf("variables are not a JSON object: %w", err)
	}
	return nil
}

// check bounds what a client sent, before the library looks at it: of names that it does not know it looks for similar ones.
func (p *params) check() error {
	all, names := size(p.Variables)
	switch {
	case p.Query == "":
		return errors.New(`there is no query: {"query": "..."}`)
	case len(p.Query) > maxQuery:
		return fmt.Errorf("the query is longer than %d bytes: move values into variables, or ask twice", maxQuery)
	case all > maxVariables || names > maxNames:
		return fmt.Errorf("there are more than %d values or %d names in variables", maxVariables, maxNames)
	}
	return nil
}

// size counts the values that variables consist of, and the names of those in objects.
func size(v any) (all, names int) {
	all = 1
	add := func(x any) {
		n, m := size(x)
		all, names = all+n, names+m
	}
	switch v := v.(type) {
	case map[string]any:
		names = len(v)
		for _, x := range v {
			add(x)
		}
	case []any:
		for _, x := range v {
			add(x)
		}
	}
	return all, names
}

// refuse answers without having executed anything.
func refuse(w http.ResponseWriter, status int, code, message string) {
	e := qlerrors.Errorf("%s", message)
	e.Extensions = map[string]any{"code": code}
	answer(w, status, encode(nil, []*qlerrors.QueryError{e}))
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

// encode is the answer as the product has it: data first, and errors null if there are none.
func encode(data []byte, errs []*qlerrors.QueryError) []byte { return encodePart(data, errs, nil) }

// missingNode is a node whose rows an answer does not have, as clients read it.
type missingNode struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

// encodePart is an answer that lacks the rows of some nodes: extensions name them, which clients that do not know it pass over.
func encodePart(data []byte, errs []*qlerrors.QueryError, missing map[string]string) []byte {
	if len(data) == 0 {
		data = []byte("null")
	}
	list, err := json.Marshal(errs[:min(len(errs), maxErrors)])
	if err != nil { // nothing in an error cannot be encoded
		list = []byte(`[{"message":"` + internalError + `"}]`)
	}
	var b bytes.Buffer
	b.Grow(len(data) + len(list) + 24)
	b.WriteString(`{"data":`)
	b.Write(data)
	b.WriteString(`,"errors":`)
	b.Write(list)
	if len(missing) > 0 {
		var nodes []missingNode
		for _, name := range slices.Sorted(maps.Keys(missing)) {
			nodes = append(nodes, missingNode{name, missing[name]})
		}
		text, _ := json.Marshal(nodes) // which cannot fail
		b.WriteString(`,"extensions":{"missingNodes":`)
		b.Write(text)
		b.WriteString("}")
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func failure(message string) []byte {
	return encode(nil, []*qlerrors.QueryError{qlerrors.Errorf("%s", message)})
}

// stack is where a panic came from.
func stack() string {
	b := make([]byte, 8<<10)
	return string(b[:runtime.Stack(b, false)])
}
