// Package wire reads and writes packet headers: Ethernet, IPv4, IPv6, GRE, UDP,
// TCP options and ICMP, with their checksums and with fragmentation.
//
// Everything here is a pure function over []byte. There is no state, no
// allocation and no package of this project below it. The rules that hold in
// every file:
//
//   - Input is hostile. A Check, Parse or Walk function may be given any bytes;
//     it answers with a Fault and never panics. Each way in which a header can be
//     wrong has its own Fault. Beside a fault the other results mean nothing.
//   - What a Check function accepted, the Put, Dec and accessor functions beside
//     it take for granted. They say so; given fewer bytes they panic, because
//     that is a mistake of the caller and not of the network.
//   - Multi-byte values are in host order in Go and in network order in bytes.
//     Lengths and offsets are in bytes, whatever unit the header uses.
//   - Slices are borrowed for the length of the call. Nothing is kept.
//
// Files stand in packet order: ether, ipv4 and ipv4options, ipv6, gre, udp, tcp,
// then what answers (icmp, icmpparse) and what cuts (fragment).
package wire
