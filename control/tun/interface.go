package tun

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An Interface is a tunnel as the host's kernel has it: a device with our interface addresses. What the kernel sends there goes into the
// tunnel, and what comes out of the tunnel for those addresses the kernel gets. It is not persistent either.
type Interface struct {
	opts InterfaceOptions
	link netlink.Link
	nl   *netlink.Handle
	file *os.File

	gone, down                            atomic.Bool
	closing                               sync.Once
	toKernel, fromKernel, refused, unsent atomic.Uint64
}

// InterfaceOptions say how the device is.
type InterfaceOptions struct {
	Name      string
	Addresses []netip.Prefix // ours, with their /31, /30 or /127
	MTU       int            // bytes
	Log       *slog.Logger
}

// InterfaceStats count packets since the device was made.
type InterfaceStats struct {
	ToKernel   uint64 // given to the kernel
	FromKernel uint64 // sent into the tunnel
	Refused    uint64 // that the kernel did not take
	Unsent     uint64 // that the kernel sent, and nobody took
}

// OpenInterface makes the device, in the calling thread's network namespace. Needs CAP_NET_ADMIN and /dev/net/tun.
func OpenInterface(o InterfaceOptions) (*Interface, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("device %s: netlink: %w", o.Name, err)
	}
	i := &Interface{opts: o, nl: handle}
	if err := i.open(); err != nil {
		i.Close()
		return nil, fmt.Errorf("device %s: %w", o.Name, err)
	}
	return i, nil
}

func (i *Interface) open() error {
	fd, err := create(i.opts.Name)
	if err != nil {
		return err
	}
	i.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	if i.link, err = i.nl.LinkByName(i.opts.Name); err != nil {
		return err
	}
	if err := quiet(i.nl, i.link); err != nil {
		return err
	}
	if err := i.nl.LinkSetMTU(i.link, i.opts.MTU); err != nil {
		return fmt.Errorf("mtu %d: %w", i.opts.MTU, err)
	}
	for _, p := range i.addresses() {
		if err := i.setAddress(p); err != nil {
			return err
		}
	}
	if err := i.nl.LinkSetUp(i.link); err != nil {
		return fmt.Errorf("cannot be brought up: %w", err)
	}
	return nil
}

func (i *Interface) setAddress(p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // the other one does not hear us
	}
	if err := i.nl.AddrReplace(i.link, a); err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	return nil
}

// addresses are those of the device: with IPv6 there is one for the link too, without which FRR speaks no BGP there.
func (i *Interface) addresses() []netip.Prefix {
	list := slices.Clone(i.opts.Addresses)
	for _, p := range i.opts.Addresses {
		if p.Addr().Is6() {
			a := p.Addr().As16()
			copy(a[:8], netip.MustParseAddr("fe80::").AsSlice())
			list = append(list, netip.PrefixFrom(netip.AddrFrom16(a), 64))
		}
	}
	return list
}

// Name is the device's name, and Index its number.
func (i *Interface) Name() string { return i.opts.Name }

// Index is the number of the device.
func (i *Interface) Index() int { return i.link.Attrs().Index }

// Gone reports whether somebody has taken the device away.
func (i *Interface) Gone() bool { return i.gone.Load() }

// Up reports whether the device was up when it was made, or looked at by RepairInterfaces; somebody may have set it down.
func (i *Interface) Up() bool { return !i.down.Load() }

// RepairInterfaces puts addresses back that somebody has taken from devices, or that the kernel has forgotten while they were down, and returns those
// that had lost any. A device that is down is left alone. The devices are of one network namespace; the kernel is asked once for all.
func RepairInterfaces(list []*Interface) (repaired []*Interface, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	links, err := list[0].nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("devices of tunnels: links: %w", err)
	}
	addresses, err := list[0].nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("devices of tunnels: addresses: %w", err)
	}
	up, held := map[int]bool{}, map[int][]netip.Addr{}
	for _, l := range links {
		up[l.Attrs().Index] = l.Attrs().Flags&net.FlagUp != 0
	}
	for _, a := range addresses {
		if x, ok := netip.AddrFromSlice(a.IP); ok {
			held[a.LinkIndex] = append(held[a.LinkIndex], x.Unmap())
		}
	}
	for _, i := range list {
		if i.down.Store(!up[i.Index()]); i.down.Load() {
			continue
		}
		lost := slices.DeleteFunc(i.addresses(), func(p netip.Prefix) bool { return slices.Contains(held[i.Index()], p.Addr()) })
		for _, p := range lost {
			err = errors.Join(err, i.setAddress(p))
		}
		if len(lost) > 0 {
			repaired = append(repaired, i)
		}
	}
	return repaired, err
}

// SetMTU changes the largest packet that the kernel may send, in bytes.
func (i *Interface) SetMTU(mtu int) error {
	if err := i.nl.LinkSetMTU(i.link, mtu); err != nil {
		return fmt.Errorf("device %s: mtu %d: %w", i.opts.Name, mtu, err)
	}
	return nil
}

// Write gives the kernel a packet that has come out of the tunnel.
func (i *Interface) Write(packet []byte) {
	if _, err := i.file.Write(packet); err != nil {
		i.refused.Add(1)
		return
	}
	i.toKernel.Add(1)
}

// Run calls send for each packet of the kernel's, which is send's until it returns, until the device is closed or taken away. send reports
// whether the packet is on its way.
func (i *Interface) Run(send func(packet []byte) bool) {
	buf := make([]byte, 1<<16)
	for {
		n, err := i.file.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			i.gone.Store(true)
			i.opts.Log.Error("the device of a tunnel is gone", "device", i.opts.Name, "error", err)
			return
		}
		if isMulticast(buf[:n]) {
			continue // the kernel looks for routers, and says what groups it is in: nobody is there
		}
		if send(buf[:n]) {
			i.fromKernel.Add(1)
		} else {
			i.unsent.Add(1)
		}
	}
}

func isMulticast(packet []byte) bool {
	if packet[0]>>4 == 6 {
		return len(packet) > 24 && packet[24] == 0xff
	}
	return len(packet) > 16 && packet[16]>>4 == 0xe
}

// Stats returns the counters.
func (i *Interface) Stats() InterfaceStats {
	return InterfaceStats{ToKernel: i.toKernel.Load(), FromKernel: i.fromKernel.Load(), Refused: i.refused.Load(), Unsent: i.unsent.Load()}
}

// Close removes the device, with its addresses and its routes, and ends Run.
func (i *Interface) Close() (err error) {
	i.closing.Do(func() {
		i.nl.Close()
		if i.file != nil {
			err = i.file.Close()
		}
	})
	return err
}
