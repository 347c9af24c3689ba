package routes

import (
	"log/slog"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"causeway/config"
	"causeway/pipeline"
)

// Offline fills the tables of an engine from a configuration alone, by the rules of a running node: which path wins,
// what stands in which account's table, how a tunnel reaches its customer. In the place of a kernel stands the least
// that lets packets go on: every port is up, has no address of its own and an MTU of OfflineMTU; a made-up router on
// one of them has the default routes; endpoints are addresses of the host; every next hop has a made-up link address.
//
//	o := routes.NewOffline(engine, []string{"eth0", "eth1"}, 0)
//	engine.Apply(spec(cfg, o.Links()))
//	err := o.Apply(cfg)
type Offline struct{ m *Manager }

// OfflineMTU is that of every link.
const OfflineMTU = 1500

// offlineRouter is the made-up router's addresses: the IPv4 dummy address (RFC 7600), and one that discards (RFC 6666).
var offlineRouter = []netip.Addr{netip.MustParseAddr("192.0.0.8"), netip.MustParseAddr("100::8")}

// NewOffline takes the names of the engine's ports, and on which of them the made-up router is.
func NewOffline(engine *pipeline.Engine, ports []string, router int) *Offline {
	o := Options{Log: slog.New(slog.DiscardHandler)}
	for i, name := range ports {
		o.Ports = append(o.Ports, Port{Index: i, Ifindex: i + 1, Name: name})
	}
	m := newManager(engine, o)
	for _, p := range o.Ports {
		m.setDevice(&linkMessage{ifindex: p.Ifindex, flags: unix.IFF_UP | unix.IFF_RUNNING, name: p.Name, mtu: OfflineMTU})
	}
	for _, a := range offlineRouter {
		all, _ := a.Prefix(0)
		hops := []hop{{ifindex: o.Ports[router].Ifindex, gateway: a, weight: 1}}
		m.routeEvent(&routeMessage{prefix: all, table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST, hops: hops}, false, 0)
	}
	return &Offline{m}
}

// Links returns the links for pipeline.Spec. They have no link address, so frames to any are taken.
func (o *Offline) Links() []pipeline.LinkSpec { return o.m.Links() }

// Apply is Manager.Apply. It may be called once.
func (o *Offline) Apply(c *config.Config) error {
	for _, a := range c.Endpoints {
		own := netip.PrefixFrom(a, a.BitLen())
		o.m.routeEvent(&routeMessage{prefix: own, table: unix.RT_TABLE_LOCAL, kind: unix.RTN_LOCAL}, false, 0)
	}
	if err := o.m.Apply(c); err != nil {
		return err
	}
	for i := range o.m.slots.list {
		o.m.setNeighbour(offlineNeighbour(o.m.slots.list[i].host, i))
	}
	o.m.settle()
	return nil
}

// offlineNeighbour is what a kernel would say of the host in neighbour slot i.
func offlineNeighbour(h hostKey, i int) *neighbourMessage {
	return &neighbourMessage{
		ifindex: h.ifindex, addr: h.addr, hasMAC: true, state: netlink.NUD_PERMANENT,
		mac: [6]byte{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}, // locally administered
	}
}
