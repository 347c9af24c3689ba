package pipeline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
	"causeway/pipeline/fib"
	"causeway/pipeline/wire"
)

var allSuites = []esp.Suite{esp.AES128GCM16, esp.AES256GCM16, esp.ChaCha20Poly1305, esp.AES128SHA256, esp.AES256SHA256, esp.AES128SHA1,
	esp.AES256SHA1, esp.NullSHA256, esp.NullSHA1}

// TestESP: both directions, every suite, all combinations of families, with and without UDP and ESN.
func TestESP(t *testing.T) {
	for _, suite := range allSuites {
		for _, mode := range []string{"plain", "udp", "esn"} {
			t.Run(suite.String()+"/"+mode, func(t *testing.T) {
				families(t, func(t *testing.T, outer6, inner6 bool) {
					p := newESPPeer(t, espOptions{suite: suite, outer6: outer6, udp: mode == "udp", esn: mode == "esn", window: 64})
					b := newESPBed(t, 1, p.tunnel("cust-a"))
					for n := range 20 {
						up := udp(t, behind(inner6), inetHost(inner6), 30+n)
						out := b.send(p.seal(up))
						if len(out) != 1 || !bytes.Equal(out[0][14:], hop(t, up)) {
							t.Fatalf("to the Internet: %d frames; dropped: %v", len(out), b.dropped())
						}
						down := udp(t, inetHost(inner6), behind(inner6), 30+n)
						out = b.send(framed(down))
						if len(out) != 1 {
							t.Fatalf("to the customer: %d frames; dropped: %v", len(out), b.dropped())
						}
						if got := p.open(out[0]); !bytes.Equal(got, hop(t, down)) {
							t.Fatalf("to the customer: %x, want %x", got, hop(t, down))
						}
					}
					id, _ := b.engine.TunnelID("cust-a")
					if c := b.engine.TunnelCounters(id); c.RXPackets != 20 || c.TXPackets != 20 || c.RXDrops != 0 || c.TXDrops != 0 || c.RXBytes != c.TXBytes {
						t.Errorf("tunnel counters %+v", c)
					}
				})
			})
		}
	}
}

// TestESPSizes: the largest packet that the tunnel says it carries makes an outer packet of at most 1500 bytes, and one
// that is a byte larger is refused with that size.
func TestESPSizes(t *testing.T) {
	for _, suite := range allSuites {
		for _, udpEncap := range []bool{false, true} {
			families(t, func(t *testing.T, outer6, inner6 bool) {
				p := newESPPeer(t, espOptions{suite: suite, outer6: outer6, udp: udpEncap})
				s := p.tunnel("cust-a")
				b := newESPBed(t, 1, s)
				headers := 28
				if inner6 {
					headers = 48
				}
				fits := udp(t, inetHost(inner6), behind(inner6), s.MTU-headers, dontFragment)
				out := b.send(framed(fits))
				if len(out) != 1 || len(out[0])-14 > 1500 || len(out[0])-14 <= 1500-16 {
					t.Fatalf("%v, udp %v: %d frames, first of %d bytes; dropped: %v", suite, udpEncap, len(out), len(out[0])-14, b.dropped())
				}
				if got := p.open(out[0]); len(got) != s.MTU {
					t.Fatalf("%d bytes inside, want %d", len(got), s.MTU)
				}
				out = b.send(framed(udp(t, inetHost(inner6), behind(inner6), s.MTU-headers+1, dontFragment)))
				if len(out) != 1 || b.dropped()["too_big"] != 1 {
					t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
				}
				told := binary.BigEndian.Uint16(out[0][14+20+6:])
				if inner6 {
					told = binary.BigEndian.Uint16(out[0][14+40+6:])
				}
				if int(told) != s.MTU {
					t.Errorf("%v, udp %v: an mtu of %d is told, want %d", suite, udpEncap, told, s.MTU)
				}
			})
		}
	}
}

