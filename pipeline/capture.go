package pipeline

import (
	"errors"
	"time"

	"causeway/pipeline/match"
	"causeway/xsk"
)

// A capture shows the operator packets as they came, with what was decided about them (captured.go). A packet that it looks at is
// copied as it comes, into a place that goes with it, has a flag that keeps it off the ways of fast.go, and is held against the
// filter at its end; if it matches, the control side gets the place. While none runs a worker asks once per batch whether one does.
//
// What it costs is bounded twice: so many packets are looked at in a second, and a worker can hand over no more packets than it has
// places, which the control side gives out. Neither stops a packet: what is not looked at is counted.
//
// Places belong to one side at a time, and go round in rings of one producer and one consumer: from the control side to a worker,
// with a packet from worker to worker (handover), and back. Of packets that do not match a worker keeps a few places for the next ones; the others go back, for the worker that the
// packets came by may be another.

// What a capture costs at most.
const (
	CaptureLooksPerSecond   = 200_000 // packets that are looked at, of all workers
	CapturePacketsPerSecond = 10_000  // packets that match and are handed over, of all workers
	capturePlaces           = 256     // places of a worker
	captureBurst            = 1024    // packets that may be handed over at once
	looksBurst              = 4 * BatchSize
	maxKept                 = BatchSize
)

// packet.capture is a place, and in the upper bits which capture it is of: frames may be on their way between workers when one ends
// and the next begins.
const (
	captureSlotBits = 12
	captureSlotMask = 1<<captureSlotBits - 1
)

// CaptureCounts are what a capture has seen.
type CaptureCounts struct {
	Seen    uint64 // packets that came while it ran
	Looked  uint64 // of those, how many were looked at
	Matched uint64 // of those, how many matched
}

// A Capture is one that runs. Its methods are for one goroutine.
type Capture struct {
	engine  *Engine
	number  uint16
	filter  match.Program
	slots   []Captured
	workers []*captureEnd

	free   []uint16 // places that no worker has
	tokens float64  // packets that may be handed over
	filled time.Time
	turn   int // worker that is given places first
}

// captureEnd is a worker's part of a capture.
type captureEnd struct {
	capture *Capture
	given   *ring[uint16] // places, from the control side
	done    *ring[uint16] // packets that matched, to it
	looks   limiter

	kept    []uint16 // places of packets that did not match
	mine    []bool   // by place: it is this worker's, with a packet
	pending []uint16 // places with packets that came in this turn, or were taken over
	listed  []bool   // by place: it is in pending
	marked  uint64   // packets of the worker's batch that have the flag, a bit each

	seen, looked, matched counter
}

// ErrCapturing says that a capture runs already.
var ErrCapturing = errors.New("another capture runs: one at a time is possible")

// StartCapture begins a capture of the packets that match. It must be stopped.
func (e *Engine) StartCapture(filter *match.Program) (*Capture, error) {
	n := len(e.workers)
	places := min(capturePlaces, (captureSlotMask+1)/n)
	c := &Capture{engine: e, filter: *filter, slots: make([]Captured, places*n), tokens: captureBurst, filled: time.Now()}
	c.number = uint16(e.captureNumber.Add(1)) << captureSlotBits
	size := 1
	for size < len(c.slots) {
		size *= 2
	}
	for i := range c.slots {
		c.free = append(c.free, uint16(i))
	}
	for range n {
		c.workers = append(c.workers, &captureEnd{capture: c, given: newRing[uint16](size), done: newRing[uint16](size), looks: fullLimiter(),
			kept: make([]uint16, 0, len(c.slots)), mine: make([]bool, len(c.slots)), pending: make([]uint16, 0, len(c.slots)), listed: make([]bool, len(c.slots))})
	}
	c.fill(c.filled)
	if !e.capture.CompareAndSwap(nil, c) {
		return nil, ErrCapturing
	}
	return c, nil
}

// Stop ends it: when it returns no worker uses it any more, and what matched can still be drained.
func (c *Capture) Stop() {
	c.engine.capture.Store(nil)
	c.engine.quiesce()
}

// Drain calls f for each packet that has matched, with the time at which it came; the packet is f's only until it returns. Then it
// gives the workers places for the next ones. f is to return false if it wants no more.
func (c *Capture) Drain(f func(at time.Time, s *Captured) bool) {
	now, more := time.Now(), true
	for _, x := range c.workers {
		for more {
			i := x.done.front()
			if i == nil {
				break
			}
			s := &c.slots[*i]
			if !s.wanted {
				c.tokens++
			} else {
				more = f(now.Add(time.Duration(s.at)-now.Sub(c.engine.workers[s.took].started)), s)
			}
			c.free = append(c.free, *i)
			x.done.pop()
		}
	}
	c.fill(now)
}

// fill gives each worker places, as far as the rate allows.
func (c *Capture) fill(now time.Time) {
	c.tokens = min(captureBurst, c.tokens+now.Sub(c.filled).Seconds()*CapturePacketsPerSecond)
	c.filled = now
	const portion = 16 // so that a busy worker does not get all
	for idle := 0; idle < len(c.workers); c.turn++ {
		x := c.workers[c.turn%len(c.workers)]
		n := min(portion, len(c.free), int(c.tokens), len(c.slots)/len(c.workers)-x.given.len())
		if n <= 0 {
			idle++
			continue
		}
		idle = 0
		for range n {
			x.given.add(c.free[len(c.free)-1])
			c.free = c.free[:len(c.free)-1]
		}
		x.given.show()
		c.tokens -= float64(n)
	}
}

