package health

import (
	"fmt"
	"time"
)

// When probes are lost, what else this node sees says where.

// checkTime is the time between two requests that are sent because replies do not come back.
const checkTime = 10 * time.Second

// A check is a request that is sent because replies are lost: what answers it has a tunnel that works, and keeps replies from it.
type check struct {
	number         uint64
	sent, answered time.Time
}

// noteLoss notes what there is to note when a probe is lost, the first in a row or another one.
func (p *Prober) noteLoss(x *probed, first bool, now time.Time) {
	if first {
		x.received = p.received(x)
		return
	}
	if x.Kind == Reply && x.Target.IsValid() && now.Sub(x.check.sent) >= checkTime {
		x.number++
		x.check = check{number: x.number, sent: now}
		p.opts.Send(x.Name, probe{p.node, x.tag, x.number}.packet(Request, x.Source, x.Target, p.key)) // without room the next one is
	}
}

// received is how many packets have come out of a tunnel here.
func (p *Prober) received(x *probed) uint64 {
	if p.opts.Received == nil {
		return 0
	}
	return p.opts.Received(x.Name)
}

// leg says which part of the way is broken, while probes are lost.
func (p *Prober) leg(x *probed) string {
	switch {
	case x.machine.lost == 0:
		return ""
	case x.check.answered.After(x.report.LastAnswer):
		return fmt.Sprintf("the tunnel works: %s answers requests; but echo replies to %s do not come back, as a firewall that tracks connections drops them: write type: request, or let them pass at the customer's router", x.Target, x.Source)
	case p.opts.Received == nil:
		return ""
	case p.received(x) > x.received:
		return "packets still come out of the tunnel here: the way to the customer is broken, or what is probed there does not answer"
	}
	return "nothing else comes out of the tunnel here either"
}
