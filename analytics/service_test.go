package analytics

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/analytics/attack"
	"causeway/analytics/collect"
	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
	"causeway/analytics/graph"
	"causeway/analytics/store"
	"causeway/analytics/store/sqlite"
	"causeway/pipeline"
)

// An engine that has counted a little.
type engine struct{ counters pipeline.TunnelCounters }

func (e *engine) Samples(func(time.Time, *pipeline.Sample))     {}
func (e *engine) TunnelCounters(int) pipeline.TunnelCounters    { return e.counters }
func (e *engine) TunnelDrops(func(pipeline.Drop)) (rest uint64) { return 0 }
func (e *engine) Total() pipeline.Counters                      { return pipeline.Counters{} }
func (e *engine) SetSamplingShift(uint32)                       {}

func options(t *testing.T, tunnels func() []Tunnel) Options {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Options{Dir: t.TempDir(), Place: store.Place{Node: "edge-1"}, Listener: l, Engine: &engine{}, Tunnels: tunnels,
		Health: func() []collect.Health { return nil }, Log: slog.New(slog.DiscardHandler), Thresholds: attack.DefaultConfig().Thresholds,
		SFlow: []string{"127.0.0.1:9"}}
}

func tunnelOf(id string) Tunnel {
	return Tunnel{Tunnel: collect.Tunnel{Tunnel: &flow.Tunnel{ID: id, Name: id, Account: "acme", Kind: "GRE"}, Number: 0},
		Interface: ifindex.Interface{Remote: netip.MustParseAddr("198.51.100.2"), Protocol: 47}}
}

