package pmtu

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/pipeline/wire"
)

var (
	endpoint4, customer4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	endpoint6, customer6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:9::2")
	router4, router6     = netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("2001:db8:7::7")
	start                = time.Unix(1_700_000_000, 0)
)

// The tunnels of the tests: two share a path and differ in their keys.
var tunnels = []Tunnel{
	{ID: 1, Name: "plain", Endpoint: endpoint4, CustomerEndpoint: customer4, MTU: 1476, Overhead: 24, Believe: true},
	{ID: 2, Name: "keyed", Endpoint: endpoint4, CustomerEndpoint: customer4, HasKey: true, Key: 42, MTU: 1472, Overhead: 28, Believe: true},
	{ID: 3, Name: "other key", Endpoint: endpoint4, CustomerEndpoint: customer4, HasKey: true, Key: 43, MTU: 1472, Overhead: 28, Believe: true},
	{ID: 4, Name: "off", Endpoint: endpoint4, CustomerEndpoint: netip.MustParseAddr("198.51.100.4"), MTU: 1476, Overhead: 24},
	{ID: 5, Name: "all", Endpoint: endpoint4, CustomerEndpoint: netip.MustParseAddr("198.51.100.5"), HasKey: true, Key: 7, Checksum: true, Sequence: true, MTU: 1464, Overhead: 36, Believe: true},
	{ID: 7, Name: "esp", Endpoint: endpoint4, CustomerEndpoint: customer4, SPI: 0x2001, MTU: 1446, Overhead: 57, Believe: true, Fits: gcm(20)},
	{ID: 8, Name: "esp in udp", Endpoint: endpoint4, CustomerEndpoint: customer4, SPI: 0x2002, UDP: true, MTU: 1438, Overhead: 65, Believe: true, Fits: gcm(28)},
	{ID: 6, Name: "six", Endpoint: endpoint6, CustomerEndpoint: customer6, MTU: 1456, Overhead: 44, Believe: true},
}

// gcm is what fits an outer packet with AES-GCM behind an outer header: a multiple of four, less two.
func gcm(outer int) func(int) int {
	return func(size int) int { return (size-outer-32)&^3 - 2 }
}

func words(w ...uint32) (b []byte) {
	for _, x := range w {
		b = binary.BigEndian.AppendUint32(b, x)
	}
	return b
}

// bed is a Learner and what it said.
type bed struct {
	*Learner
	mtu map[int]int
}

