package ipfix

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
	"causeway/pipeline"
)

var (
	began   = time.Unix(1_800_000_000, 0)
	tunnelA = &ifindex.Interface{Index: 101, Tunnel: &flow.Tunnel{ID: "0a", Name: "cust-a", Account: "acme"}}
	tunnelB = &ifindex.Interface{Index: 102, Tunnel: &flow.Tunnel{ID: "0b", Name: strings.Repeat("b", 400), Account: "other"}}
)

func header(src, dst string, srcPort, dstPort uint16) *flow.Header {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	h := &flow.Header{Version: 4, Src: s, Dst: d, Protocol: 17, SrcPort: srcPort, DstPort: dstPort, HasPorts: true, HasUDP: true, DSCP: 46, ECN: 1}
	if s.Is6() {
		h.Version = 6
	}
	return h
}

func tcp(h *flow.Header, flags uint8) *flow.Header {
	x := *h
	x.Protocol, x.HasUDP, x.HasTCP, x.TCP.Flags = 6, false, true, flags
	return &x
}

func reversedHeader(h *flow.Header) *flow.Header {
	x := *h
	x.Src, x.Dst, x.SrcPort, x.DstPort = h.Dst, h.Src, h.DstPort, h.SrcPort
	return &x
}

func sampled(at time.Time, every uint32, length int) *flow.Sample {
	return &flow.Sample{Time: at, Every: every, Length: length}
}

func TestFlowRecords(t *testing.T) {
	d := newDecoder(t)
	m := NewMeter(Options{Domain: 7}, d.message)
	h4 := tcp(header("198.18.0.9", "203.0.113.9", 1234, 443), tcpSYN)
	m.Add(sampled(began, 1000, 60), h4, nil, tunnelA, began)
	h4.TCP.Flags = tcpACK
	m.Add(sampled(began.Add(3*time.Second), 500, 1500), h4, nil, tunnelA, began.Add(3*time.Second))
	h6 := header("2001:db8::1", "2001:db8::2", 0, 0)
	h6.Protocol, h6.HasUDP, h6.HasPorts, h6.HasICMP, h6.ICMPType, h6.ICMPCode = 58, false, false, true, 1, 4
	m.Add(&flow.Sample{Time: began, Every: 10, Length: 80, Verdict: flow.Dropped, Reason: "ttl_exceeded"}, h6, tunnelA, tunnelB, began)
	m.Close(began.Add(4 * time.Second))

	flows := d.flows()
	if len(flows) != 2 {
		t.Fatalf("%d flows, want 2: %+v", len(flows), flows)
	}
	for _, c := range []struct {
		record decoded
		want   map[uint16]uint64
	}{
		{flows[0], map[uint16]uint64{sourceTransportPort: 1234, destinationTransportPort: 443, protocolIdentifier: 6, ipVersion: 4,
			ingressInterface: 0, egressInterface: 101, forwardingStatus: 64, flowEndReason: forcedEnd, octetDeltaCount: 60*1000 + 1500*500,
			packetDeltaCount: 1500, samplingSize: 2, flowStartMilliseconds: uint64(began.UnixMilli()),
			flowEndMilliseconds: uint64(began.UnixMilli() + 3000), ipClassOfService: 0xb9, tcpControlBits: tcpSYN | tcpACK, icmpTypeCodeIPv4: 0}},
		{flows[1], map[uint16]uint64{ipVersion: 6, protocolIdentifier: 58, ingressInterface: 101, egressInterface: 102, forwardingStatus: 137,
			octetDeltaCount: 800, packetDeltaCount: 10, samplingSize: 1, icmpTypeCodeIPv6: 0x104}},
	} {
		for id, want := range c.want {
			if got := c.record.number(id); c.record.bytes(id) == nil || got != want {
				t.Errorf("element %d: %d, want %d", id, got, want)
			}
		}
	}
	if a := flows[0].bytes(sourceIPv4Address); string(a) != string([]byte{198, 18, 0, 9}) {
		t.Errorf("source % x", a)
	}
	if a := flows[1].bytes(destinationIPv6Address); netip.AddrFrom16([16]byte(a)) != h6.Dst {
		t.Errorf("destination % x", a)
	}
}

