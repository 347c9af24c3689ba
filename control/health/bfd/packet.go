package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"causeway/pipeline/wire"
)

// A State is one of a session, with the number that it has on the wire (RFC 5880, section 4.1).
type State uint8

// The states.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

// String is the word for people.
func (s State) String() string { return [...]string{"admin-down", "down", "init", "up"}[s&3] }

// A Diagnostic says why a session left Up the last time (RFC 5880, section 4.1).
type Diagnostic uint8

// Those that this end says.
const (
	NoDiagnostic         Diagnostic = 0
	DetectionExpired     Diagnostic = 1
	NeighborSaidDown     Diagnostic = 3
	AdministrativelyDown Diagnostic = 7
)

var diagnostics = [...]string{"", "nothing came in time", "the echo function failed", "the other end says that it is down", "its forwarding plane was reset", "its path is down",
	"a concatenated path is down", "it is administratively down", "a reverse concatenated path is down"}

// String says it in words, "" if there is nothing to say.
func (d Diagnostic) String() string {
	if int(d) < len(diagnostics) {
		return diagnostics[d]
	}
	return fmt.Sprintf("diagnostic %d", d)
}

// A Control is a control packet (RFC 5880, section 4.1).
type Control struct {
	Diagnostic  Diagnostic
	State       State
	Poll, Final bool
	Demand      bool
	Multiplier  uint8
	Mine, Yours uint32 // discriminators of the sender and of the receiver; 0: not known yet
	MinTX       time.Duration
	MinRX       time.Duration
	MinEchoRX   time.Duration
}

// Ports of single hops (RFC 5881, section 4) and of others (RFC 5883, section 5).
const (
	PortSingle = 3784
	PortMulti  = 4784
)

const (
	controlLen = 24
	version    = 1

	flagPoll, flagFinal, flagAuthentication, flagDemand, flagMultipoint = 0x20, 0x10, 0x04, 0x02, 0x01

	// singleTTL is that of packets over one hop: a host further away cannot send it (RFC 5881, section 5).
	singleTTL = 255
	// class is CS6, network control.
	class = 0xc0
)

func (c *Control) append(b []byte) []byte {
	flags := byte(c.State)<<6 | flag(c.Poll, flagPoll) | flag(c.Final, flagFinal) | flag(c.Demand, flagDemand)
	b = append(b, version<<5|byte(c.Diagnostic), flags, c.Multiplier, controlLen)
	b = binary.BigEndian.AppendUint32(b, c.Mine)
	b = binary.BigEndian.AppendUint32(b, c.Yours)
	for _, d := range []time.Duration{c.MinTX, c.MinRX, c.MinEchoRX} {
		b = binary.BigEndian.AppendUint32(b, uint32(d/time.Microsecond))
	}
	return b
}

func flag(is bool, bit byte) byte {
	if is {
		return bit
	}
	return 0
}

// Mistakes of packets. RFC 5880, section 6.8.6, has them discarded.
var (
	errShort          = errors.New("it is cut off")
	errVersion        = errors.New("its version is not 1")
	errMultiplier     = errors.New("its detection multiplier is 0")
	errMultipoint     = errors.New("it is for several points")
	errMine           = errors.New("its own discriminator is 0")
	errYours          = errors.New("it does not know the discriminator of this end, and is neither down nor administratively so")
	errAuthentication = errors.New("it is authenticated, which is not there")
	errTTL            = errors.New("its TTL is not 255: it comes from further away than one hop")
	errSession        = errors.New("its discriminator of this end is another session's")
	errNotControl     = errors.New("it is no control packet of BFD in UDP")
)

// parseControl reads a control packet, the checks of RFC 5880, section 6.8.6, in its order.
func parseControl(b []byte) (c Control, err error) {
	if len(b) < controlLen {
		return c, errShort
	}
	flags := b[1]
	switch {
	case b[0]>>5 != version:
		return c, errVersion
	case int(b[3]) < controlLen || int(b[3]) > len(b):
		return c, errShort
	case b[2] == 0:
		return c, errMultiplier
	case flags&flagMultipoint != 0:
		return c, errMultipoint
	}
	at := func(i int) uint32 { return binary.BigEndian.Uint32(b[i:]) }
	span := func(i int) time.Duration { return time.Duration(at(i)) * time.Microsecond }
	c = Control{Diagnostic: Diagnostic(b[0] & 31), State: State(flags >> 6), Poll: flags&flagPoll != 0, Final: flags&flagFinal != 0, Demand: flags&flagDemand != 0,
		Multiplier: b[2], Mine: at(4), Yours: at(8), MinTX: span(12), MinRX: span(16), MinEchoRX: span(20)}
	switch {
	case c.Mine == 0:
		return c, errMine
	case c.Yours == 0 && c.State > Down:
		return c, errYours
	case flags&flagAuthentication != 0:
		return c, errAuthentication
	}
	return c, nil
}

