// Package export tells collectors of what analytics sees: sampled packets and tunnels' counters by sFlow, flows by IPFIX, to any
// number of collectors over UDP. Who hands samples over is never held up, and a collector that is away costs a counter.
package export

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/export/ipfix"
	"causeway/analytics/export/sflow"
	"causeway/analytics/flow"
)

// flushInterval is how often what was collected is sent: sFlow allows samples to be one second late.
const flushInterval = 200 * time.Millisecond

// Options say what is exported, and to whom. Zero values have defaults.
type Options struct {
	SFlow, IPFIX []string   // collectors, host:port; none: nothing is made of that kind
	Agent        netip.Addr // node address, by which sFlow's collectors know the node
	SubAgent     uint32     // tells apart several exporters of one address; IPFIX's observation domain, too
	Ethernet     bool       // sFlow: see sflow.Options

	// Counters returns the tunnels' counters for sFlow; Run calls it each CounterInterval and has the slice until the next call. Nil:
	// there are no counter samples.
	Counters        func() []Counters
	CounterInterval time.Duration // default 20 s

	Flows ipfix.Options
	Queue int // samples that wait for Run at most; default 4096
}

// Counters are a tunnel's.
type Counters struct {
	Tunnel *flow.Tunnel
	sflow.Counters
}

// Stats are counts since the start.
type Stats struct {
	Samples        uint64 // taken
	Lost           uint64 // not taken, because the queue was full
	NotIP          uint64 // of those taken, which were no IP packets: not exported
	FlowSamples    uint64 // sFlow
	CounterSamples uint64
	Datagrams      uint64
	Flows          uint64 // IPFIX: flows in the cache now
	FlowRecords    uint64
	Biflows        uint64 // of them, those of both directions
	Evicted        uint64 // of them, those that were told early because the cache was full
	Messages       uint64
	Collectors     []CollectorStats
}

// An Exporter exports samples and counters.
type Exporter struct {
	opts       Options
	sflow      *sflow.Encoder // nil: no collectors
	meter      *ipfix.Meter   // nil: no collectors
	collectors []*collector
	queue      chan queued
	table      atomic.Pointer[ifindex.Table]
	missed     atomic.Bool // a collector was connected, and has missed what was sent before

	taken, lost, notIP, flows, counters, datagrams atomic.Uint64

	mu       sync.Mutex
	lostFrom map[string]uint64 // samples, by tunnel id; empty: not known

	// Of Run alone.
	current queued
	used    *ifindex.Table // that the meter knows
	pending []Counters     // to be told in this interval
	portion int            // of them, in each flushInterval
	poll    time.Time      // when to ask for them again
}

// A queued sample has its header with it.
type queued struct {
	sample flow.Sample
	header flow.Header
	bytes  [flow.HeaderLen]byte
	length int
}

// New makes an exporter. Collectors given by address are connected to at once, others by Run. An error names what is no host:port.
func New(o Options) (*Exporter, error) {
	if o.Queue <= 0 {
		o.Queue = 4096
	}
	if o.CounterInterval <= 0 {
		o.CounterInterval = 20 * time.Second
	}
	e := &Exporter{opts: o, queue: make(chan queued, o.Queue), lostFrom: make(map[string]uint64)}
	datagram, err := e.fanOut("sflow", o.SFlow)
	if err != nil {
		return nil, err
	}
	message, err := e.fanOut("ipfix", o.IPFIX)
	if err != nil {
		return nil, err
	}
	if len(o.SFlow) > 0 {
		agent := sflow.Options{Agent: o.Agent, SubAgent: o.SubAgent, Start: time.Now(), Ethernet: o.Ethernet}
		e.sflow = sflow.NewEncoder(agent, func(b []byte) {
			e.datagrams.Add(1)
			datagram(b)
		})
	}
	if len(o.IPFIX) > 0 {
		o.Flows.Domain = o.SubAgent
		e.meter = ipfix.NewMeter(o.Flows, message)
	}
	return e, nil
}

