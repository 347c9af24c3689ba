package main

import (
	"fmt"
	"io"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/node"
	"causeway/control/routes"
	"causeway/pipeline"
	"causeway/pipeline/pcapport"
	"causeway/xsk"
)

// Sizes of a node that replays. Of its frames an eighth may be held as fragments: as many as in a daemon's worker.
const (
	replayFrames = 16384
	replayFill   = 64
	replayPunts  = 64
)

// replayNode is a node with one worker over files, which gets one frame at a time: what becomes of a frame is the
// difference that it makes to the counters.
type replayNode struct {
	names   []string // of the interfaces
	tunnels []replayTunnel
	umem    *xsk.UMEM
	punt    *pipeline.PuntQueue
	engine  *pipeline.Engine
	in      *pcapport.Queue
	out     *pcapport.Writer

	last  pipeline.Counters
	clock time.Duration // since the first frame
	seen  time.Time     // timestamp of the frame before; zero before the first
}

// replayTunnel is a tunnel with the counters that it had when somebody looked last.
type replayTunnel struct {
	name string
	id   int
	last pipeline.TunnelCounters
}

// newReplayNode makes the node. Frames come in by one port, the made-up next hop is on the port fallback.
func newReplayNode(c *config.Config, leaving io.Writer, port, fallback int) (*replayNode, error) {
	n := &replayNode{names: interfaceNames(c)}
	if err := n.open(leaving, port); err != nil {
		n.close()
		return nil, err
	}
	if err := n.configure(c, fallback); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *replayNode) open(leaving io.Writer, port int) (err error) {
	if n.umem, err = xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: replayFrames}); err != nil {
		return err
	}
	if n.punt, err = pipeline.NewPuntQueue(1, replayPunts); err != nil {
		return err
	}
	if n.out, err = pcapport.NewWriter(leaving, n.names...); err != nil {
		return err
	}
	w := pipeline.WorkerConfig{CPU: -1}
	for i := range n.names {
		q := pcapport.NewQueue(n.umem, replayFill, n.out, i)
		w.Queues = append(w.Queues, pipeline.QueueConfig{Port: i, Queue: q, FillSize: replayFill})
		if i == port {
			n.in = q
		}
	}
	n.engine, err = pipeline.NewEngine(pipeline.EngineConfig{
		UMEM: n.umem, Ports: len(n.names), Workers: []pipeline.WorkerConfig{w}, Punt: n.punt,
	})
	return err
}

// configure gives the worker its tables as the daemon does, with nobody in the kernel's place.
func (n *replayNode) configure(c *config.Config, fallback int) error {
	r := routes.NewOffline(n.engine, n.names, fallback)
	if err := n.engine.Apply(node.SpecOf(c, r.Links())); err != nil {
		return err
	}
	if err := r.Apply(c); err != nil {
		return err
	}
	for _, t := range c.Tunnels {
		id, _ := n.engine.TunnelID(t.Name)
		n.tunnels = append(n.tunnels, replayTunnel{name: t.Name, id: id})
	}
	return nil
}

func (n *replayNode) close() {
	if n.engine != nil {
		n.engine.Close()
	}
	if n.punt != nil {
		n.punt.Close()
	}
	if n.umem != nil {
		n.umem.Close()
	}
}

// run replays the whole capture. Its error is the capture's, or that frames are not accounted for.
func (n *replayNode) run(r replayReport, in *pcapport.Reader, name string) error {
	var s replaySummary
	f, err := in.Next()
	for ; err == nil; f, err = in.Next() {
		e := n.take(f)
		switch e.Outcome {
		case replayCut:
			s.Cut++
		case replayTooLarge:
			s.TooLarge++
		}
		r.frame(&e)
	}
	total := n.engine.Total()
	s.Drops, s.Total = dropsOf(&total), node.FramesOf(&total)
	switch {
	case err != io.EOF:
		err = fmt.Errorf("%s: %w", name, err)
		s.Error = err.Error()
	case s.Total.In != s.Total.Out:
		err = fmt.Errorf("%d frames came in and %d are known: this is a bug, report it with the capture", s.Total.In, s.Total.Out)
		s.Error = err.Error()
	default:
		err = nil
	}
	r.end(&s)
	return err
}

// take gives one frame to the worker, and says what became of it.
func (n *replayNode) take(f pcapport.Frame) replayFrame {
	e := replayFrame{Frame: f.Number, Time: f.Time.Format(time.RFC3339Nano), Length: f.Length, Captured: len(f.Data)}
	switch f.Fit() {
	case pcapport.Cut:
		e.Outcome = replayCut
		return e
	case pcapport.TooLarge:
		e.Outcome = replayTooLarge
		return e
	}
	n.advance(f.Time)
	n.in.Offer(f)
	n.engine.PollAt(0, n.clock)
	n.punt.Drain(func([]byte) {})
	n.explain(&e)
	return e
}

