package pipeline

import (
	"fmt"
	"net/netip"
	"testing"

	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
)

// BenchmarkSetChildren/tunnels=N is a rekey's change of one tunnel of N: a new child beside the old one.
func BenchmarkSetChildren(b *testing.B) {
	for _, tunnels := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("tunnels=%d", tunnels), func(b *testing.B) {
			var specs []TunnelSpec
			for i := range tunnels {
				specs = append(specs, negotiated(false, func(s *TunnelSpec) {
					s.Name, s.Prefixes, s.Interface4, s.Interface6 = fmt.Sprintf("cust-%d", i), nil, netip.Prefix{}, netip.Prefix{}
				}))
			}
			bed := newESPBed(b, 1, specs...)
			vault := aesgcm.NewVault(aesgcm.Options{Portable: true})
			child := func(spi uint32) SASpec {
				in, err := esp.NewInbound(vault, esp.Params{SPI: spi, Suite: esp.NullSHA1, Key: make([]byte, 20)}, 0)
				if err != nil {
					b.Fatal(err)
				}
				out, err := esp.NewOutbound(vault, esp.Params{SPI: spi, Suite: esp.NullSHA1, Key: make([]byte, 20)}, 1)
				if err != nil {
					b.Fatal(err)
				}
				return SASpec{Inbound: []*esp.Inbound{in}, Outbound: out, Endpoint: endpoint4, Peer: netip.AddrPortFrom(customer4, 4500), Either: true}
			}
			first := make([]SASpec, tunnels)
			second := make([]SASpec, tunnels)
			for i := range tunnels {
				first[i], second[i] = child(uint32(0x10000+i)), child(uint32(0x1000000+i))
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				i := n % tunnels
				if err := bed.engine.SetChildren(specs[i].Name, []SASpec{second[i], first[i]})(); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}
