package node

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"causeway/config"
	"causeway/control/cluster"
	"causeway/control/ike"
	"causeway/pipeline"
)

// protected are the tunnels that have an owner.
func protected(c *config.Config) (names []string) {
	if c.Cluster == nil {
		return nil
	}
	for _, t := range c.Tunnels {
		if t.IPsec != nil && t.IPsec.IKE != nil && t.IPsec.ReplayProtection {
			names = append(names, t.Name)
		}
	}
	return names
}

// release lets every node encrypt for tunnels that have lost their protection by a reload: their numbers are each node's own again.
func (n *Node) release(before, now *config.Config) {
	had := protected(before)
	has := protected(now)
	for _, tunnel := range had {
		if slices.Contains(has, tunnel) {
			continue
		}
		for _, k := range n.children.outbound(tunnel) {
			k.out.Mark(allNumbers)
		}
	}
}

// allNumbers is behind the sequence numbers of an association without ESN.
const allNumbers = 1 << 32

// owning is what this node knows of who encrypts for tunnels with replay protection. All but stale and changed is followPeers'.
type owning struct {
	told  map[string]pipeline.Owner  // what the workers were told, by tunnel
	marks map[string]map[uint32]mark // of tunnels that this node encrypts for, of each child by our SPI

	takes   map[string]bool // nodes that take what this one forwards, by name
	settled atomic.Bool     // all owners were known, and could be reached, once
	begun   time.Time

	unconfirmed atomic.Int64 // children that this node encrypts for without the store

	stale   atomic.Bool   // the workers may have forgotten what they were told
	changed chan struct{} // a tunnel's children have changed
}

// A mark is what is reserved of a child's sequence numbers: those below it.
type mark struct {
	at          uint64
	next        uint64 // the next number when it was looked at the last time
	looked      time.Time
	unconfirmed bool // the store was not reached: another node may be the owner
}

func (o *owning) init() {
	o.told, o.marks, o.begun = map[string]pipeline.Owner{}, map[string]map[uint32]mark{}, time.Now()
}

// settleTime is how long a node that starts waits, before it is ready, for ways to the nodes that encrypt.
const settleTime = 10 * time.Second

// wake has the owners looked at soon.
func (o *owning) wake() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// Sequence numbers are reserved in blocks: so many, or as many as go in blockTime (DESIGN 4.2).
const (
	leastBlock = 1 << 16
	blockTime  = 4 * time.Second
)

// takeOwners tells the workers who encrypts for tunnels with replay protection, and reserves numbers where this node does.
func (n *Node) takeOwners() error {
	o := &n.owning
	if o.stale.Swap(false) {
		clear(o.told)
	}
	var errs []error
	reached := true
	away := !n.cluster.Fleet().Reached()
	defer func() { o.unconfirmed.Store(o.countUnconfirmed(away)) }()
	for _, x := range n.cluster.Owners() {
		if x.Here {
			errs = append(errs, n.own(x))
			continue
		}
		delete(o.marks, x.Tunnel) // if it was the owner and is again, it goes on where others were
		to := pipeline.Owner{}
		if o.takes[x.Node] {
			to.Via = peerTunnel(x.Node)
		}
		reached = reached && to.Via != ""
		errs = append(errs, n.setOwner(x.Tunnel, to))
	}
	if _, joined := n.cluster.Self(); joined && reached || time.Since(o.begun) > settleTime {
		o.settled.Store(true)
	}
	return errors.Join(errs...)
}

// countUnconfirmed is how many children this node encrypts for without the store: that is away, or has not reserved their numbers.
func (o *owning) countUnconfirmed(away bool) (n int64) {
	for _, marks := range o.marks {
		if away {
			n += int64(len(marks))
		} else {
			n += unconfirmed(marks)
		}
	}
	return n
}

func unconfirmed(marks map[uint32]mark) (n int64) {
	for _, m := range marks {
		if m.unconfirmed {
			n++
		}
	}
	return n
}