// TestESPFragments: what may be cut is cut before encryption, and each piece arrives.
func TestESPFragments(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES128GCM16})
	s := p.tunnel("cust-a")
	b := newESPBed(t, 1, s)
	whole := udp(t, inetHost4, behind4, 1450)
	out := b.send(framed(whole))
	if len(out) != 2 {
		t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
	}
	var data []byte
	for _, f := range out {
		data = append(data, p.open(f)[20:]...)
	}
	if !bytes.Equal(data, whole[20:]) {
		t.Error("the pieces are not the whole")
	}
}

// TestESPOuterFragments: an ESP packet that came in pieces is opened when it is whole.
func TestESPOuterFragments(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES256SHA256, window: 64})
	b := newESPBed(t, 1, p.tunnel("cust-a"))
	inner := udp(t, behind4, inetHost4, 900)
	var out [][]byte
	for _, f := range cutFrame(t, p.seal(inner), 400, 7) {
		out = append(out, b.send(f)...)
	}
	if len(out) != 1 || !bytes.Equal(out[0][14:], hop(t, inner)) {
		t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
	}
}

// TestESPReasons: each thing that can be wrong with an ESP packet has its reason, and none is forwarded.
func TestESPReasons(t *testing.T) {
	o := espOptions{suite: esp.AES128GCM16, window: 64}
	inner := udp(t, behind4, inetHost4, 60)
	other := netip.MustParseAddr("198.51.100.77")
	for name, c := range map[string]struct {
		change func(o *espOptions, s *TunnelSpec)
		frame  func(p *espPeer) []byte
		want   Reason
	}{
		"unknown spi": {frame: func(p *espPeer) []byte { return p.wrap(append([]byte{0, 0, 0x77, 0x77}, p.packet(inner)[4:]...)) }, want: ESPNoSA},
		"wrong outer source": {frame: func(p *espPeer) []byte {
			return p.wrap(p.packet(inner), func(l gopacket.SerializableLayer) { l.(*layers.IPv4).SrcIP = other.AsSlice() })
		}, want: ESPSource},
		"udp where there should be none": {frame: func(p *espPeer) []byte { p.udp = true; return p.seal(inner) }, want: ESPSource},
		"replayed": {frame: func(p *espPeer) []byte {
			f := p.seal(inner)
			return f
		}, want: ESPReplayed},
		"forged": {frame: func(p *espPeer) []byte {
			q := p.packet(inner)
			q[20] ^= 1
			return p.wrap(q)
		}, want: ESPForged},
		"cut":           {frame: func(p *espPeer) []byte { q := p.packet(inner); return p.wrap(q[:len(q)-4]) }, want: ESPForged},
		"cut to an odd": {frame: func(p *espPeer) []byte { q := p.packet(inner); return p.wrap(q[:len(q)-3]) }, want: ESPShort},
		"a header":      {frame: func(p *espPeer) []byte { return p.wrap(p.packet(inner)[:8]) }, want: ESPShort},
		"half a header": {frame: func(p *espPeer) []byte { return p.wrap(p.packet(inner)[:5]) }, want: ESPShort},
		"dummy":         {frame: func(p *espPeer) []byte { return p.wrap(p.packetOf(inner, esp.NoNextHeader)) }, want: ESPDummy},
		"no ip inside":  {frame: func(p *espPeer) []byte { return p.wrap(p.packetOf(inner, 6)) }, want: ESPProtocol},
		"ipv6 said, ipv4 inside": {frame: func(p *espPeer) []byte { return p.wrap(p.packetOf(inner, esp.NextIPv6)) },
			want: innerFault(wire.IPv6Version)},
		"selector": {change: func(_ *espOptions, s *TunnelSpec) { s.SA.Local = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} },
			frame: func(p *espPeer) []byte { return p.seal(inner) }, want: ESPSelector},
		"selector of the other side": {change: func(_ *espOptions, s *TunnelSpec) { s.SA.Remote = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} },
			frame: func(p *espPeer) []byte { return p.seal(inner) }, want: ESPSelector},
		"inner source": {frame: func(p *espPeer) []byte { return p.seal(udp(p.t, other, inetHost4, 60)) }, want: InnerSource},
	} {
		t.Run(name, func(t *testing.T) {
			p := newESPPeer(t, o)
			s := p.tunnel("cust-a")
			if c.change != nil {
				c.change(&o, &s)
			}
			b := newESPBed(t, 1, s)
			f := c.frame(p)
			if c.want == ESPReplayed {
				b.wantOne(f)
			}
			b.wantDrop(f, c.want)
			if n := p.node.Inbound[0].Refused(esp.Selector); n != 0 != (c.want == ESPSelector) {
				t.Errorf("the association counts %d outside of its selectors", n)
			}
			if c.change == nil {
				p.udp = false
				b.wantOne(p.seal(inner)) // and the association still works
			}
		})
	}
}

