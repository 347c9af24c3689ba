package pipeline

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
)

// within is the slow oracle: each prefix is asked.
func within(list []netip.Prefix, a netip.Addr) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// header is an IP header with these addresses and nothing else.
func header(src, dst netip.Addr) []byte {
	if src.Is4() {
		h := make([]byte, ip4Len)
		h[0] = 0x45
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		return h
	}
	h := make([]byte, ip6Len)
	h[0] = 0x60
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return h
}

// crowdedPrefix is a random one of few, so that many overlap, touch and are equal; also at both ends of the addresses.
func crowdedPrefix(r *rand.Rand, v6 bool) netip.Prefix {
	last, length := byte(r.IntN(16)), r.IntN(9)
	if r.IntN(16) == 0 {
		length = -1 // everything
	}
	if !v6 {
		a := [4]byte{10, 0, 0, last}
		if r.IntN(4) == 0 {
			a = [4]byte{255, 255, 255, 240 | last}
		} else if r.IntN(4) == 0 {
			a = [4]byte{0, 0, 0, last}
		}
		return netip.PrefixFrom(netip.AddrFrom4(a), max(0, min(24+length, 25*(length+1))))
	}
	a := netip.MustParseAddr("::10.0.0.0").As16() // a number like IPv4's
	if r.IntN(4) == 0 {
		a = netip.MustParseAddr("::255.255.255.240").As16() // up to where IPv4's end
	} else if r.IntN(4) == 0 {
		a = netip.MustParseAddr("2001:db8::ffff:ffff:ffff:fff0").As16() // up to the end of the lower half
	} else if r.IntN(4) == 0 {
		a = netip.MustParseAddr("::ffff:10.0.0.0").As16()
	} else if r.IntN(4) == 0 {
		a = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0").As16()
	} else if r.IntN(4) == 0 {
		a = netip.MustParseAddr("2001:db8::").As16()
		a[7] = last // the upper half counts too
		return netip.PrefixFrom(netip.AddrFrom16(a), max(0, min(56+length, 57*(length+1))))
	}
	a[15] |= last
	return netip.PrefixFrom(netip.AddrFrom16(a), max(0, min(120+length, 121*(length+1))))
}

func crowdedList(r *rand.Rand) (list []netip.Prefix) {
	for range r.IntN(6) {
		list = append(list, crowdedPrefix(r, r.IntN(2) == 0))
	}
	return list
}

// crowdedAddr is one at the edge of a prefix, or beside it.
func crowdedAddr(r *rand.Rand, v6 bool) netip.Addr {
	a := crowdedPrefix(r, v6).Masked().Addr()
	switch before, after := a.Prev(), a.Next(); {
	case r.IntN(3) == 0 && before.IsValid():
		return before
	case r.IntN(3) == 0 && after.IsValid():
		return after
	}
	return a
}

// TestPolicy: the first selectors that a packet for the customer lies within are those that one finds by asking each, and what the
// customer sends is admitted by those that hold it.
func TestPolicy(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 11))
	found := map[int]int{}
	for range 400 {
		list := make([]prefixes, 1+r.IntN(150))
		for i := range list {
			list[i] = prefixes{crowdedList(r), crowdedList(r)}
		}
		if r.IntN(2) == 0 { // most are narrow
			for i := range list {
				list[i].local = append(list[i].local, netip.MustParsePrefix("192.0.2.0/24"))
				list[i].remote = []netip.Prefix{crowdedPrefix(r, false)}
			}
		}
		list[0].remote = []netip.Prefix{crowdedPrefix(r, false)}
		p := newPolicy(list)
		for range 100 {
			v6 := r.IntN(2) == 0
			src, dst := crowdedAddr(r, v6), crowdedAddr(r, v6)
			holds := func(s prefixes) bool { return within(s.local, src) && within(s.remote, dst) }
			want := slices.IndexFunc(list, holds)
			if got := p.selects(header(src, dst)); got != want {
				t.Fatalf("%s to %s: number %d, want %d of %v", src, dst, got, want, list)
			}
			for i := range list {
				if admitted := p.admits(i, header(dst, src)); admitted != holds(list[i]) {
					t.Fatalf("%s to %s is admitted: %v, by number %d of %v", dst, src, admitted, i, list)
				}
			}
			found[want/50]++
			if want < 0 {
				found[-1]++
			}
		}
	}
	if found[0] == 0 || found[1] == 0 || found[2] == 0 || found[-1] < 1000 {
		t.Errorf("the packets hit too few: %v", found)
	}
}

