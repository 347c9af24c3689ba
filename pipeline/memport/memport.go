// Package memport is a port in memory: the same batch-level interface that an AF_XDP socket has, with packets put in
// and taken out as byte slices. Tests and fuzz targets run the whole pipeline over it, without privileges.
package memport

import (
	"slices"

	"causeway/xsk"
)

// A Queue is one queue of such a port. It follows the ownership rules of xsk.Socket, ledger included, so that a frame
// that the pipeline frees twice or forgets is found in memory too. One goroutine uses it.
type Queue struct {
	umem *xsk.UMEM
	fill []uint64 // frames to receive into
	done []uint64 // frames that have left
	in   [][]byte
	out  [][]byte

	// Limits for tests of full rings; 0: none.
	FillSize   int  // frames that the fill ring holds
	TXRoom     int  // frames that Transmit takes in one call
	HoldFrames bool // completions do not come back
}

// New makes a queue over u.
func New(u *xsk.UMEM, fillSize int) *Queue {
	return &Queue{umem: u, FillSize: fillSize}
}

// Put queues a frame, link header included, to be received.
func (q *Queue) Put(frames ...[]byte) {
	for _, f := range frames {
		q.in = append(q.in, slices.Clone(f))
	}
}

// Take returns the frames that were transmitted since the last call.
func (q *Queue) Take() [][]byte {
	out := q.out
	q.out = nil
	return out
}

// Waiting is the number of frames put in and not received yet.
func (q *Queue) Waiting() int { return len(q.in) }

// Receive copies waiting frames into UMEM frames of the fill ring.
func (q *Queue) Receive(d []xsk.Desc) int {
	n := min(len(d), len(q.in), len(q.fill))
	for i := range n {
		chunk := q.fill[i]
		q.umem.Track(chunk, xsk.Fill, xsk.Worker)
		k := copy(q.umem.Bytes()[chunk+xsk.Headroom:chunk+xsk.FrameSize], q.in[i])
		d[i] = xsk.Desc{Addr: chunk + xsk.Headroom, Len: uint32(k)}
	}
	q.in, q.fill = q.in[n:], q.fill[n:]
	return n
}

// Transmit copies the frames out.
func (q *Queue) Transmit(d []xsk.Desc) int {
	n := len(d)
	if q.TXRoom > 0 {
		n = min(n, q.TXRoom-len(q.done))
	}
	for _, x := range d[:max(n, 0)] {
		chunk := x.Addr &^ (xsk.FrameSize - 1)
		q.umem.Track(chunk, xsk.Worker, xsk.TX)
		q.out = append(q.out, slices.Clone(q.umem.Bytes()[x.Addr:x.Addr+uint64(x.Len)]))
		q.done = append(q.done, chunk)
	}
	return max(n, 0)
}

// Kick does nothing: memory needs no waking.
func (q *Queue) Kick() {}

// Reap gives back frames that have left.
func (q *Queue) Reap(addrs []uint64) int {
	if q.HoldFrames {
		return 0
	}
	n := copy(addrs, q.done)
	q.done = q.done[n:]
	for _, a := range addrs[:n] {
		q.umem.Track(a, xsk.TX, xsk.Worker)
	}
	return n
}

// Refill takes free frames.
func (q *Queue) Refill(addrs []uint64) int {
	n := min(len(addrs), q.FillSize-len(q.fill))
	for _, a := range addrs[:n] {
		q.umem.Track(a, xsk.Worker, xsk.Fill)
	}
	q.fill = append(q.fill, addrs[:n]...)
	return n
}
