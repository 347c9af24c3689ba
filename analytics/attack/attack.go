// Package attack finds attacks in sampled packets. It keeps what an address receives and sends in a window of five seconds, and
// subtracts what legitimate traffic explains: a crowd's SYNs are followed by data, answers by what was asked. What is left is
// compared with a threshold, by the lower end of its interval of confidence, so that a few samples never raise an alarm.
//
// Both directions may be seen, or one. The more is seen, the more is explained; what cannot be told apart from one direction alone
// is said in rules.go, where each vector stands.
package attack

import (
	"net/netip"
	"time"

	"causeway/analytics/sketch"
	"causeway/analytics/store"
)

// A Vector is a way of attacking. Its text is a value of the dimension `attackVector`.
type Vector uint8

// The vectors.
const (
	SYNFlood Vector = iota
	SYNACKFlood
	ACKFlood
	RSTFlood
	UDPFlood
	ICMPFlood
	DNSReflection
	Reflection // by another service than DNS
	FragmentFlood
	GREFlood // at an endpoint: outer packets that were dropped
	ESPFlood
	OtherFlood // of another protocol
	Scan
	Jump // against the destination's own baseline, by no other vector
	Vectors
)

// Names are the texts of all vectors.
var Names = [Vectors]string{"SYN flood", "SYN-ACK flood", "ACK flood", "RST flood", "UDP flood", "ICMP flood", "DNS reflection", "reflection",
	"fragment flood", "GRE flood", "ESP flood", "protocol flood", "port scan", "traffic jump"}

func (v Vector) String() string { return Names[v] }

// Type is the kind of attack: flood, reflection, scan or anomaly.
func (v Vector) Type() string {
	switch v {
	case DNSReflection, Reflection:
		return "reflection"
	case Scan:
		return "scan"
	case Jump:
		return "anomaly"
	}
	return "flood"
}

// Config says what an attack is.
type Config struct {
	Node string // its name becomes part of attacks' IDs, so that two nodes have different ones
	// Thresholds are packets a second, of what legitimate traffic does not explain. That of Jump is the least rate that is one. A
	// threshold of 0 turns its vector off.
	Thresholds [Vectors]float64
	JumpFactor float64       // times the mean of the destination's own baseline that a jump must reach
	Confidence float64       // standard deviations that a rate must be above its threshold by
	MinSamples int           // in the window; fewer never are an attack
	Quiet      time.Duration // an attack ends when it was below half of its threshold for so long
	Update     time.Duration // how often an attack that goes on is told again
	Hosts      int           // addresses that are kept, at most: 3.5 kB each. When there are more, the quietest give way
	Attacks    int           // attacks, and what looks like one for a second, at a time: 6 kB each
}

// DefaultConfig is for nodes that forward up to millions of packets a second.
func DefaultConfig() Config {
	return Config{
		Thresholds: [Vectors]float64{SYNFlood: 10_000, SYNACKFlood: 10_000, ACKFlood: 30_000, RSTFlood: 10_000, UDPFlood: 30_000,
			ICMPFlood: 5_000, DNSReflection: 5_000, Reflection: 5_000, FragmentFlood: 10_000, GREFlood: 10_000, ESPFlood: 10_000,
			OtherFlood: 30_000, Scan: 1_000, Jump: 10_000},
		JumpFactor: 4, Confidence: 3, MinSamples: 10, Quiet: 15 * time.Second, Update: 10 * time.Second, Hosts: 4096, Attacks: 256,
	}
}

// A Change is what happened to an attack.
type Change uint8

// The changes.
const (
	Started Change = iota
	Changed        // its numbers did
	Ended
)

// An Event tells of an attack as it is now. All of it is the receiver's.
type Event struct {
	Change Change
	Vector Vector
	Rate   float64 // packets a second now, of what is not explained
	Attack store.Attack
	// Sources are those of most packets, estimated; of a scan, the destinations. At most 16: with spoofed sources, Count - Error shows
	// that no one stands out.
	Sources []sketch.Entry[netip.Addr]
	Headers [][]byte // of the first packets, at most 8, as flow.Sample has them
}
