package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	testSrcMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	testDstMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// testSpecs is every combination of family, transport, tag and encapsulation.
func testSpecs() map[string]frameSpec {
	specs := map[string]frameSpec{}
	for _, inner := range []string{"4", "6"} {
		for _, outer := range []string{"", "4", "6", "4key", "6key"} {
			for _, syn := range []string{"udp", "syn", "synmss"} {
				for _, vlan := range []int{0, 77} {
					s := frameSpec{
						SrcMAC: testSrcMAC, DstMAC: testDstMAC, VLAN: vlan,
						Src: netip.MustParseAddr("203.0.113.250"), Dst: netip.MustParseAddr("10.9.9.9"),
						SrcPort: 60000, DstPort: 9, Flows: 3000, FlowPorts: 7, Mix: imix, SYN: syn != "udp",
					}
					if inner == "6" {
						s.Src, s.Dst = netip.MustParseAddr("2001:db8::ff:fff0"), netip.MustParseAddr("2001:db8:1::9")
					}
					if syn == "synmss" {
						s.MSS, s.Mix = 1460, fixedSize(0)
					}
					switch outer {
					case "4", "4key":
						s.GRE = &greSpec{Src: netip.MustParseAddr("198.51.100.2"), Dst: netip.MustParseAddr("192.0.2.1")}
					case "6", "6key":
						s.GRE = &greSpec{Src: netip.MustParseAddr("2001:db8:2::2"), Dst: netip.MustParseAddr("2001:db8:3::1")}
					}
					if s.GRE != nil && len(outer) > 1 {
						s.GRE.Key, s.GRE.HasKey = 0xdeadbeef, true
					}
					specs[fmt.Sprintf("inner%s/gre%s/%s/vlan%d", inner, outer, syn, vlan)] = s
				}
			}
		}
	}
	return specs
}

