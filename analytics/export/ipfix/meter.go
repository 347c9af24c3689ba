// Package ipfix makes flows of samples and exports them as IPFIX messages (RFC 7011, RFC 7012).
//
// A flow is the packets in one direction with the same addresses, ports, protocol and tunnels, and of the same fate. Addresses and
// ports are those of inner packets; tunnels are interfaces (ingressInterface, egressInterface), whose names, ids and accounts are
// told by options records (interfaceName, interfaceDescription, VRFname).
//
// Counts are scaled: each sample counts for the packets that it stands for, because sampling differs between tunnels and changes with
// load, and a collector knows one interval for each exporter. So the sampling that is told is 1 in 1: there is nothing left to
// multiply by. From how many samples a record was made is its samplingSize.
package ipfix

import (
	"time"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/flow"
	"causeway/analytics/tally"
)

// Options say how flows are metered. Zero values have defaults.
type Options struct {
	Domain    uint32        // observation domain: tells apart the exporters of one address
	Flows     int           // that are kept at most; default 32768
	Active    time.Duration // a flow is told after this time, if it goes on or not; default 60 s
	Idle      time.Duration // and when no packet of it was sampled for this time; default 15 s
	Templates time.Duration // after which templates and options are repeated; default 60 s
	Biflow    bool          // tell both directions of a flow in one record (RFC 5103): only for collectors that
	// read it. nfacctd 1.7 and FastNetMon 1.2 do not count the reverse direction.
}