// TestESPTrafficFlow: what stands behind the end of the inner packet hides its length, and is cut off (RFC 4303 2.7).
func TestESPTrafficFlow(t *testing.T) {
	for _, inner6 := range []bool{false, true} {
		p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 64})
		b := newESPBed(t, 1, p.tunnel("cust-a"))
		inner, next := udp(t, behind(inner6), inetHost(inner6), 60), uint8(esp.NextIPv4)
		if inner6 {
			next = esp.NextIPv6
		}
		out := b.send(p.wrap(p.packetOf(append(bytes.Clone(inner), make([]byte, 300)...), next)))
		if len(out) != 1 || !bytes.Equal(out[0][14:], hop(t, inner)) {
			t.Errorf("%d frames; dropped: %v", len(out), b.dropped())
		}
	}
}

// TestESPAllocates nothing: a batch each way, with packets of several associations and algorithms.
func TestESPAllocates(t *testing.T) {
	var peers []*espPeer
	var tunnels []TunnelSpec
	for i, suite := range []esp.Suite{esp.AES128GCM16, esp.AES256GCM16, esp.ChaCha20Poly1305, esp.AES128SHA256} {
		p := newESPPeer(t, espOptions{suite: suite, spi: 0x1000 + uint32(i)*16}) // without a window the same packets are opened again and again
		peers = append(peers, p)
		tunnels = append(tunnels, p.tunnel(fmt.Sprintf("cust-%d", i), func(s *TunnelSpec) {
			s.Prefixes = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 24)}
			s.Interface4, s.Interface6 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, 0, byte(2 * i)}), 31), netip.Prefix{}
		}))
	}
	b := newESPBed(t, 1, tunnels...)
	var frames [][]byte
	for n := range BatchSize {
		inside := netip.AddrFrom4([4]byte{198, 18, byte(n % 4), 9})
		if n%8 < 4 {
			frames = append(frames, peers[n%4].seal(udp(t, inside, inetHost4, 40+n)))
		} else {
			frames = append(frames, framed(udp(t, inetHost4, inside, 40+n)))
		}
	}
	q := &loopQueue{umem: b.umem, frames: frames}
	w := b.engine.workers[0]
	w.queues[0].queue, w.ports[0].queue, w.queues[0].debt = q, q, 256
	for range 20 {
		w.poll()
	}
	if n := testing.AllocsPerRun(200, func() { w.poll() }); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
	c := b.engine.Total()
	if d := b.dropped(); len(d) > 0 || c.Decapsulated == 0 || c.Decapsulated != c.Encapsulated {
		t.Errorf("%d in and %d out; dropped: %v", c.Decapsulated, c.Encapsulated, d)
	}
}

// TestESPLeftOfWindow: a packet that comes after more than a window of others.
func TestESPLeftOfWindow(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 32})
	b := newESPBed(t, 1, p.tunnel("cust-a"))
	late := p.seal(udp(t, behind4, inetHost4, 60))
	for range 31 {
		b.wantOne(p.seal(udp(t, behind4, inetHost4, 60)))
	}
	inside := p.seal(udp(t, behind4, inetHost4, 60))
	b.wantOne(inside)
	b.wantDrop(late, ESPLeftOfWindow)
}

