package doctor

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"

	"causeway/xsk"
	"causeway/xsk/bpf"
)

// port examines one interface of the configuration.
func (r *report) port(ifi *xsk.Interface) {
	r.mtu(ifi)
	r.queues(ifi)
	r.link(ifi)
	r.features(ifi.Name)
}

func (r *report) mtu(ifi *xsk.Interface) {
	what := ifi.Name + " mtu"
	if ifi.MTU > xsk.MaxMTU {
		r.add(Fail, what, fmt.Sprintf("%d: a frame holds packets of an mtu up to %d", ifi.MTU, xsk.MaxMTU),
			fmt.Sprintf("ip link set %s mtu 1500", ifi.Name))
		return
	}
	r.add(OK, what, fmt.Sprint(ifi.MTU), "")
}

func (r *report) queues(ifi *xsk.Interface) {
	what, text := ifi.Name+" queues", fmt.Sprintf("%d receive, %d transmit, driver %s", ifi.RxQueues, ifi.TxQueues, ifi.Driver)
	if ifi.RxQueues > ifi.TxQueues {
		r.add(Fail, what, text+": every queue that receives must be able to send",
			fmt.Sprintf("ethtool -L %s rx %d tx %d", ifi.Name, ifi.TxQueues, ifi.TxQueues))
		return
	}
	r.add(OK, what, text, "")
}

// link looks at the state of the link, and for an XDP program of somebody else.
func (r *report) link(ifi *xsk.Interface) {
	l, err := netlink.LinkByIndex(ifi.Index)
	if err != nil {
		r.add(Warn, ifi.Name, err.Error(), "")
		return
	}
	a := l.Attrs()
	if a.OperState == netlink.OperDown || a.OperState == netlink.OperLowerLayerDown {
		r.add(Warn, ifi.Name+" link", "down", "ip link set "+ifi.Name+" up, and look at the cable")
	} else {
		r.add(OK, ifi.Name+" link", a.OperState.String(), "")
	}
	if a.Xdp != nil && a.Xdp.Attached {
		r.add(Warn, ifi.Name+" xdp", fmt.Sprintf("an XDP program is attached; unless it is a running causeway's, run will refuse to start: %s", bpf.Occupant(a)), "")
	}
}

// veths warns of what cannot be seen from here: what the other end leaves to a network card that is not there.
func (r *report) veths(names []string) {
	if len(names) == 0 {
		return
	}
	r.add(Warn, "veth offloads", "the other end of a veth (here "+strings.Join(names, ", ")+") leaves checksums, segmentation and VLAN tags to a network card; over AF_XDP its "+
		"packets then come with wrong checksums, are dropped because they are too large, or lose their tag. It cannot be seen from this end",
		"in the other end's namespace: ethtool -K PEER tx off tso off gso off txvlan off")
}
