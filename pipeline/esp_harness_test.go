package pipeline

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// espPeer is the customer's router of an IPsec tunnel. It uses package esp too, which its own tests hold against others.
type espPeer struct {
	t      testing.TB
	suite  esp.Suite
	outer6 bool
	udp    bool
	vault  *aesgcm.Vault
	in     *esp.Inbound  // what the node sends
	out    *esp.Outbound // what it receives
	opener esp.Opener
	sealer *esp.Sealer
	node   SASpec
}

type espOptions struct {
	suite       esp.Suite
	outer6, udp bool
	esn         bool
	window      int
	spi         uint32 // of the node; the peer's is the next
	life        esp.Life
}

// ivs gives out IVs without end.
func ivs(t testing.TB, writer uint32) *esp.IVSource {
	t.Helper()
	s, err := esp.NewIVSource(writer, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Reserve(1 << 44)
	return s
}

func newESPPeer(t testing.TB, o espOptions) *espPeer {
	t.Helper()
	if o.spi == 0 {
		o.spi = 0x1000
	}
	p := &espPeer{t: t, suite: o.suite, outer6: o.outer6, udp: o.udp, vault: aesgcm.NewVault(aesgcm.Options{Unlocked: true}), sealer: esp.NewSealer(ivs(t, 1))}
	rng := rand.New(rand.NewPCG(uint64(o.spi), 9))
	params := func(spi uint32) esp.Params {
		key := make([]byte, o.suite.KeySize())
		for i := range key {
			key[i] = byte(rng.Uint32())
		}
		return esp.Params{SPI: spi, Suite: o.suite, Key: key, ESN: o.esn, Life: o.life}
	}
	inbound := func(q esp.Params, window int) *esp.Inbound {
		sa, err := esp.NewInbound(p.vault, q, window)
		if err != nil {
			t.Fatal(err)
		}
		return sa
	}
	outbound := func(q esp.Params) *esp.Outbound {
		sa, err := esp.NewOutbound(p.vault, q, 1)
		if err != nil {
			t.Fatal(err)
		}
		sa.Mark(1 << 40)
		return sa
	}
	toNode, toPeer := params(o.spi), params(o.spi+1)
	p.out, p.in = outbound(toNode), inbound(toPeer, 64)
	p.node = SASpec{Inbound: []*esp.Inbound{inbound(toNode, o.window)}, Outbound: outbound(toPeer), UDP: o.udp}
	t.Cleanup(func() {
		if err := p.vault.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// tunnel is the peer's tunnel as the node knows it.
func (p *espPeer) tunnel(name string, change ...func(*TunnelSpec)) TunnelSpec {
	s := tunnelOver(p.outer6, append(change, func(s *TunnelSpec) {
		s.Name, s.SA = name, &p.node
		s.MTU = p.suite.MaxText(1500 - s.Overhead())
	})...)
	return s
}

// seal makes the frame that the peer sends around an inner packet.
func (p *espPeer) seal(inner []byte) []byte { return p.wrap(p.packet(inner)) }

// packet is the ESP packet alone.
func (p *espPeer) packet(inner []byte) []byte {
	p.t.Helper()
	next := uint8(esp.NextIPv4)
	if inner[0]>>4 == 6 {
		next = esp.NextIPv6
	}
	return p.packetOf(inner, next)
}

func (p *espPeer) packetOf(inner []byte, next uint8) []byte {
	p.t.Helper()
	frame := append(append(make([]byte, 64), inner...), make([]byte, 64)...)
	from, to, v := p.sealer.Add(p.out, frame, 64, 64+len(inner), next)
	if v != esp.OK {
		p.t.Fatal(v)
	}
	p.sealer.Seal()
	return frame[from:to]
}

// wrap puts the outer headers around an ESP packet, by gopacket.
func (p *espPeer) wrap(packet []byte, change ...func(gopacket.SerializableLayer)) []byte {
	p.t.Helper()
	proto := layers.IPProtocolESP
	if p.udp {
		proto = layers.IPProtocolUDP
	}
	l3 := ip(customerOf(p.outer6), endpointOf(p.outer6), proto)
	for _, f := range change {
		f(l3)
	}
	l := []gopacket.SerializableLayer{l3}
	if p.udp {
		u := &layers.UDP{SrcPort: 4500, DstPort: 4500}
		setNetwork(p.t, u, l3)
		l = append(l, u)
	}
	return framed(serialize(p.t, append(l, gopacket.Payload(packet))...))
}

// open judges the outer headers by gopacket, and returns the inner packet.
func (p *espPeer) open(frame []byte) []byte {
	p.t.Helper()
	d := decode(p.t, frame)
	if p.udp {
		u, ok := d.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || u.SrcPort != 4500 || u.DstPort != 4500 || int(u.Length) != len(frame)-14-len(d.NetworkLayer().LayerContents()) {
			p.t.Fatalf("no UDP header of NAT traversal: %v", d)
		}
		if p.outer6 {
			l3 := frame[14:]
			sum := wire.PseudoSum6(l3, wire.ProtoUDP, len(l3)-40)
			if wire.Fold(wire.Sum(l3[40:], sum)) != 0xffff {
				p.t.Error("the UDP checksum is wrong")
			}
		} else if u.Checksum != 0 {
			p.t.Error("a UDP checksum over IPv4, which should be zero (RFC 3948 2.1)")
		}
	}
	at := 14 + 20
	if p.outer6 {
		at = 14 + 40
	}
	if p.udp {
		at += 8
	}
	packet := bytes.Clone(frame[at:])
	if spi := binary.BigEndian.Uint32(packet); spi != p.in.SPI() {
		p.t.Fatalf("spi %#x, want %#x", spi, p.in.SPI())
	}
	p.opener.Reset()
	if v := p.opener.Add(p.in, packet); v != esp.OK {
		p.t.Fatal(v)
	}
	p.opener.Open()
	from, to, _, v := p.opener.Result(0)
	if v != esp.OK {
		p.t.Fatal(v)
	}
	return packet[from:to]
}

// newESPBed is newBed with IVs for the node.
func newESPBed(t testing.TB, workers int, tunnels ...TunnelSpec) *bed {
	t.Helper()
	b := newBed(t, workers, tunnels...)
	source := ivs(t, 2)
	for _, w := range b.engine.workers {
		w.sealer = esp.NewSealer(source)
	}
	return b
}
