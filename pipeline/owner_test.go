package pipeline

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"

	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
)

// A pairBed is two nodes, each of which has the other as a peer, and one tunnel that one of them encrypts for.
type pairBed struct {
	t        testing.TB
	nodes    [2]*bed
	customer *espPeer // its associations are those of both nodes
	sender   [2]*esp.Outbound
}

var nodeAddresses = [2][2]netip.Addr{
	{netip.MustParseAddr("172.31.1.1"), netip.MustParseAddr("172.31.2.1")},
	{netip.MustParseAddr("2001:db8:31::1"), netip.MustParseAddr("2001:db8:32::1")},
}

func newPairBed(t testing.TB, workers int, customer espOptions, nodes6 bool) *pairBed {
	t.Helper()
	b := &pairBed{t: t, customer: newESPPeer(t, customer)}
	vault := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	t.Cleanup(func() { vault.Close() })
	family := 0
	if nodes6 {
		family = 1
	}
	addresses := nodeAddresses[family]
	params := func(from int) esp.Params {
		return esp.Params{SPI: 0xf0000001 + uint32(from), Suite: esp.AES256GCM16, Key: bytes.Repeat([]byte{byte(from + 1)}, esp.AES256GCM16.KeySize()), ESN: true}
	}
	for i := range b.nodes {
		in, err := esp.NewInbound(vault, params(1-i), customer.window)
		if err != nil {
			t.Fatal(err)
		}
		if b.sender[i], err = esp.NewOutbound(vault, params(i), 1); err != nil {
			t.Fatal(err)
		}
		b.sender[i].Mark(1 << 40)
		peer := TunnelSpec{Name: "node:other", Account: "default", Endpoint: addresses[i], CustomerEndpoint: addresses[1-i], MTU: 1500, Negotiated: true, Node: true}
		owned := b.customer.tunnel("cust-a", func(s *TunnelSpec) { s.SA, s.Negotiated, s.Owned = nil, true, true })
		n := newESPBed(t, workers, owned, peer)
		n.spec.Endpoints = append(n.spec.Endpoints, addresses[i])
		n.apply()
		b.nodes[i] = n
		b.must(n.engine.SetChildren("node:other", []SASpec{{Inbound: []*esp.Inbound{in}, Outbound: b.sender[i], Endpoint: addresses[i], Peer: netip.AddrPortFrom(addresses[1-i], 0)}}))
	}
	return b
}

func (b *pairBed) must(wait func() error) {
	b.t.Helper()
	if err := wait(); err != nil {
		b.t.Fatal(err)
	}
}

// ownedBy says at both nodes who encrypts, and gives that one what it needs.
func (b *pairBed) ownedBy(owner int) {
	b.t.Helper()
	child := b.customer.node
	child.Endpoint, child.Peer = endpointOf(b.customer.outer6), netip.AddrPortFrom(customerOf(b.customer.outer6), natTraversalPort)
	for i, n := range b.nodes {
		o := Owner{Via: "node:other"}
		if i == owner {
			o = Owner{Here: true}
			b.must(n.engine.SetChildren("cust-a", []SASpec{child}))
		}
		b.must(n.engine.SetOwner("cust-a", o))
	}
}

// arrived are frames as the router gives them to the other node.
func arrived(frames [][]byte) (list [][]byte) {
	for _, f := range frames {
		list = append(list, framed(f[14:]))
	}
	return list
}

