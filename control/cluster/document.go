package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/cluster/seal"
)

// The configuration that all nodes have in common is a document in the store, which is opaque here. It is longer than a value may be:
// it stands there in parts, and documentRecord says which ones are the document. Each node keeps the last one that it has heard of, so
// that any of them can put it back into a store that was lost; of two the one with the higher serial is the newer one.

// documentVersion is the version of documentRecord that this release writes. Later ones add fields.
const documentVersion = 1

// A documentRecord says what the document is. It stands under keyDocument.
type documentRecord struct {
	Version int       `json:"v"`
	Serial  uint64    `json:"serial"`
	By      string    `json:"by"` // the node where it was applied
	At      time.Time `json:"at"`
	Digest  string    `json:"digest"` // SHA-256 of the body, in hexadecimal
	Parts   int       `json:"parts"`  // of the body, compressed
	Epoch   uint32    `json:"epoch"`  // under which the parts are sealed, as the record is
}

const keyDocument = "current"

// partKey is where a part of a document stands. No two records have the same parts: documents of two nodes that apply at one time differ in
// their digests, and one that is sealed anew in the epoch.
func (r *documentRecord) partKey(i int) string {
	return fmt.Sprintf("part.%d.%d.%s.%d", r.Serial, r.Epoch, r.Digest[:16], i)
}

// Limits of a document: what stands in a value, and in how many of them.
const (
	maxPart     = 128 << 10
	maxParts    = 128
	maxDocument = 128 << 20 // before it was compressed
)

func parseDocument(b []byte) (*documentRecord, error) {
	r := new(documentRecord)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, errors.New("record of the fleet's configuration: it is none")
	}
	switch digest, err := hex.DecodeString(r.Digest); {
	case r.Version != documentVersion:
		return nil, fmt.Errorf("record of the fleet's configuration: version %d, this release reads %d", r.Version, documentVersion)
	case err != nil || len(digest) != sha256.Size || r.Serial == 0 || r.Parts < 1 || r.Parts > maxParts:
		return nil, errors.New("record of the fleet's configuration: it is damaged")
	}
	return r, nil
}

// A Document is the configuration that all nodes have in common. Its Body is not changed.
type Document struct {
	Serial uint64 // from 1; 0: there is none
	By     string
	At     time.Time
	Digest string
	Body   []byte
}

// A documentWatch is what a session knows of the record in the store.
type documentWatch struct {
	read     bool   // what the store has was seen
	revision uint64 // of the record; 0: there is none
	sealed   []byte // the record; nil: there is none
	taken    uint64 // the revision with which there is nothing to be done any more
	had, was uint64 // see watched
}

// Document returns the newest that this node knows.
func (c *Cluster) Document() Document {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.document
}

// SetDocument says which one this node had when it ended, before Run. It is put into a store that has none, or an older one.
func (c *Cluster) SetDocument(d Document) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.document = d
}

// Runs is which document a node works with.
type Runs struct {
	Serial  uint64 // 0: none
	Refused uint64 // serial of a newer one that it does not take over; 0: none
	Why     string
}

// runsRecord is Runs as a member tells it. Why names tunnels and addresses: it is sealed.
type runsRecord struct {
	Serial  uint64 `json:"serial"`
	Refused uint64 `json:"refused,omitempty"`
	Why     []byte `json:"why,omitempty"`
}

// sealRuns is what this node tells. It is called with the lock held.
func (c *Cluster) sealRuns() runsRecord {
	r := runsRecord{Serial: c.runs.Serial, Refused: c.runs.Refused}
	if c.runs.Why != "" {
		r.Why, _ = c.keys.Seal(runsPlace(c.opts.Member.Name), []byte(c.runs.Why)) // without a key yet it is not told
	}
	return r
}

// openRuns is what a node tells, with what can be opened of it.
func (c *Cluster) openRuns(m *Member) Runs {
	r := Runs{Serial: m.Runs.Serial, Refused: m.Runs.Refused}
	if len(m.Runs.Why) > 0 {
		why, err := c.keys.Open(runsPlace(m.Name), m.Runs.Why)
		if err != nil {
			why = []byte("the reason cannot be read here: " + err.Error())
		}
		r.Why = string(why)
	}
	return r
}

func runsPlace(node string) string { return "runs|" + node }

// SetRuns says which document this node works with. All nodes are told.
func (c *Cluster) SetRuns(r Runs) {
	const most = 1000 // bytes of a message: records are bounded
	if len(r.Why) > most {
		r.Why = strings.ToValidUTF8(r.Why[:most], "") + "..."
	}
	c.mu.Lock()
	c.runs = r
	c.mu.Unlock()
	c.beatNow.Store(true)
	c.wake()
}

// An ErrApplied says that another document was applied at the same time.
var ErrApplied = errors.New("another configuration was applied at the same time: look at it with `causeway show fleet`, and apply again")

// Apply makes a body the document of all nodes, and returns its serial when the store has it. It may be called by any goroutine.
func (c *Cluster) Apply(ctx context.Context, body []byte) (serial uint64, err error) {
	return c.applyAs(ctx, c.opts.Member.Name, body)
}