func TestOptionsAndTemplatesAreRepeated(t *testing.T) {
	d := newDecoder(t)
	m := NewMeter(Options{Domain: 7, Biflow: true}, d.message)
	table, err := ifindex.NewTable([]ifindex.Interface{*tunnelA, *tunnelB})
	if err != nil {
		t.Fatal(err)
	}
	m.Interfaces(table)
	m.Tick(began)
	if len(d.templates) != 6 || d.scopes[interfaces] != 1 || d.scopes[sampling] != 1 {
		t.Errorf("templates %v, scopes %v", d.templates, d.scopes)
	}
	if r := d.of(sampling); len(r) != 1 || r[0].number(observationDomainID) != 7 || r[0].number(samplingInterval) != 1 ||
		r[0].number(samplingPacketInterval) != 1 || r[0].number(samplingPacketSpace) != 0 || r[0].number(selectorAlgorithm) != 1 {
		t.Errorf("sampling: %+v", r)
	}
	r := d.of(interfaces)
	if len(r) != 2 || r[0].number(ingressInterface) != 101 || r[0].text(interfaceName) != "cust-a" || r[0].text(interfaceDescription) != "0a" ||
		r[0].text(vrfName) != "acme" || r[1].text(interfaceName) != strings.Repeat("b", maxText) {
		t.Errorf("interfaces: %+v", r)
	}
	for i, c := range []struct {
		at   time.Duration
		do   func()
		want int
	}{
		{59 * time.Second, func() {}, 1},
		{60 * time.Second, func() {}, 2},
		{61 * time.Second, func() { m.Repeat() }, 3},
		{62 * time.Second, func() { m.Interfaces(table) }, 4},
		{63 * time.Second, func() {}, 4},
	} {
		c.do()
		m.Tick(began.Add(c.at))
		if got := len(d.of(sampling)); got != c.want {
			t.Errorf("step %d: options were told %d times, want %d", i, got, c.want)
		}
	}
}

func TestTimeouts(t *testing.T) {
	d := newDecoder(t)
	m := NewMeter(Options{Active: 60 * time.Second, Idle: 15 * time.Second}, d.message)
	steady, once := header("198.18.0.1", "203.0.113.1", 1, 1), header("198.18.0.2", "203.0.113.1", 2, 1)
	closed := tcp(header("198.18.0.3", "203.0.113.1", 3, 1), tcpFIN|tcpACK)
	ends := map[uint64][]string{} // by source port
	for second := range 100 {
		now := began.Add(time.Duration(second) * time.Second)
		if second < 70 {
			m.Add(sampled(now, 1, 100), steady, nil, nil, now)
		}
		if second == 0 {
			m.Add(sampled(now, 1, 100), once, nil, nil, now)
			m.Add(sampled(now, 1, 100), closed, nil, nil, now)
		}
		before := len(d.records)
		m.Tick(now)
		for _, r := range d.records[before:] {
			if flow, _ := r.isFlow(); flow {
				port := r.number(sourceTransportPort)
				ends[port] = append(ends[port], fmt.Sprintf("%d: reason %d, %d packets", second, r.number(flowEndReason), r.number(packetDeltaCount)))
			}
		}
	}
	want := map[uint64]string{
		1: "[60: reason 2, 61 packets 84: reason 1, 9 packets]",
		2: "[15: reason 1, 1 packets]",
		3: "[15: reason 3, 1 packets]",
	}
	for port, w := range want {
		if got := fmt.Sprint(ends[port]); got != w {
			t.Errorf("flow %d: %s, want %s", port, got, w)
		}
	}
}

func TestEviction(t *testing.T) {
	d := newDecoder(t)
	m := NewMeter(Options{Flows: 10}, d.message)
	for i := range 100 {
		now := began.Add(time.Duration(i) * time.Millisecond)
		m.Add(sampled(now, 1, 100), header("198.18.0.1", "203.0.113.1", uint16(1000+i), 1), nil, nil, now)
		m.Add(sampled(now, 1, 100), header("198.18.0.1", "203.0.113.1", 1, 1), nil, nil, now) // always in use
	}
	if m.Stats.Flows.Get() != 10 || m.Stats.Evicted.Get() != 91 {
		t.Errorf("%d flows, %d evicted", m.Stats.Flows.Get(), m.Stats.Evicted.Get())
	}
	m.Tick(began.Add(time.Second))
	for i, r := range d.flows() {
		if r.number(flowEndReason) != noResources || r.number(sourceTransportPort) != uint64(1000+i) {
			t.Errorf("evicted %d: port %d, reason %d", i, r.number(sourceTransportPort), r.number(flowEndReason))
		}
	}
}

