// Package metrics shows a node's counters to Prometheus. Nothing is counted here: each scrape reads the counters that
// the workers, sockets and the kernel's mirror keep anyway.
//
//	/metrics   all counters
//	/healthz   200 while the process answers
//	/readyz    200 while the node should get traffic, otherwise 503 and why not
//
// Names follow Prometheus's rules: base units, _total for what only grows. Label values come from the configuration,
// from the machine, and from tables of the program; none comes from a packet.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"causeway/control/cluster"
	"causeway/control/health"
	"causeway/control/health/bfd"
	"causeway/control/ike"
	"causeway/control/pmtu"
	"causeway/control/routes"
	"causeway/control/tun"
	"causeway/pipeline"
	"causeway/xsk"
)

// A Source is what a scrape reads. Functions are called once a scrape.
type Source struct {
	Engine    *pipeline.Engine
	Ports     []*xsk.Port
	Tunnels   func() []Tunnel
	SAs       func() []SA
	IKE       func() ike.Stats
	Cluster   func() cluster.Status        // nil: the node is alone
	Applied   func() (newest, runs uint64) // serials of what was applied
	Routes    func() routes.Stats
	PathMTU   func() map[pmtu.Verdict]uint64
	TUN       func() tun.Stats
	Notices   func() (delivered, failed, dropped uint64) // nil: nobody is told
	Analytics func() Analytics                           // nil: there are none
	NotReady  func() []string

	Version, Node, Datacenter, Region string
}

// Analytics is what became of samples and counters.
type Analytics struct {
	Samples, Thinned uint64            // samples that came, and those of them that others stand for in the store
	Unwritten        uint64            // batches that the store did not take in time
	LeftOut          uint64            // samples that the lists of the most frequent had no memory for
	Shift            uint32            // samples are rarer than configured by that power of two
	Attacks          map[string]uint64 // that were found, by vector
	Active           int               // attacks that go on
	Answered, Missed uint64            // times that another node has answered for its rows, and that one has not
	Collectors       []Collector
	Buffer           *Buffer // nil: the store is the node's own
}

// A Buffer is what waits for a server that is the store, and what became of rows.
type Buffer struct {
	Bytes, Limit        int64
	Sent, Lost, Refused uint64 // rows
	Away                bool   // the server was not reached the last time
}

// A Collector is one that flows or samples are exported to.
type Collector struct {
	Protocol, Address string
	Sent, Failed      uint64 // datagrams
}

// A Tunnel is what the labels and gauges of a tunnel are made of.
type Tunnel struct {
	ID            int
	Name, Account string
	EffectiveMTU  int            // bytes
	Routed        bool           // a route leads to the customer endpoint
	Health        *health.Report // nil: the tunnel is not probed
	BFD           *bfd.Report    // nil: this node has no session with its router
	Device        *Device        // nil: the host has no device for it
}

// A Device is what the labels and gauges of a tunnel's device are made of.
type Device struct {
	Packets tun.InterfaceStats
	Learned int // prefixes
}

// An SA is what the labels and gauges of a security association are made of.
type SA struct {
	Tunnel, Encryption string
	SPI                uint32
	Inbound            bool
	Sequence           uint64 // outbound: the next number; inbound: the highest that was received
	SoftExpired        bool
	Packets, Bytes     uint64
	Refused            map[string]uint64 // by drop reason
}

// NewHandler serves the three pages.
func NewHandler(s Source) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := s.NotReady(); len(why) > 0 {
			http.Error(w, strings.Join(why, "\n"), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}

// Serve answers on l until ctx is done.
func Serve(ctx context.Context, l net.Listener, s Source) error {
	srv := &http.Server{Handler: NewHandler(s), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