// Ends are what the packets of a session have in common.
type Ends struct {
	Local, Remote netip.Addr
	Multihop      bool
	SourcePort    uint16 // of this end, 49152 or above (RFC 5881, section 4)
}

func (e *Ends) port() uint16 {
	if e.Multihop {
		return PortMulti
	}
	return PortSingle
}

// packet is a control packet with its headers.
func (e *Ends) packet(c *Control) []byte {
	head := wire.IPv6Len
	if e.Local.Is4() {
		head = wire.IPv4Len
	}
	b := c.append(make([]byte, head+wire.UDPLen, head+wire.UDPLen+controlLen))
	udp := b[head:]
	binary.BigEndian.PutUint16(udp[wire.UDPOffSrcPort:], e.SourcePort)
	binary.BigEndian.PutUint16(udp[wire.UDPOffDstPort:], e.port())
	binary.BigEndian.PutUint16(udp[wire.UDPOffLength:], uint16(len(udp)))
	if e.Local.Is4() {
		wire.PutIPv4(b, wire.IPv4Header{Src: word(e.Local), Dst: word(e.Remote), Total: len(b), Frag: wire.IPv4DF, TOS: class, TTL: singleTTL, Proto: wire.ProtoUDP})
	} else {
		wire.PutIPv6(b, &wire.IPv6Header{Src: e.Local.As16(), Dst: e.Remote.As16(), Payload: len(udp), Flow: class << 20, HopLimit: singleTTL, Next: wire.ProtoUDP})
	}
	sum := ^wire.Fold(wire.Sum(udp, pseudo(b, len(udp))))
	if sum == 0 { // which would say that there is none (RFC 768)
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[wire.UDPOffChecksum:], sum)
	return b
}

func word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// pseudo is the sum of an IP packet's pseudo-header.
func pseudo(b []byte, udpLen int) uint32 {
	if b[0]>>4 == 4 {
		return wire.PseudoSum4(binary.BigEndian.Uint32(b[wire.IPv4OffSrc:]), binary.BigEndian.Uint32(b[wire.IPv4OffDst:]), wire.ProtoUDP, udpLen)
	}
	return wire.PseudoSum6(b, wire.ProtoUDP, udpLen)
}

// parsePacket reads an IP packet, whose IP header the workers have checked, that came to this end's address.
func (e *Ends) parsePacket(b []byte) (c Control, err error) {
	var udp []byte
	var ttl byte
	var src netip.Addr
	switch {
	case len(b) >= wire.IPv4Len && b[0]>>4 == 4 && b[wire.IPv4OffProto] == wire.ProtoUDP && !wire.IPv4IsFragment(b):
		udp, ttl, src = b[min(len(b), int(b[0]&15)*4):], b[wire.IPv4OffTTL], netip.AddrFrom4([4]byte(b[wire.IPv4OffSrc:]))
	case len(b) >= wire.IPv6Len && b[0]>>4 == 6 && b[wire.IPv6OffNext] == wire.ProtoUDP:
		udp, ttl, src = b[wire.IPv6Len:], b[wire.IPv6OffHopLimit], netip.AddrFrom16([16]byte(b[wire.IPv6OffSrc:]))
	}
	if len(udp) < wire.UDPLen+controlLen || int(binary.BigEndian.Uint16(udp[wire.UDPOffLength:])) != len(udp) ||
		binary.BigEndian.Uint16(udp[wire.UDPOffDstPort:]) != e.port() || src != e.Remote {
		return c, errNotControl
	}
	switch sum := binary.BigEndian.Uint16(udp[wire.UDPOffChecksum:]); {
	case sum == 0 && !e.Local.Is4() || sum != 0 && wire.Fold(wire.Sum(udp, pseudo(b, len(udp)))) != 0xffff:
		return c, errNotControl
	case !e.Multihop && ttl != singleTTL:
		return c, errTTL
	}
	return parseControl(udp[wire.UDPLen:])
}
