package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"causeway/config"
	"causeway/pipeline"
)

// A Port is one interface that the workers own.
type Port struct {
	Index   int // among the engine's ports
	Ifindex int
	Name    string
}

// Options are what a Manager needs to know. The callbacks run on the goroutine of Run, without a lock of the Manager held.
type Options struct {
	Ports []Port

	// OnLinks is told when a link has come or its MAC, MTU or address has changed. When it returns the links must have
	// been given to Engine.Apply: routes over a new link are written only after that. If it fails, it is called again
	// within a second.
	OnLinks func([]pipeline.LinkSpec) error

	// OnSteer is told when the prefixes have changed that the steering program must give to the workers.
	OnSteer func([]netip.Prefix)

	Log *slog.Logger // nil: slog.Default()

	// ReceiveBuffer is the size in bytes of the event socket's buffer. 0 means 32 MiB: some twenty thousand route changes.
	ReceiveBuffer int
}

// A Manager keeps the forwarding tables. Its methods may be called by any goroutine.
type Manager struct {
	engine *pipeline.Engine
	fwd    *pipeline.Forwarding
	opts   Options
	log    *slog.Logger
	events *eventSocket
	asks   *asker
	asking sync.WaitGroup // the asker's goroutine
	dumps  chan dumped
	ready  chan struct{}

	mu    sync.Mutex // guards all below
	stats Stats

	rib     rib
	vias    viaTable
	groups  groupTable
	slots   slotTable
	devices deviceTable
	objects map[uint32]*object // next hop objects by id
	vrfs    []table            // by VRF number

	neighbours map[hostKey]*neighbour
	tunnels    map[uint32]*tunnelRoute // by the engine's number
	watch      watchList

	config  uint32         // number of Apply calls
	named   map[string]int // devices of tunnels, see SetDevices
	led     map[int]*led   // what the last Apply has made of them, by interface
	pass    pass
	steered map[prefixKey]struct{}
	pending pending
	message routeMessage // scratch of the decoder
}

// pending says what settle and tick have still to do.
type pending struct {
	entries    []uint32 // prefixes whose paths changed
	vias       []uint32 // next hops to resolve again
	idle       []uint32 // next hops that lost their last path
	neighbours map[hostKey]struct{}
	tunnels    map[uint32]struct{}
	links      bool
	steer      bool
	published  []chan struct{} // to be closed when all of this has been told
}

// New opens the sockets in the network namespace of the calling thread, which later calls do not depend on, and reads
// the links. Close or the end of Run releases it.
func New(engine *pipeline.Engine, o Options) (*Manager, error) {
	if len(o.Ports) == 0 {
		return nil, errors.New("routes: no ports: at least one is needed")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.ReceiveBuffer == 0 {
		o.ReceiveBuffer = defaultReceiveBuffer
	}
	m := newManager(engine, o)
	if err := m.open(); err != nil {
		return nil, err
	}
	return m, nil
}

// newManager makes a Manager without sockets.
func newManager(engine *pipeline.Engine, o Options) *Manager {
	m := &Manager{
		engine: engine, fwd: engine.Forwarding(), opts: o, log: o.Log,
		asks: newAsker(), dumps: make(chan dumped, 8), ready: make(chan struct{}),
		rib:        newRIB(),
		vias:       newViaTable(),
		objects:    map[uint32]*object{},
		slots:      newSlotTable(),
		devices:    newDeviceTable(o.Ports),
		neighbours: map[hostKey]*neighbour{},
		tunnels:    map[uint32]*tunnelRoute{},
		led:        map[int]*led{},
		steered:    map[prefixKey]struct{}{},
	}
	m.pending.neighbours = map[hostKey]struct{}{}
	m.pending.tunnels = map[uint32]struct{}{}
	m.pass.number = 1
	m.groups = newGroupTable(m.fwd)
	internet, _ := engine.VRF("")
	m.vrfs = []table{{"", internet.V4, internet.V6}}
	return m
}

func (m *Manager) open() error {
	var err error
	if m.events, err = openEvents(m.opts.ReceiveBuffer); err != nil {
		return fmt.Errorf("routes: netlink event socket: %w", err)
	}
	if m.asks.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		m.events.close()
		return fmt.Errorf("routes: netlink request socket: %w", err)
	}
	if m.pass.socket, err = openDumpSocket(); err != nil {
		m.events.close()
		m.asks.close()
		return fmt.Errorf("routes: netlink dump socket: %w", err)
	}
	if err := m.readLinks(); err != nil {
		m.Close()
		return fmt.Errorf("routes: links cannot be read: %w", err)
	}
	return nil
}

