package engine

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// freePort is an address at which nobody listens.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// A hub that shares the store has a listener for clients, as its server wants it: nobody but the node itself is let in there.
func TestNobodyElse(t *testing.T) {
	other, err := url.Parse("nats-route://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(Options{Name: "hub1", Hub: freePort(t), Between: freePort(t), Others: []*url.URL{other}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Conn.FlushTimeout(5 * time.Second); err != nil {
		t.Errorf("the node itself: %v", err)
	}
	for _, o := range [][]nats.Option{nil, {nats.UserInfo("node", "node")}, {nats.Token("node")}} {
		c, err := nats.Connect(e.server.ClientURL(), append(o, nats.Timeout(5*time.Second))...)
		if err == nil {
			c.Close()
			t.Errorf("a stranger is let in")
		}
	}
}

// authority certifies engines at 127.0.0.1.
type authority struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{Certificate: &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}}
	a.key, a.Raw = a.certify(t, a)
	x, err := x509.ParseCertificate(a.Raw)
	if err != nil {
		t.Fatal(err)
	}
	a.Certificate = x
	return a
}

// certify makes a key, and its certificate: of the authority itself, or of an engine.
func (a *authority) certify(t *testing.T, of *authority) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := a.key
	if of == a {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, of.Certificate, a.Certificate, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// tls is what an engine shows and believes.
func (a *authority) tls(t *testing.T, address net.IP) *tls.Config {
	t.Helper()
	key, der := a.certify(t, &authority{Certificate: &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{address}}})
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
}

// Hubs know each other by their certificates: who has another authority's, or one that is not for a hub's address, is not let in.
func TestShareOverTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	var between []netip.AddrPort
	for range 3 {
		between = append(between, freePort(t))
	}
	here := net.IPv4(127, 0, 0, 1)
	open := func(i int, a *authority, address net.IP) *Engine {
		o := Options{Name: fmt.Sprint("hub", i), Hub: freePort(t), Between: between[i], Dir: t.TempDir(), TLS: a.tls(t, address)}
		for k, b := range between {
			if k != i {
				u, err := url.Parse("tls://" + b.String())
				if err != nil {
					t.Fatal(err)
				}
				o.Others = append(o.Others, u)
			}
		}
		e, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		return e
	}
	first, second := open(0, ours, here), open(1, ours, here)
	makes := func(what string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := first.Store.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: what, Replicas: first.Replicas})
		return err
	}
	for what, stranger := range map[string]func() *Engine{
		"of another authority": func() *Engine { return open(2, theirs, here) },
		"that is a node":       func() *Engine { return open(2, ours, net.IPv4(192, 0, 2, 9)) },
	} {
		e := stranger()
		time.Sleep(3 * time.Second) // an election takes less
		if e.Reached() {
			t.Errorf("a stranger %s is joined to the hubs", what)
		}
		if err := makes("with-a-stranger"); err == nil {
			t.Errorf("a bucket has a replica at a stranger %s", what)
		}
		e.Close()
	}
	open(2, ours, here)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := makes("of-three")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("three hubs make no bucket: %v", err)
		}
	}
	if !first.Reached() || !second.Reached() {
		t.Error("hubs say that they do not reach each other")
	}
}

// A line that the server repeats is said once a minute, with how often it came; what is wrong with something else is another line.
func TestRepeatedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := &logger{to: slog.New(slog.NewTextHandler(&b, nil)), said: map[string]*said{}}
		for attempt := range 1000 {
			l.Errorf("Error trying to connect to route (attempt %d): %v", attempt, "dial tcp 192.0.2.1:4223: connection refused")
			l.Errorf("Error trying to connect to route (attempt %d): %v", attempt, "dial tcp 192.0.2.2:4223: connection refused")
			time.Sleep(100 * time.Millisecond)
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 4 || !strings.Contains(lines[2], "and 599 times more") || !strings.Contains(lines[3], "192.0.2.2") {
			t.Errorf("%d lines: %s", len(lines), &b)
		}
		for i := range 10 * maxSaid {
			l.Warnf("%d", i)
		}
		if len(l.said) > maxSaid {
			t.Errorf("%d lines are remembered", len(l.said))
		}
	})
}

// The engine of a node that is alone listens nowhere, leaves nothing on the disk, and puts nothing there.
func TestAlone(t *testing.T) {
	scratch := t.TempDir()
	e, err := Open(Options{Name: "alone", Alone: &Alone{scratch}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if at := e.server.Addr(); at != nil {
		t.Errorf("it listens at %v", at)
	}
	if v, err := e.server.Varz(nil); err != nil || v.LeafNode.Port != 0 || v.Cluster.Port != 0 || v.HTTPPort != 0 {
		t.Errorf("it listens for leaf nodes at %d, for hubs at %d, %v", v.LeafNode.Port, v.Cluster.Port, err)
	}
	if !e.Reached() || e.Replicas != 1 {
		t.Errorf("reached %v, buckets of %d replicas", e.Reached(), e.Replicas)
	}
	if _, err := e.Store.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "disk", Storage: jetstream.FileStorage, MaxBytes: 1000}); err == nil {
		t.Error("it takes a bucket on disk")
	}
	kv, err := e.Store.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "memory", Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "a", []byte("b")); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(scratch); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if _, err := Open(Options{Name: "alone", Alone: &Alone{filepath.Join(scratch, "none")}}); err == nil || !strings.Contains(err.Error(), "the server wants a directory") {
		t.Errorf("without a directory: %v", err)
	}
}
