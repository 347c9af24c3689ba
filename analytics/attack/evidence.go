package attack

import (
	"net/netip"
	"slices"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/sketch"
	"causeway/analytics/store"
)

const (
	keptPeers   = 16 // counters for addresses
	keptValues  = 16 // counters for ports, flags and protocols, each
	keptHeaders = 8
)

// evidence is what is kept of an attack, or of what may become one.
type evidence struct {
	since                       time.Time
	peers                       *sketch.SpaceSaving[netip.Addr]
	srcPorts, dstPorts          *sketch.SpaceSaving[uint16]
	flags, protocols            *sketch.SpaceSaving[uint8]
	count, packets, bits        uint64 // of samples, and of what they stand for
	droppedPackets, droppedBits uint64
	headers                     [keptHeaders][flow.HeaderLen]byte
	headerLen                   [keptHeaders]int
	headerCount                 int
}

func newEvidence(seed uint64) *evidence {
	port := func(p uint16) uint64 { return sketch.Hash(seed, uint64(p)) }
	octet := func(o uint8) uint64 { return sketch.Hash(seed, uint64(o)) }
	return &evidence{
		peers:    sketch.NewSpaceSaving(keptPeers, func(a netip.Addr) uint64 { return sketch.HashAddr(seed, a) }),
		srcPorts: sketch.NewSpaceSaving(keptValues, port), dstPorts: sketch.NewSpaceSaving(keptValues, port),
		flags: sketch.NewSpaceSaving(keptValues, octet), protocols: sketch.NewSpaceSaving(keptValues, octet),
	}
}

// begin forgets what was before.
func (e *evidence) begin(now time.Time) {
	e.peers.Reset()
	e.srcPorts.Reset()
	e.dstPorts.Reset()
	e.flags.Reset()
	e.protocols.Reset()
	e.since, e.headerCount = now, 0
	e.count, e.packets, e.bits, e.droppedPackets, e.droppedBits = 0, 0, 0, 0, 0
}

// add takes in a packet; peer is the address at its other end.
func (e *evidence) add(s *store.Sample, peer netip.Addr) {
	h, every := &s.Packet, uint64(s.Every)
	bits := every * uint64(s.Length) * 8
	e.count++
	e.packets += every
	e.bits += bits
	if s.Verdict == flow.Dropped {
		e.droppedPackets += every
		e.droppedBits += bits
	}
	e.peers.Add(peer, every)
	e.protocols.Add(h.Protocol, every)
	if h.HasPorts {
		e.srcPorts.Add(h.SrcPort, every)
		e.dstPorts.Add(h.DstPort, every)
	}
	if h.HasTCP {
		e.flags.Add(h.TCP.Flags, every)
	}
	if e.headerCount < keptHeaders {
		e.headerLen[e.headerCount] = copy(e.headers[e.headerCount][:], s.Header)
		e.headerCount++
	}
}

// few samples may have a value in common by chance: of a dozen of a scan's two often have the same target.
const few = 4

// common is the value that stands out: that at least a tenth have had for certain, and more than a few. Else it is zero.
func common[K comparable](e *evidence, s *sketch.SpaceSaving[K]) (none K) {
	top := s.Top(1)
	if len(top) == 0 {
		return none
	}
	if n := top[0].Count - top[0].Error; n*10 >= s.Total() && n > few*(e.packets/e.count) {
		return top[0].Key
	}
	return none
}

// attack is the row of the attack at a host.
func (e *evidence) attack(h *host, v Vector, id string) store.Attack {
	a := store.Attack{ID: id, Account: h.account, Start: e.since.Unix(), Type: v.Type(), Vector: v.String(),
		Src: text(common(e, e.peers)), SrcPort: common(e, e.srcPorts), Dst: text(h.addr), DstPort: common(e, e.dstPorts),
		Protocol: common(e, e.protocols), TCPFlags: common(e, e.flags),
		Packets: e.packets, Bits: e.bits, DroppedPackets: e.droppedPackets, DroppedBits: e.droppedBits}
	if v == Scan {
		a.Src, a.Dst = a.Dst, a.Src
	}
	if r, ok := reflectors[a.SrcPort]; ok && v == Reflection {
		a.Vector = r.name + " reflection"
	}
	return a
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// samples copies the headers that are kept.
func (e *evidence) samples() [][]byte {
	out := make([][]byte, e.headerCount)
	for i := range out {
		out[i] = slices.Clone(e.headers[i][:e.headerLen[i]])
	}
	return out
}
