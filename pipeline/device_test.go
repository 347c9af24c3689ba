package pipeline

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// bgp is a TCP segment as a router sends it to a neighbour on its link: with a life of one hop.
func bgp(t testing.TB, src, dst netip.Addr, payload int) []byte {
	l3 := ip(src, dst, layers.IPProtocolTCP)
	switch h := l3.(type) {
	case *layers.IPv4:
		h.TTL, h.Flags = 1, layers.IPv4DontFragment
	case *layers.IPv6:
		h.HopLimit = 1
	}
	l4 := &layers.TCP{SrcPort: 40000, DstPort: 179, ACK: true, Window: 1000}
	setNetwork(t, l4, l3)
	return serialize(t, l3, l4, gopacket.Payload(bytes.Repeat([]byte{0xff}, payload)))
}

// toDevices are the packets that wait for devices, by tunnel.
func (b *bed) toDevices() map[int][][]byte {
	out := map[int][][]byte{}
	b.devices.Drain(func(id int, p []byte) { out[id] = append(out[id], bytes.Clone(p)) })
	return out
}

// What a router sends to our interface address is the tunnel's device's, and what comes by that goes into the tunnel, whatever the routes say.
func TestDevice(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		for _, workers := range []int{1, 2} {
			spec := tunnelOver(outer6)
			spec.Device = true
			other := tunnelSpec("other")
			other.HasKey, other.Key, other.Interface4, other.Interface6, other.Prefixes = true, 99, netip.MustParsePrefix("10.213.77.0/31"), netip.Prefix{}, nil
			b := newBed(t, workers, spec, other)
			own, peer := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
			if inner6 {
				own, peer = spec.Interface6.Addr(), spec.Interface6.Addr().Next()
			}
			id, _ := b.engine.TunnelID(spec.Name)
			from := func(inner []byte) []byte {
				return gre(t, inner, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)})
			}
			segment := bgp(t, peer, own, 100)
			if out := b.send(from(segment)); len(out) > 0 {
				t.Errorf("%d frames leave", len(out))
			}
			if got := b.toDevices(); len(got) != 1 || len(got[id]) != 1 || !bytes.Equal(got[id][0], segment) {
				t.Errorf("for devices: %x; %v", got, b.dropped())
			}
			// pings are answered here, and BFD is the control side's
			b.wantOne(from(echo(t, false, peer, own, []byte("ping"))))
			packet := udp(t, peer, own, 24)
			binary.BigEndian.PutUint16(packet[len(packet)-24-6:], 3784)
			b.send(from(packet))
			if n := len(b.answers()); n != 1 || len(b.toDevices()) != 0 {
				t.Errorf("%d packets of BFD; %v", n, b.dropped())
			}
			b.route(spec.Account, netip.PrefixFrom(peer, peer.BitLen()), MakeLeaf(KindBlackhole, 0))
			answer := bgp(t, own, peer, 100)
			if !b.devices.Send(id, answer) {
				t.Fatal("there is no room")
			}
			out := arrived(b.run())
			if len(out) != 1 || !bytes.Equal(gopacket.NewPacket(out[0], layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeGRE).(*layers.GRE).Payload, answer) {
				t.Errorf("out of the device: %x; %v", out, b.dropped())
			}
			b.devices.Send(id, bgp(t, own, peer, spec.MTU))
			if out := b.run(); len(out) > 0 || b.dropped()["too_big"] != 1 {
				t.Errorf("one that does not fit: %d frames leave; %v", len(out), b.dropped())
			}
		}
	})
}

