package pipeline

import (
	"net/netip"
	"sync/atomic"

	"causeway/pipeline/wire"
)

// A Stray is an ESP packet that belongs to no association: the first thing to see when the two ends of a tunnel differ in
// an SPI or an address.
type Stray struct {
	Reason Reason // ESPNoSA, ESPSource
	SPI    uint32
	Src    netip.Addr
	Tunnel string // ESPSource: the tunnel that has the SPI
}

// strayNote is a place for one stray, whose worker writes it while it is empty, and the control side reads it while it is
// full. So a flood of them costs a load each.
type strayNote struct {
	full  atomic.Bool
	stray Stray
}

// strayed drops a packet that belongs to no association, and notes it. In p its outer header is looked at.
func (w *worker) strayed(t *Tables, p *packet, r Reason) {
	if n := &w.stray; !n.full.Load() {
		n.stray = Stray{Reason: r, SPI: p.key}
		if ip := w.frame(p.chunk)[p.l3:]; p.flags&pktV6 != 0 {
			n.stray.Src = netip.AddrFrom16([16]byte(ip[wire.IPv6OffSrc:]))
		} else {
			n.stray.Src = netip.AddrFrom4([4]byte(ip[wire.IPv4OffSrc:]))
		}
		if p.tunnel != noTunnel {
			n.stray.Tunnel = t.names[p.tunnel]
		}
		n.full.Store(true)
	}
	w.drop(p, r)
}

// Stray returns a stray packet that came since the last call, if there was one. One goroutine may call it.
func (e *Engine) Stray() (s Stray, ok bool) {
	for _, w := range e.workers {
		if w.stray.full.Load() {
			s, ok = w.stray.stray, true
			w.stray.full.Store(false)
		}
	}
	return s, ok
}
