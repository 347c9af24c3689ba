package ike

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"

	"causeway/control/ike/sa"
)

// A transcript is what was said between a daemon with fixed randomness and strongSwan, and the keys that strongSwan had:
// TestRootTranscripts writes it.
type transcript struct {
	IKE, ESP string // what both propose
	Seed     uint64 // of the randomness
	Steps    []transcriptStep
	Secrets  map[string][]string // in hexadecimal digits, by charon's names of them
}

// A transcriptStep is an order to the daemon, or a datagram.
type transcriptStep struct {
	Do             string         `json:",omitempty"`
	Sent, Received string         `json:",omitempty"` // in hexadecimal digits
	Local, Remote  netip.AddrPort // of a datagram
}

// orders are what a daemon may be told to do.
var orders = map[string]func(ctx context.Context, d *Daemon) error{
	"initiate":  func(ctx context.Context, d *Daemon) error { return d.Initiate(ctx, "cust-a") },
	"rekey":     func(ctx context.Context, d *Daemon) error { return d.Rekey(ctx, "cust-a", false) },
	"rekey-ike": func(ctx context.Context, d *Daemon) error { return d.Rekey(ctx, "cust-a", true) },
	"terminate": func(ctx context.Context, d *Daemon) error { return d.Terminate(ctx, "cust-a") },
}

// A keyPlane is a plane that remembers all keys.
type keyPlane struct {
	*plane
	keys map[string]bool // in hexadecimal digits
}

func (p *keyPlane) Install(c *sa.Child) error {
	p.mu.Lock()
	p.keys[hex.EncodeToString(c.KeyIn)], p.keys[hex.EncodeToString(c.KeyOut)] = true, true
	p.mu.Unlock()
	return p.plane.Install(c)
}

// A witness is a daemon of a transcript, with all keys that it has had.
type witness struct {
	*Daemon
	plane  *keyPlane
	log    *lockedBuffer
	keysMu sync.Mutex
	keys   map[string]bool
}

func newWitness(t *testing.T, x *transcript, to Transport) *witness {
	w := &witness{plane: &keyPlane{newPlane("", 0x1000), map[string]bool{}}, keys: map[string]bool{}, log: &lockedBuffer{}}
	w.Daemon = New(Options{Transport: to, Dataplane: w.plane, Workers: 2, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	w.SetTunnels([]*Tunnel{tunnelOf(t, true, x.IKE, x.ESP)})
	cryptotest.SetGlobalRandom(t, x.Seed) // what was drawn until here does not matter
	return w
}

// look remembers the keys of the IKE SAs that there are.
func (w *witness) look() {
	w.mu.Lock()
	list := make([]*ikeSA, 0, len(w.bySPI))
	for _, s := range w.bySPI {
		list = append(list, s)
	}
	w.mu.Unlock()
	w.keysMu.Lock()
	defer w.keysMu.Unlock()
	for _, s := range list {
		s.mu.Lock()
		if k := s.Keys; k != nil {
			for _, b := range [][]byte{k.D, k.Ai, k.Ar, k.Ei, k.Er, k.Pi, k.Pr} {
				if len(b) > 0 && !bytes.Equal(b, make([]byte, len(b))) {
					w.keys[hex.EncodeToString(b)] = true
				}
			}
		}
		s.mu.Unlock()
	}
}

// ikeKeyNames are what charon calls the keys of an IKE SA.
var ikeKeyNames = []string{"Sk_d secret", "Sk_ai secret", "Sk_ar secret", "Sk_ei secret", "Sk_er secret", "Sk_pi secret", "Sk_pr secret"}

// sameKeys compares the daemon's keys with charon's, which has none besides.
func (w *witness) sameKeys(t *testing.T, x *transcript) {
	t.Helper()
	w.keysMu.Lock()
	defer w.keysMu.Unlock()
	ike, children := map[string]bool{}, map[string]bool{}
	for _, name := range ikeKeyNames {
		for _, k := range x.Secrets[name] {
			ike[k] = true
		}
	}
	for _, side := range []string{"initiator", "responder"} {
		integrity := x.Secrets["integrity "+side+" key"]
		for i, k := range x.Secrets["encryption "+side+" key"] {
			if len(integrity) > 0 {
				k += integrity[i]
			}
			children[k] = true
		}
	}
	for _, both := range []struct {
		what        string
		ours, their map[string]bool
	}{{"IKE SAs", w.keys, ike}, {"children", w.plane.keys, children}} {
		for k := range both.ours {
			if !both.their[k] {
				t.Errorf("charon has no key %s of %s", k, both.what)
			}
		}
		for k := range both.their {
			if !both.ours[k] {
				t.Errorf("we have no key %s of %s", k, both.what)
			}
		}
	}
	if len(ike) < 5*4 || len(children) < 2*5 {
		t.Errorf("charon's log has %d keys of IKE SAs and %d of children", len(ike), len(children))
	}
}

// A tape keeps what is sent.
type tape struct {
	mu   sync.Mutex
	sent []transcriptStep
}

func (p *tape) Send(local, remote netip.AddrPort, b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, transcriptStep{Sent: hex.EncodeToString(b), Local: local, Remote: remote})
	return nil
}

func (p *tape) take() (s transcriptStep) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sent) > 0 {
		s, p.sent = p.sent[0], p.sent[1:]
	}
	return s
}

// replay says everything again that charon said: the daemon must answer the same, byte for byte, and have charon's keys.
func (x *transcript) replay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &tape{}
		w := newWitness(t, x, p)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() { _ = w.Run(ctx); close(done) }()
		for i, s := range x.Steps {
			synctest.Wait()
			switch {
			case s.Do != "":
				go func() { _ = orders[s.Do](ctx, w.Daemon) }()
			case s.Sent != "":
				if got := p.take(); got != s {
					t.Errorf("step %d: sent %+v, want %+v", i, got, s)
				}
			default:
				b, err := hex.DecodeString(s.Received)
				if err != nil {
					t.Fatal(err)
				}
				w.Receive(s.Local, s.Remote, b)
			}
			synctest.Wait()
			w.look()
		}
		if s := p.take(); s.Sent != "" {
			t.Errorf("sent besides: %+v", s)
		}
		w.sameKeys(t, x)
		cancel()
		<-done
		if t.Failed() {
			t.Log(w.log)
		}
	})
}

// TestTranscripts compares keys and messages of each exchange with those of strongSwan.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.json")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			x := &transcript{}
			if err := json.Unmarshal(text, x); err != nil {
				t.Fatal(err)
			}
			x.replay(t)
		})
	}
}

// write writes the transcript.
func (x *transcript) write(path string) error {
	text, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
