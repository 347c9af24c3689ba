package wire

import "encoding/binary"

// Hop-by-hop options, destination options and routing headers have the same
// first two fields (RFC 8200 sections 4.3, 4.4 and 4.6):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next header  | Length/8 - 1  |  options, or routing type and |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  segments left ...           |
//
// The fragment header (section 4.5):
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next header  |   Reserved    |     Fragment offset     |Res|M|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Identification                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

// IPv6FragmentLen is the size of a fragment header, in bytes.
const IPv6FragmentLen = 8

const (
	extUnit = 8 // extension headers are multiples of this, and at least one

	extOffNext  = 0
	extOffLen   = 1
	extOffType  = 2 // of a routing header
	extOffLeft  = 3 // of a routing header
	fragOffWord = 2 // fragment offset and flags
	fragOffID   = 4

	fragMore    = 0x0001
	fragOffMask = 0xfff8 // as it stands, the offset in bytes

	// maxExtensions bounds the walk. RFC 8504 section 5.3 lets a receiver set
	// such a limit; an honest sender uses each header once, destination options
	// twice (RFC 8200 section 4.1).
	maxExtensions = 8

	// ipv6MaxPayload is the largest value of the payload length field.
	ipv6MaxPayload = 0xffff
)

// IPv6Chain is what a walk over the extension headers of a packet found.
// Offsets count from the start of the IPv6 header.
type IPv6Chain struct {
	Proto  uint8 // first header that is not walked: TCP, GRE, ESP, NextNone...
	Offset int   // where it starts; in a fragment that is not the first, its data

	Fragmented bool // there is a fragment header
	FragMore   bool
	FragID     uint32
	FragOff    int // bytes; 0 in the first fragment
	FragHdr    int // offset of the fragment header; 0 if there is none

	// The part of the packet that each fragment repeats (RFC 8200 section 4.5,
	// "Per-Fragment headers"). In a fragment it is all before the fragment header;
	// else it goes up to the routing header if there is one, else the hop-by-hop
	// header, else the IPv6 header.
	UnfragLen  int
	UnfragNext int // offset of the next header field that ends this part
}

// WalkIPv6 walks the extension headers of a packet that CheckIPv6 has accepted:
// hop-by-hop options, destination options, routing and fragment headers, at most
// eight. Options are not looked into; a packet that ends here is for
// CheckIPv6Destination as well. Behind the header of a fragment that is not the
// first there is nothing to walk.
func WalkIPv6(b []byte) (c IPv6Chain, f Fault) {
	if next := b[IPv6OffNext]; !IsIPv6Extension(next) {
		c.Proto, c.Offset, c.UnfragLen, c.UnfragNext = next, IPv6Len, IPv6Len, IPv6OffNext
		return
	}
	total := IPv6Len + int(binary.BigEndian.Uint16(b[IPv6OffPayload:]))
	f = c.walk(b[:total])
	if f == OK && c.Fragmented {
		f = c.checkFragment(b[:total])
	}
	return
}

// IsIPv6Extension reports whether next announces a header that WalkIPv6 walks.
// Without one at IPv6OffNext there is no need to call it, which saves the packet
// path the 10 ns that an IPv6Chain costs to return.
func IsIPv6Extension(next uint8) bool {
	const walked = 1<<NextHopByHop | 1<<NextRouting | 1<<NextFragment | 1<<NextDestination
	return next < 64 && walked>>next&1 != 0
}

// walk is WalkIPv6 over a packet, or the beginning of one, that ends with b. It
// leaves checkFragment to the caller.
func (c *IPv6Chain) walk(b []byte) Fault {
	c.Proto, c.Offset = b[IPv6OffNext], IPv6Len
	c.UnfragLen, c.UnfragNext = IPv6Len, IPv6OffNext
	next := IPv6OffNext // of the header before c.Offset
	for n := 0; ; n++ {
		if !IsIPv6Extension(c.Proto) {
			return OK
		}
		if n == maxExtensions {
			return IPv6HeaderCount
		}
		if c.Proto == NextHopByHop && n > 0 {
			return IPv6HopByHopPlace
		}
		size := extUnit
		if c.Offset+size > len(b) {
			return c.cut()
		}
		if c.Proto == NextFragment {
			if c.Fragmented {
				return IPv6FragmentNested
			}
			c.readFragment(b)
			c.UnfragLen, c.UnfragNext = c.FragHdr, next
			if c.FragOff != 0 {
				c.Proto, c.Offset = b[c.Offset+extOffNext], c.Offset+size
				return OK
			}
		} else {
			size += int(b[c.Offset+extOffLen]) * extUnit
			if c.Offset+size > len(b) {
				return c.cut()
			}
		}
		walked := c.Proto
		next = c.Offset + extOffNext
		c.Proto, c.Offset = b[next], c.Offset+size
		if !c.Fragmented && walked != NextDestination {
			c.UnfragLen, c.UnfragNext = c.Offset, next
		}
	}
}

