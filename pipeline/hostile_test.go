package pipeline

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/pipeline/wire"
)

// TestMalformed sends every malformation that RFC 2784, 2890, 791 and 8200 let one construct, each of which must be
// dropped for its own reason.
func TestMalformed(t *testing.T) {
	good := udp(t, behind4, inetHost4, 30)
	good6 := udp(t, behind6, inetHost6, 30)
	key := uint32(1)
	edit := func(p []byte, f func([]byte)) []byte {
		out := append([]byte(nil), p...)
		f(out)
		return out
	}
	// resum edits an IPv4 packet and makes its header checksum right again.
	resum := func(p []byte, f func([]byte)) []byte {
		return edit(p, func(b []byte) {
			f(b)
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], naiveChecksum(b[:20]))
		})
	}
	set := func(at int, v byte) func([]byte) { return func(b []byte) { b[at] = v } }
	options := func(o ...byte) []byte {
		p := append(append(append([]byte{}, good[:20]...), o...), good[20:]...)
		p[0] = 0x40 | byte(5+len(o)/4)
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], naiveChecksum(p[:20+len(o)]))
		return p
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  Reason
	}{
		{"empty frame", []byte{}, outerFault(wire.EthernetShort)},
		{"ethernet cut", framed(good)[:13], outerFault(wire.EthernetShort)},
		{"arp", append(append([]byte{}, framed(good)[:12]...), 8, 6, 0, 0), LinkType},
		{"ip cut", framed(good)[:33], outerFault(wire.IPv4Short)},
		{"ip version", framed(resum(good, set(0, 0x55))), outerFault(wire.IPv4Version)},
		{"ip header length", framed(resum(good, set(0, 0x44))), outerFault(wire.IPv4HeaderSmall)},
		{"ip header beyond", framed(resum(good, func(b []byte) { b[0] = 0x4f; binary.BigEndian.PutUint16(b[2:], 59) })), outerFault(wire.IPv4HeaderLong)},
		{"ip total small", framed(resum(good, func(b []byte) { binary.BigEndian.PutUint16(b[2:], 19) })), outerFault(wire.IPv4TotalSmall)},
		{"ip total long", framed(resum(good, func(b []byte) { binary.BigEndian.PutUint16(b[2:], 59) })), outerFault(wire.IPv4TotalLong)},
		{"ip checksum", framed(edit(good, set(10, good[10]^1))), outerFault(wire.IPv4Checksum)},
		{"ip reserved flag", framed(resum(good, set(6, 0x80))), outerFault(wire.IPv4ReservedFlag)},
		{"ip fragment length", framed(resum(good[:len(good)-1], func(b []byte) { b[6] = 0x20; b[3]-- })), outerFault(wire.IPv4FragmentLength)},
		{"ip fragment beyond", framed(resum(good, func(b []byte) { b[6], b[7] = 0x1f, 0xff })), outerFault(wire.IPv4FragmentBeyond)},
		{"inner reserved flag", gre(t, resum(good, set(6, 0x80)), greHeader{}), innerFault(wire.IPv4ReservedFlag)},
		{"inner fragment length", gre(t, resum(good[:len(good)-1], func(b []byte) { b[6] = 0x20; b[3]-- }), greHeader{}), innerFault(wire.IPv4FragmentLength)},
		{"inner fragment beyond", gre(t, resum(good, func(b []byte) { b[6], b[7] = 0x1f, 0xff }), greHeader{}), innerFault(wire.IPv4FragmentBeyond)},
		{"ip loopback source", framed(udp(t, netip.MustParseAddr("127.0.0.1"), behind4, 9)), OuterMartian},
		{"ip multicast", framed(udp(t, inetHost4, netip.MustParseAddr("224.0.0.5"), 9)), OuterMartian},
		{"ipv6 cut", framed(good6)[:14+39], outerFault(wire.IPv6Short)},
		{"ipv6 payload", framed(edit(good6, set(5, 200))), outerFault(wire.IPv6PayloadLong)},
		{"ipv6 link-local", framed(udp(t, netip.MustParseAddr("fe80::1"), behind6, 9)), OuterMartian},

		{"gre cut", gre(t, nil, greHeader{proto: 0x0800, cutOff: 1}), outerFault(wire.GREShort)},
		{"gre version", gre(t, good, greHeader{flags: 1}), outerFault(wire.GREVersion)},
		{"gre routing", gre(t, good, greHeader{flags: 0x4000}), outerFault(wire.GRERouting)},
		{"gre strict route", gre(t, good, greHeader{flags: 0x0800}), outerFault(wire.GREStrictRoute)},
		{"gre recursion", gre(t, good, greHeader{flags: 0x0400}), outerFault(wire.GRERecursion)},
		{"gre checksum cut", gre(t, nil, greHeader{proto: 0x0800, flags: 0x8000}), outerFault(wire.GREChecksumCut)},
		{"gre key cut", gre(t, nil, greHeader{proto: 0x0800, flags: 0x2000}), outerFault(wire.GREKeyCut)},
		{"gre sequence cut", gre(t, nil, greHeader{proto: 0x0800, key: &key, flags: 0x1000}), outerFault(wire.GRESequenceCut)},
		{"gre checksum", gre(t, good, greHeader{checksum: true, spoilt: true}), GREChecksum},
		{"gre protocol", gre(t, good, greHeader{proto: 0x88be}), GREProtocol},

		{"inner empty", gre(t, nil, greHeader{proto: 0x0800}), innerFault(wire.IPv4Short)},
		{"inner cut", gre(t, good[:19], greHeader{}), innerFault(wire.IPv4Short)},
		{"inner version", gre(t, good, greHeader{proto: 0x86dd}), innerFault(wire.IPv6Version)},
		{"inner version 4", gre(t, good6, greHeader{proto: 0x0800}), innerFault(wire.IPv4Version)},
		{"inner header length", gre(t, resum(good, set(0, 0x43)), greHeader{}), innerFault(wire.IPv4HeaderSmall)},
		{"inner header beyond", gre(t, resum(good, func(b []byte) { b[0] = 0x4f; binary.BigEndian.PutUint16(b[2:], 58) }), greHeader{}), innerFault(wire.IPv4HeaderLong)},
		{"inner total small", gre(t, resum(good, func(b []byte) { binary.BigEndian.PutUint16(b[2:], 3) }), greHeader{}), innerFault(wire.IPv4TotalSmall)},
		{"inner total long", gre(t, resum(good, func(b []byte) { binary.BigEndian.PutUint16(b[2:], 59) }), greHeader{}), innerFault(wire.IPv4TotalLong)},
		{"inner checksum", gre(t, edit(good, set(8, 1)), greHeader{}), innerFault(wire.IPv4Checksum)},
		{"inner option length", gre(t, options(7, 1, 0, 0), greHeader{}), innerFault(wire.IPv4OptionLength)},
		{"inner option cut", gre(t, options(1, 1, 1, 7), greHeader{}), innerFault(wire.IPv4OptionCut)},
		{"inner loopback", gre(t, udp(t, behind4, netip.MustParseAddr("127.0.0.1"), 9), greHeader{}), InnerDestination},
		{"inner broadcast", gre(t, udp(t, behind4, netip.MustParseAddr("255.255.255.255"), 9), greHeader{}), InnerDestination},
		{"inner6 cut", gre(t, good6[:39], greHeader{}), innerFault(wire.IPv6Short)},
		{"inner6 payload", gre(t, edit(good6, set(5, 200)), greHeader{}), innerFault(wire.IPv6PayloadLong)},
		{"inner6 hop-by-hop place", gre(t, ext6(t, 60, 0), greHeader{}), innerFault(wire.IPv6HopByHopPlace)},
		{"inner6 header cut", gre(t, edit(good6, set(6, 0))[:44], greHeader{}), innerFault(wire.IPv6PayloadLong)},
		{"inner6 multicast", gre(t, udp(t, behind6, netip.MustParseAddr("ff02::1"), 9), greHeader{}), InnerDestination},
		{"inner source", gre(t, udp(t, netip.MustParseAddr("8.8.8.8"), inetHost4, 9), greHeader{}), InnerSource},
		{"inner syn options", gre(t, badSYN(t), greHeader{}), innerFault(wire.TCPOptionLength)},
		{"esp", framed(serialize(t, ip(customer4, endpoint4, layers.IPProtocolESP), gopacket.Payload(make([]byte, 40)))), ESPNoSA},
		{"two tags", append(append(append([]byte{}, framed(good)[:12]...), 0x81, 0, 0, 5, 0x81, 0, 0, 6, 8, 0), good...), outerFault(wire.VLANStacked)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, 1, tunnelSpec("cust-a"))
			b.wantDrop(c.frame, c.want)
			b.wantOne(gre(t, good, greHeader{})) // and the next good packet passes
		})
	}
}

