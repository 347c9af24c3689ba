package sflow

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
	"causeway/pipeline"
)

var (
	start = time.Unix(1_800_000_000, 0)

	gre = &ifindex.Interface{Index: 101, Tunnel: &flow.Tunnel{ID: "a", Name: "cust-a"}, Local: netip.MustParseAddr("192.0.2.1"),
		Remote: netip.MustParseAddr("198.51.100.2"), Protocol: 47, Overhead: 28, Key: 42, HasKey: true}
	esp = &ifindex.Interface{Index: 102, Tunnel: &flow.Tunnel{ID: "b", Name: "cust-b"}, Local: netip.MustParseAddr("2001:db8::1"),
		Remote: netip.MustParseAddr("2001:db8:9::2"), Protocol: 17, Ports: [2]uint16{4500, 60001}, Overhead: 86}
)

// recorder keeps the datagrams of an encoder as gopacket reads them.
type recorder struct {
	t         *testing.T
	datagrams []*layers.SFlowDatagram
}

func (r *recorder) send(b []byte) {
	r.t.Helper()
	if len(b) > MaxDatagram || len(b)%4 != 0 {
		r.t.Errorf("a datagram of %d bytes", len(b))
	}
	p := gopacket.NewPacket(bytes.Clone(b), layers.LayerTypeSFlow, gopacket.Default)
	d, ok := p.Layer(layers.LayerTypeSFlow).(*layers.SFlowDatagram)
	if !ok || p.ErrorLayer() != nil {
		r.t.Fatalf("gopacket cannot read the datagram: %v\n%x", p.ErrorLayer(), b)
	}
	if int(d.SampleCount) != len(d.FlowSamples)+len(d.CounterSamples) {
		r.t.Errorf("%d samples are announced, %d are there", d.SampleCount, len(d.FlowSamples)+len(d.CounterSamples))
	}
	r.datagrams = append(r.datagrams, d)
}

func (r *recorder) flows() (all []layers.SFlowFlowSample) {
	for _, d := range r.datagrams {
		all = append(all, d.FlowSamples...)
	}
	return all
}

func newRecorded(t *testing.T, ethernet bool) (*Encoder, *recorder) {
	r := &recorder{t: t}
	return NewEncoder(Options{Agent: netip.MustParseAddr("192.0.2.11"), SubAgent: 3, Start: start, Ethernet: ethernet}, r.send), r
}

// header4 and header6 are the first bytes of UDP packets.
func header4() []byte {
	b := make([]byte, 32)
	b[0], b[1], b[9] = 0x45, 0xb8, 17
	binary.BigEndian.PutUint16(b[2:], 1000)
	return b
}

func header6() []byte {
	b := make([]byte, 50)
	b[0], b[1], b[6] = 0x6b, 0x80, 17
	return b
}

func TestFlowSampleOfLateralPacket(t *testing.T) {
	e, r := newRecorded(t, false)
	s := &flow.Sample{Every: 1000, Length: 1000, Header: header4(), In: gre.Tunnel, Out: esp.Tunnel}
	for range 2 {
		if !e.Flow(s, gre, esp, start) {
			t.Fatal("an IPv4 packet is refused")
		}
	}
	e.Lost(gre, 5)
	e.Flow(s, gre, esp, start)
	e.Flush(start.Add(90 * time.Second))
	e.Flush(start.Add(91 * time.Second)) // nothing is left

	if len(r.datagrams) != 1 {
		t.Fatalf("%d datagrams, want 1", len(r.datagrams))
	}
	d := r.datagrams[0]
	if d.DatagramVersion != 5 || d.AgentAddress.String() != "192.0.2.11" || d.SubAgentID != 3 || d.SequenceNumber != 1 || d.AgentUptime != 90_000 {
		t.Errorf("datagram header: %+v", d)
	}
	for i, f := range d.FlowSamples {
		drops := uint32(0)
		if i == 2 {
			drops = 5
		}
		if f.SequenceNumber != uint32(i+1) || f.SourceIDClass != 0 || f.SourceIDIndex != 101 || f.SamplingRate != 1000 ||
			f.SamplePool != uint32(i+1)*1000 || f.Dropped != drops || f.InputInterface != 101 || f.OutputInterface != 102 || len(f.Records) != 4 {
			t.Errorf("flow sample %d: %+v", i, f)
		}
	}
	records := d.FlowSamples[0].Records
	if raw := records[0].(layers.SFlowRawPacketFlowRecord); raw.HeaderProtocol != headerIPv4 || raw.FrameLength != 1000 ||
		raw.PayloadRemoved != 0 || raw.HeaderLength != 32 || !bytes.Equal(raw.Header.Data(), header4()) {
		t.Errorf("sampled header: %+v", raw)
	}
	outer4 := records[1].(layers.SFlowExtendedIpv4TunnelIngressRecord).SFlowIpv4Record
	if outer4.Length != 1028 || outer4.Protocol != 47 || outer4.IPSrc.String() != "198.51.100.2" || outer4.IPDst.String() != "192.0.2.1" {
		t.Errorf("the tunnel it came from: %+v", outer4)
	}
	if vni := records[2].(layers.SFlowExtendedVniIngressRecord); vni.VNI != 42 {
		t.Errorf("its key: %+v", vni)
	}
	outer6 := records[3].(layers.SFlowExtendedIpv6TunnelEgressRecord).SFlowIpv6Record
	if outer6.Length != 1086 || outer6.Protocol != 17 || outer6.IPSrc.String() != "2001:db8::1" || outer6.IPDst.String() != "2001:db8:9::2" ||
		outer6.PortSrc != 4500 || outer6.PortDst != 60001 || outer6.Priority != 0xb8 {
		t.Errorf("the tunnel it went into: %+v", outer6)
	}
}

