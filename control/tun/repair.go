package tun

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// noticeDown remembers that the device was down, however shortly: the kernel then forgets its routes, and its IPv6
// addresses, and shows nothing of it afterwards.
func (d *Device) noticeDown() error {
	changes := make(chan netlink.LinkUpdate, 16)
	if err := netlink.LinkSubscribe(changes, d.closed); err != nil {
		return fmt.Errorf("cannot be watched: %w", err)
	}
	index := d.link.Attrs().Index
	go func() {
		for u := range changes {
			if int(u.Index) == index && u.Flags&unix.IFF_UP == 0 {
				d.wasDown.Store(true)
			}
		}
	}()
	return nil
}

// Repair puts back what somebody else has taken from the device: whether it is up, its addresses, and then its routes,
// which the kernel forgets with either. It reports whether anything was missing. A device that was deleted can not be
// put back, for the process holds its far end: that is the error.
func (d *Device) Repair() (repaired bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	link, err := d.nl.LinkByIndex(d.link.Attrs().Index)
	if err != nil {
		return false, fmt.Errorf("tun device %s is gone: %w", d.name, err)
	}
	have, err := d.nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return false, fmt.Errorf("tun device %s: addresses: %w", d.name, err)
	}
	held := map[string]bool{}
	for _, a := range have {
		held[a.IP.String()] = true
	}
	up := link.Attrs().Flags&net.FlagUp != 0
	missing := 0
	for a := range d.addresses {
		if !held[a.String()] {
			missing++
		}
	}
	if up && missing == 0 && !d.wasDown.Swap(false) {
		return false, nil
	}
	errs := []error{d.nl.LinkSetUp(link)}
	for a := range d.addresses {
		errs = append(errs, d.hold(a))
	}
	for p := range d.routes {
		errs = append(errs, d.nl.RouteReplace(d.route(p)))
	}
	if err := errors.Join(errs...); err != nil {
		return true, fmt.Errorf("tun device %s: %w", d.name, err)
	}
	return true, nil
}