// TestESPSendingReasons: what keeps a packet from being sent.
func TestESPSendingReasons(t *testing.T) {
	down := framed(udp(t, inetHost4, behind4, 60))
	for want, change := range map[Reason]func(p *espPeer, b *bed){
		ESPNoOutbound: func(p *espPeer, b *bed) { p.node.Outbound = nil; b.apply() },
		ESPIVExhausted: func(_ *espPeer, b *bed) {
			source, err := esp.NewIVSource(3, 0)
			if err != nil {
				t.Fatal(err)
			}
			b.engine.workers[0].sealer = esp.NewSealer(source)
		},
		ESPSequenceNotReserved: func(p *espPeer, _ *bed) { p.node.Outbound.Mark(1) },
	} {
		t.Run(want.String(), func(t *testing.T) {
			p := newESPPeer(t, espOptions{suite: esp.AES128GCM16})
			b := newESPBed(t, 1, p.tunnel("cust-a"))
			change(p, b)
			b.wantDrop(down, want)
			id, _ := b.engine.TunnelID("cust-a")
			if c := b.engine.TunnelCounters(id); c.TXDrops != 1 || c.TXPackets != 0 {
				t.Errorf("tunnel counters %+v", c)
			}
		})
	}
	t.Run("lifetime", func(t *testing.T) {
		p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, life: esp.Life{HardPackets: 1}})
		b := newESPBed(t, 1, p.tunnel("cust-a"))
		b.wantOne(down)
		b.wantDrop(down, ESPOutboundExpired)
		up := p.seal(udp(t, behind4, inetHost4, 60))
		b.wantOne(up)
		b.wantDrop(up, ESPExpired)
	})
}

// TestESPOwner: with two workers each association has one, whichever queue its packets come by: a peer with a window of 64
// loses none, in either direction, and the packets of each flow stay in order.
func TestESPOwner(t *testing.T) {
	var peers []*espPeer
	var tunnels []TunnelSpec
	for i := range 4 {
		p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 64, spi: 0x1000 + uint32(i)*16})
		peers = append(peers, p)
		tunnels = append(tunnels, p.tunnel(fmt.Sprintf("cust-%d", i), func(s *TunnelSpec) {
			s.CustomerEndpoint = netip.AddrFrom4([4]byte{198, 51, 100, byte(10 + i)})
			s.Prefixes = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 24)}
			s.Interface4, s.Interface6 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, 0, byte(2 * i)}), 31), netip.Prefix{}
		}))
	}
	b := newESPBed(t, 2, tunnels...)
	rng := rand.New(rand.NewPCG(5, 5))
	const packets = 400
	foreign := uint64(0) // to a worker that does not own the association
	for n := range packets {
		i := rng.IntN(len(peers))
		inside := netip.AddrFrom4([4]byte{198, 18, byte(i), 9})
		up := udp(t, inside, inetHost4, 40+n%50)
		frame := peers[i].wrap(peers[i].packet(up), func(l gopacket.SerializableLayer) { l.(*layers.IPv4).SrcIP = []byte{198, 51, 100, byte(10 + i)} })
		for spi, frame := range map[uint32][]byte{peers[i].out.SPI(): frame, peers[i].in.SPI(): framed(udp(t, inetHost4, inside, 40+n%50))} {
			worker := rng.IntN(2)
			b.queues[worker][0].Put(frame)
			if worker != b.engine.OwnerOfSPI(spi) {
				foreign++
			}
		}
		if n%20 != 19 {
			continue
		}
		for _, out := range b.run() {
			d := decode(t, out).NetworkLayer().NetworkFlow().Dst()
			for i, p := range peers {
				if d.Raw()[3] == byte(10+i) && d.Raw()[0] == 198 {
					p.open(out)
				}
			}
		}
	}
	if d := b.dropped(); len(d) > 0 {
		t.Errorf("dropped: %v", d)
	}
	c := b.engine.Total()
	if c.Decapsulated != packets || c.Encapsulated != packets || c.HandedOver != foreign || foreign == 0 {
		t.Errorf("%d in, %d out of %d packets, %d handed over, want %d", c.Decapsulated, c.Encapsulated, packets, c.HandedOver, foreign)
	}
}

