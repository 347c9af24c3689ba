// Package analytics puts its rooms together: what collect reads of the workers goes to the store, to the detectors and to the
// exporters, and graph answers for the store.
package analytics

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"causeway/analytics/attack"
	"causeway/analytics/collect"
	"causeway/analytics/dashboard"
	"causeway/analytics/dataset"
	"causeway/analytics/export"
	"causeway/analytics/export/ifindex"
	"causeway/analytics/export/sflow"
	"causeway/analytics/geo"
	"causeway/analytics/graph"
	"causeway/analytics/store"
	"causeway/analytics/store/clickhouse"
	"causeway/analytics/store/fleet"
	"causeway/analytics/store/query"
	"causeway/analytics/store/sqlite"

	"golang.org/x/net/netutil"
)

// Options say what there is to count, and who is told. Dir, Engine, Tunnels, Health and Log must be there.
type Options struct {
	Dir       string // of the store; made if it is not there
	Place     store.Place
	Agent     netip.Addr // by which sFlow's collectors know the node
	Retention sqlite.Retention
	MaxBytes  int64 // of the store; of the buffer, if ClickHouse is the store

	ClickHouse         string // URL of the server that is the store; "": the files in Dir are
	ClickHousePassword string

	Nodes fleet.Nodes // the others of the cluster, each with a store of its own; nil: there are none

	Listener net.Listener
	TLS      *Certificate  // nil: HTTP without it
	Tokens   *graph.Tokens // nil: everybody who reaches Listener sees all
	SFlow    []string
	IPFIX    []string
	Geo      *geo.DB // nil: nothing is known of addresses
	Keep4    int     // bits of addresses that are kept; 0: all
	Keep6    int

	Engine   collect.Engine
	Tunnels  func() []Tunnel // those that the workers know now
	Health   func() []collect.Health
	Shown    func() []graph.Tunnel // the tunnels for those who ask; called once a second at most. nil: none
	Accounts func() []string       // of the node's configuration; nil: none
	Attack   func(attack.Event)    // is told each; nil: nobody

	Thresholds [attack.Vectors]float64 // of attacks, packets a second; 0: the vector is not looked for

	Log *slog.Logger
}

// A Tunnel is one that the workers know, with its ends.
type Tunnel struct {
	collect.Tunnel
	ifindex.Interface // but for Index and Tunnel
}

// Stats are counts since the start.
type Stats struct {
	Collect collect.Stats
	Export  export.Stats
	Attacks [attack.Vectors]uint64 // that were found
	Active  int                    // that go on
	Fleet   fleet.Stats
	Buffer  *clickhouse.Stats // nil: the files of the node are the store
}

// A keeper is a store that has work of its own to do.
type keeper interface {
	store.Ingester
	store.Querier
	Run(context.Context)
	Close() error
}

// A Service is the analytics of one node.
type Service struct {
	o         Options
	store     keeper
	own       fleet.Own    // that other nodes can ask; nil: ClickHouse is the store of all
	fleet     *fleet.Store // that asks them; nil: nobody is asked
	open      sync.RWMutex // while somebody is answered
	closed    bool
	collector *collect.Collector
	exporter  *export.Exporter
	graph     *graph.Handler
	web       *http.Server

	indexes map[string]uint32 // of tunnels as interfaces, by id; of the collector's goroutine
	known   []Tunnel          // that indexes has
	latest  atomic.Pointer[[]Tunnel]

	attacks [attack.Vectors]atomic.Uint64
	minute  int64 // in which told were told; of the collector's goroutine
	told    int
	active  atomic.Int64
}

// Open makes a Service; Run starts it. Whatever cannot be opened is an error.
func Open(o Options) (s *Service, err error) {
	s = &Service{o: o, indexes: map[string]uint32{}}
	if s.store, err = s.openStore(); err != nil {
		return nil, fmt.Errorf("analytics: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.store.Close())
		}
	}()
	s.exporter, err = export.New(export.Options{SFlow: o.SFlow, IPFIX: o.IPFIX, Agent: o.Agent, Counters: s.exportCounters})
	if err != nil {
		return nil, fmt.Errorf("analytics.export: %w", err)
	}
	answering := store.Querier(s.store)
	if s.own != nil && o.Nodes != nil { // each node has a store of its own
		s.fleet = fleet.New(s.own, o.Place.Node, o.Nodes)
		answering = s.fleet
	}
	s.graph, err = graph.New(graph.Options{Store: answering, Tokens: o.Tokens, Open: o.Tokens == nil, NotOlderThan: ages(o.Retention), Log: o.Log,
		Tunnels: o.Shown, Accounts: o.Accounts})
	if err != nil {
		return nil, fmt.Errorf("analytics: %w", err)
	}
	// Streams set deadlines of their own; nobody else may hold a connection by sending slowly, or by not reading.
	s.web = &http.Server{Handler: s.pages(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)}
	if o.TLS != nil {
		s.web.TLSConfig = o.TLS.config()
	}
	s.collector = collect.New(s.reading())
	return s, nil
}

