package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"causeway/pipeline/match"
	"causeway/pipeline/memport"
	"causeway/xsk"
)

// TestHandOverToPort: a worker without a queue of the port sends through one that has.
func TestHandOverToPort(t *testing.T) {
	b := newBed(t, 3, tunnelSpec("cust-a"))
	e := b.engine
	for i := range 2 { // workers 0 and 1 lose their queue of port 1
		w := e.workers[i]
		w.queues = w.queues[:1]
		w.ports[1].queue = nil
		b.queues[i] = b.queues[i][:1]
	}
	if err := e.connect(); err != nil {
		t.Fatal(err)
	}
	b.route("", netip.MustParsePrefix("192.0.2.0/24"), MakeLeaf(KindNeighbour, otherSlot))
	var frames [][]byte
	for i := range 200 {
		frames = append(frames, gre(t, udp(t, behind4, inetHost4, 20+i), greHeader{}))
	}
	out := b.send(frames...)
	if len(out) != len(frames) {
		t.Fatalf("%d frames left of %d; dropped %v", len(out), len(frames), b.dropped())
	}
	for i, f := range out {
		if len(f) != 14+28+20+i {
			t.Fatalf("frame %d has %d bytes: the order changed", i, len(f))
		}
	}
	if c := b.engine.Total(); c.HandedOver != 200 {
		t.Errorf("handed over %d frames, want 200", c.HandedOver)
	}
}

// TestSequenceOwner: however packets are spread over the workers, a tunnel's sequence numbers come from one counter.
func TestSequenceOwner(t *testing.T) {
	spec := tunnelSpec("cust-a", func(s *TunnelSpec) { s.Sequence, s.Checksum = true, true })
	b := newBed(t, 2, spec)
	for i := range 100 {
		b.queues[i%2][0].Put(framed(udp(t, inetHost4, behind4, 20+i)))
	}
	seen := map[uint32]bool{}
	for _, f := range b.run() {
		g := decode(t, f).Layer(layers.LayerTypeGRE).(*layers.GRE)
		if !g.SeqPresent || seen[g.Seq] || g.Seq >= 100 {
			t.Errorf("sequence number %d, present %v, seen before %v", g.Seq, g.SeqPresent, seen[g.Seq])
		}
		if naiveChecksum(append(bytes.Clone(g.Contents), g.Payload...)) != 0 {
			t.Errorf("wrong GRE checksum")
		}
		seen[g.Seq] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d packets left, want 100; dropped %v", len(seen), b.dropped())
	}
}

// TestHandOverFull: what does not fit the ring is dropped with a reason, and nothing leaks.
func TestHandOverFull(t *testing.T) {
	b := newBed(t, 2, tunnelSpec("cust-a", func(s *TunnelSpec) { s.Sequence = true }))
	for range 200 {
		b.queues[1][0].Put(framed(udp(t, inetHost4, behind4, 20)))
	}
	w := b.engine.workers[1]
	w.toward[0] = newRing[handover](64)
	b.engine.workers[0].from[1] = w.toward[0]
	for w.poll() > 0 {
	}
	out := b.run()
	if got := b.engine.Total().Dropped[HandOverFull]; len(out) != 64 || got != 136 {
		t.Errorf("%d left and %d dropped, want 64 and 136", len(out), got)
	}
}

// TestTXRingFull: a port that takes nothing drops with a reason, and goes on when it takes frames again.
func TestTXRingFull(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	q := b.queues[0][0]
	q.TXRoom, q.HoldFrames = 10, true
	var frames [][]byte
	for range 30 {
		frames = append(frames, framed(udp(t, inetHost4, behind4, 20)))
	}
	if out := b.send(frames...); len(out) != 10 || b.engine.Total().Dropped[TXRingFull] != 20 {
		t.Errorf("%d left, dropped %v", len(out), b.dropped())
	}
	q.TXRoom, q.HoldFrames = 0, false
	b.run()
	if out := b.send(frames...); len(out) != 30 {
		t.Errorf("%d of 30 left afterwards, dropped %v", len(out), b.dropped())
	}
}

