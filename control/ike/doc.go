// Package ike is the Internet Key Exchange (RFC 7296): it agrees with customers' routers on the keys of their tunnels
// and gives them to the dataplane.
//
//	d := ike.New(ike.Options{Dataplane: node, Transport: sockets, ...})
//	d.SetTunnels(tunnels)
//	err := d.Run(ctx)
//
// A datagram's way: daemon.go takes it, does the checks that cost nothing, and gives it to a bounded pool (pool.go); of a
// new peer initiation.go makes a half-open SA, cookie.go keeps floods away; of a known one respond.go and request.go have
// the two halves of an exchange, with seal.go and fragment.go for what protects a message. Then comes a file for each
// exchange: initiation.go (IKE_SA_INIT), intermediate.go, authentication.go (IKE_AUTH), child.go and rekey.go
// (CREATE_CHILD_SA, IKE_FOLLOWUP_KE), information.go. life.go has what time brings, state.go what an SA is.
//
// An SA is one value, State, that another node can go on with: state.go says what it is, fleet.go when it is stored and who has it,
// takeover.go how one goes on from it. Everything that happens to an SA happens with its lock held, by a worker of the pool; never by
// a worker of the dataplane.
package ike
