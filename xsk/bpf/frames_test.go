package bpf

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The node of the tests. Two prefixes contain an endpoint, one is an address.
var (
	testEndpoints = []netip.Addr{
		netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("2001:db8::1"),
	}
	testPrefixes = []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("203.0.113.64/26"),
		netip.MustParsePrefix("198.51.100.7/32"),
		netip.MustParsePrefix("168.0.0.0/6"), // around 169.254.0.0/16
		netip.MustParsePrefix("2001:db8::/64"),
		netip.MustParsePrefix("2001:db8:c::/48"),
		netip.MustParsePrefix("2001:db8:d::7/128"),
		netip.MustParsePrefix("fe00::/8"), // around fe80::/10
	}
)

// A sentence, the frame that it describes, and who must get the frame.
type testFrame struct {
	name  string
	frame []byte
	want  Class
}

const (
	ep4, ep6     = "192.0.2.1", "2001:db8::1"
	cust4, cust6 = "203.0.113.9", "2001:db8:c::9"
	far4, far6   = "100.64.0.1", "2001:db8:ffff::1"
)

func eth(t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{
		DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: t,
	}
}

func tag(t layers.EthernetType) *layers.Dot1Q { return &layers.Dot1Q{VLANIdentifier: 7, Type: t} }

func ip4(dst string, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.IP{198, 51, 100, 2}, DstIP: net.ParseIP(dst).To4()}
}

func ip6(dst string, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP("2001:db8:1::2"), DstIP: net.ParseIP(dst).To16()}
}

func udp(dst layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: 40000, DstPort: dst} }

func gre() *layers.GRE { return &layers.GRE{Protocol: layers.EthernetTypeIPv4} }

// ext is one extension header of 8*(1+more) bytes, its body zero: a padding
// option for the option headers, "no segments left" for a routing header.
func ext(next layers.IPProtocol, more int) gopacket.Payload {
	b := make([]byte, 8*(1+more))
	b[0], b[1] = byte(next), byte(more)
	return b
}

// exts is n destination options before what comes next.
func exts(n int, next layers.IPProtocol) gopacket.Payload {
	var chain gopacket.Payload
	for i := range n {
		after := layers.IPProtocolIPv6Destination
		if i == n-1 {
			after = next
		}
		chain = append(chain, ext(after, 0)...)
	}
	return chain
}

// frag6 is an IPv6 fragment header (RFC 8200 4.5).
func frag6(next layers.IPProtocol, offset int, more bool) gopacket.Payload {
	b := []byte{byte(next), 0, byte(offset >> 8), byte(offset), 0, 0, 0, 9}
	if more {
		b[3] |= 1
	}
	return b
}

