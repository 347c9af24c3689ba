package pipeline

import (
	"math"
	"time"
)

// Of every so many packets a worker picks one and tells what became of it. Which ones is drawn for a whole batch at once: the
// number of packets that pass until the next one that is picked has a geometric distribution, so each packet is picked
// independently of all others, and those that are not cost nothing. A picked packet has a flag that keeps it off the ways of
// fast.go; where it ends (forward.go, seal.go, local.go, punt.go, drop), its header is copied into a ring, for the control side.
// A packet is shown as it leaves, or as it was when it was dropped.

// SampleHeader is how many bytes of a packet a Sample has at most.
const SampleHeader = 128

// sampleRing is how many samples may wait for the control side, of each worker.
const sampleRing = 4096

// NeverSampled is TunnelSpec.Sampling of a tunnel of which nothing is sampled.
const NeverSampled = math.MaxUint32

// maxSamplingShift bounds how far samples are made rarer while the control side does not keep up.
const maxSamplingShift = 10

// A Verdict is what became of a packet. Its text is what filters, analytics and traces call it.
type Verdict uint8

// The verdicts.
const (
	Forwarded Verdict = iota
	Delivered         // answered by the pipeline itself, or a fragment that waits for others
	Punted            // given to the kernel or the control side
	Dropped
)

// Verdicts are the texts of all verdicts.
var Verdicts = [...]string{Forwarded: "forwarded", Delivered: "delivered", Punted: "punted", Dropped: "dropped"}

func (v Verdict) String() string { return Verdicts[v] }

// A Sample is a packet that was picked.
type Sample struct {
	at      int64  // nanoseconds since the worker started
	Every   uint32 // it stands for so many packets: it was picked with one in Every as its chance
	In, Out int32  // numbers of the tunnels that it came out of and went, or was to go, into; -1: none
	Length  uint16 // bytes of the IP packet; 0: what came was none
	Size    uint8  // bytes of Header in use
	Verdict Verdict
	Reason  Reason // with Dropped
	Probe   bool   // of the control side's, or an answer to one
	Header  [SampleHeader]byte
}

// sampler draws which packets are picked.
type sampler struct {
	ring   *ring[Sample]
	every  uint32 // one in so many; 0: none
	left   uint32 // packets that pass before the next one that is picked
	state  uint64 // of random; never 0
	marked uint64 // packets of the worker's batch that have the flag, a bit each
}

func newSampler(id int) sampler {
	return sampler{ring: newRing[Sample](sampleRing), left: math.MaxUint32, state: uint64(time.Now().UnixNano())<<7 | uint64(id)<<1 | 1}
}

// random is xorshift64* (Vigna 2016): nobody gains anything by guessing it but being sampled less.
func (s *sampler) random() uint64 {
	s.state ^= s.state >> 12
	s.state ^= s.state << 25
	s.state ^= s.state >> 27
	return s.state * 0x2545f4914f6cdd1d
}

// draw chooses how many packets pass until the next one is picked.
func (s *sampler) draw() {
	switch s.every {
	case 0:
		s.left = math.MaxUint32
	case 1:
		s.left = 0
	default:
		u := (float64(s.random()>>11) + 1) / (1 << 53) // in (0, 1]
		s.left = uint32(min(math.Log(u)/math.Log1p(-1/float64(s.every)), math.MaxUint32))
	}
}

// samplingEvery is how often packets are picked.
func (e *Engine) samplingEvery(t *samplingTable) uint32 { return t.every << e.samplingShift.Load() }

// follow takes over a new rate. What was drawn for another means nothing: the distribution has no memory.
func (s *sampler) follow(every uint32) {
	if s.every != every {
		s.every = every
		s.draw()
	}
}

// choose flags the packets of a batch of n that are picked, before parse, which leaves the flag alone.
func (w *worker) choose(t *Tables, b *batch, n int) {
	s := &w.sampler
	if s.marked != 0 {
		w.unmark(b)
	}
	s.follow(w.engine.samplingEvery(&t.sampling))
	if s.left >= uint32(n) {
		s.left -= uint32(n)
		return
	}
	at := 0
	for ; s.left < uint32(n-at); s.draw() {
		at += int(s.left)
		p := &b.packets[at&(BatchSize-1)]
		p.flags, p.sample, p.l3, p.end = pktSampled, 0, 0, 0
		s.marked |= 1 << at
		if at++; at == n {
			s.draw()
			break
		}
	}
	if s.every > 0 {
		s.left -= uint32(n - at)
	}
}

