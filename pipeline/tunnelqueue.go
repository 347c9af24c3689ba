package pipeline

import (
	"fmt"
	"sync"

	"causeway/pipeline/wire"
)

// A TunnelQueue carries packets of the control side's into tunnels, whatever the routes say, with the headers and the keys that a customer's
// packet gets, and gives the control side what comes out of tunnels for our interface addresses. There is one for probes (probe.go), and one for
// the devices that some tunnels have (device.go): a customer who sends much to the one does not keep answers from the other.
type TunnelQueue struct {
	copyQueue
	sending sync.Mutex // the ring toward worker 0 has one producer
}

// NewTunnelQueue makes a queue for that many workers; depth packets may wait from each, and for the workers (a power of two). what names it in
// the error.
func NewTunnelQueue(what string, workers, depth int) (*TunnelQueue, error) {
	q := new(TunnelQueue)
	if err := q.open(workers, depth); err != nil {
		return nil, fmt.Errorf("queue of %s: %w", what, err)
	}
	return q, nil
}

// Send gives an IP packet to the workers for the tunnel with that number (Engine.TunnelID). It reports false if there is no room. As with any
// packet, what it reports says nothing of the arrival.
func (q *TunnelQueue) Send(id int, packet []byte) bool {
	q.sending.Lock()
	defer q.sending.Unlock()
	return q.put(packet, uint32(id))
}

// Drain calls f for each packet that waits for the control side, which is f's only until it returns, with the number of the tunnel that it
// came out of; -1: it came by the Internet. It returns how many there were.
func (q *TunnelQueue) Drain(f func(tunnel int, packet []byte)) int {
	return q.drain(func(s *copySlot) { f(int(int32(s.node)), s.data[:s.n]) })
}

// tunnelRings are a worker's ends of a TunnelQueue; nil: there is none, or none toward this worker.
type tunnelRings struct{ in, out *ring[copySlot] }

// ringsOf are worker i's.
func (q *TunnelQueue) ringsOf(i int) (r tunnelRings) {
	if q == nil {
		return r
	}
	if r.out = q.rings[i]; i == 0 {
		r.in = q.to
	}
	return r
}

// takeFor sends the packets that wait for tunnels, at most a batch.
func (w *worker) takeFor(t *Tables, r *ring[copySlot]) (n int) {
	if r == nil || r.front() == nil {
		return 0
	}
	for ; n < BatchSize; n++ {
		var p packet
		s := w.fromControl(r, &p)
		if s == nil {
			break
		}
		p.flags = pktOriginated | w.chooseOne(t)
		if r == w.probes.in {
			p.flags |= pktProbe
		}
		if w.capturing != nil {
			w.capturing.lookAt(w, &p, FromControl, 0, w.bytes(&p))
		}
		w.sendInto(t, &p, int(s.node))
		r.pop()
	}
	w.sealESP(t)
	return n
}

// sendInto sends a packet of the control side's into tunnel id.
func (w *worker) sendInto(t *Tables, p *packet, id int) {
	switch f := w.describe(p); {
	case f != wire.OK:
		w.drop(p, outerFault(f))
	case id >= len(t.tx) || t.tx[id].flags&tunLive == 0: // it was taken away a moment ago
		w.drop(p, NoRoute)
	case int(p.end-p.l3) > w.tunnelMTU(t, id):
		w.oversize(t, p, w.tunnelMTU(t, id), id)
	default:
		w.encap(t, p, id)
	}
}
