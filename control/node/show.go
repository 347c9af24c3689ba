package node

import (
	"cmp"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/cluster"
	"causeway/control/health"
	"causeway/control/health/bfd"
	"causeway/control/metrics"
	"causeway/control/routes"
	"causeway/pipeline"
	"causeway/xsk"
	"causeway/xsk/bpf"
)

// Tunnels lists the tunnels in the order of the file.
func (n *Node) Tunnels() []api.Tunnel {
	ways := n.customerWays()
	mtus := map[string]int{} // of interfaces
	for _, i := range interfaces() {
		mtus[i.Name] = i.MTU
	}
	out := []api.Tunnel{}
	learned := n.routes.Learned()
	for _, t := range n.Config().Tunnels {
		if id, ok := n.engine.TunnelID(t.Name); ok {
			x := n.tunnel(t, id, ways[t.Name], mtus)
			x.KernelInterface = n.interfaceOf(&t, learned)
			out = append(out, x)
		}
	}
	return out
}

// customerWays are the ways to tunnels' customers.
func (n *Node) customerWays() map[string]routes.TunnelRoute {
	ways := map[string]routes.TunnelRoute{}
	for _, r := range n.routes.Tunnels() {
		ways[r.Tunnel] = r
	}
	return ways
}

func (n *Node) tunnel(t config.Tunnel, id int, way routes.TunnelRoute, mtus map[string]int) api.Tunnel {
	c := n.engine.TunnelCounters(id)
	path := n.engine.Forwarding().PathMTU(id)
	out := api.Tunnel{
		Name: t.Name, Account: t.Account, Type: t.Type.String(),
		Endpoint: t.Endpoint.String(), CustomerEndpoint: addrText(t.CustomerEndpoint),
		InterfaceAddress: prefixText(t.InterfaceAddress), InterfaceAddress6: prefixText(t.InterfaceAddress6),
		Prefixes: []string{}, MTU: t.MTU, EffectiveMTU: t.MTU, PathMTU: path,
		MSS4: int(t.MSS4()), MSS6: int(t.MSS6()),
		RXPackets: c.RXPackets, RXBytes: c.RXBytes, RXDrops: c.RXDrops,
		TXPackets: c.TXPackets, TXBytes: c.TXBytes, TXDrops: c.TXDrops,
	}
	if way.CustomerEndpoint.IsValid() { // where IKE has found the customer
		out.CustomerEndpoint = way.CustomerEndpoint.String()
	}
	if path > 0 {
		out.EffectiveMTU = min(t.MTU, path)
	}
	for _, p := range t.Prefixes {
		out.Prefixes = append(out.Prefixes, p.String())
	}
	out.Route, out.RouteState = routeWords(way, n.routes.Hops(way.Leaf), func(device string) string {
		return tooNarrow(t, out.EffectiveMTU, mtus[device])
	})
	return out
}

// tooNarrow says which packets of a tunnel do not fit a device of that MTU, which is 0 if it is not known.
func tooNarrow(t config.Tunnel, inner, mtu int) string {
	if mtu == 0 || inner <= t.Fits(mtu) {
		return ""
	}
	return fmt.Sprintf(" (its mtu is %d: packets of more than %d are fragmented outside)", mtu, t.Fits(mtu))
}

// interfaces lists those of this network namespace; none if the kernel does not say.
func interfaces() []net.Interface {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	return list
}