// applyAs is Apply by a node.
func (c *Cluster) applyAs(ctx context.Context, by string, body []byte) (serial uint64, err error) {
	c.mu.Lock()
	b, trouble, last := c.buckets, c.trouble, c.document.Serial
	c.mu.Unlock()
	if b == nil || c.keys.Current() == 0 {
		return 0, fmt.Errorf("the configuration is not stored, since the store is not reached: %s", trouble)
	}
	// What the store has is asked for: what this node knows may be older.
	asking, done := within(ctx)
	v, err := b.document.Get(asking, keyDocument)
	done()
	var revision uint64
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return 0, fmt.Errorf("the configuration is not stored: %w", err)
	default:
		revision = v.Revision()
		r, err := c.openDocument(v.Value())
		switch {
		case errors.Is(err, seal.ErrNotAuthentic): // it is no node's
			r = &documentRecord{}
		case errors.As(err, new(seal.EpochError)):
			return 0, fmt.Errorf("the configuration is not stored: that of before is sealed under a key that this node does not have; a node that has it puts it there anew within %v: apply again then", completeTime)
		case err != nil:
			return 0, fmt.Errorf("the configuration is not stored: that of before cannot be read: %w", err)
		}
		last = max(last, r.Serial)
	}
	d := Document{Serial: last + 1, By: by, At: time.Now().UTC(), Body: body}
	_, err = c.storeDocument(ctx, b, d, revision, func() error { return nil })
	switch {
	case conflict(err):
		return 0, ErrApplied
	case err != nil:
		return 0, fmt.Errorf("the configuration may be stored or not, `causeway show fleet` tells: %w", err)
	}
	return d.Serial, nil
}

func (c *Cluster) openDocument(sealed []byte) (*documentRecord, error) {
	text, err := c.keys.Open(place(bucketDocument, keyDocument), sealed)
	if err != nil {
		return nil, err
	}
	return parseDocument(text)
}

