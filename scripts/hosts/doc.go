// Package hosts builds networks for tests: hosts in network namespaces, links between them that
// carry packets as a wire would, captures judged by tshark, packets made by scapy, and guests that
// are a real Linux kernel with its own GRE and TCP.
//
//	n := hosts.New(t)
//	a, b := n.Host("a"), n.Host("b")
//	n.Link(a, "eth0", b, "eth0", hosts.LinkOptions{})
//	a.Addr("eth0", "192.0.2.1/24", "2001:db8::1/64")
//	b.Addr("eth0", "192.0.2.2/24", "2001:db8::2/64")
//	wire := b.Capture("eth0", "icmp")
//	a.MustRun("ping", "-c1", "192.0.2.2")
//	rows := n.Tshark(wire.Stop(), "icmp.type == 8", "ip.src", "ip.ttl")
//
// Everything is removed at the end of the test, or when the test process dies, however it dies:
// a watching process of its own (reap.sh) then ends the processes in the namespaces and deletes
// them. Root is needed; a test that asks for a network without it fails, it does not skip.
package hosts
