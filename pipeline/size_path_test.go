package pipeline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
)

func dontFragment(l gopacket.SerializableLayer) {
	if v4, ok := l.(*layers.IPv4); ok {
		v4.Flags = layers.IPv4DontFragment
	}
}

// TestTooBig has a packet one byte too large for the tunnel, and one that just fits.
func TestTooBig(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		spec := tunnelOver(outer6)
		b := newBed(t, 1, spec)
		header := 28
		if inner6 {
			header = 48
		}
		fits := udp(t, inetHost(inner6), behind(inner6), spec.MTU-header, dontFragment)
		checkEncap(t, b.wantOne(framed(fits)), &spec, hop(t, fits), 0)
		p := b.wantOne(framed(udp(t, inetHost(inner6), behind(inner6), spec.MTU-header+1, dontFragment)))
		if from, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw()); from != endpointOf(inner6) {
			t.Errorf("the error comes from %v", from)
		}
		if got := mtuOf(t, p); got != spec.MTU {
			t.Errorf("the error says MTU %d, want %d", got, spec.MTU)
		}
		if b.engine.Total().Dropped[TooBig] != 1 {
			t.Errorf("dropped: %v", b.dropped())
		}
	})
}

func mtuOf(t *testing.T, p gopacket.Packet) int {
	t.Helper()
	if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		if l.TypeCode != layers.CreateICMPv4TypeCode(3, 4) {
			t.Errorf("type and code %v", l.TypeCode)
		}
		return int(l.Seq)
	}
	l, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	if !ok || l.TypeCode != layers.CreateICMPv6TypeCode(2, 0) {
		t.Fatalf("no packet too big: %v", p)
	}
	return int(binary.BigEndian.Uint32(l.Payload))
}

// TestPathMTU lowers the tunnel's MTU as an ICMP error would.
func TestPathMTU(t *testing.T) {
	spec := tunnelSpec("cust-a")
	b := newBed(t, 1, spec)
	id, _ := b.engine.TunnelID("cust-a")
	b.engine.Forwarding().SetPathMTU(id, 1300)
	if got := mtuOf(t, b.wantOne(framed(udp(t, inetHost4, behind4, 1300, dontFragment)))); got != 1300 {
		t.Errorf("the error says MTU %d, want 1300", got)
	}
	b.engine.Forwarding().SetPathMTU(id, 0)
	fits := udp(t, inetHost4, behind4, 1300, dontFragment)
	checkEncap(t, b.wantOne(framed(fits)), &spec, hop(t, fits), 0)
}

// TestErrorFitsTunnel: an error about a packet from a narrow tunnel quotes no more than goes back through it.
func TestErrorFitsTunnel(t *testing.T) {
	spec := tunnelSpec("cust-a", func(s *TunnelSpec) { s.MTU = 300 })
	b := newBed(t, 1, spec)
	expired := udp(t, behind4, inetHost4, 900, func(l gopacket.SerializableLayer) { l.(*layers.IPv4).TTL = 1 })
	g := b.wantOne(gre(t, expired, greHeader{})).Layer(layers.LayerTypeGRE).(*layers.GRE)
	if len(g.Payload) > spec.MTU {
		t.Errorf("the error has %d bytes, the tunnel carries %d", len(g.Payload), spec.MTU)
	}
}

// TestFragmentBeforeEncapsulation checks the inner fragments by gopacket's reassembly.
func TestFragmentBeforeEncapsulation(t *testing.T) {
	for _, clear := range []bool{false, true} {
		for _, outer6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("cleardf=%v/outer6=%v", clear, outer6), func(t *testing.T) {
				spec := tunnelOver(outer6, func(s *TunnelSpec) { s.MTU, s.ClearDF = 600, clear })
				b := newBed(t, 1, spec)
				var change []func(gopacket.SerializableLayer)
				if clear {
					change = append(change, dontFragment)
				}
				inner := udp(t, inetHost4, behind4, 1400, change...)
				out := b.send(framed(inner))
				if len(out) != 3 {
					t.Fatalf("want 3 fragments, got %d; dropped %v", len(out), b.dropped())
				}
				d := ip4defrag.NewIPv4Defragmenter()
				for i, f := range out {
					g := decode(t, f).Layer(layers.LayerTypeGRE).(*layers.GRE)
					if len(g.Payload) > spec.MTU {
						t.Errorf("fragment %d has %d bytes", i, len(g.Payload))
					}
					if naiveChecksum(g.Payload[:20]) != 0 {
						t.Errorf("fragment %d has a wrong header checksum", i)
					}
					whole, err := d.DefragIPv4(gopacket.NewPacket(g.Payload, layers.LayerTypeIPv4, gopacket.Default).Layer(layers.LayerTypeIPv4).(*layers.IPv4))
					if err != nil {
						t.Fatal(err)
					}
					if (whole != nil) != (i == 2) {
						t.Fatalf("fragment %d: whole is %v", i, whole != nil)
					}
					if whole != nil && !bytes.Equal(whole.Payload, inner[20:]) {
						t.Errorf("payload differs")
					}
				}
				if c := b.engine.Total(); c.Fragments != 2 || c.Forwarded != 3 {
					t.Errorf("counters: %+v", c)
				}
			})
		}
	}
}

