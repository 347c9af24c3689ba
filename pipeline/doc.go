// Package pipeline is the packet path: pinned workers that take batches of frames from the queues of ports and send
// each frame on, out of a tunnel, into one, or both. Its files stand in packet order.
//
//	receive      worker.go    a batch of up to 64 descriptors from one queue; their frames are the worker's from here on
//	parse        parse.go     link and outer IP header of each frame; parse_slow.go: tags, options, IPv6, whatever is odd
//	reassemble   reassemble.go  fragments to an endpoint wait until their datagram is whole
//	decap        decap.go     the tunnel of each GRE packet is found and its outer headers come off; inner.go checks the rest
//	  open       open.go      ESP packets of associations of ours, as one burst
//	route        route.go     the leaf of each destination: the account's table, then the Internet's
//	forward      forward.go   by leaf: into a tunnel, to a neighbour, or to an end in local.go; fast.go has the usual ways
//	  clamp      clamp.go     the MSS of a SYN
//	  size       size.go      fragmentation, or the ICMP errors of icmp.go
//	  encap      forward.go   outer headers and link header, in the frame's headroom
//	  seal       seal.go      ESP packets, as one burst
//	transmit     transmit.go  TX rings; frames that have left come back to the worker's free list
//
// Beside that way stand what the workers read (tables.go, a snapshot behind one pointer, made by build.go, outer.go and
// associations.go; children.go, what of it changes by IKE, in two copies that take turns; forwarding.go, routes and neighbours that
// change in place), what they hand to one another (handover.go, ring.go) and to
// the kernel (punt.go), and what they count (counters.go, reasons.go).
//
// Per packet there is no lock, no allocation, no map, no interface call and no log line. Every frame is accounted for:
// Counters says by which formula.
package pipeline