// TestESPLateral: from a GRE tunnel into an IPsec one, and back.
func TestESPLateral(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES256GCM16, window: 64})
	site := netip.MustParsePrefix("198.18.6.0/24")
	there := netip.MustParseAddr("198.18.6.9")
	b := newESPBed(t, 1, p.tunnel("cust-a"), tunnelSpec("cust-b", func(s *TunnelSpec) {
		s.CustomerEndpoint, s.Prefixes = netip.MustParseAddr("198.51.100.9"), []netip.Prefix{site}
		s.Interface4, s.Interface6 = netip.MustParsePrefix("10.213.0.20/31"), netip.Prefix{}
	}))
	inner := udp(t, there, behind4, 80)
	out := b.send(gre(t, inner, greHeader{src: netip.MustParseAddr("198.51.100.9"), dst: endpoint4}))
	if len(out) != 1 || !bytes.Equal(p.open(out[0]), hop(t, inner)) {
		t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
	}
	back := udp(t, behind4, there, 80)
	d := b.wantOne(p.seal(back))
	if g, ok := d.Layer(layers.LayerTypeGRE).(*layers.GRE); !ok || !bytes.Equal(g.Payload, hop(t, back)) {
		t.Errorf("not in GRE: %v", d)
	}
}

// TestESPOutboundSelectors: what lies outside of the selectors must not leave (RFC 4301 5.1), and what lies within does.
func TestESPOutboundSelectors(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		within, outside := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.0.0.0/8")
		if inner6 {
			within, outside = netip.MustParsePrefix("::/0"), netip.MustParsePrefix("fd00::/8")
		}
		down := framed(udp(t, inetHost(inner6), behind(inner6), 60))
		for _, c := range []struct {
			local, remote netip.Prefix
			ok            bool
		}{{within, within, true}, {outside, within, false}, {within, outside, false}} {
			p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, outer6: outer6})
			p.node.Local, p.node.Remote = []netip.Prefix{outside, c.local}, []netip.Prefix{c.remote}
			if !c.ok {
				p.node.Local = p.node.Local[1:]
			}
			b := newESPBed(t, 1, p.tunnel("cust-a"))
			if c.ok {
				b.wantOne(down)
			} else {
				b.wantDrop(down, ESPOutboundSelector)
				if n := p.node.Outbound.Refused(esp.Selector); n != 1 {
					t.Errorf("the association counts %d, want 1", n)
				}
			}
		}
	})
}

// TestESPFlowsKeepTheirWay: where equal-cost routes lead to the customer endpoint, all packets of a flow take the same one,
// by the fast way and by the general one and by either worker, and not all flows the same.
func TestESPFlowsKeepTheirWay(t *testing.T) {
	for _, o := range []espOptions{{suite: esp.AES128GCM16}, {suite: esp.AES128GCM16, outer6: true}, {suite: esp.AES128SHA256, outer6: true, udp: true}} {
		p := newESPPeer(t, o)
		b := newESPBed(t, 2, p.tunnel("cust-a"))
		other := [6]byte{2, 0, 0, 0, 9, 9}
		f := b.engine.Forwarding()
		f.SetNeighbour(otherSlot, 0, other, true)
		f.SetGroup(3, fib.NewGroup([]fib.Member{{Value: MakeLeaf(KindNeighbour, routerSlot), Weight: 1}, {Value: MakeLeaf(KindNeighbour, otherSlot), Weight: 1}}))
		id, _ := b.engine.TunnelID("cust-a")
		f.SetTunnelRoute(id, MakeLeaf(KindGroup, 3))
		ways := map[string]int{}
		for flow := range 32 {
			inner := udp(t, netip.AddrFrom4([4]byte{198, 51, 100, byte(flow)}), behind4, 60)
			way := ""
			for n := range 8 {
				b.queues[n%2][0].Put(framed(inner))
				out := b.run()
				if len(out) != 1 {
					t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
				}
				if to := string(out[0][:6]); way == "" {
					way = to
				} else if to != way {
					t.Fatalf("%+v: packets of flow %d go to %x and %x", o, flow, way, to)
				}
			}
			ways[way]++
		}
		if len(ways) != 2 {
			t.Errorf("%+v: the flows went %d ways", o, len(ways))
		}
	}
}

