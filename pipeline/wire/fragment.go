package wire

import "encoding/binary"

// Fragmentation is planned first and written afterwards, because the pieces go
// to frames that the caller must find first:
//
//	n, f := PlanIPv4(pkt, mtu, plan[:])         // or PlanIPv6
//	for i, p := range plan[:n] {
//		h := PutFragment4(frame[i], pkt, p, id) // or PutFragment6
//		copy(frame[i][h:], pkt[hlen+p.Off:][:p.Len])
//	}
//
// The header of pkt stays as it was, so that the first piece may be cut from pkt
// in its own frame, last of all.

// Piece is one fragment of a plan.
type Piece struct {
	Off  int  // where its data starts in the data that is cut, bytes, a multiple of 8
	Len  int  // bytes of data
	More bool // another piece of this plan follows
}

// PlanIPv4 cuts the payload of the checked datagram b into pieces whose datagrams
// measure at most mtu bytes, in the manner of RFC 791 section 3.2, into plan. It
// returns how many there are. One piece means that b fits as it is. b may itself
// be a fragment. The don't fragment flag is a fault unless the caller has cleared
// it, or if b fits.
func PlanIPv4(b []byte, mtu int, plan []Piece) (n int, f Fault) {
	hlen := int(b[IPv4OffVerIHL]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[IPv4OffTotal:]))
	if total > mtu && b[IPv4OffFrag]&(IPv4DF>>8) != 0 {
		return 0, FragmentForbidden
	}
	// The pieces behind the first carry only the options that are to be copied,
	// and so have more room.
	rest := IPv4Len + copiedOptions(nil, b[IPv4Len:hlen])
	return planPieces(total-hlen, mtu-hlen, mtu-rest, plan)
}

// PlanIPv6 is PlanIPv4 for the fragmentable part of the IPv6 packet b, whose
// chain WalkIPv6 has found (RFC 8200 section 4.5). Only the source of a packet
// may fragment it: this is for outer packets. b has no fragment header yet.
func PlanIPv6(b []byte, c *IPv6Chain, mtu int, plan []Piece) (n int, f Fault) {
	total := IPv6Len + int(binary.BigEndian.Uint16(b[IPv6OffPayload:]))
	data := total - c.UnfragLen
	if total <= mtu {
		return planPieces(data, data, data, plan)
	}
	room := mtu - c.UnfragLen - IPv6FragmentLen
	return planPieces(data, room, room, plan)
}

// planPieces cuts size bytes into pieces of at most first, then rest bytes.
func planPieces(size, first, rest int, plan []Piece) (int, Fault) {
	off, room := 0, first
	for n := range plan {
		if size-off <= room {
			plan[n] = Piece{Off: off, Len: size - off}
			return n + 1, OK
		}
		if room < 8 {
			return 0, FragmentMTU
		}
		// Every piece but the last is a multiple of 8.
		plan[n] = Piece{Off: off, Len: room &^ 7, More: true}
		off, room = off+plan[n].Len, rest
	}
	return 0, FragmentCount
}

// PutFragment4 writes to dst the header of piece p of the datagram b, checksum
// included, and returns its length; p.Len bytes of data belong behind it. Only
// the first piece gets all the options, the others those with the copied flag
// (RFC 791 section 3.1). The offset and more-fragments flag of a b that is a
// fragment itself are kept up. id is the identification: that of b, or a new one
// if b was atomic, where it means nothing (RFC 6864 section 4). The pieces have no
// don't fragment flag. dst and b may start at the same byte if p is the first.
func PutFragment4(dst, b []byte, p Piece, id uint16) int {
	hlen := int(b[IPv4OffVerIHL]&0x0f) * 4
	word := binary.BigEndian.Uint16(b[IPv4OffFrag:])
	frag := word&IPv4FragMask + uint16(p.Off/8)
	if p.More || word&IPv4MF != 0 {
		frag |= IPv4MF
	}
	copy(dst, b[:IPv4Len])
	n := hlen
	if p.Off == 0 {
		copy(dst[IPv4Len:], b[IPv4Len:hlen])
	} else {
		n = IPv4Len + copiedOptions(dst[IPv4Len:], b[IPv4Len:hlen])
	}
	dst[IPv4OffVerIHL] = 0x40 | byte(n/4)
	binary.BigEndian.PutUint16(dst[IPv4OffTotal:], uint16(n+p.Len))
	binary.BigEndian.PutUint16(dst[IPv4OffID:], id)
	binary.BigEndian.PutUint16(dst[IPv4OffFrag:], frag)
	binary.BigEndian.PutUint16(dst[IPv4OffChecksum:], 0)
	binary.BigEndian.PutUint16(dst[IPv4OffChecksum:], Checksum(dst[:n]))
	return n
}

// copiedOptions writes to dst the options of opts that every fragment carries,
// padded to a multiple of 4 bytes, and returns their length. A nil dst only
// counts. A list that is malformed ends where it goes wrong.
func copiedOptions(dst, opts []byte) int {
	n := 0
	for len(opts) > 0 && opts[0] != ipv4OptEnd {
		size, f := ipv4OptLen(opts)
		if f != OK {
			break
		}
		if opts[0]&ipv4OptCopied != 0 {
			if dst != nil {
				copy(dst[n:], opts[:size])
			}
			n += size
		}
		opts = opts[size:]
	}
	for ; n%4 != 0; n++ {
		if dst != nil {
			dst[n] = ipv4OptEnd
		}
	}
	return n
}

// PutFragment6 writes to dst the headers of piece p of the packet b, a copy of
// the unfragmentable part and a fragment header with identification id, and
// returns their length; p.Len bytes of data belong behind them. c is the chain of
// b. dst and b do not overlap.
func PutFragment6(dst, b []byte, c *IPv6Chain, p Piece, id uint32) int {
	n := c.UnfragLen + IPv6FragmentLen
	copy(dst, b[:c.UnfragLen])
	binary.BigEndian.PutUint16(dst[IPv6OffPayload:], uint16(n-IPv6Len+p.Len))
	dst[c.UnfragNext] = NextFragment

	h := dst[c.UnfragLen:n]
	h[extOffNext], h[1] = b[c.UnfragNext], 0
	word := uint16(p.Off)
	if p.More {
		word |= fragMore
	}
	binary.BigEndian.PutUint16(h[fragOffWord:], word)
	binary.BigEndian.PutUint32(h[fragOffID:], id)
	return n
}
