package node

import (
	"context"
	"errors"
	"time"

	"causeway/control/api"
	"causeway/control/tun"
)

// How often it is looked whether the node can serve, and how often it says so again: the addresses of the announcement have a
// lifetime, which ends when this goroutine does not come to run.
const (
	announceLook  = 50 * time.Millisecond
	announceAgain = tun.AnnouncementLife / 4
)

// announce has routing daemons announce the endpoints for as long as the node is ready, until ctx is done.
func (n *Node) announce(ctx context.Context) {
	tick := time.NewTicker(announceLook)
	defer tick.Stop()
	var said time.Time
	announced, told := false, ""
	for {
		why := n.NotReady()
		switch {
		case ctx.Err() != nil:
			n.withdraw()
			return
		case len(why) > 0:
			if announced {
				announced = false
				n.withdraw()
				n.log.Warn("endpoints are withdrawn", "why", why)
			}
		case !announced || time.Since(said) > announceAgain:
			said = time.Now()
			err := n.any.Set(n.Config().Endpoints)
			if err != nil && err.Error() != told {
				n.log.Error("endpoints are not announced completely", "error", err)
			}
			told = text(err)
			if !announced && err == nil {
				announced = true
				n.fleet.lacking.served.Store(true)
				n.log.Info("endpoints are announced", "device", tun.AnnouncementName, "endpoints", n.Config().Endpoints)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (n *Node) withdraw() {
	if err := n.any.Set(nil); err != nil {
		n.log.Error("endpoints are announced still", "error", err)
	}
}

// Draining: an endpoint that is withdrawn gets packets until the routers know.
const (
	drainQuiet = time.Second            // without a packet, after which no more is expected
	drainLook  = 100 * time.Millisecond // how often packets are counted
	drainTrace = 100                    // of the packets in a second before, one of so many may be left: somebody knows no other way
)

// ErrDraining says that the node drains already.
var ErrDraining = errors.New("the node drains already")

// Drain withdraws the endpoints, waits until no packets come any more, limit at most, and then ends Run.
func (n *Node) Drain(ctx context.Context, limit time.Duration) (api.Drained, error) {
	before := n.rate(ctx) // while all come
	if n.leaving.Swap(true) {
		return api.Drained{}, ErrDraining
	}
	defer n.stopOnce.Do(func() { close(n.stop) })
	if n.cluster != nil {
		n.cluster.Drain() // or others would go on giving it packets
	}
	begin := time.Now()
	n.log.Info("drain: endpoints are withdrawn, packets are waited for", "packets_per_second", int(before), "limit", limit)
	left, quiet := before, time.Now()
	for time.Since(begin) < limit && time.Since(quiet) < drainQuiet && ctx.Err() == nil {
		if left = n.rate(ctx); left > before/drainTrace {
			quiet = time.Now()
		}
	}
	d := api.Drained{Waited: time.Since(begin).Seconds(), Before: before, Left: left}
	n.log.Info("drain: the node stops", "after", time.Since(begin).Round(time.Millisecond), "packets_per_second", int(left))
	return d, ctx.Err()
}

// rate counts for a moment how many packets come in a second.
func (n *Node) rate(ctx context.Context) float64 {
	before, begin := n.engine.Total().Received, time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(drainLook):
	}
	return float64(n.engine.Total().Received-before) / time.Since(begin).Seconds()
}
