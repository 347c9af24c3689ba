package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// apply makes a document of a node's.
func (n *node) apply(body []byte) uint64 {
	n.t.Helper()
	serial, err := n.Apply(n.t.Context(), body)
	if err != nil {
		n.t.Fatal(err)
	}
	return serial
}

// knows waits until a node has been told a document.
func (n *node) knows(serial uint64, body []byte) {
	n.t.Helper()
	n.eventually("knowing the document", func() bool {
		d := n.Document()
		return d.Serial == serial && bytes.Equal(d.Body, body)
	})
}

// incompressible is a body of several parts.
func incompressible(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// What is applied at one node is known to all, in order, also when it is longer than a value, and to who comes later.
func TestDocument(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "late")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	if d := hub.Document(); d.Serial != 0 {
		t.Fatalf("a document from nowhere: %d", d.Serial)
	}
	first, second := []byte("tunnels: []"), incompressible(3*maxPart)
	if serial := a.apply(first); serial != 1 {
		t.Errorf("the first one is %d", serial)
	}
	for _, n := range []*node{hub, a} {
		n.knows(1, first)
		if d := n.Document(); d.By != "a" || time.Since(d.At) > time.Minute {
			t.Errorf("%s: by %q, at %v", n.name, d.By, d.At)
		}
	}
	if serial := hub.apply(second); serial != 2 {
		t.Errorf("the second one is %d", serial)
	}
	late := b.start("late").joined()
	for _, n := range []*node{hub, a, late} {
		n.knows(2, second)
		if told := <-n.documents; n.name == "late" && told.Serial != 2 {
			t.Errorf("%s was told %d", n.name, told.Serial)
		}
	}
	hub.eventually("without the parts of before", func() bool {
		keys, err := hub.bucket().document.Keys(t.Context())
		return err == nil && len(keys) == 1+3+1 // 3 * maxPart do not become smaller
	})
	a.SetRuns(Runs{1, 2, strings.Repeat("because ", 1000)})
	hub.eventually("knowing what a runs", func() bool {
		for _, v := range hub.Nodes() {
			if v.Name == "a" {
				r := v.Configuration
				return r.Serial == 1 && r.Refused == 2 && strings.HasPrefix(r.Why, "because") && len(r.Why) < 1010
			}
		}
		return false
	})
}

// Of two that apply at one time one is told so, and all have the other one's.
func TestDocumentsOfTwo(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	won, lost := map[uint64][]byte{}, 0
	for range 5 {
		type outcome struct {
			serial uint64
			body   []byte
			err    error
		}
		outcomes := make(chan outcome)
		for _, n := range []*node{hub, a} {
			go func() {
				body := incompressible(2*maxPart + len(n.name))
				serial, err := n.Apply(context.Background(), body)
				outcomes <- outcome{serial, body, err}
			}()
		}
		for range 2 {
			switch o := <-outcomes; {
			case errors.Is(o.err, ErrApplied):
				lost++
			case o.err != nil:
				t.Fatal(o.err)
			case won[o.serial] != nil:
				t.Fatalf("two have serial %d", o.serial)
			default:
				won[o.serial] = o.body
			}
		}
	}
	last := uint64(len(won))
	t.Logf("%d applied, %d refused", last, lost)
	for _, n := range []*node{hub, a} {
		n.knows(last, won[last])
	}
}

// A store that was lost gets the newest document that a node still has, whichever comes first.
func TestDocumentSurvivesTheStore(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "old")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	hub.apply([]byte("first"))
	a.knows(1, []byte("first"))
	before := a.Document()
	hub.apply([]byte("second"))
	a.knows(2, []byte("second"))
	after := a.Document()
	hub.stop()
	a.stop()
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	hub = b.start("hub").joined()
	old := b.prepare("old")
	old.SetDocument(before)
	old.run().joined()
	hub.knows(1, []byte("first"))
	a = b.prepare("a")
	a.SetDocument(after)
	a.run().joined()
	for _, n := range []*node{hub, a, old} {
		n.knows(2, []byte("second"))
	}
	if serial := old.apply([]byte("third")); serial != 3 {
		t.Errorf("the next one is %d", serial)
	}
	hub.knows(3, []byte("third"))
}