// setOwner tells the workers who a tunnel's owner is, unless they know it.
func (n *Node) setOwner(tunnel string, to pipeline.Owner) error {
	if known, ok := n.owning.told[tunnel]; ok && known == to {
		return nil
	}
	if err := n.engine.SetOwner(tunnel, to)(); err != nil {
		return err
	}
	n.owning.told[tunnel] = to
	switch {
	case to.Here:
		n.log.Info("this node encrypts for a tunnel", "tunnel", tunnel)
	case to.Via != "":
		n.log.Info("another node encrypts for a tunnel", "tunnel", tunnel, "by", to.Via)
	default:
		n.log.Info("no node that can be reached encrypts for a tunnel", "tunnel", tunnel)
	}
	return nil
}

// own encrypts for a tunnel: each child goes on at what was reserved, and more is reserved before the workers use it.
func (n *Node) own(x cluster.Ownership) error {
	o := &n.owning
	if o.passed(x) {
		delete(o.marks, x.Tunnel)
		if err := n.setOwner(x.Tunnel, pipeline.Owner{}); err != nil {
			return err
		}
	}
	list := n.children.outbound(x.Tunnel)
	want, short := o.want(x, list, time.Now())
	if !short {
		return n.setOwner(x.Tunnel, pipeline.Owner{Here: true})
	}
	err := n.cluster.Reserve(x.Tunnel, want)
	switch {
	case errors.Is(err, ike.ErrTaken): // another node is the owner, as Owners says soon
		return nil
	case err != nil && !o.told[x.Tunnel].Here:
		return err
	case err != nil && unconfirmed(o.marks[x.Tunnel]) == 0:
		n.log.Warn("sequence numbers are used that are not reserved in the store: if another node encrypts for this tunnel too, the customer drops packets", "tunnel", x.Tunnel, "error", err)
	}
	// An owner that is cut off goes on: its IVs are its own, and the price is what the customer drops if there are two (DESIGN 4.2).
	o.reserved(x.Tunnel, list, want, err == nil, time.Now())
	return n.setOwner(x.Tunnel, pipeline.Owner{Here: true})
}

// passed reports whether another node has reserved numbers since this one did: it was the owner for less time than lies between two looks.
func (o *owning) passed(x cluster.Ownership) bool {
	for spi, m := range o.marks[x.Tunnel] {
		if x.Marks[spi] > m.at {
			return true
		}
	}
	return false
}

// want says up to which numbers a tunnel's children should be reserved, and whether any has too few left. Children that this node has not
// encrypted for go on where the owner before may have been: the workers do not use them yet, or not without a mark.
func (o *owning) want(x cluster.Ownership, list []outboundChild, now time.Time) (want map[uint32]uint64, short bool) {
	want = map[uint32]uint64{}
	for _, k := range list {
		m, ours := o.marks[x.Tunnel][k.spiIn]
		if !ours {
			k.out.Resume(x.Marks[k.spiIn])
		}
		next, block := k.out.Next(), uint64(leastBlock)
		if ours && now.After(m.looked) {
			block = max(block, uint64(float64(next-m.next)/now.Sub(m.looked).Seconds()*blockTime.Seconds()))
			m.next, m.looked = next, now
			o.marks[x.Tunnel][k.spiIn] = m
		}
		short = short || m.at < next+block/2 || m.unconfirmed
		want[k.spiIn] = max(m.at, next+block)
	}
	return want, short
}

// reserved lets the workers use the numbers that were wanted. Of children that are gone nothing is kept.
func (o *owning) reserved(tunnel string, list []outboundChild, want map[uint32]uint64, confirmed bool, now time.Time) {
	marks := map[uint32]mark{}
	for _, k := range list {
		marks[k.spiIn] = mark{at: want[k.spiIn], next: k.out.Next(), looked: now, unconfirmed: !confirmed}
		k.out.Mark(want[k.spiIn])
	}
	o.marks[tunnel] = marks
}
