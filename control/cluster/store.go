package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The buckets.
const (
	bucketMeta     = "causeway_meta"
	bucketNodes    = "causeway_nodes"
	bucketEpochs   = "causeway_epochs"
	bucketWriters  = "causeway_writers"
	bucketSAs      = "causeway_sas"
	bucketIKEs     = "causeway_ikes"
	bucketOwners   = "causeway_owners"
	bucketDocument = "causeway_document"
)

// buckets are the store as a session sees it.
type buckets struct {
	generation uint64 // of the store: another after it was lost
	meta       jetstream.KeyValue
	nodes      jetstream.KeyValue
	epochs     jetstream.KeyValue
	writers    jetstream.KeyValue
	sas        jetstream.KeyValue
	ikes       jetstream.KeyValue
	owners     jetstream.KeyValue
	document   jetstream.KeyValue
}

const keyGeneration = "generation"

// markTime is how long the store has a mark in place of what was removed. Nodes that are joined see it at once; the others read what there
// is when they join. Without an end there would be one for each pair that ever was.
const markTime = time.Hour

// openBuckets finds the buckets, or makes them in a new store with so many replicas; with 0 somebody else makes them. All are asked for at
// one time: the store may be far away. disk is where the store has what is to outlive its process.
func openBuckets(ctx context.Context, js jetstream.JetStream, disk jetstream.StorageType, replicas int, marks time.Duration) (*buckets, error) {
	b := &buckets{}
	const memory = jetstream.MemoryStorage
	list := []struct {
		name string
		on   jetstream.StorageType
		to   *jetstream.KeyValue
	}{
		{bucketMeta, disk, &b.meta}, {bucketNodes, disk, &b.nodes}, {bucketWriters, disk, &b.writers}, {bucketSAs, disk, &b.sas}, {bucketIKEs, disk, &b.ikes}, {bucketOwners, disk, &b.owners}, {bucketDocument, disk, &b.document},
		{bucketEpochs, memory, &b.epochs}, // a disk would have the wraps of keys that were destroyed
	}
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, x := range list {
		wg.Go(func() {
			ctx, done := within(ctx)
			defer done()
			var err error
			if *x.to, err = openBucket(ctx, js, jetstream.KeyValueConfig{Bucket: x.name, History: 1, Storage: x.on, Replicas: replicas, LimitMarkerTTL: marks}); err != nil {
				errs[i] = fmt.Errorf("bucket %s: %w", x.name, err)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil { // one says enough
			return nil, err
		}
	}
	asking, done := within(ctx)
	defer done()
	var err error
	b.generation, err = generationOf(asking, b.meta)
	return b, err
}

// openBucket finds a bucket or makes it: without history, so that what was replaced is gone.
func openBucket(ctx context.Context, js jetstream.JetStream, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	kv, err := js.KeyValue(ctx, want.Bucket)
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound) && want.Replicas == 0:
		return nil, errors.New("the store does not have it yet: a hub makes it")
	case errors.Is(err, jetstream.ErrBucketNotFound):
		kv, err = js.CreateKeyValue(ctx, want)
		if errors.Is(err, jetstream.ErrBucketExists) { // another node was faster
			kv, err = js.KeyValue(ctx, want.Bucket)
		}
	case err == nil && want.Replicas != 0:
		return withMarks(ctx, js, kv, want)
	}
	return kv, err
}

// withMarks has the marks in a bucket end that an earlier release has made.
func withMarks(ctx context.Context, js jetstream.JetStream, kv jetstream.KeyValue, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	status, err := kv.Status(ctx)
	if err != nil || status.LimitMarkerTTL() == want.LimitMarkerTTL {
		return kv, err
	}
	now := status.Config()
	now.LimitMarkerTTL = want.LimitMarkerTTL
	return js.UpdateKeyValue(ctx, now)
}

// purge removes a value. What stands in its place ends after markTime.
func (c *Cluster) purge(ctx context.Context, kv jetstream.KeyValue, key string, only ...jetstream.KVDeleteOpt) error {
	ctx, cancel := within(ctx)
	defer cancel()
	err := kv.Purge(ctx, key, append(only, jetstream.PurgeTTL(c.markTime))...)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == errMarksHaveNoEnd { // its hub is of an earlier release
		err = kv.Purge(ctx, key, only...)
	}
	return err
}

// errMarksHaveNoEnd is the server's error JSMessageTTLDisabledErr.
const errMarksHaveNoEnd jetstream.ErrorCode = 10166

// generationOf is the number of the store, which the first node gives it.
func generationOf(ctx context.Context, meta jetstream.KeyValue) (uint64, error) {
	var fresh [8]byte
	rand.Read(fresh[:])
	if _, err := meta.Create(ctx, keyGeneration, fresh[:]); err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
		return 0, fmt.Errorf("generation of the store: %w", err)
	}
	v, err := meta.Get(ctx, keyGeneration)
	if err != nil {
		return 0, fmt.Errorf("generation of the store: %w", err)
	}
	if len(v.Value()) != len(fresh) {
		return 0, fmt.Errorf("generation of the store: %d bytes, want %d: this is not a store of causeway", len(v.Value()), len(fresh))
	}
	return binary.BigEndian.Uint64(v.Value()), nil
}

