// Package xsk is AF_XDP for Causeway: packet memory, rings, sockets and ports
// over raw system calls.
//
// # A frame's way
//
//	            Get                Refill               kernel receives
//	free list -------> worker ----------------> fill ring ------------> RX ring
//	    ^                ^  ^                                             |
//	    |      Put       |  |                Receive                      |
//	    +----------------+  +---------------------------------------------+
//	                     |
//	                     | Transmit         kernel sends              Reap
//	                     +---------> TX ring ----------> completion ------> worker
//
// All sockets of all ports share one [UMEM], so a frame received on one port is
// sent on another without a copy. The UMEM has one part per worker; a part's
// free list ([Pool]) belongs to that worker alone. Frames that a worker
// received travel home to their part in the end, over rings that belong to the
// pipeline.
//
// # Who may call what
//
// A [Socket] is one queue of one interface. Exactly one goroutine calls its
// packet methods (Receive, Transmit, Kick, Reap, Refill); they neither lock nor
// allocate. Everything else may be called from anywhere. A worker's round is:
//
//	n := s.Reap(addrs)          // frames that were sent
//	pool.Put(addrs[:n])
//	n = pool.Get(addrs)         // fresh frames for the kernel to receive into
//	k := s.Refill(addrs[:n])
//	pool.Put(addrs[k:n])        // what the fill ring had no room for
//	n = s.Receive(descs)
//	...                         // edit the frames in place
//	k = s.Transmit(descs[:n])   // the caller still owns descs[k:n]
//	s.Kick()
//
// # Memory order
//
// The kernel shares the ring indices. Every index that the kernel writes is
// read by sync/atomic, every index that it reads is written by sync/atomic,
// and slots are touched only between the two: on arm64 as on amd64.
package xsk
