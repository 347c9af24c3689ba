// Package message is how IKEv2 looks on the wire (RFC 7296, section 3): headers, payloads, and the encrypted payload's frame.
// It knows no keys.
//
//	h, err := message.ParseHeader(datagram)
//	c, err := message.Parse(h.First, datagram[message.HeaderLen:])
//
// All integers are in network byte order. What is parsed aliases the datagram; what is appended is copied.
package message