// storeDocument writes a document, its parts first, in the place of the record with a revision. between is called before each part.
func (c *Cluster) storeDocument(ctx context.Context, b *buckets, d Document, revision uint64, between func() error) (uint64, error) {
	parts, err := partsOf(d.Body)
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256(d.Body)
	r := &documentRecord{documentVersion, d.Serial, d.By, d.At, hex.EncodeToString(digest[:]), len(parts), c.keys.Current()}
	for i, p := range parts {
		if err := between(); err != nil {
			return 0, err
		}
		if _, err := c.putSealed(ctx, b.document, r.partKey(i), p, nil); err != nil {
			return 0, fmt.Errorf("part %d of %d of the configuration is not stored: %w", i+1, len(parts), err)
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	if r.Epoch != c.keys.Current() {
		return 0, errors.New("another epoch has begun meanwhile: try again")
	}
	return c.putSealed(ctx, b.document, keyDocument, text, &revision)
}

// putSealed seals a text for a key of the bucket of the document, and stores it; with a revision, in the place of what has that.
func (c *Cluster) putSealed(ctx context.Context, kv jetstream.KeyValue, key string, text []byte, revision *uint64) (uint64, error) {
	sealed, err := c.keys.Seal(place(bucketDocument, key), text)
	if err != nil {
		return 0, err
	}
	asking, done := within(ctx)
	defer done()
	switch {
	case revision == nil:
		return kv.Put(asking, key, sealed)
	case *revision == 0:
		return kv.Create(asking, key, sealed)
	}
	return kv.Update(asking, key, sealed, *revision)
}

// partsOf compresses a body and cuts it.
func partsOf(body []byte) (parts [][]byte, err error) {
	if len(body) > maxDocument {
		return nil, fmt.Errorf("the configuration has %d MiB: %d are possible", len(body)>>20, maxDocument>>20)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	for b.Len() > 0 {
		parts = append(parts, bytes.Clone(b.Next(maxPart)))
	}
	if len(parts) > maxParts {
		return nil, fmt.Errorf("the configuration has %d MiB when it is compressed: %d are possible", len(parts)*maxPart>>20, maxParts*maxPart>>20)
	}
	return parts, nil
}

// takeDocument takes over what the watch tells of the record. A nil value says that all that there is has been seen.
func (c *Cluster) takeDocument(s *session, v jetstream.KeyValueEntry) {
	d := &s.document
	switch {
	case v == nil:
		d.read = true
	case v.Operation() == jetstream.KeyValuePut:
		d.revision, d.sealed = v.Revision(), v.Value()
	default:
		d.revision, d.sealed = 0, nil
	}
}

// turnDocument takes the document that the store has, if it is newer than this node's, or puts this node's there.
func (c *Cluster) turnDocument(ctx context.Context, s *session) error {
	d, has := &s.document, c.Document()
	switch {
	case d.sealed == nil && d.read && has.Serial == 0:
		c.documentKnown.Store(true)
		return nil
	case !d.read || d.sealed != nil && d.taken == d.revision:
		return nil
	}
	there := &documentRecord{}
	if d.sealed != nil {
		r, err := c.openDocument(d.sealed)
		switch {
		case err == nil:
			there = r
		case has.Serial != 0 && errors.Is(err, seal.ErrNotAuthentic): // it is no node's: as if there were none
			c.complain(err)
		case c.lostDocument(d): // likewise
		case errors.As(err, new(seal.EpochError)): // its key comes, or who has it seals it anew
			return nil
		default:
			d.taken = d.revision
			c.complain(err)
			return nil
		}
	}
	switch {
	case there.Serial > has.Serial, there.Serial == has.Serial && there.Digest != has.Digest: // of two, the store's
		return c.fetchDocument(ctx, s, there)
	case there.Serial < has.Serial:
		return c.putBack(ctx, s, has)
	}
	d.taken = d.revision
	c.documentKnown.Store(true)
	return nil
}

// lostDocument reports whether nobody has the key of the record in the store any more: who has it would have sealed it anew. If somebody
// is as slow as that, its document has the higher serial, and it puts that back.
func (c *Cluster) lostDocument(d *documentWatch) bool {
	epoch := seal.EpochOf(d.sealed)
	return (epoch < c.keys.Oldest() || epoch > c.keys.Newest()) && time.Since(c.seen.at) > completeTime
}

// putBack puts this node's document into a store that has none, or an older one.
func (c *Cluster) putBack(ctx context.Context, s *session, has Document) error {
	revision, err := c.storeDocument(ctx, s.buckets, has, s.document.revision, func() error { return c.stillHere(ctx, s) })
	if conflict(err) {
		return nil // the watch tells what is there now
	}
	if err == nil {
		s.document.taken = revision
		c.documentKnown.Store(true)
		c.log.Info("cluster: the fleet's configuration is put back into the store", "serial", has.Serial)
	}
	return err
}

// fetchDocument reads the parts of a document, and hands it over.
func (c *Cluster) fetchDocument(ctx context.Context, s *session, r *documentRecord) error {
	var packed []byte
	for i := range r.Parts {
		if err := c.stillHere(ctx, s); err != nil {
			return err
		}
		asking, done := within(ctx)
		v, err := s.buckets.document.Get(asking, r.partKey(i))
		done()
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil // the record is another one by now, and the watch tells it
		}
		if err != nil {
			return err
		}
		part, err := c.keys.Open(place(bucketDocument, r.partKey(i)), v.Value())
		if err != nil {
			s.document.taken = s.document.revision
			c.complain(fmt.Errorf("part %d of the fleet's configuration %d: %w", i, r.Serial, err))
			return nil
		}
		packed = append(packed, part...)
	}
	s.document.taken = s.document.revision
	body, err := unpack(packed, r.Digest)
	if err != nil {
		c.complain(fmt.Errorf("the fleet's configuration %d: %w", r.Serial, err))
		return nil
	}
	d := Document{r.Serial, r.By, r.At, r.Digest, body}
	c.SetDocument(d)
	c.documentKnown.Store(true)
	c.log.Info("cluster: the fleet's configuration is another one", "serial", d.Serial, "by", d.By)
	if c.opts.OnDocument != nil {
		c.opts.OnDocument(d)
	}
	if c.alone || d.By == c.opts.Member.Name {
		return c.purgeParts(ctx, s, r)
	}
	return nil
}

// unpack undoes partsOf.
func unpack(packed []byte, digest string) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(z, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != digest {
		return nil, errors.New("it is not what its digest says")
	}
	return body, nil
}

// renewDocument seals the document under the current epoch, if it is this node's turn. left is 1 if it is not done yet.
func (c *Cluster) renewDocument(ctx context.Context, s *session, current uint32, turn bool) (left int, err error) {
	d, has := &s.document, c.Document()
	if d.sealed == nil || seal.EpochOf(d.sealed) >= current {
		return 0, nil
	}
	r, err := c.openDocument(d.sealed)
	switch {
	case err != nil || r.Serial != has.Serial || r.Digest != has.Digest:
		return 0, nil // damaged, or about to be replaced: it is not what the keys of before are kept for
	case !turn:
		return 1, nil
	}
	if _, err := c.storeDocument(ctx, s.buckets, has, d.revision, func() error { return c.stillHere(ctx, s) }); err != nil && !conflict(err) {
		return 1, err
	}
	r.Epoch = current
	return 1, c.purgeParts(ctx, s, r) // 1 until the watch tells it
}

// purgeParts removes the parts of documents before one, and of that what is sealed under epochs before its own. Those of the next may be
// under way.
func (c *Cluster) purgeParts(ctx context.Context, s *session, r *documentRecord) error {
	asking, done := within(ctx)
	defer done()
	list, err := s.buckets.document.ListKeys(asking)
	if err != nil {
		return err
	}
	for key := range list.Keys() {
		var serial uint64
		var epoch uint32
		if _, err := fmt.Sscanf(key, "part.%d.%d.", &serial, &epoch); err != nil || serial > r.Serial || serial == r.Serial && epoch >= r.Epoch {
			continue
		}
		if err := c.purge(ctx, s.buckets.document, key); err != nil {
			return err
		}
	}
	return nil
}
