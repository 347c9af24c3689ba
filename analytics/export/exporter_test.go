package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/analytics/export/ipfix"
	"causeway/analytics/export/sflow"
	"causeway/analytics/flow"
)

// A listener is a collector that keeps all datagrams.
type listener struct {
	conn *net.UDPConn
	mu   sync.Mutex
	got  [][]byte
}

func listen(t *testing.T, address string) *listener {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{conn: conn}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, err := conn.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			l.mu.Lock()
			l.got = append(l.got, bytes.Clone(b[:n]))
			l.mu.Unlock()
		}
	}()
	return l
}

func (l *listener) address() string { return l.conn.LocalAddr().String() }

func (l *listener) datagrams() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got)
}

// until waits until something is so.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after ten seconds: %s", what)
		}
	}
}

// start runs an exporter; what it returns stops it, and waits until it has.
func start(t *testing.T, e *Exporter) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		e.Run(ctx)
		close(done)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

func decodeSFlow(t *testing.T, list [][]byte) (all []*layers.SFlowDatagram) {
	t.Helper()
	for _, b := range list {
		p := gopacket.NewPacket(b, layers.LayerTypeSFlow, gopacket.Default)
		d, ok := p.Layer(layers.LayerTypeSFlow).(*layers.SFlowDatagram)
		if !ok {
			t.Fatalf("gopacket cannot read the datagram: %v", p.ErrorLayer())
		}
		all = append(all, d)
	}
	return all
}

// Every collector gets the same, one that is away costs a counter, and one that comes back gets what is sent then.
func TestFanOut(t *testing.T) {
	gone := listen(t, "127.0.0.1:0")
	away := gone.address()
	gone.conn.Close()
	s1, s2, i1, i2 := listen(t, "127.0.0.1:0"), listen(t, "[::1]:0"), listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(i2.address())
	e, err := New(Options{SFlow: []string{s1.address(), away, s2.address()}, IPFIX: []string{i1.address(), "localhost:" + port},
		Agent: netip.MustParseAddr("192.0.2.11")})
	if err != nil {
		t.Fatal(err)
	}
	e.SetInterfaces(interfaces(t))
	stop := start(t, e)
	b := packet(t, "198.18.0.9", "203.0.113.9", 1000, 53, "", 600)
	send := func(n int) {
		for range n {
			s := sample(bytes.Clone(b), 10, nil, tunnelA)
			add(e, s)
			clear(s.Header) // it is the caller's again
		}
	}
	send(100)
	until(t, "datagrams have been sent and refused", func() bool { return e.Stats().Datagrams > 10 && e.Stats().Collectors[1].Failed > 0 })
	if s := e.Stats().Collectors[1]; !strings.Contains(s.Error, "refused") {
		t.Errorf("the collector that is away: %+v", s)
	}
	back := listen(t, away)
	send(100)
	until(t, "the collector that is back gets datagrams", func() bool { return len(back.datagrams()) > 0 })
	until(t, "the collector by name is connected", func() bool { return e.Stats().Collectors[4].Sent > 0 })
	add(e, &flow.Sample{Time: time.Now(), Every: 1, Header: []byte{0xff}})
	stop()

	s := e.Stats()
	if s.Samples != 201 || s.Lost != 0 || s.NotIP != 1 || s.FlowSamples != 200 || s.FlowRecords != 1 || s.Messages == 0 {
		t.Errorf("%+v", s)
	}
	until(t, "all have got all", func() bool {
		return len(s1.datagrams()) == int(s.Datagrams) && len(s2.datagrams()) == int(s.Datagrams) &&
			len(i1.datagrams()) == int(s.Messages) && len(i2.datagrams()) > 0
	})
	if !slices.EqualFunc(s1.datagrams(), s2.datagrams(), bytes.Equal) {
		t.Error("two collectors of sFlow got different datagrams")
	}
	// The collector by name may have been connected later: then the templates were told again.
	last := i2.datagrams()
	if all := i1.datagrams(); !slices.EqualFunc(all[len(all)-len(last):], last, bytes.Equal) {
		t.Error("two collectors of IPFIX got different messages")
	}
	flows := 0
	for _, d := range decodeSFlow(t, s1.datagrams()) {
		for _, f := range d.FlowSamples {
			raw := f.Records[0].(layers.SFlowRawPacketFlowRecord)
			if !bytes.Equal(raw.Header.Data(), b[:flow.HeaderLen]) || f.OutputInterface != 101 || f.SamplingRate != 10 {
				t.Fatalf("flow sample %+v", f)
			}
			flows++
		}
	}
	if flows != 200 {
		t.Errorf("%d flow samples, want 200", flows)
	}
}

