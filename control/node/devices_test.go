package node

import (
	"net/netip"
	"testing"

	"causeway/pipeline/wire"
)

// A device has the tunnel's MTU, less where the path is narrower, and enough for IPv6 if it has that.
func TestDeviceMTU(t *testing.T) {
	four, six := netip.MustParsePrefix("10.213.0.10/31"), netip.MustParsePrefix("fd00:213::a/127")
	for _, c := range []struct {
		addresses  []netip.Prefix
		path, want int
	}{
		{[]netip.Prefix{four}, 0, 1476}, {[]netip.Prefix{four}, 1500, 1476}, {[]netip.Prefix{four}, 1400, 1400}, {[]netip.Prefix{four}, 700, 700},
		{[]netip.Prefix{four, six}, 1400, 1400}, {[]netip.Prefix{four, six}, 700, wire.IPv6MinMTU},
	} {
		if got := (&device{addresses: c.addresses, most: 1476}).fits(c.path); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// What is passed on for a tunnel is BFD's by its port, whatever its header is like.
func TestIsBFD(t *testing.T) {
	packet := func(v6 bool, options int, protocol byte, port uint16) []byte {
		b := make([]byte, wire.IPv4Len+options)
		if b[0], b[9] = byte(0x45+options/4), protocol; v6 {
			b = make([]byte, wire.IPv6Len)
			b[0], b[6] = 0x60, protocol
		}
		return append(b, 0, 1, byte(port>>8), byte(port), 0, 8, 0, 0)
	}
	for want, list := range map[bool][][]byte{
		true:  {packet(false, 0, 17, 3784), packet(false, 8, 17, 4784), packet(true, 0, 17, 3784)},
		false: {packet(false, 0, 6, 3784), packet(false, 0, 17, 179), packet(true, 0, 17, 3785), packet(true, 0, 6, 4784), packet(false, 8, 17, 3784)[:24], nil, {0x45}, {0x60, 0}},
	} {
		for _, b := range list {
			if isBFD(b) != want {
				t.Errorf("%x: %v", b, !want)
			}
		}
	}
}