// A packet that comes to the other node is the same at the customer as one that comes to the owner: one hop less, and once.
func TestForwardedToOwner(t *testing.T) {
	for _, nodes6 := range []bool{false, true} {
		for _, workers := range []int{1, 2, 3} {
			for _, udpEncap := range []bool{false, true} {
				t.Run(fmt.Sprintf("nodes over IPv6 %v, %d workers, UDP %v", nodes6, workers, udpEncap), func(t *testing.T) {
					b := newPairBed(t, workers, espOptions{suite: esp.AES128GCM16, udp: udpEncap, window: 64}, nodes6)
					b.ownedBy(1)
					for k, inner := range [][]byte{udp(t, inetHost4, behind4, 60), udp(t, inetHost6, behind6, 700), udp(t, inetHost4, behind4, 0), udp(t, inetHost4, behind4, 1300)} {
						b.nodes[0].queues[k%workers][0].Put(framed(inner))
						between := arrived(b.nodes[0].run())
						if len(between) != 1 {
							t.Fatalf("packet %d: %d frames between the nodes; %v", k, len(between), b.nodes[0].dropped())
						}
						if bytes.Contains(between[0], inner[28:]) && len(inner) > 60 {
							t.Error("it can be read between the nodes")
						}
						b.nodes[1].queues[(k+1)%workers][0].Put(between[0])
						out := b.nodes[1].run()
						if len(out) != 1 {
							t.Fatalf("packet %d: %d frames to the customer; %v", k, len(out), b.nodes[1].dropped())
						}
						if got := b.customer.open(out[0]); !bytes.Equal(got, hop(t, inner)) {
							t.Errorf("packet %d is not the one that came", k)
						}
						b.nodes[1].queues[0][0].Put(between[0]) // a second time
						if out := b.nodes[1].run(); len(out) != 0 || b.nodes[1].dropped()["esp_replayed"] != uint64(k+1) {
							t.Errorf("a copy gives %d frames; %v", len(out), b.nodes[1].dropped())
						}
					}
					sent, came := b.nodes[0].engine.Total(), b.nodes[1].engine.Total()
					if sent.ToOwner != 4 || came.FromNodes != 4 || came.ToOwner != 0 {
						t.Errorf("%d forwarded, %d came", sent.ToOwner, came.FromNodes)
					}
					if out := b.nodes[1].send(framed(udp(t, inetHost4, behind4, 60))); len(out) != 1 {
						t.Errorf("the owner sends %d frames of its own", len(out))
					} else {
						b.customer.open(out[0])
					}
				})
			}
		}
	}
}

// What was forwarded is not forwarded again, what has no owner is dropped, and only nodes forward.
func TestNotForwarded(t *testing.T) {
	b := newPairBed(t, 1, espOptions{suite: esp.AES128GCM16, window: 64}, false)
	inner := udp(t, inetHost4, behind4, 60)
	b.nodes[0].wantDrop(framed(inner), OwnerAway) // nobody has said who it is
	b.ownedBy(1)
	first := arrived(b.nodes[0].send(framed(inner)))
	b.ownedBy(0) // both think so: the packet is on its way
	b.must(b.nodes[1].engine.SetOwner("cust-a", Owner{Via: "node:other"}))
	if len(first) != 1 {
		t.Fatal("not forwarded")
	}
	b.nodes[1].wantDrop(first[0], OwnerLoop)
	b.must(b.nodes[1].engine.SetOwner("cust-a", Owner{}))
	b.nodes[1].wantDrop(framed(inner), OwnerAway)
	b.must(b.nodes[1].engine.SetOwner("cust-a", Owner{Via: "node:third"}))
	b.nodes[1].wantDrop(framed(inner), OwnerAway)
	if err := b.nodes[1].engine.SetOwner("cust-b", Owner{})(); err == nil {
		t.Error("a tunnel that is not there has an owner")
	}

	b.ownedBy(1)
	other := newPairBed(t, 1, espOptions{suite: esp.AES128GCM16, window: 64}, false)
	other.nodes[0].spec.Tunnels[0].Name = "cust-b"
	other.nodes[0].apply()
	b.must(other.nodes[0].engine.SetOwner("cust-b", Owner{Via: "node:other"}))
	other.nodes[0].send(framed(inner), framed(inner), framed(inner)) // numbers that have come
	out := arrived(other.nodes[0].send(framed(inner)))
	if len(out) != 1 {
		t.Fatalf("%d frames; %v", len(out), other.nodes[0].dropped())
	}
	b.nodes[1].wantDrop(out[0], OwnerTunnel)

	tagged := append([]byte{0, 0, 0, 0}, inner...) // from a customer
	b.nodes[1].wantDrop(b.customer.wrap(b.customer.packetOf(tagged, esp.NextForward)), ESPProtocol)
}

// A forwarded packet that is handed to another worker is still a forwarded one.
func TestForwardedFlagCrossesWorkers(t *testing.T) {
	b := newPairBed(t, 2, espOptions{suite: esp.AES128GCM16, window: 64}, false)
	b.ownedBy(1)
	first := arrived(b.nodes[0].send(framed(udp(t, inetHost4, behind4, 60))))
	if len(first) != 1 {
		t.Fatal("not forwarded")
	}
	n := b.nodes[1]
	sender := n.engine.OwnerOfSPI(b.customer.in.SPI())
	opener := n.engine.OwnerOfSPI(b.sender[0].SPI())
	if sender == opener {
		t.Fatal("choose other SPIs: one worker does both")
	}
	n.queues[opener][0].Put(first[0])
	n.engine.workers[opener].poll() // it opens the packet, and hands it on
	b.must(n.engine.SetOwner("cust-a", Owner{Via: "node:other"}))
	if out := n.run(); len(out) != 0 || n.dropped()["owner_loop"] != 1 {
		t.Errorf("%d frames leave; %v", len(out), n.dropped())
	}
}