// Nobody waits for an exporter that does not run. What does not fit is counted, and sFlow tells how much that was.
func TestLostSamplesAreTold(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	e, err := New(Options{SFlow: []string{l.address()}, Queue: 10})
	if err != nil {
		t.Fatal(err)
	}
	e.SetInterfaces(interfaces(t))
	b := packet(t, "198.18.0.9", "203.0.113.9", 1000, 53, "", 100)
	for range 25 {
		add(e, sample(b, 1, tunnelA, nil))
	}
	e.Lost(tunnelB, 7)
	e.Lost(nil, 3)
	if s := e.Stats(); s.Samples != 10 || s.Lost != 15 {
		t.Errorf("%+v", s)
	}
	start(t, e)
	until(t, "the queue is empty", func() bool { return e.Stats().FlowSamples == 10 })
	add(e, sample(b, 1, tunnelA, nil))
	add(e, sample(b, 1, nil, tunnelB))
	add(e, sample(b, 1, nil, nil))
	drops := map[layers.SFlowSourceValue]uint32{}
	until(t, "drops of all sources are told", func() bool {
		for _, d := range decodeSFlow(t, l.datagrams()) {
			for _, f := range d.FlowSamples {
				drops[f.SourceIDIndex] = f.Dropped
			}
		}
		return len(drops) == 3
	})
	if drops[101] != 15 || drops[102] != 7 || drops[0] != 3 {
		t.Errorf("drops by source: %v", drops)
	}
}

// The counters of all tunnels are told once in an interval, and not all at once.
func TestCounters(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	calls := 0
	e, err := New(Options{SFlow: []string{l.address()}, CounterInterval: time.Second, Counters: func() []Counters {
		calls++
		return []Counters{
			{Tunnel: tunnelA, Counters: sflow.Counters{InOctets: uint64(calls)}},
			{Tunnel: &flow.Tunnel{ID: "not in the table"}},
			{Tunnel: tunnelB, Counters: sflow.Counters{InOctets: uint64(calls)}},
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	e.SetInterfaces(interfaces(t))
	at := time.Now()
	var told []uint64
	for range 11 { // two intervals of five steps, and one step
		e.tick(at)
		told = append(told, e.Stats().CounterSamples)
		at = at.Add(flushInterval)
	}
	if want := []uint64{1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5}; !slices.Equal(told, want) || calls != 3 {
		t.Errorf("told %v in %d calls, want %v", told, calls, want)
	}
	until(t, "five datagrams have come", func() bool { return len(l.datagrams()) == 5 })
	var text []string
	for _, d := range decodeSFlow(t, l.datagrams()) {
		for _, c := range d.CounterSamples {
			text = append(text, fmt.Sprintf("%d: %d", c.SourceIDIndex, c.Records[0].(layers.SFlowGenericInterfaceCounters).IfInOctets))
		}
	}
	if want := []string{"101: 1", "102: 1", "101: 2", "102: 2", "101: 3"}; !slices.Equal(text, want) {
		t.Errorf("%v, want %v", text, want)
	}
}

func TestWrongCollectors(t *testing.T) {
	for _, address := range []string{"", "192.0.2.9", "192.0.2.9:", ":6343", "2001:db8::1"} {
		if _, err := New(Options{IPFIX: []string{address}}); err == nil || !strings.Contains(err.Error(), "ipfix collector") {
			t.Errorf("%q: error %v", address, err)
		}
	}
	if _, err := New(Options{SFlow: []string{"no port"}}); err == nil {
		t.Error("no error")
	}
}

// A collector whose name leads nowhere costs a counter as well, and Run ends while it is looked up.
func TestUnknownName(t *testing.T) {
	e, err := New(Options{IPFIX: []string{"collector.invalid:2055"}, Flows: ipfix.Options{Biflow: true}})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, e)
	until(t, "messages have failed", func() bool { return e.Stats().Collectors[0].Failed > 0 })
	stop()
	if s := e.Stats().Collectors[0]; s.Sent != 0 || s.Protocol != "ipfix" || s.Address != "collector.invalid:2055" {
		t.Errorf("%+v", s)
	}
}

func TestNoCollectors(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, e)
	add(e, sample(packet(t, "198.18.0.9", "203.0.113.9", 1000, 53, "", 100), 1, nil, nil))
	stop()
	if s := e.Stats(); s.Samples != 0 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNoAllocations(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	e, err := New(Options{SFlow: []string{l.address()}, IPFIX: []string{l.address()}})
	if err != nil {
		t.Fatal(err)
	}
	e.SetInterfaces(interfaces(t))
	s := sample(packet(t, "198.18.0.9", "203.0.113.9", 1000, 53, "", 100), 1, nil, tunnelA)
	h := flow.Parse(s.Header)
	at := time.Now()
	if n := testing.AllocsPerRun(2000, func() {
		e.Add(s, &h)
		e.current = <-e.queue
		e.take(at)
	}); n != 0 {
		t.Errorf("%v allocations for a sample from Add to the collectors", n)
	}
}
