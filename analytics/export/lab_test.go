package export

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
)

// Two tunnels that packets come out of and go into.
var (
	tunnelA = &flow.Tunnel{ID: "0000000000000000000000000000000a", Name: "cust-a", Account: "acme", Kind: "GRE"}
	tunnelB = &flow.Tunnel{ID: "0000000000000000000000000000000b", Name: "cust-b", Account: "acme", Kind: "IPSec"}
)

func interfaces(t testing.TB) *ifindex.Table {
	t.Helper()
	table, err := ifindex.NewTable([]ifindex.Interface{
		{Index: 101, Tunnel: tunnelA, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("198.51.100.2"), Protocol: 47,
			Overhead: 28, Key: 42, HasKey: true},
		{Index: 102, Tunnel: tunnelB, Local: netip.MustParseAddr("2001:db8::1"), Remote: netip.MustParseAddr("2001:db8:9::2"), Protocol: 50,
			Overhead: 78},
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// packet makes an IP packet of so many bytes: UDP, or TCP if there are flags.
func packet(t testing.TB, src, dst string, srcPort, dstPort uint16, flags string, length int) []byte {
	t.Helper()
	s, d := net.ParseIP(src), net.ParseIP(dst)
	protocol, headers := layers.IPProtocolUDP, 8
	udp := &layers.UDP{SrcPort: layers.UDPPort(srcPort), DstPort: layers.UDPPort(dstPort)}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(srcPort), DstPort: layers.TCPPort(dstPort), Window: 1000,
		SYN: strings.Contains(flags, "S"), ACK: strings.Contains(flags, "A"), FIN: strings.Contains(flags, "F")}
	var upper gopacket.SerializableLayer = udp
	if flags != "" {
		protocol, headers, upper = layers.IPProtocolTCP, 20, tcp
	}
	var ip interface {
		gopacket.SerializableLayer
		gopacket.NetworkLayer
	} = &layers.IPv4{Version: 4, TTL: 60, TOS: 0x48, Protocol: protocol, SrcIP: s.To4(), DstIP: d.To4()}
	headers += 20
	if s.To4() == nil {
		ip = &layers.IPv6{Version: 6, HopLimit: 60, TrafficClass: 0x48, NextHeader: protocol, SrcIP: s, DstIP: d}
		headers += 20
	}
	udp.SetNetworkLayerForChecksum(ip)
	tcp.SetNetworkLayerForChecksum(ip)
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		ip, upper, gopacket.Payload(make([]byte, length-headers)))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sample makes a sample of a packet that was forwarded.
func sample(b []byte, every uint32, in, out *flow.Tunnel) *flow.Sample {
	return &flow.Sample{Time: time.Now(), Every: every, In: in, Out: out, Length: len(b), Header: b[:min(len(b), flow.HeaderLen)]}
}

func add(e *Exporter, s *flow.Sample) {
	h := flow.Parse(s.Header)
	e.Add(s, &h)
}
