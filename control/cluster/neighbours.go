package cluster

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"causeway/control/cluster/seal"
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
	*ackWait
	sealed []byte
	next   time.Time
	wait   time.Duration
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
	c.mu.Lock()
	if old := c.tellings[spi]; old != nil {
		c.acks.end(old.ackWait)
	}
	missing := c.neighbours()
	names, waited := keysOf(missing), false
	for _, name := range names {
		waited = waited || !c.quiet[name]
	}
	t := &telling{ackWait: c.acks.expect(spi, generation, missing), sealed: sealed, next: time.Now().Add(tellAgain), wait: tellAgain}
	c.tellings[spi] = t
	c.mu.Unlock()
	c.tellAll(spi, sealed, names)
	if !wait || !waited {
		return
	}
	select {
	case <-t.all:
	case <-time.After(ackTime):
		c.noteQuiet(t)
	}
}

// awaitAcks waits for acknowledgements of a record that was told to all, until then at most. Neighbours that have not joined the store
// again are told from node to node meanwhile.
func (c *Cluster) awaitAcks(w *ackWait, sealed []byte, until time.Time) {
	late := time.NewTimer(time.Until(until))
	defer late.Stop()
	for again := tellAgain; ; again *= 2 {
		select {
		case <-w.all:
			return
		case <-late.C:
			return
		case <-time.After(again):
			if c.opts.Local {
				c.tellAll(w.spi, sealed, c.lateNeighbours(w))
			}
		}
	}
}

// lateNeighbours are those of whom an acknowledgement is missing.
func (c *Cluster) lateNeighbours(w *ackWait) []string {
	c.mu.Lock()
	near := c.neighbours()
	c.mu.Unlock()
	return slices.DeleteFunc(c.acks.left(w), func(name string) bool { return !near[name] })
}

// tellUntold tells neighbours of the pairs of this process, and of tombstones, that the store has not got: of those that were made between
// the loss of the store and its being noticed nobody may have heard.
func (c *Cluster) tellUntold() {
	untold := map[uint32]*held{}
	c.mu.Lock()
	for spi := range c.index.unstored {
		if h := c.held[spi]; h.kind != reserved {
			untold[spi] = h
		}
	}
	c.mu.Unlock()
	for spi, h := range untold {
		c.tellNeighbours(spi, h.generation, h.sealed, false)
	}
}

// noteQuiet notes who has not acknowledged a record in time.
func (c *Cluster) noteQuiet(t *telling) {
	late := c.acks.left(t.ackWait)
	c.mu.Lock()
	for _, name := range late {
		c.quiet[name] = true
	}
	c.mu.Unlock()
	c.counts.late.Add(uint64(len(late)))
	c.log.Warn("cluster: a new child SA was not acknowledged in time by nodes of this data center: they are told again", "spi", spiKey(t.spi), "by", late, "after", ackTime)
}

// Messages between neighbours: what they are, the SPI, and a record with the name of who tells it in front, or an acknowledgement.
const (
	toldRecord byte = iota + 1
	toldAck
)

// A toldMessage is one of them, read.
type toldMessage struct {
	kind byte
	spi  uint32
	from string // of a record: who tells it
	text []byte // the record or the acknowledgement, sealed
}

func (m *toldMessage) marshal() []byte {
	b := binary.BigEndian.AppendUint32([]byte{m.kind}, m.spi)
	if m.kind == toldRecord {
		b = append(append(b, byte(len(m.from))), m.from...)
	}
	return append(b, m.text...)
}

// parseTold reads a message. Its text is that of b.
func parseTold(b []byte) (m toldMessage, ok bool) {
	if len(b) < 5 {
		return m, false
	}
	m = toldMessage{kind: b[0], spi: binary.BigEndian.Uint32(b[1:]), text: b[5:]}
	switch m.kind {
	case toldAck:
		return m, true
	case toldRecord:
		if len(m.text) == 0 || m.text[0] == 0 || len(m.text) <= int(m.text[0]) {
			return m, false
		}
		n := 1 + int(m.text[0])
		m.from, m.text = string(m.text[1:n]), m.text[n:]
		return m, true
	}
	return m, false // of a later release
}

// tellAll tells nodes of a record.
func (c *Cluster) tellAll(spi uint32, sealed []byte, names []string) {
	for _, name := range names {
		m := toldMessage{kind: toldRecord, spi: spi, from: c.opts.Member.Name, text: c.sealedFor(name, spi, sealed)}
		c.opts.Tell(name, m.marshal())
	}
}

// sealedFor is a record as a neighbour can open it: when the hub is back this node may have the key of the next epoch before that one has.
func (c *Cluster) sealedFor(name string, spi uint32, sealed []byte) []byte {
	c.mu.Lock()
	l := c.members[name]
	c.mu.Unlock()
	if l == nil || l.member.Epoch == 0 || l.member.Epoch >= seal.EpochOf(sealed) {
		return sealed
	}
	at := place(bucketSAs, spiKey(spi))
	text, err := c.keys.Open(at, sealed)
	if err != nil {
		return sealed
	}
	defer clear(text)
	if before, err := c.keys.SealUnder(l.member.Epoch, at, text); err == nil {
		return before
	}
	return sealed
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
			for _, t := range c.dueTellings(now) {
				c.tellAll(t.spi, t.sealed, c.acks.left(t.ackWait))
			}
		}
	}
}

// dueTellings are those that are to be repeated now. What the store has, or what is not so any more, is not told again.
func (c *Cluster) dueTellings(now time.Time) (due []*telling) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for spi, t := range c.tellings {
		switch h := c.held[spi]; {
		case c.barred || h == nil || h.generation != t.generation || h.stored == t.generation || len(c.acks.left(t.ackWait)) == 0:
			c.acks.end(t.ackWait)
			delete(c.tellings, spi)
		case now.After(t.next):
			t.wait = min(2*t.wait, tellAtMost)
			t.next = now.Add(t.wait)
			due = append(due, t)
		}
	}
	return due
}

// TakeTold takes a message that another node has given to its Options.Tell. It does not keep it.
func (c *Cluster) TakeTold(message []byte) {
	m, ok := parseTold(message)
	switch {
	case !ok:
	case m.kind == toldRecord:
		c.takeToldRecord(&m)
	default:
		c.takeToldAck(&m)
	}
}

// takeToldRecord takes a record, and acknowledges it to who has told it.
func (c *Cluster) takeToldRecord(m *toldMessage) {
	if err := c.take(spiKey(m.spi), slices.Clone(m.text), false); err != nil {
		c.complain(err)
		return
	}
	if ack := c.ackOf(m.spi); ack != nil && c.opts.Tell != nil {
		answer := toldMessage{kind: toldAck, spi: m.spi, text: ack} // sealed as it is, longer than the least that a message may have
		c.opts.Tell(m.from, answer.marshal())
	}
}

// takeToldAck notes who has a record.
func (c *Cluster) takeToldAck(m *toldMessage) {
	w := c.acks.about(m.spi)
	if w == nil {
		return
	}
	if name, ok := c.openAck(w.spi, w.generation, m.text); ok {
		c.acks.note(w, name)
		c.mu.Lock()
		delete(c.quiet, name)
		c.mu.Unlock()
	}
}