// TestPolicyWithoutAddresses: what has none lies within no selectors, but the checks of inner headers say what is wrong with it.
func TestPolicyWithoutAddresses(t *testing.T) {
	p := newPolicy([]prefixes{{local: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}})
	for _, ip := range [][]byte{nil, {0x45}, make([]byte, 40), append([]byte{0x60}, make([]byte, 38)...)} {
		if p.selects(ip) != -1 || !p.admits(0, ip) {
			t.Errorf("%x: %d, %v", ip, p.selects(ip), p.admits(0, ip))
		}
	}
}

// TestChildrenThatOnlyReceive: they take what lies within their selectors, and packets for the customer pass them over, wherever
// they stand.
func TestChildrenThatOnlyReceive(t *testing.T) {
	deaf := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x1000, window: 64})
	both := newESPPeer(t, espOptions{suite: esp.AES128GCM16, spi: 0x2000, window: 64})
	b := newESPBed(t, 1, negotiated(false))
	mute := deaf.child("198.18.0.0/15")
	mute.Outbound = nil
	down, up := framed(udp(t, inetHost4, behind4, 60)), udp(t, behind4, inetHost4, 60)
	for range 2 {
		b.children(mute, both.child("198.18.0.0/16"))
		if out := b.send(down); len(out) != 1 || spiOf(out[0], false, false) != both.in.SPI() {
			t.Fatalf("%d frames; dropped: %v", len(out), b.dropped())
		}
		b.wantOne(deaf.seal(up))
		b.wantOne(both.seal(up))
		b.children(mute, both.child("10.0.0.0/8"))
		b.wantDrop(down, ESPOutboundSelector)
		b.wantOne(deaf.seal(up))
		b.wantDrop(both.seal(up), ESPSelector)
	}
}

// crowd is the selectors of children such as a peer can have in one tunnel: of each so many /32 or /128.
func crowd(children, each int, v6 bool) (list []prefixes) {
	for i := range children {
		s := prefixes{local: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("2001:db8::/32")}}
		for k := range each {
			a := netip.AddrFrom4([4]byte{10, byte(k), byte(i >> 8), byte(i)})
			if v6 {
				b := netip.MustParseAddr("2001:db8::").As16()
				b[9], b[14], b[15] = byte(k), byte(i>>8), byte(i)
				a = netip.AddrFrom16(b)
			}
			s.remote = append(s.remote, netip.PrefixFrom(a, a.BitLen()))
		}
		list = append(list, s)
	}
	return list
}

// BenchmarkSender is the choice of a child for a packet; nothing but any wants it.
func BenchmarkSender(b *testing.B) {
	v4 := header(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.77.0.77"))
	v6 := header(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::77:0:0:77"))
	for _, c := range []struct {
		name string
		list []prefixes
		ip   []byte
	}{
		{"any", []prefixes{{}}, v4},
		{"prefixes=1", crowd(1, 1, false), v4},
		{"prefixes=64", crowd(1, 64, false), v4},
		{"prefixes=1024", crowd(16, 64, false), v4},
		{"prefixes=1024/children=1024", crowd(1024, 1, false), v4},
		{"prefixes=1024/ipv6", crowd(16, 64, true), v6},
	} {
		b.Run(c.name, func(b *testing.B) {
			tun := &espTunnel{senders: make([]sender, len(c.list)), policy: newPolicy(c.list)}
			for b.Loop() {
				tun.sender(c.ip)
			}
		})
	}
}

// BenchmarkSetChildrenCrowded is one change of a tunnel whose customer has as many children and selectors as it can.
func BenchmarkSetChildrenCrowded(b *testing.B) {
	for _, c := range []struct{ children, prefixes int }{{2, 0}, {256, 0}, {256, 2}, {16, 62}} {
		b.Run(fmt.Sprintf("children=%d/prefixes=%d", c.children, c.prefixes), func(b *testing.B) {
			bed := newESPBed(b, 1, negotiated(false))
			vault := aesgcm.NewVault(aesgcm.Options{Portable: true})
			var list []SASpec
			for i, s := range crowd(c.children, c.prefixes, false) {
				p := esp.Params{SPI: uint32(0x10000 + i), Suite: esp.NullSHA1, Key: make([]byte, 20)}
				in, err := esp.NewInbound(vault, p, 0)
				if err != nil {
					b.Fatal(err)
				}
				out, err := esp.NewOutbound(vault, p, 1)
				if err != nil {
					b.Fatal(err)
				}
				k := SASpec{Inbound: []*esp.Inbound{in}, Outbound: out, Endpoint: endpoint4, Peer: netip.AddrPortFrom(customer4, 4500), Either: true}
				if c.prefixes > 0 {
					k.Local, k.Remote = s.local, s.remote
				}
				list = append(list, k)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := bed.engine.SetChildren("cust-a", list)(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
