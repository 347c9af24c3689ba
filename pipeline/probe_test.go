package pipeline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/crypto/esp"
)

// echo is an ICMP echo request or reply.
func echo(t testing.TB, reply bool, src, dst netip.Addr, payload []byte) []byte {
	if src.Is6() {
		kind := layers.ICMPv6TypeEchoRequest
		if reply {
			kind = layers.ICMPv6TypeEchoReply
		}
		l3 := ip(src, dst, layers.IPProtocolICMPv6)
		l4 := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(uint8(kind), 0)}
		setNetwork(t, l4, l3)
		return serialize(t, l3, l4, &layers.ICMPv6Echo{Identifier: 9, SeqNumber: 3}, gopacket.Payload(payload))
	}
	kind := layers.ICMPv4TypeEchoRequest
	if reply {
		kind = layers.ICMPv4TypeEchoReply
	}
	return serialize(t, ip(src, dst, layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(uint8(kind), 0), Id: 9, Seq: 3}, gopacket.Payload(payload))
}

func probePayload() []byte {
	return append(binary.BigEndian.AppendUint32(nil, ProbeMagic), bytes.Repeat([]byte{7}, 44)...)
}

// answers are the packets that came back for the control side.
func (b *bed) answers() (list [][]byte) {
	b.probes.Drain(func(_ int, p []byte) { list = append(list, bytes.Clone(p)) })
	return list
}

// A probe goes into its tunnel as it is, whatever the routes say, and what comes back is the control side's.
func TestProbes(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		for _, workers := range []int{1, 2} {
			spec := tunnelOver(outer6)
			b := newBed(t, workers, spec)
			own, peer := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
			if inner6 {
				own, peer = spec.Interface6.Addr(), spec.Interface6.Addr().Next()
			}
			id, _ := b.engine.TunnelID(spec.Name)
			b.route(spec.Account, netip.PrefixFrom(peer, peer.BitLen()), MakeLeaf(KindBlackhole, 0))
			probe := echo(t, false, own, peer, probePayload())
			if !b.probes.Send(id, probe) {
				t.Fatal("there is no room")
			}
			out := arrived(b.run())
			if len(out) != 1 {
				t.Fatalf("%d frames leave; %v", len(out), b.dropped())
			}
			g := gopacket.NewPacket(out[0], layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeGRE).(*layers.GRE)
			if !bytes.Equal(g.Payload, probe) {
				t.Errorf("the probe\ngot  %x\nwant %x", g.Payload, probe)
			}
			answer := echo(t, true, peer, own, probePayload())
			if out := b.send(gre(t, answer, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)})); len(out) != 0 {
				t.Errorf("%d frames leave for an answer", len(out))
			}
			if got := b.answers(); len(got) != 1 || !bytes.Equal(got[0], answer) {
				t.Errorf("answers: %x; %v", got, b.dropped())
			}
			self := echo(t, true, own, own, probePayload()) // one that a router has brought back
			b.send(gre(t, self, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)}))
			if got := b.answers(); len(got) != 1 || !bytes.Equal(got[0], self) {
				t.Errorf("answers: %x; %v", got, b.dropped())
			}
			if c := b.engine.Total(); c.Originated != 1 || c.Punted != 2 || c.Forwarded != 1 {
				t.Errorf("%+v", c)
			}
		}
	})
}

// What comes back by the Internet, to the endpoint, is the control side's too; what only looks like it is the kernel's.
func TestProbesOneWay(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		spec := tunnelOver(outer6)
		b := newBed(t, 1, spec)
		id, _ := b.engine.TunnelID(spec.Name)
		own, customer := endpointOf(inner6), customerOf(inner6)
		b.route("", netip.PrefixFrom(own, own.BitLen()), MakeLeaf(KindKernel, 0))
		if outer6 == inner6 { // the probe is to the customer's end of the tunnel, out of it
			probe := echo(t, false, own, customer, probePayload())
			b.probes.Send(id, probe)
			if out := arrived(b.run()); len(out) != 1 || !bytes.Equal(gopacket.NewPacket(out[0], layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeGRE).(*layers.GRE).Payload, probe) {
				t.Errorf("leaves: %x; %v", out, b.dropped())
			}
		}
		for what, answer := range map[string][]byte{
			"the customer's":      echo(t, true, customer, own, probePayload()),
			"one brought back":    echo(t, true, own, own, probePayload()),
			"one from a loopback": echo(t, true, map[bool]netip.Addr{false: inetHost4, true: inetHost6}[inner6], own, probePayload()),
		} {
			b.send(framed(answer))
			if got := b.answers(); len(got) != 1 || !bytes.Equal(got[0], answer) {
				t.Errorf("%s: %x; %v", what, got, b.dropped())
			}
		}
		punted := b.engine.Total().Punted
		other := probePayload()
		other[3]++
		b.send(framed(echo(t, true, customer, own, other)))
		b.send(framed(echo(t, false, customer, own, probePayload())))
		if got := b.answers(); len(got) > 0 {
			t.Errorf("taken for answers: %x", got)
		}
		if n := b.engine.Total().Punted - punted; n != 2 {
			t.Errorf("%d packets are given to the kernel; %v", n, b.dropped())
		}
	})
}

