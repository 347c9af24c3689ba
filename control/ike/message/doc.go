// Package message is how IKEv2 looks on the wire (RFC 7296, section 3): headers, payloads, and the encrypted payload's frame.
// It knows no keys and keeps no state.
//
//	h, err := message.ParseHeader(datagram)
//	c, err := message.Parse(h.First, datagram[message.HeaderLen:])
//
// and, for what is encrypted,
//
//	s, err := message.ParseSealed(h, datagram)
//	text := decrypted(datagram, s.At)
//	c, err := message.Parse(s.First, text)
//
// All integers are in network byte order. What is parsed aliases the datagram, what is appended is copied. Everything comes from
// the network and is taken for hostile: lengths and counts are checked once, here, and nothing is allocated for a count before
// the bytes for it have been seen. Reserved fields are ignored, as RFC 7296 wants it.
package message
