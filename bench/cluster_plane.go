package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"causeway/control/cluster"
	"causeway/control/ike/sa"
	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
)

// clusterSuite is that of all pairs of the cluster scenario.
const clusterSuite = esp.AES128GCM16

// clusterText is what is inside of the packets.
var clusterText = bytes.Repeat([]byte("through "), 8)

// clusterKey is the key of a pair in one direction. The peer's packets are made of it, and not of what the nodes tell each other: a
// packet is opened only by a node that was told the right one.
func clusterKey(spi uint32, direction byte) []byte {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint32([]byte("cluster bench "), spi), direction))
	return sum[:clusterSuite.KeySize()]
}

// A clusterPlane is a node's dataplane. With each pair that it is given it makes the association, and lets it open a packet of the
// peer: the pair is usable here when that was done. The association is wiped then, so that memory is the cluster's alone.
type clusterPlane struct {
	cluster.Dataplane // what is not called is not there
	vault             *aesgcm.Vault
	opened            func(spi uint32)

	mu     sync.Mutex
	sealer *esp.Sealer // the peer's
	opener esp.Opener
	pairs  map[uint32]struct{}
}

// newClusterPlane makes one that tells opened of each pair that has become usable.
func newClusterPlane(v *aesgcm.Vault, opened func(spi uint32)) (*clusterPlane, error) {
	source, err := esp.NewIVSource(1, 1)
	if err != nil {
		return nil, err
	}
	source.Reserve(1 << 40)
	return &clusterPlane{vault: v, opened: opened, sealer: esp.NewSealer(source), pairs: map[uint32]struct{}{}}, nil
}

// Install makes a pair.
func (p *clusterPlane) Install(c *sa.Child) error {
	if err := p.install(c); err != nil {
		return err
	}
	p.opened(c.SPIIn)
	return nil
}

func (p *clusterPlane) install(c *sa.Child) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(c); err != nil {
		return err
	}
	p.pairs[c.SPIIn] = struct{}{}
	return nil
}

// open has a pair's association open a packet of the peer.
func (p *clusterPlane) open(c *sa.Child) error {
	packet, err := p.packet(c.SPIIn)
	if err != nil {
		return err
	}
	in, err := esp.NewInbound(p.vault, esp.Params{SPI: c.SPIIn, Suite: c.Suite, Key: c.KeyIn}, 1024)
	if err != nil {
		return err
	}
	defer in.Wipe()
	p.opener.Reset()
	v := p.opener.Add(in, packet)
	if v == esp.OK {
		var from, to int
		p.opener.Open()
		if from, to, _, v = p.opener.Result(0); v == esp.OK && bytes.Equal(packet[from:to], clusterText) {
			return nil
		}
	}
	return fmt.Errorf("spi %#x does not open its peer's packet: %v", c.SPIIn, v)
}

// packet is one that the peer sends.
func (p *clusterPlane) packet(spi uint32) ([]byte, error) {
	out, err := esp.NewOutbound(p.vault, esp.Params{SPI: spi, Suite: clusterSuite, Key: clusterKey(spi, 0)}, 1)
	if err != nil {
		return nil, err
	}
	defer out.Wipe()
	out.Mark(2)
	frame := make([]byte, esp.MaxBefore+len(clusterText)+64)
	end := esp.MaxBefore + copy(frame[esp.MaxBefore:], clusterText)
	from, to, v := p.sealer.Add(out, frame, esp.MaxBefore, end, esp.NextIPv4)
	if v != esp.OK {
		return nil, fmt.Errorf("spi %#x: the peer does not seal: %v", spi, v)
	}
	p.sealer.Seal()
	return frame[from:to], nil
}

// count is how many pairs there are.
func (p *clusterPlane) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}

// Remove ends pairs.
func (p *clusterPlane) Remove(_ string, spis ...uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, spi := range spis {
		delete(p.pairs, spi)
	}
}

// Usage: of each pair one packet was received.
func (p *clusterPlane) Usage(_ string, spi uint32) (sa.Usage, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, there := p.pairs[spi]
	return sa.Usage{PacketsIn: 1, BytesIn: uint64(len(clusterText))}, there
}

// Received tells the number of that packet.
func (p *clusterPlane) Received(f func(spi uint32, highest uint64)) {
	p.mu.Lock()
	list := slices.Collect(maps.Keys(p.pairs))
	p.mu.Unlock()
	for _, spi := range list {
		f(spi, 1)
	}
}

func (p *clusterPlane) Adopt(uint32) error                      { return nil }
func (p *clusterPlane) ReleaseSPI(uint32)                       {}
func (p *clusterPlane) Use(string, uint32) error                { return nil }
func (p *clusterPlane) Move(string, uint32, netip.AddrPort)     {}
func (p *clusterPlane) SetFloor(uint32, uint64)                 {}
func (p *clusterPlane) Limited(func(spi uint32, used sa.Usage)) {}

func (p *clusterPlane) Moved(func(spi uint32, highest uint64, from netip.AddrPort)) {}
