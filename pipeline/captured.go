package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/match"
	"causeway/pipeline/wire"
	"causeway/xsk"
)

// A Captured is a packet that a capture shows: as it came, as it came out of a tunnel, and what was decided about it on its way. What
// was not decided, because the packet did not come so far, is zero.
type Captured struct {
	at     int64 // nanoseconds since worker took started
	took   int32
	size   uint16 // bytes of data that are the frame
	inner  uint16 // bytes of data, behind them, that are the inner packet
	data   [2 * xsk.FrameSize]byte
	Origin Origin
	Port   int // that it came by; of FromPort

	Verdict Verdict
	Reason  Reason // with Dropped
	In, Out int32  // numbers of the tunnels that it came out of and went, or was to go, into; -1: none

	Decapsulated bool   // the outer header was taken off; the tunnel is In
	Via          uint8  // protocol of what carried it: GRE, ESP, UDP
	Key          uint32 // of its GRE header, where Keyed; its SPI, if it came in ESP
	Keyed        bool
	FromNode     bool // another node had forwarded it, as it goes into the tunnel
	Admitted     bool // the checks of an inner packet were passed
	Joined       int  // fragments that became the datagram; 0: it came whole
	Held         bool // it is a fragment that waits for others
	HandedTo     int  // worker that it was handed to, the last one, plus 1
	HandedOver   int  // how often it was

	Routed       bool
	Table        int  // VRF whose route it took
	Leaf         Leaf // that the route leads to
	Member       Leaf // of a group, the one chosen
	ClampSeen    bool // a SYN whose MSS was looked at
	ClampTo      int  // largest MSS that passes
	Clamped      bool // its MSS was larger
	Sized        bool
	Size, Limit  int // bytes of the IP packet, and how many may go where it is going
	Pieces       int // that it was fragmented into; 0: it was not
	Answered     bool
	Encapsulated bool
	SPI          uint32 // of the ESP packet that it became; 0: GRE
	OuterSize    int    // bytes of the outer IP packet
	ToNode       bool   // given to the node that encrypts for Out

	Sent      bool
	OutPort   int
	VLAN      int
	NextHop   [6]byte // link address
	FrameSize int     // bytes of the frame that left; of several, of the first
	Probe     bool    // of the control side's, or an answer to one

	inAccount, outAccount int32
	wanted                bool // it matches
}

// An Origin is where a packet came from.
type Origin uint8

// The origins.
const (
	FromPort    Origin = iota
	FromHost           // the kernel, through the TUN device: Frame is an IP packet
	FromControl        // the control side, for a tunnel: a probe, or what a tunnel's device sent; likewise
)

// Frame is what came; the Captured's.
func (s *Captured) Frame() []byte { return s.data[:s.size] }

// Packet is the IP packet in Frame, whatever stands behind it included; nil if there is none.
func (s *Captured) Packet() []byte {
	frame := s.Frame()
	if s.Origin != FromPort {
		return frame
	}
	if e, f := wire.ParseEthernet(frame); f == wire.OK && (e.Type == wire.EtherTypeIPv4 || e.Type == wire.EtherTypeIPv6) {
		return frame[e.L3:]
	}
	return nil
}

// Inner is the packet that came out of the tunnel, before anything in it was changed; nil if it did not come so far.
func (s *Captured) Inner() []byte {
	if s.inner == 0 {
		return nil
	}
	return s.data[s.size : s.size+s.inner]
}

// begin makes the place one for a packet that has just come.
func (s *Captured) begin(w *worker, o Origin, port int, frame []byte) {
	data := &s.data
	n := copy(data[:xsk.FrameSize], frame)
	s.forget()
	s.at, s.took, s.size, s.Origin, s.Port = w.now, int32(w.id), uint16(n), o, port
	s.In, s.Out, s.inAccount, s.outAccount = noTunnel, noTunnel, noTunnel, noTunnel
}

// forget clears all but data, which is not worth it.
func (s *Captured) forget() {
	s.inner, s.wanted = 0, false
	s.Verdict, s.Reason, s.Decapsulated, s.Via, s.Key, s.Keyed, s.FromNode, s.Admitted = 0, 0, false, 0, 0, false, false, false
	s.Joined, s.Held, s.HandedTo, s.HandedOver, s.Routed, s.Table, s.Leaf, s.Member = 0, false, 0, 0, false, 0, 0, 0
	s.ClampSeen, s.ClampTo, s.Clamped, s.Sized, s.Size, s.Limit, s.Pieces, s.Answered = false, 0, false, false, 0, 0, 0, false
	s.Encapsulated, s.SPI, s.OuterSize, s.ToNode = false, 0, 0, false
	s.Sent, s.OutPort, s.VLAN, s.NextHop, s.FrameSize, s.Probe = false, 0, 0, [6]byte{}, 0, false
}

// packet is what filters are asked about.
func (s *Captured) packet() match.Packet {
	return match.Packet{Length: int(s.size), In: s.In, Out: s.Out, InAccount: s.inAccount, OutAccount: s.outAccount,
		Verdict: uint8(s.Verdict), Reason: uint8(s.Reason), Outer: match.Of(s.Packet()), Inner: match.Of(s.Inner())}
}

// What follows is called by the stages for packets with pktCaptured alone.

// capturedOf is the place of such a packet, while it is this worker's; else nil.
func (w *worker) capturedOf(p *packet) *Captured {
	if x := w.capturing; x != nil && p.flags&pktCaptured != 0 && x.has(p.capture) {
		return &x.capture.slots[p.capture&captureSlotMask]
	}
	return nil
}

