package main

import (
	"causeway/xsk"
)

// rotation is a port in memory that has an endless supply of the same packets: each frame of the UMEM's first part
// holds one, and its headers are written anew each time that it is received, as a network card would. It copies
// nothing out.
type rotation struct {
	umem    []byte
	length  []uint16 // by frame: bytes of the packet on the wire
	headers [][headerBytes]byte
	free    []uint64 // frames that may be received, a ring
	head    int
	n       int
	done    []uint64 // frames transmitted and not reaped
	last    []xsk.Desc
	record  bool
}

// headerBytes is how much of a frame is restored: link, outer, GRE and inner header are 58 bytes, and no stage changes
// what lies behind them. Were it too little, verify would see it.
const headerBytes = 80

// newRotation fills frames of u with the packets, link header included, in turn.
func newRotation(u *xsk.UMEM, frames int, packet func(i int) []byte) *rotation {
	r := &rotation{
		umem: u.Bytes(), length: make([]uint16, frames), headers: make([][headerBytes]byte, frames),
		free: make([]uint64, frames), done: make([]uint64, 0, frames),
	}
	pool := u.Pool(0)
	for i := range frames {
		var one [1]uint64
		if pool.Get(one[:]) == 0 {
			panic("bench: the UMEM is smaller than the rotation")
		}
		p := packet(i)
		at := one[0] + xsk.Headroom
		copy(r.umem[at:], p)
		f := one[0] / xsk.FrameSize
		r.length[f] = uint16(len(p))
		copy(r.headers[f][:], p)
		r.free[i] = one[0]
	}
	r.n = frames
	return r
}

func (r *rotation) Receive(d []xsk.Desc) int {
	n := min(len(d), r.n)
	for i := range n {
		c := r.free[r.head]
		if r.head++; r.head == len(r.free) {
			r.head = 0
		}
		f := c / xsk.FrameSize
		at := c + xsk.Headroom
		*(*[headerBytes]byte)(r.umem[at:]) = r.headers[f]
		d[i] = xsk.Desc{Addr: at, Len: uint32(r.length[f])}
	}
	r.n -= n
	return n
}

func (r *rotation) Transmit(d []xsk.Desc) int {
	for i := range d {
		r.done = append(r.done, d[i].Addr&^(xsk.FrameSize-1))
	}
	if r.record {
		r.last = append(r.last, d...)
	}
	return len(d)
}

func (r *rotation) Kick() {}

func (r *rotation) Reap(addrs []uint64) int {
	n := copy(addrs, r.done)
	r.done = r.done[:copy(r.done, r.done[n:])]
	return n
}

func (r *rotation) Refill(addrs []uint64) int {
	for _, c := range addrs {
		at := r.head + r.n
		if at >= len(r.free) {
			at -= len(r.free)
		}
		r.free[at] = c &^ (xsk.FrameSize - 1)
		r.n++
	}
	return len(addrs)
}