func newBed() *bed {
	b := &bed{mtu: map[int]int{}}
	b.Learner = New(func(id, mtu int) { b.mtu[id] = mtu }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	b.SetTunnels(tunnels)
	return b
}

// quote describes an outer packet and how much of it an error quotes.
type quote struct {
	src, dst netip.Addr
	proto    byte
	total    int
	offset   int // fragment offset in bytes
	gre      []byte
	bytes    int // behind the IP header; 0: all of gre
}

func (q quote) payload() []byte {
	if q.bytes != 0 {
		return append(append([]byte(nil), q.gre...), make([]byte, 64)...)[:q.bytes]
	}
	return append(append([]byte(nil), q.gre...), make([]byte, 8)...)
}

func gre(flags uint16, words ...uint32) []byte {
	b := binary.BigEndian.AppendUint16(nil, flags)
	b = binary.BigEndian.AppendUint16(b, 0x0800)
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// error4 builds the datagram that a raw socket delivers.
func error4(dst netip.Addr, typ, code byte, mtu uint16, q quote) []byte {
	inner := make([]byte, 20)
	inner[0], inner[8], inner[9] = 0x45, 60, q.proto
	binary.BigEndian.PutUint16(inner[2:], uint16(q.total))
	binary.BigEndian.PutUint16(inner[6:], uint16(q.offset/8))
	copy(inner[12:], q.src.AsSlice())
	copy(inner[16:], q.dst.AsSlice())
	inner = append(inner, q.payload()...)
	icmp := append([]byte{typ, code, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, inner...)
	binary.BigEndian.PutUint16(icmp[2:], wire.Checksum(icmp))
	packet := make([]byte, 20, 20+len(icmp))
	packet[0], packet[8], packet[9] = 0x45, 60, 1
	binary.BigEndian.PutUint16(packet[2:], uint16(20+len(icmp)))
	copy(packet[12:], router4.AsSlice())
	copy(packet[16:], dst.AsSlice())
	return append(packet, icmp...)
}

// error6 builds the message that a raw ICMPv6 socket delivers.
func error6(dst netip.Addr, typ byte, mtu uint32, q quote) []byte {
	inner := make([]byte, 40)
	inner[0], inner[6], inner[7] = 0x60, q.proto, 60
	binary.BigEndian.PutUint16(inner[4:], uint16(q.total-40))
	copy(inner[8:], q.src.AsSlice())
	copy(inner[24:], q.dst.AsSlice())
	icmp := binary.BigEndian.AppendUint32([]byte{typ, 0, 0, 0}, mtu)
	icmp = append(append(icmp, inner...), q.payload()...)
	check := ^wire.Fold(wire.Sum(icmp, wire.PseudoSum6(pseudo6(router6, dst), wire.ProtoICMPv6, len(icmp))))
	binary.BigEndian.PutUint16(icmp[2:], check)
	return icmp
}

func TestWhichErrorsAreBelieved(t *testing.T) {
	plain := quote{src: endpoint4, dst: customer4, proto: 47, total: 1500, gre: gre(0)}
	with := func(change func(*quote)) quote {
		q := plain
		change(&q)
		return q
	}
	for _, c := range []struct {
		name    string
		dst     netip.Addr
		typ     byte
		code    byte
		mtu     uint16
		q       quote
		verdict Verdict
		learned map[int]int
	}{
		{"a narrower link", endpoint4, 3, 4, 1400, plain, Lowered, map[int]int{1: 1376}},
		{"the least that is quoted: 8 bytes", endpoint4, 3, 4, 1400, with(func(q *quote) { q.bytes = 8 }), Lowered, map[int]int{1: 1376}},
		{"the key says which tunnel", endpoint4, 3, 4, 1400, with(func(q *quote) { q.gre = gre(0x2000, 43) }), Lowered, map[int]int{3: 1372}},
		{"flags without the key: both tunnels share the path", endpoint4, 3, 4, 1400,
			with(func(q *quote) { q.gre, q.bytes, q.total = gre(0x2000)[:4], 4, 24 }), Implausible, nil},
		{"a key that no tunnel has", endpoint4, 3, 4, 1400, with(func(q *quote) { q.gre = gre(0x2000, 44) }), WrongHeader, nil},
		{"flags that no tunnel sends", endpoint4, 3, 4, 1400, with(func(q *quote) { q.gre = gre(0x1000, 1) }), WrongHeader, nil},
		{"GRE version 1", endpoint4, 3, 4, 1400, with(func(q *quote) { q.gre = gre(0x0001) }), WrongHeader, nil},
		{"all options", endpoint4, 3, 4, 1400,
			with(func(q *quote) { q.dst, q.gre = tunnels[4].CustomerEndpoint, gre(0xb000, 0, 7, 9) }), Lowered, map[int]int{5: 1364}},
		{"all options, wrong key", endpoint4, 3, 4, 1400,
			with(func(q *quote) { q.dst, q.gre = tunnels[4].CustomerEndpoint, gre(0xb000, 0, 8, 9) }), WrongHeader, nil},
		{"all options, the key not quoted", endpoint4, 3, 4, 1400,
			with(func(q *quote) { q.dst, q.gre, q.bytes = tunnels[4].CustomerEndpoint, gre(0xb000, 0), 8 }), Lowered, map[int]int{5: 1364}},
		{"pmtu: off", endpoint4, 3, 4, 1400, with(func(q *quote) { q.dst = tunnels[3].CustomerEndpoint }), NotBelieved, nil},
		{"another customer", endpoint4, 3, 4, 1400, with(func(q *quote) { q.dst = netip.MustParseAddr("198.51.100.77") }), NoTunnel, nil},
		{"another endpoint, quoted and addressed", netip.MustParseAddr("192.0.2.9"), 3, 4, 1400,
			with(func(q *quote) { q.src = netip.MustParseAddr("192.0.2.9") }), NoTunnel, nil},
		{"the quote turned round", customer4, 3, 4, 1400, with(func(q *quote) { q.src, q.dst = customer4, endpoint4 }), NoTunnel, nil},
		{"sent to somebody else than the quoted source", netip.MustParseAddr("192.0.2.11"), 3, 4, 1400, plain, Misdirected, nil},
		{"a quote of TCP", endpoint4, 3, 4, 1400, with(func(q *quote) { q.proto = 6 }), NotGRE, nil},
		{"esp", endpoint4, 3, 4, 1400, with(func(q *quote) { q.proto, q.gre = 50, words(0x2001, 7) }), Lowered, map[int]int{7: 1346}},
		{"esp, 8 bytes", endpoint4, 3, 4, 1403, with(func(q *quote) { q.proto, q.gre, q.bytes = 50, words(0x2001, 7), 8 }), Lowered, map[int]int{7: 1346}},
		{"esp with another spi", endpoint4, 3, 4, 1400, with(func(q *quote) { q.proto, q.gre = 50, words(0x2003, 7) }), WrongHeader, nil},
		{"esp with the spi of esp in udp", endpoint4, 3, 4, 1400, with(func(q *quote) { q.proto, q.gre = 50, words(0x2002, 7) }), WrongHeader, nil},
		{"esp, not even an spi", endpoint4, 3, 4, 1400, with(func(q *quote) { q.proto, q.gre, q.bytes = 50, nil, 3 }), Malformed, nil},
		{"esp in udp", endpoint4, 3, 4, 1400, with(func(q *quote) { q.proto, q.gre = 17, words(4500<<16|4500, 1480<<16, 0x2002, 7) }), Lowered, map[int]int{8: 1338}},
		{"esp in udp, 8 bytes", endpoint4, 3, 4, 1400,
			with(func(q *quote) { q.proto, q.gre, q.bytes = 17, words(4500<<16|4500, 1480<<16), 8 }), Lowered, map[int]int{8: 1338}},
		{"esp in udp with another spi", endpoint4, 3, 4, 1400,
			with(func(q *quote) { q.proto, q.gre = 17, words(4500<<16|4500, 1480<<16, 0x2001, 7) }), WrongHeader, nil},
		{"udp of another port", endpoint4, 3, 4, 1400, with(func(q *quote) { q.proto, q.gre = 17, words(53<<16|4500, 1480<<16, 0x2002, 7) }), NotGRE, nil},
		{"udp without a header", endpoint4, 3, 4, 1400, with(func(q *quote) { q.proto, q.gre, q.bytes = 17, words(4500<<16|4500), 7 }), Malformed, nil},
		{"a later fragment", endpoint4, 3, 4, 1400, with(func(q *quote) { q.offset = 8 }), NotGRE, nil},
		{"port unreachable", endpoint4, 3, 3, 1400, plain, NotTooBig, nil},
		{"time exceeded", endpoint4, 11, 0, 1400, plain, NotTooBig, nil},
		{"an echo request", endpoint4, 8, 0, 1400, plain, Malformed, nil},
		{"a size that the quoted packet fits", endpoint4, 3, 4, 1500, plain, Implausible, nil},
		{"about a packet longer than any of the tunnel's", endpoint4, 3, 4, 1400, with(func(q *quote) { q.total = 9000 }), Implausible, nil},
		{"below 576: not less than 576 is believed", endpoint4, 3, 4, 68, plain, Lowered, map[int]int{1: 552}},
		{"below 576, about a small packet", endpoint4, 3, 4, 68, with(func(q *quote) { q.total = 500 }), Lowered, map[int]int{1: 552}},
		{"no size: the next plateau", endpoint4, 3, 4, 0, plain, Lowered, map[int]int{1: 1468}},
		{"the tunnel's own size", endpoint4, 3, 4, 1500, with(func(q *quote) { q.total = 1510 }), Confirmed, nil},
	} {
		b := newBed()
		if v := take4(b.Learner, outside, error4(c.dst, c.typ, c.code, c.mtu, c.q), start); v != c.verdict {
			t.Errorf("%s: %s, want %s", c.name, v, c.verdict)
		}
		if b.Counts()[c.verdict] != 1 {
			t.Errorf("%s: counts %v", c.name, b.Counts())
		}
		check(t, c.name, b, c.learned)
	}
}

func check(t *testing.T, name string, b *bed, want map[int]int) {
	t.Helper()
	for _, u := range tunnels {
		if b.mtu[u.ID] != want[u.ID] {
			t.Errorf("%s: tunnel %q learned %d, want %d", name, u.Name, b.mtu[u.ID], want[u.ID])
		}
	}
}

func TestWhichIPv6ErrorsAreBelieved(t *testing.T) {
	plain := quote{src: endpoint6, dst: customer6, proto: 47, total: 1500, gre: gre(0)}
	for _, c := range []struct {
		name    string
		dst     netip.Addr
		typ     byte
		mtu     uint32
		q       quote
		verdict Verdict
		learned map[int]int
	}{
		{"a narrower link", endpoint6, 2, 1400, plain, Lowered, map[int]int{6: 1356}},
		{"the least", endpoint6, 2, 1280, plain, Lowered, map[int]int{6: 1236}},
		{"less than every link has (RFC 8201 4)", endpoint6, 2, 1279, plain, TooSmall, nil},
		{"more than 16 bits", endpoint6, 2, 1 << 20, plain, Implausible, nil},
		{"time exceeded", endpoint6, 3, 1400, plain, NotTooBig, nil},
		{"sent to another address", netip.MustParseAddr("2001:db8::2"), 2, 1400, plain, Misdirected, nil},
	} {
		b := newBed()
		from := &unix.SockaddrInet6{Addr: router6.As16()}
		if v := listener.take6(b.Learner, message{error6(c.dst, c.typ, c.mtu, c.q), pktinfo6(c.dst, outside), from}, start); v != c.verdict {
			t.Errorf("%s: %s, want %s", c.name, v, c.verdict)
		}
		check(t, c.name, b, c.learned)
	}
}

// The interfaces by which messages come: the TUN device, and another one.
const through, outside = 7, 2

var listener = &Listener{tun: through}

// take4 lets the listener take a datagram that came by an interface.
func take4(l *Learner, by int, packet []byte, now time.Time) Verdict {
	info := make([]byte, unix.SizeofInet4Pktinfo)
	binary.NativeEndian.PutUint32(info, uint32(by))
	return listener.take4(l, message{data: packet, control: controlMessage(unix.IPPROTO_IP, unix.IP_PKTINFO, info)}, now)
}

// pktinfo6 is the control data that says where a message was sent, and by which interface it came.
func pktinfo6(dst netip.Addr, by int) []byte {
	a := dst.As16()
	return controlMessage(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, binary.NativeEndian.AppendUint32(a[:], uint32(by)))
}

func controlMessage(level, kind uint32, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(b[8:], level)
	binary.NativeEndian.PutUint32(b[12:], kind)
	copy(b[16:], data)
	return b
}

// TestCustomersAreNotOnThePath: what came through a tunnel can say nothing about the path of outer packets, however
// well it is made.
func TestCustomersAreNotOnThePath(t *testing.T) {
	b := newBed()
	four := error4(endpoint4, 3, 4, 1400, quote{src: endpoint4, dst: customer4, proto: 47, total: 1500, gre: gre(0)})
	if v := take4(b.Learner, through, four, start); v != ThroughTunnel {
		t.Errorf("IPv4: %s", v)
	}
	six := error6(endpoint6, 2, 1400, quote{src: endpoint6, dst: customer6, proto: 47, total: 1500, gre: gre(0)})
	from := &unix.SockaddrInet6{Addr: router6.As16()}
	if v := listener.take6(b.Learner, message{six, pktinfo6(endpoint6, through), from}, start); v != ThroughTunnel {
		t.Errorf("IPv6: %s", v)
	}
	check(t, "through a tunnel", b, nil)
	if b.Counts()[ThroughTunnel] != 2 {
		t.Errorf("counts %v", b.Counts())
	}
}

func TestBrokenBytesAreCountedNotBelieved(t *testing.T) {
	whole := error4(endpoint4, 3, 4, 1400, quote{src: endpoint4, dst: customer4, proto: 47, total: 1500, gre: gre(0)})
	for n := range whole[:47] { // up to the first byte of the quoted GRE header
		b := newBed()
		if v := take4(b.Learner, outside, whole[:n], start); v != Malformed {
			t.Errorf("cut to %d bytes: %s", n, v)
		}
	}
	for i := 20; i < len(whole); i++ {
		flipped := append([]byte(nil), whole...)
		flipped[i] ^= 0x10
		b := newBed()
		if v := take4(b.Learner, outside, flipped, start); v != Malformed {
			t.Errorf("bit of byte %d turned: %s; the checksum is wrong", i, v)
		}
	}
	b := newBed()
	if v := listener.take6(b.Learner, message{whole, nil, &unix.SockaddrInet6{}}, start); v != Malformed {
		t.Errorf("without a destination: %s", v)
	}
}

func TestWhatWasLearnedIsForgottenAfterTenMinutes(t *testing.T) {
	b := newBed()
	report := func(mtu uint16, at time.Duration) Verdict {
		return take4(b.Learner, outside, error4(endpoint4, 3, 4, mtu, quote{src: endpoint4, dst: customer4, proto: 47, total: 1500, gre: gre(0)}), start.Add(at))
	}
	report(1400, 0)
	if v := report(1450, time.Minute); v != Confirmed || b.mtu[1] != 1376 {
		t.Errorf("a larger size: %s, mtu %d; it is tried again only when the smaller one expires", v, b.mtu[1])
	}
	if v := report(1400, 2*time.Minute); v != Confirmed { // seen again: ten minutes from now
		t.Errorf("the same size again: %s", v)
	}
	b.Expire(start.Add(11 * time.Minute))
	if b.mtu[1] != 1376 {
		t.Errorf("forgotten 9 minutes after it was confirmed")
	}
	b.Expire(start.Add(12 * time.Minute))
	if b.mtu[1] != 0 {
		t.Errorf("still %d 10 minutes after it was confirmed", b.mtu[1])
	}
	if v := report(1450, 13*time.Minute); v != Lowered || b.mtu[1] != 1426 {
		t.Errorf("learning again: %s, mtu %d", v, b.mtu[1])
	}
}

func TestReloadKeepsWhatIsStillTrue(t *testing.T) {
	b := newBed()
	q := quote{src: endpoint4, dst: customer4, proto: 47, total: 1500, gre: gre(0)}
	take4(b.Learner, outside, error4(endpoint4, 3, 4, 1400, q), start)

	keyed := tunnels[0]
	keyed.HasKey, keyed.Key, keyed.Overhead, keyed.MTU = true, 9, 28, 1472
	b.SetTunnels([]Tunnel{keyed})
	if b.mtu[1] != 1372 {
		t.Errorf("with a key the path of 1400 bytes carries 1372, not %d", b.mtu[1])
	}
	small := tunnels[0]
	small.MTU = 1300
	b.SetTunnels([]Tunnel{small})
	if b.mtu[1] != 0 {
		t.Errorf("a configured mtu of 1300 is all that is known, not %d", b.mtu[1])
	}
	take4(b.Learner, outside, error4(endpoint4, 3, 4, 1200, q), start)
	moved := small
	moved.CustomerEndpoint = netip.MustParseAddr("198.51.100.99")
	b.SetTunnels([]Tunnel{moved})
	if b.mtu[1] != 0 {
		t.Errorf("the path to another customer endpoint is not known, not %d", b.mtu[1])
	}
}

func FuzzErrors(f *testing.F) {
	f.Add(error4(endpoint4, 3, 4, 1400, quote{src: endpoint4, dst: customer4, proto: 47, total: 1500, gre: gre(0x2000, 42)}), false)
	f.Add(error6(endpoint6, 2, 1400, quote{src: endpoint6, dst: customer6, proto: 47, total: 1500, gre: gre(0)}), true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		l := newBed()
		if v6 {
			listener.take6(l.Learner, message{b, pktinfo6(endpoint6, outside), &unix.SockaddrInet6{Addr: router6.As16()}}, start)
		} else {
			take4(l.Learner, outside, b, start)
		}
		for _, u := range tunnels {
			least := least4
			if u.Endpoint.Is6() {
				least = least6
			}
			if got := l.mtu[u.ID]; got != 0 && (got < least-u.Overhead || got >= u.MTU || !u.Believe) {
				t.Errorf("tunnel %q learned %d", u.Name, got)
			}
		}
	})
}

// TestNumberOfAnother: an error that comes between the tables' change and SetTunnels stands under a number that is free by then.
func TestNumberOfAnother(t *testing.T) {
	b := newBed()
	old := tunnels[5]
	e := error4(endpoint4, 3, 4, 700, quote{src: endpoint4, dst: customer4, proto: 50, total: 1400, gre: words(0x2001, 1)})
	if v := b.Take4(endpoint4, e[20:], start); b.mtu[old.ID] == 0 {
		t.Fatalf("%v: nothing was learned", v)
	}
	b.SetTunnels(nil)
	b.SetTunnels([]Tunnel{{ID: old.ID, Name: "another", Endpoint: old.Endpoint, CustomerEndpoint: router4, SPI: 0x3001, MTU: 1446, Overhead: 57, Believe: true, Fits: gcm(20)}})
	if b.mtu[old.ID] != 0 {
		t.Errorf("another tunnel with its number has a path MTU of %d", b.mtu[old.ID])
	}
}
