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
	s := flow.Sample{Time: at, Every: p.Every, In: c.names[int(p.In)], Out: c.names[int(p.Out)], Verdict: flow.Verdict(p.Verdict),
		Length: int(p.Length), Header: p.Header[:p.Size]}
	if p.Reason != pipeline.ReasonNone {
		s.Reason = p.Reason.String()
	}
	h := flow.Parse(s.Header)
	c.stats.samples.Add(1)
	for _, f := range c.o.Sinks {
		f(&s, &h)
	}
	if c.o.Write != nil {
		c.keep(&s, &h, p.Probe)
	}
}

// keep makes rows of a sample for the store, if it is not one of too many.
func (c *Collector) keep(s *flow.Sample, h *flow.Header, probe bool) {
	if c.thin > 1 && c.random.Uint32N(c.thin) > 0 {
		c.stats.thinned.Add(1)
		return
	}
	if c.inSecond++; c.inSecond == samplesPerSecond {
		c.inSecond = 0
		defer func() { c.thin *= 2 }() // from the next one on
	}
	row := store.Sample{Sample: *s, Packet: *h, Probe: probe}
	row.Every *= c.thin
	row.Header = nil // what there is to know of it stands in Packet
	if c.o.Origin != nil {
		row.Src, row.Dst = c.o.Origin(h.Src.As16()), c.o.Origin(h.Dst.As16())
	}
	row.Packet.Src, row.Packet.Dst = c.truncate(h.Src), c.truncate(h.Dst)
	row.Packet.Options, row.Packet.TCP.Options = clone(h.Options), clone(h.TCP.Options)
	in, out := s.In, s.Out
	switch {
	case in == nil && out == nil:
		c.batch.Samples = append(c.batch.Samples, row) // the operator's alone
	case in != nil && out != nil && in.Account == out.Account:
		row.Account = out.Account
		c.batch.Samples = append(c.batch.Samples, row)
	default: // what goes from one account to another leaves the one and comes to the other
		if in != nil {
			row.Account, row.In, row.Out = in.Account, in, nil
			c.batch.Samples = append(c.batch.Samples, row)
		}
		if out != nil {
			row.Account, row.In, row.Out = out.Account, nil, out
			c.batch.Samples = append(c.batch.Samples, row)
		}
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
