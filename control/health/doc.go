// Package health finds out whether tunnels carry packets. GRE has no sign of life of its own, and IKE's says that the two ends can
// talk, not that packets pass. So each tunnel is probed with packets that go through it as a customer's do.
//
//	probe.go    a probe's bytes, and what comes back
//	prober.go   when a tunnel is probed, how long an answer is waited for
//	machine.go  answers and their lack -> healthy, degraded, down
//
// A probe is an ICMP echo request to the other end, which its router answers, or an echo reply to ourselves, which a router that knows
// nothing of ICMP but to forward it brings back. Both come back through a tunnel to our interface address, where the workers know them
// by their first bytes and hand them to the control side.
//
// What a state means for routes is not decided here: see Options.OnState.
package health
