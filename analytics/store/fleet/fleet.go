// Package fleet answers for all nodes of a cluster, each of which has a store of its own: the node that is asked asks the others for what
// their rows add (query.Share), and makes the answer of all of them. It is exact: maxima and percentiles are those of what all nodes have
// counted together. What a node that does not answer knows is missing, and the answer says so.
package fleet

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// Nodes are the other nodes of the cluster.
type Nodes interface {
	// Others are those that live, and those that do not answer at present.
	Others() (live []string, away []store.Missing)
	// Inquire gives a question to another node, and returns what that node's Respond makes of it.
	Inquire(ctx context.Context, node string, question []byte) ([]byte, error)
}

// Own is the store of this node.
type Own interface {
	store.Querier
	Plan(ctx context.Context, q *store.Query, o query.Options) (*query.Plan, error)
}

// A Store answers for this node and the others.
type Store struct {
	own   Own
	self  string // the name of this node
	nodes Nodes

	answered, missed atomic.Uint64
}

// New makes one.
func New(own Own, self string, nodes Nodes) *Store { return &Store{own: own, self: self, nodes: nodes} }

// Stats are counts since the start.
type Stats struct {
	Answered uint64 // times that another node has answered
	Missed   uint64 // and that one has not, in time
}

// Stats returns them.
func (s *Store) Stats() Stats { return Stats{s.answered.Load(), s.missed.Load()} }

const (
	mostTime  = 10 * time.Second // for a query that has no limit itself
	spareTime = time.Second      // what the node that was asked needs itself, when the others have answered
)

// Groups answers a query for all nodes.
func (s *Store) Groups(ctx context.Context, q *store.Query) (*store.Answer, error) {
	if err := query.Check(q); err != nil {
		return nil, err
	}
	live, away := s.nodes.Others()
	if only, ok := nodeOf(&q.Where); ok && s.known(only, live, away) { // else it is one that had that name before
		live = slices.DeleteFunc(slices.Clone(live), func(n string) bool { return n != only })
		away = slices.DeleteFunc(slices.Clone(away), func(m store.Missing) bool { return m.Node != only })
	}
	if len(live) == 0 {
		a, err := s.own.Groups(ctx, q)
		if err == nil {
			a.Missing = away
		}
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, mostTime)
	defer cancel()
	for resolution := time.Duration(0); ; {
		a, tried, err := s.try(ctx, q, resolution, live)
		if again, ok := coarser(q, tried, err); ok {
			resolution = again
			continue
		}
		if err == nil {
			a.Missing = append(a.Missing, away...)
			slices.SortFunc(a.Missing, func(x, y store.Missing) int { return strings.Compare(x.Node, y.Node) })
		}
		return a, err
	}
}

// resolutions are those of exact counts in the stores of nodes.
var resolutions = []time.Duration{time.Second, time.Minute, time.Hour}

// coarser is the resolution with which a query that was tried with one is to be tried again because of an error: the one with which the rows of
// some node reach back far enough, or the next one where the single intervals of all nodes are too many.
func coarser(q *store.Query, tried time.Duration, err error) (time.Duration, bool) {
	var needed query.Coarser
	least := time.Duration(0)
	if errors.As(err, &needed) {
		if least = needed.Resolution; least <= tried {
			return 0, false
		}
	} else if many := (query.TooMany{}); !errors.As(err, &many) || !many.Intervals {
		return 0, false
	}
	for _, r := range resolutions {
		if r > tried && r >= least && query.Fits(q, r) {
			return r, true
		}
	}
	return 0, false
}

