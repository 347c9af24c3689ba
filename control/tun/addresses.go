package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeMetric is the metric of the device's routes: far behind whatever the operator or a routing daemon has set. FRR takes the first eight bits
// of a metric for the route's distance, and prefers what is nearer, its own BGP at 20 too.
const routeMetric = 254 << 24

// addressMetric is that of its addresses, one more: the kernel's route to an IPv6 address is not one of ours.
const addressMetric = routeMetric + 1

// SetAddresses makes the device hold these addresses, each as a host: /32 or /128. Those that it holds already are
// not touched.
func (d *Device) SetAddresses(addrs []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	want := map[netip.Addr]bool{}
	for _, a := range addrs {
		want[a] = true
		if !d.addresses[a] {
			if err := d.hold(a); err != nil {
				errs = append(errs, fmt.Errorf("tun device %s: address %s: %w", d.name, a, err))
				continue
			}
			d.addresses[a] = true
		}
	}
	for a := range d.addresses {
		if !want[a] {
			if err := d.nl.AddrDel(d.link, host(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				errs = append(errs, fmt.Errorf("tun device %s: address %s cannot be removed: %w", d.name, a, err))
				continue
			}
			delete(d.addresses, a)
		}
	}
	return errors.Join(errs...)
}

// hold gives the device an address. Its metric is far behind others: where two devices have one address, a routing
// daemon sees the one with the lower metric, and that is to be the Announcement's.
func (d *Device) hold(a netip.Addr) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: d.raw}}
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	if a.Is6() {
		msg.Family = unix.AF_INET6
	}
	msg.Prefixlen, msg.Index = uint8(a.BitLen()), uint32(d.link.Attrs().Index)
	req.AddData(msg)
	for _, attr := range []struct {
		kind int
		data []byte
	}{{unix.IFA_LOCAL, a.AsSlice()}, {unix.IFA_ADDRESS, a.AsSlice()}, {unix.IFA_FLAGS, nl.Uint32Attr(uint32(host(a).Flags))}, {unix.IFA_RT_PRIORITY, nl.Uint32Attr(addressMetric)}} {
		req.AddData(nl.NewRtAttr(attr.kind, attr.data))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func host(a netip.Addr) *netlink.Addr {
	out := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
	if a.Is6() {
		out.Flags = unix.IFA_F_NODAD // nobody else is on the device
	}
	return out
}

// SetRoutes makes the kernel send packets of its own to these prefixes into the device, so that the host reaches
// customers through their tunnels. Any route that somebody else has set for the same prefix is preferred.
func (d *Device) SetRoutes(prefixes []netip.Prefix) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	want := map[netip.Prefix]bool{}
	for _, p := range prefixes {
		p = p.Masked()
		want[p] = true
		if !d.routes[p] {
			if err := d.nl.RouteReplace(d.route(p)); err != nil {
				errs = append(errs, fmt.Errorf("tun device %s: route %s: %w", d.name, p, err))
				continue
			}
			d.routes[p] = true
		}
	}
	for p := range d.routes {
		if !want[p] {
			if err := d.nl.RouteDel(d.route(p)); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("tun device %s: route %s cannot be removed: %w", d.name, p, err))
				continue
			}
			delete(d.routes, p)
		}
	}
	return errors.Join(errs...)
}

func (d *Device) route(p netip.Prefix) *netlink.Route {
	return &netlink.Route{
		LinkIndex: d.link.Attrs().Index, Dst: ipNet(p), Priority: routeMetric,
		Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_STATIC,
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// The device's IPv4 settings in an RTM_SETLINK message (linux/if_link.h), and the number of the one that is set
// (linux/ip.h).
const (
	iflaInetConf    = 1
	devconfRPFilter = 8
)

// quiet keeps the kernel from speaking on the device of its own accord (no link-local address, so no router
// solicitations and multicast reports), and from dropping what the workers punt: such packets come from anywhere,
// and the strict reverse path filter (RFC 3704 2.2) would want a route back through this device. The loose one is
// set through netlink, because a service with least rights may not write to /proc/sys.
func quiet(handle *netlink.Handle, link netlink.Link) error {
	if err := handle.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("link-local address cannot be turned off: %w", err)
	}
	const loose = 2
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	inet := spec.AddRtAttr(unix.AF_INET|unix.NLA_F_NESTED, nil)
	conf := inet.AddRtAttr(iflaInetConf|unix.NLA_F_NESTED, nil)
	conf.AddRtAttr(devconfRPFilter, nl.Uint32Attr(loose))
	req.AddData(spec)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("reverse path filter cannot be set: %w", err)
	}
	return nil
}
