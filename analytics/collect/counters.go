package collect

import (
	"sync/atomic"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/pipeline"
)

// published is Stats as another goroutine may read it.
type published struct {
	samples, thinned, unwritten, leftOut atomic.Uint64
	shift                                atomic.Uint32
}

// Stats returns what was not kept. Any goroutine may call it.
func (c *Collector) Stats() Stats {
	return Stats{c.stats.samples.Load(), c.stats.thinned.Load(), c.stats.unwritten.Load(), c.stats.leftOut.Load(), c.stats.shift.Load()}
}

// totals are what one tunnel has counted since the start, by direction.
type totals struct {
	tunnel         *flow.Tunnel
	rx, tx         uint64 // packets, as they were read: they only grow, but for a new tunnel of the number
	packets, bytes [flow.Lateral + 1]uint64
	dropped        [flow.Lateral + 1]uint64
}

// byDirection sorts a tunnel's counters. A packet that came out of another tunnel of the account counts once, where it went.
func byDirection(t *flow.Tunnel, c *pipeline.TunnelCounters) (n totals) {
	n.tunnel, n.rx, n.tx = t, c.RXPackets, c.TXPackets
	n.packets[flow.Lateral], n.bytes[flow.Lateral] = c.LateralTXPackets, c.LateralTXBytes
	n.packets[flow.Ingress], n.bytes[flow.Ingress] = less(c.TXPackets, c.LateralTXPackets), less(c.TXBytes, c.LateralTXBytes)
	n.packets[flow.Egress], n.bytes[flow.Egress] = less(c.RXPackets, c.LateralRXPackets), less(c.RXBytes, c.LateralRXBytes)
	n.dropped[flow.Ingress], n.dropped[flow.Egress] = c.TXDrops, c.RXDrops
	return n
}

func less(a, b uint64) uint64 { return max(a, b) - b }

// readCounters makes rows of what was counted in these seconds; with none it only remembers.
func (c *Collector) readCounters(seconds []int64) {
	for number, t := range c.names {
		counters := c.o.Engine.TunnelCounters(number)
		now, was := byDirection(t, &counters), c.counted[number]
		if was.tunnel == nil || was.tunnel.Name != t.Name || now.rx < was.rx || now.tx < was.tx { // another one has the number, and began at zero
			was = totals{}
		}
		for d := flow.Ingress; d <= flow.Lateral; d++ {
			// Of one packet the worker counts first that it went, then that it was lateral: between the two it seems to be ingress, and a
			// moment later there is one less. Such a moment is waited out.
			now.packets[d], now.bytes[d] = max(now.packets[d], was.packets[d]), max(now.bytes[d], was.bytes[d])
			c.addTraffic(seconds, t, d, store.Traffic{Packets: now.packets[d] - was.packets[d], Bytes: now.bytes[d] - was.bytes[d],
				Dropped: less(now.dropped[d], was.dropped[d])})
		}
		c.counted[number] = now
	}
	for number := range c.counted {
		if c.names[number] == nil {
			delete(c.counted, number)
		}
	}
}

// addTraffic adds rows for a sum over some seconds, in equal parts: the reader was late, and a peak that was none should not stay.
func (c *Collector) addTraffic(seconds []int64, t *flow.Tunnel, d flow.Direction, sum store.Traffic) {
	if sum.Packets == 0 && sum.Dropped == 0 {
		return
	}
	if d != flow.Lateral || sum.Packets > 0 {
		c.active[t.ID] = true
	}
	for i, s := range seconds {
		row := store.Traffic{Time: s, Account: t.Account, Tunnel: t, Direction: d,
			Packets: part(sum.Packets, i, len(seconds)), Bytes: part(sum.Bytes, i, len(seconds)), Dropped: part(sum.Dropped, i, len(seconds))}
		if row.Packets > 0 || row.Dropped > 0 {
			c.batch.Traffic = append(c.batch.Traffic, row)
		}
	}
}

// part is the i-th of k parts of n, which add up to n.
func part(n uint64, i, k int) uint64 { return n*uint64(i+1)/uint64(k) - n*uint64(i)/uint64(k) }

// dropped names what drops are counted for.
type dropped struct {
	tunnel int
	into   bool
	reason pipeline.Reason
}

// readDrops makes rows of what was dropped in these seconds; with none it only remembers.
func (c *Collector) readDrops(seconds []int64) {
	now, rows := map[dropped]uint64{}, len(c.batch.Drops)
	c.o.Engine.TunnelDrops(func(d pipeline.Drop) { now[dropped{d.Tunnel, d.Into, d.Reason}] += d.N })
	for k, n := range now {
		was := c.dropped[k]
		if n <= was {
			continue
		}
		row := store.Drops{Tunnel: c.names[k.tunnel], Direction: flow.NoTunnel, Reason: k.reason.String()}
		if row.Tunnel != nil { // else no tunnel was found, or it is one between nodes
			row.Account, row.Direction = row.Tunnel.Account, flow.Egress
			if k.into {
				row.Direction = flow.Ingress
			}
		}
		for i, s := range seconds {
			if row.Time, row.Packets = s, part(n-was, i, len(seconds)); row.Packets > 0 {
				c.batch.Drops = append(c.batch.Drops, row)
			}
		}
	}
	c.dropped = now
	if c.o.Detect != nil {
		c.o.Detect.Count(c.batch.Drops[rows:])
	}
}

// readHealth makes rows of what probes found in the minute that began then; 0: it only remembers.
func (c *Collector) readHealth(minute int64) {
	byName := map[string]*flow.Tunnel{}
	for _, t := range c.names {
		byName[t.Name] = t
	}
	now := map[string]Health{}
	for _, h := range c.o.Health() {
		now[h.Tunnel] = h
		t, was := byName[h.Tunnel], c.probed[h.Tunnel]
		if t == nil || minute == 0 {
			continue
		}
		if h.Answered < was.Answered || h.Lost < was.Lost { // it is probed anew
			was = Health{}
		}
		lost := h.Lost - was.Lost
		c.batch.Health = append(c.batch.Health, store.Health{Time: minute, Account: t.Account, Tunnel: t, Remote: h.Remote, State: h.State,
			Active: c.active[t.ID], Probes: h.Answered - was.Answered + lost, Lost: lost, RTT: h.RTT})
	}
	c.probed = now
	if minute != 0 {
		clear(c.active)
	}
}
