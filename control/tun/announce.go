package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// AnnouncementName is how the device is called whose addresses are those that this node should get traffic for.
const AnnouncementName = "causeway-any"

// An Announcement is a device for routing daemons: while it has an endpoint's address, that endpoint should be
// announced from here. It is not persistent, so whatever kills the process withdraws the endpoints at once; and the
// addresses have a lifetime, so that a process that hangs withdraws them too. No packet comes or goes by it.
type Announcement struct {
	link netlink.Link
	nl   *netlink.Handle
	file *os.File

	mu   sync.Mutex
	held map[netip.Addr]bool
}

// AnnouncementLife is how long an endpoint is announced after Set. The kernel counts in seconds, and looks about once
// a second.
const AnnouncementLife = 2 * time.Second

// OpenAnnouncement creates the device, without addresses, in the calling thread's network namespace.
func OpenAnnouncement() (*Announcement, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("device %s: netlink: %w", AnnouncementName, err)
	}
	a := &Announcement{nl: handle, held: map[netip.Addr]bool{}}
	if err := a.open(); err != nil {
		a.Close()
		return nil, fmt.Errorf("device %s: %w", AnnouncementName, err)
	}
	return a, nil
}

func (a *Announcement) open() error {
	fd, err := create(AnnouncementName)
	if err != nil {
		return err
	}
	a.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	if a.link, err = a.nl.LinkByName(AnnouncementName); err != nil {
		return err
	}
	// No link-local address: a routing daemon would announce its network.
	if err := a.nl.LinkSetIP6AddrGenMode(a.link, nl.IN6_ADDR_GEN_MODE_NONE); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("link-local address cannot be turned off: %w", err)
	}
	if err := a.nl.LinkSetUp(a.link); err != nil {
		return fmt.Errorf("cannot be brought up: %w", err)
	}
	return nil
}

// Set has the device hold these addresses for AnnouncementLife from now on, and no others. It is to be called again
// before that is over.
func (a *Announcement) Set(addrs []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	want := map[netip.Addr]bool{}
	for _, x := range addrs {
		want[x] = true
		h := host(x)
		h.ValidLft, h.PreferedLft = int(AnnouncementLife/time.Second), int(AnnouncementLife/time.Second)
		if err := a.nl.AddrReplace(a.link, h); err != nil {
			errs = append(errs, fmt.Errorf("device %s: address %s: %w", AnnouncementName, x, err))
			continue
		}
		a.held[x] = true
	}
	for x := range a.held {
		if want[x] {
			continue
		}
		if err := a.nl.AddrDel(a.link, host(x)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("device %s: address %s cannot be removed: %w", AnnouncementName, x, err))
			continue
		}
		delete(a.held, x)
	}
	return errors.Join(errs...)
}

// Close removes the device.
func (a *Announcement) Close() error {
	a.nl.Close()
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}
