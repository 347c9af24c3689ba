package pipeline

import (
	"math"

	"causeway/pipeline/wire"
)

// ICMP errors are sent at a bounded rate (RFC 1812 4.3.2.8, RFC 4443 2.4 f): each worker has two buckets, so that whoever
// scans or traces routes does not keep others from learning how large their packets may be.
const (
	icmpPerSecond = 1000
	icmpBurst     = 200
)

// limiter is a token bucket: next is the time in nanoseconds at which it holds no token, so the lower, the fuller.
type limiter struct{ next int64 }

func fullLimiter() limiter { return limiter{next: math.MinInt64} }

// allow takes a token at time now (nanoseconds), of a bucket that holds burst tokens and gets perSecond.
func (l *limiter) allow(now, perSecond, burst int64) bool {
	interval := 1_000_000_000 / perSecond
	if earliest := now - burst*interval; l.next < earliest {
		l.next = earliest
	}
	if l.next >= now {
		return false
	}
	l.next += interval
	return true
}

// expire4or6 drops a packet whose TTL or hop limit has run out, and tells its source: traceroute lives on it. id is the tunnel that it
// was to go into, or noTunnel.
func (w *worker) expire4or6(t *Tables, p *packet, id int) {
	if id != noTunnel {
		w.countDropInto(p, id, TTLExceeded)
	}
	w.refuse(t, p, TTLExceeded,
		wire.ICMPError{Type: wire.ICMP4TimeExceeded, Code: wire.ICMP4CodeTTL},
		wire.ICMPError{Type: wire.ICMP6TimeExceeded, Code: wire.ICMP6CodeHopLimit})
}

// refuse drops p and sends its source the error of its family, if one may be sent.
func (w *worker) refuse(t *Tables, p *packet, r Reason, e4, e6 wire.ICMPError) {
	ip := w.bytes(p)
	v6 := p.flags&pktV6 != 0
	may := p.flags&pktOriginated == 0
	if may && v6 {
		may = wire.MayError6(ip)
	} else if may {
		may = wire.MayError4(ip)
	}
	n := 0
	limit := &w.otherErrors
	if r == TooBig {
		limit = &w.sizeErrors
	}
	if may && limit.allow(w.now, icmpPerSecond, icmpBurst) {
		if v6 {
			n = w.makeError6(t, p, e6, ip)
		} else {
			n = w.makeError4(t, p, e4, ip)
		}
	}
	if n == 0 {
		w.count.icmpSuppressed.add(1)
		w.drop(p, r)
		return
	}
	w.countDrop(p, r) // the error takes over the frame of the packet that it is about
	w.count.icmpErrors.add(1)
	copy(w.frame(p.chunk)[errorStart:], w.scratch[:n])
	p.l3, p.end = errorStart, errorStart+uint16(n)
	w.originate(t, p)
}

// errorStart is where a packet made here begins in its frame: room for every outer header lies in front of it.
const errorStart = 256

// makeError4 writes the error to scratch. It comes from our interface address in the tunnel that the packet came
// through, and toward the Internet from an endpoint, never from a private address.
func (w *worker) makeError4(t *Tables, p *packet, e wire.ICMPError, ip []byte) int {
	src, room := t.errorSource4, len(w.scratch)
	if p.tunnel != noTunnel {
		room = min(room, w.tunnelMTU(t, int(p.tunnel))) // it goes back that way, and has DF set
		if r := &t.rx[p.tunnel]; r.flags&tunInterface4 != 0 {
			src = r.interface4
		}
	}
	if src == 0 {
		return 0
	}
	return wire.AppendICMP4Error(w.scratch[:room], src, e, ip)
}

func (w *worker) makeError6(t *Tables, p *packet, e wire.ICMPError, ip []byte) int {
	src := t.errorSource6
	if p.tunnel != noTunnel {
		if r := &t.rx[p.tunnel]; r.flags&tunInterface6 != 0 {
			src = t.sources[p.tunnel].own6
		}
	}
	if src == [16]byte{} {
		return 0
	}
	return wire.AppendICMP6Error(w.scratch[:], &src, e, ip)
}
