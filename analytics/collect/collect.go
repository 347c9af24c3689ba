// Package collect reads what the workers count and sample, and makes rows of it: each second for the store, each sample as it comes for
// detectors and exporters, and what was most frequent in all samples of a minute, and of an hour.
package collect

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/top"
	"causeway/pipeline"
)

// Engine is what is read of the pipeline's engine.
type Engine interface {
	Samples(f func(at time.Time, s *pipeline.Sample))
	TunnelCounters(number int) pipeline.TunnelCounters
	TunnelDrops(f func(pipeline.Drop)) (rest uint64)
	Total() pipeline.Counters
	SetSamplingShift(shift uint32)
}

// A Tunnel is one that the workers know.
type Tunnel struct {
	*flow.Tunnel
	Number int // Engine.TunnelID
}

// Health is what probes have found of a tunnel since the node probes it so.
type Health struct {
	Tunnel         string // name
	Remote         string // customer endpoint
	State          string // healthy, degraded or down
	Answered, Lost uint64
	RTT            time.Duration
}

// A Sink gets each sample, on the collector's goroutine, and may keep neither.
type Sink func(s *flow.Sample, h *flow.Header)

// A Detector looks for attacks, on the collector's goroutine, and keeps nothing of what it gets.
type Detector interface {
	Observe(s *store.Sample) // each, as the account that it belongs to may see it, with whole addresses
	Count(rows []store.Drops)
	Tick(now time.Time) // each second
	End(now time.Time)  // nobody looks any more: what goes on is told to have ended
}

// Options are what a Collector reads, and to whom it gives. Write, Origin, Sinks and Detect may be nil.
type Options struct {
	Engine  Engine
	Tunnels func() []Tunnel
	Health  func() []Health
	Place   store.Place
	Write   func(context.Context, *store.Batch) error // of a store; the batch is its own from then on
	Origin  func(addr [16]byte) store.Origin          // what is known of an address; IPv4 in IPv6 form
	Keep4   int                                       // bits of IPv4 addresses that are kept; 0: all
	Keep6   int                                       // of IPv6 addresses
	Sinks   []Sink
	Detect  Detector
	Log     *slog.Logger
}

// How often something is done.
const (
	drainEvery = 50 * time.Millisecond // a ring of 4096 holds what one worker samples in a second at 4 million packets a second
	writeEvery = 2                     // seconds: what a crash may lose
)

// How many samples are kept: at first all, then about so many a second; of more, every second, fourth... is, and stands for as many
// packets more. Sinks, detectors and tops get all.
const (
	samplesPerSecond = 2000
	samplesAtOnce    = 20_000
)

// topsAtOnce is how many rows of tops a batch has: those of a minute are written in the course of the next, for nobody reads the rings meanwhile.
const topsAtOnce = 4000

// latest is over how many seconds at the most what was counted since the last time is spread.
const latest = 120

// heldSeconds bounds what waits while the store does not take it.
const heldSeconds = 60

// Stats are what was not kept, since the start.
type Stats struct {
	Samples, Thinned uint64 // samples that came, and those of them that others stand for
	Unwritten        uint64 // batches that the store did not take in time
	LeftOut          uint64 // samples that tops had no memory for
	Shift            uint32 // samples are rarer than configured by that power of two, because they came too fast
}

// A Collector is the reader of one engine. Only Run's goroutine uses it.
type Collector struct {
	o       Options
	random  *rand.Rand
	names   map[int]*flow.Tunnel
	counted map[int]totals
	dropped map[dropped]uint64
	probed  map[string]Health
	active  map[string]bool // by tunnel id

	second  int64 // that counts are for, when they are read
	batch   *store.Batch
	waiting []*store.Batch
	failing bool
	tried   time.Time // to write, while failing

	room  int    // samples that may still be kept
	thin  uint32 // one in so many is kept
	lost  uint64 // SamplesLost, as of the last second
	quiet int    // seconds without a loss

	minute, hour *top.Counter
	tops         []store.Top // that wait for a batch

	stats published
}

// New makes a collector of what is counted from now on.
func New(o Options) *Collector {
	c := &Collector{o: o, random: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)), second: time.Now().Unix(), thin: 1, room: samplesAtOnce,
		counted: map[int]totals{}, dropped: map[dropped]uint64{}, probed: map[string]Health{}, active: map[string]bool{}}
	c.minute = top.New(top.Options{Origins: o.Origin != nil, Values: top.OfMinute, Rows: top.RowsOfMinute})
	c.hour = top.New(top.Options{Origins: o.Origin != nil, Values: top.OfHour})
	c.batch = c.newBatch()
	c.learnNames()
	c.readCounters(nil)
	c.readDrops(nil)
	c.readHealth(0)
	c.lost = o.Engine.Total().SamplesLost
	return c
}