// Counts are the sums over workers.
func (c *Capture) Counts() (sum CaptureCounts) {
	for _, x := range c.workers {
		sum.Seen += x.seen.get()
		sum.Looked += x.looked.get()
		sum.Matched += x.matched.get()
	}
	return sum
}

// Names are a tunnel's and its account's, as of now; empty for a number that no tunnel has.
func (e *Engine) Names(tunnel int32) (name, account string) {
	t := e.tables.Load()
	if uint32(tunnel) >= uint32(len(t.rx)) || t.rx[tunnel].flags&tunLive == 0 {
		return "", ""
	}
	return t.names[tunnel], t.vrfs[t.rx[tunnel].vrf].Account
}

// AccountOf is the name of the account with that table; empty for the Internet's.
func (e *Engine) AccountOf(vrf int) string {
	if t := e.tables.Load(); vrf > 0 && vrf < len(t.vrfs) {
		return t.vrfs[vrf].Account
	}
	return ""
}

// followCapture takes part in the capture that runs now, if one does. Between two turns the worker has no packets.
func (w *worker) followCapture(c *Capture) {
	for i := range w.batch.packets {
		w.batch.packets[i].flags &^= pktCaptured
	}
	w.captured, w.capturing = c, nil
	if c != nil {
		w.capturing = c.workers[w.id]
	}
}

// has reports whether a packet's place is of this capture, and the worker's.
func (x *captureEnd) has(capture uint16) bool {
	at := int(capture & captureSlotMask)
	return capture&^captureSlotMask == x.capture.number && at < len(x.mine) && x.mine[at]
}

// own makes a place this worker's until the end of the turn.
func (x *captureEnd) own(at uint16) {
	x.mine[at] = true
	if !x.listed[at] {
		x.listed[at] = true
		x.pending = append(x.pending, at)
	}
}

// claim is a free place for a packet, if it may be looked at.
func (x *captureEnd) claim(w *worker) (at uint16, ok bool) {
	x.seen.add(1)
	n := len(x.kept)
	if n == 0 && x.given.front() == nil || !x.looks.allow(w.now, int64(CaptureLooksPerSecond/len(x.capture.workers)), looksBurst) {
		return 0, false
	}
	if n > 0 {
		at = x.kept[n-1]
		x.kept = x.kept[:n-1]
	} else {
		at = *x.given.front()
		x.given.pop()
	}
	x.looked.add(1)
	x.own(at)
	return at, true
}

// look looks at the packets of a batch, before parse.
func (x *captureEnd) look(w *worker, b *batch, n, port int) {
	for i := range b.packets {
		if x.marked>>i&1 != 0 {
			b.packets[i].flags &^= pktCaptured
		}
	}
	x.marked = 0
	for i := range w.descs[:n] {
		d := &w.descs[i]
		from := uint(d.Addr) & (xsk.FrameSize - 1)
		x.lookAt(w, &b.packets[i], FromPort, port, w.frame(d.Addr &^ (xsk.FrameSize - 1))[from:min(from+uint(d.Len), xsk.FrameSize)])
		if b.packets[i].flags&pktCaptured != 0 {
			x.marked |= 1 << i
		}
	}
}

// lookAt looks at one packet, if it may.
func (x *captureEnd) lookAt(w *worker, p *packet, o Origin, port int, frame []byte) {
	at, ok := x.claim(w)
	if !ok {
		return
	}
	x.capture.slots[at].begin(w, o, port, frame)
	p.flags |= pktCaptured
	p.capture = at | x.capture.number
}

// give tells that a packet with a place goes to another worker: the place does too.
func (x *captureEnd) give(w *worker, p *packet, to int) {
	if s := w.capturedOf(p); s != nil {
		s.HandedTo, s.HandedOver = to+1, s.HandedOver+1
		x.mine[p.capture&captureSlotMask] = false
	}
}

// takeCaptured takes the place of a packet that came from another worker, or the flag if that capture is over.
func (w *worker) takeCaptured(p *packet) {
	at := p.capture & captureSlotMask
	if x := w.capturing; x != nil && p.capture&^captureSlotMask == x.capture.number && int(at) < len(x.mine) {
		x.own(at)
		return
	}
	p.flags &^= pktCaptured
}

// endTurn hands over what matches: nothing more becomes of the packets of this turn.
func (x *captureEnd) endTurn() {
	if len(x.pending) == 0 {
		return
	}
	for _, at := range x.pending {
		x.listed[at] = false
		if !x.mine[at] {
			continue // another worker has it
		}
		x.mine[at] = false
		s := &x.capture.slots[at]
		if p := s.packet(); x.capture.filter.Match(&p) {
			s.wanted = true
			x.matched.add(1)
		} else if len(x.kept) < maxKept {
			x.kept = append(x.kept, at)
			continue
		}
		x.done.add(at)
	}
	x.pending = x.pending[:0]
	x.done.show()
}
