// Package tun is the daemon's way to the host's kernel: a TUN device that holds the endpoints' addresses. The kernel
// answers pings of the endpoints because they are its own; packets that the workers punt come out of the device as
// if they had been received on it; what the kernel routes into it goes through the pipeline into a tunnel.
//
// The device is not persistent: it vanishes with the process, however that dies, and with it the addresses and
// routes that it held. A node that is down answers nothing.
package tun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"causeway/pipeline"
)

// DefaultName is how the device is called.
const DefaultName = "causeway"

// A Device is the TUN device. SetAddresses, SetRoutes and Stats may be called by any goroutine.
type Device struct {
	name string
	link netlink.Link
	nl   *netlink.Handle
	raw  *nl.NetlinkSocket // for what nl cannot say, in the namespace of the device
	file *os.File
	log  *slog.Logger

	mu        sync.Mutex
	addresses map[netip.Addr]bool
	routes    map[netip.Prefix]bool

	wasDown atomic.Bool   // since it was last in order
	closed  chan struct{} // ends what watches the device
	closing sync.Once

	written, writeErrors atomic.Uint64
	read, refused        atomic.Uint64
}

// Stats counts packets since the device was opened.
type Stats struct {
	Written     uint64 // given to the kernel
	WriteErrors uint64 // not taken by the kernel
	Read        uint64 // of the kernel's, given to the pipeline
	Refused     uint64 // of the kernel's, for which the pipeline's queue was full
}

// Open creates the device in the calling thread's network namespace and brings it up. The MTU is the largest packet
// in bytes that the kernel may give to it. Needs CAP_NET_ADMIN and /dev/net/tun.
func Open(name string, mtu int, log *slog.Logger) (*Device, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("tun device %s: netlink: %w", name, err)
	}
	d := &Device{name: name, nl: handle, log: log, addresses: map[netip.Addr]bool{}, routes: map[netip.Prefix]bool{}, closed: make(chan struct{})}
	if err := d.open(mtu); err != nil {
		d.Close()
		return nil, fmt.Errorf("tun device %s: %w", name, err)
	}
	return d, nil
}

func (d *Device) open(mtu int) error {
	var err error
	if d.raw, err = nl.Subscribe(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	fd, err := create(d.name)
	if err != nil {
		return err
	}
	// Non-blocking, so that the runtime's poller waits and Close ends a Read.
	d.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	if d.link, err = d.nl.LinkByName(d.name); err != nil {
		return err
	}
	if err := quiet(d.nl, d.link); err != nil {
		return err
	}
	if err := d.nl.LinkSetMTU(d.link, mtu); err != nil {
		return fmt.Errorf("mtu %d: %w", mtu, err)
	}
	if err := d.nl.LinkSetUp(d.link); err != nil {
		return fmt.Errorf("cannot be brought up: %w", err)
	}
	return d.noticeDown()
}

func create(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("/dev/net/tun: %w; modprobe tun, and allow the service the device", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		// Packets without a header of the driver's in front.
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	switch {
	case errors.Is(err, unix.EBUSY):
		return -1, fmt.Errorf("there is an interface of that name already: another daemon in this network namespace? (ip link show %s): %w", name, err)
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("cannot be made: %w; CAP_NET_ADMIN is needed", err)
	}
	return -1, fmt.Errorf("cannot be made: %w", err)
}

// Name is the device's name.
func (d *Device) Name() string { return d.name }

// Index is the number of the device's interface.
func (d *Device) Index() int { return d.link.Attrs().Index }

// Close removes the device, its addresses and its routes, and ends Run.
func (d *Device) Close() error {
	d.closing.Do(func() { close(d.closed) })
	d.nl.Close()
	if d.raw != nil {
		d.raw.Close()
	}
	if d.file == nil {
		return nil
	}
	return d.file.Close()
}

// Stats returns the counters.
func (d *Device) Stats() Stats {
	return Stats{
		Written: d.written.Load(), WriteErrors: d.writeErrors.Load(),
		Read: d.read.Load(), Refused: d.refused.Load(),
	}
}

// Run carries packets both ways between the queue and the kernel until ctx is done. The device must be closed after
// that, or before, to end the reading half.
func (d *Device) Run(ctx context.Context, q *pipeline.PuntQueue) {
	var wg sync.WaitGroup
	wg.Go(func() { d.toPipeline(q) })
	d.toKernel(ctx, q)
	d.file.SetReadDeadline(time.Unix(1, 0))
	wg.Wait()
}

// drainInterval bounds how long the writer takes to notice that it shall end.
const drainInterval = 100 // ms

func (d *Device) toKernel(ctx context.Context, q *pipeline.PuntQueue) {
	for ctx.Err() == nil {
		q.Wait(drainInterval)
		q.Drain(d.write)
	}
	q.Drain(d.write)
}

func (d *Device) write(packet []byte) {
	if _, err := d.file.Write(packet); err != nil {
		if d.writeErrors.Add(1) == 1 {
			d.log.Warn("the kernel refused a punted packet; further ones are only counted", "device", d.name, "bytes", len(packet), "error", err)
		}
		return
	}
	d.written.Add(1)
}

func (d *Device) toPipeline(q *pipeline.PuntQueue) {
	buf := make([]byte, 1<<16)
	for {
		n, err := d.file.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
				d.log.Error("reading what the kernel sends ended", "device", d.name, "error", err)
			}
			return
		}
		if !q.Inject(buf[:n]) {
			d.refused.Add(1)
			continue
		}
		d.read.Add(1)
	}
}
