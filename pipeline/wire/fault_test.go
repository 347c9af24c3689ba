package wire

import (
	"encoding/binary"
	"strings"
	"testing"
)

// faultCase is one malformed input. at gives its fault by the function that the
// pipeline would call.
type faultCase struct {
	name string
	want Fault
	at   func() Fault
}

func check4(b []byte) Fault {
	hlen, total, f := CheckIPv4(b)
	if f == OK {
		f = CheckIPv4Options(b[:hlen])
	}
	if f == OK {
		f = CheckIPv4Fragment(b, hlen, total)
	}
	return f
}

func check6(b []byte) Fault {
	_, f := CheckIPv6(b)
	if f == OK {
		_, f = WalkIPv6(b)
	}
	if f == OK {
		f = CheckIPv6Destination(b)
	}
	return f
}

func ethernet(b []byte) Fault { _, f := ParseEthernet(b); return f }
func gre(b []byte) Fault      { _, f := ParseGRE(b); return f }
func udp(b []byte) Fault      { _, f := CheckUDP(b); return f }
func clamp(b []byte) Fault    { _, f := ClampMSS(b, 1000); return f }
func error4(b []byte) Fault   { _, f := ParseICMPError4(b); return f }
func error6(b []byte) Fault   { _, f := ParseICMPError6(make6(ProtoICMPv6, nil), b); return f }

// frag4 returns a datagram with this word of flags and offset.
func frag4(word uint16, payload int) []byte {
	return edit(make4(ProtoUDP, nil, pattern(payload)), func(b []byte) {
		binary.BigEndian.PutUint16(b[IPv4OffFrag:], word)
		fix4(b)
	})
}

// fragHeader returns an IPv6 fragment header.
func fragHeader(next uint8, word uint16) []byte {
	return []byte{next, 0, byte(word >> 8), byte(word), 0xde, 0xad, 0xbe, 0xef}
}

// icmp4 returns an ICMPv4 message with a right checksum.
func icmp4(kind, code uint8, data []byte) []byte {
	b := join([]byte{kind, code, 0, 0, 0, 0, 0, 0}, data)
	binary.BigEndian.PutUint16(b[ICMPOffChecksum:], ^naiveSum(b))
	return b
}

// icmp6 returns an ICMPv6 message with a right checksum between src6 and dst6.
func icmp6(kind, code uint8, data []byte) []byte {
	b := join([]byte{kind, code, 0, 0, 0, 0, 0, 0}, data)
	pseudo := join(src6[:], dst6[:], []byte{0, 0, byte(len(b) >> 8), byte(len(b)), 0, 0, 0, ProtoICMPv6})
	binary.BigEndian.PutUint16(b[ICMPOffChecksum:], ^naiveSum(join(pseudo, b)))
	return b
}

// synWith returns a SYN with these options and a data offset that fits them.
func synWith(opts ...byte) []byte {
	b := append(make([]byte, TCPLen), opts...)
	for len(b)%4 != 0 {
		b = append(b, tcpOptEnd)
	}
	b[TCPOffData], b[TCPOffFlags] = byte(len(b)/4)<<4, TCPFlagSYN
	return b
}

var (
	noOpts = []byte{0, 0, 1, 4, 0, 0, 0, 0} // next header to be set, PadN
	plain4 = make4(ProtoUDP, nil, pattern(16))
	plain6 = make6(ProtoUDP, pattern(16))
)

// ext returns noOpts with this next header.
func ext(next uint8) []byte { return edit(noOpts, func(b []byte) { b[0] = next }) }

func opts4(opts ...byte) []byte { return make4(ProtoUDP, opts, pattern(8)) }

func change4(at int, v byte) []byte {
	return edit(plain4, func(b []byte) { b[at] = v })
}