// fanOut makes the collectors, and returns what sends to all of them.
func (e *Exporter) fanOut(protocol string, addresses []string) (func([]byte), error) {
	var list []*collector
	for _, a := range addresses {
		c, err := newCollector(protocol, a)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	e.collectors = append(e.collectors, list...)
	return func(b []byte) {
		for _, c := range list {
			c.send(b)
		}
	}, nil
}

// SetInterfaces says what tunnels there are. Samples of others are exported as if they had none.
func (e *Exporter) SetInterfaces(t *ifindex.Table) { e.table.Store(t) }

// Add hands over a sample and its header, taken apart by flow.Parse; both are copied. It does not wait: a sample that does not fit the
// queue is counted. Any goroutine may call it.
func (e *Exporter) Add(s *flow.Sample, h *flow.Header) {
	if len(e.collectors) == 0 {
		return
	}
	q := queued{sample: *s, header: *h}
	q.length = copy(q.bytes[:], s.Header)
	q.sample.Header, q.header.Options, q.header.TCP.Options = nil, nil, nil // the caller's
	select {
	case e.queue <- q:
		e.taken.Add(1)
	default:
		e.lost.Add(1)
		t := s.In
		if t == nil {
			t = s.Out
		}
		e.Lost(t, 1)
	}
}

// Lost says that so many samples, of packets from or to a tunnel, were lost before they came here; sFlow tells collectors. Nil: it is
// not known of which tunnel. Any goroutine may call it.
func (e *Exporter) Lost(t *flow.Tunnel, n uint64) {
	id := ""
	if t != nil {
		id = t.ID
	}
	e.mu.Lock()
	e.lostFrom[id] += n
	e.mu.Unlock()
}

// Stats may be called by any goroutine.
func (e *Exporter) Stats() Stats {
	s := Stats{Samples: e.taken.Load(), Lost: e.lost.Load(), NotIP: e.notIP.Load(),
		FlowSamples: e.flows.Load(), CounterSamples: e.counters.Load(), Datagrams: e.datagrams.Load()}
	if m := e.meter; m != nil {
		s.Flows, s.FlowRecords, s.Biflows = m.Stats.Flows.Get(), m.Stats.Records.Get(), m.Stats.Biflows.Get()
		s.Evicted, s.Messages = m.Stats.Evicted.Get(), m.Stats.Messages.Get()
	}
	for _, c := range e.collectors {
		s.Collectors = append(s.Collectors, c.stats())
	}
	return s
}

// Run exports until ctx is done, and then tells what is left and closes the collectors' sockets. It is called once.
func (e *Exporter) Run(ctx context.Context) {
	var keepers sync.WaitGroup
	for _, c := range e.collectors {
		keepers.Go(func() { c.keep(ctx, func() { e.missed.Store(true) }) })
	}
	defer func() {
		keepers.Wait()
		for _, c := range e.collectors {
			c.close()
		}
	}()
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	e.tick(time.Now())
	for {
		select {
		case e.current = <-e.queue:
			e.take(time.Now())
		case <-tick.C:
			e.tick(time.Now())
		case <-ctx.Done():
			e.finish(time.Now())
			return
		}
	}
}

// take exports the current sample.
func (e *Exporter) take(now time.Time) {
	q := &e.current
	q.sample.Header = q.bytes[:q.length]
	table := e.interfaces()
	in, out := table.Of(q.sample.In), table.Of(q.sample.Out)
	isIP := true
	if e.sflow != nil {
		if isIP = e.sflow.Flow(&q.sample, in, out, now); isIP {
			e.flows.Add(1)
		}
	}
	if e.meter != nil {
		isIP = e.meter.Add(&q.sample, &q.header, in, out, now) && isIP
	}
	if !isIP {
		e.notIP.Add(1)
	}
}

// interfaces returns the tunnels as they are now, which the meter gets to know as well.
func (e *Exporter) interfaces() *ifindex.Table {
	if t := e.table.Load(); t != e.used {
		e.used = t
		if e.meter != nil {
			e.meter.Interfaces(t)
		}
	}
	return e.used
}

func (e *Exporter) tick(now time.Time) {
	e.interfaces()
	if e.sflow != nil {
		e.tellLost()
		e.tellCounters(now)
		e.sflow.Flush(now)
	}
	if e.meter != nil {
		if e.missed.Swap(false) {
			e.meter.Repeat()
		}
		e.meter.Tick(now)
	}
}

func (e *Exporter) tellLost() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, n := range e.lostFrom {
		e.sflow.Lost(e.used.Of(&flow.Tunnel{ID: id}), n)
	}
	clear(e.lostFrom)
}

// tellCounters tells a part of the tunnels' counters each time, so that thousands of tunnels make no burst.
func (e *Exporter) tellCounters(now time.Time) {
	if e.opts.Counters == nil {
		return
	}
	if len(e.pending) == 0 && !now.Before(e.poll) {
		e.poll = now.Add(e.opts.CounterInterval)
		e.pending = e.opts.Counters()
		steps := max(1, int(e.opts.CounterInterval/flushInterval))
		e.portion = (len(e.pending) + steps - 1) / steps
	}
	n := min(e.portion, len(e.pending))
	for i := range e.pending[:n] {
		if x := e.used.Of(e.pending[i].Tunnel); x != nil {
			e.sflow.Counters(x, &e.pending[i].Counters, now)
			e.counters.Add(1)
		}
	}
	e.pending = e.pending[n:]
}

// finish exports what is left.
func (e *Exporter) finish(now time.Time) {
	for {
		select {
		case e.current = <-e.queue:
			e.take(now)
			continue
		default:
		}
		break
	}
	e.tick(now)
	if e.meter != nil {
		e.meter.Close(now)
	}
}