func (s *Service) openStore() (keeper, error) {
	o := &s.o
	if o.ClickHouse == "" {
		own, err := sqlite.Open(o.Dir, sqlite.Options{Retention: o.Retention, MaxBytes: o.MaxBytes, Removed: s.removed, Failed: s.failed})
		if err != nil {
			return nil, err
		}
		s.own = own
		return own, nil
	}
	return clickhouse.Open(clickhouse.Options{URL: o.ClickHouse, Password: o.ClickHousePassword, Node: o.Place.Node,
		Buffer: filepath.Join(o.Dir, "buffer"), MaxBuffer: o.MaxBytes, Retention: clickhouse.Retention(o.Retention), Log: o.Log})
}

// Responder answers what other nodes ask for the rows here; nil: they ask ClickHouse.
func (s *Service) Responder() func(ctx context.Context, question []byte) []byte {
	if s.own == nil {
		return nil
	}
	return func(ctx context.Context, question []byte) []byte {
		s.open.RLock()
		defer s.open.RUnlock()
		if s.closed {
			return fleet.Stopping()
		}
		answer, err := fleet.Respond(ctx, s.own, question)
		if err != nil {
			s.o.Log.Error("analytics: another node's query failed", "error", err)
		}
		return answer
	}
}

// ages is how long rows of each table are kept.
func ages(r sqlite.Retention) map[dataset.Table]time.Duration {
	return map[dataset.Table]time.Duration{dataset.TrafficTable: r.Hour, dataset.DropsTable: r.Hour, dataset.SampleTable: r.Samples,
		dataset.HealthTable: r.Health, dataset.AttackTable: r.Attacks, dataset.TopTable: query.TopHours(r.Tops, r.Hour)}
}

// reading is what the collector reads, and to whom it gives.
func (s *Service) reading() collect.Options {
	c := attack.DefaultConfig()
	c.Node, c.Thresholds = s.o.Place.Node, s.o.Thresholds
	detector := attack.New(c, 0, s.attacked)
	o := collect.Options{Engine: s.o.Engine, Tunnels: s.tunnels, Health: s.o.Health, Place: s.o.Place, Write: s.store.Write,
		Keep4: s.o.Keep4, Keep6: s.o.Keep6, Detect: detector, Log: s.o.Log}
	if s.o.Geo != nil {
		o.Origin = s.o.Geo.Lookup
	}
	if len(s.o.SFlow)+len(s.o.IPFIX) > 0 {
		o.Sinks = []collect.Sink{s.exporter.Add}
	}
	return o
}

// tunnels gives the collector the tunnels, and the exporter their interfaces.
func (s *Service) tunnels() []collect.Tunnel {
	list := s.o.Tunnels()
	s.latest.Store(&list)
	if s.numberInterfaces(list) {
		interfaces := make([]ifindex.Interface, len(list))
		for i, t := range list {
			interfaces[i] = t.Interface
			interfaces[i].Tunnel, interfaces[i].Index = t.Tunnel.Tunnel, s.indexes[t.ID]
		}
		table, err := ifindex.NewTable(interfaces)
		if err != nil {
			s.o.Log.Error("analytics: collectors are not told the tunnels", "error", err)
		}
		s.exporter.SetInterfaces(table)
	}
	out := make([]collect.Tunnel, len(list))
	for i, t := range list {
		out[i] = t.Tunnel
	}
	return out
}

// exportCounters is what the tunnels have counted.
func (s *Service) exportCounters() []export.Counters {
	var out []export.Counters
	for _, t := range *s.latest.Load() {
		c := s.o.Engine.TunnelCounters(t.Number)
		out = append(out, export.Counters{Tunnel: t.Tunnel.Tunnel, Counters: sflow.Counters{
			InPackets: c.RXPackets, InOctets: c.RXBytes, InDiscards: c.RXDrops, OutPackets: c.TXPackets, OutOctets: c.TXBytes, OutDiscards: c.TXDrops}})
	}
	return out
}

// numberInterfaces gives each tunnel an interface number that another start gives it too, if no other tunnel has it by chance. It
// reports whether the tunnels are others than before.
func (s *Service) numberInterfaces(list []Tunnel) (changed bool) {
	if slices.EqualFunc(list, s.known, func(a, b Tunnel) bool { return a.Tunnel == b.Tunnel && a.Interface == b.Interface }) {
		return false
	}
	s.known = list
	taken, ids := map[uint32]bool{}, slices.Collect(func(yield func(string) bool) {
		for _, t := range list {
			if !yield(t.ID) {
				return
			}
		}
	})
	slices.Sort(ids)
	clear(s.indexes)
	for _, id := range ids {
		h := fnv.New32a()
		_, _ = h.Write([]byte(id)) // cannot fail
		index := h.Sum32()&ifindex.Max | 1
		for taken[index] {
			index = index%ifindex.Max + 1
		}
		taken[index], s.indexes[id] = true, index
	}
	return true
}

