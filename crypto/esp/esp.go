// Package esp is the IP Encapsulating Security Payload (RFC 4303): security associations and what they do to packets.
// It knows no outer headers: a packet is the bytes from the ESP header to the end of the integrity check value.
//
//	sealer.Add(sa, frame, start, end, next) // for each packet of a batch, then
//	sealer.Seal()
//
//	opener.Add(sa, packet)                  // for each packet of a batch, then
//	opener.Open()
//	opener.Result(sa, i)                    // for each, in order
//
// AES-GCM is done for the whole batch at once by package aesgcm; the other algorithms, which few tunnels have, packet by
// packet by the standard library.
//
// An association belongs to one goroutine, its owner, and so do Sealer and Opener: packets leave in the order of their
// sequence numbers, and the replay window has one writer. IVSource alone is shared.
//
// The files: suite.go has algorithms and sizes, iv.go and window.go the two things that make a key safe to use,
// cipher.go the algorithms without bursts, outbound.go and inbound.go the associations, verdict.go what can be wrong.
package esp

// Sizes of RFC 4303, section 2, in bytes.
const (
	headerLen  = 8 // SPI and sequence number
	trailerLen = 2 // pad length and next header
	maxPad     = 255
)

// Protocols in the next header field. NoNextHeader marks a dummy packet (section 2.6).
const (
	NextIPv4     = 4
	NextIPv6     = 41
	NoNextHeader = 59
	NextForward  = 253 // between nodes: a tag of 4 bytes and an IP packet (a number for experiments, RFC 3692)
)
