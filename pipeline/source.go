package pipeline

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// A PeerSource is where the newest authentic packet of an association came from, in UDP. The association's worker writes it, when
// that is another place than before; nobody waits.
type PeerSource struct {
	turn   atomic.Uint32 // odd while the rest is being changed
	hi, lo atomic.Uint64 // of the address as IPv6
	port   atomic.Uint32
}

// NewPeerSource begins with where the peer is thought to be, of which nothing has to be noted.
func NewPeerSource(peer netip.AddrPort) *PeerSource {
	s := new(PeerSource)
	s.set(words6(peer.Addr().As16()), peer.Port())
	return s
}

// Get is the address and port. It is not valid in the moment in which they change.
func (s *PeerSource) Get() netip.AddrPort {
	turn := s.turn.Load()
	var a [16]byte
	binary.BigEndian.PutUint64(a[:], s.hi.Load())
	binary.BigEndian.PutUint64(a[8:], s.lo.Load())
	port := s.port.Load()
	if turn%2 != 0 || s.turn.Load() != turn {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), uint16(port))
}

func (s *PeerSource) set(addr [2]uint64, port uint16) {
	s.turn.Add(1)
	s.hi.Store(addr[0])
	s.lo.Store(addr[1])
	s.port.Store(uint32(port))
	s.turn.Add(1)
}

// noteSource notes where an authentic packet in UDP came from.
func (w *worker) noteSource(p *packet, in *esp.Inbound, s *PeerSource) {
	f := w.frame(p.chunk)
	ip, udp := f[p.l3:p.end], f[int(p.l4)-in.Suite().Before()-wire.UDPLen:]
	addr := [2]uint64{0, 0xffff<<32 | uint64(p.src)}
	if p.flags&pktV6 != 0 {
		addr = addr6(ip[wire.IPv6OffSrc:])
	}
	port := binary.BigEndian.Uint16(udp)
	if s.lo.Load() != addr[1] || s.hi.Load() != addr[0] || s.port.Load() != uint32(port) {
		s.set(addr, port)
	}
}
