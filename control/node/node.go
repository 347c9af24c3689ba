// Package node puts a node together: from a configuration come the packet memory, the ports with their sockets, the
// plan that gives every queue to one worker, the engine and its tables, the kernel's mirror, the TUN device and
// the operator's interfaces.
//
//	n, err := node.Open("/etc/causeway/causeway.yaml", cfg, node.Options{})
//	err = n.Run(ctx) // until ctx is done and the rings are drained
//
// The files follow the life of a node: plan.go and spec.go say what is to be built, node.go builds and closes it,
// run.go starts and drains it, reload.go changes it, show.go tells about it.
//
// Until the kernel's routes are mirrored the steering program knows no endpoint and no prefix, so every frame stays
// with the kernel; the same is done first when the node stops.
package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/cluster"
	"causeway/control/health"
	"causeway/control/health/bfd"
	"causeway/control/health/history"
	"causeway/control/ike"
	"causeway/control/ike/sa"
	"causeway/control/metrics"
	"causeway/control/notify"
	"causeway/control/pmtu"
	"causeway/control/routes"
	"causeway/control/tun"
	"causeway/pipeline"
	"causeway/xsk"
	"causeway/xsk/bpf"
)

// Options are what the command line says beside the configuration.
type Options struct {
	Log     *slog.Logger
	Version string

	// DebugFrames makes the packet memory watch every frame. It costs about 200 ns a packet.
	DebugFrames bool

	// Reloaded is called when a configuration file was taken over; its error is a warning for who wanted that. It may be nil.
	Reloaded func() error
}

// A Node is one node of the fleet. Its methods may be called by any goroutine, Run once.
type Node struct {
	path    string // of the configuration file
	opts    Options
	log     *slog.Logger
	started time.Time

	plan      Plan
	umem      *xsk.UMEM
	filter    *bpf.Filter
	ports     []*xsk.Port
	punt      *pipeline.PuntQueue
	nodes     *pipeline.NodeQueue // in a cluster
	ways      *ways
	probes    *pipeline.TunnelQueue
	prober    *health.Prober
	bfd       *bfd.Manager
	changes   *history.History
	notifier  *notify.Notifier         // nil: nobody is told
	analytics func() metrics.Analytics // nil: there are none
	news      *news
	devices   devices
	sessions  atomic.Pointer[sessions]
	capturing atomic.Pointer[capturing] // nil: no capture runs

	certificate certificate // for the cluster
	engine      *pipeline.Engine
	tun         *tun.Device
	any         *tun.Announcement
	routes      *routes.Manager

	learned *pmtu.Learner
	errors  *pmtu.Listener // ICMP errors about our outer packets
	control net.Listener
	metrics net.Listener // nil: metrics are not served

	ran       bool       // Run has closed what it used
	reloading sync.Mutex // one at a time

	mu    sync.Mutex // guards what the tables are made of; never held while routes are applied
	cfg   *config.Config
	spec  func(links []pipeline.LinkSpec) *pipeline.Spec
	links []pipeline.LinkSpec

	state      stateDir
	numbers    *numbers
	sas        *associations
	children   *children
	fleet      following
	store      store                   // what the engine gives each node, be it alone or one of many
	cluster    *cluster.Cluster        // what nodes do for each other; nil: this node is alone
	peers      map[string]cluster.Peer // that the workers have tunnels to, by name; guarded by mu
	owning     owning
	ike        *ike.Daemon
	sockets    ike.Sockets
	moving     sync.Mutex // taken before what routes and learned know of a tunnel with IKE is changed
	steer      steering
	loaded     atomic.Bool // the kernel's routes are in the tables
	draining   atomic.Bool
	hasTunnels atomic.Bool   // of its own file, or of a configuration of the fleet
	leaving    atomic.Bool   // the operator has said drain
	stop       chan struct{} // closed when the node is to stop for that
	stopOnce   sync.Once
}

