package pipeline

import (
	"net/netip"
	"regexp"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/pipeline/memport"
	"causeway/xsk"
)

// TestReasonTable: every reason that can count has texts of its own, and labels are as metrics want them.
func TestReasonTable(t *testing.T) {
	label := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	seen := map[string]Reason{}
	for _, r := range AllReasons() {
		i := r.Info()
		if !label.MatchString(i.Label) || i.Sentence == "" || i.Stage == "" {
			t.Errorf("reason %d: %+v", r, i)
		}
		if other, ok := seen[i.Label]; ok {
			t.Errorf("reasons %d and %d share the label %q", r, other, i.Label)
		}
		seen[i.Label] = r
	}
	if Reason(Reasons).String() != "invalid" {
		t.Error("a number that is no reason has a label")
	}
}

// TestRareReasons provokes the drops that no other test does.
func TestRareReasons(t *testing.T) {
	inner := udp(t, inetHost4, behind4, 600)
	egress := gre(t, udp(t, behind4, inetHost4, 600), greHeader{})
	for name, f := range map[string]func(t *testing.T){
		"interface address, not an echo": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a"))
			own := b.spec.Tunnels[0].Interface4.Addr()
			b.wantDrop(gre(t, udp(t, own.Next(), own, 30), greHeader{}), TunnelAddressProtocol)
		},
		"tunnel without a way to its customer": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a"))
			id, _ := b.engine.TunnelID("cust-a")
			b.engine.Forwarding().SetTunnelRoute(id, 0)
			b.wantDrop(framed(inner), TunnelUnroutable)
			if c := b.engine.TunnelCounters(id); c.TXDrops != 1 || c.TXPackets != 0 {
				t.Errorf("tunnel counters %+v", c)
			}
		},
		"mtu too small for any fragment": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a", func(s *TunnelSpec) { s.MTU = 24 }))
			b.wantDrop(framed(inner), FragmentNotAllowed)
		},
		"no frame for a fragment": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a", func(s *TunnelSpec) { s.MTU = 576 }))
			b.run() // fills the fill rings
			w := b.engine.workers[0]
			taken := make([]uint64, w.pool.Len())
			taken = taken[:w.pool.Get(taken)]
			b.wantDrop(framed(inner), FragmentNoFrame)
			w.pool.Put(taken)
			if out := b.send(framed(inner)); len(out) != 2 {
				t.Errorf("with frames again %d pieces left", len(out))
			}
		},
		"no room in front of the packet": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a"))
			w := b.engine.workers[0]
			var one [1]uint64
			w.pool.Get(one[:])
			w.count.originated.add(1)
			p := packet{chunk: one[0], l3: 40, end: 100, tunnel: noTunnel}
			w.encap(b.engine.tables.Load(), &p, 0)
			if b.engine.Total().Dropped[FrameNoRoom] != 1 {
				t.Errorf("dropped %v", b.dropped())
			}
		},
		"two ends of one datagram": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a"))
			b.send(cutFrame(t, egress, 320, 7)[1]) // the last, which ends at 652
			b.wantDropAll(cutFrame(t, append(append([]byte{}, egress...), make([]byte, 400)...), 656, 7)[1], FragmentEnd, 2)
		},
		"seventeen fragments": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a"))
			b.send(cutFrame(t, egress, 8, 7)[:16]...)
			b.wantDropAll(cutFrame(t, egress, 8, 7)[16], FragmentTooMany, 17)
		},
		"more datagrams than may wait": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a"))
			for i := range 1024/8 + 5 {
				b.send(cutFrame(t, egress, 400, uint32(i))[0])
			}
			if c := b.engine.Total(); c.Dropped[FragmentTableFull] != 5 || c.Held != 128 {
				t.Errorf("held %d, dropped %v", c.Held, b.dropped())
			}
			b.wantOne(egress) // the frames that are left carry on
		},
		"esp on port 4500": func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a"))
			l3 := ip(customer4, endpoint4, layers.IPProtocolUDP)
			l4 := &layers.UDP{SrcPort: 4500, DstPort: 4500}
			setNetwork(t, l4, l3)
			b.wantDrop(framed(serialize(t, l3, l4, gopacket.Payload("\x00\x00\x10\x01\x00\x00\x00\x01"))), ESPNoSA)
			// IKE on that port is not ours: it goes where the endpoint's address leads, here to the router.
			b.wantOne(framed(serialize(t, l3, l4, gopacket.Payload("\x00\x00\x00\x00ike"))))
		},
		"no TUN device": func(t *testing.T) {
			u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: 1024, Debug: true})
			if err != nil {
				t.Fatal(err)
			}
			q := memport.New(u, 256)
			e, err := NewEngine(EngineConfig{UMEM: u, Ports: 1, Workers: []WorkerConfig{{CPU: -1, Queues: []QueueConfig{{Queue: q, FillSize: 256}}}}})
			if err != nil {
				t.Fatal(err)
			}
			v, _ := e.VRF("")
			if err := v.V4.Insert(netip.MustParsePrefix("0.0.0.0/0"), MakeLeaf(KindKernel, 0)); err != nil {
				t.Fatal(err)
			}
			q.Put(framed(inner))
			e.Poll(0)
			if e.Total().Dropped[PuntNoDevice] != 1 {
				t.Errorf("counters %+v", e.Total())
			}
		},
	} {
		t.Run(name, f)
	}
}

