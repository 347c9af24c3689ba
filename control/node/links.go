package node

import (
	"fmt"
	"slices"

	"causeway/pipeline"
	"causeway/xsk"
)

// takeLinks gives the engine tables with these links. The mirror calls it when a link changes.
func (n *Node) takeLinks(links []pipeline.LinkSpec) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sayMTU(links)
	n.links = links
	return n.apply(n.spec(inFrames(links)))
}

// inFrames returns the links as the workers can use them: nothing longer than a frame is sent.
func inFrames(links []pipeline.LinkSpec) []pipeline.LinkSpec {
	out := slices.Clone(links)
	for i := range out {
		out[i].MTU = min(out[i].MTU, xsk.MaxMTU)
	}
	return out
}

// sayMTU logs which port's MTU is another than before. It is called with the lock held.
func (n *Node) sayMTU(links []pipeline.LinkSpec) {
	for i, p := range n.ports {
		before, now := portMTU(n.links, i, p.Interface().MTU), portMTU(links, i, p.Interface().MTU)
		if now == before {
			continue
		}
		n.log.Info("the mtu of a port has changed", "port", p.Name(), "before", before, "now", now)
		if problem := mtuProblem(p.Name(), now); problem != "" {
			n.log.Warn(problem)
		}
	}
}

// portMTU is the MTU of a port's own link, or what it was when the port was opened.
func portMTU(links []pipeline.LinkSpec, port, opened int) int {
	i := slices.IndexFunc(links, func(l pipeline.LinkSpec) bool { return l.Port == port && l.VLAN == 0 })
	if i < 0 || links[i].MTU == 0 {
		return opened
	}
	return links[i].MTU
}

// mtuProblem says what an MTU does that was raised while the node runs; before that OpenPort refuses it.
func mtuProblem(port string, mtu int) string {
	if mtu <= xsk.MaxMTU {
		return ""
	}
	return fmt.Sprintf("port %s: mtu %d: a frame holds packets of an mtu up to %d, and the kernel drops what is longer (rx_dropped); `ip link set %s mtu 1500`",
		port, mtu, xsk.MaxMTU, port)
}