// Open builds the node from the configuration c that was read from path. Nothing is forwarded before Run. The errors
// say what the operator has to do.
func Open(path string, c *config.Config, o Options) (*Node, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	n := &Node{path: path, opts: o, log: o.Log, started: time.Now(), stop: make(chan struct{}), owning: owning{changed: make(chan struct{}, 1)}}
	n.state.path = StateDir(c)
	n.fleet.heard = make(chan struct{}, 1)
	c, err := n.beginFleet(c)
	if err != nil {
		n.state.close()
		return nil, err
	}
	n.cfg = c
	n.numbers = newNumbers(&n.state, n.nextNumber)
	n.sas = newAssociations(&n.state, n.log)
	n.children = newChildren(n.sas.vault, n.sas.ivs)
	n.spec = func(l []pipeline.LinkSpec) *pipeline.Spec { return specOf(c, l, n.sas.of) }
	if err := n.open(c); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) open(c *config.Config) error {
	// The sockets first: a second daemon finds out before it has touched an interface.
	if err := n.listen(c); err != nil {
		return err
	}
	warnings, err := CheckIKE(c)
	if err := errors.Join(err, n.sas.prepare(c), n.children.prepare(c)); err != nil {
		return err
	}
	plane, fleet := sa.Dataplane(n.children), ike.Fleet(nil)
	if c.Cluster != nil {
		if err := n.openCluster(c); err != nil {
			return err
		}
		plane, fleet = n.cluster.Shared(), n.cluster.Fleet()
	} else if err := n.openAlone(c); err != nil {
		return err
	}
	n.ike = ike.New(ike.Options{Log: n.log, Dataplane: plane, Transport: &n.sockets, Fleet: fleet})
	if n.cluster != nil {
		n.cluster.SetNegotiator(n.ike)
		n.cluster.SetOwned(protected(c))
	}
	if err := n.openPorts(c); err != nil {
		return err
	}
	if err := n.openEngine(); err != nil {
		return err
	}
	n.say(c, warnings)
	return n.openControl(c)
}

// listen opens what the operator and the metrics' collector ask at.
func (n *Node) listen(c *config.Config) error {
	var err error
	if n.control, err = api.Listen(c.Control.Socket); err != nil {
		return explain(err)
	}
	if !c.Metrics.Listen.IsValid() {
		return nil
	}
	if n.metrics, err = net.Listen("tcp", c.Metrics.Listen.String()); err != nil {
		return fmt.Errorf("metrics.listen: %w; `metrics: {listen: ...}` names another address", err)
	}
	return nil
}

// openPorts makes the packet memory and the sockets over it.
func (n *Node) openPorts(c *config.Config) error {
	var err error
	if n.plan, err = PlanOf(c); err != nil {
		return err
	}
	n.umem, err = xsk.NewUMEM(xsk.UMEMConfig{
		Parts: len(n.plan.Workers), FramesPerPart: n.plan.framesPerPart(xsk.DefaultRingSize),
		HugePages: true, Debug: n.opts.DebugFrames,
	})
	if err != nil {
		return err
	}
	if n.filter, err = bpf.NewFilter(); err != nil {
		return explain(err)
	}
	n.steer.filter = n.filter
	for _, cfg := range c.Interfaces {
		p, err := xsk.OpenPort(n.umem, n.filter, xsk.PortConfig{
			Name: cfg.Name, Queues: cfg.Queues, Mode: xskMode(cfg.Mode), BusyPoll: c.Workers.BusyPoll,
		})
		if err != nil {
			return explain(err)
		}
		n.ports = append(n.ports, p)
	}
	return nil
}

// explain adds what to do about errors that have one cause in practice.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w; causeway run needs root, or the capabilities CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF", err)
	}
	return err
}

func xskMode(m config.Mode) xsk.Mode {
	switch m {
	case config.ModeZeroCopy:
		return xsk.ModeZeroCopy
	case config.ModeCopy:
		return xsk.ModeCopy
	case config.ModeGeneric:
		return xsk.ModeGeneric
	}
	return xsk.ModeAuto
}

// puntDepth is how many packets each worker may have waiting for the kernel: a burst of pings, no more, because
// whoever floods an endpoint through it must not keep the control side busy.
const puntDepth = 256

