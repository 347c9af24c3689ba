package xsk

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"causeway/xsk/bpf"
)

// PortConfig says how an interface is opened.
type PortConfig struct {
	Name string
	// Queues to open, counted from 0; empty means all. A queue that packets can
	// arrive on and that is left out is an error: its packets would pass the
	// workers by.
	Queues   []int
	Mode     Mode
	BusyPoll bool
	RingSize uint32 // slots in each ring of each socket; 0 means DefaultRingSize
}

// Port is one interface: the steering program on it and one socket per queue.
// Its methods are safe for concurrent use; each socket has its own rules.
type Port struct {
	ifi     *Interface
	program *bpf.Program
	sockets []*Socket
	mode    Mode
	reason  error
}

// OpenPort attaches the steering program to an interface of the calling
// thread's network namespace and opens a socket over u on every queue. It tries
// the modes from fast to slow if cfg.Mode is ModeAuto. From its return on, what
// the filter selects goes to the sockets, and what finds a fill ring empty is
// dropped: fill the rings at once. The filter and the UMEM must outlive the port.
func OpenPort(u *UMEM, f *bpf.Filter, cfg PortConfig) (*Port, error) {
	p, err := openPort(u, f, cfg)
	if err != nil {
		return nil, fmt.Errorf("port %s: %w", cfg.Name, err)
	}
	return p, nil
}

