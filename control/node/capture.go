package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"causeway/control/api"
	"causeway/pipeline"
	"causeway/pipeline/match"
)

// captureTick is how often the workers' packets are fetched; what they may hand over in that time has room.
const captureTick = 10 * time.Millisecond

// capturing is the capture that runs.
type capturing struct {
	by    string
	until time.Time
}

// Capture gives emit the packets that match q, with what was decided about them.
func (n *Node) Capture(ctx context.Context, q api.CaptureRequest, emit func(api.CaptureEvent) error) error {
	if err := fillCapture(&q); err != nil {
		return err
	}
	filter, err := match.Parse(q.Filter, n.captureNames())
	if err != nil {
		return err
	}
	limit := time.Duration(q.Seconds) * time.Second
	mine := &capturing{q.By, time.Now().Add(limit)}
	if !n.capturing.CompareAndSwap(nil, mine) {
		return busy(n.capturing.Load())
	}
	defer n.capturing.Store(nil)
	c, err := n.engine.StartCapture(filter)
	if err != nil {
		return err
	}
	defer c.Stop()
	r := &captureRun{node: n, capture: c, request: q, emit: emit}
	return r.run(ctx, limit)
}

// busy is the error of who comes second.
func busy(other *capturing) error {
	if other == nil { // it has just ended
		return fmt.Errorf("another capture is about to end: try again")
	}
	return fmt.Errorf("another capture runs, of %s, for %d s more at most; one at a time is possible: wait for it, or end the `causeway capture` or "+
		"`causeway trace` that began it", other.by, max(0, int(time.Until(other.until).Seconds()+1)))
}

func fillCapture(q *api.CaptureRequest) error {
	if q.Packets == 0 {
		q.Packets = api.DefaultCapturePackets
	}
	if q.Seconds == 0 {
		q.Seconds = api.DefaultCaptureSeconds
	}
	if q.By == "" {
		q.By = "a client that has not said who it is"
	}
	switch {
	case q.Packets < 0 || q.Packets > api.MaxCapturePackets:
		return fmt.Errorf("packets %d: 1 to %d are possible", q.Packets, api.MaxCapturePackets)
	case q.Seconds < 0 || q.Seconds > api.MaxCaptureSeconds:
		return fmt.Errorf("seconds %d: 1 to %d are possible", q.Seconds, api.MaxCaptureSeconds)
	case q.Snaplen < 0:
		return fmt.Errorf("snaplen %d: a number of bytes, or 0 for all", q.Snaplen)
	}
	return nil
}

// captureNames are those that a filter may have.
func (n *Node) captureNames() match.Names {
	return match.Names{
		Tunnel: n.engine.TunnelID,
		Account: func(name string) (int, bool) {
			v, ok := n.engine.VRF(name)
			if !ok || name == "" {
				return 0, false
			}
			return v.ID(), true
		},
		Reason: func(label string) (uint8, bool) {
			all := pipeline.AllReasons()
			i := slices.IndexFunc(all, func(r pipeline.Reason) bool { return r.String() == label })
			if i < 0 {
				return 0, false
			}
			return uint8(all[i]), true
		},
		Verdict: func(word string) (uint8, bool) {
			i := slices.Index(pipeline.Verdicts[:], word)
			return uint8(i), i >= 0
		},
	}
}

// captureRun is a capture that runs.
type captureRun struct {
	node    *Node
	capture *pipeline.Capture
	request api.CaptureRequest
	emit    func(api.CaptureEvent) error
	shown   int
	err     error
}

func (r *captureRun) run(ctx context.Context, limit time.Duration) error {
	r.give(api.CaptureEvent{Begun: &r.request})
	tick, second, end := time.NewTicker(captureTick), time.NewTicker(time.Second), time.NewTimer(limit)
	defer tick.Stop()
	defer second.Stop()
	defer end.Stop()
	for r.err == nil {
		r.give(api.CaptureEvent{}) // what is there is seen
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-second.C:
			r.give(api.CaptureEvent{Counts: r.counts()})
		case <-end.C:
			r.capture.Stop()
			r.drain()
			return r.end("seconds")
		case <-tick.C:
			if r.drain(); r.shown == r.request.Packets {
				return r.end("packets")
			}
		}
	}
	return r.err
}

func (r *captureRun) end(why string) error {
	r.give(api.CaptureEvent{Ended: &api.CaptureEnd{Why: why, Counts: *r.counts()}})
	return r.err
}

func (r *captureRun) counts() *api.CaptureCounts {
	c := r.capture.Counts()
	return &api.CaptureCounts{Seen: c.Seen, Looked: c.Looked, Matched: c.Matched, Shown: uint64(r.shown)}
}

// give keeps the first error: then the client has gone.
func (r *captureRun) give(e api.CaptureEvent) {
	if r.err == nil {
		r.err = r.emit(e)
	}
}

// drain shows the packets that wait, as far as they are wanted.
func (r *captureRun) drain() {
	r.capture.Drain(func(at time.Time, s *pipeline.Captured) bool {
		if r.shown < r.request.Packets {
			r.shown++
			p := r.node.packetOf(s)
			p.Number, p.Time = r.shown, at.UTC()
			if r.request.Bytes {
				p.Frame, p.Inner = r.cut(s.Frame()), r.cut(s.Inner())
			}
			r.give(api.CaptureEvent{Packet: p})
		}
		return r.err == nil && r.shown < r.request.Packets
	})
}

func (r *captureRun) cut(b []byte) []byte {
	if r.request.Snaplen > 0 {
		return b[:min(r.request.Snaplen, len(b))]
	}
	return b
}