// What is no answer to a probe is not one: an echo request is answered, the rest is dropped as ever.
func TestNoProbes(t *testing.T) {
	spec := tunnelSpec("cust-a")
	b := newBed(t, 1, spec)
	own, peer := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
	other := probePayload()
	other[0]++
	for what, inner := range map[string][]byte{
		"another payload": echo(t, true, peer, own, other),
		"a short payload": echo(t, true, peer, own, probePayload()[:3]),
		"no ICMP":         udp(t, peer, own, 30),
	} {
		b.wantDrop(gre(t, inner, greHeader{}), TunnelAddressProtocol)
		if got := b.answers(); len(got) > 0 {
			t.Errorf("%s is taken for an answer", what)
		}
	}
	b.wantOne(gre(t, echo(t, false, peer, own, probePayload()), greHeader{}))
	if got := b.answers(); len(got) > 0 {
		t.Error("a request is taken for an answer")
	}
	elsewhere := echo(t, true, peer, inetHost4, probePayload()) // not for us
	b.wantDrop(gre(t, elsewhere, greHeader{}), InnerSource)
	for range 65 {
		b.send(gre(t, echo(t, true, peer, own, probePayload()), greHeader{}))
	}
	if got := b.answers(); len(got) != 64 || b.dropped()["punt_queue_full"] != 1 {
		t.Errorf("%d answers wait; %v", len(got), b.dropped())
	}
}

// What is for BFD is the control side's, with the tunnel that it came out of; other UDP is dropped. Who sends too much takes nothing from
// other tunnels.
func TestBFD(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		spec := tunnelOver(outer6)
		b := newBed(t, 1, spec)
		own, peer := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
		if inner6 {
			own, peer = spec.Interface6.Addr(), spec.Interface6.Addr().Next()
		}
		id, _ := b.engine.TunnelID(spec.Name)
		to := func(port uint16) []byte {
			packet := udp(t, peer, own, 24)
			binary.BigEndian.PutUint16(packet[len(packet)-24-6:], port)
			return gre(t, packet, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)})
		}
		for _, port := range []uint16{3784, 4784} {
			b.send(to(port))
			n := 0
			b.probes.Drain(func(tunnel int, packet []byte) {
				if n++; tunnel != id || len(packet) < 52 {
					t.Errorf("%x of tunnel %d", packet, tunnel)
				}
			})
			if n != 1 {
				t.Errorf("port %d: %d packets; %v", port, n, b.dropped())
			}
		}
		b.wantDrop(to(3785), TunnelAddressProtocol)
		now := 10 * time.Second // so the limit is whole again
		for range 300 {
			b.queues[0][0].Put(to(3784))
			b.engine.PollAt(0, now)
			b.answers()
		}
		if n := b.dropped()["answer_rate"]; n < 95 || n > 105 {
			t.Errorf("%d of 300 at one moment are too many; %v", n, b.dropped())
		}
	})
}

// A probe for a tunnel that is not there, or is none, is dropped with a reason.
func TestProbesDropped(t *testing.T) {
	spec := tunnelSpec("cust-a")
	b := newBed(t, 1, spec)
	id, _ := b.engine.TunnelID(spec.Name)
	own, peer := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
	good := echo(t, false, own, peer, probePayload())
	b.probes.Send(id+1, good)
	b.probes.Send(MaxTunnels+5, good)
	b.probes.Send(id, []byte{0x45})
	if out := b.run(); len(out) > 0 || b.dropped()["no_route"] != 2 {
		t.Errorf("%d frames leave; %v", len(out), b.dropped())
	}
	for range 64 {
		b.probes.Send(id, good)
	}
	if b.probes.Send(id, good) {
		t.Error("there is room for 65")
	}
	if out := b.run(); len(out) != 64 {
		t.Errorf("%d frames leave", len(out))
	}
}

// Probes of IPsec tunnels are sealed, by the worker that owns the association, and answers opened.
func TestProbesSealed(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			families(t, func(t *testing.T, outer6, inner6 bool) {
				peer := newESPPeer(t, espOptions{suite: esp.AES128GCM16, outer6: outer6, window: 64})
				spec := peer.tunnel("cust-a")
				b := newESPBed(t, workers, spec)
				id, _ := b.engine.TunnelID("cust-a")
				own, far := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
				if inner6 {
					own, far = spec.Interface6.Addr(), spec.Interface6.Addr().Next()
				}
				probe := echo(t, false, own, far, probePayload())
				b.probes.Send(id, probe)
				out := arrived(b.run())
				if len(out) != 1 {
					t.Fatalf("%d frames leave; %v", len(out), b.dropped())
				}
				if got := peer.open(out[0]); !bytes.Equal(got, probe) {
					t.Errorf("the probe\ngot  %x\nwant %x", got, probe)
				}
				answer := echo(t, true, far, own, probePayload())
				b.queues[workers-1][0].Put(peer.seal(answer))
				if out := b.run(); len(out) != 0 {
					t.Errorf("%d frames leave for an answer", len(out))
				}
				if got := b.answers(); len(got) != 1 || !bytes.Equal(got[0], answer) {
					t.Errorf("answers: %x; %v", got, b.dropped())
				}
			})
		})
	}
}

func TestProbesDoNotAllocate(t *testing.T) {
	spec := tunnelSpec("cust-a")
	b := newBed(t, 1, spec)
	id, _ := b.engine.TunnelID(spec.Name)
	own, peer := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
	probe := echo(t, false, own, peer, probePayload())
	w := b.engine.workers[0]
	q := &loopQueue{umem: b.umem}
	w.queues[0].queue, w.ports[0].queue = q, q
	if n := testing.AllocsPerRun(200, func() { b.probes.Send(id, probe); w.poll() }); n != 0 {
		t.Errorf("%v allocations for a probe", n)
	}
}
