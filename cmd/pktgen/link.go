package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// findLink looks an interface up by name. A wrong name is a mistake of the command line.
func findLink(name string) (netlink.Link, error) {
	if name == "" {
		return nil, usagef("no interface: give --interface NAME")
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, usagef("interface %q: %v; `ip link` lists those of this network namespace", name, err)
	}
	return l, nil
}

// linkTrouble says why an interface cannot carry packets now; nil when nothing is wrong with it.
func linkTrouble(name string, index int) error {
	l, err := netlink.LinkByIndex(index)
	switch {
	case err != nil:
		return fmt.Errorf("interface %s went away", name)
	case l.Attrs().RawFlags&unix.IFF_UP == 0:
		return fmt.Errorf("interface %s is down: `ip link set %s up`", name, name)
	case l.Attrs().RawFlags&unix.IFF_LOWER_UP == 0:
		return fmt.Errorf("interface %s has no carrier: its peer or cable is down", name)
	}
	return nil
}

// watchLink cancels with the cause when the interface goes away or down.
func watchLink(ctx context.Context, cancel context.CancelCauseFunc, name string, index int) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := linkTrouble(name, index); err != nil {
				cancel(err)
				return
			}
		}
	}
}

// linkDrops is the interface's counter of packets dropped on transmit.
func linkDrops(index int) uint64 {
	l, err := netlink.LinkByIndex(index)
	if err != nil || l.Attrs().Statistics == nil {
		return 0
	}
	return l.Attrs().Statistics.TxDropped
}

// rxQueues is the number of receive queues that an interface has now.
func rxQueues(name string) (int, error) {
	dirs, err := filepath.Glob("/sys/class/net/" + name + "/queues/rx-*")
	if err == nil && len(dirs) == 0 {
		err = errors.New("/sys shows none; is /sys of this network namespace mounted?")
	}
	if err != nil {
		return 0, fmt.Errorf("queues of %s: %w", name, err)
	}
	return len(dirs), nil
}

// netnsInode identifies the calling thread's network namespace the way the kernel does.
func netnsInode() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, os.NewSyscallError("stat /proc/thread-self/ns/net", err)
	}
	return uint32(st.Ino), nil
}

// sourceAddr is the interface's first address of the family of dst that is not link-local.
func sourceAddr(l netlink.Link, dst netip.Addr) (netip.Addr, error) {
	addrs, err := netlink.AddrList(l, family(dst))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of %s: %w", l.Attrs().Name, err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.Unmap().IsLinkLocalUnicast() {
			return ip.Unmap(), nil
		}
	}
	return netip.Addr{}, usagef("interface %s has no address of the family of %s: give --src (or --gre-src)", l.Attrs().Name, dst)
}

// resolveMAC asks the kernel which neighbour leads to dst and for its hardware address; the kernel sends the ARP or
// neighbour solicitation when it does not know.
func resolveMAC(ctx context.Context, l netlink.Link, dst netip.Addr) (net.HardwareAddr, error) {
	hop, err := nextHop(l, dst)
	if err != nil {
		return nil, err
	}
	ask := &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: family(dst), IP: hop.AsSlice(), Flags: netlink.NTF_USE}
	for tries := 0; tries < 30 && ctx.Err() == nil; tries++ {
		neighs, err := netlink.NeighList(l.Attrs().Index, family(dst))
		if err != nil {
			return nil, fmt.Errorf("neighbours of %s: %w", l.Attrs().Name, err)
		}
		for _, n := range neighs {
			if n.IP.Equal(ask.IP) && n.State&usable != 0 && len(n.HardwareAddr) == 6 {
				return n.HardwareAddr, nil
			}
		}
		if tries == 0 {
			if err := netlink.NeighSet(ask); err != nil {
				return nil, fmt.Errorf("ask the kernel to resolve %s on %s: %w", hop, l.Attrs().Name, err)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, fmt.Errorf("neighbour %s on %s does not answer: give --dst-mac, or check that the other side is up", hop, l.Attrs().Name)
}

const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP

func nextHop(l netlink.Link, dst netip.Addr) (netip.Addr, error) {
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{OifIndex: l.Attrs().Index})
	if err != nil || len(routes) == 0 {
		return netip.Addr{}, usagef("no route to %s through %s (%v): give --dst-mac", dst, l.Attrs().Name, err)
	}
	if gw, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		return gw.Unmap(), nil
	}
	return dst, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
