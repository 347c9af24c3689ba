package pipeline

import (
	"encoding/binary"
	"net/netip"

	"causeway/pipeline/wire"
)

// blackholes are the reasons of those of KindBlackhole, by index.
var blackholes = [...]Reason{RouteBlackhole, BlackholeScope: RouteScope, BlackholeUnlearned: RouteUnlearned}

// end deals with packets that are not forwarded: for us, for the kernel, or for nobody.
func (w *worker) end(t *Tables, p *packet) {
	switch LeafKind(p.leaf) {
	case KindTunnelAddress:
		if w.isProbeAnswer(p) || w.isBFD(p) && int(p.tunnel) == LeafIndex(p.leaf) {
			w.giveAnswer(p)
			return
		}
		w.answerEcho(t, p, LeafIndex(p.leaf))
	case KindKernel:
		w.toHost(t, p)
	case KindGlean:
		w.askFor(p, LeafIndex(p.leaf))
		w.drop(p, NeighbourUnresolved)
	case KindBlackhole:
		w.drop(p, blackholes[LeafIndex(p.leaf)])
	case KindUnreachable:
		w.refuse(t, p, RouteUnreachable,
			wire.ICMPError{Type: wire.ICMP4Unreachable, Code: wire.ICMP4CodeAdmin},
			wire.ICMPError{Type: wire.ICMP6Unreachable, Code: wire.ICMP6CodeAdmin})
	default:
		w.refuse(t, p, NoRoute,
			wire.ICMPError{Type: wire.ICMP4Unreachable, Code: wire.ICMP4CodeNet},
			wire.ICMPError{Type: wire.ICMP6Unreachable, Code: wire.ICMP6CodeNoRoute})
	}
}

// toHost gives a packet to the kernel. What comes out of a tunnel may reach the host at its endpoints alone: its other
// addresses, and the networks behind its other interfaces, are not the customer's. What the kernel itself sent here and
// is for the kernel would go round.
func (w *worker) toHost(t *Tables, p *packet) {
	switch {
	case p.flags&pktInjected != 0:
		w.drop(p, HostLoop)
	case w.isProbeAnswer(p) && w.forEndpoint(t, p): // by the Internet
		w.giveAnswer(p)
	case p.mustEncrypt(): // where the host would send it nobody knows
		w.drop(p, ESPAnswerInClear)
	case p.tunnel != noTunnel && !w.forEndpoint(t, p):
		w.drop(p, HostAddress)
	case p.tunnel != noTunnel && w.isForeignError(t, p):
		w.drop(p, HostForeignError)
	case p.flags&pktSYN != 0 && p.tunnel != noTunnel && !w.clamp(p, w.clampTo(t, int(p.tunnel), p)):
	default:
		w.punt(p)
	}
}

// isForeignError reports whether p, which came out of a tunnel, is an ICMP error about a packet that was not sent into
// it: the host would lower its MTU toward others, or give up its connections with them (RFC 5927).
func (w *worker) isForeignError(t *Tables, p *packet) bool {
	icmp := w.frame(p.chunk)[p.l4:p.end]
	set := &t.sources[p.tunnel]
	switch {
	case p.flags&pktLaterFragment != 0 || len(icmp) == 0: // without the first fragment the others are nothing
		return false
	case p.flags&pktV6 != 0:
		if p.proto != wire.ProtoICMPv6 || icmp[0] >= 128 { // RFC 4443 2.1
			return false
		}
		quote := icmp[min(wire.ICMPLen, len(icmp)):]
		if len(quote) < wire.IPv6Len {
			return true
		}
		dst := netip.AddrFrom16([16]byte(quote[wire.IPv6OffDst:]))
		return !set.behind6(dst) && !set.inside6(dst)
	case p.proto != wire.ProtoICMP || !isError4(icmp[0]):
		return false
	}
	quote := icmp[min(wire.ICMPLen, len(icmp)):]
	if len(quote) < wire.IPv4Len {
		return true
	}
	dst := binary.BigEndian.Uint32(quote[wire.IPv4OffDst:])
	return !set.behind4(dst) && !set.interface4.contains(dst)
}

