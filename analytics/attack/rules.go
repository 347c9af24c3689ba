package attack

// A rule makes a number of packets that is not explained out of those of all classes: the sum of its terms.
type rule []term

// A term adds the packets of a class, or, with a factor below 0, lets them explain some.
type term struct {
	class  class
	factor float64
}

// rules are how attacks are told from what is legitimate, on what one host received, or for a scan sent.
var rules = [Jump]rule{
	// A client of a crowd sends at least two packets behind its SYN: an ACK and what ends the connection, most of the time many more.
	SYNFlood: {{inSYN, 1}, {inACKFresh, -0.5}, {inACKShort, -0.5}},
	// Who opens connections gets as many. Retransmitted ones make it two for each.
	SYNACKFlood: {{inSYNACK, 1}, {inACKFresh, -0.5}, {inACKShort, -0.5}, {outSYN, -2}},
	// What is acknowledged was sent, one ACK for two segments at least (RFC 9293 3.8.6.3), and data are acknowledged, rarer with receive
	// offload. Of servers that answer by another way only SYNs are seen: 50 packets may follow each. A flow of which many samples are
	// seen, as a backup's, counts once: a flood needs thousands of flows to be taken for a crowd. One of long flows that were opened
	// before, and that answers by another way, is known by its baseline alone.
	ACKFlood: {{inACKFresh, 1}, {inSYN, -50}, {outTCP, -16}},
	// Connections end with few RSTs; probes of closed ports are answered by them.
	RSTFlood: {{inRST, 1}, {inACKFresh, -0.5}, {inACKShort, -0.5}, {outSYN, -1}},
	// Services of UDP answer; QUIC's acknowledgements are one for ten packets and rarer. One flow alone, as a VPN's, must be four times as
	// fast. Short packets from port 53 and the like belong here: they are a flood if they are many more than were asked for.
	UDPFlood: {{inUDPFresh, 1}, {inUDPRepeat, 0.25}, {inDNSSmall, 1}, {inReflectorSmall, 1}, {outUDP, -8}, {outDNS, -2}, {outReflector, -2}},
	// Answers are to pings; errors are limited in rate (RFC 4443 2.4 (f)).
	ICMPFlood: {{inICMP, 1}, {outPing, -2}},
	// A resolver's answers are short, most of them, and were asked for.
	DNSReflection: {{inDNSLarge, 1}, {inDNSSmall, -1}, {outDNS, -2}},
	Reflection:    {{inReflectorLarge, 1}, {inReflectorSmall, -1}, {outReflector, -2}},
	FragmentFlood: {{inFragment, 1}, {outFragment, -2}},
	GREFlood:      {{inGREDropped, 1}},
	ESPFlood:      {{inESPDropped, 1}},
	OtherFlood:    {{inOther, 1}, {outOther, -8}},
	// Who scans asks another port or host with each packet, and rarely goes on; who is answered with UDP talks.
	Scan: {{probeFresh, 1}, {probeRepeat, -1}, {outTCP, -3}, {inUDPFresh, -1}, {inUDPRepeat, -1}},
}

// watchers are, for each class, the vectors that it is a sign of: a bit each.
var watchers = func() (out [classes]uint32) {
	for v, r := range rules {
		for _, t := range r {
			if t.factor > 0 {
				out[t.class] |= 1 << v
			}
		}
	}
	// A jump is made of whatever was received.
	for c := inSYN; c <= inOther; c++ {
		out[c] |= 1 << Jump
	}
	return
}()

// shortFlow is how many repeats a fresh packet may stand for in inACKShort: so many that a flow of a crowd counts whole, and so few
// that a backup beside a SYN flood does not hide it.
const shortFlow = 10

// A reading is what a rule finds.
type reading struct {
	rate     float64 // packets a second
	variance float64 // of rate
	samples  uint32  // with positive terms
}

// read applies a rule to what was counted in so many seconds.
func (r rule) read(sums *[classes]cell, seconds float64) (out reading) {
	for _, t := range r {
		c := &sums[t.class]
		out.rate += t.factor * float64(c.packets)
		out.variance += t.factor * t.factor * float64(c.variance)
		if t.factor > 0 {
			out.samples += c.samples
		}
	}
	out.rate /= seconds
	out.variance /= seconds * seconds
	return
}
