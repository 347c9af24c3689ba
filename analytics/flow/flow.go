// Package flow is what analytics knows of single packets: the sampled ones and, taken apart, their headers.
package flow

import (
	"time"

	"causeway/pipeline"
)

// HeaderLen is how many bytes of a packet a sample has at most, from its IP header on.
const HeaderLen = pipeline.SampleHeader

// A Direction says how a packet crossed the tunnels. Its text is a value of the dimension `direction`.
type Direction uint8

// The directions, as DESIGN section 1 has them.
const (
	NoTunnel Direction = iota // through no tunnel
	Ingress                   // into a tunnel: Internet -> customer
	Egress                    // out of a tunnel: customer -> Internet
	Lateral                   // out of one tunnel and into another
)

// Directions are the texts of all directions.
var Directions = [...]string{NoTunnel: "none", Ingress: "ingress", Egress: "egress", Lateral: "lateral"}

func (d Direction) String() string { return Directions[d] }

// A Verdict is what became of a packet. Its text is a value of the dimension `verdict`.
type Verdict = pipeline.Verdict

// The verdicts.
const (
	Forwarded = pipeline.Forwarded
	Delivered = pipeline.Delivered
	Punted    = pipeline.Punted
	Dropped   = pipeline.Dropped
)

// A Tunnel is what a sample says of the tunnel that a packet came out of, or went into. It does not change.
type Tunnel struct {
	ID      string // 32 hex digits, the same on every node
	Name    string
	Account string
	Kind    string // a value of the dimensions `onRamp` and `offRamp`: GRE or IPSec
}

// A Sample is one packet that a worker has picked, as it was when its way ended.
type Sample struct {
	Time    time.Time
	Every   uint32  // it stands for so many packets
	In, Out *Tunnel // nil: it came, or left, without a tunnel
	Verdict Verdict
	Reason  string // label of the drop reason; empty: not dropped
	Length  int    // bytes of the IP packet
	Header  []byte // at most HeaderLen bytes from the IP header on; the inner one, if the packet was in a tunnel of ours
}

// Direction is how the packet crossed the tunnels.
func (s *Sample) Direction() Direction {
	switch {
	case s.In != nil && s.Out != nil:
		return Lateral
	case s.In != nil:
		return Egress
	case s.Out != nil:
		return Ingress
	}
	return NoTunnel
}
