package match

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"causeway/pipeline/wire"
)

// A Program is an expression in the order in which it is worked out. The zero Program matches every packet.
type Program struct{ ops []op }

type opKind uint8

const (
	opAnd opKind = iota
	opOr
	opNot

	opHeader // family and proto are right
	opNet
	opPort
	opLength
	opTunnel
	opAccount
	opVerdict
	opReason
)

type direction uint8

const (
	dirEither direction = iota
	dirSrc
	dirDst
	dirBoth
)

// any is no protocol in particular.
const any = -1

// op is a step: a condition puts what it finds on the stack, the others join what lies there.
type op struct {
	kind      opKind
	dir       direction
	family    uint8 // 4, 6; 0: either
	proto     int16
	id        int32
	low, high uint32
	net, mask [2]uint64
}

func (o *op) setPrefix(p netip.Prefix) {
	o.kind = opNet
	b, bits := p.Addr().As16(), p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	o.net = [2]uint64{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
	o.mask = [2]uint64{^uint64(0), ^uint64(0)}
	if bits <= 64 {
		o.mask = [2]uint64{^uint64(0) << (64 - bits), 0}
	} else {
		o.mask[1] <<= 128 - bits
	}
}

// A Header is what conditions look at of one IP packet. The zero Header is that of no packet: nothing holds for it.
type Header struct {
	family           uint8
	proto            uint8
	ports            bool
	srcPort, dstPort uint16
	src, dst         [2]uint64
}

// Of reads the headers of an IP packet. Of one that is malformed or cut it knows what stands before that.
func Of(ip []byte) (h Header) {
	if len(ip) < wire.IPv4Len {
		return h
	}
	switch ip[0] >> 4 {
	case 4:
		h.read4(ip)
	case 6:
		if len(ip) >= wire.IPv6Len {
			h.read6(ip)
		}
	}
	return h
}

func (h *Header) read4(ip []byte) {
	const mapped = 0xffff << 32
	h.family, h.proto = 4, ip[wire.IPv4OffProto]
	h.src[1] = mapped | uint64(binary.BigEndian.Uint32(ip[wire.IPv4OffSrc:]))
	h.dst[1] = mapped | uint64(binary.BigEndian.Uint32(ip[wire.IPv4OffDst:]))
	if binary.BigEndian.Uint16(ip[wire.IPv4OffFrag:])&0x1fff == 0 {
		h.readPorts(ip, int(ip[0]&15)*4)
	}
}

func (h *Header) read6(ip []byte) {
	h.family, h.proto = 6, ip[wire.IPv6OffNext]
	s, d := ip[wire.IPv6OffSrc:], ip[wire.IPv6OffDst:]
	h.src = [2]uint64{binary.BigEndian.Uint64(s), binary.BigEndian.Uint64(s[8:])}
	h.dst = [2]uint64{binary.BigEndian.Uint64(d), binary.BigEndian.Uint64(d[8:])}
	at := wire.IPv6Len
	if wire.IsIPv6Extension(h.proto) {
		total, f := wire.CheckIPv6(ip)
		if f != wire.OK {
			return
		}
		chain, f := wire.WalkIPv6(ip[:total])
		if f != wire.OK {
			return
		}
		if h.proto, at = chain.Proto, chain.Offset; chain.FragOff != 0 {
			return
		}
	}
	h.readPorts(ip, at)
}

func (h *Header) readPorts(ip []byte, at int) {
	if hasPorts(h.proto) && at+4 <= len(ip) {
		h.ports, h.srcPort, h.dstPort = true, binary.BigEndian.Uint16(ip[at:]), binary.BigEndian.Uint16(ip[at+2:])
	}
}

// String is the header as a line; "" for no packet.
func (h Header) String() string {
	if h.family == 0 {
		return ""
	}
	name := fmt.Sprintf("protocol %d", h.proto)
	for n, proto := range protocols {
		if int16(h.proto) == proto {
			name = n
		}
	}
	src, dst := h.addr(h.src), h.addr(h.dst)
	if h.ports {
		return fmt.Sprintf("%s %v > %v", name, netip.AddrPortFrom(src, h.srcPort), netip.AddrPortFrom(dst, h.dstPort))
	}
	return fmt.Sprintf("%s %v > %v", name, src, dst)
}

func (h Header) addr(a [2]uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a[0])
	binary.BigEndian.PutUint64(b[8:], a[1])
	if h.family == 4 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// A Packet is what a Program is asked about.
type Packet struct {
	Outer, Inner          Header
	Length                int   // bytes of the frame, as it came
	In, Out               int32 // numbers of the tunnels; -1: none
	InAccount, OutAccount int32 // of these tunnels; -1: none
	Verdict, Reason       uint8 // Reason: 0 if it was not dropped
}

// Match reports whether the packet is wanted.
func (p *Program) Match(x *Packet) bool {
	stack := uint64(1) // what was found last lies lowest
	for i := range p.ops {
		o := &p.ops[i]
		switch o.kind {
		case opAnd:
			stack = stack>>1&^1 | stack>>1&stack&1
		case opOr:
			stack = stack>>1 | stack&1
		case opNot:
			stack ^= 1
		default:
			stack <<= 1
			if o.holds(x) {
				stack |= 1
			}
		}
	}
	return stack&1 != 0
}

func (o *op) holds(x *Packet) bool {
	switch o.kind {
	case opLength:
		return uint32(x.Length) >= o.low && uint32(x.Length) <= o.high
	case opTunnel:
		return o.ends(x.In == o.id, x.Out == o.id)
	case opAccount:
		return o.ends(x.InAccount == o.id, x.OutAccount == o.id)
	case opVerdict:
		return uint32(x.Verdict) == o.low
	case opReason:
		return uint32(x.Reason) == o.low
	}
	return o.about(&x.Outer) || o.about(&x.Inner)
}

// about reports whether a condition about headers holds for one.
func (o *op) about(h *Header) bool {
	if h.family == 0 || o.family != 0 && o.family != h.family || o.proto != any && uint8(o.proto) != h.proto {
		return false
	}
	switch o.kind {
	case opNet:
		return o.ends(o.within(h.src), o.within(h.dst))
	case opPort:
		return h.ports && o.ends(o.between(h.srcPort), o.between(h.dstPort))
	}
	return true
}

func (o *op) within(a [2]uint64) bool {
	return a[0]&o.mask[0] == o.net[0] && a[1]&o.mask[1] == o.net[1]
}

func (o *op) between(port uint16) bool { return uint32(port) >= o.low && uint32(port) <= o.high }

// ends joins what was found of the two ends.
func (o *op) ends(src, dst bool) bool {
	switch o.dir {
	case dirSrc:
		return src
	case dirDst:
		return dst
	case dirBoth:
		return src && dst
	}
	return src || dst
}