// notOlder says when the store is an older one than this process has written to: a copy that was put back. Numbers for IVs that were given
// since could be given again, and with them IVs under keys that live. Whoever has seen the newer store does not join: then nobody who
// joins the older one is given a key that was used (DESIGN 4.1).
func (c *Cluster) notOlder(ctx context.Context, b *buckets) error {
	if c.older.store == b.generation && c.older.err != nil { // its number of changes grows, and says nothing any more
		return c.older.err
	}
	for _, x := range []struct {
		kv   jetstream.KeyValue
		key  string
		made uint64
	}{{b.nodes, c.opts.Member.Name, c.said}, {b.meta, aliveKey(c.opts.Member.Name), c.proved}} {
		has, err := newest(ctx, x.kv, x.key, x.made)
		if err != nil {
			return err
		}
		if has < x.made { // asked again soon: a replica that is behind may have answered
			return c.olderThan(x.kv.Bucket(), has, x.made)
		}
	}
	return nil
}

// newest is the revision of what the store has under a key that this process has written to, or of the mark of who has removed it; made is
// the last that it has written; 0: it has not.
func newest(ctx context.Context, kv jetstream.KeyValue, key string, made uint64) (has uint64, err error) {
	if made == 0 {
		return 0, nil
	}
	ctx, done := within(ctx)
	defer done()
	list, err := kv.History(ctx, key)
	switch {
	case ctx.Err() != nil: // which History takes for the end of the list
		return 0, ctx.Err()
	case err == nil:
		for _, v := range list {
			has = max(has, v.Revision())
		}
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return 0, err
	}
	return has, nil
}

// isOlder notes that the store is an older one, to which this node has written by now, and returns that.
func (c *Cluster) isOlder(b *buckets, bucket string, has, made uint64) error {
	c.older.store, c.older.err = b.generation, c.olderThan(bucket, has, made)
	return c.older.err
}

func (c *Cluster) olderThan(bucket string, has, made uint64) error {
	return strangeStore{fmt.Errorf("the store is older than it was (of %s it has change %d, this node has made change %d): a copy was put back, and numbers for IVs that were given since could be "+
		"given again: stop the hub, remove cluster/ in its node.state_dir, start it, and then restart the other nodes one by one", bucket, has, made)}
}

// storeLimit is how long one question to the store may take.
const storeLimit = 2 * time.Second

func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, storeLimit)
}

// place is where a value stands, for what it is sealed with.
func place(bucket, key string) string { return bucket + "|" + key }
