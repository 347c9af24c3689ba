package pcapport

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/pipeline"
	"causeway/xsk"
)

var (
	inetHost  = netip.MustParseAddr("192.0.2.10")
	endpoint  = netip.MustParseAddr("203.0.113.1")
	customer  = netip.MustParseAddr("198.51.100.2")
	behind    = netip.MustParseAddr("198.18.5.10")
	endpoint6 = netip.MustParseAddr("2001:db8:ffff::1")
	customer6 = netip.MustParseAddr("2001:db8:c::2")
	inet6     = netip.MustParseAddr("2001:db8:2::10")
	behind6   = netip.MustParseAddr("2001:db8:5::10")
	routerMAC = [6]byte{2, 0, 0, 0, 0, 0xfe}
)

// bed is a node over files: frames come in by port 0, which leads to the Internet, and customers are at port 1.
type bed struct {
	umem   *xsk.UMEM
	engine *pipeline.Engine
	in     *Queue
	out    *Writer
}

func newBed(t testing.TB, file io.Writer) *bed {
	t.Helper()
	b := &bed{}
	var err error
	if b.umem, err = xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: 256, Debug: true}); err != nil {
		t.Fatal(err)
	}
	if b.out, err = NewWriter(file, "inet", "customers"); err != nil {
		t.Fatal(err)
	}
	b.in = NewQueue(b.umem, 8, b.out, 0)
	queues := []pipeline.QueueConfig{{Port: 0, Queue: b.in, FillSize: 8}, {Port: 1, Queue: NewQueue(b.umem, 8, b.out, 1), FillSize: 8}}
	c := pipeline.EngineConfig{UMEM: b.umem, Ports: 2, Workers: []pipeline.WorkerConfig{{CPU: -1, Queues: queues}}}
	if b.engine, err = pipeline.NewEngine(c); err != nil {
		t.Fatal(err)
	}
	b.configure(t)
	return b
}

func (b *bed) configure(t testing.TB) {
	t.Helper()
	prefixes := []netip.Prefix{netip.MustParsePrefix("198.18.5.0/24"), netip.MustParsePrefix("2001:db8:5::/48")}
	spec := pipeline.Spec{Endpoints: []netip.Addr{endpoint, endpoint6}, Links: []pipeline.LinkSpec{{Port: 0, MTU: 1500}, {Port: 1, MTU: 1500}}}
	for name, ends := range map[string][2]netip.Addr{"four": {endpoint, customer}, "six": {endpoint6, customer6}} {
		spec.Tunnels = append(spec.Tunnels, pipeline.TunnelSpec{
			Name: name, Account: "acme", Endpoint: ends[0], CustomerEndpoint: ends[1], MTU: 1440, Prefixes: prefixes,
		})
	}
	if err := b.engine.Apply(&spec); err != nil {
		t.Fatal(err)
	}
	f := b.engine.Forwarding()
	for port := range 2 {
		f.SetNeighbour(port, port, routerMAC, true)
	}
	v := f.VRFs()[0]
	four, _ := b.engine.TunnelID("four")
	six, _ := b.engine.TunnelID("six")
	f.SetTunnelRoute(four, pipeline.MakeLeaf(pipeline.KindNeighbour, 1))
	f.SetTunnelRoute(six, pipeline.MakeLeaf(pipeline.KindNeighbour, 1))
	err := errors.Join(
		v.V4.Insert(netip.MustParsePrefix("0.0.0.0/0"), pipeline.MakeLeaf(pipeline.KindNeighbour, 0)),
		v.V6.Insert(netip.MustParsePrefix("::/0"), pipeline.MakeLeaf(pipeline.KindNeighbour, 0)),
		v.V4.Insert(prefixes[0], pipeline.MakeLeaf(pipeline.KindTunnel, four)),
		v.V6.Insert(prefixes[1], pipeline.MakeLeaf(pipeline.KindTunnel, six)))
	if err != nil {
		t.Fatal(err)
	}
}

// replay feeds a file, and checks that what it says of frames, what the worker counts and what has left agree.
func (b *bed) replay(t testing.TB, file []byte) (err error) {
	t.Helper()
	in, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return err
	}
	before := b.engine.Total()
	var fed, left uint64
	for {
		f, err := in.Next()
		if err != nil {
			b.account(t, &before, fed, left)
			return err
		}
		if f.Fit() != Whole {
			continue
		}
		b.in.Offer(f)
		fed++
		if n := b.engine.Poll(0); n != 1 {
			t.Fatalf("frame %d: the worker took %d", f.Number, n)
		}
		left += uint64(len(b.out.Sent()))
	}
}

func (b *bed) account(t testing.TB, before *pipeline.Counters, fed, left uint64) {
	t.Helper()
	c := b.engine.Total()
	if in, out := c.Balance(); in != out {
		t.Fatalf("%d frames came in, %d are known: %+v", in, out, c)
	}
	if c.Received-before.Received != fed || c.Forwarded-before.Forwarded != left {
		t.Fatalf("%d frames were fed and %d left, the worker counts %d and %d", fed, left, c.Received-before.Received, c.Forwarded-before.Forwarded)
	}
}

// close finds frames that were lost or freed twice. There must be none that wait for others.
func (b *bed) close(t testing.TB) {
	t.Helper()
	b.engine.Close()
	if err := errors.Join(b.out.Close(), b.umem.Close()); err != nil {
		t.Error(err)
	}
}

