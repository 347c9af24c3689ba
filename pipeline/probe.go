package pipeline

import (
	"encoding/binary"
	"fmt"

	"causeway/pipeline/wire"
)

// The control side sends probes into tunnels, to find out whether they carry packets: each goes into the tunnel that it is for, whatever
// the routes say, with the headers and the keys that a customer's packet gets. What comes back is for our interface address, out of a tunnel,
// or for an endpoint, by the Internet.

// ProbeMagic is how the payload of a probe, and of what answers it, begins: "cwhp".
const ProbeMagic = 0x63776870

// A ProbeQueue carries probes to the workers, and answers from them.
type ProbeQueue struct{ copyQueue }

// NewProbeQueue makes the queue for that many workers; depth answers may wait for each, and probes for the workers (a power of two).
func NewProbeQueue(workers, depth int) (*ProbeQueue, error) {
	q := new(ProbeQueue)
	if err := q.open(workers, depth); err != nil {
		return nil, fmt.Errorf("queue of probes: %w", err)
	}
	return q, nil
}

// Send gives a probe, an IP packet, to the workers for the tunnel with that number (Engine.TunnelID). One goroutine at a time may call it.
// It reports false if there is no room. As with any packet, what it reports says nothing of the arrival.
func (q *ProbeQueue) Send(id int, packet []byte) bool { return q.put(packet, uint32(id)) }

// Drain calls f for each packet that waits for the control side, which is f's only until it returns, with the number of the tunnel that it
// came out of; -1: it came by the Internet. It returns how many there were.
func (q *ProbeQueue) Drain(f func(tunnel int, packet []byte)) int {
	return q.drain(func(s *copySlot) { f(int(int32(s.node)), s.data[:s.n]) })
}

// takeProbes sends the probes that wait, at most a batch.
func (w *worker) takeProbes(t *Tables) (n int) {
	if w.probes == nil || w.probes.front() == nil {
		return 0
	}
	for ; n < BatchSize; n++ {
		var p packet
		s := w.fromControl(w.probes, &p)
		if s == nil {
			break
		}
		p.flags = pktOriginated
		w.sendProbe(t, &p, int(s.node))
		w.probes.pop()
	}
	w.sealESP(t)
	return n
}

// sendProbe sends a probe into tunnel id.
func (w *worker) sendProbe(t *Tables, p *packet, id int) {
	switch f := w.describe(p); {
	case f != wire.OK:
		w.drop(p, outerFault(f))
	case id >= len(t.tx) || t.tx[id].flags&tunLive == 0: // it was taken away a moment ago
		w.drop(p, NoRoute)
	default:
		w.encap(t, p, id)
	}
}

// What the control side gets is limited, so that nobody keeps others' from it: a tunnel's, and all that comes by the Internet.
const (
	answersPerSecond, answersBurst = 1000, 200
	outsidePerSecond, outsideBurst = 50_000, 500
)

// giveAnswer gives the control side a packet that is for it.
func (w *worker) giveAnswer(p *packet) {
	l, perSecond, burst := &w.outside, int64(outsidePerSecond), int64(outsideBurst)
	if p.tunnel != noTunnel {
		l, perSecond, burst = &w.perTunnel[p.tunnel], answersPerSecond, answersBurst
	}
	if !l.allow(w.now, perSecond, burst) {
		w.drop(p, AnswerRate)
		return
	}
	w.giveCopy(w.answers, &w.engine.probes.copyQueue, p, w.bytes(p))
}

// isBFD reports whether p, which is for our interface address, is in UDP to a port of BFD (RFC 5881, section 4; RFC 5883, section 5).
func (w *worker) isBFD(p *packet) bool {
	udp := w.frame(p.chunk)[p.l4:p.end]
	if w.answers == nil || p.flags&(pktOriginated|pktLaterFragment) != 0 || p.proto != wire.ProtoUDP || len(udp) < wire.UDPLen {
		return false
	}
	port := binary.BigEndian.Uint16(udp[wire.UDPOffDstPort:])
	return port == 3784 || port == 4784
}

// isProbeAnswer reports whether p, which is for an address of ours, is an echo reply that begins as a probe does.
func (w *worker) isProbeAnswer(p *packet) bool {
	icmp := w.frame(p.chunk)[p.l4:p.end]
	if w.answers == nil || p.flags&pktOriginated != 0 || len(icmp) < wire.ICMPLen+4 || binary.BigEndian.Uint32(icmp[wire.ICMPLen:]) != ProbeMagic {
		return false
	}
	if p.flags&pktV6 != 0 {
		return p.proto == wire.ProtoICMPv6 && icmp[wire.ICMPOffType] == wire.ICMP6EchoReply
	}
	return p.proto == wire.ProtoICMP && icmp[wire.ICMPOffType] == wire.ICMP4EchoReply && p.flags&pktLaterFragment == 0
}
