package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A lone is a node without a cluster.
type lone struct {
	*Alone
	t       *testing.T
	log     *log
	scratch string
	heard   chan Document
	stop    func()
}

// newLone makes one that has kept a document.
func newLone(t *testing.T, name string, kept Document) *lone {
	t.Helper()
	l := &lone{t: t, log: &log{}, scratch: t.TempDir(), heard: make(chan Document, 100)}
	var err error
	l.Alone, err = NewAlone(AloneOptions{Member: Member{Name: name}, Scratch: l.scratch, Log: slog.New(slog.NewTextHandler(l.log, nil)),
		OnDocument: func(d Document) { l.heard <- d }})
	if err != nil {
		t.Fatal(err)
	}
	l.SetDocument(kept)
	return l
}

func (l *lone) run() *lone {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error)
	go func() { ran <- l.Run(ctx) }()
	l.stop = func() {
		cancel()
		if err := <-ran; err != nil {
			l.t.Errorf("it ended with %v", err)
		}
		l.Close()
	}
	return l
}

// A node that is alone has what is applied, in order; its store is in memory, and as small as what it has.
func TestAlone(t *testing.T) {
	t.Parallel()                               // it waits more than it works
	l := newLone(t, "edge.", Document{}).run() // a name that is none in a cluster
	first, second := incompressible(3*maxPart), []byte("tunnels: []")
	for i, body := range [][]byte{first, second, first} {
		serial, err := l.Apply(t.Context(), body)
		if err != nil || serial != uint64(i+1) {
			t.Fatalf("%d: serial %d, %v", i, serial, err)
		}
		if d := <-l.heard; d.Serial != serial || d.By != "edge." || !bytes.Equal(d.Body, body) {
			t.Fatalf("%d: heard %d of %s, %d bytes", i, d.Serial, d.By, len(d.Body))
		}
	}
	l.SetRuns(Runs{3, 0, ""})
	if list := l.Nodes(); len(list) != 1 || list[0].Name != "edge." || list[0].State != Self || list[0].Configuration.Serial != 3 || list[0].Epoch != 0 || list[0].Writer != 0 {
		t.Errorf("nodes: %+v", list)
	}
	n := &node{Cluster: l.inner, t: t, patience: patience}
	n.eventually("without the parts of before", func() bool {
		keys, err := l.inner.bucket(t).document.Keys(t.Context())
		return err == nil && len(keys) == 1+3+1 // 3 * maxPart do not become smaller
	})
	for info := range l.inner.engine.Store.ListStreams(t.Context()).Info() {
		if info.Config.Storage != jetstream.MemoryStorage {
			t.Errorf("%s is not in memory", info.Config.Name)
		}
	}
	if files, err := os.ReadDir(l.scratch); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	l.stop()
	if said := l.log.text(); said != "" {
		t.Errorf("its log has\n%s", said)
	}
}

func (c *Cluster) bucket(t *testing.T) *buckets {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buckets
}

// keptDocument is one that a node had when it ended.
func keptDocument() Document {
	body := []byte("kept")
	digest := sha256.Sum256(body)
	return Document{Serial: 7, By: "edge-9", Digest: hex.EncodeToString(digest[:]), Body: body}
}

// Serials go on from what was kept, also when something is applied at once.
func TestAloneGoesOn(t *testing.T) {
	t.Parallel() // it waits more than it works
	l := newLone(t, "edge-1", keptDocument())
	if d := l.Document(); d.Serial != 7 {
		t.Errorf("before it runs, the document is %d", d.Serial)
	}
	l.run()
	defer l.stop()
	if serial, err := l.Apply(t.Context(), []byte("next")); err != nil || serial != 8 {
		t.Fatalf("serial %d, %v", serial, err)
	}
	if d := <-l.heard; d.Serial != 8 || string(d.Body) != "next" {
		t.Errorf("heard %d", d.Serial)
	}
}

// An engine that does not start ends nothing but what needs it.
func TestAloneWithoutEngine(t *testing.T) {
	t.Parallel()
	l := newLone(t, "edge-1", keptDocument())
	if err := os.RemoveAll(l.scratch); err != nil {
		t.Fatal(err)
	}
	l.run()
	begin := time.Now()
	_, err := l.Apply(t.Context(), []byte("next"))
	if err == nil || !strings.Contains(err.Error(), filepath.Base(l.scratch)) {
		t.Errorf("applied without an engine: %v", err)
	}
	if waited := time.Since(begin); waited > aloneWait/2 {
		t.Errorf("refused after %v", waited)
	}
	if d := l.Document(); d.Serial != 7 {
		t.Errorf("the document is %d", d.Serial)
	}
	l.stop()
	if said := l.log.text(); !strings.Contains(said, "the engine does not start") {
		t.Errorf("its log has\n%s", said)
	}
}

// The document is sealed anew with each epoch, and can be replaced afterwards.
func TestAloneRenews(t *testing.T) {
	t.Parallel() // it waits more than it works
	l := newLone(t, "edge-1", keptDocument())
	l.inner.rotateAfter, l.inner.destroyAfter = 2*time.Second, time.Second/2
	l.run()
	defer l.stop()
	n := &node{Cluster: l.inner, t: t, patience: patience}
	n.eventually("begun", func() bool { return l.inner.documentKnown.Load() })
	first := l.inner.keys.Current()
	n.eventually("without the first epoch's key", func() bool { return l.inner.keys.Oldest() > first })
	if serial, err := l.Apply(t.Context(), []byte("next")); err != nil || serial != 8 {
		t.Errorf("serial %d, %v", serial, err)
	}
}