func ethernet(typ layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: routerMAC[:], DstMAC: []byte{2, 0, 0, 0, 0, 1}, EthernetType: typ}
}

func ip4(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func ip6(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func gre(typ layers.EthernetType) *layers.GRE { return &layers.GRE{Protocol: typ} }

func echo() gopacket.SerializableLayer {
	return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0)}
}

const (
	typ4, typ6 = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6
	protoGRE   = layers.IPProtocolGRE
	protoICMP  = layers.IPProtocolICMPv4
)

// Frames that come in by one port leave by another, in a file that has both, with the time that they came at.
func TestPipelineOverFiles(t *testing.T) {
	frames := [][]byte{
		layersOf(t, ethernet(typ4), ip4(inetHost, behind, protoICMP), echo(), gopacket.Payload(make([]byte, 40))),
		layersOf(t, ethernet(typ4), ip4(customer, endpoint, protoGRE), gre(typ4), ip4(behind, inetHost, protoICMP), echo(), gopacket.Payload(make([]byte, 40))),
		layersOf(t, ethernet(typ4), ip4(customer, endpoint, protoGRE), gre(typ4), ip4(customer, inetHost, protoICMP), echo()), // a source that it may not use
		make([]byte, xsk.MaxPacket+1),
		layersOf(t, ethernet(typ6), ip6(inet6, behind6, layers.IPProtocolNoNextHeader), gopacket.Payload(make([]byte, 40))),
	}
	var out bytes.Buffer
	b := newBed(t, &out)
	if err := b.replay(t, ng(t, frames)); err != io.EOF {
		t.Fatal(err)
	}
	b.close(t)
	if c := b.engine.Total(); c.Received != 4 || c.Dropped[pipeline.InnerSource] != 1 {
		t.Errorf("%d frames received, %d dropped for their source", c.Received, c.Dropped[pipeline.InnerSource])
	}
	r, err := NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		port   uint32
		came   int // frame of the capture
		layers []gopacket.LayerType
	}{
		{1, 0, []gopacket.LayerType{layers.LayerTypeIPv4, layers.LayerTypeGRE, layers.LayerTypeIPv4, layers.LayerTypeICMPv4}},
		{0, 1, []gopacket.LayerType{layers.LayerTypeIPv4, layers.LayerTypeICMPv4}},
		{1, 4, []gopacket.LayerType{layers.LayerTypeIPv6, layers.LayerTypeGRE, layers.LayerTypeIPv6}},
	} {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.Default)
		if p.ErrorLayer() != nil {
			t.Errorf("frame %d: %v", i, p.ErrorLayer().Error())
		}
		for k, l := range want.layers {
			if got := p.Layers()[k+1].LayerType(); got != l {
				t.Errorf("frame %d: layer %d is %v, want %v", i, k+1, got, l)
			}
		}
		if !f.Time.Equal(after(want.came)) {
			t.Errorf("frame %d: at %v, want %v", i, f.Time, after(want.came))
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("more frames: %v", err)
	}
}

// A port whose fill ring is empty receives when there are frames again, and does not lose what was offered.
func TestQueueWaitsForFrames(t *testing.T) {
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: 64, Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	out, err := NewWriter(io.Discard, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	q := NewQueue(u, 1, out, 0)
	var d [4]xsk.Desc
	q.Offer(Frame{Data: []byte("frame"), Length: 5, Time: time.Unix(1, 0)})
	if n := q.Receive(d[:]); n != 0 {
		t.Errorf("%d frames received into nothing", n)
	}
	var chunks [2]uint64
	u.Pool(0).Get(chunks[:])
	if n := q.Refill(chunks[:]); n != 1 {
		t.Errorf("a fill ring of 1 takes %d", n)
	}
	if n := q.Receive(d[:]); n != 1 || d[0].Len != 5 || string(u.Bytes()[d[0].Addr:][:5]) != "frame" {
		t.Errorf("%d frames, %+v", n, d[0])
	}
	if n := q.Receive(d[:]); n != 0 {
		t.Error("the frame came twice")
	}
	if n := q.Transmit(d[:1]); n != 1 {
		t.Errorf("%d transmitted", n)
	}
	if sent := out.Sent(); len(sent) != 1 || sent[0] != (Sent{1, 0, 5}) || len(out.Sent()) != 0 {
		t.Errorf("sent %v", sent)
	}
	var back [4]uint64
	if n := q.Reap(back[:]); n != 1 || back[0] != chunks[0] || q.Reap(back[:]) != 0 {
		t.Errorf("%d came back", n)
	}
	u.Pool(0).Put(chunks[:])
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

type full struct{ room int }

var errFull = errors.New("no space left on device")

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// The worker goes on when the disk is full, and whoever closes the file is told.
func TestWriterTellsAtTheEnd(t *testing.T) {
	b := newBed(t, &full{room: 4096})
	frame := layersOf(t, ethernet(typ4), ip4(inetHost, behind, protoICMP), echo(), gopacket.Payload(make([]byte, 1000)))
	frames := make([][]byte, 20)
	for i := range frames {
		frames[i] = frame
	}
	if err := b.replay(t, classic(t, frames, false, false)); err != io.EOF {
		t.Fatal(err)
	}
	if err := b.out.Close(); !errors.Is(err, errFull) {
		t.Errorf("error: %v", err)
	}
	if _, err := NewWriter(io.Discard); err == nil {
		t.Error("a file of no ports")
	}
}
