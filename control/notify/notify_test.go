package notify

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// What is told arrives once, signed, in order, though the server is broken for a while, or sends elsewhere.
func TestNotify(t *testing.T) {
	secret := []byte("s3cret")
	got := make(chan Notice, 10)
	var tries atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var x Notice
		if err == nil {
			err = json.Unmarshal(body, &x)
		}
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.Header.Get(SignatureHeader) != "sha256="+Sign(secret, body) {
			t.Errorf("%s %v: %s, %v", r.Method, r.Header, body, err)
		}
		switch tries.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		default:
			got <- x
		}
	}))
	defer server.Close()
	n := New(Options{URL: server.URL, Secret: secret, Log: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { n.Run(ctx); close(ended) }()
	first, second := Notice{Tunnel: "t1", Was: "healthy", State: "down", Time: time.Now().UTC()}, Notice{Tunnel: "t2", State: "degraded", Time: time.Now().UTC()}
	n.Tell(first)
	n.Tell(second)
	for _, want := range []Notice{first, second} {
		select {
		case x := <-got:
			if x.Tunnel != want.Tunnel || x.State != want.State || !x.Time.Equal(want.Time) {
				t.Errorf("got %+v, want %+v", x, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing arrives")
		}
	}
	stop()
	<-ended
	if delivered, failed, dropped := n.Counts(); failed != 2 || dropped != 0 || delivered < 1 {
		t.Errorf("%d delivered, %d failed, %d dropped", delivered, failed, dropped)
	}
}

// A server that does not answer does not hold anybody up, and takes no memory without end.
func TestNotifyIsBounded(t *testing.T) {
	n := New(Options{URL: "http://127.0.0.1:9/", Log: slog.New(slog.DiscardHandler)})
	for range depth + 100 {
		n.Tell(Notice{})
	}
	if _, _, dropped := n.Counts(); dropped != 100 {
		t.Errorf("%d are dropped", dropped)
	}
	old := New(Options{URL: "http://127.0.0.1:9/", Log: slog.New(slog.DiscardHandler)})
	old.deliver(t.Context(), told{at: time.Now().Add(-2 * time.Hour)})
	if _, _, dropped := old.Counts(); dropped != 1 {
		t.Error("what is old is tried for ever")
	}
}

// An attack is told as a tunnel's state is, in the same order.
func TestNotifyAttack(t *testing.T) {
	got := make(chan map[string]any, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var x map[string]any
		if err := json.NewDecoder(r.Body).Decode(&x); err != nil {
			t.Error(err)
		}
		got <- x
	}))
	defer server.Close()
	n := New(Options{URL: server.URL, Log: slog.New(slog.DiscardHandler)})
	go n.Run(t.Context())
	n.TellAttack(AttackNotice{Type: "attack", Time: time.Now(), ID: "a-1", Account: "acme", State: "started", Kind: "flood", Vector: "SYN flood",
		Destination: "203.0.113.7", Rate: 120000, Packets: 240000, Sources: []string{"192.0.2.1"}})
	n.Tell(Notice{Type: "tunnel_health", Time: time.Now(), Tunnel: "t1"})
	first, second := <-got, <-got
	if first["type"] != "attack" || first["id"] != "a-1" || first["packets_per_second"] != 120000.0 || first["destination"] != "203.0.113.7" || second["tunnel"] != "t1" {
		t.Errorf("%v, then %v", first, second)
	}
}