// cut names the fault of a header that does not fit the packet.
func (c *IPv6Chain) cut() Fault {
	if c.Fragmented && c.FragMore {
		return IPv6FragmentChain
	}
	return IPv6HeaderCut
}

// readFragment reads the fragment header at c.Offset.
func (c *IPv6Chain) readFragment(b []byte) {
	w := binary.BigEndian.Uint16(b[c.Offset+fragOffWord:])
	c.Fragmented, c.FragHdr = true, c.Offset
	c.FragMore, c.FragOff = w&fragMore != 0, int(w&fragOffMask)
	c.FragID = binary.BigEndian.Uint32(b[c.Offset+fragOffID:])
}

// checkFragment checks the data behind the fragment header of b, a whole packet.
func (c *IPv6Chain) checkFragment(b []byte) Fault {
	data := len(b) - c.FragHdr - IPv6FragmentLen
	switch {
	case c.FragOff == 0 && !c.FragMore:
		return OK // an atomic fragment (RFC 6946)
	case data == 0:
		return IPv6FragmentEmpty
	case c.FragMore && data%8 != 0:
		return IPv6FragmentLength
	case c.FragHdr-IPv6Len+c.FragOff+data > ipv6MaxPayload:
		return IPv6FragmentBeyond
	case c.FragOff == 0 && len(b)-c.Offset < leastHeader(c.Proto):
		// A first fragment holds the whole header chain, the header of the upper
		// layer included (RFC 7112 section 5).
		return IPv6FragmentChain
	}
	return OK
}

// leastHeader returns the size of the shortest header of an upper-layer protocol,
// 0 if it is not one that we read.
func leastHeader(proto uint8) int {
	switch proto {
	case ProtoTCP:
		return TCPLen
	case ProtoUDP:
		return UDPLen
	case ProtoGRE:
		return GREMinLen
	case ProtoESP:
		return 8 // SPI and sequence number (RFC 4303 section 2)
	case ProtoICMPv6:
		return ICMPLen
	}
	return 0
}

// Option types of hop-by-hop and destination options (RFC 8200 section 4.2). The
// two upper bits say what a node does that does not know the option; 00 is skip.
const (
	optPad1       = 0x00
	optJumbo      = 0xc2 // RFC 2675 section 2
	optActionMask = 0xc0
	routingType0  = 0
)

// CheckIPv6Destination checks what the destination of a packet must: the options
// of its hop-by-hop and destination headers, and its routing headers. The packet
// is one that WalkIPv6 has accepted; without extension headers there is nothing
// to look at. No option but padding is known, which is right for a node that is
// neither mobile nor a receiver of jumbograms.
func CheckIPv6Destination(b []byte) Fault {
	proto, at := b[IPv6OffNext], IPv6Len
	for {
		size := extUnit
		switch proto {
		case NextHopByHop, NextDestination:
			size += int(b[at+extOffLen]) * extUnit
			if f := checkIPv6Options(b[at+2 : at+size]); f != OK {
				return f
			}
		case NextRouting:
			size += int(b[at+extOffLen]) * extUnit
			if b[at+extOffLeft] != 0 {
				return routingFault(b[at+extOffType])
			}
		case NextFragment:
			if binary.BigEndian.Uint16(b[at+fragOffWord:])&fragOffMask != 0 {
				return OK
			}
		default:
			return OK
		}
		proto, at = b[at+extOffNext], at+size
	}
}

// routingFault names the fault of a routing header with segments left.
func routingFault(kind uint8) Fault {
	if kind == routingType0 {
		return IPv6RoutingType0
	}
	return IPv6RoutingSegments
}

// checkIPv6Options walks the type-length-value options of one header.
func checkIPv6Options(opts []byte) Fault {
	for len(opts) > 0 {
		if opts[0] == optPad1 {
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 {
			return IPv6OptionCut
		}
		n := 2 + int(opts[1])
		if n > len(opts) {
			return IPv6OptionLength
		}
		if opts[0] == optJumbo {
			return IPv6Jumbogram
		}
		if opts[0]&optActionMask != 0 {
			return IPv6OptionUnknown
		}
		opts = opts[n:]
	}
	return OK
}
