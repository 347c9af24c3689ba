package pipeline

import (
	"unsafe"

	"causeway/xsk"
)

// BatchSize is how many packets travel the pipeline together.
const BatchSize = 64

// A batch is the packets of one call of Receive and the vectors of indexes by which the stages pass them on. It is
// part of its worker and used again for every batch. Packets of one flow are always in the same vector, so they stay
// in the order they came.
type batch struct {
	packets [BatchSize]packet
	n       int

	gre vector // GRE packets to an endpoint
	esp vector // ESP packets to an endpoint

	// Packets with a destination to look up.
	net4 lookups // IPv4, in the Internet's table
	own4 lookups // IPv4 out of a tunnel, in its account's table first; those with no route there go on to net4
	all6 lookups // IPv6
}

// reset empties the vectors; the packets stay.
func (b *batch) reset() {
	b.gre.n, b.esp.n, b.net4.n, b.own4.n, b.all6.n = 0, 0, 0, 0, 0
}

// A vector is an ordered list of indexes into a batch.
type vector struct {
	n  int
	at [BatchSize]uint8
}

func (v *vector) add(i int) {
	v.at[v.n&(BatchSize-1)] = uint8(i)
	v.n++
}

func (v *vector) list() []uint8 { return v.at[:v.n] }

// lookups is a vector with the destinations of its packets and, after route, the leaves that they lead to: next to
// each other, as a batch of look-ups wants them.
type lookups struct {
	vector
	dst  [BatchSize]uint32 // IPv4 only, host order
	leaf [BatchSize]Leaf
}

func (l *lookups) add4(i int, dst uint32) {
	l.dst[l.n&(BatchSize-1)] = dst
	l.add(i)
}

// toRoute queues packet i for route.
func (b *batch) toRoute(i int) {
	p := &b.packets[i]
	switch {
	case p.flags&pktV6 != 0:
		b.all6.add(i)
	case p.vrf != 0:
		b.own4.add4(i, p.dst)
	default:
		b.net4.add4(i, p.dst)
	}
}

// packet is what the stages know of one packet: one cache line. Offsets are relative to the start of its frame.
type packet struct {
	chunk     uint64 // UMEM address of the frame
	hash      uint64 // of the outer address pair and key, until the tunnel is found
	src, dst  uint32 // IPv4 addresses of the header that is looked at, host order
	leaf      Leaf
	tunnel    int32  // id of the tunnel that it came through; noTunnel: from outside
	key       uint32 // of the GRE header; of an ESP packet its SPI
	l3        uint16 // start of the IP packet that is looked at
	end       uint16 // first byte behind it
	l4        uint16 // start of what its IP header carries
	vrf       uint16 // table to look up first; 0: the Internet's
	flags     uint16
	proto     uint8 // protocol of what the IP header carries
	outerECN  uint8
	port      uint8 // port that it came by
	encrypt   bool  // with pktOriginated: answers what came encrypted, so it must not leave in clear
	forwarded bool  // by another node: it must not go to one again
	_         [3]byte
	sample    uint32 // with pktSampled: place of its sample in the ring, plus 1; 0: there is none yet
	capture   uint16 // with pktCaptured: place of its record, and of which capture
	_         [2]byte
}

const noTunnel = -1

// Flags of a packet.
const (
	pktV6              uint16 = 1 << iota // the IP header that is looked at is IPv6's
	pktKeyed                              // the GRE header has a key
	pktSYN                                // TCP with SYN set: its MSS may be clamped
	pktOriginated                         // made here: no ICMP error is sent about it
	pktInterfaceSource                    // its source is in the tunnel's interface subnet
	pktLaterFragment                      // a fragment other than the first: no transport header
	pktInjected                           // sent by the host through the TUN device
	pktOuter6                             // before decap: the outer header is IPv6's, pktV6 speaks of the inner one
	pktSampled                            // it was picked: what becomes of it is told (sample.go)
	pktProbe                              // of the control side's, or an answer to one
	pktCaptured                           // a capture looks at it (capture.go)
)

// watched are the flags of packets of which is told what becomes of them.
const watched = pktSampled | pktCaptured

// frame returns the bytes of the frame at chunk. The address comes from this worker's own bookkeeping or from a
// descriptor, which parse has checked, so it lies within the UMEM.
func (w *worker) frame(chunk uint64) *[xsk.FrameSize]byte {
	return (*[xsk.FrameSize]byte)(unsafe.Add(w.memory, chunk))
}

// bytes returns the IP packet p.
func (w *worker) bytes(p *packet) []byte {
	return w.frame(p.chunk)[p.l3:p.end]
}
