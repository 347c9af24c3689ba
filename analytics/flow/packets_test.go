package flow

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// randomPacket is an IP packet, written by gopacket, whose lengths are right and whose other fields are random.
func randomPacket(t testing.TB, r *rand.Rand) []byte {
	protocol, upper := randomUpper(r)
	if r.IntN(2) == 0 {
		return serialize(t, append([]gopacket.SerializableLayer{randomIPv4(r, protocol)}, upper...)...)
	}
	next, extensions := randomExtensions(t, r, protocol)
	ip := &layers.IPv6{Version: 6, TrafficClass: uint8(r.Uint32()), FlowLabel: r.Uint32() & 0xfffff, HopLimit: uint8(r.Uint32()),
		NextHeader: next, SrcIP: randomBytes(r, 16), DstIP: randomBytes(r, 16)}
	return serialize(t, append([]gopacket.SerializableLayer{ip, gopacket.Payload(extensions)}, upper...)...)
}

func serialize(t testing.TB, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, all...))
	return buf.Bytes()
}

func randomIPv4(r *rand.Rand, protocol layers.IPProtocol) *layers.IPv4 {
	ip := &layers.IPv4{Version: 4, TOS: uint8(r.Uint32()), Id: uint16(r.Uint32()), TTL: uint8(r.Uint32()), Protocol: protocol,
		Checksum: uint16(r.Uint32()), SrcIP: randomBytes(r, 4), DstIP: randomBytes(r, 4)}
	if r.IntN(3) == 0 {
		ip.Flags = layers.IPv4Flag(r.IntN(8))
	}
	if r.IntN(8) == 0 {
		ip.FragOffset = uint16(r.IntN(8192))
	}
	for room := 40; r.IntN(3) == 0; {
		n := 3 + r.IntN(9)
		if room -= n; room < 0 {
			break
		}
		kind := 7 + uint8(r.IntN(200))
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: kind, OptionLength: uint8(n), OptionData: randomBytes(r, n-2)})
	}
	return ip
}

// randomExtensions are up to four extension headers in front of a protocol.
func randomExtensions(t testing.TB, r *rand.Rand, protocol layers.IPProtocol) (first layers.IPProtocol, b []byte) {
	next := protocol
	place := []layers.IPProtocol{layers.IPProtocolIPv6HopByHop, layers.IPProtocolIPv6Destination, layers.IPProtocolIPv6Routing,
		layers.IPProtocolIPv6Fragment}
	for i := len(place) - 1; i >= 0; i-- {
		if r.IntN(3) != 0 {
			continue
		}
		var header []byte
		switch kind := place[i]; kind {
		case layers.IPProtocolIPv6HopByHop:
			hop := &layers.IPv6HopByHop{Options: []*layers.IPv6HopByHopOption{{OptionType: 5, OptionData: randomBytes(r, 4+8*r.IntN(3))}}}
			hop.NextHeader = next
			header = serialize(t, hop)
		case layers.IPProtocolIPv6Destination:
			dst := &layers.IPv6Destination{Options: []*layers.IPv6DestinationOption{{OptionType: 30, OptionData: randomBytes(r, 4)}}}
			dst.NextHeader = next
			header = serialize(t, dst)
		case layers.IPProtocolIPv6Routing: // gopacket does not write it: two addresses
			header = append([]byte{byte(next), 4, 0, 1, 0, 0, 0, 0}, randomBytes(r, 32)...)
		default: // nor this
			header = append([]byte{byte(next), 0, 0, 0}, randomBytes(r, 4)...)
			if r.IntN(2) == 0 {
				binary.BigEndian.PutUint16(header[2:], uint16(r.Uint32()))
			} else {
				header[3] = byte(r.IntN(2)) // the first of several, or the only one
			}
		}
		next, b = place[i], append(header, b...)
	}
	return next, b
}

// randomUpper is what an IP packet carries.
func randomUpper(r *rand.Rand) (layers.IPProtocol, []gopacket.SerializableLayer) {
	data := gopacket.Payload(randomBytes(r, r.IntN(100)))
	switch r.IntN(6) {
	case 0:
		return layers.IPProtocolTCP, []gopacket.SerializableLayer{randomTCP(r), data}
	case 1:
		return layers.IPProtocolUDP, []gopacket.SerializableLayer{&layers.UDP{SrcPort: layers.UDPPort(r.Uint32()),
			DstPort: layers.UDPPort(r.Uint32()), Checksum: uint16(r.Uint32())}, data}
	case 2:
		return layers.IPProtocolICMPv4, []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.ICMPv4TypeCode(r.Uint32()),
			Checksum: uint16(r.Uint32())}, data}
	case 3:
		return layers.IPProtocolICMPv6, []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.ICMPv6TypeCode(r.Uint32()),
			Checksum: uint16(r.Uint32())}, data}
	case 4:
		return layers.IPProtocolGRE, []gopacket.SerializableLayer{&layers.GRE{Protocol: layers.EthernetType(r.Uint32()),
			ChecksumPresent: r.IntN(2) == 0, Checksum: uint16(r.Uint32()), KeyPresent: r.IntN(2) == 0, Key: r.Uint32(),
			SeqPresent: r.IntN(2) == 0, Seq: r.Uint32()}, data}
	}
	return layers.IPProtocolESP, []gopacket.SerializableLayer{gopacket.Payload(randomBytes(r, 8)), data}
}

func randomTCP(r *rand.Rand) *layers.TCP {
	bit := func() bool { return r.IntN(2) == 0 }
	tcp := &layers.TCP{SrcPort: layers.TCPPort(r.Uint32()), DstPort: layers.TCPPort(r.Uint32()), Seq: r.Uint32(), Ack: r.Uint32(),
		Window: uint16(r.Uint32()), Checksum: uint16(r.Uint32()), Urgent: uint16(r.Uint32()),
		FIN: bit(), SYN: bit(), RST: bit(), PSH: bit(), ACK: bit(), URG: bit(), ECE: bit(), CWR: bit()}
	sizes := map[layers.TCPOptionKind]int{1: 1, 2: 4, 3: 3, 4: 2, 5: 2 + 8*(1+r.IntN(2)), 8: 10, 34: 2 + r.IntN(7)}
	kinds := []layers.TCPOptionKind{1, 2, 3, 4, 5, 8, 34}
	for room := 40; r.IntN(5) != 0; {
		kind := kinds[r.IntN(len(kinds))]
		n := sizes[kind]
		if room -= n; room < 0 {
			break
		}
		tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: kind, OptionLength: uint8(n), OptionData: randomBytes(r, max(n-2, 0))})
	}
	return tcp
}