// routeWords says where a tunnel's outer packets go, with a note about a device.
func routeWords(r routes.TunnelRoute, hops []routes.Hop, note func(device string) string) (words, state string) {
	if r.Leaf == 0 {
		return cmp.Or(r.Problem, "no route"), "none"
	}
	state = "unresolved"
	var list []string
	for _, h := range hops {
		w := fmt.Sprintf("via %s dev %s", h.Addr, h.Interface)
		if h.Usable {
			state = "ok"
		} else {
			w += " (unresolved)"
		}
		w += note(h.Interface)
		list = append(list, w)
	}
	return strings.Join(list, ", "), state
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// Routes lists all paths of all routing tables.
func (n *Node) Routes() iter.Seq[api.Route] {
	return func(yield func(api.Route) bool) {
		for r := range n.routes.Routes() {
			if !yield(api.Route{
				Prefix: r.Prefix.String(), Account: r.Account, Source: r.Source, Kind: r.Kind, NextHop: r.NextHop,
				Priority: r.Priority, Penalty: r.Penalty, Weight: r.Weight, Active: r.Active,
			}) {
				return
			}
		}
	}
}

// Neighbours lists the hosts on the links.
func (n *Node) Neighbours() []api.Neighbour {
	out := []api.Neighbour{}
	for _, h := range n.routes.Neighbours() {
		a := api.Neighbour{
			Interface: h.Interface, Address: h.Addr.String(), State: h.State,
			Usable: h.Usable, Used: h.Used, Managed: h.Managed,
		}
		if h.MAC != [6]byte{} {
			a.MAC = net.HardwareAddr(h.MAC[:]).String()
		}
		out = append(out, a)
	}
	return out
}

// Workers lists the workers and sums their accounts of frames.
func (n *Node) Workers() api.Workers {
	w := api.Workers{Workers: []api.Worker{}}
	for i, c := range n.engine.Counters() {
		w.Workers = append(w.Workers, api.Worker{
			Worker: i, CPU: n.plan.Workers[i].CPU, Queues: n.queueNames(n.plan.Workers[i]),
			LastPollAgo: time.Since(n.engine.LastPoll(i)).Seconds(), MaxPollGap: float64(c.MaxPollGapNS) / 1e9,
			Batches: c.Batches, EmptyPolls: c.EmptyPolls, Sleeps: c.Sleeps, Frames: FramesOf(&c),
		})
	}
	total := n.engine.Total()
	w.Total = FramesOf(&total)
	return w
}

// FramesOf is the account of frames as operators see it.
func FramesOf(c *pipeline.Counters) api.Frames {
	in, out := c.Balance()
	return api.Frames{
		Received: c.Received, Originated: c.Originated, Fragments: c.Fragments,
		Forwarded: c.Forwarded, Delivered: c.Delivered, Punted: c.Punted, Dropped: c.DroppedTotal(), Joined: c.Joined, Held: c.Held,
		ToOwner: c.ToOwner, FromNodes: c.FromNodes, In: in, Out: out,
	}
}

// Drops lists every drop reason, in packet order.
func (n *Node) Drops() []api.Drop {
	total := n.engine.Total()
	out := []api.Drop{}
	for _, r := range pipeline.AllReasons() {
		out = append(out, DropOf(r, total.Dropped[r]))
	}
	return out
}

// DropOf is a drop reason as operators see it, with how many packets met it.
func DropOf(r pipeline.Reason, packets uint64) api.Drop {
	i := r.Info()
	return api.Drop{Reason: i.Label, Stage: string(i.Stage), Packets: packets, Sentence: i.Sentence, RFC: i.RFC}
}

// Ports lists the interfaces with their queues.
func (n *Node) Ports() []api.Port {
	n.mu.Lock()
	links := n.links
	n.mu.Unlock()
	out := []api.Port{}
	for i, p := range n.ports {
		mode, why := p.Mode()
		ifi := p.Interface()
		port := api.Port{
			Name: p.Name(), Ifindex: p.Ifindex(), Driver: ifi.Driver, MTU: portMTU(links, i, ifi.MTU), MTULimit: xsk.MaxMTU,
			Mode: mode.String(), Queues: []api.Queue{}, Steered: map[string]uint64{},
		}
		port.Problem = mtuProblem(port.Name, port.MTU)
		if why != nil {
			port.Fallback = why.Error()
		}
		if steered, err := p.Steered(); err == nil {
			for class, packets := range steered {
				port.Steered[bpf.Class(class).String()] = packets
			}
		}
		for _, s := range p.Sockets() {
			port.Queues = append(port.Queues, n.queue(i, s))
		}
		out = append(out, port)
	}
	return out
}

// SAs lists the security associations, in the order of their tunnels.
func (n *Node) SAs() []api.SA {
	return n.sas.show(n.Config(), n.children, n.engine.OwnerOfSPI)
}

func (n *Node) queue(port int, s *xsk.Socket) api.Queue {
	st := s.Stats()
	q := api.Queue{
		Queue: s.Queue(), Worker: n.workerOf(QueueID{port, s.Queue()}),
		RxDropped: st.RxDropped, RxRingFull: st.RxRingFull, RxFillEmpty: st.RxFillEmpty, RxInvalid: st.RxInvalid,
		TxInvalid: st.TxInvalid, TxErrors: st.NoBuffers + st.LinkDown + st.Gone + st.OtherErrors + st.Busy, Kicks: st.Kicks,
		RingSize: st.RingSize, RxLevel: st.RxLevel, TxLevel: st.TxLevel, FillLevel: st.FillLevel,
	}
	q.BusyPoll, _ = s.BusyPoll()
	if st.LastErrno != 0 {
		q.LastError = st.LastErrno.Error()
	}
	return q
}

func (n *Node) workerOf(q QueueID) int {
	return slices.IndexFunc(n.plan.Workers, func(w WorkerPlan) bool { return slices.Contains(w.Queues, q) })
}

// metricsSource is what the metrics' page reads.
func (n *Node) metricsSource() metrics.Source {
	c := n.Config()
	var status func() cluster.Status
	if n.cluster != nil {
		status = n.cluster.Status
	}
	var notices func() (delivered, failed, dropped uint64)
	if n.notifier != nil {
		notices = n.notifier.Counts
	}
	return metrics.Source{
		Cluster: status, Applied: n.applied, Notices: notices, Analytics: n.analytics,
		Engine: n.engine, Ports: n.ports, Tunnels: n.metricTunnels, SAs: n.metricSAs, IKE: n.ike.Stats,
		Routes: n.routes.Stats, PathMTU: n.learned.Counts, TUN: n.tun.Stats, NotReady: n.NotReady,
		Version: n.opts.Version, Node: c.Node.Name, Datacenter: c.Node.Datacenter, Region: c.Node.Region,
	}
}

// applied is the serial of the newest document, and of the one that the node works with.
func (n *Node) applied() (newest, runs uint64) {
	s := n.store.Status()
	return s.Document, s.Runs
}

func (n *Node) metricTunnels() []metrics.Tunnel {
	fwd := n.engine.Forwarding()
	reports := map[string]*health.Report{}
	n.prober.Each(func(r health.Report) { reports[r.Tunnel] = &r })
	sessions := map[string]*bfd.Report{}
	for _, r := range n.bfd.Reports() {
		if r.Here {
			sessions[r.Tunnel] = &r
		}
	}
	var out []metrics.Tunnel
	learned := n.routes.Learned()
	for _, t := range n.Config().Tunnels {
		id, ok := n.engine.TunnelID(t.Name)
		if !ok {
			continue
		}
		m := metrics.Tunnel{ID: id, Name: t.Name, Account: t.Account, EffectiveMTU: t.MTU, Routed: fwd.TunnelRoute(id) != 0, Health: reports[t.Name], BFD: sessions[t.Name]}
		if path := fwd.PathMTU(id); path > 0 {
			m.EffectiveMTU = min(t.MTU, path)
		}
		if x := n.devices.ofTunnel(t.Name); x != nil {
			m.Device = &metrics.Device{Packets: x.Stats(), Learned: learned[uint32(id)]}
		}
		out = append(out, m)
	}
	return out
}

func (n *Node) metricSAs() []metrics.SA {
	var out []metrics.SA
	for _, a := range n.SAs() {
		out = append(out, metrics.SA{Tunnel: a.Tunnel, Encryption: a.Encryption, SPI: a.SPI, Inbound: a.Direction == "in",
			Sequence: a.Sequence, SoftExpired: a.SoftExpired, Packets: a.Packets, Bytes: a.Bytes, Refused: a.Refused})
	}
	return out
}

// Status is the node as a whole.
func (n *Node) Status() api.Status {
	why := n.NotReady()
	return api.Status{
		Node: n.Config().Node.Name, Version: n.opts.Version, Uptime: time.Since(n.started).Seconds(),
		Ready: len(why) == 0, NotReady: why, Config: n.path,
	}
}

var _ api.Node = (*Node)(nil)
