// Package graph answers questions about traffic, tunnels and attacks in GraphQL, with the names of the product's own API, so that
// queries that were published for it run here unchanged.
//
//	POST /client/v4/graphql          {"query": ..., "variables": ..., "operationName": ...}
//	GET  /client/v4/graphql/stream   the same as parameters, or POST with the same body: repeated, by Server-Sent Events
//
// A request goes this way: handler.go admits it (token, rate, size), document.go looks how much it can ask for, the library
// validates and executes it, ask.go makes one store.Query of each dataset field, and row.go and types_gen.go write the groups. The
// schema and the types come from analytics/dataset.
package graph

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/graph-gophers/graphql-go"
	qlerrors "github.com/graph-gophers/graphql-go/errors"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

//go:generate go run ./generate

// Schema is the schema in GraphQL's own language.
//
//go:embed schema.graphql
var Schema string

// The paths that a Handler serves.
const (
	Path       = "/client/v4/graphql"
	StreamPath = "/client/v4/graphql/stream"
)

// Bounds of a document.
const (
	maxQuery      = 16 << 10 // bytes
	maxDepth      = 16       // data ends at 7; the introspection of common tools takes 15
	maxSelections = 2000     // with all fragments put in
	maxOverlaps   = 20000    // pairs of fields that might be one
	parallel      = 4        // queries of the store at once, of one request
)

// Options say what a Handler works with. What is 0 has the default that stands there.
type Options struct {
	Store  store.Querier
	Tokens *Tokens // nil: Open must be set
	// Open lets everybody see everything, without a token. It is for a listener on loopback: names other than those of loopback are
	// refused, since a page elsewhere could have its own name lead here.
	Open bool
	// NotOlderThan is how long the store keeps the rows of a table, for `settings`.
	NotOlderThan map[dataset.Table]time.Duration
	Tunnels      func() []Tunnel // of all accounts, as the node knows them now; called once a second at most. nil: none
	Accounts     func() []string // that the node knows, for tokens that may see all. nil: none
	Timeout      time.Duration   // of one query; 10 s
	Rate         int             // queries of one token in five minutes; 300. Open has no rate
	Concurrent   int             // queries at once; 8, half of them of one token
	Streams      int             // streams at once; 64, a quarter of them of one token
	Log          *slog.Logger    // slog.Default()
}

// A Handler serves Path and StreamPath. Close ends its streams.
type Handler struct {
	options Options
	schema  *graphql.Schema
	rate    *rate
	running *slots
	streams *slots
	tunnels *tunnelList
	closed  chan struct{}
	close   func()
	now     func() time.Time
	second  time.Duration // of streams; shorter in tests
}

// New returns a handler.
func New(o Options) (*Handler, error) {
	if o.Store == nil {
		return nil, errors.New("graph: no store to ask")
	}
	if o.Open == (o.Tokens != nil) {
		return nil, errors.New("graph: either tokens say who may ask, or Open says that everybody may")
	}
	o.Timeout = orDefault(o.Timeout, 10*time.Second)
	o.Rate = orDefault(o.Rate, 300)
	o.Concurrent = orDefault(o.Concurrent, 8)
	o.Streams = orDefault(o.Streams, 64)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	h := &Handler{options: o, closed: make(chan struct{}), now: time.Now, second: time.Second, rate: newRate(o.Rate)}
	h.running, h.streams = newSlots(o.Concurrent, (o.Concurrent+1)/2), newSlots(o.Streams, (o.Streams+3)/4)
	if o.Open { // all are one
		h.running.each, h.streams.each = o.Concurrent, o.Streams
	}
	h.tunnels = &tunnelList{source: o.Tunnels}
	h.close = sync.OnceFunc(func() { close(h.closed) })
	schema, err := graphql.ParseSchema(Schema, &roots{}, graphql.UseStringDescriptions(), graphql.UseFieldResolvers(),
		graphql.SubscribeResolverTimeout(o.Timeout),
		graphql.MaxDepth(maxDepth), graphql.MaxQueryLength(maxQuery), graphql.MaxSelections(maxSelections),
		graphql.OverlapValidationLimit(maxOverlaps), graphql.MaxParallelism(parallel), graphql.Logger(panicLog{o.Log}),
		graphql.PanicHandler(panicAnswer{}))
	if err != nil {
		return nil, fmt.Errorf("graph: schema: %w", err)
	}
	h.schema = schema
	return h, nil
}

