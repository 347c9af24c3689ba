package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"causeway/control/ike/sa"
	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
	"causeway/pipeline"
	"causeway/pipeline/memport"
	"causeway/pipeline/wire"
	"causeway/xsk"
)

// TestChildrenCarryPackets: from one node's to another's and back, by the workers of both.
func TestChildrenCarryPackets(t *testing.T) {
	left, right := newCarrier(t, "192.0.2.1"), newCarrier(t, "192.0.2.2")
	spiLeft, errLeft := left.ReserveSPI()
	spiRight, errRight := right.ReserveSPI()
	if errLeft != nil || errRight != nil {
		t.Fatal(errLeft, errRight)
	}
	keys := [2][]byte{bytes.Repeat([]byte{1}, 20), bytes.Repeat([]byte{2}, 20)}
	child := sa.Child{Tunnel: "a", SPIIn: spiLeft, SPIOut: spiRight, Suite: esp.AES128GCM16, KeyIn: keys[0], KeyOut: keys[1], UDP: true, NAT: true,
		Endpoint: left.endpoint, Peer: netip.AddrPortFrom(right.endpoint, 4500), Life: esp.Life{SoftPackets: 2, HardPackets: 4}}
	if err := left.Install(&child); err != nil {
		t.Fatal(err)
	}
	child.SPIIn, child.SPIOut, child.KeyIn, child.KeyOut = spiRight, spiLeft, keys[1], keys[0]
	child.Endpoint, child.Peer = right.endpoint, netip.AddrPortFrom(left.endpoint, 4500)
	if err := right.Install(&child); err != nil {
		t.Fatal(err)
	}
	for n := range uint64(4) {
		sealed := left.take(inner)
		if len(sealed) != 1 {
			t.Fatalf("%d packets leave; dropped: %v", len(sealed), left.dropped())
		}
		if n == 1 {
			sealed[0][14+20], sealed[0][14+21] = 0x77, 0x77 // a NAT has lost its mind
		}
		if opened := right.take(sealed[0]); len(opened) != 1 || !bytes.Equal(opened[0][14+20:], inner[14+20:]) {
			t.Fatalf("%d packets come out; dropped: %v", len(opened), right.dropped())
		}
		sent, _ := left.Usage("a", spiLeft)
		got, _ := right.Usage("a", spiRight)
		bytes := (n + 1) * uint64(len(inner)-14)
		if sent.PacketsOut != n+1 || got.PacketsIn != n+1 || sent.BytesOut != bytes || got.BytesIn != bytes || sent.PacketsIn != 0 || got.PacketsOut != 0 ||
			sent.SoftExpired != (n >= 1) || got.SoftExpired != (n >= 1) || sent.HardExpired != (n == 3) || got.HardExpired != (n == 3) {
			t.Errorf("after %d: sent %+v, received %+v", n+1, sent, got)
		}
		if want := n == 1; (got.Source == netip.AddrPortFrom(left.endpoint, 0x7777)) != want || got.Source.IsValid() != want {
			t.Errorf("after %d: source %s", n+1, got.Source)
		}
	}
	if out := left.take(inner); len(out) != 0 || left.dropped()["esp_outbound_expired"] != 1 {
		t.Errorf("%d packets leave after the end: %v", len(out), left.dropped())
	}
	left.Remove("a", spiLeft)
	if out := left.take(inner); len(out) != 0 || left.dropped()["esp_no_outbound"] != 1 {
		t.Errorf("%d packets leave without a child: %v", len(out), left.dropped())
	}
	if _, ok := left.Usage("a", spiLeft); ok {
		t.Error("what was removed is there")
	}
}

// inner is a frame that is routed into the tunnel of a carrier, and what is in it, one hop later, to where its partner's leads out.
var inner = func() []byte {
	f := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, make([]byte, 40)...)
	ip := f[14:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, 40, 64, 200
	copy(ip[12:], []byte{203, 0, 113, 9})
	copy(ip[16:], []byte{203, 0, 113, 10})
	binary.BigEndian.PutUint16(ip[10:], wire.Checksum(ip[:20]))
	return f
}()

// carrier is children over an engine in memory.
type carrier struct {
	*children
	endpoint netip.Addr
	engine   *pipeline.Engine
	queue    *memport.Queue
}

func newCarrier(t *testing.T, endpoint string) *carrier {
	t.Helper()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: 256, Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	ivs, err := esp.NewIVSource(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	ivs.Reserve(1 << 40)
	c := &carrier{endpoint: netip.MustParseAddr(endpoint), queue: memport.New(u, 64)}
	c.engine, err = pipeline.NewEngine(pipeline.EngineConfig{UMEM: u, Ports: 1, IVs: ivs,
		Workers: []pipeline.WorkerConfig{{CPU: -1, Queues: []pipeline.QueueConfig{{Queue: c.queue, FillSize: 64}}}}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := ikeConfig(t, map[string]string{"a": "prefixes: [203.0.113.0/24],"}, "")
	cfg.Endpoints, cfg.Tunnels[0].Endpoint = []netip.Addr{c.endpoint}, c.endpoint
	if err := c.engine.Apply(SpecOf(cfg, []pipeline.LinkSpec{{MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1500}})); err != nil {
		t.Fatal(err)
	}
	vault := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	c.children = newChildren(vault, ivs)
	c.children.engine = c.engine
	if err := c.prepare(cfg); err != nil {
		t.Fatal(err)
	}
	id, _ := c.engine.TunnelID("a")
	f := c.engine.Forwarding()
	f.SetNeighbour(0, 0, [6]byte{2, 0, 0, 0, 0, 1}, true)
	f.SetTunnelRoute(id, pipeline.MakeLeaf(pipeline.KindNeighbour, 0))
	internet, _ := c.engine.VRF("")
	own, _ := c.engine.VRF(cfg.Tunnels[0].Account)
	for v, leaf := range map[*pipeline.VRF]pipeline.Leaf{internet: pipeline.MakeLeaf(pipeline.KindTunnel, id), own: pipeline.MakeLeaf(pipeline.KindNeighbour, 0)} {
		if err := v.V4.Insert(netip.MustParsePrefix("203.0.113.0/24"), leaf); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		c.close()
		c.engine.Close()
		if err := errors.Join(vault.Close(), u.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// take takes a frame through the pipeline and returns what leaves.
func (c *carrier) take(frame []byte) [][]byte {
	c.queue.Put(frame)
	for range 4 {
		c.engine.Poll(0)
	}
	return c.queue.Take()
}

func (c *carrier) dropped() map[string]uint64 {
	out := map[string]uint64{}
	total := c.engine.Total()
	for r, n := range total.Dropped {
		if n > 0 {
			out[pipeline.Reason(r).String()] = n
		}
	}
	return out
}
