package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The buckets.
const (
	bucketMeta    = "causeway_meta"
	bucketNodes   = "causeway_nodes"
	bucketEpochs  = "causeway_epochs"
	bucketWriters = "causeway_writers"
	bucketSAs     = "causeway_sas"
	bucketIKEs    = "causeway_ikes"
	bucketOwners  = "causeway_owners"
)

// buckets are the store as a session sees it.
type buckets struct {
	generation uint64 // of the store: another after it was lost
	nodes      jetstream.KeyValue
	epochs     jetstream.KeyValue
	writers    jetstream.KeyValue
	sas        jetstream.KeyValue
	ikes       jetstream.KeyValue
	owners     jetstream.KeyValue
}

const keyGeneration = "generation"

// openBuckets finds the buckets, or makes them in a new store.
func openBuckets(ctx context.Context, js jetstream.JetStream) (*buckets, error) {
	b := &buckets{}
	var meta jetstream.KeyValue
	const disk, memory = jetstream.FileStorage, jetstream.MemoryStorage
	for _, x := range []struct {
		name string
		on   jetstream.StorageType
		to   *jetstream.KeyValue
	}{
		{bucketMeta, disk, &meta}, {bucketNodes, disk, &b.nodes}, {bucketWriters, disk, &b.writers}, {bucketSAs, disk, &b.sas}, {bucketIKEs, disk, &b.ikes}, {bucketOwners, disk, &b.owners},
		{bucketEpochs, memory, &b.epochs}, // a disk would have the wraps of keys that were destroyed
	} {
		var err error
		if *x.to, err = openBucket(ctx, js, x.name, x.on); err != nil {
			return nil, fmt.Errorf("bucket %s: %w", x.name, err)
		}
	}
	var err error
	b.generation, err = generationOf(ctx, meta)
	return b, err
}

// openBucket finds a bucket or makes it: without history, so that what was replaced is gone.
func openBucket(ctx context.Context, js jetstream.JetStream, name string, on jetstream.StorageType) (jetstream.KeyValue, error) {
	kv, err := js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, History: 1, Storage: on})
		if errors.Is(err, jetstream.ErrBucketExists) { // another node was faster
			kv, err = js.KeyValue(ctx, name)
		}
	}
	return kv, err
}

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

// storeLimit is how long one question to the store may take.
const storeLimit = 2 * time.Second

func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, storeLimit)
}

// place is where a value stands, for what it is sealed with.
func place(bucket, key string) string { return bucket + "|" + key }
