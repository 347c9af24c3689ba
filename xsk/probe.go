package xsk

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrNotSupported matches, by errors.Is, every error that says the kernel or
// the driver lacks something.
var ErrNotSupported = errors.New("not supported")

// NotSupportedError says what is lacking. It matches [ErrNotSupported] and its
// cause.
type NotSupportedError struct {
	Feature string // name in the capability table
	Since   string // first Linux version that has it
	Where   string // interface, or "" for the whole kernel
	Cause   error
}

func (e *NotSupportedError) Error() string {
	if e.Where != "" {
		return fmt.Sprintf("%s: not supported by the driver of %s: %v; the kernel has it since linux %s",
			e.Feature, e.Where, e.Cause, e.Since)
	}
	return fmt.Sprintf("%s: not supported by this kernel; linux %s or later has it: %v", e.Feature, e.Since, e.Cause)
}

// Is makes errors.Is(err, ErrNotSupported) true.
func (e *NotSupportedError) Is(target error) bool { return target == ErrNotSupported }

// Unwrap returns the cause.
func (e *NotSupportedError) Unwrap() error { return e.Cause }

// Capability is one row of the capability table.
type Capability struct {
	Name      string
	Since     string // first Linux version that has it
	Supported bool
	Purpose   string // what Causeway uses it for
	Err       error  // why not; a *NotSupportedError, or what kept us from asking
}

// feature is something that some kernels or drivers lack: how to find out, and
// what was found.
type feature struct {
	name, since, purpose string
	// probe asks the kernel and changes nothing. ifname is "" unless perInterface.
	probe        func(ifname string) error
	perInterface bool

	mu    sync.Mutex
	known bool
	err   error
}

// The table. Each probe is a question that is refused in one way by kernels
// that lack the feature and in another by those that have it.
var (
	socketFeature = &feature{
		name: "af-xdp", since: "4.18", purpose: "packets past the kernel's stack",
		probe: func(string) error { return withSocket(func(int) error { return nil }) },
	}
	needWakeupFeature = &feature{
		name: "need-wakeup", since: "5.4", purpose: "system calls only when the kernel sleeps",
		probe: func(string) error { return bindKnows(unix.XDP_USE_NEED_WAKEUP) },
	}
	sharedFeature = &feature{
		name: "shared-umem", since: "5.10", purpose: "one packet memory for all ports and queues, so forwarding copies nothing",
		// Only kernels that allow a fill ring per queue take one without a UMEM.
		probe: func(string) error {
			return withSocket(func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_UMEM_FILL_RING, MinRingSize)
			})
		},
	}
	busyPollFeature = &feature{
		name: "busy-poll", since: "5.11", purpose: "the worker runs the driver's receive code itself",
		probe: func(string) error {
			return withSocket(func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL, 1)
			})
		},
	}
	sendBudgetFeature = &feature{
		name: "send-budget", since: "6.17", purpose: "a whole batch per system call in copy mode, instead of 32 packets",
		probe: probeSendBudget,
	}
	hugePagesFeature = &feature{
		name: "huge-pages", since: "2.6.32", purpose: "fewer TLB misses in the packet memory",
		probe: probeHugePages,
	}
	multiBufferFeature = &feature{
		name: "multi-buffer", since: "6.6", purpose: "packets larger than a frame (not used yet)", perInterface: true,
		probe: func(ifname string) error {
			if err := bindKnows(unix.XDP_USE_SG); err != nil {
				return err
			}
			return driverOffers(ifname, xdpReceiveSG)
		},
	}
	nativeFeature = &feature{
		name: "native-xdp", since: "4.8", purpose: "the steering program in the driver, before the kernel's packet buffer", perInterface: true,
		probe: func(ifname string) error { return driverOffers(ifname, xdpBasic|xdpRedirect) },
	}
	zeroCopyFeature = &feature{
		name: "zero-copy", since: "5.0", purpose: "the card reads and writes the packet memory itself", perInterface: true,
		probe: func(ifname string) error { return driverOffers(ifname, xdpZeroCopy) },
	}
)

var features = []*feature{
	socketFeature, needWakeupFeature, sharedFeature, busyPollFeature, sendBudgetFeature, hugePagesFeature,
	nativeFeature, zeroCopyFeature, multiBufferFeature,
}

// Probe asks the kernel, and the driver of the interface, what they can do. It
// changes nothing. An empty ifname leaves out what depends on the driver. The
// error is about the interface; what could not be asked stands in its row.
func Probe(ifname string) ([]Capability, error) {
	if ifname != "" {
		if _, err := LookupInterface(ifname); err != nil {
			return nil, err
		}
	}
	var table []Capability
	for _, f := range features {
		if f.perInterface && ifname == "" {
			continue
		}
		err := f.check(ifname)
		table = append(table, Capability{Name: f.name, Since: f.since, Purpose: f.purpose, Supported: err == nil, Err: err})
	}
	return table, nil
}

// check returns nil if the feature is there. Answers about the kernel are
// remembered, for it does not change under us; a name may change its interface.
func (f *feature) check(ifname string) error {
	if f.perInterface {
		return f.judge(f.probe(ifname), ifname)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known {
		return f.err
	}
	err := f.judge(f.probe(""), "")
	if err == nil || errors.Is(err, ErrNotSupported) {
		f.known, f.err = true, err
	}
	return err
}

// judge tells a refusal for lack of the feature from one for lack of rights or
// memory.
func (f *feature) judge(err error, where string) error {
	for _, other := range []error{unix.EPERM, unix.EACCES, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, errUnknown} {
		if errors.Is(err, other) {
			return fmt.Errorf("%s: cannot be asked: %w", f.name, err)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOMEM): // the kernel has the feature and none to give
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return &NotSupportedError{Feature: f.name, Since: f.since, Where: where, Cause: err}
}

// withSocket runs ask on a fresh, unbound AF_XDP socket.
func withSocket(ask func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ask(fd)
}

// bindKnows asks whether bind knows a flag: unknown flags are refused (EINVAL)
// before the interface, which there is none of, is looked up (ENODEV).
func bindKnows(flag uint16) error {
	return withSocket(func(fd int) error {
		err := unix.Bind(fd, &unix.SockaddrXDP{Flags: flag})
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	})
}

// probeSendBudget sets the lowest legal budget on a socket with a TX ring.
func probeSendBudget(string) error {
	return withSocket(func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_TX_RING, MinRingSize); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, kernelBatch)
	})
}

// probeHugePages maps one, which must be reserved beforehand.
func probeHugePages(string) error {
	m, err := unix.Mmap(-1, 0, hugePage, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB)
	if err != nil {
		return err
	}
	return unix.Munmap(m)
}

// driverOffers asks the driver for XDP features.
func driverOffers(ifname string, want uint64) error {
	ifi, err := LookupInterface(ifname)
	if err != nil {
		return err
	}
	have, err := xdpFeatures(ifi.Index)
	if err != nil {
		return err
	}
	if have&want != want {
		return fmt.Errorf("driver %s says xdp-features %#x, which lacks %#x", ifi.Driver, have, want&^have)
	}
	return nil
}
