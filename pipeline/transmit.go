package pipeline

import "causeway/xsk"

// sendAttempts is how often a full TX ring is kicked and reaped before what does not fit is dropped. In copy mode a
// kick sends at most 32 frames, so a batch needs two.
const sendAttempts = 8

// emit queues the frame at chunk, whose link header begins at start and whose last byte is before end, for a port.
func (w *worker) emit(port int, chunk uint64, start, end uint16) {
	w.emitAt(port, chunk+uint64(start), uint32(end-start))
}

// emitAt is emit for the frame of that length at addr.
func (w *worker) emitAt(port int, addr uint64, length uint32) {
	if o := &w.ports[port]; o.n >= BatchSize {
		w.flushPort(o, port)
	}
	w.put(uint16(port), addr, length)
}

// put is emit for callers that put at most a batch after makeRoom.
func (w *worker) put(port uint16, addr uint64, length uint32) {
	o := &w.ports[port]
	o.descs[o.n&(2*BatchSize-1)] = xsk.Desc{Addr: addr, Len: length}
	o.n++
}

// makeRoom leaves room for a batch on each port.
func (w *worker) makeRoom() {
	for i := range w.ports {
		if o := &w.ports[i]; o.n > BatchSize {
			w.flushPort(o, i)
		}
	}
}

// flush sends what the batch left for each port, and shows the other workers what was handed to them.
func (w *worker) flush() {
	for i := range w.ports {
		if o := &w.ports[i]; o.n > 0 {
			w.flushPort(o, i)
		}
	}
	w.showHandedOver()
}

func (w *worker) showHandedOver() {
	for _, r := range w.toward {
		if r != nil {
			r.show()
		}
	}
}

func (w *worker) flushPort(o *outPort, port int) {
	descs := o.descs[:o.n]
	o.n = 0
	if o.queue == nil {
		w.handOverFrames(descs, o.via, port)
		return
	}
	sent := o.queue.Transmit(descs)
	o.queue.Kick()
	for try := 0; sent < len(descs) && try < sendAttempts; try++ {
		w.reapInto(o.queue)
		sent += o.queue.Transmit(descs[sent:])
		o.queue.Kick()
	}
	w.count.forwarded.add(uint64(sent))
	for i := range descs[sent:] {
		w.countLost(TXRingFull)
		w.release(descs[sent+i].Addr &^ (xsk.FrameSize - 1))
	}
}

// reapInto takes back completed frames while a transmit is retried: the other side may run on another core.
func (w *worker) reapInto(q Queue) {
	n := q.Reap(w.moved[:])
	for _, chunk := range w.moved[:n] {
		w.release(chunk)
	}
}