func (o *Options) setDefaults() {
	if o.Flows <= 0 {
		o.Flows = 32768
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{{&o.Active, time.Minute}, {&o.Idle, 15 * time.Second}, {&o.Templates, time.Minute}} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
}

// flowEndReason (IANA, from RFC 5102 5.11.3).
const (
	idleTimeout   = 1
	activeTimeout = 2
	endOfFlow     = 3
	forcedEnd     = 4
	noResources   = 5
)

// portion is how many interfaces are told at a time.
const portion = 256

// Stats are counts since the start. Any goroutine may read them.
type Stats struct {
	Flows    tally.Counter // in the cache now
	Records  tally.Counter // of flows
	Biflows  tally.Counter // of them, those of both directions
	Evicted  tally.Counter // of them, those that were told early because the cache was full
	Messages tally.Counter
}

// A Meter makes flows of samples and tells them when they are over. It is for one goroutine, Stats excepted.
type Meter struct {
	opts   Options
	Stats  Stats
	out    *writer
	cache  *cache
	table  *ifindex.Table
	due    time.Time // of the templates
	told   int       // interfaces, since the templates were
	single [2]*template
	double [2]*template
}

// NewMeter makes a meter. Send gets each message, which is its only during the call.
func NewMeter(o Options, send func(message []byte)) *Meter {
	o.setDefaults()
	m := &Meter{opts: o, out: newWriter(o.Domain, send), cache: newCache(o.Flows)}
	m.single[0], m.double[0] = flowTemplates(4)
	m.single[1], m.double[1] = flowTemplates(6)
	return m
}

// Add counts a sampled packet. In and out are what the sample's tunnels are to collectors, nil for none. It reports whether the header
// is one of an IP packet: others belong to no flow.
func (m *Meter) Add(s *flow.Sample, h *flow.Header, in, out *ifindex.Interface, now time.Time) bool {
	if h.Version != 4 && h.Version != 6 {
		return false
	}
	k := keyOf(s, h, in, out)
	i := m.cache.find(&k)
	if i == 0 {
		if m.cache.full() {
			m.Stats.Evicted.Add(1)
			m.end(m.cache.front(byUse), noResources, now)
		}
		i = m.cache.add(&k)
		m.cache.entries[i].open(s, h, now)
	} else {
		m.cache.use(i)
	}
	m.cache.entries[i].count(s, h, now)
	m.Stats.Flows.Set(uint64(len(m.cache.index)))
	return true
}

// Tick tells the flows that are over, repeats the templates when it is time, and sends what was collected. It is to be called at
// least once a second.
func (m *Meter) Tick(now time.Time) {
	m.announce(now)
	m.tellInterfaces(now)
	ms := now.UnixMilli()
	for i := m.cache.front(byAge); i != 0 && ms-m.cache.entries[i].opened >= m.opts.Active.Milliseconds(); i = m.cache.front(byAge) {
		m.end(i, activeTimeout, now)
	}
	for i := m.cache.front(byUse); i != 0 && ms-m.cache.entries[i].touched >= m.opts.Idle.Milliseconds(); i = m.cache.front(byUse) {
		m.idle(i, now)
	}
	m.Stats.Flows.Set(uint64(len(m.cache.index)))
	m.out.flush(now)
	m.Stats.Messages.Set(m.out.messages)
}

// Interfaces says what tunnels there are; all are told, beginning with the next Tick.
func (m *Meter) Interfaces(t *ifindex.Table) {
	m.table, m.due = t, time.Time{}
}

// Repeat has the templates told at once: there is a collector that has missed them.
func (m *Meter) Repeat() { m.due = time.Time{} }

// Close tells all flows.
func (m *Meter) Close(now time.Time) {
	for i := m.cache.front(byAge); i != 0; i = m.cache.front(byAge) {
		m.end(i, forcedEnd, now)
	}
	m.Tick(now)
}

// announce writes the templates and options if it is time: over UDP they may be lost, and collectors forget them (RFC 7011 8.4).
func (m *Meter) announce(now time.Time) {
	if now.Before(m.due) {
		return
	}
	m.due = now.Add(m.opts.Templates)
	for family := range m.single {
		m.out.template(m.single[family], now)
		if m.opts.Biflow {
			m.out.template(m.double[family], now)
		}
	}
	// FastNetMon reads one options template of a set.
	for _, t := range [...]*template{samplingOptions, interfaceOptions} {
		m.out.endSet()
		m.out.template(t, now)
	}
	m.out.samplingRecord(now)
	m.told = 0
}

// tellInterfaces tells the names of some more tunnels: of thousands it would be too much for a collector at once.
func (m *Meter) tellInterfaces(now time.Time) {
	all := m.table.All()
	for end := min(m.told+portion, len(all)); m.told < end; m.told++ {
		m.out.interfaceRecord(&all[m.told], now)
	}
}

// idle ends a flow of which no packet was sampled for some time, unless the other direction, told with it, is in use.
func (m *Meter) idle(i int32, now time.Time) {
	x := &m.cache.entries[i]
	if r := m.partner(x); r != 0 && now.UnixMilli()-m.cache.entries[r].touched < m.opts.Idle.Milliseconds() {
		x.touched = m.cache.entries[r].touched
		m.cache.useAs(i, r)
		return
	}
	m.end(i, idleTimeout, now)
}

// partner returns the index of the other direction's entry if both are to be told in one record; otherwise 0.
func (m *Meter) partner(x *entry) int32 {
	if !m.opts.Biflow {
		return 0
	}
	k := x.key.reversed()
	if k == x.key {
		return 0
	}
	return m.cache.find(&k)
}

// end tells a flow, and with it the other direction, and forgets them.
func (m *Meter) end(i int32, reason uint8, now time.Time) {
	m.announce(now)
	x, y := &m.cache.entries[i], (*entry)(nil)
	r := m.partner(x)
	if r != 0 {
		y = &m.cache.entries[r]
		if y.forwardOf(x) {
			x, y = y, x
		}
	}
	x.reason = reason
	if reason == idleTimeout && (x.flags&(tcpFIN|tcpRST) != 0 || y != nil && y.flags&(tcpFIN|tcpRST) != 0) {
		x.reason = endOfFlow
	}
	family := 0
	if x.key.version == 6 {
		family = 1
	}
	if y != nil {
		m.out.record(m.double[family], x, y, now)
		m.Stats.Biflows.Add(1)
		m.cache.remove(r)
	} else {
		m.out.record(m.single[family], x, nil, now)
	}
	m.Stats.Records.Add(1)
	m.cache.remove(i)
}
