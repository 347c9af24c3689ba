package node

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/health/bfd"
	"causeway/control/tun"
	"causeway/pipeline"
	"causeway/pipeline/wire"
)

// A tunnel with `kernel_interface` is a device of the host's, by which a routing daemon speaks with the customer's router. All nodes have it, and
// with it a way to what is learned there. But the router knows one address, and has one session with it: so one node speaks, the one that would
// speak BFD (health/speaker.go), and the others give it what comes for it, and send nothing of their own.

// deviceDepth is how many packets may wait for the workers, and from each for the devices.
const deviceDepth = 1024

// devices are those of all tunnels that have one.
type devices struct {
	self    string // this node's name
	queue   *pipeline.TunnelQueue
	running sync.WaitGroup

	mu  sync.Mutex // one at a time changes them
	now atomic.Pointer[deviceList]
}

// A deviceList is the devices of one configuration. It is not changed any more.
type deviceList struct {
	byTunnel map[string]*device
	byID     map[int]*device   // by the engine's number of the tunnel
	missing  map[string]string // tunnels whose device could not be made, and why
}

// A device is one, with what it was made for.
type device struct {
	*tun.Interface
	tunnel, account string
	addresses       []netip.Prefix
	id              int                    // the engine's number of the tunnel
	most            int                    // the tunnel's MTU
	mtu             atomic.Int64           // the device's
	speaker         atomic.Pointer[string] // the node that speaks; "": nobody

	passedOn, lost atomic.Uint64 // packets out of the tunnel: to the node that speaks; to nobody, for it is not known or not reached
}

func (n *Node) openDevices() (err error) {
	n.devices.self = n.Config().Node.Name
	n.devices.now.Store(&deviceList{})
	n.devices.queue, err = pipeline.NewTunnelQueue("devices", len(n.plan.Workers), deviceDepth)
	return err
}

func (d *devices) ofTunnel(name string) *device { return d.now.Load().byTunnel[name] }

// setDevices makes the devices of c that there are not, and takes away what it does not have. The workers have its tunnels; routes learn with the
// next Apply. One that cannot be made, since the host has one of that name, say, is tried again and again (repairDevices): its tunnel does all but
// that.
func (n *Node) setDevices(c *config.Config) {
	d := &n.devices
	d.mu.Lock()
	defer d.mu.Unlock()
	was, is := d.now.Load(), &deviceList{map[string]*device{}, map[int]*device{}, map[string]string{}}
	var wanted []*config.Tunnel
	for i := range c.Tunnels {
		t := &c.Tunnels[i]
		if t.KernelInterface == "" {
			continue
		}
		if x := was.byTunnel[t.Name]; x != nil && x.is(t) {
			is.add(x)
		} else {
			wanted = append(wanted, t)
		}
	}
	for name, x := range was.byTunnel { // first, for another one may have its name
		if is.byTunnel[name] != x {
			x.Close()
		}
	}
	for _, t := range wanted {
		if x, err := n.makeDevice(t); err == nil {
			is.add(x)
		} else if is.missing[t.Name] = explain(err).Error(); is.missing[t.Name] != was.missing[t.Name] {
			n.log.Error("the device of a tunnel cannot be made, and is tried again each second", "tunnel", t.Name, "error", explain(err))
		}
	}
	ifindexes := make(map[string]int, len(is.byTunnel))
	for name, x := range is.byTunnel {
		ifindexes[name] = x.Index()
	}
	d.now.Store(is)
	n.routes.SetDevices(ifindexes)
	n.followTunnels()
}

func (l *deviceList) add(x *device) { l.byTunnel[x.tunnel], l.byID[x.id] = x, x }

// is reports whether x is the device of t, as it is to be.
func (x *device) is(t *config.Tunnel) bool {
	return !x.Gone() && x.Name() == t.KernelInterface && x.account == t.Account && x.most == t.MTU && slices.Equal(x.addresses, addressesOf(t))
}

func addressesOf(t *config.Tunnel) []netip.Prefix {
	list := []netip.Prefix{t.InterfaceAddress}
	if t.InterfaceAddress6.IsValid() {
		list = append(list, t.InterfaceAddress6)
	}
	return list
}

func (n *Node) makeDevice(t *config.Tunnel) (*device, error) {
	x := &device{tunnel: t.Name, account: t.Account, addresses: addressesOf(t), most: t.MTU}
	x.id, _ = n.engine.TunnelID(t.Name)
	x.mtu.Store(int64(t.MTU))
	x.speaker.Store(new(string))
	var err error
	x.Interface, err = tun.OpenInterface(tun.InterfaceOptions{Name: t.KernelInterface, Addresses: x.addresses, MTU: t.MTU, Log: n.log})
	if err != nil {
		return nil, err
	}
	n.devices.running.Go(func() { x.Run(func(packet []byte) bool { return n.fromDevice(x, packet) }) })
	return x, nil
}

// How often, and after which time, a packet of the kernel's is offered to the workers again when they have no room: a routing daemon's table is
// many at once.
const (
	deviceTries = 20
	deviceAgain = time.Millisecond
)

// fromDevice sends what the kernel has sent into the tunnel, if this node speaks.
func (n *Node) fromDevice(x *device, packet []byte) bool {
	if *x.speaker.Load() != n.devices.self {
		return false
	}
	for range deviceTries {
		if n.devices.queue.Send(x.id, packet) {
			return true
		}
		time.Sleep(deviceAgain)
	}
	return false
}

// takeForDevices takes what comes out of tunnels for devices until ctx is done.
func (n *Node) takeForDevices(ctx context.Context) {
	for ctx.Err() == nil {
		n.devices.queue.Wait(answerWait)
		n.devices.queue.Drain(n.takeForDevice)
	}
}