// TestOuterFragments has IPv6 below 1280 in a tunnel with a smaller MTU, and a link smaller than the tunnel claims.
func TestOuterFragments(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		spec := tunnelOver(outer6, func(s *TunnelSpec) { s.MTU = 1000 })
		b := newBed(t, 1, spec)
		inner := udp(t, inetHost6, behind6, 1200)
		out := b.send(framed(inner))
		if len(out) != 2 {
			t.Fatalf("outer6=%v: want 2 outer fragments, got %d; dropped %v", outer6, len(out), b.dropped())
		}
		var payload []byte
		for i, f := range out {
			if limit := 14 + spec.MTU + spec.Overhead(); len(f) > limit {
				t.Errorf("fragment %d has %d bytes, limit %d", i, len(f), limit)
			}
			p := decode(t, f)
			if !outer6 {
				v4 := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
				if int(v4.FragOffset)*8 != len(payload) || v4.Flags&layers.IPv4DontFragment != 0 || (v4.Flags&layers.IPv4MoreFragments != 0) != (i == 0) {
					t.Errorf("fragment %d: %+v", i, v4)
				}
				payload = append(payload, v4.Payload...)
				continue
			}
			fr := p.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
			if int(fr.FragmentOffset)*8 != len(payload) || fr.MoreFragments != (i == 0) || fr.NextHeader != layers.IPProtocolGRE {
				t.Errorf("fragment %d: %+v", i, fr)
			}
			payload = append(payload, fr.Payload...)
		}
		if !bytes.Equal(payload[4:], hop(t, inner)) {
			t.Errorf("outer6=%v: the fragments do not make the packet", outer6)
		}
	}
}

func syn(t testing.TB, src, dst netip.Addr, mss uint16, flags byte) []byte {
	t.Helper()
	l3 := ip(src, dst, layers.IPProtocolTCP)
	l4 := &layers.TCP{SrcPort: 1000, DstPort: 2000, SYN: flags&2 != 0, ACK: flags&16 != 0, Window: 1000, Options: []layers.TCPOption{
		{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{byte(mss >> 8), byte(mss)}},
	}}
	setNetwork(t, l4, l3)
	return serialize(t, l3, l4)
}

func mssOf(t *testing.T, packet []byte) uint16 {
	t.Helper()
	first := layers.LayerTypeIPv4
	if packet[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(packet, first, gopacket.Default)
	tcp := p.TransportLayer().(*layers.TCP)
	opts := gopacket.SerializeOptions{ComputeChecksums: true}
	setNetwork(t, tcp, p.NetworkLayer().(gopacket.SerializableLayer))
	have := tcp.Checksum
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, opts, p.NetworkLayer().(gopacket.SerializableLayer), tcp); err != nil {
		t.Fatal(err)
	}
	if tcp.Checksum != have {
		t.Errorf("TCP checksum %#04x, want %#04x", have, tcp.Checksum)
	}
	for _, o := range tcp.Options {
		if o.OptionType == layers.TCPOptionKindMSS {
			return binary.BigEndian.Uint16(o.OptionData)
		}
	}
	return 0
}

func TestMSSClamp(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		spec := tunnelOver(outer6)
		fits := uint16(spec.MTU - 40)
		if inner6 {
			fits = uint16(spec.MTU - 60)
		}
		for _, c := range []struct {
			clamp     MSSClamp
			mss, want uint16
			flags     byte
		}{
			{MSSAuto, 1460, fits, 2}, {MSSAuto, 1460, fits, 18}, {MSSAuto, fits + 1, fits, 2}, {MSSAuto, fits, fits, 2}, {MSSAuto, 536, 536, 2},
			{MSSAuto, 1460, 1460, 16}, {MSSOff, 1460, 1460, 2}, {1200, 1460, 1200, 2}, {1459, 1460, fits, 2},
		} {
			b := newBed(t, 1, tunnelOver(outer6, func(s *TunnelSpec) { s.MSSClamp = c.clamp }))
			in := b.wantOne(framed(syn(t, inetHost(inner6), behind(inner6), c.mss, c.flags))).Layer(layers.LayerTypeGRE).(*layers.GRE).Payload
			out := b.wantOne(gre(t, syn(t, behind(inner6), inetHost(inner6), c.mss, c.flags),
				greHeader{src: customerOf(outer6), dst: endpointOf(outer6)})).LinkLayer().LayerPayload()
			for dir, packet := range map[string][]byte{"ingress": in, "egress": out} {
				if got := mssOf(t, packet); got != c.want {
					t.Errorf("%s: clamp %v, flags %#x: MSS %d became %d, want %d", dir, c.clamp, c.flags, c.mss, got, c.want)
				}
			}
		}
	})
}

// TestMSSLateral clamps to the smaller of two tunnels, whichever way the packet goes.
func TestMSSLateral(t *testing.T) {
	second := tunnelSpec("cust-b", func(s *TunnelSpec) {
		s.CustomerEndpoint, s.MTU = netip.MustParseAddr("198.51.100.9"), 1300
		s.Interface4, s.Interface6 = netip.MustParsePrefix("10.213.0.12/31"), netip.Prefix{}
		s.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}
	})
	b := newBed(t, 1, tunnelSpec("cust-a"), second)
	other := netip.MustParseAddr("10.9.1.1")
	there := b.wantOne(gre(t, syn(t, behind4, other, 1460, 2), greHeader{}))
	back := b.wantOne(gre(t, syn(t, other, behind4, 1460, 18), greHeader{src: second.CustomerEndpoint, dst: endpoint4}))
	for _, p := range []gopacket.Packet{there, back} {
		if got := mssOf(t, p.Layer(layers.LayerTypeGRE).(*layers.GRE).Payload); got != 1260 {
			t.Errorf("MSS %d, want 1260", got)
		}
	}
}