// TestReload changes tunnels under traffic: those that stay lose nothing and keep their counters, a new tunnel of a
// name that was used before starts at zero.
func TestReload(t *testing.T) {
	stays := tunnelSpec("stays")
	goes := tunnelSpec("goes", func(s *TunnelSpec) {
		s.CustomerEndpoint = netip.MustParseAddr("198.51.100.77")
		s.Interface4, s.Interface6 = netip.MustParsePrefix("10.213.0.20/31"), netip.Prefix{}
		s.Prefixes = []netip.Prefix{netip.MustParsePrefix("198.18.77.0/24")}
	})
	b := newBed(t, 1, stays, goes)
	inner := udp(t, behind4, inetHost4, 30)
	other := udp(t, netip.MustParseAddr("198.18.77.1"), inetHost4, 30)
	b.wantOne(gre(t, inner, greHeader{}))
	b.wantOne(gre(t, other, greHeader{src: goes.CustomerEndpoint, dst: endpoint4}))
	goneID, _ := b.engine.TunnelID("goes")

	b.spec.Tunnels = []TunnelSpec{stays}
	b.apply()
	b.wantDrop(gre(t, other, greHeader{src: goes.CustomerEndpoint, dst: endpoint4}), TunnelUnknown)
	// Its route is still there for a moment: packets to it must not reach a stranger.
	b.wantDrop(framed(udp(t, inetHost4, netip.MustParseAddr("198.18.77.1"), 30)), NoRoute)
	b.wantOne(gre(t, inner, greHeader{}))
	id, _ := b.engine.TunnelID("stays")
	if c := b.engine.TunnelCounters(id); c.RXPackets != 2 {
		t.Errorf("the tunnel that stays counts %+v", c)
	}
	fresh := goes
	fresh.Name = "fresh"
	b.spec.Tunnels = []TunnelSpec{stays, fresh}
	b.apply()
	if id, _ := b.engine.TunnelID("fresh"); id != goneID || b.engine.TunnelCounters(id) != (TunnelCounters{}) {
		t.Errorf("tunnel %d counts %+v", id, b.engine.TunnelCounters(id))
	}
	if err := b.engine.Apply(&Spec{Links: []LinkSpec{{Port: 9}}}); err == nil {
		t.Error("a link of a port that is not there was accepted")
	}
	b.wantOne(gre(t, inner, greHeader{})) // the tables before are still in force
}