// ext6 is an IPv6 packet with two empty extension headers of these types before UDP.
func ext6(t testing.TB, first, second byte) []byte {
	u := udp(t, behind6, inetHost6, 8)
	chain := []byte{second, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0}
	p := append(append(append([]byte{}, u[:40]...), chain...), u[40:]...)
	p[6] = first
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	return p
}

func badSYN(t testing.TB) []byte {
	p := syn(t, behind4, inetHost4, 1400, 2)
	p[20+22] = 1 // the MSS option's length
	return p
}

// FuzzPipeline sends random frames through the whole pipeline: nothing panics, the debugging allocator finds no
// frame used twice, and every frame is accounted for.
func FuzzPipeline(f *testing.F) {
	key := uint32(42)
	inner := udp(f, behind4, inetHost4, 30)
	f.Add(framed(inner), uint8(1))
	f.Add(framed(udp(f, inetHost4, behind4, 1500)), uint8(2))
	f.Add(framed(udp(f, inetHost6, behind6, 1400)), uint8(2))
	f.Add(gre(f, inner, greHeader{}), uint8(3))
	f.Add(gre(f, inner, greHeader{key: &key, checksum: true, seq: &key}), uint8(3))
	f.Add(gre(f, syn(f, behind4, inetHost4, 1460, 2), greHeader{}), uint8(1))
	f.Add(gre(f, ext6(f, 0, 60), greHeader{src: customer6, dst: endpoint6}), uint8(1))
	f.Add(gre(f, udp(f, behind4, netip.MustParseAddr("10.213.0.10"), 30), greHeader{}), uint8(1))
	// One node serves all inputs, for making one takes longer than many packets; what one input left waiting is given up
	// before the next, so that an input that fails fails alone too.
	b := newBed(f, 1, tunnelSpec("cust-a"), tunnelSpec("keyed", func(s *TunnelSpec) {
		s.HasKey, s.Key, s.Checksum, s.MTU, s.ClearDF = true, 42, true, 600, true
		s.Interface4, s.Interface6 = netip.MustParsePrefix("10.213.0.12/31"), netip.Prefix{}
		s.Prefixes = []netip.Prefix{netip.MustParsePrefix("198.18.6.0/24")}
	}), tunnelSpec("six", over6, func(s *TunnelSpec) {
		s.Interface4, s.Interface6, s.MTU = netip.MustParsePrefix("10.213.0.14/31"), netip.Prefix{}, 1000
		s.Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:6::/48")}
	}))
	w := b.engine.workers[0]
	f.Fuzz(func(t *testing.T, frame []byte, copies uint8) {
		b.t = t
		w.sizeErrors, w.otherErrors = fullLimiter(), fullLimiter()
		for range copies%4 + 1 {
			for _, out := range b.send(frame) {
				if len(out) > 14+1600 || len(out) < 14+20 {
					t.Fatalf("a frame of %d bytes left", len(out))
				}
			}
		}
		w.giveUpFragments()
		w.recycle()
		if free := w.pool.Len() + len(b.queues[0])*256; free != b.umem.FramesPerPart() {
			t.Fatalf("%d of %d frames are left", free, b.umem.FramesPerPart())
		}
	})
}

