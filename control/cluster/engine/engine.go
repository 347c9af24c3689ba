// Package engine runs the NATS server that each node has within its process, and joins it to those of others.
//
// A node that serves others (Options.Hub) has the store, JetStream, and takes leaf nodes at an address; every node that names servers
// is a leaf node of one of them, and of no other that they tell of. Hubs may have the store in common (Options.Others): each has a replica,
// and a majority of them is the store. A node that both serves and names servers is a relay, for nodes of its region: it has no store.
// A node that is alone (Options.Alone) has a store in memory, which ends with the process.
// Nothing else listens: the node itself talks to its server in memory.
package engine

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Domain is the JetStream domain of the store: leaf nodes reach it from wherever they are.
const Domain = "causeway"

// Options say what an engine is to be.
type Options struct {
	Name    string // the node's
	Servers []*url.URL
	TLS     *tls.Config // for both directions; nil: none, which only tests do
	Hub     netip.AddrPort
	Dir     string         // of the store, for a hub
	Between netip.AddrPort // where other hubs with the store find this one; not valid: it has the store alone
	Others  []*url.URL     // those hubs
	Foreign *Foreign       // the servers are somebody's NATS deployment; nil: they are nodes
	Alone   *Alone         // there are no other nodes; nil: there are
	Log     *slog.Logger
}

// Alone is what the engine of a node that is alone needs: no other one has a store that ends with its process, in which numbers would be
// given again.
type Alone struct {
	Scratch string // where a directory can be made, which is gone when the engine has started
}

// Foreign is what a NATS deployment that is not made of nodes is like.
type Foreign struct {
	Domain      string // of its JetStream: leaf nodes reach no other
	Replicas    int    // that buckets are made with
	Credentials string // path of a NATS credentials file; "": the certificate is enough
}

// domain is the store's.
func (o *Options) domain() string {
	if o.Foreign != nil {
		return o.Foreign.Domain
	}
	return Domain
}

// relay reports whether the node serves others and has no store.
func (o *Options) relay() bool { return o.Hub.IsValid() && len(o.Servers) > 0 }

// replicas is how many replicas buckets are made with; 0: somebody else makes them.
func (o *Options) replicas() int {
	switch {
	case o.Alone != nil:
		return 1
	case o.Foreign != nil:
		return o.Foreign.Replicas
	case !o.Hub.IsValid() || o.relay():
		return 0
	}
	return 1 + len(o.Others)
}

// An Engine is a running server and the node's connection to it.
type Engine struct {
	options Options
	server  *server.Server
	log     *logger
	stop    func() // ends what watches over the store

	jetstream server.JetStreamConfig // of a node with a store on a disk
	Conn      *nats.Conn
	Store     jetstream.JetStream

	Replicas int // with which this node makes buckets; 0: it makes none
}

// How long the server may take to start: with a large store it reads much.
const (
	startLimit      = 30 * time.Second
	startAloneLimit = 5 * time.Second
)