// A device gets what its own tunnel carries, and not more of it than the host's kernel bears.
func TestNotForDevice(t *testing.T) {
	spec, other := tunnelSpec("cust-a"), tunnelSpec("other")
	spec.Device = true
	other.HasKey, other.Key, other.Interface4, other.Interface6 = true, 99, netip.MustParsePrefix("10.213.77.0/31"), netip.Prefix{}
	other.Prefixes = []netip.Prefix{netip.MustParsePrefix("198.18.7.0/24")}
	b := newBed(t, 1, spec, other)
	own, peer := spec.Interface4.Addr(), spec.Interface4.Addr().Next()
	segment := bgp(t, peer, own, 100)
	b.wantDrop(gre(t, bgp(t, netip.MustParseAddr("198.18.7.1"), own, 9), greHeader{key: new(uint32(99))}), TunnelAddressProtocol)
	b.queues[0][0].Put(gre(t, segment, greHeader{}))
	now := 10 * time.Second
	for range deviceBurst + 200 { // with one worker
		b.queues[0][0].Put(gre(t, segment, greHeader{}))
		b.engine.PollAt(0, now)
		b.toDevices()
	}
	if n := b.dropped()["device_rate"]; n < 195 || n > 205 {
		t.Errorf("%d are too many; %v", n, b.dropped())
	}
	b.send(gre(t, echo(t, true, peer, own, probePayload()), greHeader{}))
	if n := len(b.answers()); n != 1 {
		t.Errorf("answers to probes are kept away by that: %d; %v", n, b.dropped())
	}
	if len(b.toDevices()) > 0 {
		t.Error("some were left")
	}
	// Errors about what others have sent, and BFD out of another tunnel.
	for dst, want := range map[netip.Addr]string{inetHost4: "", peer: "device"} {
		quote := udp(t, own, dst, 8)
		body := append([]byte{wire.ICMP4Unreachable, wire.ICMP4CodeFragNeeded, 0, 0, 0, 0, 2, 88}, quote...)
		binary.BigEndian.PutUint16(body[2:], naiveChecksum(body))
		b.queues[0][0].Put(gre(t, serialize(t, ip(peer, own, layers.IPProtocolICMPv4), gopacket.Payload(body)), greHeader{}))
		b.engine.PollAt(0, now+10*time.Second) // the limit is whole again
		if got := len(b.toDevices()); got == 1 != (want == "device") {
			t.Errorf("an error about a packet to %v: %d packets for the device; %v", dst, got, b.dropped())
		}
	}
	if b.dropped()["host_foreign_error"] != 1 {
		t.Errorf("dropped: %v", b.dropped())
	}
	packet := udp(t, netip.MustParseAddr("198.18.7.1"), own, 24)
	binary.BigEndian.PutUint16(packet[len(packet)-24-6:], 3784)
	b.wantDrop(gre(t, packet, greHeader{key: new(uint32(99))}), TunnelAddressProtocol)
	if n := len(b.answers()) + len(b.toDevices()); n > 0 {
		t.Errorf("BFD out of another tunnel: %d packets", n)
	}
	b.spec.Tunnels[0].Device = false
	b.apply()
	b.wantDrop(gre(t, segment, greHeader{}), TunnelAddressProtocol)
}

// Of what comes encrypted the host gets the router's alone: to other sources it would answer in clear.
func TestDeviceOfEncryptedTunnel(t *testing.T) {
	peer := newESPPeer(t, espOptions{suite: esp.AES128GCM16, window: 64})
	spec := peer.tunnel("cust-a", func(s *TunnelSpec) { s.Device = true })
	b := newESPBed(t, 1, spec)
	own, router, behind := spec.Interface4.Addr(), spec.Interface4.Addr().Next(), spec.Prefixes[0].Addr().Next()
	b.send(peer.seal(bgp(t, behind, own, 10)))
	if n := len(b.toDevices()); n != 0 || b.dropped()["tunnel_address_protocol"] != 1 {
		t.Errorf("of a host behind: %d packets; %v", n, b.dropped())
	}
	b.send(peer.seal(bgp(t, router, own, 10)))
	if n := len(b.toDevices()); n != 1 {
		t.Errorf("of the router: %d packets; %v", n, b.dropped())
	}
	id, _ := b.engine.TunnelID("cust-a")
	answer := bgp(t, own, router, 10)
	b.devices.Send(id, answer)
	if out := arrived(b.run()); len(out) != 1 || !bytes.Equal(peer.open(out[0]), answer) {
		t.Errorf("out of the device: %x; %v", out, b.dropped())
	}
}

// All workers together give a device no more than one would.
func TestDeviceLimitIsShared(t *testing.T) {
	spec := tunnelSpec("cust-a")
	spec.Device = true
	b := newBed(t, 2, spec)
	segment := gre(t, bgp(t, spec.Interface4.Addr().Next(), spec.Interface4.Addr(), 10), greHeader{})
	got := 0
	for i := range 2 * (deviceBurst + 100) {
		b.queues[i%2][0].Put(segment)
		b.engine.PollAt(i%2, 10*time.Second)
		for _, list := range b.toDevices() {
			got += len(list)
		}
	}
	if got > deviceBurst+10 || got < deviceBurst-10 {
		t.Errorf("the device gets %d packets at one moment", got)
	}
}