var faultCases = []faultCase{
	{"empty frame", EthernetShort, func() Fault { return ethernet(nil) }},
	{"13 bytes", EthernetShort, func() Fault { return ethernet(make([]byte, 13)) }},
	{"half a tag", VLANShort, func() Fault { return ethernet(join(make([]byte, 12), []byte{0x81, 0, 0})) }},
	{"tag without a type", VLANShort, func() Fault { return ethernet(join(make([]byte, 12), []byte{0x81, 0, 0, 1, 8})) }},
	{"two tags", VLANStacked, func() Fault { return ethernet(join(make([]byte, 12), []byte{0x81, 0, 0, 1, 0x81, 0, 0, 2})) }},
	{"service tag", VLANStacked, func() Fault { return ethernet(join(make([]byte, 12), []byte{0x88, 0xa8, 0, 1, 8, 0})) }},
	{"service tag inside", VLANStacked, func() Fault { return ethernet(join(make([]byte, 12), []byte{0x81, 0, 0, 1, 0x88, 0xa8})) }},
	{"vlan 4095", VLANReserved, func() Fault { return ethernet(join(make([]byte, 12), []byte{0x81, 0, 0xef, 0xff, 8, 0})) }},

	{"empty packet", IPv4Short, func() Fault { return check4(nil) }},
	{"19 bytes", IPv4Short, func() Fault { return check4(plain4[:19]) }},
	{"version 5", IPv4Version, func() Fault { return check4(change4(0, 0x55)) }},
	{"version 6", IPv4Version, func() Fault { return check4(change4(0, 0x65)) }},
	{"header length 16", IPv4HeaderSmall, func() Fault { return check4(change4(0, 0x44)) }},
	{"header length 0", IPv4HeaderSmall, func() Fault { return check4(change4(0, 0x40)) }},
	{"header length 60 of 36", IPv4HeaderLong, func() Fault { return check4(change4(0, 0x4f)) }},
	{"total length 19", IPv4TotalSmall, func() Fault { return check4(change4(3, 19)) }},
	{"total length 20 with options", IPv4TotalSmall, func() Fault { return check4(edit(opts4(1, 1, 1, 1), func(b []byte) { b[3] = 20 })) }},
	{"one byte missing", IPv4TotalLong, func() Fault { return check4(plain4[:len(plain4)-1]) }},
	{"one byte missing with options", IPv4TotalLong, func() Fault { b := opts4(1); return check4(b[:len(b)-1]) }},
	{"checksum off by one", IPv4Checksum, func() Fault { return check4(change4(11, plain4[11]+1)) }},
	{"checksum zero", IPv4Checksum, func() Fault { return check4(edit(plain4, func(b []byte) { b[10], b[11] = 0, 0 })) }},
	{"checksum with options", IPv4Checksum, func() Fault { return check4(edit(opts4(1, 1, 1, 1), func(b []byte) { b[23] = 0 })) }},
	{"reserved flag", IPv4ReservedFlag, func() Fault { return check4(frag4(IPv4Reserved, 8)) }},
	{"reserved flag in a fragment", IPv4ReservedFlag, func() Fault { return check4(frag4(IPv4Reserved|IPv4MF, 8)) }},
	{"first fragment without data", IPv4FragmentEmpty, func() Fault { return check4(frag4(IPv4MF, 0)) }},
	{"last fragment without data", IPv4FragmentEmpty, func() Fault { return check4(frag4(1, 0)) }},
	{"fragment of 12 bytes with more", IPv4FragmentLength, func() Fault { return check4(frag4(IPv4MF, 12)) }},
	{"ping of death", IPv4FragmentBeyond, func() Fault { return check4(frag4(8189, 8)) }},
	{"option without a length", IPv4OptionCut, func() Fault { return check4(opts4(1, 1, 1, 7)) }},
	{"option of length 0", IPv4OptionLength, func() Fault { return check4(opts4(148, 0, 0, 0)) }},
	{"option of length 1", IPv4OptionLength, func() Fault { return check4(opts4(148, 1, 0, 0)) }},
	{"option beyond the header", IPv4OptionLength, func() Fault { return check4(opts4(148, 5, 0, 0)) }},
	{"record route with half an address", IPv4OptionLength, func() Fault { return check4(opts4(7, 5, 4, 0, 0)) }},
	{"record route without a pointer", IPv4OptionLength, func() Fault { return check4(opts4(7, 2, 0, 0)) }},
	{"timestamp of 6 bytes", IPv4OptionLength, func() Fault { return check4(opts4(68, 6, 5, 0, 0, 0)) }},
	{"timestamp without flags", IPv4OptionLength, func() Fault { return check4(opts4(68, 3, 5, 0)) }},
	{"record route pointer 3", IPv4OptionPointer, func() Fault { return check4(opts4(7, 7, 3, 0, 0, 0, 0)) }},
	{"record route pointer 5", IPv4OptionPointer, func() Fault { return check4(opts4(7, 7, 5, 0, 0, 0, 0)) }},
	{"timestamp pointer 4", IPv4OptionPointer, func() Fault { return check4(opts4(68, 8, 4, 0, 0, 0, 0, 0)) }},
	{"record route twice", IPv4OptionRepeated, func() Fault { return check4(opts4(7, 3, 4, 7, 3, 4)) }},
	{"timestamp twice", IPv4OptionRepeated, func() Fault { return check4(opts4(68, 4, 5, 0, 68, 4, 5, 0)) }},
	{"loose source route", IPv4OptionSourceRoute, func() Fault { return check4(opts4(131, 7, 4, 1, 2, 3, 4)) }},
	{"strict source route", IPv4OptionSourceRoute, func() Fault { return check4(opts4(1, 137, 7, 4, 1, 2, 3, 4)) }},

	{"empty packet", IPv6Short, func() Fault { return check6(nil) }},
	{"39 bytes", IPv6Short, func() Fault { return check6(plain6[:39]) }},
	{"version 4", IPv6Version, func() Fault { return check6(edit(plain6, func(b []byte) { b[0] = 0x45 })) }},
	{"one byte missing", IPv6PayloadLong, func() Fault { return check6(plain6[:len(plain6)-1]) }},
	{"payload length zero", IPv6PayloadZero, func() Fault { return check6(make6(ProtoUDP, nil)) }},
	{"payload length zero with hop-by-hop", IPv6Jumbogram, func() Fault { return check6(make6(NextHopByHop, nil)) }},
	{"jumbo payload option", IPv6Jumbogram, func() Fault {
		return check6(make6(NextHopByHop, []byte{NextNone, 0, 0xc2, 4, 0, 1, 0, 0}))
	}},
	{"destination options of 4 bytes", IPv6HeaderCut, func() Fault { return check6(make6(NextDestination, ext(NextNone)[:4])) }},
	{"destination options beyond the packet", IPv6HeaderCut, func() Fault {
		return check6(make6(NextDestination, edit(ext(NextNone), func(b []byte) { b[1] = 1 })))
	}},
	{"nothing where a fragment header should be", IPv6HeaderCut, func() Fault { return check6(make6(NextDestination, ext(NextFragment))) }},
	{"nine headers", IPv6HeaderCount, func() Fault {
		var b []byte
		for range 8 {
			b = append(b, ext(NextDestination)...)
		}
		return check6(make6(NextDestination, append(b, ext(NextNone)...)))
	}},
	{"hop-by-hop second", IPv6HopByHopPlace, func() Fault {
		return check6(make6(NextDestination, join(ext(NextHopByHop), ext(NextNone))))
	}},
	{"hop-by-hop twice", IPv6HopByHopPlace, func() Fault {
		return check6(make6(NextHopByHop, join(ext(NextHopByHop), ext(NextNone))))
	}},
	{"option without a length", IPv6OptionCut, func() Fault {
		return check6(make6(NextDestination, []byte{NextNone, 0, 0, 0, 0, 0, 0, 4}))
	}},
	{"option beyond its header", IPv6OptionLength, func() Fault {
		return check6(make6(NextDestination, []byte{NextNone, 0, 4, 5, 0, 0, 0, 0}))
	}},
	{"option with action discard", IPv6OptionUnknown, func() Fault {
		return check6(make6(NextDestination, []byte{NextNone, 0, 0x40, 4, 0, 0, 0, 0}))
	}},
	{"home address option", IPv6OptionUnknown, func() Fault {
		return check6(make6(NextDestination, []byte{NextNone, 0, 0xc9, 4, 0, 0, 0, 0}))
	}},
	{"routing type 0", IPv6RoutingType0, func() Fault {
		return check6(make6(NextRouting, []byte{NextNone, 0, 0, 1, 0, 0, 0, 0}))
	}},
	{"segment routing", IPv6RoutingSegments, func() Fault {
		return check6(make6(NextRouting, []byte{NextNone, 0, 4, 1, 0, 0, 0, 0}))
	}},
	{"first fragment without data", IPv6FragmentEmpty, func() Fault { return check6(make6(NextFragment, fragHeader(NextNone, 1))) }},
	{"last fragment without data", IPv6FragmentEmpty, func() Fault { return check6(make6(NextFragment, fragHeader(ProtoUDP, 8))) }},
	{"fragment of 12 bytes with more", IPv6FragmentLength, func() Fault {
		return check6(make6(NextFragment, join(fragHeader(ProtoUDP, 1), pattern(12))))
	}},
	{"fragment that ends at 65536", IPv6FragmentBeyond, func() Fault {
		return check6(make6(NextFragment, join(fragHeader(ProtoUDP, 0xfff8), pattern(8))))
	}},
	{"two fragment headers", IPv6FragmentNested, func() Fault {
		return check6(make6(NextFragment, join(fragHeader(NextFragment, 0), fragHeader(ProtoUDP, 0), pattern(8))))
	}},
	{"first fragment ends inside destination options", IPv6FragmentChain, func() Fault {
		return check6(make6(NextFragment, join(fragHeader(NextDestination, 1), edit(ext(ProtoUDP), func(b []byte) { b[1] = 3 }))))
	}},
	{"first fragment ends inside tcp", IPv6FragmentChain, func() Fault {
		return check6(make6(NextFragment, join(fragHeader(ProtoTCP, 1), pattern(16))))
	}},

	{"nothing", GREShort, func() Fault { return gre(nil) }},
	{"3 bytes", GREShort, func() Fault { return gre([]byte{0, 0, 8}) }},
	{"version 1", GREVersion, func() Fault { return gre([]byte{0x20, 1, 0x88, 0x0b, 0, 0, 0, 0}) }},
	{"version 7", GREVersion, func() Fault { return gre([]byte{0, 7, 8, 0}) }},
	{"routing bit", GRERouting, func() Fault { return gre([]byte{0x40, 0, 8, 0, 0, 0, 0, 0}) }},
	{"strict source route bit", GREStrictRoute, func() Fault { return gre([]byte{0x08, 0, 8, 0}) }},
	{"recursion bit 5", GRERecursion, func() Fault { return gre([]byte{0x04, 0, 8, 0}) }},
	{"checksum cut", GREChecksumCut, func() Fault { return gre([]byte{0x80, 0, 8, 0, 0, 0, 0}) }},
	{"key cut", GREKeyCut, func() Fault { return gre([]byte{0x20, 0, 8, 0, 0, 0, 0}) }},
	{"key cut behind the checksum", GREKeyCut, func() Fault { return gre([]byte{0xa0, 0, 8, 0, 0, 0, 0, 0, 1, 2, 3}) }},
	{"sequence number cut", GRESequenceCut, func() Fault { return gre([]byte{0x10, 0, 8, 0, 0, 0, 0}) }},
	{"sequence number cut behind all", GRESequenceCut, func() Fault {
		return gre([]byte{0xb0, 0, 8, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7})
	}},

	{"7 bytes", UDPShort, func() Fault { return udp(make([]byte, 7)) }},
	{"length 7", UDPLengthSmall, func() Fault { return udp([]byte{0, 1, 0, 2, 0, 7, 0, 0}) }},
	{"length 9 of 8", UDPLengthLong, func() Fault { return udp([]byte{0, 1, 0, 2, 0, 9, 0, 0}) }},

	{"13 bytes", TCPShort, func() Fault { return clamp(make([]byte, 13)) }},
	{"syn of 19 bytes", TCPShort, func() Fault { return clamp(synWith()[:19]) }},
	{"data offset 16", TCPOffsetSmall, func() Fault { return clamp(edit(synWith(), func(b []byte) { b[12] = 0x40 })) }},
	{"data offset 24 of 20", TCPOffsetLong, func() Fault { return clamp(edit(synWith(), func(b []byte) { b[12] = 0x60 })) }},
	{"option without a length", TCPOptionCut, func() Fault { return clamp(synWith(1, 1, 1, 2)) }},
	{"option of length 0", TCPOptionLength, func() Fault { return clamp(synWith(8, 0, 0, 0)) }},
	{"option of length 1", TCPOptionLength, func() Fault { return clamp(synWith(8, 1, 0, 0)) }},
	{"option beyond the header", TCPOptionLength, func() Fault { return clamp(synWith(1, 2, 4, 5)) }},
	{"mss of length 3", TCPOptionMSS, func() Fault { return clamp(synWith(2, 3, 5, 0)) }},
	{"mss of length 6", TCPOptionMSS, func() Fault { return clamp(synWith(2, 6, 5, 0xb4, 0, 0)) }},

	{"7 bytes", ICMPShort, func() Fault { return error4(make([]byte, 7)) }},
	{"7 bytes of icmpv6", ICMPShort, func() Fault { return error6(make([]byte, 7)) }},
	{"echo of 7 bytes", ICMPShort, func() Fault { return EchoReply4(make4(ProtoICMP, nil, []byte{8, 0, 0, 0, 0, 0, 0})) }},
	{"checksum", ICMPChecksum, func() Fault {
		return error4(edit(icmp4(3, 4, plain4), func(b []byte) { b[2]++ }))
	}},
	{"checksum of icmpv6", ICMPChecksum, func() Fault {
		return error6(edit(icmp6(2, 0, plain6), func(b []byte) { b[2]++ }))
	}},
	{"checksum of an echo", ICMPChecksum, func() Fault {
		return EchoReply6(make6(ProtoICMPv6, edit(icmp6(128, 0, nil), func(b []byte) { b[2]++ })))
	}},
	{"echo reply", ICMPNotEcho, func() Fault { return EchoReply4(make4(ProtoICMP, nil, icmp4(0, 0, nil))) }},
	{"echo with a code", ICMPNotEcho, func() Fault { return EchoReply4(make4(ProtoICMP, nil, icmp4(8, 1, nil))) }},
	{"udp", ICMPNotEcho, func() Fault { return EchoReply6(plain6) }},
	{"echo request", ICMPNotError, func() Fault { return error4(icmp4(8, 0, plain4)) }},
	{"echo request of icmpv6", ICMPNotError, func() Fault { return error6(icmp6(128, 0, plain6)) }},
	{"first fragment of an echo", ICMPFragmented, func() Fault {
		return EchoReply4(edit(make4(ProtoICMP, nil, icmp4(8, 0, nil)), func(b []byte) { b[6] = IPv4MF >> 8; fix4(b) }))
	}},
	{"fragment header before an echo", ICMPFragmented, func() Fault {
		return EchoReply6(make6(NextFragment, join(fragHeader(ProtoICMPv6, 0), icmp6(128, 0, nil))))
	}},
	{"quote of 19 bytes", ICMPQuoteShort, func() Fault { return error4(icmp4(3, 4, plain4[:19])) }},
	{"quote without 8 bytes of data", ICMPQuoteShort, func() Fault { return error4(icmp4(3, 4, plain4[:27])) }},
	{"quote of 39 bytes", ICMPQuoteShort, func() Fault { return error6(icmp6(2, 0, plain6[:39])) }},
	{"quote without 8 bytes behind ipv6", ICMPQuoteShort, func() Fault { return error6(icmp6(2, 0, plain6[:47])) }},
	{"quote that ends inside a header", ICMPQuoteShort, func() Fault {
		return error6(icmp6(2, 0, edit(make6(NextDestination, pattern(80)), func(b []byte) { b[41] = 4 })[:60]))
	}},
	{"quote of version 6", ICMPQuoteMalformed, func() Fault { return error4(icmp4(3, 4, plain6)) }},
	{"quote of header length 16", ICMPQuoteMalformed, func() Fault { return error4(icmp4(3, 4, change4(0, 0x44))) }},
	{"quote of version 4", ICMPQuoteMalformed, func() Fault { return error6(icmp6(2, 0, make4(ProtoUDP, nil, pattern(40)))) }},
	{"quote with hop-by-hop second", ICMPQuoteMalformed, func() Fault {
		return error6(icmp6(2, 0, make6(NextDestination, join(ext(NextHopByHop), ext(NextNone)))))
	}},

	{"don't fragment", FragmentForbidden, func() Fault {
		_, f := PlanIPv4(frag4(IPv4DF, 100), 60, make([]Piece, 8))
		return f
	}},
	{"mtu 27", FragmentMTU, func() Fault { _, f := PlanIPv4(plain4, 27, make([]Piece, 8)); return f }},
	{"mtu 55", FragmentMTU, func() Fault {
		c, _ := WalkIPv6(plain6)
		_, f := PlanIPv6(plain6, &c, 55, make([]Piece, 8))
		return f
	}},
	{"room for one piece", FragmentCount, func() Fault { _, f := PlanIPv4(plain4, 28, make([]Piece, 1)); return f }},
}

// TestFaults shows that each fault is found, and that none is left that nothing
// can bring about.
func TestFaults(t *testing.T) {
	seen := map[Fault]bool{OK: true}
	for _, c := range faultCases {
		t.Run(c.want.String()+"/"+c.name, func(t *testing.T) {
			if got := c.at(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
		seen[c.want] = true
	}
	for f := range FaultCount {
		if !seen[f] {
			t.Errorf("no case brings about %q (%d)", f, f)
		}
	}
}

func TestFaultText(t *testing.T) {
	seen := map[string]Fault{}
	for f := range FaultCount {
		s := f.String()
		if s == "" || s != strings.ToLower(s) {
			t.Errorf("fault %d: phrase %q is not short lower case", f, s)
		}
		if other, ok := seen[s]; ok {
			t.Errorf("faults %d and %d are both %q", f, other, s)
		}
		seen[s] = f
		if (f.RFC() == "") != (f == OK) {
			t.Errorf("%q: section %q", f, f.RFC())
		}
	}
	if FaultCount.String() != "unknown fault" || FaultCount.RFC() != "" {
		t.Error("a number beyond the faults must say that it is unknown")
	}
}
