package cluster

import (
	"context"
	"encoding/binary"
	"slices"
	"time"
)

// While the store is away, a node may go on negotiating for the nodes of its data center, its neighbours, if the operator has chosen so
// (Options.Local). They are told of a pair from node to node, which needs no store, until they have acknowledged it or the store has it.
// Other data centers hear of it when the store is there again. SPIs were reserved ahead, and the number of this process is its own, so
// nothing is used twice. Of IKE SAs that are made so no other node knows, and none can act in them (see ike.Fleet.Local).

// local reports whether this node negotiates for its data center. A store that is there and not this process's never gets what is made
// for it. It is called with the lock held.
func (c *Cluster) local() bool {
	return c.opts.Local && c.numbered && c.trouble != "" && !c.barred && !c.joined.IsZero()
}

// untold are the pairs of this process, and tombstones, that the store has not got: of those that were made between the loss of the store and
// its being noticed nobody may have heard. It is called with the lock held.
func (c *Cluster) untold() map[uint32]*held {
	out := map[uint32]*held{}
	for spi := range c.index.unstored {
		if h := c.held[spi]; h.kind != reserved {
			out[spi] = h
		}
	}
	return out
}

// Local: see ike.Fleet.
func (f fleet) Local() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.local()
}

// neighbours are the other nodes of this data center, as far as they are known, that may live. It is called with the lock held.
func (c *Cluster) neighbours() map[string]bool {
	out, now := map[string]bool{}, time.Now()
	for name, l := range c.members {
		if l.member.Datacenter == c.opts.Member.Datacenter && c.mayLive(l, now) && c.roster.Admits(name, l.member.Public) {
			out[name] = true
		}
	}
	return out
}

// A telling is a record that neighbours have not acknowledged yet.
type telling struct {
	generation uint64
	sealed     []byte
	missing    map[string]bool
	all        chan struct{} // closed when none is missing
	next       time.Time
	wait       time.Duration
}

// How soon a record is told again to who has not acknowledged it: the wait doubles each time.
const (
	tellAgain   = 50 * time.Millisecond
	tellAtMost  = 5 * time.Second
	tellingTick = 25 * time.Millisecond
)

// tellNeighbours tells them of a record, and has that done again until they have it. With wait it returns when they do, or after ackTime;
// who did not acknowledge the last one is not waited for.
func (c *Cluster) tellNeighbours(spi uint32, generation uint64, sealed []byte, wait bool) {
	t := &telling{generation: generation, sealed: sealed, all: make(chan struct{}), next: time.Now().Add(tellAgain), wait: tellAgain}
	c.mu.Lock()
	t.missing = c.neighbours()
	c.tellings[spi] = t
	names, waited := keysOf(t.missing), false
	for _, name := range names {
		waited = waited || !c.quiet[name]
	}
	c.mu.Unlock()
	c.tellAll(spi, t, names)
	if !wait || !waited {
		return
	}
	select {
	case <-t.all:
	case <-time.After(ackTime):
		c.noteQuiet(spi, t)
	}
}

// noteQuiet notes who has not acknowledged a record in time.
func (c *Cluster) noteQuiet(spi uint32, t *telling) {
	c.mu.Lock()
	late := keysOf(t.missing)
	for _, name := range late {
		c.quiet[name] = true
	}
	c.mu.Unlock()
	c.counts.late.Add(uint64(len(late)))
	c.log.Warn("cluster: a new child SA was not acknowledged in time by nodes of this data center: they are told again", "spi", spiKey(spi), "by", late, "after", ackTime)
}

// Messages between neighbours: what they are, the SPI, and a record with the name of who tells it in front, or an acknowledgement.
const (
	toldRecord byte = iota + 1
	toldAck
)

func (c *Cluster) tellAll(spi uint32, t *telling, names []string) {
	m := binary.BigEndian.AppendUint32([]byte{toldRecord}, spi)
	m = append(append(m, byte(len(c.opts.Member.Name))), c.opts.Member.Name...)
	m = append(m, t.sealed...)
	for _, name := range names {
		c.opts.Tell(name, m)
	}
}

// repeatTellings tells again what was not acknowledged, until ctx is done.
func (c *Cluster) repeatTellings(ctx context.Context) {
	tick := time.NewTicker(tellingTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for spi, t := range c.dueTellings(now) {
				c.mu.Lock()
				names := keysOf(t.missing)
				c.mu.Unlock()
				c.tellAll(spi, t, names)
			}
		}
	}
}

// dueTellings are those that are to be repeated now. What the store has, or what is not so any more, is not told again.
func (c *Cluster) dueTellings(now time.Time) map[uint32]*telling {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := map[uint32]*telling{}
	for spi, t := range c.tellings {
		switch h := c.held[spi]; {
		case c.barred || len(t.missing) == 0 || h == nil || h.generation != t.generation || h.stored == t.generation:
			delete(c.tellings, spi)
		case now.After(t.next):
			t.wait = min(2*t.wait, tellAtMost)
			t.next = now.Add(t.wait)
			due[spi] = t
		}
	}
	return due
}

// TakeTold takes a message that another node has given to its Options.Tell. It does not keep it.
func (c *Cluster) TakeTold(message []byte) {
	if len(message) < 5 {
		return
	}
	spi, text := binary.BigEndian.Uint32(message[1:]), message[5:]
	switch message[0] {
	case toldRecord:
		if len(text) > 0 && len(text) > int(text[0]) {
			c.takeToldRecord(string(text[1:][:text[0]]), spi, slices.Clone(text[1+int(text[0]):]))
		}
	case toldAck:
		c.takeToldAck(spi, text)
	}
}

// takeToldRecord takes a record, and acknowledges it to who has told it.
func (c *Cluster) takeToldRecord(from string, spi uint32, sealed []byte) {
	if err := c.take(spiKey(spi), sealed, false); err != nil {
		c.complain(err)
		return
	}
	ack := c.ackOf(spi)
	if ack == nil || c.opts.Tell == nil {
		return
	}
	// Sealed as it is, an acknowledgement is longer than the least that a message may have.
	c.opts.Tell(from, append(binary.BigEndian.AppendUint32([]byte{toldAck}, spi), ack...))
}

// takeToldAck notes who has a record.
func (c *Cluster) takeToldAck(spi uint32, ack []byte) {
	c.mu.Lock()
	t := c.tellings[spi]
	c.mu.Unlock()
	if t == nil {
		return
	}
	name, ok := c.openAck(spi, t.generation, ack)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.quiet, name)
	if !t.missing[name] {
		return
	}
	if delete(t.missing, name); len(t.missing) == 0 {
		close(t.all)
	}
}