func openPort(u *UMEM, f *bpf.Filter, cfg PortConfig) (*Port, error) {
	ifi, err := LookupInterface(cfg.Name)
	if err != nil {
		return nil, err
	}
	queues, err := cfg.check(u, ifi)
	if err != nil {
		return nil, err
	}
	program, err := f.NewProgram(ifi.RxQueues)
	if err != nil {
		return nil, err
	}
	p := &Port{ifi: ifi, program: program}
	if err := p.start(u, cfg, queues); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// start attaches the program before it binds, because some drivers give out
// zero-copy queues only to an interface in XDP mode. Until the sockets are in
// its map the program passes everything to the kernel.
func (p *Port) start(u *UMEM, cfg PortConfig, queues []int) error {
	generic, err := p.attach(cfg.Mode)
	if err != nil {
		return err
	}
	if err := p.openSockets(u, cfg, queues, generic); err != nil {
		return err
	}
	for _, s := range p.sockets {
		if err := p.program.SetSocket(s.Queue(), s.FD()); err != nil {
			return err
		}
	}
	return nil
}

// attach puts the program into the driver or, where mode allows it and the
// driver cannot, behind it.
func (p *Port) attach(mode Mode) (generic bool, err error) {
	if mode == ModeGeneric {
		return true, p.program.Attach(p.ifi.Index, true)
	}
	native := p.program.Attach(p.ifi.Index, false)
	if native == nil || mode != ModeAuto || !genericMayHelp(native) {
		return false, native
	}
	p.reason = native
	return true, p.program.Attach(p.ifi.Index, true)
}

// genericMayHelp reports whether a failure to attach in the driver says
// something about the driver.
func genericMayHelp(err error) bool {
	for _, other := range []error{bpf.ErrOccupied, unix.EPERM, unix.ENODEV} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// openSockets opens all queues in one mode: the fastest that all of them have.
func (p *Port) openSockets(u *UMEM, cfg PortConfig, queues []int, generic bool) error {
	switch {
	case generic:
		p.mode = ModeGeneric
	case cfg.Mode == ModeAuto:
		p.mode = ModeZeroCopy
	default:
		p.mode = cfg.Mode
	}
	err := p.openEach(u, cfg, queues)
	if err != nil && cfg.Mode == ModeAuto && p.mode == ModeZeroCopy && copyMayHelp(err) {
		p.reason, p.mode = err, ModeCopy
		err = p.openEach(u, cfg, queues)
	}
	return err
}

// openEach opens one socket per queue in the port's mode, or none.
func (p *Port) openEach(u *UMEM, cfg PortConfig, queues []int) error {
	for _, q := range queues {
		s, err := OpenSocket(u, SocketConfig{
			Interface: cfg.Name, Queue: q, Mode: p.mode, RingSize: cfg.RingSize, BusyPoll: cfg.BusyPoll,
		})
		if err != nil {
			return errors.Join(err, p.closeSockets())
		}
		p.sockets = append(p.sockets, s)
	}
	return nil
}

// check refuses what cannot work and returns the queues to open, in order.
func (cfg *PortConfig) check(u *UMEM, ifi *Interface) ([]int, error) {
	if cfg.RingSize == 0 {
		cfg.RingSize = DefaultRingSize
	}
	if err := validateRingSize(cfg.RingSize, u); err != nil {
		return nil, err
	}
	if ifi.MTU > MaxMTU {
		return nil, fmt.Errorf("mtu %d: a frame of %d bytes holds packets of an mtu up to %d: ip link set %s mtu 1500",
			ifi.MTU, FrameSize, MaxMTU, cfg.Name)
	}
	queues, err := cfg.queues(ifi)
	if err != nil {
		return nil, err
	}
	if last := queues[len(queues)-1]; last >= ifi.TxQueues {
		return nil, fmt.Errorf("queue %d receives but cannot send: there are %d receive and %d transmit queues: "+
			"ethtool -L %s rx %[5]d tx %[5]d", last, ifi.RxQueues, ifi.TxQueues, cfg.Name, min(ifi.RxQueues, ifi.TxQueues))
	}
	return queues, nil
}

// queues returns the queues to open, sorted, after checking that the list is
// possible and complete.
func (cfg *PortConfig) queues(ifi *Interface) ([]int, error) {
	all := make([]int, ifi.RxQueues)
	for q := range all {
		all[q] = q
	}
	if len(cfg.Queues) == 0 {
		return all, nil
	}
	want := slices.Sorted(slices.Values(cfg.Queues))
	for i, q := range want {
		if q < 0 || q >= ifi.RxQueues {
			return nil, fmt.Errorf("queue %d: the interface has queues 0 to %d; for more: ethtool -L %s combined %d",
				q, ifi.RxQueues-1, cfg.Name, max(q+1, 1))
		}
		if i > 0 && q == want[i-1] {
			return nil, fmt.Errorf("queue %d is listed twice", q)
		}
	}
	return want, cfg.complete(ifi, want, all)
}

// complete checks that no packet can arrive on a queue that is not listed. A
// card's hash table says where packets go; without one they go everywhere.
func (cfg *PortConfig) complete(ifi *Interface, want, all []int) error {
	reachable := ifi.spread()
	if reachable == nil {
		reachable = all
	}
	var missing []string
	for _, q := range reachable {
		if !slices.Contains(want, q) {
			missing = append(missing, fmt.Sprint(q))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("queue %s would be without a worker, and its packets would pass us by: list every queue, or: ethtool -L %s combined %d",
		strings.Join(missing, ", "), cfg.Name, len(want))
}

// Sockets are the port's sockets in queue order. The port keeps owning them.
func (p *Port) Sockets() []*Socket { return p.sockets }

// Name is the interface's name at the time of opening.
func (p *Port) Name() string { return p.ifi.Name }

// Ifindex is the interface's index.
func (p *Port) Ifindex() int { return p.ifi.Index }

// Interface describes the interface as it was at the time of opening.
func (p *Port) Interface() Interface { return *p.ifi }

// Mode is the mode in effect, never ModeAuto, and why it is not a faster one;
// nil if it is what was asked for.
func (p *Port) Mode() (Mode, error) { return p.mode, p.reason }

// Steered returns how many packets the steering program has sent where.
func (p *Port) Steered() (map[bpf.Class]uint64, error) { return p.program.Counters() }

// Close detaches the program first, so the kernel has the interface to itself
// again, then closes the sockets. Their workers must have stopped.
func (p *Port) Close() error {
	return errors.Join(p.program.Close(), p.closeSockets())
}

func (p *Port) closeSockets() error {
	var errs []error
	for _, s := range p.sockets {
		errs = append(errs, s.Close())
	}
	p.sockets = nil
	return errors.Join(errs...)
}
