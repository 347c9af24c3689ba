package xsk

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A closed socket frees its queue some 20 ms after Close: opening tries for
// busyPatience, busyPause apart, before it believes that the queue is taken.
const (
	busyPatience = time.Second
	busyPause    = 5 * time.Millisecond
)

// What busy polling asks for: microseconds that a call may spin, and packets
// per call (one pipeline batch).
const (
	busyPollMicros = 20
	busyPollBudget = 64
)

// sendBudget is how many packets one call may send in copy mode, where the
// kernel lets us choose: one pipeline batch.
const sendBudget = 64

// OpenSocket opens and binds one socket over u. The first one registers the
// UMEM with the kernel, later ones share it. Packets arrive only once an XDP
// program redirects them to the socket: [OpenPort] cares for that.
func OpenSocket(u *UMEM, cfg SocketConfig) (*Socket, error) {
	if cfg.RingSize == 0 {
		cfg.RingSize = DefaultRingSize
	}
	if err := cfg.validate(u); err != nil {
		return nil, err
	}
	ifi, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, fmt.Errorf("xsk: interface %s: %w", cfg.Interface, err)
	}
	if cfg.Mode == ModeCopy || cfg.Mode == ModeGeneric {
		return openMode(u, cfg, ifi.Index, false)
	}
	s, why := openZeroCopy(u, cfg, ifi.Index)
	if why == nil || cfg.Mode == ModeZeroCopy || !copyMayHelp(why) {
		return s, why
	}
	if s, err = openMode(u, cfg, ifi.Index, false); err == nil {
		s.fallback = why
	}
	return s, err
}

// openZeroCopy tries only where the driver does not deny: some drivers stop
// their queues for the attempt.
func openZeroCopy(u *UMEM, cfg SocketConfig, ifindex int) (*Socket, error) {
	if err := zeroCopyFeature.check(cfg.Interface); errors.Is(err, ErrNotSupported) {
		return nil, err
	}
	return openMode(u, cfg, ifindex, true)
}

func (cfg *SocketConfig) validate(u *UMEM) error {
	if err := validateRingSize(cfg.RingSize, u); err != nil {
		return fmt.Errorf("xsk: %s: %w", cfg.Interface, err)
	}
	if cfg.Queue < 0 {
		return fmt.Errorf("xsk: %s: queue %d: queues are counted from 0", cfg.Interface, cfg.Queue)
	}
	return nil
}

func validateRingSize(size uint32, u *UMEM) error {
	switch {
	case size < MinRingSize || size > MaxRingSize:
		return fmt.Errorf("ring size %d: allowed are powers of two from %d to %d", size, MinRingSize, MaxRingSize)
	case size&(size-1) != 0:
		below := uint32(MinRingSize)
		for below*2 < size {
			below *= 2
		}
		return fmt.Errorf("ring size %d is not a power of two: take %d or %d", size, below, below*2)
	case int(size) > u.framesPerPart:
		return fmt.Errorf("ring size %d: a worker's part of the umem has only %d frames; "+
			"give it %d or more, or make the rings smaller", size, u.framesPerPart, 2*size)
	}
	return nil
}

// copyMayHelp reports whether a zero-copy failure says something about
// zero-copy, rather than about the interface, the queue or our rights.
func copyMayHelp(err error) bool {
	for _, other := range []error{unix.EPERM, unix.ENODEV, unix.EBUSY, unix.ENOBUFS, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// openMode opens a socket that is zero-copy or is not, without fallback.
func openMode(u *UMEM, cfg SocketConfig, ifindex int, zeroCopy bool) (*Socket, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		anchor := u.anchor(zeroCopy)
		s, err := openOver(u, anchor, cfg, ifindex, zeroCopy)
		if err == nil {
			u.sockets = append(u.sockets, s)
			return s, nil
		}
		if anchor == nil || !errors.Is(err, unix.EBADF) {
			return nil, err
		}
		anchor.unbound = true // its interface was removed: share with another
	}
}

// openOver opens a socket that shares the anchor's registration of the UMEM, or
// makes one if there is no anchor.
func openOver(u *UMEM, anchor *Socket, cfg SocketConfig, ifindex int, zeroCopy bool) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, cfg.failed("socket", err)
	}
	s := &Socket{
		fd: fd, umem: u, ledger: u.ledger, iface: cfg.Interface, ifindex: ifindex, queue: cfg.Queue,
		maxKicks: int(cfg.RingSize)/kernelBatch + 1,
	}
	if err := s.setUp(anchor, cfg, zeroCopy); err != nil {
		_ = s.release() // the first error says more
		return nil, err
	}
	return s, nil
}

// setUp follows the order that the kernel demands: memory, rings, bind.
func (s *Socket) setUp(anchor *Socket, cfg SocketConfig, zeroCopy bool) error {
	if anchor != nil {
		if err := sharedFeature.check(""); err != nil {
			return cfg.failed("share the umem", err)
		}
	} else if err := s.registerUMEM(); err != nil {
		return cfg.failed("register umem", err)
	}
	if err := s.mapRings(cfg.RingSize); err != nil {
		return cfg.failed("rings", err)
	}
	if cfg.BusyPoll {
		s.busyError = s.setBusyPoll()
		s.busyPoll = s.busyError == nil
	}
	if sendBudgetFeature.check("") == nil {
		// Advice: without it a batch takes more than one call.
		_ = unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, sendBudget)
	}
	if err := s.bind(anchor, zeroCopy); err != nil {
		return cfg.failed(bindStep(zeroCopy), err)
	}
	return s.readMode()
}

func bindStep(zeroCopy bool) string {
	if zeroCopy {
		return "bind (zero-copy)"
	}
	return "bind (copy)"
}