// A node sends nothing but what it forwards: another text of its association is dropped, and so is one that is too short or of no family.
func TestForwardedMalformed(t *testing.T) {
	b := newPairBed(t, 1, espOptions{suite: esp.AES128GCM16, window: 64}, false)
	b.ownedBy(1)
	tag := []byte{0, 0, 0, 0}
	for i, x := uint32(0), TunnelTag("cust-a"); i < 4; i++ {
		tag[i] = byte(x >> (24 - 8*i))
	}
	sealer := esp.NewSealer(ivs(t, 3))
	for what, x := range map[string]struct {
		next uint8
		text []byte
	}{
		"a packet without tag": {esp.NextIPv4, udp(t, inetHost4, behind4, 60)},
		"IPv6 without tag":     {esp.NextIPv6, udp(t, inetHost6, behind6, 60)},
		"nothing":              {esp.NextForward, nil},
		"a tag":                {esp.NextForward, tag},
		"half a header":        {esp.NextForward, append(bytes.Clone(tag), 0x45, 0, 0, 20)},
		"half of IPv6":         {esp.NextForward, append(bytes.Clone(tag), append([]byte{0x60}, make([]byte, 30)...)...)},
		"version 5":            {esp.NextForward, append(bytes.Clone(tag), append([]byte{0x55}, make([]byte, 60)...)...)},
	} {
		frame := append(append(make([]byte, 64), x.text...), make([]byte, 64)...)
		from, to, v := sealer.Add(b.sender[0], frame, 64, 64+len(x.text), x.next)
		if v != esp.OK {
			t.Fatal(v)
		}
		sealer.Seal()
		l3 := ip(nodeAddresses[0][0], nodeAddresses[0][1], 50)
		before := b.nodes[1].engine.Total().Dropped[ESPProtocol]
		out := b.nodes[1].send(framed(serialize(t, l3, gopacket.Payload(frame[from:to]))))
		if len(out) != 0 || b.nodes[1].engine.Total().Dropped[ESPProtocol] != before+1 {
			t.Errorf("%s: %d frames leave; %v", what, len(out), b.nodes[1].dropped())
		}
	}
}

// Forwarding costs no allocation.
func TestForwardingAllocates(t *testing.T) {
	b := newPairBed(t, 1, espOptions{suite: esp.AES128GCM16, window: 0}, false)
	b.ownedBy(1)
	frame := framed(udp(t, inetHost4, behind4, 60))
	for i, frames := range [][][]byte{{frame}, arrived(b.nodes[0].send(frame))} {
		n := b.nodes[i]
		w := n.engine.workers[0]
		q := &loopQueue{umem: n.umem, frames: frames}
		w.queues[0].queue, w.ports[0].queue, w.queues[0].debt = q, q, 256
		for range 20 {
			w.poll()
		}
		if got := testing.AllocsPerRun(200, func() { w.poll() }); got != 0 {
			t.Errorf("node %d: %v allocations per batch", i, got)
		}
		if d := n.dropped(); len(d) > 0 {
			t.Errorf("node %d: %v", i, d)
		}
	}
}

// Tags find their tunnels, and two tunnels with one tag are refused.
func TestTunnelTags(t *testing.T) {
	var x tagIndex
	if x.find(1) >= 0 {
		t.Error("an empty index finds something")
	}
	tags := map[uint32]int{}
	for i := range 1000 {
		tags[TunnelTag(fmt.Sprintf("cust-%d", i))] = i
	}
	x.build(tags)
	for tag, id := range tags {
		if got := x.find(tag); got != id {
			t.Fatalf("%#x: %d, want %d", tag, got, id)
		}
	}
	for i := range 1000 {
		tag := TunnelTag(fmt.Sprintf("other-%d", i))
		if _, taken := tags[tag]; !taken && x.find(tag) >= 0 {
			t.Fatalf("%#x is found", tag)
		}
	}
	names := []string{"a"}
	for _, s := range []TunnelSpec{{Name: "b", Owned: true}, {Name: "b", Node: true}} {
		taken := map[uint32]int{TunnelTag("b"): 0}
		if err := (&betweenNodes{taken, taken}).add(names, &s, 1); err == nil {
			t.Error("two tunnels have one tag")
		}
	}
}
