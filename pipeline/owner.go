package pipeline

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// A tunnel with replay protection toward the customer has one node that encrypts, its owner: the sequence numbers of several would
// not be one sequence (DESIGN 4.2). The others give the owner what they have for the tunnel, in ESP from node address to node address
// (DESIGN 4.6). The text of such a packet is a tag that names the tunnel, and the packet as it goes into the tunnel: all checks, the
// clamp and the hop of the inner header were done by the node that got it. The owner encapsulates it, or drops it: what was forwarded
// is never forwarded again.

// An Owner is who encrypts toward the customer of a tunnel with TunnelSpec.Owned. The zero Owner is nobody.
type Owner struct {
	Here bool   // this node
	Via  string // the tunnel with TunnelSpec.Node that leads to it
}

// Where espTunnel.via is no tunnel's number.
const (
	viaHere   = -1
	viaNobody = -2
)

// tagLen is how many bytes of tag are in front of a forwarded packet.
const tagLen = 4

// ForwardOverhead is how much longer a packet is between nodes than its ESP packet toward the customer at the most: the tag, and what
// AES-GCM with a tag of 16 bytes has more than other suites. A tunnel whose MTU is that much less needs no fragments between nodes.
const ForwardOverhead = 8

// TunnelTag is what names a tunnel between nodes. Two tunnels of a node must not have the same.
func TunnelTag(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// tagIndex finds tunnels by their tags: open addressing, at most half full.
type tagIndex []tagSlot

type tagSlot struct {
	tag uint32
	id  int32 // plus 1; 0: free
}

func (x *tagIndex) build(tags map[uint32]int) {
	n := 4
	for n < 2*len(tags) {
		n *= 2
	}
	*x = make(tagIndex, n)
	for tag, id := range tags {
		(*x)[x.place(tag)] = tagSlot{tag, int32(id) + 1}
	}
}

func (x tagIndex) place(tag uint32) int {
	for k := int(tag * goldenRatio >> 16); ; k++ {
		k &= len(x) - 1
		if s := &x[k]; s.id == 0 || s.tag == tag {
			return k
		}
	}
}

// find is the number of a tag's tunnel, or -1.
func (x tagIndex) find(tag uint32) int {
	if len(x) == 0 {
		return -1
	}
	return int(x[x.place(tag)].id) - 1
}

// betweenNodes are the tunnels that have tags: those that may have an owner elsewhere, and those to other nodes.
type betweenNodes struct{ owned, nodes map[uint32]int }

// add notes a tunnel.
func (b *betweenNodes) add(names []string, s *TunnelSpec, id int) error {
	tags := b.owned
	switch {
	case s.Node:
		tags = b.nodes
	case !s.Owned:
		return nil
	}
	tag := TunnelTag(s.Name)
	other, taken := tags[tag]
	switch {
	case taken:
		return fmt.Errorf("tunnels %q and %q have one name between nodes (%#x): rename one of them", names[other], s.Name, tag)
	case tag == messageTag:
		return fmt.Errorf("tunnel %q has the name of messages between nodes (%#x): rename it", s.Name, tag)
	}
	tags[tag] = id
	return nil
}

// SetOwner says who encrypts toward the customer of a tunnel. It is so when wait has returned; it must be called.
func (e *Engine) SetOwner(tunnel string, o Owner) (wait func() error) {
	return e.ask(tunnel, func(c *childChange) { c.owners[tunnel] = o })
}

// viaOf is the number of the tunnel to the owner of tunnel id.
func (e *Engine) viaOf(id int) int32 {
	o, owned := e.children.owners[id]
	switch {
	case !owned || o.Here:
		return viaHere
	case o.Via == "":
		return viaNobody
	}
	via, ok := e.names.tunnels[o.Via]
	if !ok {
		return viaNobody
	}
	return int32(via)
}

// forwardToOwner gives a packet for tunnel id to the node that encrypts for it.
func (w *worker) forwardToOwner(t *Tables, p *packet, id, via int) {
	if p.forwarded {
		w.refuseESP(p, id, OwnerLoop)
		return
	}
	by := t.towardNode(via)
	if by == nil {
		w.refuseESP(p, id, OwnerAway)
		return
	}
	if int(by.tx.owner) != w.id {
		w.handToEncap(t, p, id, int(by.tx.owner))
		return
	}
	if int(p.l3) < frameRoom+esp.MaxBefore+tagLen {
		w.refuseESP(p, id, FrameNoRoom)
		return
	}
	p.flags &^= pktSampled // the owner samples what it encapsulates
	if p.flags&pktCaptured != 0 {
		w.noteNode(p, true)
		w.noteEnd(p, int32(id), Forwarded)
	}
	tos, _ := w.tosOf(p)
	w.count.toOwner.add(1)
	w.sealTagged(t, p, via, by, tos, t.tags[id])
}

// towardNode is the association with the node that tunnel via leads to; nil: there is none.
func (t *Tables) towardNode(via int) *sender {
	if uint(via) >= uint(len(t.esp)) || t.esp[via] == nil || len(t.esp[via].senders) == 0 {
		return nil
	}
	return &t.esp[via].senders[0]
}

// sealTagged sends p to another node, with a tag in front, for which there is room.
func (w *worker) sealTagged(t *Tables, p *packet, via int, by *sender, tos uint8, tag uint32) {
	route := w.outerRoute(p, via)
	p.l3 -= tagLen
	binary.BigEndian.PutUint32(w.frame(p.chunk)[p.l3:], tag)
	w.seal(t, p, via, by, route, tos, esp.NextForward)
}

// takeForwarded encapsulates a packet that another node has forwarded to this one, as the owner of its tunnel.
func (w *worker) takeForwarded(t *Tables, p *packet, next uint8) {
	text := w.frame(p.chunk)[p.l4:p.end]
	if next != esp.NextForward || len(text) < tagLen+ip4Len {
		w.drop(p, ESPProtocol)
		return
	}
	tag := binary.BigEndian.Uint32(text)
	if tag == messageTag {
		w.takeMessage(p, text[tagLen:])
		return
	}
	id := t.tagged.find(tag)
	if id < 0 {
		w.drop(p, OwnerTunnel)
		return
	}
	c := &w.tunnels[p.tunnel]
	c.rxPackets.add(1)
	c.rxBytes.add(uint64(len(text)))
	w.count.fromNodes.add(1)
	q := *p // parse does not set forwarded for each packet of a batch
	q.l3, q.tunnel, q.flags, q.forwarded = p.l4+tagLen, noTunnel, p.flags&watched, true
	w.noteNode(&q, false)
	ip := text[tagLen:]
	switch {
	case ip[0]>>4 == 4:
		q.proto, q.l4 = ip[wire.IPv4OffProto], q.l3+uint16(ip[0]&15)*4
		q.src, q.dst = binary.BigEndian.Uint32(ip[wire.IPv4OffSrc:]), binary.BigEndian.Uint32(ip[wire.IPv4OffDst:])
	case ip[0]>>4 == 6 && len(ip) >= ip6Len:
		q.flags |= pktV6
		q.proto, q.l4 = ip[wire.IPv6OffNext], q.l3+ip6Len
	default:
		w.drop(p, ESPProtocol)
		return
	}
	w.encap(t, &q, id)
}