// openEngine makes the workers.
func (n *Node) openEngine() error {
	var err error
	if n.punt, err = pipeline.NewPuntQueue(len(n.plan.Workers), puntDepth); err != nil {
		return err
	}
	if n.cluster != nil {
		if n.nodes, err = pipeline.NewNodeQueue(len(n.plan.Workers), puntDepth); err != nil {
			return err
		}
		n.openWays()
	}
	if err := errors.Join(n.openHealth(), n.openDevices()); err != nil {
		return err
	}
	workers := make([]pipeline.WorkerConfig, len(n.plan.Workers))
	for i, w := range n.plan.Workers {
		workers[i] = n.worker(w)
	}
	n.engine, err = pipeline.NewEngine(pipeline.EngineConfig{UMEM: n.umem, Ports: len(n.ports), Workers: workers, Punt: n.punt, Nodes: n.nodes, Probes: n.probes, Devices: n.devices.queue, IVs: n.sas.ivs})
	n.children.engine = n.engine
	return err
}

func (n *Node) worker(w WorkerPlan) pipeline.WorkerConfig {
	out := pipeline.WorkerConfig{CPU: w.CPU}
	var sockets []*xsk.Socket
	for _, q := range w.Queues {
		s := n.socket(q)
		sockets = append(sockets, s)
		out.Queues = append(out.Queues, pipeline.QueueConfig{Port: q.Port, Queue: s, FillSize: s.RingSize()})
	}
	set := xsk.PollSet(sockets)
	out.Wait = func(timeout time.Duration) {
		// An error is a link that is down, or a lack of memory for the call: the worker looks again.
		_, _ = xsk.Poll(set, timeout)
	}
	return out
}

func (n *Node) socket(q QueueID) *xsk.Socket {
	for _, s := range n.ports[q.Port].Sockets() {
		if s.Queue() == q.Queue {
			return s
		}
	}
	panic(fmt.Sprintf("port %d has no socket for queue %d of the plan", q.Port, q.Queue))
}

// openControl opens what is not per packet, and gives the engine its first tables.
func (n *Node) openControl(c *config.Config) error {
	var err error
	if n.tun, err = tun.Open(tun.DefaultName, n.largestMTU(), n.log); err != nil {
		return explain(err)
	}
	if n.any, err = tun.OpenAnnouncement(); err != nil {
		return explain(err)
	}
	n.steer.tun = n.tun
	ports := make([]routes.Port, len(n.ports))
	for i, p := range n.ports {
		ports[i] = routes.Port{Index: i, Ifindex: p.Ifindex(), Name: p.Name()}
	}
	n.routes, err = routes.New(n.engine, routes.Options{Ports: ports, OnLinks: n.takeLinks, OnSteer: n.takePrefixes, Log: n.log})
	if err != nil {
		return explain(err)
	}
	if err := n.takeLinks(n.routes.Links()); err != nil {
		return err
	}
	n.steer.endpoints, n.steer.local = steered(c), c.Endpoints
	if n.errors, err = pmtu.Listen(n.tun.Index()); err != nil {
		return explain(err)
	}
	n.learned = pmtu.New(n.engine.Forwarding().SetPathMTU, n.log)
	if n.cluster != nil {
		n.learned.Share(n.cluster.TellPath)
	}
	n.learned.SetTunnels(n.learnable(c))
	n.children.onMove = n.tunnelMoved
	return nil
}

// learnable is what there is to know of tunnels in order to believe an ICMP error about them.
func (n *Node) learnable(c *config.Config) []pmtu.Tunnel {
	var out []pmtu.Tunnel
	for _, t := range c.Tunnels {
		id, ok := n.engine.TunnelID(t.Name)
		if !ok {
			continue
		}
		if t.IPsec != nil && t.IPsec.IKE != nil {
			_, paths := n.children.paths(t.Name, id)
			out = append(out, paths...)
			continue
		}
		u := pmtu.Tunnel{
			ID: id, Name: t.Name, Endpoint: t.Endpoint, CustomerEndpoint: t.CustomerEndpoint,
			HasKey: t.HasKey, Key: t.Key, Checksum: t.Checksum, Sequence: t.Sequence,
			MTU: t.MTU, Overhead: t.Overhead(), Believe: t.PMTU,
		}
		if t.IPsec != nil {
			u.SPI, u.UDP, u.Fits = t.IPsec.SA.SPIOut, t.IPsec.SA.UDPEncap, t.Fits
		}
		out = append(out, u)
	}
	return out
}