// TestESPKeepalive: the answer to a keepalive of GRE would leave as it came, in clear.
func TestESPKeepalive(t *testing.T) {
	p := newESPPeer(t, espOptions{suite: esp.AES128GCM16})
	b := newESPBed(t, 1, p.tunnel("cust-a"))
	b.wantDrop(p.seal(serialize(t, ip(endpoint4, customer4, layers.IPProtocolGRE), gopacket.Payload{0, 0, 0, 0})), InnerSource)
}

// TestESPTablesRefuse: an SPI is the receiver's alone.
func TestESPTablesRefuse(t *testing.T) {
	p, q := newESPPeer(t, espOptions{suite: esp.AES128GCM16}), newESPPeer(t, espOptions{suite: esp.AES128GCM16})
	b := newESPBed(t, 1, p.tunnel("cust-a"))
	b.spec.Tunnels = append(b.spec.Tunnels, q.tunnel("cust-b"))
	if err := b.engine.Apply(&b.spec); err == nil || err.Error() != "spi 0x1000 is that of two security associations" {
		t.Error(err)
	}
	b.spec.Tunnels = b.spec.Tunnels[:1]
}

// TestSPIIndex compares with a map, while associations come and go.
func TestSPIIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	v := aesgcm.NewVault(aesgcm.Options{Portable: true})
	for _, n := range []int{0, 1, 2, 3, 100, 1000} {
		var x spiIndex
		want := map[uint32]int32{}
		for i := range 10 * n {
			spi := 0x1000 + uint32(i%(n+1))
			if i%2 == 0 {
				spi = rng.Uint32N(1<<20)<<12 | 0x1000
			}
			if _, ok := want[spi]; ok {
				x.remove(spi)
				delete(want, spi)
				continue
			}
			if len(want) >= n {
				for spi := range want {
					x.remove(spi)
					delete(want, spi)
					break
				}
			}
			in, err := esp.NewInbound(v, esp.Params{SPI: spi, Suite: esp.NullSHA1, Key: make([]byte, 20)}, 0)
			if err != nil {
				t.Fatal(err)
			}
			want[spi] = int32(i + 1)
			x.add(&receiver{in, inboundSA{tunnel: int32(i + 1)}, new(inboundMore)})
			if i%100 != 0 {
				continue
			}
			for spi, tunnel := range want {
				if at := x.find(spi); at == noSA || x.list[at].tunnel != tunnel || x.in[at].SPI() != spi || x.more[at] == nil {
					t.Fatalf("%d of %d: spi %#x is not found", i, n, spi)
				}
			}
		}
		for spi, tunnel := range want {
			if at := x.find(spi); at == noSA || x.list[at].tunnel != tunnel {
				t.Errorf("spi %#x is not found", spi)
			}
		}
		for range 1000 {
			if spi := rng.Uint32(); x.find(spi) != noSA && want[spi] == 0 {
				t.Errorf("spi %#x is found", spi)
			}
		}
		if len(x.slots) > 4*n+8 || len(x.list) > n+1 {
			t.Errorf("%d associations at most: the table has room for %d in %d places", n, len(x.list), len(x.slots))
		}
	}
}

