package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A watch may stall: the replica of the store that it came from is gone, or the engine has lost it. So what has come is compared with what
// the store has, and if something is missing, all is read again.

// The watches of a session.
const (
	watchNodes = iota
	watchEpochs
	watchSAs
	watchIKEs
	watchOwners
	watchDocument
	watches
)

// watched are the buckets that are watched whole, in this order. Of the document's, one key is.
func (b *buckets) watched() []jetstream.KeyValue {
	return []jetstream.KeyValue{watchNodes: b.nodes, watchEpochs: b.epochs, watchSAs: b.sas, watchIKEs: b.ikes, watchOwners: b.owners}
}

var watchNames = []string{watchNodes: "nodes", watchEpochs: "epochs", watchSAs: "child SAs", watchIKEs: "IKE SAs", watchOwners: "owners"}

// watched is how far the watch of a bucket is.
type watched struct {
	seen uint64 // the last revision that came
	had  uint64 // what the store had when it was asked the last time
	was  uint64 // seen, then
	none int    // times in a row that there was nothing after seen although the store had more
}

// replicaPatience is how often a replica, which may be behind, is asked before it is believed that it has nothing more.
const replicaPatience = 4

func (w *watched) note(v jetstream.KeyValueEntry) {
	if v != nil {
		w.seen = v.Revision()
	}
}

// How often is compared. When a node is gone it may be the one that the watches came from: then for a while more often.
const (
	compareTime     = 5 * time.Second
	compareSoonTime = 500 * time.Millisecond
	disturbedTime   = 10 * time.Second
)

// comparedAtOnce is how many nodes compare that often: where there are more each does so less often, so that the store has no more to answer.
const comparedAtOnce = 25

// compareEvery is the time between two comparisons.
func (c *Cluster) compareEvery(s *session, now time.Time) time.Duration {
	every := compareTime
	if died := c.died.Load(); died != nil && now.Sub(*died) < disturbedTime {
		every = compareSoonTime
	}
	return every * time.Duration(min(1+len(s.members)/comparedAtOnce, 6))
}

// A Replica is a hub's part of the store.
type Replica struct {
	Name    string
	Leads   int    // how many buckets' changes it puts in order
	Current bool   // it has all that the others have
	Offline bool   // it is not heard
	Lag     uint64 // changes that it does not have yet, in the bucket where they are the most
}

// compare finds a watch that has stalled: the store had more when it was asked the last time than has come by now. All is read again then.
// It also notes how the replicas of the store are.
func (c *Cluster) compare(ctx context.Context, s *session, now time.Time) error {
	if now.Sub(s.compared) < c.compareEvery(s, now) {
		return nil
	}
	s.compared = now
	replicas := map[string]Replica{}
	for i, kv := range s.buckets.watched() {
		w := &s.watches[i]
		if w.had > w.seen && w.seen == w.was { // else it comes, if late
			missing, err := c.missingAfter(ctx, kv.Bucket(), w.seen)
			if err != nil {
				return err
			}
			if missing {
				return fmt.Errorf("the store has told changes of %s up to %d, and had %d before that: it is read again", watchNames[i], w.seen, w.had)
			}
			if w.none++; w.none >= replicaPatience {
				w.seen, w.none = w.had, 0
			}
		} else {
			w.none = 0
		}
		asking, done := within(ctx)
		status, err := kv.Status(asking)
		done()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil { // it is slow, and to read all again would make it slower; or it is away
			return c.stillHere(ctx, s)
		}
		if err != nil {
			return err
		}
		if b, ok := status.(*jetstream.KeyValueBucketStatus); ok {
			w.had, w.was = b.StreamInfo().State.LastSeq, w.seen
			addReplicas(replicas, b.StreamInfo().Cluster)
		}
	}
	if err := s.compareDocument(ctx); err != nil {
		return err
	}
	s.whole = now
	list := slices.SortedFunc(maps.Values(replicas), func(a, b Replica) int { return cmp.Compare(a.Name, b.Name) })
	c.mu.Lock()
	c.replicas = list
	c.mu.Unlock()
	return nil
}

// missingAfter reports whether a bucket has anything of a later revision. The last change may have been a mark that has ended.
func (c *Cluster) missingAfter(ctx context.Context, bucket string, revision uint64) (bool, error) {
	ctx, done := within(ctx)
	defer done()
	stream, err := c.engine.Store.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return false, err
	}
	_, err = stream.GetMsg(ctx, revision+1, jetstream.WithGetMsgSubject("$KV."+bucket+".>"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}

// compareDocument is compare for the one key of its bucket that is watched.
func (s *session) compareDocument(ctx context.Context) error {
	d := &s.document
	if d.had > d.revision && d.revision == d.was {
		return fmt.Errorf("the store has told changes of the fleet's configuration up to %d, and had %d before that: it is read again", d.revision, d.had)
	}
	asking, done := within(ctx)
	defer done()
	v, err := s.buckets.document.Get(asking, keyDocument)
	switch {
	case err == nil:
		d.had, d.was = v.Revision(), d.revision
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return err
	}
	return nil
}

// addReplicas adds how the replicas of a bucket are; nil: the store has one.
func addReplicas(all map[string]Replica, of *jetstream.ClusterInfo) {
	if of == nil || len(of.Replicas) == 0 {
		return
	}
	if of.Leader != "" {
		r, known := all[of.Leader]
		r.Name, r.Leads, r.Current = of.Leader, r.Leads+1, r.Current || !known
		all[of.Leader] = r
	}
	for _, p := range of.Replicas {
		r, known := all[p.Name]
		r.Name, r.Current, r.Offline, r.Lag = p.Name, (r.Current || !known) && p.Current, r.Offline || p.Offline, max(r.Lag, p.Lag)
		all[p.Name] = r
	}
}