// replayStep is the longest time between two frames that makes a difference: by then all fragments are given up, and
// ICMP errors allowed again. Timestamps that jump, forward or back, do no more than that.
const replayStep = time.Minute

// advance moves the clock to the time of a frame. A worker polls all the time, and gives up what has waited too long
// before the frame comes: a few datagrams in each turn.
func (n *replayNode) advance(to time.Time) {
	if !n.seen.IsZero() {
		n.clock += min(max(to.Sub(n.seen), 0), replayStep)
	}
	n.seen = to
	for held := n.last.Held; held > 0; {
		n.engine.PollAt(0, n.clock)
		left := n.engine.Total().Held
		if left == held {
			break
		}
		held = left
	}
}

// explain tells from the counters what has happened since it was called last.
func (n *replayNode) explain(e *replayFrame) {
	now := n.engine.Total()
	d := difference(&now, &n.last)
	n.last = now
	e.Outcome = outcomeOf(&d)
	e.Drops, e.Originated = dropsOf(&d), int(d.Originated)
	if e.Fragments = int(d.Joined); e.Fragments > 0 {
		e.Fragments++ // the one that the others were joined to
	}
	n.findTunnels(e, d.Decapsulated+d.Encapsulated, d.DroppedTotal() > 0)
	for _, s := range n.out.Sent() {
		e.Sent = append(e.Sent, replaySent{s.Number, n.names[s.Port], s.Length})
	}
}

// findTunnels looks for the tunnels whose counters have grown: by that many packets, or by drops too. There may be
// thousands, and the next frame is often of the same, so those that were found come first.
func (n *replayNode) findTunnels(e *replayFrame, packets uint64, drops bool) {
	found := 0
	for i := range n.tunnels {
		if packets == 0 && !drops {
			return
		}
		t := &n.tunnels[i]
		c, was := n.engine.TunnelCounters(t.id), t.last
		if c == was {
			continue
		}
		t.last = c
		if c.RXPackets+c.RXDrops != was.RXPackets+was.RXDrops {
			e.FromTunnel = t.name
		}
		if c.TXPackets+c.TXDrops != was.TXPackets+was.TXDrops {
			e.IntoTunnel = t.name
		}
		packets -= c.RXPackets - was.RXPackets + c.TXPackets - was.TXPackets
		n.tunnels[found], n.tunnels[i] = n.tunnels[i], n.tunnels[found]
		found++
	}
}

// difference is what of the counters has grown, as far as it tells what became of a frame.
func difference(now, before *pipeline.Counters) (d pipeline.Counters) {
	d.Originated = now.Originated - before.Originated
	d.Forwarded = now.Forwarded - before.Forwarded
	d.Delivered = now.Delivered - before.Delivered
	d.Punted = now.Punted - before.Punted
	d.Joined = now.Joined - before.Joined
	d.Decapsulated = now.Decapsulated - before.Decapsulated
	d.Encapsulated = now.Encapsulated - before.Encapsulated
	for r := range d.Dropped {
		d.Dropped[r] = now.Dropped[r] - before.Dropped[r]
	}
	return d
}

// outcomeOf says what became of the one frame that made the difference. Two reasons are never its own: they are those
// of fragments that were held before it came. What was answered, or refused with an ICMP error, leaves frames too; so
// that it left is the last thing to look at.
func outcomeOf(d *pipeline.Counters) replayOutcome {
	dropped := d.DroppedTotal() - d.Dropped[pipeline.FragmentTimeout] - d.Dropped[pipeline.FragmentTableFull]
	switch {
	case d.Delivered > 0:
		return replayDelivered
	case d.Punted > 0:
		return replayPunted
	case dropped > 0:
		return replayDropped
	case d.Forwarded > 0:
		return replayForwarded
	}
	return replayHeld
}

// dropsOf lists the reasons that have counted something, in packet order.
func dropsOf(c *pipeline.Counters) []api.Drop {
	drops := []api.Drop{}
	for _, r := range pipeline.AllReasons() {
		if c.Dropped[r] > 0 {
			d := node.DropOf(r, c.Dropped[r])
			if why, ok := withoutKeys[r]; ok {
				d.Sentence = why
			}
			drops = append(drops, d)
		}
	}
	return drops
}

// withoutKeys says what the reasons for ESP mean in a replay, which has no security associations.
var withoutKeys = map[pipeline.Reason]string{
	pipeline.ESPNoSA:       "ESP, which a replay does not decrypt, whether a tunnel has its SPI or not",
	pipeline.ESPNoOutbound: "for an IPsec tunnel, and a replay does not encrypt",
}
