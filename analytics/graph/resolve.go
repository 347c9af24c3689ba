package graph

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
)

// Bounds of one request, over all its dataset fields and aliases.
const (
	maxQueries = 32        // of the store
	maxCells   = 1_000_000 // rows times selected fields; an answer of some 30 MB
)

// A request is what all resolvers of one execution share.
type request struct {
	store    store.Querier
	grant    grant
	now      time.Time
	kept     map[dataset.Table]time.Duration
	log      *slog.Logger
	weight   int64 // of the document: see weigh
	tunnels  *tunnelList
	accounts func() []string // nil: none
	queries  atomic.Int64
	cells    atomic.Int64

	mu      sync.Mutex
	missing map[string]string // nodes whose rows an answer lacks, and why
}

type requestKey struct{}

// begin counts a query of the store.
func (r *request) begin() error {
	if r.queries.Add(1) > maxQueries {
		return refusal("the query asks for more than 32 datasets: send two")
	}
	return nil
}

// lacks notes whose rows an answer does not have.
func (r *request) lacks(nodes []store.Missing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range nodes {
		if r.missing == nil {
			r.missing = map[string]string{}
		}
		r.missing[m.Node] = m.Why
	}
}

// charge refuses an answer before it is written: the library would write any number of aliases for any number of rows.
func (r *request) charge(rows int) error {
	if r.cells.Add(int64(rows)*r.weight) > maxCells {
		return refusal("the answer has more than 1,000,000 values: lower limit, or ask for fewer fields")
	}
	return nil
}

// failed hides what a store said, which may name its tables, from clients; the log has it.
func (r *request) failed(ctx context.Context, s *shape, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var why store.Refusal
	if errors.As(err, &why) {
		return refusal(why)
	}
	r.log.Error("analytics query failed", "dataset", s.Name, "err", err)
	return errStore
}

// roots are the resolvers of operations.
type roots struct{}

// Query resolves queries.
func (roots) Query() any { return &root{} }

// Subscription resolves subscriptions.
func (roots) Subscription() any { return &subscription{} }

// A subscription answers once: streams ask again, and send what has changed.
type subscription struct{}

// Viewer is who asks.
func (subscription) Viewer(ctx context.Context) <-chan *viewer {
	c := make(chan *viewer, 1)
	c <- root{}.Viewer(ctx)
	close(c)
	return c
}

// root is the query.
type root struct{}

// Viewer is who asks.
func (root) Viewer(ctx context.Context) *viewer {
	return &viewer{ctx.Value(requestKey{}).(*request)}
}

type viewer struct{ request *request }

type accountArgs struct {
	Filter *struct{ AccountTag given }
}

const errAccount = refusal("not authorized for that account")

// Accounts gives the one account of the filter, if the token may see it. An account that there is not answers like one that is
// another's.
func (v *viewer) Accounts(args accountArgs) ([]*account, error) {
	if args.Filter == nil || args.Filter.AccountTag.value == nil {
		return nil, refusal("accounts: filter: accountTag is required")
	}
	tag, ok := args.Filter.AccountTag.value.(string)
	if !ok {
		return nil, at("accountTag", wrong(args.Filter.AccountTag.value, "text in quotes"))
	}
	if !v.request.grant.covers(tag) {
		return nil, errAccount
	}
	return []*account{{v.request, tag}}, nil
}

// An account is one that the token may see: only Accounts makes them, and all rows are asked for by its tag.
type account struct {
	request *request
	tag     string
}

// Settings says what may be asked.
func (a *account) Settings() accountSettings { return accountSettings{a.request} }

type accountSettings struct{ request *request }

type settings struct {
	AvailableFields                                           []text
	Enabled                                                   bool
	MaxDuration, MaxNumberOfFields, MaxPageSize, NotOlderThan number
}

// of is one dataset's. A query may span all that is kept.
func (s accountSettings) of(x *shape) settings {
	kept := number(s.request.kept[x.Table] / time.Second)
	return settings{AvailableFields: slices.Clone(x.available), Enabled: true, MaxDuration: kept, NotOlderThan: kept,
		MaxNumberOfFields: number(len(x.available)), MaxPageSize: MaxRows}
}
