package cluster

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"causeway/control/cluster/engine"
	"causeway/control/cluster/seal"
)

// Alone is a node without a cluster: it has the engine in its process, with a store in memory that nobody else reaches, and of a Cluster what
// there is without other nodes, the document. What IKE has made does not go through the store: nobody could take it over, and the key
// that it would be sealed with ends with the process.
//
// Its methods may be called by any goroutine; Run once.
type Alone struct {
	inner *Cluster
	name  string // the node's
	log   *slog.Logger

	failed chan struct{} // closed when the engine has not started
}

// AloneOptions are what an Alone is made of.
type AloneOptions struct {
	Member  Member // as in Options
	Scratch string // see engine.Alone
	Log     *slog.Logger

	OnDocument func(Document)  // see Options
	NotReady   func() []string // likewise
}

// aloneName is what the node is called within its own store: what it is called outside need be no key there.
const aloneName = "alone"

// NewAlone makes it, with an identity that is not kept. Nothing happens before Run.
func NewAlone(o AloneOptions) (*Alone, error) {
	identity, err := seal.NewIdentity()
	if err != nil {
		return nil, fmt.Errorf("identity of a node that is alone: %w", err)
	}
	log := o.Log
	if log == nil {
		log = slog.Default()
	}
	a := &Alone{name: o.Member.Name, log: log, failed: make(chan struct{})}
	o.Member.Name = aloneName
	quiet := slog.New(warnings{log.Handler()})
	a.inner = New(Options{Engine: engine.Options{Name: aloneName, Alone: &engine.Alone{Scratch: o.Scratch}, Log: quiet}, Identity: identity, Roster: seal.Roster{aloneName: identity.Public().Fingerprint()},
		Member: o.Member, Log: quiet, OnDocument: o.OnDocument, NotReady: o.NotReady}, nil)
	a.inner.alone, a.inner.trouble = true, "the engine starts"
	return a, nil
}

// warnings is a log without what is of interest where there are other nodes.
type warnings struct{ slog.Handler }

// Enabled implements slog.Handler, as do the others.
func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}
func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(name string) slog.Handler   { return warnings{w.Handler.WithGroup(name)} }

// Run has the engine until ctx is done. One that does not start is no reason for the node to end: it says so, and nothing can be applied.
func (a *Alone) Run(ctx context.Context) error {
	if err := a.inner.Open(); err != nil {
		a.inner.mu.Lock()
		a.inner.trouble = err.Error()
		a.inner.mu.Unlock()
		close(a.failed)
		a.log.Error("the engine does not start: nothing can be applied until this node is started again; all else goes on", "error", err)
		return nil
	}
	return a.inner.Run(ctx)
}

// Close ends what Run began, which must have returned.
func (a *Alone) Close() { a.inner.Close() }

// SetDocument says which one this node had when it ended, before Run: serials go on from there.
func (a *Alone) SetDocument(d Document) { a.inner.SetDocument(d) }

// Document returns the newest.
func (a *Alone) Document() Document { return a.inner.Document() }

// SetRuns says which document the node works with.
func (a *Alone) SetRuns(r Runs) { a.inner.SetRuns(r) }

// Apply makes a body the document, and returns its serial. It waits for an engine that starts.
func (a *Alone) Apply(ctx context.Context, body []byte) (serial uint64, err error) {
	if err := a.awaitStore(ctx); err != nil {
		return 0, err
	}
	return a.inner.applyAs(ctx, a.name, body)
}

// An engine that starts, and begins with what was kept, is waited for so long.
const (
	aloneWait = 5 * time.Second
	aloneLook = 5 * time.Millisecond
)

// awaitStore returns when the store has what was kept.
func (a *Alone) awaitStore(ctx context.Context) error {
	tick := time.NewTicker(aloneLook)
	defer tick.Stop()
	late := time.After(aloneWait)
	for {
		if a.trouble() == "" && a.inner.documentKnown.Load() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.failed:
			return fmt.Errorf("the configuration is not stored, since the engine of this node has not started: %s; start the node again when that is mended", a.trouble())
		case <-late:
			return fmt.Errorf("the configuration is not stored: the engine of this node is not ready after %v (%s): see the log, and try again", aloneWait, cmp.Or(a.trouble(), "it reads what was kept"))
		case <-tick.C:
		}
	}
}

// trouble is why nothing can be applied; "": it can.
func (a *Alone) trouble() string { return a.Status().Trouble }

// Status is what there is to say of the node without others.
func (a *Alone) Status() Status {
	s := a.inner.Status()
	return Status{Trouble: s.Trouble, Nodes: s.Nodes, Document: s.Document, Runs: s.Runs}
}

// Nodes is the node itself. What is a cluster's, its number, the epoch and child SAs, it has not.
func (a *Alone) Nodes() []NodeView {
	list := a.inner.Nodes()
	for i := range list {
		list[i].Name, list[i].Epoch = a.name, 0
	}
	return list
}