// TestConcurrentReload runs real worker goroutines while tables, routes and neighbours change, captures run and counters are read;
// it is for the race detector.
func TestConcurrentReload(t *testing.T) {
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 2, FramesPerPart: 1024, Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	var cfg EngineConfig
	cfg.UMEM, cfg.Ports = u, 1
	var sources []*endless
	for range 2 {
		q := &endless{Queue: memport.New(u, 256), frame: gre(t, udp(t, behind4, inetHost4, 64), greHeader{}), left: 20000}
		sources = append(sources, q)
		cfg.Workers = append(cfg.Workers, WorkerConfig{CPU: -1, Queues: []QueueConfig{{Port: 0, Queue: q, FillSize: 256}},
			Wait: func(d time.Duration) { time.Sleep(min(d, 100*time.Microsecond)) }})
	}
	e, err := NewEngine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	spec := Spec{Endpoints: []netip.Addr{endpoint4}, Tunnels: []TunnelSpec{tunnelSpec("cust-a")}, Links: []LinkSpec{{Port: 0, MAC: nodeMAC, MTU: 1500}}}
	if err := e.Apply(&spec); err != nil {
		t.Fatal(err)
	}
	f := e.Forwarding()
	f.SetNeighbour(0, 0, routerMAC, true)
	internet, _ := e.VRF("")
	if err := internet.V4.Insert(netip.MustParsePrefix("0.0.0.0/0"), MakeLeaf(KindNeighbour, 0)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	shown := 0
	show := func(_ time.Time, s *Captured) bool {
		if name, account := e.Names(s.In); name == "cust-a" && account == "default" && s.Verdict == Forwarded && bytes.Equal(s.Inner()[:20], sources[0].frame[38:58]) {
			shown++
		}
		return true
	}
	for i := 0; sources[0].more() || sources[1].more(); i++ {
		if i%8 == 0 {
			c, err := e.StartCapture(new(match.Program))
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				time.Sleep(time.Millisecond)
				c.Drain(show)
			}
			c.Stop()
			c.Drain(show)
			if n := c.Counts(); n.Matched < n.Looked {
				t.Errorf("%+v", n)
			}
		}
		spec.Tunnels = append(spec.Tunnels[:1], tunnelSpec(fmt.Sprint("extra", i%3), func(s *TunnelSpec) { s.CustomerEndpoint = netip.MustParseAddr("198.51.100.99") }))
		if err := e.Apply(&spec); err != nil {
			t.Fatal(err)
		}
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
		if err := internet.V4.Insert(p, MakeLeaf(KindNeighbour, 0)); err != nil {
			t.Fatal(err)
		}
		internet.V4.Delete(p)
		f.SetNeighbour(1+i%3, 0, routerMAC, i%2 == 0)
		e.Reclaim()
		e.Total()
		e.ResolveRequests(func(ResolveRequest) {})
	}
	cancel()
	wg.Wait()
	c := e.Total()
	if shown == 0 {
		t.Error("no packet was captured")
	}
	if in, out := c.Balance(); in != out || c.Received != 40000 || c.Forwarded != 40000 {
		t.Errorf("in %d, out %d: %+v", in, out, c)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

// endless receives the same frame a number of times.
type endless struct {
	*memport.Queue
	frame []byte
	mu    sync.Mutex
	left  int
}

func (q *endless) more() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.left > 0
}

func (q *endless) Receive(d []xsk.Desc) int {
	q.mu.Lock()
	n := min(q.left, len(d)/2)
	q.mu.Unlock()
	for range n {
		q.Put(q.frame)
	}
	got := q.Queue.Receive(d)
	q.mu.Lock()
	q.left -= n
	q.mu.Unlock()
	q.Take()
	return got
}

// TestVLAN: one tag in is taken off, and a link on a VLAN puts its own on.
func TestVLAN(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	b.spec.Links = append(b.spec.Links, LinkSpec{Port: 1, VLAN: 77, MAC: nodeMAC, MTU: 1500})
	b.apply()
	b.engine.Forwarding().SetNeighbour(5, 2, routerMAC, true)
	b.route("", netip.MustParsePrefix("192.0.2.0/24"), MakeLeaf(KindNeighbour, 5))
	inner := udp(t, behind4, inetHost4, 30)
	plain := gre(t, inner, greHeader{})
	tagged := append(append(append([]byte{}, plain[:12]...), 0x81, 0, 0x20, 5), plain[12:]...)
	p := b.wantOne(tagged)
	tag, ok := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q)
	if !ok || tag.VLANIdentifier != 77 || !bytes.Equal(tag.Payload, hop(t, inner)) {
		t.Errorf("got %v", p)
	}
	// And encapsulated, toward a customer behind the VLAN.
	id, _ := b.engine.TunnelID("cust-a")
	b.engine.Forwarding().SetTunnelRoute(id, MakeLeaf(KindNeighbour, 5))
	p = b.wantOne(framed(udp(t, inetHost4, behind4, 30)))
	if p.Layer(layers.LayerTypeDot1Q) == nil || p.Layer(layers.LayerTypeGRE) == nil {
		t.Errorf("got %v", p)
	}
}