// TestESPLateralRoom: the largest packet that config lets into an IPsec tunnel has room behind it too when it came out of the
// tunnel with the largest headers (config.largestHeaders).
func TestESPLateralRoom(t *testing.T) {
	from := newESPPeer(t, espOptions{suite: esp.AES256SHA256, outer6: true, udp: true, window: 64})
	const most = 2048 - 304 - 18 - 72 - (15 + 2 + 16)
	site, there := netip.MustParsePrefix("198.18.6.0/24"), netip.MustParseAddr("198.18.6.9")
	into := newESPPeer(t, espOptions{suite: esp.AES256SHA256, spi: 0x2000, window: 64})
	b := newESPBed(t, 1, from.tunnel("cust-a"), into.tunnel("cust-b", func(s *TunnelSpec) {
		s.CustomerEndpoint, s.Prefixes = netip.MustParseAddr("198.51.100.9"), []netip.Prefix{site}
		s.Interface4, s.Interface6 = netip.MustParsePrefix("10.213.0.20/31"), netip.Prefix{}
	}))
	for i := range b.spec.Tunnels {
		b.spec.Tunnels[i].MTU = most
	}
	for i := range b.spec.Links {
		b.spec.Links[i].MTU = 1726
	}
	b.apply()
	inner := udp(t, behind4, there, most-28)
	out := b.send(from.seal(inner))
	if len(out) != 1 || !bytes.Equal(into.open(out[0]), hop(t, inner)) {
		t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
	}
}

// TestESPAnswersAreNotInClear: an ICMP error quotes what came encrypted. Where no route leads its source into the tunnel it
// does not leave, neither to the Internet nor by a tunnel that does not encrypt. Answers to GRE do.
func TestESPAnswersAreNotInClear(t *testing.T) {
	families(t, func(t *testing.T, _, inner6 bool) {
		dying := udp(t, behind(inner6), inetHost(inner6), 60, func(l gopacket.SerializableLayer) {
			switch ip := l.(type) {
			case *layers.IPv4:
				ip.TTL = 1
			case *layers.IPv6:
				ip.HopLimit = 1
			}
		})
		source := netip.PrefixFrom(behind(inner6), behind(inner6).BitLen())
		p := newESPPeer(t, espOptions{suite: esp.AES128GCM16})
		null := newESPPeer(t, espOptions{suite: esp.NullSHA256, spi: 0x5000})
		b := newESPBed(t, 1, p.tunnel("cust-a"), tunnelSpec("gre", func(s *TunnelSpec) {
			s.CustomerEndpoint = netip.MustParseAddr("192.0.2.77")
			s.Interface4, s.Interface6, s.Prefixes = netip.MustParsePrefix("10.213.0.20/31"), netip.MustParsePrefix("fd00:213::14/127"), nil
		}), null.tunnel("readable", func(s *TunnelSpec) {
			s.Interface4, s.Interface6, s.Prefixes = netip.MustParsePrefix("10.213.0.30/31"), netip.MustParsePrefix("fd00:213::1e/127"), nil
		}))
		p4 := b.send(p.seal(dying))
		if len(p4) != 1 || b.dropped()["esp_answer_in_clear"] != 0 {
			t.Fatalf("into the tunnel: %d frames; dropped: %v", len(p4), b.dropped())
		}
		other, _ := b.engine.TunnelID("gre")
		readable, _ := b.engine.TunnelID("readable")
		for n, way := range []Leaf{MakeLeaf(KindNeighbour, routerSlot), MakeLeaf(KindTunnel, other), MakeLeaf(KindTunnel, readable), MakeLeaf(KindKernel, 0)} {
			b.route("default", source, way)
			if out := b.send(p.seal(dying)); len(out) != 0 || b.dropped()["esp_answer_in_clear"] != uint64(n+1) {
				t.Fatalf("way %d: %x; dropped: %v", n, out, b.dropped())
			}
		}
		mute := newESPPeer(t, espOptions{suite: esp.AES128GCM16})
		mute.node.Outbound = nil
		m := newESPBed(t, 1, mute.tunnel("cust-a"))
		m.route("default", source, MakeLeaf(KindNeighbour, routerSlot))
		if out := m.send(mute.seal(dying)); len(out) != 0 || m.dropped()["esp_answer_in_clear"] != 1 {
			t.Fatalf("a tunnel that cannot send: %x; dropped: %v", out, m.dropped())
		}
		q := newBed(t, 1, tunnelSpec("cust-a"))
		q.route("default", source, MakeLeaf(KindNeighbour, routerSlot))
		if out := q.send(gre(t, dying, greHeader{})); len(out) != 1 {
			t.Fatalf("GRE: %d frames; dropped: %v", len(out), q.dropped())
		}
	})
}