// A service answers where it listens, and ends when it is told to, though somebody streams; what it had open another can open.
func TestService(t *testing.T) {
	o := options(t, func() []Tunnel { return []Tunnel{tunnelOf("a")} })
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	at := "http://" + o.Listener.Addr().String()
	for path, want := range map[string]string{
		"/": "<!doctype html>", graph.StreamPath + "?query={viewer{accounts(filter:{accountTag:%22*%22}){__typename}}}": "event: next",
	} {
		r, err := http.Get(at + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		begin := make([]byte, len(want))
		if _, err := io.ReadFull(r.Body, begin); err != nil || !strings.EqualFold(string(begin), want) {
			t.Errorf("%s: %d, %q, %v", path, r.StatusCode, begin, err)
		}
	}
	if s.web.ReadTimeout == 0 || s.web.WriteTimeout == 0 || s.web.ReadHeaderTimeout == 0 || s.web.IdleTimeout == 0 {
		t.Error("a client may hold a connection for ever")
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	again := options(t, o.Tunnels)
	again.Dir = o.Dir
	if s, err = Open(again); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	again.Listener.Close()
}

// A process that was killed leaves an attack open. The next one shows that it has ended, when the last row was written.
func TestKilledInAnAttack(t *testing.T) {
	o := options(t, func() []Tunnel { return []Tunnel{tunnelOf("a")} })
	killed, err := sqlite.Open(o.Dir, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	last := time.Now().Add(-time.Minute).Truncate(time.Second)
	if err := killed.Write(t.Context(), &store.Batch{Place: o.Place, Attacks: []store.Attack{{ID: "a", Account: "acme", Start: last.Unix() - 100}},
		Traffic: []store.Traffic{{Time: last.Unix(), Account: "acme", Tunnel: tunnelOf("a").Tunnel.Tunnel, Packets: 1}}}); err != nil {
		t.Fatal(err)
	}
	if err := killed.Close(); err != nil { // which writes nothing
		t.Fatal(err)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	const query = `{"query": "{viewer{accounts(filter:{accountTag:\"*\"}){` +
		`dosdAttackAnalyticsGroups(limit:9,filter:{startDatetime_geq:\"-15m\"}){endDatetime}}}}"}`
	var got []byte
	want := fmt.Sprintf("{\"endDatetime\":%q}", last.UTC().Format(time.RFC3339))
	for end := time.Now().Add(10 * time.Second); !strings.Contains(string(got), want) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r, err := http.Post("http://"+o.Listener.Addr().String()+graph.Path, "application/json", strings.NewReader(query))
		if err != nil {
			t.Fatal(err)
		}
		if got, err = io.ReadAll(r.Body); err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	if !strings.Contains(string(got), want) {
		t.Errorf("the answer %s, want %s", got, want)
	}
	stop()
	if err := errors.Join(<-done, s.Close()); err != nil {
		t.Error(err)
	}
}

// A tunnel has the same interface number after a restart, whatever others there are, and collectors are told of a change.
func TestInterfaceNumbers(t *testing.T) {
	list := []Tunnel{tunnelOf("a"), tunnelOf("b"), tunnelOf("c")}
	s := &Service{indexes: map[string]uint32{}}
	if !s.numberInterfaces(list) || s.numberInterfaces(list) {
		t.Error("a change is told when there is none, or not told")
	}
	a, c := s.indexes["a"], s.indexes["c"]
	if a == 0 || a == c || a > ifindex.Max {
		t.Errorf("numbers %v", s.indexes)
	}
	other := &Service{indexes: map[string]uint32{}}
	if other.numberInterfaces([]Tunnel{list[2], list[0]}); other.indexes["a"] != a || other.indexes["c"] != c {
		t.Errorf("numbers %v, before %v", other.indexes, s.indexes)
	}
	list = []Tunnel{list[0], list[1], list[2]}
	list[1].Interface.Overhead = 99
	if !s.numberInterfaces(list) {
		t.Error("a tunnel with other headers is not told")
	}
}

// Whoever attacks chooses how many attacks there are, and not how many lines the log gets.
func TestAttacksAreToldWithinBounds(t *testing.T) {
	told := 0
	o := options(t, func() []Tunnel { return nil })
	defer o.Listener.Close()
	o.Attack = func(attack.Event) { told++ }
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 10 * toldInMinute {
		s.attacked(attack.Event{Change: attack.Started, Vector: attack.SYNFlood})
	}
	if n := s.Stats().Attacks[attack.SYNFlood]; n != 10*toldInMinute || told < toldInMinute-1 || told > 2*toldInMinute { // the minute may end in between
		t.Errorf("%d are counted, %d told", n, told)
	}
}

// pair writes a certificate of that name with its key, signed by itself.
func pair(t *testing.T, name, certificate, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, x, x, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: text}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A reload shows the certificate that is in the files then. One that is none is named, and the old one is shown; so with tokens.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	certificate, key, tokens := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"), filepath.Join(dir, "tokens")
	pair(t, "first", certificate, key)
	if err := os.WriteFile(tokens, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(t, func() []Tunnel { return nil })
	var err error
	if o.TLS, err = LoadCertificate(certificate, key); err != nil {
		t.Fatal(err)
	}
	if o.Tokens, err = graph.LoadTokens(tokens); err != nil {
		t.Fatal(err)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	}()
	shown := func() string {
		c, err := tls.Dial("tcp", o.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "first" {
		t.Errorf("at the start %s is shown", got)
	}
	pair(t, "second", certificate, key)
	if err := s.Reload(); err != nil || shown() != "second" {
		t.Errorf("after a reload %s is shown: %v", shown(), err)
	}
	pair(t, "third", filepath.Join(dir, "other.pem"), key) // the key is not that of the certificate
	if err := os.WriteFile(tokens, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.Reload()
	if err == nil || shown() != "second" {
		t.Errorf("after a reload of a wrong key %s is shown: %v", shown(), err)
	}
	for _, want := range []string{"analytics.tls: " + certificate + " and " + key, "private key does not match", "the certificate that was read before is still shown",
		"analytics.tokens.file: ", "the tokens that were read before stay valid"} {
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if _, err := LoadCertificate(filepath.Join(dir, "none"), key); err == nil {
		t.Error("a certificate that there is not is read")
	}
	if err := (*Service)(nil).Reload(); err != nil {
		t.Error(err)
	}
}