// Close releases the sockets of a Manager that Run was not called for.
func (m *Manager) Close() {
	m.events.close()
	m.asks.close()
	m.pass.socket.Close()
}

// Run mirrors the kernel until ctx is done; the forwarding tables stay as they are then, and the kernel no longer keeps
// the neighbours fresh that it was asked to. It may be called once.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer m.Close() // wakes the readers
	defer m.stopAsking(cancel)
	wg.Go(func() { m.events.read(ctx) })
	m.asking.Go(func() { m.asks.run(ctx) })
	fast, slow := time.NewTicker(tickInterval), time.NewTicker(time.Second)
	defer fast.Stop()
	defer slow.Stop()
	m.verify(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-m.events.chunks:
			m.takeEvents(c)
		case d := <-m.dumps:
			m.takeDump(d)
		case <-fast.C:
			m.tick(func() { wg.Go(func() { m.dump(ctx) }) })
		case <-slow.C:
			m.refresh()
			m.mu.Lock()
			m.groups.sweep()
			m.mu.Unlock()
		}
	}
}

// stopAsking ends the asker, whose last questions would mark neighbours again, and takes its marks back.
func (m *Manager) stopAsking(cancel func()) {
	cancel()
	m.asking.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.asks.release(); err != nil {
		m.log.Warn("the kernel may keep neighbours fresh that nobody uses; `ip neigh flush all` ends it", "error", err)
	}
}

// tickInterval bounds how long workers wait until their wishes are read, and retired memory until it is used again.
const tickInterval = 5 * time.Millisecond

// tick does what need not be done for every event.
func (m *Manager) tick(startDump func()) {
	m.mu.Lock()
	m.asks.gleans = 0
	m.engine.ResolveRequests(m.wish)
	if m.beginPass() {
		startDump()
	}
	m.reclaim()
	m.mu.Unlock()
	m.publish()
}

// Ready is closed when the kernel's tables have been mirrored for the first time.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Apply takes over the static routes, tunnels and accounts of c. Engine.Apply must have been given them before, and the
// next Engine.Apply must wait until Apply has returned: a number of a tunnel that went away is used again then. What is
// in both configurations is not withdrawn meanwhile.
func (m *Manager) Apply(c *config.Config) error {
	m.mu.Lock()
	err := m.configure(c)
	m.settle()
	m.reclaim()
	m.mu.Unlock()
	return err
}

// Published returns a channel that is closed when the callbacks have been told, by Run, what was changed before this call.
func (m *Manager) Published() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	done := make(chan struct{})
	m.pending.published = append(m.pending.published, done)
	return done
}

// publish calls the callbacks that are due, links first, and then lets routes use the new links.
func (m *Manager) publish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	waiting := m.pending.published
	m.pending.published = nil
	defer func() {
		for _, done := range waiting {
			close(done)
		}
	}()
	if m.pending.links {
		m.pending.links = false
		m.publishLinks()
	}
	if m.pending.steer {
		m.pending.steer = false
		m.publishSteer()
	}
}

// publishLinks is called with mu held and gives it up during the callback.
func (m *Manager) publishLinks() {
	links := m.devices.specs()
	if m.opts.OnLinks != nil {
		m.mu.Unlock()
		err := m.opts.OnLinks(links)
		m.mu.Lock()
		if err != nil {
			m.log.Error("the workers did not take over the links; trying again", "error", err)
			m.devices.retry = true
			return
		}
	}
	if m.devices.enliven(len(links)) {
		m.dirtyVias(func(v *via) bool { return true })
		m.settle()
	}
}

// publishSteer is called with mu held and gives it up during the callback.
func (m *Manager) publishSteer() {
	if m.opts.OnSteer == nil {
		return
	}
	prefixes := m.steerPrefixes()
	m.mu.Unlock()
	m.opts.OnSteer(prefixes)
	m.mu.Lock()
}
