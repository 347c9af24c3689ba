package pipeline

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/pipeline/match"
	"causeway/pipeline/memport"
	"causeway/xsk"
)

// bed is a node in memory: an outside port (0) that Internet and customers share, and a second one (1), with the
// debugging allocator on.
type bed struct {
	t       testing.TB
	umem    *xsk.UMEM
	engine  *Engine
	queues  [][]*memport.Queue // [worker][port]
	spec    Spec
	punt    *PuntQueue
	nodes   *NodeQueue
	probes  *TunnelQueue
	devices *TunnelQueue
	samples sampleCount // where all is sampled

	capture    *Capture // where all is captured
	shownCount captureCount
}

var (
	nodeMAC    = [6]byte{2, 0, 0, 0, 0, 1}
	routerMAC  = [6]byte{2, 0, 0, 0, 0, 0xfe}
	endpoint4  = netip.MustParseAddr("203.0.113.1")
	endpoint6  = netip.MustParseAddr("2001:db8:ffff::1")
	customer4  = netip.MustParseAddr("198.51.100.2")
	customer6  = netip.MustParseAddr("2001:db8:c::2")
	inetHost4  = netip.MustParseAddr("192.0.2.10")
	inetHost6  = netip.MustParseAddr("2001:db8:2::10")
	behind4    = netip.MustParseAddr("198.18.5.10")
	behind6    = netip.MustParseAddr("2001:db8:5::10")
	prefix4    = netip.MustParsePrefix("198.18.5.0/24")
	prefix6    = netip.MustParsePrefix("2001:db8:5::/48")
	otherSlot  = 1
	routerSlot = 0
)