func orDefault[T int | time.Duration](x, d T) T {
	if x == 0 {
		return d
	}
	return x
}

// Close ends all streams: http.Server.Shutdown would wait for them. Give it to http.Server.RegisterOnShutdown.
func (h *Handler) Close() { h.close() }

// ServeHTTP serves both paths.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case Path:
		h.serveQuery(w, r)
	case StreamPath:
		h.serveStream(w, r)
	default:
		refuse(w, http.StatusNotFound, "not_found", "nothing is here: the API is at "+Path)
	}
}

// execute answers one query, or a subscription once, which only a stream may ask for. The status is that of HTTP: what is wrong inside the
// language of GraphQL is 200, as the product has it.
func (h *Handler) execute(ctx context.Context, p *params, g grant, streamed bool) (body []byte, status int) {
	defer func() {
		if v := recover(); v != nil {
			panicLog{h.options.Log}.LogPanic(ctx, v)
			body, status = failure(internalError), http.StatusInternalServerError
		}
	}()
	d, err := read(p.Query)
	if err != nil {
		return encode(nil, h.unread(p.Query, err)), http.StatusOK
	}
	if d.subscribes(p.OperationName) && !streamed {
		return failure(errSubscription), http.StatusOK
	}
	weight := d.weigh()
	if weight > maxCells {
		return failure("the query asks for too much at once: ask for less of the schema, or spread fewer fragments"), http.StatusOK
	}
	req := &request{store: h.options.Store, grant: g, now: h.now(), kept: h.options.NotOlderThan, log: h.options.Log, weight: weight,
		tunnels: h.tunnels, accounts: h.options.Accounts}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, requestKey{}, req), h.options.Timeout)
	defer cancel()
	res := h.answer(ctx, d, p)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return failure(fmt.Sprintf("the query took longer than %v: ask for a shorter time, or for fewer dimensions", h.options.Timeout)),
			http.StatusGatewayTimeout
	}
	return encodePart(res.Data, res.Errors, req.missing), http.StatusOK
}

// answer has the library execute an operation.
func (h *Handler) answer(ctx context.Context, d *document, p *params) *graphql.Response {
	if !d.subscribes(p.OperationName) {
		return h.schema.Exec(ctx, d.spelled(p.Query), p.OperationName, p.Variables)
	}
	answers, err := h.schema.Subscribe(ctx, d.spelled(p.Query), p.OperationName, p.Variables)
	if err != nil { // the schema has subscriptions and resolvers of them
		return &graphql.Response{Errors: []*qlerrors.QueryError{qlerrors.Errorf("%s", err)}}
	}
	if res, ok := (<-answers).(*graphql.Response); ok {
		return res
	}
	return &graphql.Response{} // the time is over: whoever called looks at ctx
}

// unread says why a query could not be read, in the library's words if it has some: they name the line.
func (h *Handler) unread(query string, err error) []*qlerrors.QueryError {
	if errs := h.schema.Validate(query); len(errs) > 0 {
		return errs
	}
	return []*qlerrors.QueryError{qlerrors.Errorf("%s", err)}
}

const errSubscription = "a subscription is not answered here: send it to " + StreamPath + ", by GET or POST, which answers again and again; or ask a query"

const internalError = "internal error: the node's log says where"

// panicLog logs what a resolver or the library has panicked with.
type panicLog struct{ log *slog.Logger }

// LogPanic is called in the goroutine that panicked.
func (l panicLog) LogPanic(_ context.Context, value any) {
	l.log.Error("analytics query panicked", "panic", fmt.Sprint(value), "stack", stack())
}

// panicAnswer tells clients no more than that.
type panicAnswer struct{}

// MakePanicError is what the client reads.
func (panicAnswer) MakePanicError(context.Context, any) *qlerrors.QueryError {
	return qlerrors.Errorf(internalError)
}