// isError4 reports whether an ICMP type quotes a packet (RFC 1122 3.2.2; RFC 1812 4.3.1).
func isError4(icmpType uint8) bool {
	switch icmpType {
	case wire.ICMP4Unreachable, wire.ICMP4SourceQuench, wire.ICMP4Redirect, wire.ICMP4TimeExceeded, wire.ICMP4ParameterProblem:
		return true
	}
	return false
}

func (w *worker) forEndpoint(t *Tables, p *packet) bool {
	if p.flags&pktV6 != 0 {
		return t.isEndpoint6(w.bytes(p)[wire.IPv6OffDst:])
	}
	return t.isEndpoint4(p.dst)
}

// answerEcho answers a ping of our interface address in tunnel id, in place. Nothing else listens there, if the tunnel has no device.
func (w *worker) answerEcho(t *Tables, p *packet, id int) {
	ip := w.bytes(p)
	f := wire.ICMPNotEcho
	w.sampled(p, noTunnel, Delivered) // as it came: an answer is made in its place
	if p.flags&pktOriginated == 0 {
		if p.flags&pktV6 != 0 {
			f = wire.EchoReply6(ip)
		} else {
			f = wire.EchoReply4(ip)
		}
	}
	if f != wire.OK {
		if !w.giveToDevice(t, p, id) {
			w.drop(p, TunnelAddressProtocol)
		}
		return
	}
	w.count.delivered.add(1)
	w.originate(t, p)
}

// originate queues the packet that now stands in p's frame. It goes to the address that its header says, looked up
// in the table of the account that p came from. A batch makes at most one packet for each of its own, so there is room.
func (w *worker) originate(t *Tables, p *packet) {
	w.count.originated.add(1)
	w.noteAnswered(p)
	q := &w.again.packets[w.again.n]
	*q = packet{chunk: p.chunk, l3: p.l3, end: p.end, vrf: p.vrf, tunnel: noTunnel, port: p.port,
		flags: p.flags&pktV6 | pktOriginated | w.chooseOne(t), encrypt: p.tunnel != noTunnel && t.secret(int(p.tunnel))}
	ip := w.bytes(q)
	if q.flags&pktV6 != 0 {
		q.proto, q.l4 = ip[wire.IPv6OffNext], q.l3+wire.IPv6Len
	} else {
		q.proto, q.l4 = ip[wire.IPv4OffProto], q.l3+uint16(ip[0]&15)*4
		q.src, q.dst = binary.BigEndian.Uint32(ip[12:]), binary.BigEndian.Uint32(ip[16:])
	}
	w.again.toRoute(w.again.n)
	w.again.n++
}

// unresolved drops a packet whose next hop's link address is not known, and has the kernel asked for it.
func (w *worker) unresolved(p *packet, slot int) {
	w.resolve.ask(ResolveRequest{Slot: slot})
	w.drop(p, NeighbourUnresolved)
}

// askFor has the kernel asked for the link address of p's destination, which is on the link itself.
func (w *worker) askFor(p *packet, link int) {
	ip := w.bytes(p)
	var dst netip.Addr
	if p.flags&pktV6 != 0 {
		dst = netip.AddrFrom16([16]byte(ip[24:40]))
	} else {
		dst = netip.AddrFrom4([4]byte(ip[16:20]))
	}
	w.resolve.ask(ResolveRequest{Link: link, Addr: dst, Slot: -1})
}

// resolveRing carries wishes for link addresses to the control side. A wish that does not fit is dropped with its
// packet; the next packet wishes again.
type resolveRing struct{ r *ring[ResolveRequest] }

const resolveRingSize = 256

func newResolveRing() *resolveRing {
	return &resolveRing{newRing[ResolveRequest](resolveRingSize)}
}

func (r *resolveRing) ask(q ResolveRequest) { r.r.push(q) }

func (r *resolveRing) drain(f func(ResolveRequest)) {
	for range resolveRingSize {
		q := r.r.front()
		if q == nil {
			return
		}
		v := *q
		r.r.pop()
		f(v)
	}
}
