package flow

import (
	"strconv"
	"strings"
)

// protocols are IANA's keywords for the numbers of protocols that are met. Of the others the number says as much.
var protocols = [256]string{
	0: "HOPOPT", 1: "ICMP", 2: "IGMP", 3: "GGP", 4: "IPv4", 5: "ST", 6: "TCP", 7: "CBT", 8: "EGP", 9: "IGP", 17: "UDP", 27: "RDP",
	29: "ISO-TP4", 33: "DCCP", 35: "IDPR", 41: "IPv6", 42: "SDRP", 43: "IPv6-Route", 44: "IPv6-Frag", 45: "IDRP", 46: "RSVP", 47: "GRE",
	48: "DSR", 50: "ESP", 51: "AH", 55: "Min-IPv4", 57: "SKIP", 58: "ICMPv6", 59: "IPv6-NoNxt", 60: "IPv6-Opts", 66: "RVD", 73: "CPHB",
	81: "VMTP", 88: "EIGRP", 89: "OSPF", 92: "MTP", 94: "IPIP", 97: "ETHERIP", 98: "ENCAP", 103: "PIM", 108: "IPComp", 112: "VRRP",
	113: "PGM", 115: "L2TP", 118: "STP", 121: "SMP", 124: "ISIS over IPv4", 132: "SCTP", 133: "FC", 135: "Mobility Header", 136: "UDPLite",
	137: "MPLS-in-IP", 138: "manet", 139: "HIP", 140: "Shim6", 141: "WESP", 142: "ROHC", 143: "Ethernet",
}

// numbers are the texts of those without a keyword, made once: names are asked for with each sample.
var numbers = func() (out [256]string) {
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return
}()

// ProtocolName is IANA's keyword for a protocol number, or the number as text. It does not allocate.
func ProtocolName(protocol uint8) string {
	if name := protocols[protocol]; name != "" {
		return name
	}
	return numbers[protocol]
}

// The flags of TCP (RFC 9293 3.1), as they stand in TCP.Flags.
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// flagNames are the texts of all sets of flags.
var flagNames = func() (out [256]string) {
	names := [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}
	for set := range out {
		var in []string
		for bit, name := range names {
			if set&(1<<bit) != 0 {
				in = append(in, name)
			}
		}
		out[set] = strings.Join(in, " ")
	}
	return out
}()

// TCPFlagNames are the names of the flags in an octet of TCP flags with a space between, for example "SYN ACK"; empty without any.
// It does not allocate.
func TCPFlagNames(flags uint8) string { return flagNames[flags] }
