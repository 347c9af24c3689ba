// Package bpf is the steering program of a port: the XDP program that decides,
// for every frame that the interface receives, whether the worker of its queue
// gets it or the kernel does.
//
//	destination          frame                                        goes to
//	an endpoint          GRE, ESP, ESP in UDP/4500                    worker
//	an endpoint          fragment, first or later, of any protocol    worker
//	an endpoint          IKE, NAT keepalive, ping, BGP, all else      kernel
//	reserved             multicast, link-local, loopback, class E     kernel
//	a customer prefix    everything                                   worker
//	any other            everything                                   kernel
//	                     not IP, two VLAN tags, broadcast Ethernet    kernel
//
// An endpoint inside a customer prefix is an endpoint. One 802.1Q tag, IPv4
// options and up to eight IPv6 extension headers are looked through. A frame
// that is cut off before the decision goes to the kernel; one that is known to be
// a tunnel's, however wrong, goes to the worker, which counts what is wrong.
// A network card that strips the VLAN tag hides it from the program and from the
// worker alike.
//
// "Worker" means the AF_XDP socket of the receive queue on which the frame
// arrived; while there is none, the kernel gets the frame.
//
// The maps of endpoints and prefixes are the node's (Filter); the program, its
// sockets and its counters are the port's (Program):
//
//	filter, err := bpf.NewFilter()
//	err = filter.SetEndpoints([]netip.Addr{netip.MustParseAddr("192.0.2.1")})
//	err = filter.SetPrefixes([]netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")})
//	program, err := filter.NewProgram(queues)
//	err = program.SetSocket(queue, socketFD)
//	err = program.Attach(ifindex, false)
//	defer program.Close()
//
// The generated files are for little-endian machines (amd64, arm64) and are
// reproducible with clang 14.
package bpf

//go:generate go tool bpf2go -cc clang-14 -target bpfel -go-package bpf -no-global-types -type steer_class -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror" steer steer.bpf.c
