// Package suite is the algorithms of IKEv2: which there are and how they are called, which of them two sides agree on, key
// exchanges, the keys that come out of them, and the encryption of IKE's own messages.
//
// names.go has the algorithms, proposal.go words, choose.go what two sides agree on, exchange.go and modp.go the key exchanges,
// keys.go the derivation of keys, cipher.go the encrypted payload.
package suite
