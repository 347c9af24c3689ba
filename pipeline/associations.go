package pipeline

import (
	"encoding/binary"
	"fmt"
	"slices"

	"causeway/crypto/esp"
	"causeway/pipeline/wire"
)

// associations is the part of Tables that changes with the children of IPsec tunnels, much more often than the rest: there are
// two of it, which take turns (children.go).
type associations struct {
	tx   []txTunnel      // by tunnel id
	esp  []*espTunnel    // by tunnel id; nil: GRE
	out  []*esp.Outbound // by tunnel id, of the first child; nil: GRE, or nothing can be sent
	spis spiIndex        // associations for receiving
}

// espTunnel is the children of an IPsec tunnel. It does not change: other children are another one. Each association is used by
// one worker alone, which its SPI chooses, so that it stays the same whatever the tunnel is called after a reload.
type espTunnel struct {
	senders   []sender // the first that wants a packet gets it
	policy    *policy  // which that is, by its number; nil: always the first
	receivers []receiver

	secret   bool // what comes through it cannot be read on its way
	encrypts bool // nor can what goes into it

	node bool  // it leads to another node
	via  int32 // tunnel to the node that encrypts; viaHere: this one does
}

// sender is a child for sending.
type sender struct {
	tx  txTunnel // the tunnel's, with the child's outer header and owner
	out *esp.Outbound
	udp bool
}

// receiver is an association for receiving, as it stands in the SPI index.
type receiver struct {
	in   *esp.Inbound
	sa   inboundSA
	more *inboundMore
}

// newESPTunnel makes what the workers need of the children of tunnel id. Of x all but the outer header stands.
func (e *Engine) newESPTunnel(id int, x txTunnel, children []SASpec) *espTunnel {
	tun := &espTunnel{secret: true, encrypts: true, node: e.children.nodes[id], via: e.viaOf(id)}
	readable := 0
	children = sendersFirst(children)
	chosen := make([]prefixes, len(children))
	for i, c := range children {
		chosen[i] = prefixes{c.Local, c.Remote}
	}
	tun.policy = newPolicy(chosen)
	for i := range children {
		c := &children[i]
		for _, in := range c.Inbound {
			r := receiver{in, e.inboundSA(id, in, c, chosen[i]), newInboundMore(c, selectors{tun.policy, i})}
			if tun.node {
				r.sa.flags |= saNode
			}
			tun.receivers = append(tun.receivers, r)
		}
		if c.Outbound == nil {
			continue
		}
		s := sender{tx: x, out: c.Outbound, udp: c.UDP}
		s.tx.putESPOuter(c)
		s.tx.owner = uint8(e.OwnerOfSPI(c.Outbound.SPI()))
		s.tx.way = c.way(chosen[i].any4())
		tun.senders = append(tun.senders, s)
		if c.Outbound.Suite().Null() {
			readable++
		}
	}
	if readable > 0 {
		tun.secret, tun.encrypts = readable < len(tun.senders), false
	}
	return tun
}

// sendersFirst puts children that only receive behind the others, so that a sender has the number of its child.
func sendersFirst(children []SASpec) []SASpec {
	receives := func(c SASpec) bool { return c.Outbound == nil }
	if !slices.ContainsFunc(children, receives) {
		return children
	}
	sending := slices.DeleteFunc(slices.Clone(children), receives)
	return append(sending, slices.DeleteFunc(slices.Clone(children), func(c SASpec) bool { return !receives(c) })...)
}

// put makes next the children of tunnel id. No other tunnel has one of its SPIs (see spiConflict).
func (a *associations) put(id int, next *espTunnel) {
	if before := a.esp[id]; before != nil {
		for i := range before.receivers {
			a.spis.remove(before.receivers[i].in.SPI())
		}
	}
	for i := range next.receivers {
		a.spis.add(&next.receivers[i])
	}
	a.esp[id] = next
	a.lead(id)
}

// lead says how packets leave through tunnel id, by its children and by who encrypts for it.
func (a *associations) lead(id int) {
	t := a.esp[id]
	a.out[id], a.tx[id].way = nil, wayGeneral
	if len(t.senders) > 0 {
		first := &t.senders[0]
		a.tx[id], a.out[id] = first.tx, first.out
		if t.via != viaHere || t.node { // nothing is routed into a tunnel to a node
			a.tx[id].way, a.out[id] = wayGeneral, nil
		}
	}
}

// spiConflict says that an SPI, which a child of tunnel id is to have, is another association's: in one of the tables another
// tunnel's, or one of the same tunnel that was seen before.
func spiConflict(id int, spi uint32, seen map[uint32]bool, tables ...*associations) error {
	taken := seen[spi]
	seen[spi] = true
	for _, a := range tables {
		at := a.spis.find(spi)
		taken = taken || at != noSA && a.spis.list[at].tunnel != int32(id)
	}
	if taken {
		return fmt.Errorf("spi %#x is that of two security associations", spi)
	}
	return nil
}

func (a *associations) clone() *associations {
	return &associations{tx: slices.Clone(a.tx), esp: slices.Clone(a.esp), out: slices.Clone(a.out), spis: a.spis.clone()}
}

// OwnerOfSPI is the worker that uses the association with this SPI, however SPIs follow each other.
func (e *Engine) OwnerOfSPI(spi uint32) int {
	return int(uint64(spi*goldenRatio) * uint64(len(e.workers)) >> 32)
}

const goldenRatio = 0x9e3779b1 // times 2^32: spreads numbers that follow each other

// way is how IPv4 packets for a tunnel whose first child this is, which takes any of them or not, become ESP packets.
func (s *SASpec) way(any4 bool) way {
	switch {
	case !any4 || s.Endpoint.Is6():
		return wayGeneral
	case s.UDP:
		return wayESPInUDP
	}
	return wayESP
}

// putESPOuter writes the headers before the ESP header of a child.
func (x *txTunnel) putESPOuter(c *SASpec) {
	x.flags &^= tunOuter6
	if c.Endpoint.Is6() {
		x.flags |= tunOuter6
	}
	if !c.UDP {
		x.putOuter(c.Endpoint, c.Peer.Addr(), wire.ProtoESP, 0)
		return
	}
	udp := x.putOuter(c.Endpoint, c.Peer.Addr(), wire.ProtoUDP, wire.UDPLen)
	binary.BigEndian.PutUint16(udp, natTraversalPort) // the length is the packet's
	binary.BigEndian.PutUint16(udp[2:], c.Peer.Port())
}

// sender is the first child that wants a packet for the customer, or the first of all if none does: then the packet must not
// leave (RFC 4301 5.1). It is nil if there is none.
func (tun *espTunnel) sender(ip []byte) (s *sender, selected bool) {
	if len(tun.senders) == 0 {
		return nil, false
	}
	if tun.policy == nil {
		return &tun.senders[0], true
	}
	i := tun.policy.selects(ip)
	if uint(i) >= uint(len(tun.senders)) { // none, or one that only receives
		return &tun.senders[0], false
	}
	return &tun.senders[i], true
}

// selectors are those of a child: the ones with its number in the policy of its tunnel, which is nil if all let through anything.
type selectors struct {
	policy *policy
	number int
}

// admits reports whether a packet from the customer lies within the selectors (RFC 4301 5.2 step 4). What is too short to
// have addresses is left to the checks of inner headers.
func (s *selectors) admits(ip []byte) bool { return s.policy == nil || s.policy.admits(s.number, ip) }
