// Package notify tells somebody's web server that the state of a tunnel is another, or of an attack: a POST of JSON, again and again until it is taken, in the
// order in which things happened.
package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

// A Notice is what is told.
type Notice struct {
	Type       string    `json:"type"` // tunnel_health
	Time       time.Time `json:"time"`
	Node       string    `json:"node"` // that tells it
	Datacenter string    `json:"datacenter"`
	Tunnel     string    `json:"tunnel"`
	Account    string    `json:"account"`
	Was        string    `json:"was"`   // healthy, degraded, down
	State      string    `json:"state"` // in this data center
	Why        string    `json:"why"`   // as the node that tells it finds
	Leg        string    `json:"leg,omitempty"`
	Healthy    int       `json:"nodes_healthy"`
	Degraded   int       `json:"nodes_degraded"`
	Down       int       `json:"nodes_down"`
	Disagree   []string  `json:"disagree,omitempty"` // nodes that do not find it so
}

// An AttackNotice tells that an attack has begun or ended. Numbers of packets are estimates.
type AttackNotice struct {
	Type        string    `json:"type"` // attack
	Time        time.Time `json:"time"`
	Node        string    `json:"node"` // that found it
	Datacenter  string    `json:"datacenter"`
	ID          string    `json:"id"`      // the same when it ends
	Account     string    `json:"account"` // of the destination; "": an endpoint's
	State       string    `json:"state"`   // started, ended
	Kind        string    `json:"kind"`    // flood, reflection, scan, anomaly
	Vector      string    `json:"vector"`
	Destination string    `json:"destination"`
	Rate        float64   `json:"packets_per_second"` // now
	Packets     uint64    `json:"packets"`            // since it began
	Bits        uint64    `json:"bits"`
	Sources     []string  `json:"sources,omitempty"`        // those of most packets; who scans
	Samples     []string  `json:"sample_packets,omitempty"` // first bytes of some of the first packets, from the IP header on, in hexadecimal
}

// SignatureHeader has the HMAC-SHA256 of the body under the secret, in hexadecimal, behind "sha256=".
const SignatureHeader = "X-Causeway-Signature"

// Bounds: what waits, how long one try may take, the time between two tries, and after how long a notice is too old to be news.
const (
	depth     = 1024
	tryTime   = 10 * time.Second
	firstWait = time.Second
	lastWait  = time.Minute
	maxAge    = time.Hour
)

// Options are where notices go.
type Options struct {
	URL    string
	Secret []byte // nil: they are not signed
	Log    *slog.Logger
}

// told is a notice that waits.
type told struct {
	at    time.Time
	about []any // for the log
	body  any
}

// A Notifier tells one web server. Its methods may be called by any goroutine, Run once.
type Notifier struct {
	opts   Options
	client http.Client
	queue  chan told

	delivered, failed, dropped atomic.Uint64
}

// New makes a Notifier.
func New(o Options) *Notifier {
	return &Notifier{opts: o, queue: make(chan told, depth), client: http.Client{Timeout: tryTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Tell has a notice delivered. It does not wait: when too many wait already it is dropped, and counted.
func (n *Notifier) Tell(x Notice) {
	n.add(told{x.Time, []any{"tunnel", x.Tunnel, "state", x.State}, x})
}

// TellAttack is Tell for an attack.
func (n *Notifier) TellAttack(x AttackNotice) {
	n.add(told{x.Time, []any{"attack", x.ID, "state", x.State}, x})
}

func (n *Notifier) add(x told) {
	select {
	case n.queue <- x:
	default:
		n.dropped.Add(1)
	}
}

// Counts are how many notices were delivered, how many tries failed, and how many notices were given up.
func (n *Notifier) Counts() (delivered, failed, dropped uint64) {
	return n.delivered.Load(), n.failed.Load(), n.dropped.Load()
}

// Run delivers until ctx is done.
func (n *Notifier) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-n.queue:
			n.deliver(ctx, x)
		}
	}
}

// deliver tries until the server has taken a notice, or it is old.
func (n *Notifier) deliver(ctx context.Context, x told) {
	body, err := json.Marshal(x.body)
	if err != nil {
		panic(err) // strings, numbers and a time
	}
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := n.post(ctx, body)
		switch {
		case err == nil:
			n.delivered.Add(1)
			return
		case ctx.Err() != nil:
			return
		case time.Since(x.at) > maxAge:
			n.dropped.Add(1)
			n.opts.Log.Error("a notice is given up", append(x.about, "error", err)...)
			return
		}
		n.failed.Add(1)
		n.opts.Log.Warn("a notice is not taken; it is tried again", append(x.about, "error", err, "again_in", wait)...)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (n *Notifier) post(ctx context.Context, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.opts.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "causeway")
	if n.opts.Secret != nil {
		r.Header.Set(SignatureHeader, "sha256="+Sign(n.opts.Secret, body))
	}
	answer, err := n.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection is used again
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", r.URL.Host, answer.Status)
	}
	return nil
}

// Sign is the signature of a body, in hexadecimal.
func Sign(secret, body []byte) string {
	h := hmac.New(sha256.New, secret)
	_, _ = h.Write(body) // cannot fail
	return hex.EncodeToString(h.Sum(nil))
}