// TestErrorRate: ICMP errors stop when the bucket is empty, and go on as it fills (RFC 1812 4.3.2.8).
func TestErrorRate(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	w := b.engine.workers[0]
	expired := udp(t, inetHost4, behind4, 30, func(l gopacket.SerializableLayer) { l.(*layers.IPv4).TTL = 1 })
	// The clock stands still: all in one poll.
	frames := make([][]byte, BatchSize)
	for i := range frames {
		frames[i] = framed(expired)
	}
	sent := 0
	for range 5 {
		b.queues[0][0].Put(frames...)
		w.receive(b.engine.tables.Load(), &w.queues[0])
		w.flush()
		w.recycle()
		sent += len(b.queues[0][0].Take())
	}
	if sent != icmpBurst {
		t.Errorf("%d errors of %d packets at one moment, want %d", sent, 5*BatchSize, icmpBurst)
	}
	// What they have used up is not missing where a packet is too large.
	b.queues[0][0].Put(framed(udp(t, inetHost4, behind4, 1472, dontFragment)))
	w.receive(b.engine.tables.Load(), &w.queues[0])
	w.flush()
	w.recycle()
	if sent = len(b.queues[0][0].Take()); sent != 1 {
		t.Errorf("%d errors about a packet that is too large, want 1", sent)
	}
	w.now += 10 * 1_000_000
	b.queues[0][0].Put(frames...)
	w.receive(b.engine.tables.Load(), &w.queues[0])
	w.flush()
	w.recycle()
	if sent = len(b.queues[0][0].Take()); sent != 10 {
		t.Errorf("%d errors 10 ms later, want 10", sent)
	}
	if c := b.engine.Total(); c.ICMPErrors != icmpBurst+11 || c.ICMPSuppressed != 6*BatchSize-icmpBurst-10 || c.Dropped[TTLExceeded] != 6*BatchSize {
		t.Errorf("counters %+v", c)
	}
}

// TestEngineRefuses checks what NewEngine does not accept.
func TestEngineRefuses(t *testing.T) {
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: 1024})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	one := []WorkerConfig{{CPU: -1, Queues: []QueueConfig{{Queue: memport.New(u, 8), FillSize: 8}}}}
	for name, c := range map[string]EngineConfig{
		"no worker":            {UMEM: u, Ports: 1},
		"no port":              {UMEM: u, Workers: one},
		"a port without queue": {UMEM: u, Ports: 2, Workers: one},
	} {
		if _, err := NewEngine(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
