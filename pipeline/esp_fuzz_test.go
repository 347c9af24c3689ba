package pipeline

import (
	"bytes"
	"testing"

	"causeway/crypto/esp"
)

// FuzzESP gives a node with IPsec tunnels two packets: one whose ESP payload is the input, for the SPI that the input's
// first byte chooses, and one that is authentic and has the input inside. Every frame is accounted for, and nothing that is
// not authentic leaves.
func FuzzESP(f *testing.F) {
	inner := udp(f, behind4, inetHost4, 20)
	f.Add([]byte{0}, uint8(4))
	f.Add(append([]byte{1}, inner...), uint8(4))
	f.Add(append([]byte{2}, udp(f, behind6, inetHost6, 20)...), uint8(41))
	f.Add(bytes.Repeat([]byte{3}, 100), uint8(59))
	suites := []esp.Suite{esp.AES128GCM16, esp.ChaCha20Poly1305, esp.AES256SHA1, esp.NullSHA256}
	f.Fuzz(func(t *testing.T, in []byte, next uint8) {
		if len(in) == 0 || len(in) > 1400 {
			return
		}
		p := newESPPeer(t, espOptions{suite: suites[in[0]%4], outer6: in[0]&4 != 0, udp: in[0]&8 != 0, esn: in[0]&16 != 0, window: 64})
		b := newESPBed(t, 1, p.tunnel("cust-a"))
		spi := []byte{0, 0, 0x10, 0}
		if out := b.send(p.wrap(append(spi, in[1:]...))); len(out) != 0 {
			t.Fatalf("a packet that nobody sealed leaves: %x", out[0])
		}
		b.send(p.wrap(p.packetOf(in[1:], next)))
	})
}
