package pipeline

import "causeway/xsk"

// sendAttempts is how often a full TX ring is kicked and reaped before what does not fit is dropped. In copy mode a
// kick sends at most 32 frames, so a batch needs two.
const sendAttempts = 8

// emit queues the frame at chunk, whose link header begins at start and whose last byte is before end, for a port.
func (w *worker) emit(port int, chunk uint64, start, end uint16) {
	o := &w.ports[port]
	o.descs[o.n&(BatchSize-1)] = xsk.Desc{Addr: chunk + uint64(start), Len: uint32(end - start)}
	if o.n++; o.n == BatchSize {
		w.flushPort(o, port)
	}
}

// flush sends what the batch left for each port.
func (w *worker) flush() {
	for i := range w.ports {
		if o := &w.ports[i]; o.n > 0 {
			w.flushPort(o, i)
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
		w.count.dropped[TXRingFull].add(1)
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
