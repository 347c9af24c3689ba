package collect

import (
	"net/netip"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/pipeline"
)

// take takes a sample from a worker's ring.
func (c *Collector) take(at time.Time, p *pipeline.Sample) {
	s := flow.Sample{Time: at, Every: p.Every, In: c.names[int(p.In)], Out: c.names[int(p.Out)], Verdict: p.Verdict,
		Length: int(p.Length), Header: p.Header[:p.Size]}
	if p.Reason != pipeline.ReasonNone {
		s.Reason = p.Reason.String()
	}
	h := flow.Parse(s.Header)
	c.stats.samples.Add(1)
	for _, f := range c.o.Sinks {
		f(&s, &h)
	}
	row := store.Sample{Sample: s, Packet: h, Probe: p.Probe}
	in, out := s.In, s.Out
	switch {
	case in == nil && out == nil:
		c.row(row, "", nil, nil) // the operator's alone
	case in != nil && out != nil && in.Account == out.Account:
		c.row(row, out.Account, in, out)
	default: // what goes from one account to another leaves the one and comes to the other
		if in != nil {
			c.row(row, in.Account, in, nil)
		}
		if out != nil {
			c.row(row, out.Account, nil, out)
		}
	}
}

// row takes a sample as an account may see it.
func (c *Collector) row(r store.Sample, account string, in, out *flow.Tunnel) {
	r.Account, r.In, r.Out = account, in, out
	if c.o.Detect != nil {
		c.o.Detect.Observe(&r)
	}
	if c.o.Write == nil {
		return
	}
	c.place(&r)
	c.minute.Observe(&r)
	c.hour.Observe(&r)
	if c.thin > 1 && c.random.Uint32N(c.thin) > 0 {
		c.stats.thinned.Add(1)
		return
	}
	r.Every *= c.thin
	if c.room--; c.room <= 0 { // the next ones count for more, and there is half a second's room until they would for still more
		c.room, c.thin = samplesPerSecond/2, 2*c.thin
	}
	c.batch.Samples = append(c.batch.Samples, kept(r))
}

// place adds what is known of a sample's addresses, and takes off them what is not kept.
func (c *Collector) place(r *store.Sample) {
	h := &r.Packet
	if c.o.Origin != nil {
		r.Src, r.Dst = c.o.Origin(h.Src.As16()), c.o.Origin(h.Dst.As16())
	}
	h.Src, h.Dst = c.truncate(h.Src), c.truncate(h.Dst)
}

// kept is of a sample what the store gets: without the parts that are the worker's.
func kept(r store.Sample) store.Sample {
	h := &r.Packet
	r.Header = nil // what there is to know of it stands in Packet
	h.Options, h.TCP.Options = clone(h.Options), clone(h.TCP.Options)
	return r
}

// endTops lists what the minute, and the hour, had that c.second lies in. A sample counts for the interval in which it was read.
func (c *Collector) endTops(minute, hour bool) {
	if minute {
		c.tops = append(c.tops, c.minute.End(c.second-c.second%60, false)...)
	}
	if hour {
		c.tops = append(c.tops, c.hour.End(c.second-c.second%3600, true)...)
	}
	c.stats.leftOut.Store(c.minute.LeftOut())
}

// addTops puts so many of the rows that wait into the batch.
func (c *Collector) addTops(n int) {
	n = min(n, len(c.tops))
	c.batch.Tops = append(c.batch.Tops, c.tops[:n]...)
	if c.tops = c.tops[n:]; len(c.tops) == 0 {
		c.tops = nil
	}
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

// truncate takes the bits off an address that are not kept.
func (c *Collector) truncate(a netip.Addr) netip.Addr {
	bits := c.o.Keep6
	if a.Is4() {
		bits = c.o.Keep4
	}
	if !a.IsValid() || bits == 0 {
		return a
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Addr{} // cannot be: the configuration has been checked
	}
	return p.Addr()
}
