package query

import (
	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// A Series is all that repeats from row to row. Its fields are columns, by SeriesColumns.
type Series struct {
	Account, Node, DataCenter, Region, City, Country, Geohash string
	Direction, Reason                                         string
	Tunnel                                                    string // of exact counts and health
	InID, InName, OnRamp, OutID, OutName, OffRamp             string
	Verdict, Outcome, TrafficType                             string // of samples
}

// SeriesColumns are the columns of a Series, as Fields has them.
var SeriesColumns = []string{"account", "node", "datacenter", "region", "city", "country", "geohash", "direction", "reason", "tunnel",
	"in_id", "in_name", "on_ramp", "out_id", "out_name", "off_ramp", "verdict", "outcome", "traffic_type"}

// Fields point into s.
func (s *Series) Fields() []*string {
	return []*string{&s.Account, &s.Node, &s.DataCenter, &s.Region, &s.City, &s.Country, &s.Geohash, &s.Direction, &s.Reason, &s.Tunnel,
		&s.InID, &s.InName, &s.OnRamp, &s.OutID, &s.OutName, &s.OffRamp, &s.Verdict, &s.Outcome, &s.TrafficType}
}

// SeriesOf is the series of exact counts and of health. The one tunnel of an exact count, which may be nil, stands where its direction says:
// lateral traffic counts for the tunnel that it went into.
func SeriesOf(p *store.Place, account string, t *flow.Tunnel, d flow.Direction, reason string) (s Series) {
	s.place(p, account)
	s.Direction, s.Reason = d.String(), reason
	switch {
	case t == nil:
		return s
	case d == flow.Egress:
		s.in(t)
	default:
		s.out(t)
	}
	s.Tunnel = t.Name
	return s
}

// SampleSeries is the series of a sample.
func SampleSeries(p *store.Place, r *store.Sample) (s Series) {
	s.place(p, r.Account)
	s.in(r.In)
	s.out(r.Out)
	s.Direction, s.Reason, s.Verdict, s.Outcome = r.Direction().String(), r.Reason, r.Verdict.String(), "pass"
	if r.Verdict == flow.Dropped {
		s.Outcome = "drop"
	}
	if r.Probe {
		s.TrafficType = "probe"
	}
	return s
}

func (s *Series) place(p *store.Place, account string) {
	s.Account, s.Node, s.DataCenter, s.Region, s.City, s.Country, s.Geohash = account, p.Node, p.DataCenter, p.Region, p.City, p.Country, p.Geohash
}

func (s *Series) in(t *flow.Tunnel) {
	if t != nil {
		s.InID, s.InName, s.OnRamp = t.ID, t.Name, t.Kind
	}
}

func (s *Series) out(t *flow.Tunnel) {
	if t != nil {
		s.OutID, s.OutName, s.OffRamp = t.ID, t.Name, t.Kind
	}
}

// The columns of attacks beside t and ended: text, and numbers.
var (
	AttackTexts = []string{"account", "id", "type", "vector", "src", "dst", "protocol_name", "tcp_flags_text", "mitigation",
		"node", "datacenter", "region", "city", "country", "geohash"}
	AttackNumbers = []string{"src_port", "dst_port", "protocol", "tcp_flags", "packets", "bits", "dropped_packets", "dropped_bits"}
)

// AttackValues are an attack's values of AttackTexts and AttackNumbers.
func AttackValues(p *store.Place, r *store.Attack) (texts []string, numbers []int64) {
	return []string{r.Account, r.ID, r.Type, r.Vector, r.Src, r.Dst, flow.ProtocolName(r.Protocol), flow.TCPFlagNames(r.TCPFlags), "none",
			p.Node, p.DataCenter, p.Region, p.City, p.Country, p.Geohash},
		[]int64{int64(r.SrcPort), int64(r.DstPort), int64(r.Protocol), int64(r.TCPFlags), Clamp(r.Packets), Clamp(r.Bits),
			Clamp(r.DroppedPackets), Clamp(r.DroppedBits)}
}

// most is more than there can be, and sums of it are exact for a long time.
const most = 1 << 53

// Clamp bounds a count, so that sums of it stay exact.
func Clamp(n uint64) int64 { return int64(min(n, most)) }