func TestBiflow(t *testing.T) {
	d := newDecoder(t)
	m := NewMeter(Options{Biflow: true}, d.message)
	request, answer := header("198.18.0.9", "203.0.113.9", 5000, 53), header("203.0.113.9", "198.18.0.9", 53, 5000)
	// The answer is seen first, but who has sent the SYN has begun.
	m.Add(sampled(began, 2, 100), tcp(answer, tcpSYN|tcpACK), tunnelA, nil, began)
	m.Add(sampled(began.Add(time.Second), 3, 60), tcp(request, tcpSYN), nil, tunnelA, began.Add(time.Second))
	// Without a SYN, who was seen first. Dropped packets are not of that flow, and have no partner.
	m.Add(sampled(began, 1, 70), answer, tunnelA, nil, began)
	m.Add(sampled(began.Add(9*time.Second), 1, 80), request, nil, tunnelA, began.Add(9*time.Second))
	m.Add(&flow.Sample{Time: began, Every: 1, Length: 80, Verdict: flow.Dropped, Reason: "no_route"}, request, nil, tunnelA, began)
	// Nobody is the partner of himself.
	m.Add(sampled(began, 1, 90), header("198.18.0.9", "198.18.0.9", 7, 7), nil, nil, began)

	for second := 1; second <= 25; second++ {
		m.Tick(began.Add(time.Duration(second) * time.Second))
	}
	got := map[string]int{}
	for _, r := range d.flows() {
		_, bidi := r.isFlow()
		got[fmt.Sprintf("%v: %d>%d protocol %d, %d>%d, %d packets %d octets, reverse %d packets %d octets, direction %d, reason %d", bidi,
			r.number(sourceTransportPort), r.number(destinationTransportPort), r.number(protocolIdentifier), r.number(ingressInterface),
			r.number(egressInterface), r.number(packetDeltaCount), r.number(octetDeltaCount), r.reverse(packetDeltaCount),
			r.reverse(octetDeltaCount), r.number(biflowDirection), r.number(flowEndReason))]++
	}
	want := map[string]int{
		"true: 5000>53 protocol 6, 0>101, 3 packets 180 octets, reverse 2 packets 200 octets, direction 1, reason 1": 1,
		"true: 53>5000 protocol 17, 101>0, 1 packets 70 octets, reverse 1 packets 80 octets, direction 0, reason 1":  1,
		"false: 5000>53 protocol 17, 0>101, 1 packets 80 octets, reverse 0 packets 0 octets, direction 0, reason 1":  1,
		"false: 7>7 protocol 17, 0>0, 1 packets 90 octets, reverse 0 packets 0 octets, direction 0, reason 1":        1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// sums are packets, octets and samples of flows, by what names one direction of them.
type sums map[string][3]uint64

func (x sums) add(src, dst []byte, srcPort, dstPort, in, out, status uint64, counts ...uint64) {
	name := fmt.Sprintf("%x:%d>%x:%d %d>%d %d", src, srcPort, dst, dstPort, in, out, status)
	v := x[name]
	x[name] = [3]uint64{v[0] + counts[0], v[1] + counts[1], v[2] + counts[2]}
}

// addRecord adds both directions of a record.
func (x sums) addRecord(r decoded) {
	src, dst := r.bytes(sourceIPv4Address), r.bytes(destinationIPv4Address)
	if r.number(ipVersion) == 6 {
		src, dst = r.bytes(sourceIPv6Address), r.bytes(destinationIPv6Address)
	}
	srcPort, dstPort := r.number(sourceTransportPort), r.number(destinationTransportPort)
	in, out, status := r.number(ingressInterface), r.number(egressInterface), r.number(forwardingStatus)
	x.add(src, dst, srcPort, dstPort, in, out, status, r.number(packetDeltaCount), r.number(octetDeltaCount), r.number(samplingSize))
	if _, bidi := r.isFlow(); bidi {
		x.add(dst, src, dstPort, srcPort, out, in, status, r.reverse(packetDeltaCount), r.reverse(octetDeltaCount), r.reverse(samplingSize))
	}
}

// feed gives a meter samples of few flows, in both directions, late ones among them, and returns their sums.
func feed(m *Meter) sums {
	rng := rand.New(rand.NewPCG(3, 4))
	want := sums{}
	ends, index := []*ifindex.Interface{nil, tunnelA, tunnelB}, []uint64{0, 101, 102}
	for i := range 8000 {
		now := began.Add(time.Duration(i) * 7 * time.Millisecond)
		family := []string{"10.0.0.%d", "fd00::%d"}[rng.IntN(2)]
		h := header(fmt.Sprintf(family, rng.IntN(4)), fmt.Sprintf(family, rng.IntN(4)), uint16(rng.IntN(3)), uint16(rng.IntN(3)))
		s := sampled(now.Add(-time.Duration(rng.IntN(100))*time.Millisecond), 1+rng.Uint32N(2000), rng.IntN(1500))
		s.Verdict = flow.Verdict(rng.IntN(4))
		in, out := rng.IntN(3), rng.IntN(3)
		m.Add(s, h, ends[in], ends[out], now)
		want.add(h.Src.AsSlice(), h.Dst.AsSlice(), uint64(h.SrcPort), uint64(h.DstPort), index[in], index[out], uint64(Status(s)),
			uint64(s.Every), uint64(s.Every)*uint64(s.Length), 1)
		if rng.IntN(30) == 0 {
			m.Tick(now)
		}
	}
	m.Close(began.Add(time.Hour))
	return want
}

// Whatever comes in whatever order: the sums of what is told are those of the samples, for each flow.
func TestSumsEqualTheTruth(t *testing.T) {
	for _, biflow := range []bool{false, true} {
		d := newDecoder(t)
		m := NewMeter(Options{Flows: 50, Active: 5 * time.Second, Idle: 2 * time.Second, Biflow: biflow}, d.message)
		want, got, biflows := feed(m), sums{}, 0
		for _, r := range d.flows() {
			got.addRecord(r)
			if from, to := r.number(flowStartMilliseconds), r.number(flowEndMilliseconds); to < from || to-from > 5500 {
				t.Errorf("a flow lasts from %d to %d", from, to)
			}
			if _, bidi := r.isFlow(); bidi {
				biflows++
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("biflow %v: the sums of %d flows differ from the truth of %d", biflow, len(got), len(want))
		}
		if biflow != (biflows > 0) || uint64(biflows) != m.Stats.Biflows.Get() || m.Stats.Flows.Get() != 0 {
			t.Errorf("biflow %v: %d biflows, %d counted, %d flows left", biflow, biflows, m.Stats.Biflows.Get(), m.Stats.Flows.Get())
		}
		if int(m.Stats.Messages.Get()) != d.messages || int(m.Stats.Records.Get()) != len(d.flows()) {
			t.Errorf("%d messages and %d records were counted, %d and %d sent",
				m.Stats.Messages.Get(), m.Stats.Records.Get(), d.messages, len(d.flows()))
		}
	}
}

// Thousands of tunnels are told in parts.
func TestManyInterfaces(t *testing.T) {
	var list []ifindex.Interface
	for i := range uint32(1000) {
		list = append(list, ifindex.Interface{Index: i + 1, Tunnel: &flow.Tunnel{ID: fmt.Sprint(i), Name: fmt.Sprint("tunnel-", i)}})
	}
	table, err := ifindex.NewTable(list)
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoder(t)
	m := NewMeter(Options{}, d.message)
	m.Interfaces(table)
	for step, want := range []int{256, 512, 768, 1000, 1000} {
		m.Tick(began.Add(time.Duration(step) * time.Second))
		if got := len(d.of(interfaces)); got != want {
			t.Errorf("step %d: %d interfaces were told, want %d", step, got, want)
		}
	}
}

func TestHostileHeaders(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	d := newDecoder(t)
	m := NewMeter(Options{Flows: 100, Biflow: true}, d.message)
	var added uint64
	for i := range 5000 {
		b := make([]byte, rng.IntN(flow.HeaderLen))
		for k := range b {
			b[k] = byte(rng.Uint32())
		}
		if len(b) > 0 && rng.IntN(4) > 0 {
			b[0] = []byte{0x45, 0x60}[rng.IntN(2)]
		}
		h := flow.Parse(b)
		s := &flow.Sample{Time: time.UnixMilli(rng.Int64()), Every: rng.Uint32(), Length: int(rng.Int64()), Header: b, Verdict: flow.Verdict(rng.IntN(6))}
		if m.Add(s, &h, nil, nil, began.Add(time.Duration(i)*time.Millisecond)) {
			added++
		}
	}
	// A header that says nothing of its addresses, which no parser should make.
	m.Add(sampled(began, 1, 1), &flow.Header{Version: 4}, nil, nil, began)
	m.Close(began.Add(time.Minute))
	var told uint64
	for _, r := range d.flows() {
		told += r.number(samplingSize) + r.reverse(samplingSize)
	}
	if added == 0 || told != added+1 {
		t.Errorf("%d samples were added, %d are told", added+1, told)
	}
}

// Each reason has a forwardingStatus of dropped packets, and each label is one that the pipeline has.
func TestStatus(t *testing.T) {
	labels := map[string]bool{}
	for _, r := range pipeline.AllReasons() {
		labels[r.String()] = true
		if v := Status(&flow.Sample{Verdict: flow.Dropped, Reason: r.String()}); v>>6 != 2 || v > 143 {
			t.Errorf("%s: %d is not of a dropped packet", r, v)
		}
	}
	for label := range maps.Keys(statuses) {
		if !labels[label] {
			t.Errorf("%s is no drop reason of the pipeline", label)
		}
	}
	for label, want := range map[string]uint8{"inner_ipv4_header_checksum_wrong": badChecksum, "ipv4_total_length_beyond_the_packet": badTotalLength,
		"ipv6_header_cut_short": badHeaderLength, "ipv6_jumbogram": dropped, "gre_checksum": dropped} {
		if got := Status(&flow.Sample{Verdict: flow.Dropped, Reason: label}); got != want {
			t.Errorf("%s: %d, want %d", label, got, want)
		}
	}
	for verdict, want := range map[flow.Verdict]uint8{flow.Forwarded: 64, flow.Delivered: 195, flow.Punted: 192} {
		if got := Status(&flow.Sample{Verdict: verdict}); got != want {
			t.Errorf("%v: %d, want %d", verdict, got, want)
		}
	}
}

// A full cache, in which each sample evicts a flow: nothing is allocated any more.
func TestNoAllocations(t *testing.T) {
	m := NewMeter(Options{Flows: 1000, Biflow: true}, func([]byte) {})
	h, n := header("198.18.0.1", "203.0.113.1", 0, 0), 0
	s := sampled(began, 1, 100)
	next := func() {
		n++
		h.SrcPort, h.DstPort = uint16(n), uint16(n>>16)
		m.Add(s, h, tunnelA, nil, began)
	}
	for range 20000 {
		next()
	}
	if got := testing.AllocsPerRun(5000, next); got != 0 {
		t.Errorf("%v allocations for a sample of a new flow", got)
	}
	reversed := reversedHeader(h)
	if got := testing.AllocsPerRun(5000, func() { m.Add(s, reversed, nil, tunnelA, began) }); got != 0 {
		t.Errorf("%v allocations for a sample of a known flow", got)
	}
}

func BenchmarkNewFlows(b *testing.B) {
	m := NewMeter(Options{}, func([]byte) {})
	h, n := header("198.18.0.1", "203.0.113.1", 0, 0), 0
	s := sampled(began, 1, 100)
	b.ReportAllocs()
	for b.Loop() {
		n++
		h.SrcPort, h.DstPort = uint16(n), uint16(n>>16)
		m.Add(s, h, tunnelA, nil, began)
	}
}