// TestPuntAndInject: packets for the host leave by the queue to the TUN device, and the kernel's own come in by it.
func TestPuntAndInject(t *testing.T) {
	spec := tunnelSpec("cust-a")
	b := newBed(t, 1, spec)
	b.route("", netip.MustParsePrefix("192.0.2.1/32"), MakeLeaf(KindKernel, 0))
	b.route("", netip.PrefixFrom(endpoint4, 32), MakeLeaf(KindKernel, 0))
	b.route("", netip.PrefixFrom(endpoint6, 128), MakeLeaf(KindKernel, 0))
	// What comes out of a tunnel reaches the host at an endpoint only.
	b.wantDrop(gre(t, udp(t, behind4, netip.MustParseAddr("192.0.2.1"), 30), greHeader{}), HostAddress)
	inner := udp(t, behind4, endpoint4, 30)
	if out := b.send(gre(t, inner, greHeader{})); len(out) != 0 {
		t.Fatalf("%d frames left", len(out))
	}
	var got [][]byte
	b.punt.Wait(1000)
	b.punt.Drain(func(p []byte) { got = append(got, bytes.Clone(p)) })
	if len(got) != 1 || !bytes.Equal(got[0], inner) {
		t.Errorf("the kernel gets %x, want %x", got, inner)
	}
	for i := range 70 {
		b.send(gre(t, udp(t, behind4, endpoint4, i), greHeader{}))
	}
	if c := b.engine.Total(); c.Punted != 65 || c.Dropped[PuntQueueFull] != 6 {
		t.Errorf("punted %d, dropped %v", c.Punted, b.dropped())
	}
	own := udp(t, netip.MustParseAddr("192.0.2.1"), behind4, 40)
	if !b.punt.Inject(own) || !b.punt.Inject([]byte{0x45}) || b.punt.Inject(make([]byte, 3000)) {
		t.Error("inject")
	}
	out := b.run()
	if len(out) != 1 {
		t.Fatalf("%d frames left; dropped %v", len(out), b.dropped())
	}
	checkEncap(t, decode(t, out[0]), &spec, hop(t, own), 0)
	if c := b.engine.Total(); c.Injected != 2 || c.Originated != 2 {
		t.Errorf("counters %+v", c)
	}
	b.punt.Drain(func([]byte) {})
	b.send(gre(t, udp(t, behind6, endpoint6, 30), greHeader{}))
	if n := b.punt.Drain(func([]byte) {}); n != 1 {
		t.Errorf("the kernel got %d packets for the IPv6 endpoint, want 1", n)
	}
	b.punt.Inject(udp(t, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.1"), 40))
	if b.run(); b.engine.Total().Dropped[HostLoop] != 1 {
		t.Errorf("what the kernel sent to itself went back to it: %v", b.dropped())
	}
}

// TestForAnotherHost: frames for another link address are nobody's business here.
func TestForAnotherHost(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	for _, frame := range [][]byte{framed(udp(t, inetHost4, behind4, 30)), framed(udp(t, inetHost6, behind6, 30)), gre(t, udp(t, behind4, inetHost4, 30), greHeader{})} {
		frame[5] ^= 1
		b.wantDrop(frame, LinkAddress)
	}
}

// TestHostThroughTunnels: what the host itself sends and receives through tunnels is clamped, and it hears of packets
// that are too big, as any other source does.
func TestHostThroughTunnels(t *testing.T) {
	host := endpoint4
	b := newBed(t, 1, tunnelSpec("cust-a"))
	b.route("", netip.PrefixFrom(host, 32), MakeLeaf(KindKernel, 0))
	toKernel := func() (packets [][]byte) {
		b.punt.Drain(func(p []byte) { packets = append(packets, bytes.Clone(p)) })
		return packets
	}
	b.punt.Inject(syn(t, host, behind4, 1460, 2))
	out := b.run()
	if len(out) != 1 || mssOf(t, decode(t, out[0]).Layer(layers.LayerTypeGRE).(*layers.GRE).Payload) != 1436 {
		t.Errorf("%d frames left; a SYN of the host's is not clamped; dropped %v", len(out), b.dropped())
	}
	b.send(gre(t, syn(t, behind4, host, 1460, 18), greHeader{}))
	if got := toKernel(); len(got) != 1 || mssOf(t, got[0]) != 1436 {
		t.Errorf("the kernel got %d packets; a SYN for the host is not clamped", len(got))
	}
	big := udp(t, host, behind4, 1472, dontFragment)
	b.punt.Inject(big)
	if out := b.run(); len(out) != 0 {
		t.Errorf("%d frames left, want none", len(out))
	}
	got := toKernel()
	if len(got) != 1 {
		t.Fatalf("the kernel got %d packets, want one error; dropped %v", len(got), b.dropped())
	}
	if mtu := mtuOf(t, decode(t, framed(got[0]))); mtu != 1476 {
		t.Errorf("the error says MTU %d, want 1476", mtu)
	}
}

func TestUnresolvedNeighbour(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	f := b.engine.Forwarding()
	f.SetNeighbour(7, 0, [6]byte{}, false)
	b.route("", netip.MustParsePrefix("192.0.2.0/25"), MakeLeaf(KindNeighbour, 7))
	b.route("", netip.MustParsePrefix("192.0.2.128/25"), MakeLeaf(KindGlean, 1))
	b.wantDrop(gre(t, udp(t, behind4, inetHost4, 30), greHeader{}), NeighbourUnresolved)
	b.wantDrop(gre(t, udp(t, behind4, netip.MustParseAddr("192.0.2.200"), 30), greHeader{}), NeighbourUnresolved)
	var asked []ResolveRequest
	b.engine.ResolveRequests(func(r ResolveRequest) { asked = append(asked, r) })
	want := []ResolveRequest{{Slot: 7}, {Link: 1, Addr: netip.MustParseAddr("192.0.2.200"), Slot: -1}}
	if fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
}

// TestRouteReasons: no route, blackhole and prohibit, with the errors that belong to them.
func TestRouteReasons(t *testing.T) {
	for _, inner6 := range []bool{false, true} {
		b := newBed(t, 1, tunnelSpec("cust-a"))
		v, _ := b.engine.VRF("")
		v.V4.Delete(netip.MustParsePrefix("0.0.0.0/0"))
		v.V6.Delete(netip.MustParsePrefix("::/0"))
		frame := gre(t, udp(t, behind(inner6), inetHost(inner6), 30), greHeader{})
		code := func() (typ, code uint8) {
			t.Helper()
			g := b.wantOne(frame).Layer(layers.LayerTypeGRE).(*layers.GRE)
			if inner6 {
				return g.Payload[40], g.Payload[41]
			}
			return g.Payload[20], g.Payload[21]
		}
		wantType := uint8(3)
		if inner6 {
			wantType = 1
		}
		if typ, c := code(); typ != wantType || c != 0 || b.engine.Total().Dropped[NoRoute] != 1 {
			t.Errorf("no route: type %d code %d, %v", typ, c, b.dropped())
		}
		host := netip.PrefixFrom(inetHost(inner6), inetHost(inner6).BitLen())
		b.route("", host, MakeLeaf(KindBlackhole, 0))
		b.wantDrop(frame, RouteBlackhole)
		b.route("", host, MakeLeaf(KindUnreachable, 0))
		want := map[bool]uint8{false: 13, true: 1}[inner6]
		if typ, c := code(); typ != wantType || c != want || b.engine.Total().Dropped[RouteUnreachable] != 1 {
			t.Errorf("prohibited: type %d code %d, %v", typ, c, b.dropped())
		}
	}
}

// TestRing checks the ring between workers against a queue of what was shown and one of what was not.
func TestRing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	r := newRing[uint64](8)
	var shown, added []uint64
	for i := range uint64(100000) {
		switch rng.IntN(5) {
		case 0:
			if r.push(i) != (len(shown)+len(added) < 8) {
				t.Fatalf("push at length %d and %d", len(shown), len(added))
			}
			if len(shown)+len(added) < 8 {
				added = append(added, i)
			}
			shown, added = append(shown, added...), nil
		case 1, 2:
			if r.add(i) != (len(shown)+len(added) < 8) {
				t.Fatalf("add at length %d and %d", len(shown), len(added))
			}
			if len(shown)+len(added) < 8 {
				added = append(added, i)
			}
			if rng.IntN(3) == 0 {
				r.show()
				shown, added = append(shown, added...), nil
			}
		case 3:
			v := r.front()
			if v == nil != (len(shown) == 0) {
				t.Fatalf("front at length %d", len(shown))
			}
			if v != nil {
				if *v != shown[0] {
					t.Fatalf("got %d, want %d", *v, shown[0])
				}
				r.pop()
				shown = shown[1:]
			}
		case 4:
			var out [3]uint64
			n := r.take(out[:])
			if n != min(len(shown), 3) || !slices.Equal(out[:n], shown[:n]) {
				t.Fatalf("took %v of %v", out[:n], shown)
			}
			shown = shown[n:]
		}
		if r.len() != len(shown) {
			t.Fatalf("length %d, want %d", r.len(), len(shown))
		}
	}
}