// TestRandomDamage flips bits of good frames for as long as a test may take, which a fuzz corpus does not replay.
func TestRandomDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	b := newBed(t, 2, tunnelSpec("cust-a"), tunnelSpec("six", over6, func(s *TunnelSpec) {
		s.Interface4, s.Interface6, s.MTU = netip.MustParsePrefix("10.213.0.14/31"), netip.Prefix{}, 1000
		s.Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:6::/48")}
	}))
	seeds := [][]byte{
		framed(udp(t, inetHost4, behind4, 1500)), framed(udp(t, inetHost6, behind6, 1300)), framed(syn(t, inetHost6, behind6, 1460, 2)),
		gre(t, udp(t, behind4, inetHost4, 30), greHeader{}), gre(t, ext6(t, 0, 60), greHeader{src: customer6, dst: endpoint6}),
		gre(t, syn(t, behind4, inetHost4, 1460, 2), greHeader{checksum: true}),
	}
	sent := uint64(0)
	for range 2000 {
		var frames [][]byte
		for range 1 + rng.IntN(100) {
			f := append([]byte(nil), seeds[rng.IntN(len(seeds))]...)
			for range rng.IntN(4) {
				f[14+rng.IntN(min(len(f)-14, 80))] ^= 1 << rng.IntN(8)
			}
			f = f[:len(f)-rng.IntN(2)*rng.IntN(len(f)-14)]
			frames = append(frames, f)
		}
		sent += uint64(len(frames))
		b.queues[rng.IntN(2)][rng.IntN(2)].Put(frames...)
		b.run()
	}
	if got := b.engine.Total().Received; got != sent {
		t.Errorf("received %d frames, sent %d", got, sent)
	}
}