func mustPlan(t testing.TB, s frameSpec) *plan {
	t.Helper()
	p, err := newPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// frameOf is packet seq of a plan.
func frameOf(p *plan, seq, now uint64) []byte {
	b := bytes.Clone(p.forms[p.form(seq)].image)
	p.stamp(b, seq, now)
	return b
}

// Gopacket decodes each frame; serialised again with its own lengths and checksums, every byte must be the same.
func TestFramesAreWhatGopacketMakes(t *testing.T) {
	for name, s := range testSpecs() {
		t.Run(name, func(t *testing.T) {
			p := mustPlan(t, s)
			for seq := range uint64(40) {
				frame := frameOf(p, seq*977, 0x0123456789abcdef+seq)
				got := reserialise(t, frame)
				if !bytes.Equal(got, frame[:len(got)]) {
					t.Fatalf("packet %d:\n have %x\n want %x", seq, frame, got)
				}
				if pad := len(frame) - len(got); pad > 0 && len(frame) != minSize-fcsLen {
					t.Fatalf("packet %d: %d bytes behind the IP packet of a %d-byte frame", seq, pad, len(frame))
				}
			}
		})
	}
}

// reserialise decodes a frame and writes it anew.
func reserialise(t *testing.T, frame []byte) []byte {
	t.Helper()
	pkt := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{})
	if e := pkt.ErrorLayer(); e != nil {
		t.Fatalf("gopacket cannot decode: %v\n%x", e.Error(), frame)
	}
	var out []gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	for _, l := range pkt.Layers() {
		switch l := l.(type) {
		case *layers.IPv4:
			network = l
		case *layers.IPv6:
			network = l
		case *layers.UDP:
			l.SetNetworkLayerForChecksum(network)
		case *layers.TCP:
			l.SetNetworkLayerForChecksum(network)
		}
		// The bytes behind the transport header stand for themselves: gopacket would guess a protocol from the port.
		out = append(out, l.(gopacket.SerializableLayer))
		if tl, ok := l.(gopacket.TransportLayer); ok {
			out = append(out, gopacket.Payload(tl.LayerPayload()))
			break
		}
	}
	if pkt.TransportLayer() == nil {
		t.Fatalf("no transport layer in %v", pkt)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	for i := len(out) - 1; i >= 0; i-- { // as SerializeLayers does, without Ethernet's own padding
		if e, ok := out[i].(*layers.Ethernet); ok {
			head, err := buf.PrependBytes(etherLen)
			if err != nil {
				t.Fatal(err)
			}
			copy(head, e.Contents)
			continue
		}
		if err := out[i].SerializeTo(buf, opts); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func TestFlows(t *testing.T) {
	s := testSpecs()["inner4/gre/udp/vlan0"]
	s.Mix, s.Flows, s.FlowPorts = fixedSize(64), 20, 7
	p := mustPlan(t, s)
	for seq := range uint64(100) {
		pkt := gopacket.NewPacket(frameOf(p, seq, 1), layers.LayerTypeEthernet, gopacket.Default)
		ip, udp := pkt.Layer(layers.LayerTypeIPv4).(*layers.IPv4), pkt.Layer(layers.LayerTypeUDP).(*layers.UDP)
		flow := seq % 20
		if want := fmt.Sprintf("203.0.113.%d", 250+flow/7); ip.SrcIP.String() != want {
			t.Errorf("packet %d: source %s, want %s", seq, ip.SrcIP, want)
		}
		if want := 60000 + flow%7; uint64(udp.SrcPort) != want {
			t.Errorf("packet %d: port %d, want %d", seq, udp.SrcPort, want)
		}
	}
}

func TestIMIXIsExact(t *testing.T) {
	s := testSpecs()["inner4/gre/udp/vlan0"]
	p := mustPlan(t, s)
	counts := map[int]int{}
	for seq := range uint64(12 * 1000) {
		counts[len(frameOf(p, seq, 0))+fcsLen]++
	}
	if counts[64] != 7000 || counts[594] != 4000 || counts[1518] != 1000 || len(counts) != 3 {
		t.Errorf("sizes %v, want 7000 of 64, 4000 of 594, 1000 of 1518", counts)
	}
}

func TestSentCountsEverySize(t *testing.T) {
	p := mustPlan(t, testSpecs()["inner4/gre4key/udp/vlan77"])
	var bytes uint64
	counts := make([]uint64, len(p.forms))
	for n := range uint64(40) {
		sizes, total := p.sent(n)
		if total != bytes {
			t.Fatalf("%d packets: %d bytes, want %d", n, total, bytes)
		}
		for k := range sizes {
			if sizes[k].Packets != counts[k] {
				t.Fatalf("%d packets: %d of size %d, want %d", n, sizes[k].Packets, sizes[k].Frame, counts[k])
			}
		}
		bytes += uint64(len(frameOf(p, n, 0)))
		counts[p.form(n)]++
	}
}

func TestSizes(t *testing.T) {
	specs := testSpecs()
	for _, c := range []struct {
		spec  string
		size  int
		probe probeMode
		want  int // frame length, 0 = refused
	}{
		{"inner4/gre/udp/vlan0", 0, probeAuto, 60},
		{"inner4/gre/udp/vlan0", 64, probeOn, 60},
		{"inner4/gre/udp/vlan77", 64, probeOn, 64},
		{"inner6/gre/udp/vlan0", 0, probeAuto, 80},
		{"inner6/gre/udp/vlan0", 0, probeOff, 62},
		{"inner6/gre/udp/vlan0", 83, probeOn, 0},
		{"inner6/gre/udp/vlan0", 83, probeAuto, 79},
		{"inner6/gre/udp/vlan0", 65, probeOff, 0},
		{"inner4/gre4key/udp/vlan0", 0, probeAuto, 60 + 28},
		{"inner4/gre6/udp/vlan0", 1518, probeAuto, 1514 + 44},
		{"inner4/gre/syn/vlan0", 0, probeAuto, 60},
		{"inner4/gre/synmss/vlan0", 0, probeOn, 14 + 20 + 24 + 18},
		{"inner4/gre6/udp/vlan0", 2052, probeAuto, 0},
	} {
		s := specs[c.spec]
		s.Mix, s.Probe = fixedSize(c.size), c.probe
		p, err := newPlan(s)
		switch {
		case err != nil && c.want != 0:
			t.Errorf("%s size %d: %v", c.spec, c.size, err)
		case err == nil && p.longest() != c.want:
			t.Errorf("%s size %d: frame of %d bytes, want %d", c.spec, c.size, p.longest(), c.want)
		}
	}
}

// Every frame that can be generated is understood by the sink, checksums included, and one wrong bit is not.
func TestSinkUnderstandsFrames(t *testing.T) {
	for name, s := range testSpecs() {
		s.Probe = probeOn
		p := mustPlan(t, s)
		frame := frameOf(p, 1<<40+12345, 987654321)
		pkt, ok := parse(frame)
		if !ok {
			t.Fatalf("%s: not parsed", name)
		}
		seq, at, ok := readProbe(pkt.payload)
		if !ok || seq != 1<<40+12345 || at != 987654321 {
			t.Errorf("%s: probe %d sent at %d (found: %t)", name, seq, at, ok)
		}
		if !pkt.checksumsGood() {
			t.Errorf("%s: checksums are called bad", name)
		}
		pkt.payload[probeLen-1] ^= 1
		if pkt.checksumsGood() {
			t.Errorf("%s: a changed payload is called good", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range testSpecs() {
		p := mustPlan(f, s)
		f.Add(frameOf(p, 1, 2))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, ok := parse(frame)
		if !ok {
			return
		}
		if len(p.ip) < ipv4Len || len(p.l4) > len(p.ip) || len(p.payload) > len(p.l4) {
			t.Errorf("slices of %d, %d, %d bytes", len(p.ip), len(p.l4), len(p.payload))
		}
		p.checksumsGood()
		readProbe(p.payload)
	})
}

// A UDP checksum that comes out as zero is sent as all ones (RFC 768), since zero says that there is none.
func TestUDPChecksumIsNeverZero(t *testing.T) {
	s := testSpecs()["inner4/gre/udp/vlan0"]
	s.Mix = fixedSize(64)
	p := mustPlan(t, s)
	before := frameOf(p, 0, 0)
	check := uint64(before[p.l4SumOff])<<8 | uint64(before[p.l4SumOff+1])
	after := frameOf(p, 0, check) // the time's last word takes up what is left of the sum
	if after[p.l4SumOff] != 0xff || after[p.l4SumOff+1] != 0xff {
		t.Errorf("checksum %x, want ffff", after[p.l4SumOff:p.l4SumOff+2])
	}
	if pkt, ok := parse(after); !ok || !pkt.checksumsGood() {
		t.Error("the sink calls it bad")
	}
}