// attacked takes what the detector has found.
func (s *Service) attacked(e attack.Event) {
	what := ""
	switch e.Change {
	case attack.Started:
		s.attacks[e.Vector].Add(1)
		s.active.Add(1)
		what = "analytics: an attack has begun"
	case attack.Ended:
		s.active.Add(-1)
		what = "analytics: an attack has ended"
	}
	s.collector.AddAttack(e.Attack)
	if !s.mayTell(what) {
		return
	}
	if what != "" {
		s.o.Log.Warn(what, "id", e.Attack.ID, "vector", e.Attack.Vector, "account", e.Attack.Account, "source", e.Attack.Src, "destination", e.Attack.Dst,
			"packets_per_second", uint64(e.Rate), "packets", e.Attack.Packets)
	}
	if s.o.Attack != nil {
		s.o.Attack(e)
	}
}

// toldInMinute is how many beginnings and ends of attacks are logged and posted in a minute: whoever attacks chooses how many there are.
const toldInMinute = 60

// mayTell reports whether one more may be told; an event that is neither has no bound.
func (s *Service) mayTell(what string) bool {
	if what == "" {
		return true
	}
	if minute := time.Now().Unix() / 60; minute != s.minute {
		s.minute, s.told = minute, 0
	}
	s.told++
	if s.told == toldInMinute {
		s.o.Log.Warn("analytics: of more attacks in this minute only rows and metrics tell")
	}
	return s.told < toldInMinute
}

func (s *Service) removed(name string, bytes int64) {
	s.o.Log.Warn("analytics: what is kept reached analytics.disk, and the oldest was removed", "file", name, "bytes", bytes)
}

func (s *Service) failed(err error) {
	s.o.Log.Error("analytics: the store is not kept tidy; it is tried again", "error", err)
}

// pages serves the API and the dashboard.
func (s *Service) pages() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(graph.Path, s.graph)
	mux.Handle(graph.StreamPath, s.graph)
	mux.Handle("/", dashboard.Handler())
	return mux
}

// Run works until ctx is done, and then writes what is left. The workers should have stopped before that.
func (s *Service) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { s.collector.Run(ctx) })
	parts.Go(func() { s.store.Run(ctx) })
	parts.Go(func() { s.exporter.Run(ctx) })
	stop := context.AfterFunc(ctx, func() {
		s.graph.Close() // its streams would never end
		_ = s.web.Close()
	})
	defer stop()
	err := s.serve()
	if err != nil {
		s.o.Log.Error("analytics: nobody can ask any more", "error", err)
	}
	parts.Wait()
	return err
}

// serve answers until the server is closed.
// connections is how many there may be at once: each is a file of the daemon's.
const connections = 512

func (s *Service) serve() (err error) {
	l := s.o.Listener
	if l != nil {
		l = netutil.LimitListener(l, connections)
	}
	switch {
	case l == nil:
		return nil
	case s.o.TLS != nil:
		err = s.web.ServeTLS(l, "", "")
	default:
		err = s.web.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Addr is where the service can be asked; nil: nowhere.
func (s *Service) Addr() net.Addr {
	if s.o.Listener == nil {
		return nil
	}
	return s.o.Listener.Addr()
}

// Stats may be called by any goroutine.
func (s *Service) Stats() Stats {
	out := Stats{Collect: s.collector.Stats(), Export: s.exporter.Stats(), Active: int(s.active.Load())}
	if server, ok := s.store.(*clickhouse.Store); ok {
		b := server.Stats()
		out.Buffer = &b
	}
	for i := range s.attacks {
		out.Attacks[i] = s.attacks[i].Load()
	}
	if s.fleet != nil {
		out.Fleet = s.fleet.Stats()
	}
	return out
}

// Reload reads the file of tokens and the certificate again. Of what cannot be read the old one stays. A nil Service has none.
func (s *Service) Reload() error {
	if s == nil {
		return nil
	}
	var tokens, certificate error
	if s.o.Tokens != nil {
		if tokens = s.o.Tokens.Reload(); tokens != nil {
			tokens = fmt.Errorf("analytics.tokens.file: %w; the tokens that were read before stay valid", tokens)
		}
	}
	if s.o.TLS != nil {
		if certificate = s.o.TLS.Reload(); certificate != nil {
			certificate = fmt.Errorf("%w; the certificate that was read before is still shown", certificate)
		}
	}
	return errors.Join(tokens, certificate)
}

// Close closes the store and the files of addresses. Run must have returned, or never been called.
func (s *Service) Close() error {
	if s.o.Geo != nil {
		s.o.Geo.Close()
	}
	s.open.Lock()
	s.closed = true
	s.open.Unlock()
	return s.store.Close()
}
