// Package bfd finds out within a fraction of a second whether a tunnel carries packets, where the customer's router speaks Bidirectional
// Forwarding Detection: RFC 5880 in asynchronous mode, over a tunnel as over one hop (RFC 5881) or to a host behind (RFC 5883).
//
//	packet.go   control packets in UDP in IP
//	session.go  the state machine of RFC 5880, section 6.8, which knows neither clock nor network
//	manager.go  sessions by tunnel: when each is to say something, and what has come for it
//
// Not there: demand mode, the echo function, authentication. A router that wants one of them is told so by what it does not get: the
// session stays down.
package bfd