func build(t testing.TB, stack ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, stack...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// patch returns a copy with some bytes replaced.
func patch(frame []byte, at int, with ...byte) []byte {
	frame = append([]byte(nil), frame...)
	copy(frame[at:], with)
	return frame
}

// frames is the table. Offsets in patches: Ethernet 14, then the IP header.
func frames(t testing.TB) []testFrame {
	const v4, v6 = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6
	const dot1q, qinq = layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ
	const protoGRE, protoESP, protoUDP, protoTCP = layers.IPProtocolGRE, layers.IPProtocolESP, layers.IPProtocolUDP, layers.IPProtocolTCP
	const hop, opts, routing, frag = layers.IPProtocolIPv6HopByHop, layers.IPProtocolIPv6Destination, layers.IPProtocolIPv6Routing, layers.IPProtocolIPv6Fragment
	b := func(stack ...gopacket.SerializableLayer) []byte { return build(t, stack...) }
	raw := func(b ...byte) gopacket.Payload { return b }
	esp := raw(0xc0, 1, 2, 3, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9)
	ike := raw(0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)
	inner := raw(0x45, 0, 0, 20)
	ping4 := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)}
	bgp := &layers.TCP{DstPort: 179, SYN: true}
	options := func(ip *layers.IPv4) *layers.IPv4 {
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
		return ip
	}
	fragment := func(ip *layers.IPv4, offset uint16, flags layers.IPv4Flag) *layers.IPv4 {
		ip.FragOffset, ip.Flags = offset, flags
		return ip
	}
	pad := func(frame []byte) []byte { return append(frame, make([]byte, max(0, 60-len(frame)))...) }
	gre4 := b(eth(v4), ip4(ep4, protoGRE), gre(), inner)
	gre6 := b(eth(v6), ip6(ep6, protoGRE), gre(), inner)
	natT4 := b(eth(v4), ip4(ep4, protoUDP), udp(4500), esp)

	return []testFrame{
		{"gre to the v4 endpoint", gre4, GRE},
		{"gre to the v6 endpoint", gre6, GRE},
		{"gre in a vlan", b(eth(dot1q), tag(v4), ip4(ep4, protoGRE), gre(), inner), GRE},
		{"gre over ipv6 in a vlan", b(eth(dot1q), tag(v6), ip6(ep6, protoGRE), gre(), inner), GRE},
		{"gre with ip options", b(eth(v4), options(ip4(ep4, protoGRE)), gre(), inner), GRE},
		{"gre with a wrong version bit is the worker's fault to count", patch(gre4, 35, 1), GRE},
		{"gre with no bytes of gre", b(eth(v4), ip4(ep4, protoGRE)), GRE},
		{"gre with an ip header length below 20", patch(gre4, 14, 0x42), GRE},
		{"gre with don't-fragment set", b(eth(v4), fragment(ip4(ep4, protoGRE), 0, layers.IPv4DontFragment), gre(), inner), GRE},
		{"gre behind a destination option, as linux sends it", b(eth(v6), ip6(ep6, opts), ext(protoGRE, 0), gre(), inner), GRE},
		{"gre behind hop-by-hop, routing and destination options", b(eth(v6), ip6(ep6, hop), ext(routing, 0), ext(opts, 2), ext(protoGRE, 1), gre(), inner), GRE},
		{"gre behind eight extension headers", b(eth(v6), ip6(ep6, opts), exts(8, protoGRE), gre(), inner), GRE},
		{"gre behind nine extension headers", b(eth(v6), ip6(ep6, opts), exts(9, protoGRE), gre(), inner), Malformed},
		{"gre behind the longest extension header that fits", b(eth(v6), ip6(ep6, opts), ext(protoGRE, 120), gre(), inner), GRE},
		{"gre behind an extension header that is cut off", b(eth(v6), ip6(ep6, opts), ext(protoGRE, 200)[:16]), GRE},
		{"two extension headers, the first beyond the end", b(eth(v6), ip6(ep6, opts), ext(opts, 200)[:16]), Malformed},

		{"esp to the v4 endpoint", b(eth(v4), ip4(ep4, protoESP), esp), ESP},
		{"esp to the v6 endpoint", b(eth(v6), ip6(ep6, protoESP), esp), ESP},
		{"esp with ip options", b(eth(v4), options(ip4(ep4, protoESP)), esp), ESP},
		{"esp behind destination options", b(eth(v6), ip6(ep6, opts), exts(2, protoESP), esp), ESP},
		{"esp in a vlan", b(eth(dot1q), tag(v4), ip4(ep4, protoESP), esp), ESP},

		{"esp in udp", natT4, ESPInUDP},
		{"esp in udp over ipv6", b(eth(v6), ip6(ep6, protoUDP), udp(4500), esp), ESPInUDP},
		{"esp in udp behind ip options", b(eth(v4), options(ip4(ep4, protoUDP)), udp(4500), esp), ESPInUDP},
		{"esp in udp behind a hop-by-hop header", b(eth(v6), ip6(ep6, hop), ext(protoUDP, 0), udp(4500), esp), ESPInUDP},
		{"an spi whose only bit is in its last byte", b(eth(v4), ip4(ep4, protoUDP), udp(4500), raw(0, 0, 0, 1)), ESPInUDP},
		{"an spi whose only bit is in its first byte", b(eth(v4), ip4(ep4, protoUDP), udp(4500), raw(0x80, 0, 0, 0)), ESPInUDP},

		{"ike", b(eth(v4), ip4(ep4, protoUDP), udp(500), ike), IKE},
		{"ike over ipv6", b(eth(v6), ip6(ep6, protoUDP), udp(500), ike), IKE},
		{"ike on 4500 behind the non-esp marker", b(eth(v4), ip4(ep4, protoUDP), udp(4500), ike), IKE},
		{"ike on 4500 over ipv6 in a vlan", b(eth(dot1q), tag(v6), ip6(ep6, protoUDP), udp(4500), ike), IKE},
		{"nat keepalive", b(eth(v4), ip4(ep4, protoUDP), udp(4500), raw(0xff)), IKE},
		{"nat keepalive padded to 60 bytes", pad(b(eth(v4), ip4(ep4, protoUDP), udp(4500), raw(0xff))), IKE},
		{"nat keepalive over ipv6, padded", pad(b(eth(v6), ip6(ep6, protoUDP), udp(4500), raw(0xff))), IKE},
		{"three bytes on 4500, padded", pad(b(eth(v4), ip4(ep4, protoUDP), udp(4500), raw(1, 2, 3))), IKE},
		{"udp length 0 on 4500", patch(natT4, 38, 0, 0), IKE},
		{"udp with an ip header length below 20", patch(natT4, 14, 0x43), Malformed},
		{"udp with ip options beyond the end", patch(natT4, 14, 0x4f), Malformed},

		{"first fragment of gre", b(eth(v4), fragment(ip4(ep4, protoGRE), 0, layers.IPv4MoreFragments), gre(), inner), Fragment},
		{"middle fragment of udp", b(eth(v4), fragment(ip4(ep4, protoUDP), 100, layers.IPv4MoreFragments), inner), Fragment},
		{"last fragment of icmp", b(eth(v4), fragment(ip4(ep4, layers.IPProtocolICMPv4), 185, 0), inner), Fragment},
		{"last fragment at the greatest offset", b(eth(v4), fragment(ip4(ep4, protoTCP), 0x1fff, 0), inner), Fragment},
		{"first fragment of ike in a vlan", b(eth(dot1q), tag(v4), fragment(ip4(ep4, protoUDP), 0, layers.IPv4MoreFragments), udp(500), ike), Fragment},
		{"first ipv6 fragment", b(eth(v6), ip6(ep6, frag), frag6(protoGRE, 0, true), gre(), inner), Fragment},
		{"later ipv6 fragment", b(eth(v6), ip6(ep6, frag), frag6(protoUDP, 1448, false), inner), Fragment},
		{"atomic ipv6 fragment", b(eth(v6), ip6(ep6, frag), frag6(layers.IPProtocolICMPv6, 0, false), inner), Fragment},
		{"ipv6 fragment behind options", b(eth(v6), ip6(ep6, hop), ext(opts, 0), ext(frag, 1), frag6(protoESP, 8, true), inner), Fragment},
		{"ipv6 fragment header cut off", b(eth(v6), ip6(ep6, frag), raw(47, 0, 0)), Fragment},

		{"ping of the endpoint", b(eth(v4), ip4(ep4, layers.IPProtocolICMPv4), ping4), EndpointOther},
		{"ping of the v6 endpoint", b(eth(v6), ip6(ep6, layers.IPProtocolICMPv6), raw(128, 0, 0, 0, 0, 1, 0, 1)), EndpointOther},
		{"ping behind a hop-by-hop header", b(eth(v6), ip6(ep6, hop), ext(layers.IPProtocolICMPv6, 0), raw(128, 0, 0, 0)), EndpointOther},
		{"an echo reply that begins as a probe", b(eth(v4), ip4(ep4, layers.IPProtocolICMPv4), raw(0, 0, 9, 9, 0, 1, 0, 1, 'c', 'w', 'h', 'p', 1)), Probe},
		{"one with ip options", b(eth(v4), options(ip4(ep4, layers.IPProtocolICMPv4)), raw(0, 0, 9, 9, 0, 1, 0, 1, 'c', 'w', 'h', 'p')), Probe},
		{"one of ipv6", b(eth(v6), ip6(ep6, layers.IPProtocolICMPv6), raw(129, 0, 9, 9, 0, 1, 0, 1, 'c', 'w', 'h', 'p', 1)), Probe},
		{"one of ipv6 in a vlan, behind an option", b(eth(dot1q), tag(v6), ip6(ep6, opts), ext(layers.IPProtocolICMPv6, 0), raw(129, 0, 9, 9, 0, 1, 0, 1, 'c', 'w', 'h', 'p')), Probe},
		{"one that is cut off", b(eth(v4), ip4(ep4, layers.IPProtocolICMPv4), raw(0, 0, 9, 9, 0, 1, 0, 1, 'c', 'w', 'h')), EndpointOther},
		{"an echo request that begins as a probe", b(eth(v4), ip4(ep4, layers.IPProtocolICMPv4), raw(8, 0, 9, 9, 0, 1, 0, 1, 'c', 'w', 'h', 'p')), EndpointOther},
		{"an answer to the host's own ping", b(eth(v6), ip6(ep6, layers.IPProtocolICMPv6), raw(129, 0, 9, 9, 0, 1, 0, 1, 'c', 'w', 'h', 'q')), EndpointOther},
		{"icmpv4's echo reply in ipv6", b(eth(v6), ip6(ep6, layers.IPProtocolICMPv6), raw(0, 0, 9, 9, 0, 1, 0, 1, 'c', 'w', 'h', 'p')), EndpointOther},
		{"bgp to the endpoint", b(eth(v4), ip4(ep4, protoTCP), bgp), EndpointOther},
		{"dns to the endpoint", b(eth(v4), ip4(ep4, protoUDP), udp(53), esp), EndpointOther},
		{"udp from 4500 to another port", b(eth(v4), ip4(ep4, protoUDP), &layers.UDP{SrcPort: 4500, DstPort: 53}, esp), EndpointOther},
		{"ip in ip to the endpoint", b(eth(v4), ip4(ep4, layers.IPProtocolIPv4), inner), EndpointOther},
		{"no next header", b(eth(v6), ip6(ep6, opts), ext(layers.IPProtocolNoNextHeader, 0)), EndpointOther},
		{"authentication header is not walked", b(eth(v6), ip6(ep6, layers.IPProtocolAH), ext(protoGRE, 0), gre(), inner), EndpointOther},

		{"tcp to a customer", b(eth(v4), ip4(cust4, protoTCP), bgp), Prefix},
		{"tcp to a customer over ipv6", b(eth(v6), ip6(cust6, protoTCP), bgp), Prefix},
		{"gre to a customer, not to us", b(eth(v4), ip4(cust4, protoGRE), gre(), inner), Prefix},
		{"first address of a prefix", b(eth(v4), ip4("203.0.113.0", protoUDP), udp(53)), Prefix},
		{"last address of a prefix", b(eth(v4), ip4("203.0.113.255", protoUDP), udp(53)), Prefix},
		{"inside a nested prefix", b(eth(v4), ip4("203.0.113.65", protoUDP), udp(53)), Prefix},
		{"a prefix of one address", b(eth(v4), ip4("198.51.100.7", protoUDP), udp(53)), Prefix},
		{"a v6 prefix of one address", b(eth(v6), ip6("2001:db8:d::7", protoUDP), udp(53)), Prefix},
		{"beside an endpoint in the same prefix", b(eth(v4), ip4("192.0.2.2", protoGRE), gre(), inner), Prefix},
		{"fragment to a customer", b(eth(v4), fragment(ip4(cust4, protoUDP), 100, layers.IPv4MoreFragments), inner), Prefix},
		{"customer in a vlan", b(eth(dot1q), tag(v4), ip4(cust4, protoTCP), bgp), Prefix},
		{"customer with ip options", b(eth(v4), options(ip4(cust4, protoTCP)), bgp), Prefix},
		{"customer with nine extension headers", b(eth(v6), ip6(cust6, opts), exts(9, protoTCP), bgp), Prefix},
		{"customer with a bad header length", patch(b(eth(v4), ip4(cust4, protoTCP), bgp), 14, 0x41), Prefix},

		{"gre to another host", b(eth(v4), ip4(far4, protoGRE), gre(), inner), Other},
		{"gre to another host over ipv6", b(eth(v6), ip6(far6, protoGRE), gre(), inner), Other},
		{"fragment to another host", b(eth(v4), fragment(ip4(far4, protoUDP), 1, 0), inner), Other},
		{"one below a prefix", b(eth(v4), ip4("203.0.112.255", protoUDP), udp(53)), Other},
		{"one above a prefix", b(eth(v4), ip4("203.0.114.0", protoUDP), udp(53)), Other},
		{"beside a prefix of one address", b(eth(v4), ip4("198.51.100.6", protoUDP), udp(53)), Other},
		{"link-local inside a prefix", b(eth(v4), ip4("169.254.1.1", protoUDP), udp(53)), Other},
		{"beside link-local inside a prefix", b(eth(v4), ip4("169.253.255.255", protoUDP), udp(53)), Prefix},
		{"ospf", b(eth(v4), ip4("224.0.0.5", layers.IPProtocolOSPF), inner), Other},
		{"limited broadcast", b(eth(v4), ip4("255.255.255.255", protoUDP), udp(67)), Other},
		{"v6 link-local inside a prefix", b(eth(v6), ip6("fe80::1", protoTCP), bgp), Other},
		{"the end of v6 link-local", b(eth(v6), ip6("febf:ffff::1", protoTCP), bgp), Other},
		{"beyond v6 link-local inside a prefix", b(eth(v6), ip6("fec0::1", protoTCP), bgp), Prefix},
		{"neighbour solicitation", b(eth(v6), ip6("ff02::1:ff00:1", layers.IPProtocolICMPv6), raw(135, 0, 0, 0)), Other},
		{"mapped v4 endpoint as a v6 destination", b(eth(v6), ip6v4mapped(), gre(), inner), Other},

		{"arp", b(eth(layers.EthernetTypeARP), raw(0, 1, 8, 0, 6, 4, 0, 1)), NotIP},
		{"lldp", b(eth(layers.EthernetTypeLinkLayerDiscovery), raw(2, 7, 4)), NotIP},
		{"two 802.1q tags", b(eth(dot1q), tag(dot1q), tag(v4), ip4(ep4, protoGRE), gre(), inner), NotIP},
		{"802.1ad", b(eth(qinq), tag(v4), ip4(ep4, protoGRE), gre(), inner), NotIP},
		{"ethertype below 1536 is a length", b(eth(0x0026), inner), NotIP},
		{"gre to a broadcast mac", patch(gre4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), GroupMAC},
		{"gre to a multicast mac", patch(gre6, 0, 0x33, 0x33), GroupMAC},
		{"ipv4 ethertype with version 6", patch(gre4, 14, 0x65), Malformed},
		{"ipv6 ethertype with version 4", patch(gre6, 14, 0x45), Malformed},
	}
}

// ip6v4mapped is an IPv6 header to ::ffff:192.0.2.1, which no packet should have.
func ip6v4mapped() *layers.IPv6 {
	ip := ip6("::", layers.IPProtocolGRE)
	ip.DstIP = net.ParseIP(ep4).To16()
	return ip
}

// The table was written by hand, so it can judge the oracle.
func TestOracleAgreesWithTable(t *testing.T) {
	o := oracle{testEndpoints, testPrefixes}
	seen := make(map[Class]bool)
	for _, f := range frames(t) {
		if got := o.classify(f.frame); got != f.want {
			t.Errorf("%s: oracle says %v, the table %v\n% x", f.name, got, f.want, f.frame)
		}
		seen[f.want] = true
	}
	for c := range NoSocket {
		if !seen[c] {
			t.Errorf("no frame of class %v in the table", c)
		}
	}
}