func TestInterfacesAndSources(t *testing.T) {
	for name, c := range map[string]struct {
		s                     flow.Sample
		in, out               *ifindex.Interface
		source                layers.SFlowSourceValue
		input, format, output uint32
		records               int
	}{
		"ingress":                 {flow.Sample{}, nil, gre, 101, 0, 0, 101, 3},
		"egress":                  {flow.Sample{}, esp, nil, 102, 102, 0, 0, 2},
		"no tunnel":               {flow.Sample{}, nil, nil, 0, 0, 0, 0, 1},
		"delivered":               {flow.Sample{Verdict: flow.Delivered}, esp, nil, 102, 102, 0, internal, 2},
		"punted":                  {flow.Sample{Verdict: flow.Punted}, nil, nil, 0, 0, 0, internal, 1},
		"dropped":                 {flow.Sample{Verdict: flow.Dropped, Reason: "no_route"}, esp, nil, 102, 102, 1, netUnknown, 2},
		"dropped before a tunnel": {flow.Sample{Verdict: flow.Dropped, Reason: "too_big"}, nil, gre, 101, 0, 1, packetTooBig, 1},
	} {
		e, r := newRecorded(t, false)
		c.s.Header, c.s.Length, c.s.Every = header6(), 50, 1
		e.Flow(&c.s, c.in, c.out, start)
		e.Flush(start)
		f := r.flows()[0]
		if f.SourceIDIndex != c.source || f.InputInterface != c.input ||
			f.OutputInterface != c.format<<30|c.output || // gopacket does not take the two apart

			len(f.Records) != c.records {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// With an Ethernet header gopacket, which takes everything for Ethernet, finds the packet behind it.
func TestEthernet(t *testing.T) {
	e, r := newRecorded(t, true)
	for _, h := range [][]byte{header4(), header6()} {
		e.Flow(&flow.Sample{Every: 1, Length: 500, Header: h}, nil, nil, start)
	}
	e.Flush(start)
	for i, want := range []gopacket.LayerType{layers.LayerTypeIPv4, layers.LayerTypeIPv6} {
		raw := r.flows()[i].Records[0].(layers.SFlowRawPacketFlowRecord)
		if raw.HeaderProtocol != layers.SFlowProtoEthernet || raw.FrameLength != 514 || raw.Header.Layer(want) == nil {
			t.Errorf("%v: %+v", want, raw)
		}
	}
}

func TestCounters(t *testing.T) {
	e, r := newRecorded(t, false)
	c := &Counters{InOctets: 1 << 40, InPackets: 1<<32 + 7, InDiscards: 3, OutOctets: 5, OutPackets: 6, OutDiscards: 9}
	e.Counters(gre, c, start)
	c.Down = true
	e.Counters(gre, c, start)
	e.Flush(start)
	samples := r.datagrams[0].CounterSamples
	for i, s := range samples {
		generic := s.Records[0].(layers.SFlowGenericInterfaceCounters)
		if s.SequenceNumber != uint32(i+1) || s.SourceIDIndex != 101 || generic.IfIndex != 101 || generic.IfType != 131 ||
			generic.IfStatus != []uint32{3, 1}[i] || generic.IfInOctets != 1<<40 || generic.IfInUcastPkts != 7 || generic.IfInDiscards != 3 ||
			generic.IfOutOctets != 5 || generic.IfOutUcastPkts != 6 || generic.IfOutDiscards != 9 || generic.IfInErrors != notKnown {
			t.Errorf("counter sample %d: %+v %+v", i, s, generic)
		}
		if name := s.Records[1].(layers.SFlowPORTNAME); name.Str != "cust-a" {
			t.Errorf("port name: %+v", name)
		}
	}
	if len(samples) != 2 {
		t.Errorf("%d counter samples, want 2", len(samples))
	}
}

// Whatever is in a sample: no datagram is too long, each can be read, and nothing is missing from them.
func TestHostileSamples(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	long := *gre
	long.Tunnel = &flow.Tunnel{Name: strings.Repeat("n", 5000)}
	ends := []*ifindex.Interface{nil, gre, esp, &long, {Index: 9, Tunnel: gre.Tunnel, Local: gre.Local, Remote: esp.Remote, HasKey: true}}
	e, r := newRecorded(t, false)
	flows, counters := 0, 0
	for range 5000 {
		header := make([]byte, rng.IntN(200))
		for i := range header {
			header[i] = byte(rng.Uint32())
		}
		if len(header) > 0 && rng.IntN(8) > 0 {
			header[0] = []byte{0x45, 0x60}[rng.IntN(2)]
		}
		s := &flow.Sample{Every: rng.Uint32(), Length: rng.IntN(1<<17) - 1000, Header: header, Verdict: flow.Verdict(rng.IntN(5)), Reason: "?"}
		if e.Flow(s, ends[rng.IntN(len(ends))], ends[rng.IntN(len(ends))], start) {
			flows++
		}
		if rng.IntN(20) == 0 {
			e.Counters(ends[1+rng.IntN(len(ends)-1)], &Counters{InOctets: rng.Uint64()}, start)
			counters++
		}
	}
	e.Flush(start)
	for i, d := range r.datagrams {
		flows -= len(d.FlowSamples)
		counters -= len(d.CounterSamples)
		if d.SequenceNumber != uint32(i+1) {
			t.Fatalf("datagram %d has sequence number %d", i, d.SequenceNumber)
		}
	}
	if flows != 0 || counters != 0 {
		t.Errorf("%d flow samples and %d counter samples are missing", flows, counters)
	}
}

// Each number of a drop reason is one that sFlow knows, and each label one that the pipeline has.
func TestDropReasons(t *testing.T) {
	labels := map[string]bool{}
	for _, r := range pipeline.AllReasons() {
		labels[r.String()] = true
		if n := DropReason(r.String()); n > 15 && n < unknown || n > 289 {
			t.Errorf("%s: %d is no reason", r, n)
		}
	}
	for label := range maps.Keys(dropReasons) {
		if !labels[label] {
			t.Errorf("%s is no drop reason of the pipeline", label)
		}
	}
	for label, want := range map[string]uint32{"inner_ipv4_header_checksum_wrong": headerCorrupted, "gre_version_is_not_0": decapsulation,
		"inner_tcp_option_length_wrong": unknownL4, "esp_dummy": unknown, "": unknown} {
		if got := DropReason(label); got != want {
			t.Errorf("%s: %d, want %d", label, got, want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	e := NewEncoder(Options{Start: start, Ethernet: true}, func([]byte) {})
	s := &flow.Sample{Every: 1000, Length: 1000, Header: header4(), Verdict: flow.Dropped, Reason: "inner_ipv4_header_checksum_wrong"}
	c := &Counters{}
	if n := testing.AllocsPerRun(1000, func() {
		s.Verdict ^= flow.Dropped
		e.Flow(s, gre, esp, start)
		e.Counters(esp, c, start)
	}); n != 0 {
		t.Errorf("%v allocations for a sample and counters", n)
	}
}

func BenchmarkFlow(b *testing.B) {
	e := NewEncoder(Options{Start: start}, func([]byte) {})
	s := &flow.Sample{Every: 1000, Length: 1000, Header: header4()}
	b.ReportAllocs()
	for b.Loop() {
		e.Flow(s, gre, esp, start)
	}
}
