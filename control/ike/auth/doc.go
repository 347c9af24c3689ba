// Package auth is who the peer is and how it proves that: identities, shared keys, and certificates with digital
// signatures (RFC 7296, sections 2.15 and 3.5; RFC 4754, RFC 7427, RFC 8420; RFC 4945 for what a certificate must say).
//
//	id, err := auth.ParseID("edge.example.net")
//	own, err := auth.LoadCertificate("edge.pem", "edge.key")
//	proof, err := own.Sign(octets, hashes, true)
//
//	trust, err := auth.LoadTrust("ca.pem")
//	err = trust.Verify(contents.Certs, *contents.IDi, *contents.Auth, octets, time.Now())
//
// octets are what the RFC calls <SignedOctets>; the caller puts them together. Errors say for an operator's log what was
// wrong; a peer is told only that it failed. Revocation lists are not read: an authority that must be able to withdraw a
// certificate issues short-lived ones.
//
// identity.go and dn.go have identities, sharedkey.go shared keys, certificate.go what we are, trust.go whom we believe,
// subject.go what a certificate says, algorithm.go how signatures are called, signature.go the signatures, pem.go files.
package auth