// Open starts a server. It returns before the servers that it names are reached.
func Open(o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	limit := startLimit
	if o.Alone != nil {
		limit = startAloneLimit
		dir, err := os.MkdirTemp(o.Alone.Scratch, "causeway-engine-")
		if err != nil {
			return nil, fmt.Errorf("engine: the server wants a directory, which it leaves empty: %w", err)
		}
		defer os.RemoveAll(dir)
		o.Dir = dir
	}
	s, err := server.NewServer(o.options())
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	e := &Engine{options: o, server: s, log: &logger{to: o.Log, said: map[string]*said{}}, stop: func() {}, Replicas: o.replicas()}
	s.SetLoggerV2(e.log, false, false, false)
	go s.Start()
	if !s.ReadyForConnections(limit) {
		e.Close()
		return nil, fmt.Errorf("cluster: the engine was not ready within %v: see the log before", limit)
	}
	if e.Conn, err = nats.Connect("", nats.InProcessServer(s), nats.Name("causeway "+o.Name), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err == nil {
		e.Store, err = jetstream.NewWithDomain(e.Conn, o.domain(), jetstream.WithDefaultTimeout(requestLimit))
	}
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if c := s.JetStreamConfig(); c != nil && o.Alone == nil {
		e.jetstream = *c
		e.jetstream.StoreDir = o.Dir // the server's own is a directory in it
		ctx, stop := context.WithCancel(context.Background())
		var mending sync.WaitGroup
		mending.Go(func() { e.mend(ctx) })
		e.stop = func() { stop(); mending.Wait() }
	}
	return e, nil
}

// requestLimit is how long an answer of the store is waited for where the caller has no limit of its own.
const requestLimit = 5 * time.Second

// maxValue bounds a message: an IKE SA with its fragments is the largest.
const maxValue = 256 << 10

// maxAlone bounds the store of a node that is alone: the largest document, and the one that takes its place, have half of it.
const maxAlone = 64 << 20

func (o Options) options() *server.Options {
	out := &server.Options{ServerName: o.serverName(), DontListen: true, NoSigs: true, MaxPayload: maxValue, MaxPending: 64 << 20, DisableShortFirstPing: true}
	out.LeafNode.Compression.Mode = server.CompressionOff // what is sealed does not become shorter
	if o.Hub.IsValid() {
		out.LeafNode.Host, out.LeafNode.Port = o.Hub.Addr().String(), int(o.Hub.Port())
		out.LeafNode.TLSConfig, out.LeafNode.TLSTimeout = o.TLS, 5
		if !o.relay() {
			out.JetStream, out.StoreDir, out.JetStreamDomain = true, o.Dir, Domain
			out.SyncAlways = true // what was reserved stands on disk before it is relied on
		}
	}
	if o.Alone != nil {
		out.JetStream, out.StoreDir, out.JetStreamDomain = true, o.Dir, Domain
		out.JetStreamMaxMemory, out.JetStreamMaxStore = maxAlone, 1 // 0 would be what the disk has
	}
	if o.Between.IsValid() {
		out.Cluster = server.ClusterOpts{Name: Domain, Host: o.Between.Addr().String(), Port: int(o.Between.Port()), TLSConfig: o.TLS, TLSTimeout: 5, NoAdvertise: true}
		out.Routes = o.Others
		if o.TLS != nil {
			out.CustomRouterAuthentication = hubs(o.Others)
		}
		// A server with routes does not begin without a listener for clients. Nobody is let in there.
		out.DontListen, out.Host, out.Port, out.CustomClientAuthentication = false, "127.0.0.1", server.RANDOM_PORT, inProcess{}
	}
	if len(o.Servers) > 0 {
		remote := &server.RemoteLeafOpts{Compression: server.CompressionOpts{Mode: server.CompressionOff}, URLs: o.Servers, IgnoreDiscoveredServers: true, TLS: o.TLS != nil, TLSConfig: o.TLS, TLSTimeout: 5}
		if o.Foreign != nil {
			remote.Credentials = o.Foreign.Credentials
		}
		out.LeafNode.ReconnectInterval = 500 * time.Millisecond
		out.LeafNode.Remotes = []*server.RemoteLeafOpts{remote}
	}
	return out
}

// serverName is by what other servers know this one. A hub's has the store's replicas, and stays. Others are called what nobody else is: of two
// of one name the one that called first would be cut off, so that whoever has a certificate, and takes a node's name, could do that to it.
func (o Options) serverName() string {
	if len(o.Servers) > 0 {
		return o.Name + "-" + rand.Text()
	}
	return o.Name
}

// inProcess lets in clients of this process alone, and leaf nodes, which have shown their certificates.
type inProcess struct{}

// Check implements server.Authentication.
func (inProcess) Check(c server.ClientAuthentication) bool {
	_, network := c.RemoteAddress().(*net.TCPAddr)
	return !network || c.Kind() == server.LEAF
}

// hubs lets in the hubs that this one names, by what their certificates are for: one that admits a node to the cluster is not enough to be
// a part of the store.
type hubs []*url.URL

// Check implements server.Authentication.
func (list hubs) Check(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	return slices.ContainsFunc(list, func(u *url.URL) bool { return state.PeerCertificates[0].VerifyHostname(u.Hostname()) == nil })
}

// ErrAway says that no server is reached.
var ErrAway = errors.New("no server of cluster.servers is reached")

// Reached reports whether the store can be: this node has it, alone or with others of which it reaches one, or is joined to a node that
// leads there.
func (e *Engine) Reached() bool { return e.Link() != 0 }

// Link is the connection by which the store is reached. Another one leads to where all may be different. 0: there is none.
func (e *Engine) Link() uint64 {
	const itself = 1 // no connection has this number: the server's own come first
	switch o := &e.options; {
	case len(o.Servers) > 0:
		return e.remote()
	case len(o.Others) > 0 && e.server.NumRoutes() == 0:
		return 0
	}
	return itself
}

// remote is the connection to the server that this node has called: a relay is called by leaf nodes of its own too.
func (e *Engine) remote() uint64 {
	z, err := e.server.Leafz(nil)
	if err != nil {
		return 0
	}
	for _, l := range z.Leafs {
		if l.IsSpoke { // we have called
			return l.ID
		}
	}
	return 0
}

// Close ends connection and server.
func (e *Engine) Close() {
	e.stop()
	if e.Conn != nil {
		e.Conn.Close()
	}
	e.server.Shutdown()
	e.server.WaitForShutdown()
}

// A logger brings the server's lines into the node's log. Its notices are of interest to whoever looks for a fault alone.
type logger struct {
	to     *slog.Logger
	failed atomic.Bool // the store could not write

	mu   sync.Mutex
	said map[string]*said
}

// said is a line that is said once in repeatTime: each hub tries to reach one that is down several times a second.
type said struct {
	at    time.Time
	times int // since then, without a line
}

const (
	repeatTime = time.Minute
	maxSaid    = 256
)

func (l *logger) line(level slog.Level, format string, args []any) {
	if times, say := l.repeats(format, args, time.Now()); say {
		text := "cluster engine: " + fmt.Sprintf(format, args...)
		if times > 0 {
			text += fmt.Sprintf(" (and %d times more since this was said)", times)
		}
		l.to.Log(context.Background(), level, text)
	}
}

// repeats reports whether a line is to be said, and how often it was not. Lines are the same if their last words are, which say what is
// wrong: those before count.
func (l *logger) repeats(format string, args []any, now time.Time) (times int, say bool) {
	key := format
	if len(args) > 0 {
		key += fmt.Sprint(args[len(args)-1])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.said[key]; s != nil && now.Sub(s.at) < repeatTime {
		s.times++
		return 0, false
	} else if s != nil {
		times = s.times
	}
	if len(l.said) >= maxSaid {
		clear(l.said)
	}
	l.said[key] = &said{at: now}
	return times, true
}

func (l *logger) Noticef(format string, args ...any) {
	level := slog.LevelDebug
	if strings.Contains(format, "Slow Consumer") { // a node that does not take what is said to it, and is cut off for that
		level = slog.LevelWarn
	}
	l.line(level, format, args)
}
func (l *logger) Warnf(format string, args ...any) { l.line(slog.LevelWarn, format, args) }
func (l *logger) Errorf(format string, args ...any) {
	if failsToWrite(format) {
		l.failed.Store(true)
	}
	l.line(slog.LevelError, format, args)
}
func (l *logger) Fatalf(format string, args ...any) {
	l.line(slog.LevelError, "%s", []any{fmt.Sprintf(format, args...)})
}
func (l *logger) Debugf(format string, args ...any) {}
func (l *logger) Tracef(format string, args ...any) {}