// unmark takes the flags of the last batch away.
func (w *worker) unmark(b *batch) {
	for i := range b.packets {
		if w.sampler.marked>>i&1 != 0 {
			b.packets[i].flags &^= pktSampled
		}
	}
	w.sampler.marked = 0
}

// chooseOne is choose for a packet that comes alone: it returns its flag.
func (w *worker) chooseOne(t *Tables) uint16 {
	s := &w.sampler
	s.follow(w.engine.samplingEvery(&t.sampling))
	if s.left > 0 {
		s.left--
		return 0
	}
	s.draw()
	return pktSampled
}

// samplingTable says how often is sampled.
type samplingTable struct {
	every     uint32   // the most frequent of all: packets are picked so often
	otherwise uint32   // of packets without a tunnel
	tunnels   []uint32 // by tunnel id
}

// set notes the rate of tunnel id; 0: that of packets without a tunnel.
func (s *samplingTable) set(id int, every uint32) {
	switch every {
	case 0:
		every = s.otherwise
	case NeverSampled:
		every = 0
	}
	s.tunnels[id] = every
	if every > 0 && (s.every == 0 || every < s.every) {
		s.every = every
	}
}

// of is the rate for a packet of these tunnels: where it has two, the more frequent; 0: none.
func (s *samplingTable) of(in, out int32) uint32 {
	a, b := s.tunnel(in), s.tunnel(out)
	switch {
	case in < 0 && out < 0:
		return s.otherwise
	case a == 0 || b > 0 && b < a:
		return b
	}
	return a
}

func (s *samplingTable) tunnel(id int32) uint32 {
	if uint32(id) < uint32(len(s.tunnels)) {
		return s.tunnels[id]
	}
	return 0
}

// sampled tells of a picked packet, which is at its end, or close to it: once, and later only what became of it.
func (w *worker) sampled(p *packet, out int, v Verdict) {
	if p.flags&watched == 0 {
		return
	}
	w.noteEnd(p, int32(out), v)
	if p.flags&pktSampled == 0 {
		return
	}
	if p.sample == 0 && !w.takeSample(p, int32(out)) {
		p.flags &^= pktSampled
		return
	}
	s := w.sampleOf(p)
	s.Verdict = v
	s.Probe = p.flags&pktProbe != 0
	if out != noTunnel {
		s.Out = int32(out)
	}
}

// sampleDropped is sampled for a packet that is dropped.
func (w *worker) sampleDropped(p *packet, r Reason) {
	w.sampled(p, noTunnel, Dropped)
	w.noteReason(p, r)
	if p.flags&pktSampled != 0 {
		w.sampleOf(p).Reason = r
	}
}

// sampleOf is the sample of a packet that has one: nobody sees it before the end of the turn.
func (w *worker) sampleOf(p *packet) *Sample {
	r := w.sampler.ring
	return &r.slots[(p.sample-1)&r.mask]
}

// takeSample copies what p is into the ring. It reports false if its tunnels are sampled less often and the die says no, or if
// there is no room.
func (w *worker) takeSample(p *packet, out int32) bool {
	s := &w.sampler
	table := &w.engine.tables.Load().sampling
	shift := w.engine.samplingShift.Load()
	every, picked := table.of(p.tunnel, out)<<shift, table.every<<shift // another worker may have picked it
	if every == 0 || every > picked && s.random()>>32*uint64(every) >= uint64(picked)<<32 {
		return false
	}
	at := s.ring.added
	c := s.ring.claim()
	if c == nil {
		w.count.samplesLost.add(1)
		return false
	}
	w.count.samples.add(1)
	p.sample = at + 1
	c.at, c.Every, c.In, c.Out, c.Length, c.Size, c.Reason = w.now, every, p.tunnel, noTunnel, 0, 0, ReasonNone
	if p.end > p.l3 { // else parse did not come to its end
		packet := w.bytes(p)
		c.Length, c.Size = uint16(len(packet)), uint8(copy(c.Header[:], packet))
	}
	return true
}

// Samples calls f for each sample that waits, with the time at which the packet was worked on. The sample is f's only until it
// returns. One goroutine may call it at a time.
func (e *Engine) Samples(f func(at time.Time, s *Sample)) {
	for _, w := range e.workers {
		r := w.sampler.ring
		now := time.Now()
		since := now.Sub(w.started)
		for range sampleRing {
			s := r.front()
			if s == nil {
				break
			}
			f(now.Add(time.Duration(s.at)-since), s)
			r.pop()
		}
	}
}

// SetSamplingShift makes all samples rarer by that power of two, 1024 times at most: the control side does so while samples are lost.
func (e *Engine) SetSamplingShift(shift uint32) {
	e.samplingShift.Store(min(shift, maxSamplingShift))
}
