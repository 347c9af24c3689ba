package pipeline

import "causeway/pipeline/wire"

// The MSS option of a SYN says what its sender wants to receive, so it is lowered to what fits the tunnel that the
// answers will come through; clamping both directions through a tunnel covers both ends of the connection. It is
// done once per packet, when both the tunnel that it came through and the one that it leaves by are known.

const (
	tcpIP4Overhead = wire.IPv4Len + wire.TCPLen
	tcpIP6Overhead = wire.IPv6Len + wire.TCPLen
	noClamp        = 0xffff
)

// clampThrough clamps to the smaller of what the tunnel it leaves by and the one that it came through carry.
func (w *worker) clampThrough(t *Tables, p *packet, out int) bool {
	limit := w.clampTo(t, out, p)
	if p.tunnel != noTunnel {
		limit = min(limit, w.clampTo(t, int(p.tunnel), p))
	}
	return w.clamp(p, limit)
}

// clampTo is the largest MSS that tunnel id lets pass in p's family: what fits it now, or a smaller number that its
// configuration gives.
func (w *worker) clampTo(t *Tables, id int, p *packet) int {
	c := MSSClamp(t.tx[id].clamp)
	if c == MSSOff {
		return noClamp
	}
	fits := w.tunnelMTU(t, id) - tcpIP4Overhead
	if p.flags&pktV6 != 0 {
		fits = w.tunnelMTU(t, id) - tcpIP6Overhead
	}
	if c == MSSAuto {
		return fits
	}
	return min(int(c), fits)
}

func (w *worker) clamp(p *packet, limit int) bool {
	if limit >= noClamp || p.flags&pktOriginated != 0 {
		return true
	}
	changed, f := wire.ClampMSS(w.frame(p.chunk)[p.l4:p.end], uint16(max(limit, 0)))
	if f != wire.OK {
		w.drop(p, innerFault(f))
		return false
	}
	w.noteClamp(p, limit, changed)
	if changed {
		w.count.clamped.add(1)
	}
	return true
}
