package pipeline

import (
	"encoding/binary"
	"fmt"
	"net/netip"
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
	senders   []sender // in the order in which they are asked whether they want a packet
	receivers []receiver

	secret   bool // what comes through it cannot be read on its way
	encrypts bool // nor can what goes into it
}

// sender is a child for sending.
type sender struct {
	tx        txTunnel // the tunnel's, with the child's outer header and owner
	out       *esp.Outbound
	udp       bool
	selectors selectors
}

// receiver is an association for receiving, as it stands in the SPI index.
type receiver struct {
	in   *esp.Inbound
	sa   inboundSA
	more *inboundMore
}

// newESPTunnel makes what the workers need of the children of tunnel id. Of x all but the outer header stands.
func (e *Engine) newESPTunnel(id int, x txTunnel, children []SASpec) *espTunnel {
	tun := &espTunnel{secret: true, encrypts: true}
	readable := 0
	for i := range children {
		c := &children[i]
		chosen := selectors{c.Local, c.Remote}
		for _, in := range c.Inbound {
			tun.receivers = append(tun.receivers, receiver{in, e.inboundSA(id, in, c, chosen), newInboundMore(c, chosen)})
		}
		if c.Outbound == nil {
			continue
		}
		s := sender{tx: x, out: c.Outbound, udp: c.UDP, selectors: chosen}
		s.tx.putESPOuter(c)
		s.tx.owner = uint8(e.OwnerOfSPI(c.Outbound.SPI()))
		s.tx.way = c.way(chosen.any4())
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
	a.esp[id], a.out[id] = next, nil
	a.tx[id].way = wayGeneral
	if len(next.senders) > 0 {
		first := &next.senders[0]
		a.tx[id], a.out[id] = first.tx, first.out
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
	for i := range tun.senders {
		if s := &tun.senders[i]; s.selectors.selects(ip) {
			return s, true
		}
	}
	if len(tun.senders) == 0 {
		return nil, false
	}
	return &tun.senders[0], false
}

// selectors are what may be behind us and behind the customer; none of a side: anything.
type selectors struct{ local, remote []netip.Prefix }

func (s *selectors) any() bool { return len(s.local) == 0 && len(s.remote) == 0 }

// any4 reports whether all IPv4 packets lie within the selectors.
func (s *selectors) any4() bool { return holdsAll4(s.local) && holdsAll4(s.remote) }

func holdsAll4(prefixes []netip.Prefix) bool {
	return len(prefixes) == 0 || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is4() && p.Bits() == 0 })
}

// admits reports whether a packet from the customer lies within the selectors (RFC 4301 5.2 step 4). What is too short to
// have addresses is left to the checks of inner headers.
func (s *selectors) admits(ip []byte) bool {
	if s.any() {
		return true
	}
	src, dst, ok := addresses(ip)
	return !ok || within(s.remote, src) && within(s.local, dst)
}

// selects reports whether a packet for the customer lies within the selectors (RFC 4301 5.1).
func (s *selectors) selects(ip []byte) bool {
	if s.any() {
		return true
	}
	src, dst, ok := addresses(ip)
	return ok && within(s.local, src) && within(s.remote, dst)
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