// try asks all nodes for rows of one resolution; 0: the finest that this node has for as long as the query reaches back. It returns which that was.
func (s *Store) try(ctx context.Context, q *store.Query, resolution time.Duration, nodes []string) (a *store.Answer, tried time.Duration, err error) {
	p, err := s.own.Plan(ctx, q, query.Options{Resolution: resolution, Shared: true})
	if many := (query.TooMany{}); errors.As(err, &many) {
		return nil, many.Resolution, err
	}
	if err != nil {
		return nil, resolution, err
	}
	tried = p.Resolution()
	c := &collection{plan: p, query: q}
	asking, cancel := sooner(ctx)
	defer cancel()
	c.stop = cancel
	question := appendQuestion(nil, q, p.Resolution())
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			b, err := s.nodes.Inquire(asking, n, question)
			c.take(n, b, err)
		})
	}
	all.Wait()
	switch {
	case c.again != nil:
		return nil, tried, c.again
	case ctx.Err() != nil:
		return nil, tried, ctx.Err()
	}
	s.missed.Add(uint64(len(c.missing)))
	s.answered.Add(uint64(len(nodes) - len(c.missing)))
	a = p.Answer()
	a.Missing = c.missing
	return a, tried, nil
}

// A collection adds what nodes answer to a plan, one after the other as they come: no more than one answer is held beside what has been added up.
type collection struct {
	plan  *query.Plan
	query *store.Query
	stop  func() // has the others not be waited for

	mu      sync.Mutex
	missing []store.Missing
	again   error // that has the query tried again with another resolution, or refused
}

// take takes the answer of a node, or why there is none.
func (c *collection) take(node string, answer []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.again != nil {
		return
	}
	if err == nil {
		err = c.add(answer)
	}
	if _, ok := coarser(c.query, c.plan.Resolution(), err); ok || errors.As(err, new(query.TooMany)) {
		c.again = err
		c.stop()
		return
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("it has not answered in time")
	}
	if err != nil {
		c.missing = append(c.missing, store.Missing{Node: node, Why: err.Error()})
	}
}

// add adds an answer. A fault that bytes from elsewhere meet is that node's, and not the end of this one.
func (c *collection) add(answer []byte) (err error) {
	defer func() {
		if recover() != nil {
			err = errAnswer
		}
	}()
	share, err := parseAnswer(answer, c.plan)
	if err != nil {
		return err
	}
	return c.plan.Take(share)
}

// known reports whether there is a node of that name.
func (s *Store) known(name string, live []string, away []store.Missing) bool {
	return name == s.self || slices.Contains(live, name) || slices.ContainsFunc(away, func(m store.Missing) bool { return m.Node == name })
}

// sooner ends before ctx does, so that there is an answer of those that have answered.
func sooner(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	left := time.Until(end)
	return context.WithTimeout(ctx, left-min(spareTime, left/4))
}

// errStore is all that another node is told of a store that fails: clients see it.
var errStore = errors.New("its store could not answer: its log says why")

// Stopping is the answer of a node whose store is closed.
func Stopping() []byte { return appendRefusal(nil, errors.New("it stops")) }

// Respond answers a question of another node's Groups for the rows here. What it cannot answer it says in the answer. The error is that of a
// store that fails.
func Respond(ctx context.Context, own Own, question []byte) (answer []byte, err error) {
	q, resolution, err := parseQuestion(question)
	if err != nil {
		return appendRefusal(nil, err), nil
	}
	p, err := own.Plan(ctx, q, query.Options{Resolution: resolution, Shared: true})
	switch {
	case err == nil:
		return appendShare(nil, p.Share()), nil
	case ctx.Err() != nil || errors.As(err, new(store.Refusal)) || errors.As(err, new(query.Coarser)):
		return appendRefusal(nil, err), nil
	}
	return appendRefusal(nil, errStore), err
}

// nodeOf is the one node that a query asks for, if it does.
func nodeOf(w *store.Where) (string, bool) {
	for _, c := range query.Conjuncts(w) {
		if c.Dimension != nil && c.Dimension.Name == "edgePopName" && c.Op == store.Equal {
			n, ok := c.Values[0].(string)
			return n, ok
		}
	}
	return "", false
}
