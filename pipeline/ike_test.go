package pipeline

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/crypto/esp"
)

// TestIKEIsTheHosts: what belongs to IKE goes to the host through the TUN device, if it came to a worker at all: in fragments, put
// together. ESP on the same port is opened, and nothing is counted as a fault.
func TestIKEIsTheHosts(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		for _, workers := range []int{1, 2} {
			p := newESPPeer(t, espOptions{suite: esp.AES128GCM16, outer6: outer6, udp: true, window: 64})
			b := newESPBed(t, workers, negotiated(outer6))
			b.children(p.child())
			b.route("", netip.PrefixFrom(endpointOf(outer6), endpointOf(outer6).BitLen()), MakeLeaf(KindKernel, 0))
			datagram := func(port layers.UDPPort, data []byte) []byte {
				l3 := ip(customerOf(outer6), endpointOf(outer6), layers.IPProtocolUDP)
				l4 := &layers.UDP{SrcPort: port, DstPort: port}
				setNetwork(t, l4, l3)
				return framed(serialize(t, l3, l4, gopacket.Payload(data)))
			}
			message := append(bytes.Repeat([]byte{0x5a}, 1200), 1)
			for id, d := range [][]byte{
				datagram(500, message),
				datagram(4500, append(make([]byte, 4), message...)), // behind the non-ESP marker
				datagram(500, make([]byte, 28)),
				datagram(4500, []byte{0xff}), // a NAT keepalive
				datagram(4500, nil),
			} {
				for _, frames := range [][][]byte{{d}, cutFrame(t, d, 504, uint32(id))} {
					b.queues[id%workers][0].Put(frames...)
					if out := b.run(); len(out) != 0 {
						t.Fatalf("%d frames left", len(out))
					}
					var got [][]byte
					b.punt.Drain(func(p []byte) { got = append(got, bytes.Clone(p)) })
					if len(got) != 1 || !bytes.Equal(udpOf(got[0]), udpOf(d[14:])) {
						t.Errorf("datagram %d in %d frames: the host gets %d packets; dropped: %v", id, len(frames), len(got), b.dropped())
					}
				}
			}
			inner := udp(t, behind4, inetHost4, 900)
			b.queues[0][0].Put(cutFrame(t, p.seal(inner), 504, 99)...)
			if out := b.run(); len(out) != 1 || !bytes.Equal(out[0][14:], hop(t, inner)) {
				t.Errorf("ESP: %d frames left", len(out))
			}
			if d := b.dropped(); len(d) > 0 {
				t.Errorf("dropped: %v", d)
			}
		}
	}
}

// udpOf is what stands behind the IP header, whose identification fragmentation leaves another.
func udpOf(packet []byte) []byte {
	if packet[0]>>4 == 6 {
		return packet[40:]
	}
	return packet[20:]
}