// noteInner keeps the inner packet, which begins at p.l3 and is as it came.
func (w *worker) noteInner(t *Tables, p *packet, via uint8) {
	s := w.capturedOf(p)
	if s == nil {
		return
	}
	s.Decapsulated, s.Via, s.Key, s.Keyed = true, via, p.key, p.flags&pktKeyed != 0
	s.inner = uint16(copy(s.data[s.size:], w.bytes(p)))
	s.from(t, p.tunnel)
}

// from notes the tunnel that the packet came out of.
func (s *Captured) from(t *Tables, id int32) {
	if uint32(id) < uint32(len(t.rx)) {
		s.In, s.inAccount = id, int32(t.rx[id].vrf)
	}
}

// into notes the tunnel that the packet goes into.
func (s *Captured) into(t *Tables, id int32) {
	if uint32(id) < uint32(len(t.tx)) {
		s.Out, s.outAccount = id, int32(t.tx[id].vrf)
	}
}

func (w *worker) noteAdmitted(p *packet) {
	if s := w.capturedOf(p); s != nil {
		s.Admitted = true
	}
}

// noteRoutes notes where the packets of a batch are routed.
func (w *worker) noteRoutes(t *Tables, b *batch) {
	for _, l := range [...]*lookups{&b.own4, &b.net4, &b.all6} {
		for k, i := range l.list() {
			p := &b.packets[i]
			s := w.capturedOf(p)
			if s == nil {
				continue
			}
			s.Routed, s.Leaf, s.Table = true, l.leaf[k], 0
			if l == &b.own4 || l == &b.all6 && p.vrf != 0 && w.isOwn6(t, p) {
				s.Table = int(p.vrf)
			}
		}
	}
}

// isOwn6 reports whether it was the account's table that had a route for an IPv6 packet, which route does not remember.
func (w *worker) isOwn6(t *Tables, p *packet) bool {
	dst := addr6(w.frame(p.chunk)[p.l3+wire.IPv6OffDst:])
	return t.vrfs[p.vrf].V6.Lookup(dst[0], dst[1]) != 0
}

// noteMember notes where a packet goes in the end: to one of a group.
func (w *worker) noteMember(p *packet, l Leaf) {
	if s := w.capturedOf(p); s != nil {
		s.Member = l
	}
}

func (w *worker) noteClamp(p *packet, limit int, changed bool) {
	if s := w.capturedOf(p); s != nil {
		s.ClampSeen, s.ClampTo, s.Clamped = true, limit, changed
	}
}

func (w *worker) noteSize(p *packet, limit int) {
	if s := w.capturedOf(p); s != nil {
		s.Sized, s.Size, s.Limit = true, int(p.end-p.l3), limit
	}
}

func (w *worker) notePieces(p *packet, n int) {
	if s := w.capturedOf(p); s != nil {
		s.Pieces = n
	}
}

// noteOuter notes an outer packet that begins at o, with a header of hlen bytes.
func (w *worker) noteOuter(p *packet, o, hlen uint, sealed bool) {
	s := w.capturedOf(p)
	if s == nil {
		return
	}
	s.Encapsulated, s.OuterSize = true, int(uint(p.end)-o)
	if sealed {
		s.SPI = binary.BigEndian.Uint32(w.frame(p.chunk)[o+hlen:])
	}
}

// noteSent notes the frame that begins at start.
func (w *worker) noteSent(p *packet, lk *link, slot uint64, start uint) {
	if s := w.capturedOf(p); s != nil {
		s.Sent, s.OutPort, s.VLAN, s.FrameSize = true, int(lk.port), int(lk.vlan), int(uint(p.end)-start)
		mac := slot >> neighbourMACShift
		for i := range s.NextHop {
			s.NextHop[i] = byte(mac >> (40 - 8*i))
		}
	}
}

func (w *worker) noteAnswered(p *packet) {
	if s := w.capturedOf(p); s != nil {
		s.Answered = true
	}
}

// noteNode notes that another node forwarded the packet, which begins at p.l3, or that it is forwarded to one.
func (w *worker) noteNode(p *packet, to bool) {
	s := w.capturedOf(p)
	if s == nil {
		return
	}
	if to {
		s.ToNode = true
		return
	}
	s.FromNode = true
	s.inner = uint16(copy(s.data[s.size:], w.bytes(p)))
}

// noteHeld notes a fragment; noteJoined that it was the last one of n.
func (w *worker) noteHeld(p *packet) {
	if s := w.capturedOf(p); s != nil {
		s.Held = true
	}
}

func (w *worker) noteJoined(p *packet, n int) {
	if s := w.capturedOf(p); s != nil {
		s.Held, s.Joined = false, n
	}
}

// noteEnd notes what becomes of a packet, which may be said more than once: the last word counts.
func (w *worker) noteEnd(p *packet, out int32, v Verdict) {
	s := w.capturedOf(p)
	if s == nil {
		return
	}
	t := w.engine.tables.Load()
	s.Verdict, s.Probe = v, s.Probe || p.flags&pktProbe != 0
	if p.tunnel != noTunnel && s.In == noTunnel {
		s.from(t, p.tunnel)
	}
	if out != noTunnel {
		s.into(t, out)
	}
}

func (w *worker) noteReason(p *packet, r Reason) {
	if s := w.capturedOf(p); s != nil {
		s.Verdict, s.Reason, s.Held = Dropped, r, false
	}
}
