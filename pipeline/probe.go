package pipeline

import (
	"encoding/binary"

	"causeway/pipeline/wire"
)

// The control side sends probes into tunnels, to find out whether they carry packets: each goes into the tunnel that it is for, whatever
// the routes say, with the headers and the keys that a customer's packet gets. What comes back is for our interface address, out of a tunnel,
// or for an endpoint, by the Internet.

// ProbeMagic is how the payload of a probe, and of what answers it, begins: "cwhp".
const ProbeMagic = 0x63776870

// What the control side gets is limited, so that nobody keeps others' from it: a tunnel's, and all that comes by the Internet.
const (
	answersPerSecond, answersBurst = 1000, 200
	outsidePerSecond, outsideBurst = 50_000, 500
)

// giveAnswer gives the control side a packet that is for it.
func (w *worker) giveAnswer(p *packet) {
	l, perSecond, burst := &w.outside, int64(outsidePerSecond), int64(outsideBurst)
	if p.tunnel != noTunnel {
		l, perSecond, burst = &w.perTunnel[p.tunnel].answers, answersPerSecond, answersBurst
	}
	if !l.allow(w.now, perSecond, burst) {
		w.drop(p, AnswerRate)
		return
	}
	p.flags |= pktProbe
	w.giveCopy(w.probes.out, &w.engine.probes.copyQueue, p, w.bytes(p))
}

// isBFD reports whether p, which is for our interface address, is in UDP to a port of BFD (RFC 5881, section 4; RFC 5883, section 5).
func (w *worker) isBFD(p *packet) bool {
	udp := w.frame(p.chunk)[p.l4:p.end]
	if w.probes.out == nil || p.flags&(pktOriginated|pktLaterFragment) != 0 || p.proto != wire.ProtoUDP || len(udp) < wire.UDPLen {
		return false
	}
	port := binary.BigEndian.Uint16(udp[wire.UDPOffDstPort:])
	return port == 3784 || port == 4784
}

// isProbeAnswer reports whether p, which is for an address of ours, is an echo reply that begins as a probe does.
func (w *worker) isProbeAnswer(p *packet) bool {
	icmp := w.frame(p.chunk)[p.l4:p.end]
	if w.probes.out == nil || p.flags&pktOriginated != 0 || len(icmp) < wire.ICMPLen+4 || binary.BigEndian.Uint32(icmp[wire.ICMPLen:]) != ProbeMagic {
		return false
	}
	if p.flags&pktV6 != 0 {
		return p.proto == wire.ProtoICMPv6 && icmp[wire.ICMPOffType] == wire.ICMP6EchoReply
	}
	return p.proto == wire.ProtoICMP && icmp[wire.ICMPOffType] == wire.ICMP4EchoReply && p.flags&pktLaterFragment == 0
}
