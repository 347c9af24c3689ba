package node

import (
	"context"
	"fmt"
	"net"
	"time"
)

// watchInterval is how often the node looks whether what it stands on is still there.
const watchInterval = 500 * time.Millisecond

// watch ends the node when one of its interfaces has been removed: its sockets and its steering program are gone for
// good, though an interface of the same name may have come since, and a service manager starts a node that takes the
// new one. What was taken from the TUN device is put back.
func (n *Node) watch(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := n.lostPort(); err != nil {
			return err
		}
		n.followAllTunnels()
		n.repairDevices()
		repaired, err := n.tun.Repair()
		if repaired {
			n.log.Warn("the TUN device had lost its state, or addresses of endpoints; they were put back", "device", n.tun.Name())
		}
		if err != nil {
			return err
		}
	}
}

func (n *Node) lostPort() error {
	for _, p := range n.ports {
		if _, err := net.InterfaceByIndex(p.Ifindex()); err != nil {
			return fmt.Errorf("interface %s, which was number %d, has been removed; start the daemon again when it is back", p.Name(), p.Ifindex())
		}
	}
	return nil
}

// withoutLink reports whether no port has a link: then no packet comes or goes.
func (n *Node) withoutLink() bool {
	for _, p := range n.ports {
		if i, err := net.InterfaceByIndex(p.Ifindex()); err == nil && i.Flags&net.FlagRunning != 0 {
			return false
		}
	}
	return len(n.ports) > 0
}