func (n *Node) largestMTU() int {
	most := 0
	for _, p := range n.ports {
		most = max(most, p.Interface().MTU)
	}
	return most
}

// apply is called with the lock held.
func (n *Node) apply(s *pipeline.Spec) error {
	if err := n.numbers.reserve(s); err != nil {
		return err
	}
	if err := n.engine.Apply(s); err != nil {
		return err
	}
	n.numbers.use(s)
	return nil
}

// takeTables gives the engine other tables with the links that it has.
func (n *Node) takeTables(spec func([]pipeline.LinkSpec) *pipeline.Spec) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.apply(spec(inFrames(n.links))); err != nil {
		return err
	}
	n.spec = spec
	return nil
}

// takePrefixes is told by the mirror which prefixes belong to tunnels.
func (n *Node) takePrefixes(p []netip.Prefix) {
	if err := n.steer.setPrefixes(p); err != nil {
		n.log.Error("customer prefixes were not taken over completely", "error", err)
	}
}

// SetAnalytics has metrics tell of analytics, which are another room's. It is called before Run.
func (n *Node) SetAnalytics(f func() metrics.Analytics) { n.analytics = f }

// Joined is this node's part of the cluster; nil: it is alone.
func (n *Node) Joined() *cluster.Cluster { return n.cluster }

// Engine is what forwards.
func (n *Node) Engine() *pipeline.Engine { return n.engine }

// Config is the configuration in effect.
func (n *Node) Config() *config.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cfg
}

// Close gives everything back: the interfaces are the kernel's alone afterwards. Run must have returned.
func (n *Node) Close() error {
	var errs []error
	if !n.ran {
		n.closeUnused()
		errs = append(errs, n.sas.settle()) // a start that fails again and again uses up nothing
	}
	errs = append(errs, n.closeDevices())
	for _, p := range n.ports {
		errs = append(errs, p.Close())
	}
	if n.tun != nil {
		errs = append(errs, n.tun.Close())
	}
	if n.any != nil {
		errs = append(errs, n.any.Close())
	}
	if n.filter != nil {
		errs = append(errs, n.filter.Close())
	}
	if n.store != nil {
		n.store.Close()
	}
	n.children.close()
	errs = append(errs, n.sas.close())
	n.state.close()
	if n.punt != nil {
		errs = append(errs, n.punt.Close())
	}
	if n.nodes != nil {
		errs = append(errs, n.nodes.Close())
	}
	if n.probes != nil {
		errs = append(errs, n.probes.Close())
	}
	if n.umem != nil {
		errs = append(errs, n.umem.Close())
	}
	return errors.Join(errs...)
}

// closeUnused closes what Run would have closed.
func (n *Node) closeUnused() {
	for _, l := range []net.Listener{n.control, n.metrics} {
		if l != nil {
			l.Close()
		}
	}
	if n.errors != nil {
		n.errors.Close()
	}
	if n.routes != nil {
		n.routes.Close()
	}
}

// say prints one line for each port and each worker.
func (n *Node) say(c *config.Config, more []config.Warning) {
	for _, p := range n.ports {
		mode, why := p.Mode()
		args := []any{"name", p.Name(), "mode", mode, "queues", len(p.Sockets()), "driver", p.Interface().Driver}
		if why != nil {
			args = append(args, "why", why)
		}
		n.log.Info("port", args...)
	}
	for i, w := range n.plan.Workers {
		n.log.Info("worker", "number", i, "core", w.CPU, "queues", n.queueNames(w))
	}
	if len(n.plan.Idle) > 0 {
		n.log.Warn("cores of workers.cpus without a queue: no worker is started on them; ethtool -L gives an interface more queues",
			"cores", list(n.plan.Idle))
	}
	n.log.Info("packet memory", "frames", n.umem.Parts()*n.umem.FramesPerPart(), "pages", n.umem.Pages())
	for _, w := range append(c.Warnings(), more...) {
		n.log.Warn("configuration", "warning", w)
	}
}

func (n *Node) queueNames(w WorkerPlan) []string {
	var names []string
	for _, q := range w.Queues {
		names = append(names, fmt.Sprintf("%s/%d", n.ports[q.Port].Name(), q.Queue))
	}
	return names
}