// tunnelSpec is a tunnel from customer to endpoint with both inner families.
func tunnelSpec(name string, change ...func(*TunnelSpec)) TunnelSpec {
	s := TunnelSpec{
		Name: name, Account: "default", Endpoint: endpoint4, CustomerEndpoint: customer4,
		Interface4: netip.MustParsePrefix("10.213.0.10/31"), Interface6: netip.MustParsePrefix("fd00:213::a/127"),
		MTU: 1476, PathMTU: true, TTL: 64, Prefixes: []netip.Prefix{prefix4, prefix6},
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func over6(s *TunnelSpec) { s.Endpoint, s.CustomerEndpoint, s.MTU = endpoint6, customer6, 1456 }

// newBed builds a node with the tunnels of spec routed as the control side would.
func newBed(t testing.TB, workers int, tunnels ...TunnelSpec) *bed {
	t.Helper()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: workers, FramesPerPart: 1024, Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, umem: u}
	b.punt, err = NewPuntQueue(workers, 64)
	if err != nil {
		t.Fatal(err)
	}
	if b.devices, err = NewTunnelQueue("devices", workers, 64); err != nil {
		t.Fatal(err)
	}
	if b.probes, err = NewTunnelQueue("probes", workers, 64); err != nil {
		t.Fatal(err)
	}
	if b.nodes, err = NewNodeQueue(workers, 64); err != nil {
		t.Fatal(err)
	}
	cfg := EngineConfig{UMEM: u, Ports: 2, Punt: b.punt, Nodes: b.nodes, Probes: b.probes, Devices: b.devices}
	for range workers {
		qs := []*memport.Queue{memport.New(u, 256), memport.New(u, 256)}
		b.queues = append(b.queues, qs)
		cfg.Workers = append(cfg.Workers, WorkerConfig{CPU: -1, Queues: []QueueConfig{
			{Port: 0, Queue: qs[0], FillSize: 256}, {Port: 1, Queue: qs[1], FillSize: 256},
		}})
	}
	if b.engine, err = NewEngine(cfg); err != nil {
		t.Fatal(err)
	}
	b.spec = Spec{
		Endpoints: []netip.Addr{endpoint4, endpoint6},
		Tunnels:   tunnels,
		Links:     []LinkSpec{{Port: 0, MAC: nodeMAC, MTU: 1600}, {Port: 1, MAC: nodeMAC, MTU: 1600}},
	}
	if everythingSampled {
		b.spec.Sampling = 1
	}
	b.apply()
	f := b.engine.Forwarding()
	f.SetNeighbour(routerSlot, 0, routerMAC, true)
	f.SetNeighbour(otherSlot, 1, routerMAC, true)
	b.route("", netip.MustParsePrefix("0.0.0.0/0"), MakeLeaf(KindNeighbour, routerSlot))
	b.route("", netip.MustParsePrefix("::/0"), MakeLeaf(KindNeighbour, routerSlot))
	if everythingCaptured {
		if b.capture, err = b.engine.StartCapture(new(match.Program)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		b.engine.settle()
		b.balanced()
		b.engine.Close()
		if err := errors.Join(b.punt.Close(), b.nodes.Close(), b.probes.Close()); err != nil {
			t.Error(err)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// apply publishes the spec and routes its tunnels.
func (b *bed) apply() {
	b.t.Helper()
	if err := b.engine.Apply(&b.spec); err != nil {
		b.t.Fatal(err)
	}
	f := b.engine.Forwarding()
	for _, s := range b.spec.Tunnels {
		id, _ := b.engine.TunnelID(s.Name)
		f.SetTunnelRoute(id, MakeLeaf(KindNeighbour, routerSlot))
		for _, p := range s.Prefixes {
			b.route(s.Account, p, MakeLeaf(KindTunnel, id))
			if !p.Addr().IsPrivate() {
				b.route("", p, MakeLeaf(KindTunnel, id))
			}
		}
		for _, i := range []netip.Prefix{s.Interface4, s.Interface6} {
			if i.IsValid() {
				b.route(s.Account, i.Masked(), MakeLeaf(KindTunnel, id))
				b.route(s.Account, netip.PrefixFrom(i.Addr(), i.Addr().BitLen()), MakeLeaf(KindTunnelAddress, id))
			}
		}
	}
}

func (b *bed) route(account string, p netip.Prefix, l Leaf) {
	b.t.Helper()
	v, ok := b.engine.VRF(account)
	if !ok {
		b.t.Fatalf("no account %q", account)
	}
	var err error
	if p.Addr().Is4() {
		err = v.V4.Insert(p, l)
	} else {
		err = v.V6.Insert(p, l)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// send puts frames into port 0 of worker 0, runs the workers until nothing moves, and returns what left.
func (b *bed) send(frames ...[]byte) [][]byte {
	b.queues[0][0].Put(frames...)
	return b.run()
}

func (b *bed) run() [][]byte {
	b.t.Helper()
	for quiet := 0; quiet < 3; {
		work := 0
		for _, w := range b.engine.workers {
			work += w.poll()
		}
		if quiet++; work > 0 {
			quiet = 0
		}
	}
	b.balanced()
	var out [][]byte
	for _, w := range b.queues {
		for _, q := range w {
			out = append(out, q.Take()...)
		}
	}
	return out
}

// balanced checks that every frame is accounted for.
func (b *bed) balanced() {
	b.t.Helper()
	c := b.engine.Total()
	if in, out := c.Balance(); in != out {
		b.t.Fatalf("frames are not accounted for: %d came in, %d are known: %+v", in, out, c)
	}
	if everythingSampled {
		b.sampled(&c)
	}
	if everythingCaptured {
		b.captured(&c)
	}
}

// dropped returns the reasons that have counted something, by label.
func (b *bed) dropped() map[string]uint64 {
	m := map[string]uint64{}
	c := b.engine.Total()
	for r, n := range c.Dropped {
		if n > 0 {
			m[Reason(r).String()] = n
		}
	}
	return m
}

// wantDrop sends one frame and demands that nothing leaves and that the reason counts one.
func (b *bed) wantDrop(frame []byte, r Reason) {
	b.t.Helper()
	before := b.engine.Total().Dropped[r]
	if out := b.send(frame); len(out) != 0 {
		b.t.Errorf("want drop %v, but %d frames left: %x", r, len(out), out[0])
	}
	if got := b.engine.Total().Dropped[r] - before; got != 1 {
		b.t.Errorf("want drop %v to count 1, it counts %d; counted: %v", r, got, b.dropped())
	}
}

// wantOne sends one frame and returns the one that leaves, decoded.
func (b *bed) wantOne(frame []byte) gopacket.Packet {
	b.t.Helper()
	out := b.send(frame)
	if len(out) != 1 {
		b.t.Fatalf("want one frame, got %d; dropped: %v", len(out), b.dropped())
	}
	return decode(b.t, out[0])
}

func decode(t testing.TB, frame []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("gopacket can not decode the frame: %v\n%x", e.Error(), frame)
	}
	return p
}

func ip(src, dst netip.Addr, proto layers.IPProtocol) gopacket.SerializableLayer {
	if src.Is4() {
		return &layers.IPv4{Version: 4, IHL: 5, TTL: 63, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), Id: 7}
	}
	return &layers.IPv6{Version: 6, HopLimit: 63, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func serialize(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// udp is an IP packet (no link header) with n bytes of payload.
func udp(t testing.TB, src, dst netip.Addr, n int, change ...func(gopacket.SerializableLayer)) []byte {
	t.Helper()
	l3 := ip(src, dst, layers.IPProtocolUDP)
	for _, f := range change {
		f(l3)
	}
	l4 := &layers.UDP{SrcPort: 1234, DstPort: 40000}
	setNetwork(t, l4, l3)
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return serialize(t, l3, l4, gopacket.Payload(data))
}

func setNetwork(t testing.TB, l4 interface {
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}, l3 gopacket.SerializableLayer) {
	t.Helper()
	if err := l4.SetNetworkLayerForChecksum(l3.(gopacket.NetworkLayer)); err != nil {
		t.Fatal(err)
	}
}

// framed puts the link header in front of an IP packet.
func framed(packet []byte) []byte {
	typ := []byte{8, 0}
	if packet[0]>>4 == 6 {
		typ = []byte{0x86, 0xdd}
	}
	f := append(append(append([]byte{}, nodeMAC[:]...), routerMAC[:]...), typ...)
	return append(f, packet...)
}

// greHeader is a GRE header for an inner packet.
type greHeader struct {
	key, seq *uint32
	checksum bool
	flags    uint16 // in addition
	proto    uint16
	spoilt   bool // checksum wrong
	src, dst netip.Addr
	outer    func(gopacket.SerializableLayer)
	cutOff   int // bytes missing at the end
}

// gre wraps an inner packet as a customer's router would, with a codec that is not ours apart from the checksum.
func gre(t testing.TB, inner []byte, h greHeader) []byte {
	t.Helper()
	flags, opts := h.flags, []byte(nil)
	if h.checksum {
		flags |= 0x8000
		opts = append(opts, 0, 0, 0, 0)
	}
	if h.key != nil {
		flags |= 0x2000
		opts = binary.BigEndian.AppendUint32(opts, *h.key)
	}
	if h.seq != nil {
		flags |= 0x1000
		opts = binary.BigEndian.AppendUint32(opts, *h.seq)
	}
	proto := h.proto
	if proto == 0 {
		proto = 0x0800
		if len(inner) > 0 && inner[0]>>4 == 6 {
			proto = 0x86dd
		}
	}
	g := binary.BigEndian.AppendUint16(nil, flags)
	g = binary.BigEndian.AppendUint16(g, proto)
	g = append(append(g, opts...), inner...)
	if h.checksum {
		binary.BigEndian.PutUint16(g[4:], naiveChecksum(g))
		if h.spoilt {
			g[4] ^= 1
		}
	}
	if !h.src.IsValid() {
		h.src, h.dst = customer4, endpoint4
	}
	l3 := ip(h.src, h.dst, layers.IPProtocolGRE)
	if h.outer != nil {
		h.outer(l3)
	}
	return framed(serialize(t, l3, gopacket.Payload(g[:len(g)-h.cutOff])))
}

// naiveChecksum is RFC 1071 as it is written.
func naiveChecksum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
