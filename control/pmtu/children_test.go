package pmtu

import (
	"net/netip"
	"testing"
)

// children is a tunnel with an association for each SPI, of which the last is in UDP to port 61000.
func children(customer netip.Addr, spis ...uint32) (out []Tunnel) {
	for i, spi := range spis {
		t := Tunnel{ID: 50, Name: "children", Endpoint: endpoint4, CustomerEndpoint: customer, SPI: spi, MTU: 1438, Overhead: 65, Believe: true, Fits: gcm(20)}
		if i == len(spis)-1 {
			t.UDP, t.Port, t.Fits = true, 61000, gcm(28)
		}
		out = append(out, t)
	}
	return out
}

// TestChildren: an error about a packet of any association lowers the tunnel's MTU, which it has until the last has forgotten, or none is
// left that goes that way.
func TestChildren(t *testing.T) {
	b := newBed()
	moved := netip.MustParseAddr("198.51.100.99")
	takes := func(proto byte, gre []byte, to uint16, want Verdict) {
		t.Helper()
		e := error4(endpoint4, 3, 4, to, quote{src: endpoint4, dst: moved, proto: proto, total: 1500, gre: gre})
		if v := b.Take4(endpoint4, e[20:], start); v != want {
			t.Errorf("%v, want %v", v, want)
		}
	}
	b.SetTunnel(50, children(moved, 0x7001, 0x7002, 0x7003))
	if b.mtu[50] != 0 {
		t.Errorf("mtu %d", b.mtu[50])
	}
	takes(50, words(0x7004, 1), 1400, WrongHeader)
	takes(17, words(4500<<16|4500, 1480<<16, 0x7003, 7), 1400, WrongHeader)
	takes(17, words(4500<<16|61000, 1480<<16, 0x7002, 7), 1400, WrongHeader)
	takes(50, words(0x7002, 1), 1400, Lowered)
	inESP, inUDP := gcm(20)(1400), gcm(28)(1400)
	if b.mtu[50] != inESP {
		t.Errorf("mtu %d, want %d", b.mtu[50], inESP)
	}
	takes(17, words(4500<<16|61000, 1480<<16, 0x7003, 7), 1400, Lowered)
	takes(50, words(0x7001, 1), 1400, Lowered) // that is more than the one in UDP carries
	if b.mtu[50] != inUDP {
		t.Errorf("mtu %d, want %d", b.mtu[50], inUDP)
	}
	b.SetTunnel(50, children(moved, 0x7001, 0x7002)) // and 0x7002 is in UDP now
	if b.mtu[50] != inUDP {
		t.Errorf("after a rekey: mtu %d, want %d", b.mtu[50], inUDP)
	}
	takes(17, words(4500<<16|61000, 1480<<16, 0x7003, 7), 1300, WrongHeader)
	b.SetTunnels(append(children(moved, 0x7001, 0x7002, 0x7005), tunnels...))
	if b.mtu[50] != inUDP {
		t.Errorf("after a reload: mtu %d, want %d", b.mtu[50], inUDP)
	}
	b.Expire(start.Add(lifetime))
	if b.mtu[50] != 0 {
		t.Errorf("after ten minutes: mtu %d", b.mtu[50])
	}
	takes(50, words(0x7001, 1), 1400, Lowered)
	b.SetTunnel(50, children(customer4, 0x7001, 0x7002))
	if b.mtu[50] != 0 {
		t.Errorf("the path to another place is not known, not %d", b.mtu[50])
	}
	takes(50, words(0x7001, 1), 1400, NoTunnel)
	b.SetTunnel(50, nil)
	if len(b.byID[50]) != 0 || len(b.tunnels[pair{endpoint4, moved}]) != 0 {
		t.Error("something is left")
	}
}