func (n *Node) takeForDevice(id int, packet []byte) {
	if x := n.devices.now.Load().byID[id]; x != nil {
		n.toDevice(x, packet, 0)
	}
}

// toDevice gives the kernel a packet, here or where it is spoken.
func (n *Node) toDevice(x *device, packet []byte, passed byte) {
	switch speaker := *x.speaker.Load(); {
	case speaker == n.devices.self:
		x.Write(packet)
	case n.ways != nil && speaker != "" && passed < maxPassed && n.ways.speak(speaker, x.tunnel, packet, passed+1):
		x.passedOn.Add(1)
	default:
		x.lost.Add(1)
	}
}

// takeSpoken takes a packet for whoever speaks for a tunnel, that another node has passed on.
func (n *Node) takeSpoken(tunnel string, packet []byte, passed byte) {
	x := n.devices.ofTunnel(tunnel)
	if _, spoken := n.sessions.Load().holds[tunnel]; x == nil || spoken && isBFD(packet) {
		n.takeBFD(tunnel, packet, passed)
		return
	}
	n.toDevice(x, packet, passed)
}

// isBFD reports whether a packet is to a port of BFD.
func isBFD(packet []byte) bool {
	if !isUDP(packet) {
		return false
	}
	udp := wire.IPv6Len
	if packet[0]>>4 == 4 {
		udp = int(packet[0]&15) * 4
	}
	if len(packet) < udp+wire.UDPLen {
		return false
	}
	port := binary.BigEndian.Uint16(packet[udp+wire.UDPOffDstPort:])
	return port == bfd.PortSingle || port == bfd.PortMulti
}

// followAllTunnels has devices follow who speaks, and what paths allow.
func (n *Node) followAllTunnels() {
	n.devices.mu.Lock()
	defer n.devices.mu.Unlock()
	n.followTunnels()
}

// followTunnels is called with the lock held: a device is not closed meanwhile.
func (n *Node) followTunnels() {
	for _, x := range n.devices.now.Load().byTunnel {
		if speaker := n.prober.Speaker(x.tunnel); speaker != *x.speaker.Load() {
			x.speaker.Store(&speaker)
		}
		if mtu := x.fits(n.engine.Forwarding().PathMTU(x.id)); mtu != int(x.mtu.Load()) {
			if err := x.SetMTU(mtu); err != nil {
				n.log.Warn("packets of the host may be too large for a tunnel", "error", err)
				continue
			}
			x.mtu.Store(int64(mtu))
		}
	}
}

// fits is the MTU of a device whose tunnel's path carries so much; 0: it is not known.
func (x *device) fits(path int) int {
	if path == 0 || path >= x.most {
		return x.most
	}
	if len(x.addresses) > 1 { // what is less takes the device's IPv6 away; such packets are cut outside
		return max(path, wire.IPv6MinMTU)
	}
	return path
}

// repairDevices makes devices again that somebody has taken away, makes those that could not be made, and puts back what was taken from them.
func (n *Node) repairDevices() {
	n.repairAddresses()
	was, gone := n.devices.now.Load(), false
	for _, x := range was.byTunnel {
		gone = gone || x.Gone()
	}
	if !gone && len(was.missing) == 0 || !n.reloading.TryLock() {
		return
	}
	defer n.reloading.Unlock()
	c := n.Config()
	n.setDevices(c)
	if !gone && len(n.devices.now.Load().missing) == len(was.missing) {
		return
	}
	if err := n.routes.Apply(n.peered(c)); err != nil {
		n.log.Error("what is learned through a device that was made again is not known", "error", err)
		return
	}
	n.log.Warn("devices of tunnels were made that had been missing")
}

// repairAddresses puts addresses back that were taken from devices.
func (n *Node) repairAddresses() {
	n.devices.mu.Lock()
	defer n.devices.mu.Unlock()
	var all []*tun.Interface
	for _, x := range n.devices.now.Load().byTunnel {
		all = append(all, x.Interface)
	}
	repaired, err := tun.RepairInterfaces(all)
	for _, x := range repaired {
		n.log.Warn("a tunnel's device had lost addresses; they were put back", "device", x.Name())
	}
	if err != nil {
		n.log.Error("tunnels' devices may lack addresses", "error", err)
	}
}

// closeDevices takes all away.
func (n *Node) closeDevices() error {
	d := &n.devices
	if d.queue == nil {
		return nil
	}
	for _, x := range d.now.Load().byTunnel {
		x.Close()
	}
	d.running.Wait()
	return d.queue.Close()
}

// interfaceOf is how the device of a tunnel is; nil: it has none.
func (n *Node) interfaceOf(t *config.Tunnel, learned map[uint32]int) *api.KernelInterface {
	x := n.devices.ofTunnel(t.Name)
	if x == nil {
		if why := n.devices.now.Load().missing[t.Name]; why != "" {
			return &api.KernelInterface{Name: t.KernelInterface, Problem: why}
		}
		return nil
	}
	s := x.Stats()
	k := &api.KernelInterface{Name: x.Name(), Node: *x.speaker.Load(), MTU: int(x.mtu.Load()), Learned: learned[uint32(x.id)],
		ToKernel: s.ToKernel, FromKernel: s.FromKernel, Refused: s.Refused, Unsent: s.Unsent, PassedOn: x.passedOn.Load(), Lost: x.lost.Load()}
	if !x.Up() {
		k.Problem = "it is down: ip link set " + x.Name() + " up"
	}
	return k
}