// A new epoch: the document is sealed anew, and who has the new key alone reads it.
func TestDocumentOutlivesEpochs(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "late")
	b.quick = true
	hub, a := b.start("hub").joined(), b.start("a").joined()
	body := incompressible(2 * maxPart)
	a.apply(body)
	hub.knows(1, body)
	first := hub.keys.Current()
	hub.eventually("without the first key", func() bool { return hub.keys.Current() > first && hub.keys.Oldest() > first })
	b.start("late").joined().knows(1, body)
}

// What is not authentic, or damaged, is not taken, and what there was stays.
func TestDocumentDamaged(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	hub.apply([]byte("good"))
	a.knows(1, []byte("good"))
	kv := hub.bucket().document
	good, err := kv.Get(t.Context(), keyDocument)
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, b []byte) {
		t.Helper()
		if _, err := kv.Put(t.Context(), key, b); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string, does func()) {
		t.Helper()
		before := a.Status().Refused
		does()
		a.eventually("refusing "+what, func() bool { return a.Status().Refused > before })
		if d := a.Document(); d.Serial != 1 || string(d.Body) != "good" {
			t.Errorf("%s: document %d", what, d.Serial)
		}
	}
	flipped := bytes.Clone(good.Value())
	flipped[len(flipped)-1] ^= 1
	refused("a record with another bit", func() { put(keyDocument, flipped) })
	refused("a short record", func() { put(keyDocument, good.Value()[:10]) })
	sum := sha256.Sum256([]byte("evil"))
	next := &documentRecord{documentVersion, 2, "hub", time.Now(), hex.EncodeToString(sum[:]), 1, hub.keys.Current()}
	seal := func(r *documentRecord) {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := hub.keys.Seal(place(bucketDocument, keyDocument), text)
		if err != nil {
			t.Fatal(err)
		}
		put(keyDocument, sealed)
	}
	refused("a part that was sealed for another place", func() {
		put(next.partKey(0), good.Value())
		seal(next)
	})
	refused("parts that are not what the digest says", func() {
		parts, err := partsOf([]byte("other"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hub.putSealed(t.Context(), kv, next.partKey(0), parts[0], nil); err != nil {
			t.Fatal(err)
		}
		seal(next)
	})
	refused("a record of a later release", func() {
		next.Version = 99
		seal(next)
	})
	// What is sealed rightly is taken: the same, with its parts.
	put(keyDocument, good.Value())
	if serial := a.apply([]byte("better")); serial != 2 {
		t.Errorf("the next one is %d", serial)
	}
	hub.knows(2, []byte("better"))
	for range 2 { // what is gone from the store is put back
		if err := kv.Purge(t.Context(), keyDocument); err != nil {
			t.Fatal(err)
		}
		hub.eventually("with the record again", func() bool {
			_, err := kv.Get(t.Context(), keyDocument)
			return !errors.Is(err, jetstream.ErrKeyNotFound)
		})
	}
}

func TestDocumentTooLong(t *testing.T) {
	for _, body := range [][]byte{incompressible(maxPart*maxParts + 1), make([]byte, maxDocument+1)} {
		if _, err := partsOf(body); err == nil || !strings.Contains(err.Error(), "are possible") {
			t.Errorf("%d bytes: %v", len(body), err)
		}
	}
	parts, err := partsOf(bytes.Repeat([]byte{0}, maxDocument))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unpack(bytes.Join(parts, nil), strings.Repeat("0", 64)); err == nil {
		t.Error("another digest is believed")
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"v":1,"serial":1,"by":"a","at":"2026-11-29T23:00:00Z","digest":"` + strings.Repeat("ab", 32) + `","parts":1}`))
	f.Add([]byte(`{"v":1,"serial":0,"digest":"","parts":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseDocument(b)
		if err != nil {
			return
		}
		if r.Serial == 0 || r.Parts < 1 || r.Parts > maxParts || r.partKey(r.Parts-1) == "" {
			t.Fatalf("%q is read as %+v", b, r)
		}
	})
}
