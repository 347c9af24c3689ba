package pcapport

import "causeway/xsk"

// A Queue is the one queue of a port over files. It follows the ownership rules of xsk.Socket, ledger included. One
// goroutine uses it.
type Queue struct {
	umem     *xsk.UMEM
	fillSize int
	fill     []uint64 // frames to receive into
	done     []uint64 // frames that have left

	offered bool // frame waits to be received
	frame   Frame

	out  *Writer
	port int
}

// NewQueue makes the queue of a port over u; its fill ring holds fillSize frames. What it transmits is written to out as
// what left by that port.
func NewQueue(u *xsk.UMEM, fillSize int, out *Writer, port int) *Queue {
	return &Queue{umem: u, fillSize: fillSize, out: out, port: port}
}

// Offer lays out the frame that the next Receive gives, one at a time, so that what becomes of it can be told from what
// becomes of the others. What leaves from then on has its time. The frame must be Whole.
func (q *Queue) Offer(f Frame) {
	q.frame, q.offered = f, true
	q.out.at = f.Time
}

// Receive copies the frame that was offered into the UMEM.
func (q *Queue) Receive(d []xsk.Desc) int {
	if !q.offered || len(d) == 0 || len(q.fill) == 0 {
		return 0
	}
	chunk := q.fill[0]
	q.fill, q.offered = q.fill[1:], false
	q.umem.Track(chunk, xsk.Fill, xsk.Worker)
	n := copy(q.umem.Bytes()[chunk+xsk.Headroom:chunk+xsk.FrameSize], q.frame.Data)
	d[0] = xsk.Desc{Addr: chunk + xsk.Headroom, Len: uint32(n)}
	return 1
}

// Transmit writes the frames out. It takes all of them: what a file does not take is the Writer's to tell.
func (q *Queue) Transmit(d []xsk.Desc) int {
	for _, x := range d {
		chunk := x.Addr &^ (xsk.FrameSize - 1)
		q.umem.Track(chunk, xsk.Worker, xsk.TX)
		q.out.write(q.port, q.umem.Bytes()[x.Addr:x.Addr+uint64(x.Len)])
		q.done = append(q.done, chunk)
	}
	return len(d)
}

// Kick does nothing: a file needs no waking.
func (q *Queue) Kick() {}

// Reap gives back frames that have left.
func (q *Queue) Reap(addrs []uint64) int {
	n := copy(addrs, q.done)
	q.done = q.done[:copy(q.done, q.done[n:])]
	for _, a := range addrs[:n] {
		q.umem.Track(a, xsk.TX, xsk.Worker)
	}
	return n
}

// Refill takes free frames.
func (q *Queue) Refill(addrs []uint64) int {
	n := min(len(addrs), q.fillSize-len(q.fill))
	for _, a := range addrs[:n] {
		q.umem.Track(a, xsk.Worker, xsk.Fill)
	}
	q.fill = append(q.fill, addrs[:n]...)
	return n
}
