package pipeline

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// espTunnel is what is known of an IPsec tunnel beside rxTunnel and txTunnel. Each of its associations is used by one worker
// alone, which its SPI chooses, so that it stays the same whatever the tunnel is called after a reload.
type espTunnel struct {
	udp           bool
	local, remote []netip.Prefix // selectors; none: anything
}

// inboundSA is what a tunnel knows of an association for receiving.
type inboundSA struct {
	tunnel int32
	owner  uint8
	udp    bool
	narrow bool // there are selectors
}

// spiIndex finds the association of an SPI, which the receiver has chosen, so that it needs nothing else (RFC 4301 4.1): a
// hash table with open addressing, at most half full.
type spiIndex struct {
	list  []inboundSA
	in    []*esp.Inbound // of the same number
	slots []spiSlot
	shift uint
}

type spiSlot struct {
	spi uint32
	at  uint32 // in list, plus 1; 0: free
}

func (x *spiIndex) add(in *esp.Inbound, sa inboundSA) {
	x.list, x.in = append(x.list, sa), append(x.in, in)
}

// build makes the table of the list.
func (x *spiIndex) build() error {
	bits := uint(1)
	for 1<<bits < 2*len(x.list)+1 {
		bits++
	}
	x.slots, x.shift = make([]spiSlot, 1<<bits), 32-bits
	for i, in := range x.in {
		s := x.slot(in.SPI())
		if s.at != 0 {
			return fmt.Errorf("spi %#x is that of two security associations", in.SPI())
		}
		*s = spiSlot{in.SPI(), uint32(i + 1)}
	}
	return nil
}

// slot is where an SPI is, or where it would be.
func (x *spiIndex) slot(spi uint32) *spiSlot {
	for k := spi * goldenRatio >> x.shift; ; k++ {
		s := &x.slots[k&uint32(len(x.slots)-1)]
		if s.at == 0 || s.spi == spi {
			return s
		}
	}
}

// find is the number of an SPI's association in list; beyond its end if there is none.
func (x *spiIndex) find(spi uint32) uint32 {
	if len(x.slots) == 0 {
		return noSA
	}
	return x.slot(spi).at - 1
}

const noSA = 1<<32 - 1

// OwnerOfSPI is the worker that uses the association with this SPI, however SPIs follow each other.
func (e *Engine) OwnerOfSPI(spi uint32) int {
	return int(uint64(spi*goldenRatio) * uint64(len(e.workers)) >> 32)
}

const goldenRatio = 0x9e3779b1 // times 2^32: spreads numbers that follow each other

// addESP completes an IPsec tunnel. A GRE packet never finds it, and one worker alone encapsulates.
func (e *Engine) addESP(t *Tables, s *TunnelSpec, id int) error {
	t.rx[id].flags &^= tunLive
	t.tx[id].flags |= tunSequence
	if s.SA.Outbound != nil {
		t.tx[id].owner = uint8(e.OwnerOfSPI(s.SA.Outbound.SPI()))
	}
	narrow := len(s.SA.Local) > 0 || len(s.SA.Remote) > 0
	t.esp[id] = &espTunnel{udp: s.SA.UDP, local: s.SA.Local, remote: s.SA.Remote}
	t.out[id] = s.SA.Outbound
	t.tx[id].way = s.SA.way(s.Endpoint.Is4() && !narrow)
	for _, in := range s.SA.Inbound {
		t.spis.add(in, inboundSA{tunnel: int32(id), owner: uint8(e.OwnerOfSPI(in.SPI())), udp: s.SA.UDP, narrow: narrow})
	}
	return nil
}

// way is how packets for a tunnel, which is a usual one or not, become ESP packets.
func (s *SASpec) way(usual bool) way {
	switch {
	case !usual || s.Outbound == nil:
		return wayGeneral
	case s.UDP:
		return wayESPInUDP
	}
	return wayESP
}

func (s *SASpec) proto() uint8 {
	if s.UDP {
		return wire.ProtoUDP
	}
	return wire.ProtoESP
}

// putNATTraversal writes the ports of a UDP header; its length is the packet's.
func putNATTraversal(udp []byte) {
	binary.BigEndian.PutUint16(udp, natTraversalPort)
	binary.BigEndian.PutUint16(udp[2:], natTraversalPort)
}

// admits reports whether a packet from the customer lies within the selectors (RFC 4301 5.2 step 4). What is too short to
// have addresses is left to the checks of inner headers.
func (e *espTunnel) admits(ip []byte) bool {
	if len(e.local) == 0 && len(e.remote) == 0 {
		return true
	}
	src, dst, ok := addresses(ip)
	return !ok || within(e.remote, src) && within(e.local, dst)
}

// selects reports whether a packet for the customer lies within the selectors (RFC 4301 5.1): without one that does, it
// must not leave.
func (e *espTunnel) selects(ip []byte) bool {
	if len(e.local) == 0 && len(e.remote) == 0 {
		return true
	}
	src, dst, ok := addresses(ip)
	return ok && within(e.local, src) && within(e.remote, dst)
}

func addresses(ip []byte) (src, dst netip.Addr, ok bool) {
	switch {
	case len(ip) >= ip4Len && ip[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	case len(ip) >= ip6Len && ip[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	default:
		return src, dst, false
	}
	return src, dst, true
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return len(prefixes) == 0
}
