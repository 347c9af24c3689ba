// Package seal keeps what nodes share from everybody who is not one of them, the store that carries it included.
//
// Each value is sealed under the key of an epoch, which lives a day at the most and is destroyed then. Each node has an Identity; a
// node that has the key of an epoch gives it to another by a Wrap, sealed for that one (HPKE, RFC 9180, with X25519 and ML-KEM-768)
// and signed. Who is admitted says the roster, a file of names and fingerprints.
package seal
