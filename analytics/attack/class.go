package attack

import (
	"strings"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/pipeline/wire"
)

// A class is what a packet is to the host that receives it, or to the one that sends it.
type class uint8

const (
	unclassed class = iota

	// Received. Fresh is the first packet of a flow, as far as samples of the last seconds show; repeat are the others.
	inSYN
	inSYNACK
	inACKFresh // neither SYN nor RST
	inACKRepeat
	inRST
	inUDPFresh
	inUDPRepeat
	inDNSLarge // from port 53
	inDNSSmall
	inReflectorLarge // from the port of another service that amplifies
	inReflectorSmall
	inICMP
	inFragment
	inGREDropped
	inESPDropped
	inOther

	// Sent. What a victim answers to an attack - SYN-ACK, RST, echo replies, ICMP errors - explains nothing and is not counted.
	outSYN
	outTCP // neither SYN nor RST
	outUDP
	outDNS // to port 53
	outReflector
	outPing
	outFragment
	outOther
	probeFresh // looks like a scan's, to a port and host that had none before
	probeRepeat

	counted // number of classes that are counted

	// inACKShort is made of others: the repeats that the flows of a crowd have, which are few for each flow.
	inACKShort = counted
	classes    = counted + 1
)

// maxProbe is the longest packet, in bytes, that a scan would send.
const maxProbe = 100

// reflectors are the services that are misused to amplify, and the least bytes of IP packet that amplified answers have. Ordinary
// answers are shorter, most of the time: for example NTP's are of 76 bytes.
var reflectors = map[uint16]struct {
	name  string
	large int
}{
	17: {"QOTD", 64}, 19: {"chargen", 64}, 53: {"DNS", 512}, 69: {"TFTP", 300}, 111: {"portmap", 200}, 123: {"NTP", 200}, 137: {"NetBIOS", 150},
	161: {"SNMP", 400}, 389: {"CLDAP", 400}, 427: {"SLP", 200}, 520: {"RIP", 300}, 623: {"IPMI", 150}, 1434: {"MS SQL", 200}, 1900: {"SSDP", 200},
	3283: {"ARD", 200}, 3702: {"WS-Discovery", 400}, 5353: {"mDNS", 200}, 5683: {"CoAP", 300}, 10001: {"Ubiquiti", 150}, 11211: {"memcached", 200},
	27960: {"Quake", 400}, 32414: {"Plex", 150}, 37810: {"DVR", 200},
}

// reflecting is one bit for each port of reflectors: a map would be asked for every packet of UDP.
var reflecting = func() (set [65536 / 64]uint64) {
	for port := range reflectors {
		set[port/64] |= 1 << (port % 64)
	}
	return
}()

func isReflector(port uint16) bool { return reflecting[port/64]>>(port%64)&1 != 0 }

// received is the class of a packet to whom it is for. Of flows it says Fresh; the host knows better.
func received(s *store.Sample) class {
	h := &s.Packet
	if s.Verdict == flow.Dropped && s.Out == nil {
		switch {
		case h.Protocol == wire.ProtoGRE:
			return inGREDropped
		case h.Protocol == wire.ProtoESP, h.DstPort == wire.PortIKENAT && strings.HasPrefix(s.Reason, "esp_"): // RFC 3948
			return inESPDropped
		}
	}
	switch {
	case h.FragmentOffset != 0 || h.MoreFragments:
		return inFragment
	case h.HasTCP:
		return receivedTCP(h.TCP.Flags)
	case h.HasUDP && isReflector(h.SrcPort):
		return receivedAnswer(h)
	case h.HasUDP:
		return inUDPFresh
	case h.Protocol == wire.ProtoICMP || h.Protocol == wire.ProtoICMPv6:
		return inICMP
	}
	return inOther
}

func receivedTCP(flags uint8) class {
	switch {
	case flags&flow.RST != 0:
		return inRST
	case flags&(flow.SYN|flow.ACK) == flow.SYN|flow.ACK:
		return inSYNACK
	case flags&flow.SYN != 0:
		return inSYN
	case flags&flow.ACK != 0:
		return inACKFresh
	}
	return inOther // a state of flags that RFC 9293 does not have
}

func receivedAnswer(h *flow.Header) class {
	large := h.Length >= reflectors[h.SrcPort].large
	switch {
	case h.SrcPort == 53 && large:
		return inDNSLarge
	case h.SrcPort == 53:
		return inDNSSmall
	case large:
		return inReflectorLarge
	}
	return inReflectorSmall
}

// sent is the class of a packet to its sender. Probe is whether a scan would send such ones.
func sent(h *flow.Header) (c class, probe bool) {
	small := h.Length <= maxProbe
	switch {
	case h.FragmentOffset != 0 || h.MoreFragments:
		return outFragment, false
	case h.HasTCP:
		switch flags := h.TCP.Flags & (flow.SYN | flow.ACK | flow.RST); flags {
		case flow.SYN:
			return outSYN, small
		case flow.ACK:
			return outTCP, false
		case 0: // as FIN, NULL and Xmas scans send
			return unclassed, small
		}
		return unclassed, false
	case h.HasUDP && isReflector(h.DstPort):
		if h.DstPort == 53 {
			return outDNS, false
		}
		return outReflector, small && !isReflector(h.SrcPort)
	case h.HasUDP:
		return outUDP, small && h.SrcPort >= 1024 && !isReflector(h.SrcPort)
	case h.HasICMP:
		ping := h.Protocol == wire.ProtoICMP && h.ICMPType == 8 || h.Protocol == wire.ProtoICMPv6 && h.ICMPType == 128 // RFC 792, RFC 4443 4.1
		if ping {
			return outPing, small
		}
		return unclassed, false
	case h.HasPorts: // cut TCP
		return unclassed, false
	}
	return outOther, false
}
