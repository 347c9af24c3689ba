package ike

import (
	"crypto/sha1" // what RFC 7296 demands; nothing rests on it
	"crypto/subtle"
	"encoding/binary"
	"net/netip"

	"causeway/control/ike/message"
)

// natHash is SHA-1(SPIs | address | port) (RFC 7296, section 2.23).
func natHash(spii, spir uint64, a netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint64(nil, spii)
	b = binary.BigEndian.AppendUint64(b, spir)
	b = append(b, a.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	h := sha1.Sum(b)
	return h[:]
}

// natDetected says from the peer's hashes whether the peer is behind a NAT, and whether we are. A peer without them does not
// do NAT traversal.
func natDetected(c *message.Contents, spii, spir uint64, local, remote netip.AddrPort) (there, here bool) {
	var sources, destinations int
	var sourceFits, destinationFits bool
	source, destination := natHash(spii, spir, remote), natHash(spii, spir, local)
	for _, n := range c.Notifies {
		switch n.Type {
		case message.NotifyNATDetectionSourceIP: // one for each address that the peer may have
			sources++
			sourceFits = sourceFits || subtle.ConstantTimeCompare(n.Data, source) == 1
		case message.NotifyNATDetectionDestinationIP:
			destinations++
			destinationFits = destinationFits || subtle.ConstantTimeCompare(n.Data, destination) == 1
		}
	}
	return sources > 0 && !sourceFits, destinations > 0 && !destinationFits
}