// registerUMEM gives the memory to the kernel, which pins it. One registration
// is either zero-copy or not, so a node whose ports differ registers twice; the
// frames are the same.
func (s *Socket) registerUMEM() error {
	reg := unix.XDPUmemReg{Addr: s.umem.base(), Len: uint64(len(s.umem.mem)), Size: FrameSize, Headroom: extraHeadroom}
	return setsockopt(s.fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg))
}

// anchor is an open socket whose registration a new one can share. The mode is
// inherited through it. The UMEM is locked.
func (u *UMEM) anchor(zeroCopy bool) *Socket {
	for _, s := range u.sockets {
		if s.zeroCopy == zeroCopy && !s.unbound {
			return s
		}
	}
	return nil
}

// forget takes a closing socket off the list.
func (u *UMEM) forget(s *Socket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, open := range u.sockets {
		if open == s {
			u.sockets = append(u.sockets[:i], u.sockets[i+1:]...)
			return
		}
	}
}

// mapRings makes the four rings and maps them.
func (s *Socket) mapRings(size uint32) error {
	for _, opt := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, opt, int(size)); err != nil {
			return fmt.Errorf("%d slots: %w", size, err)
		}
	}
	off, err := mmapOffsets(s.fd)
	if err != nil {
		return fmt.Errorf("offsets: %w", err)
	}
	fill, err := s.mapRing(unix.XDP_UMEM_PGOFF_FILL_RING, ringBytes[uint64](off.Fr, size))
	if err != nil {
		return err
	}
	done, err := s.mapRing(unix.XDP_UMEM_PGOFF_COMPLETION_RING, ringBytes[uint64](off.Cr, size))
	if err != nil {
		return err
	}
	rx, err := s.mapRing(unix.XDP_PGOFF_RX_RING, ringBytes[Desc](off.Rx, size))
	if err != nil {
		return err
	}
	tx, err := s.mapRing(unix.XDP_PGOFF_TX_RING, ringBytes[Desc](off.Tx, size))
	if err != nil {
		return err
	}
	s.fill = newProducer[uint64](fill, off.Fr, size, &neverWake)
	s.done = newConsumer[uint64](done, off.Cr, size)
	s.rx = newConsumer[Desc](rx, off.Rx, size)
	s.tx = newProducer[Desc](tx, off.Tx, size, &alwaysWake)
	return nil
}

func (s *Socket) mapRing(offset int64, length int) ([]byte, error) {
	m, err := unix.Mmap(s.fd, offset, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", length, err)
	}
	s.maps = append(s.maps, m)
	return m, nil
}

func (s *Socket) setBusyPoll() error {
	for _, o := range [...]struct{ name, value int }{
		{unix.SO_PREFER_BUSY_POLL, 1},
		{unix.SO_BUSY_POLL, busyPollMicros},
		{unix.SO_BUSY_POLL_BUDGET, busyPollBudget},
	} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, o.name, o.value); err != nil {
			return busyPollFeature.judge(err, "")
		}
	}
	return nil
}

// bind ties the socket to its queue and waits for one that drains.
func (s *Socket) bind(anchor *Socket, zeroCopy bool) error {
	sa := &unix.SockaddrXDP{Ifindex: uint32(s.ifindex), QueueID: uint32(s.queue)}
	switch {
	case anchor != nil:
		// Any other flag beside this one is refused: mode and wake-up come from the anchor.
		sa.Flags = unix.XDP_SHARED_UMEM
		sa.SharedUmemFD = uint32(anchor.fd)
	case zeroCopy:
		sa.Flags = unix.XDP_ZEROCOPY
	default:
		sa.Flags = unix.XDP_COPY
	}
	if anchor == nil && needWakeupFeature.check("") == nil {
		sa.Flags |= unix.XDP_USE_NEED_WAKEUP
	}
	deadline := time.Now().Add(busyPatience)
	for {
		err := unix.Bind(s.fd, sa)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(busyPause)
	}
}

// readMode asks the kernel which mode it is, rather than believing the request.
func (s *Socket) readMode() error {
	var flags uint32
	if err := getsockopt(s.fd, unix.XDP_OPTIONS, unsafe.Pointer(&flags), unsafe.Sizeof(flags)); err != nil {
		return fmt.Errorf("xsk: %s queue %d: reading the mode: %w", s.iface, s.queue, err)
	}
	s.zeroCopy = flags&unix.XDP_OPTIONS_ZEROCOPY != 0
	return nil
}

// failed wraps a set-up error with where it happened and what to do.
func (cfg *SocketConfig) failed(step string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EPERM):
		hint = ": CAP_NET_RAW is needed"
	case errors.Is(err, unix.EAFNOSUPPORT):
		hint = ": the kernel was built without CONFIG_XDP_SOCKETS"
	case errors.Is(err, unix.ENOBUFS):
		hint = ": the umem is over the limit for locked memory; give CAP_IPC_LOCK or raise RLIMIT_MEMLOCK"
	case errors.Is(err, unix.EBUSY):
		hint = fmt.Sprintf(" for %v: another AF_XDP socket holds the queue; `ss -f xdp -p` names it", busyPatience)
	case errors.Is(err, unix.EINVAL) && strings.HasPrefix(step, "bind"):
		hint = fmt.Sprintf(": is there a queue %d? `ethtool -l %s` lists them", cfg.Queue, cfg.Interface)
	case errors.Is(err, unix.EOPNOTSUPP):
		hint = ": the driver does not offer it"
	}
	return fmt.Errorf("xsk: %s queue %d: %s: %w%s", cfg.Interface, cfg.Queue, step, err, hint)
}