// Run collects until ctx is done, and writes what it has then.
func (c *Collector) Run(ctx context.Context) {
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			c.step(time.Now().Add(time.Second)) // the second that has begun
			if c.o.Detect != nil {
				c.o.Detect.End(time.Now())
			}
			c.endTops(true, true)
			c.addTops(len(c.tops))
			c.endBatch()
			c.write(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			c.step(time.Now())
			if len(c.waiting) > 0 && (!c.failing || time.Since(c.tried) > time.Second) {
				c.write(ctx)
			}
		}
	}
}

// step takes what there is at the present time.
func (c *Collector) step(now time.Time) {
	c.o.Engine.Samples(c.take)
	s := now.Unix()
	if s < c.second-2 || s > c.second+latest { // the clock was set, or nobody came here for long: the last that is known is spread over so long
		c.second = max(s-latest, min(c.second, s))
	}
	if s > c.second {
		c.endSeconds(s)
	}
}

// endSeconds reads the counters for the seconds that have ended, before the one that begins: mostly one.
func (c *Collector) endSeconds(next int64) {
	c.learnNames()
	seconds := make([]int64, 0, 1)
	for s := c.second; s < next; s++ {
		seconds = append(seconds, s)
	}
	c.readCounters(seconds)
	c.readDrops(seconds)
	if c.o.Detect != nil {
		c.o.Detect.Tick(time.Unix(next, 0))
	}
	if next/60 != c.second/60 {
		c.readHealth((next/60 - 1) * 60)
	}
	c.endTops(next/60 != c.second/60, next/3600 != c.second/3600)
	c.adapt()
	if next/writeEvery != c.second/writeEvery {
		c.addTops(max(topsAtOnce, len(c.tops)/10))
		c.endBatch()
	}
	c.second = next
}

// AddAttack has what is known of an attack written, its source truncated as all addresses are. It is for the detector, on the
// collector's goroutine.
func (c *Collector) AddAttack(a store.Attack) {
	if src, err := netip.ParseAddr(a.Src); err == nil {
		a.Src = c.truncate(src).String()
	}
	c.batch.Attacks = append(c.batch.Attacks, a)
}

func (c *Collector) endBatch() {
	if b := c.batch; len(b.Traffic)+len(b.Drops)+len(b.Samples)+len(b.Health)+len(b.Attacks)+len(b.Tops) == 0 {
		return
	}
	c.waiting = append(c.waiting, c.batch)
	c.batch = c.newBatch()
}

func (c *Collector) newBatch() *store.Batch { return &store.Batch{Place: c.o.Place} }

// learnNames asks for the tunnels; a reload may have changed them.
func (c *Collector) learnNames() {
	c.names = map[int]*flow.Tunnel{}
	for _, t := range c.o.Tunnels() {
		c.names[t.Number] = t.Tunnel
	}
}

// adapt makes samples rarer while the rings overflow, and one step less rare after half a minute without. Of those that come more are
// kept again when few were.
func (c *Collector) adapt() {
	c.room = min(c.room+samplesPerSecond, samplesAtOnce)
	if c.room > samplesAtOnce/2 {
		c.thin = max(c.thin/2, 1)
	}
	lost := c.o.Engine.Total().SamplesLost
	shift := c.stats.shift.Load()
	switch {
	case lost > c.lost && shift < 10:
		c.quiet, shift = 0, shift+1
	case lost > c.lost:
		c.quiet = 0
	case shift > 0:
		if c.quiet++; c.quiet == 30 {
			c.quiet, shift = 0, shift-1
		}
	}
	c.lost = lost
	if shift != c.stats.shift.Load() {
		c.stats.shift.Store(shift)
		c.o.Engine.SetSamplingShift(shift)
	}
}

// write gives the store what waits. What it does not take stays, up to a bound; then the oldest is lost.
func (c *Collector) write(ctx context.Context) {
	if c.o.Write == nil {
		c.waiting = c.waiting[:0]
		return
	}
	for len(c.waiting) > 0 {
		err := c.o.Write(ctx, c.waiting[0])
		if err != nil {
			c.refused(err)
			return
		}
		c.waiting = append(c.waiting[:0], c.waiting[1:]...)
	}
	if c.failing {
		c.failing = false
		c.o.Log.Info("analytics: what is counted is written again")
	}
}

func (c *Collector) refused(err error) {
	c.tried = time.Now()
	if !c.failing {
		c.failing = true
		c.o.Log.Error("analytics: what is counted cannot be written; the last minute is kept in memory, and packets go on", "error", err)
	}
	for len(c.waiting) > heldSeconds/writeEvery {
		c.waiting = append(c.waiting[:0], c.waiting[1:]...)
		c.stats.unwritten.Add(1)
	}
}
