// Package storetest is what the tests of the stores have in common: an oracle, and whatever may be written and asked.
package storetest

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// An Oracle answers from a plain list of rows.
type Oracle struct {
	rows map[dataset.Table][]*fact
}

// A fact is a row with all that can be asked of it, by the names of GraphQL.
type fact struct {
	t       int64
	account string
	dims    map[string]any // string or uint64
	id      string         // of an attack
	ended   int64

	packets, bytes, dropped, bits, droppedBits uint64
	every, length                              uint64
	state                                      string
	probes, lost                               uint64
	samples, sources                           uint64 // of tops
	packetsError, bytesError                   uint64
	packetsVariance, bitsVariance              float64
	hour                                       bool
	rtt                                        float64
	peakPackets, peakBytes                     uint64
}

// NewOracle makes one that knows nothing.
func NewOracle() *Oracle { return &Oracle{map[dataset.Table][]*fact{}} }

func placeDims(p *store.Place, prefix string) map[string]any {
	return map[string]any{prefix + "City": p.City, prefix + "Code": p.DataCenter, prefix + "Country": p.Country, prefix + "Geohash": p.Geohash,
		prefix + "Name": p.DataCenter, prefix + "Region": p.Region, "edgePopName": p.Node}
}

func tunnelDims(m map[string]any, in, out *flow.Tunnel) {
	for _, k := range []string{"ingressTunnelID", "ingressTunnelName", "onRamp", "egressTunnelID", "egressTunnelName", "offRamp"} {
		m[k] = ""
	}
	if in != nil {
		m["ingressTunnelID"], m["ingressTunnelName"], m["onRamp"] = in.ID, in.Name, in.Kind
	}
	if out != nil {
		m["egressTunnelID"], m["egressTunnelName"], m["offRamp"] = out.ID, out.Name, out.Kind
	}
}

func name(t *flow.Tunnel) string {
	if t == nil {
		return ""
	}
	return t.Name
}

// Take remembers a batch.
func (o *Oracle) Take(b *store.Batch) {
	for _, r := range b.Traffic {
		m := placeDims(&b.Place, "edgeColo")
		m["direction"], m["tunnelName"] = r.Direction.String(), r.Tunnel.Name
		if r.Direction == flow.Egress {
			tunnelDims(m, r.Tunnel, nil)
		} else {
			tunnelDims(m, nil, r.Tunnel)
		}
		o.count(dataset.TrafficTable, &fact{t: r.Time, account: r.Account, dims: m, packets: r.Packets, bytes: r.Bytes, dropped: r.Dropped})
	}
	for _, r := range b.Drops {
		m := placeDims(&b.Place, "edgeColo")
		m["direction"], m["tunnelName"], m["dropReason"] = r.Direction.String(), name(r.Tunnel), r.Reason
		o.count(dataset.DropsTable, &fact{t: r.Time, account: r.Account, dims: m, packets: r.Packets})
	}
	for i := range b.Samples {
		o.sample(&b.Place, &b.Samples[i])
	}
	for i := range b.Tops {
		o.top(&b.Place, &b.Tops[i])
	}
	for _, r := range b.Health {
		m := placeDims(&b.Place, "edgeColo")
		m["active"], m["remoteTunnelIPv4"], m["resultStatus"], m["siteName"], m["tunnelName"] = uint64(0), r.Remote, r.State, "", r.Tunnel.Name
		if r.Active {
			m["active"] = uint64(1)
		}
		f := &fact{t: r.Time, account: r.Account, dims: m, state: r.State, probes: r.Probes, lost: r.Lost, rtt: float64(r.RTT.Nanoseconds()) / 1000}
		o.replace(dataset.HealthTable, f, func(x *fact) bool {
			return x.t == f.t && x.account == f.account && x.dims["tunnelName"] == r.Tunnel.Name && x.dims["edgePopName"] == b.Place.Node
		})
	}
	for _, r := range b.Attacks {
		m := placeDims(&b.Place, "colo")
		for k, v := range map[string]any{"attackId": r.ID, "attackType": r.Type, "attackVector": r.Vector, "ruleId": r.Vector, "ruleName": r.Vector,
			"commonTcpFlagsNames": flow.TCPFlagNames(r.TCPFlags), "commonTcpFlags": uint64(r.TCPFlags), "sourceIp": r.Src,
			"sourcePort":    uint64(r.SrcPort),
			"destinationIp": r.Dst, "destinationPort": uint64(r.DstPort), "ipProtocol": uint64(r.Protocol),
			"ipProtocolName":   flow.ProtocolName(r.Protocol),
			"mitigationReason": "", "mitigationScope": "", "mitigationType": "none", "rulesetId": "", "rulesetOverrideId": ""} {
			m[k] = v
		}
		f := &fact{t: r.Start, account: r.Account, dims: m, id: r.ID, ended: r.End, packets: r.Packets, bits: r.Bits, dropped: r.DroppedPackets,
			droppedBits: r.DroppedBits}
		o.replace(dataset.AttackTable, f, func(x *fact) bool { return x.id == f.id && x.account == f.account })
	}
}

// top adds up tops of the same value.
func (o *Oracle) top(p *store.Place, r *store.Top) {
	m := placeDims(p, "edgeColo")
	m["direction"], m["tunnelName"], m["kind"], m["value"] = r.Direction.String(), name(r.Tunnel), r.Kind.String(), r.Value
	f := &fact{t: r.Time, account: r.Account, dims: m, hour: r.Hour}
	known := false
	for _, x := range o.rows[dataset.TopTable] {
		if x.t == f.t && x.hour == f.hour && x.account == f.account && fmt.Sprint(x.dims) == fmt.Sprint(f.dims) {
			f, known = x, true
		}
	}
	if !known {
		o.rows[dataset.TopTable] = append(o.rows[dataset.TopTable], f)
	}
	f.samples, f.packets, f.bytes = f.samples+r.Samples, f.packets+r.Packets, f.bytes+r.Bytes
	f.packetsError, f.bytesError = f.packetsError+r.PacketsError, f.bytesError+r.BytesError
	f.packetsVariance, f.bitsVariance = f.packetsVariance+r.PacketsVariance, f.bitsVariance+r.BitsVariance
	f.sources = max(f.sources, r.Sources)
}

// tops is the rows of tops at a resolution. The hours that may not be written yet, because they have not been over for five minutes, are made of
// minutes.
func (o *Oracle) tops(resolution, now int64) (out []*fact) {
	cut := (now - 300) / 3600 * 3600
	for _, f := range o.rows[dataset.TopTable] {
		hour := f.t / 3600 * 3600
		switch {
		case resolution == 60 && !f.hour, resolution == 3600 && f.hour && hour < cut:
			out = append(out, f)
		case resolution == 3600 && !f.hour && hour >= cut:
			x := *f
			x.t = hour
			out = append(out, &x)
		}
	}
	return out
}

// count adds exact counts of the same second up.
func (o *Oracle) count(table dataset.Table, f *fact) {
	for _, x := range o.rows[table] {
		if x.t == f.t && x.account == f.account && fmt.Sprint(x.dims) == fmt.Sprint(f.dims) {
			x.packets, x.bytes, x.dropped = x.packets+f.packets, x.bytes+f.bytes, x.dropped+f.dropped
			return
		}
	}
	o.rows[table] = append(o.rows[table], f)
}

func (o *Oracle) replace(table dataset.Table, f *fact, same func(*fact) bool) {
	o.rows[table] = append(slices.DeleteFunc(o.rows[table], same), f)
}

func zeroOne(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (o *Oracle) sample(p *store.Place, s *store.Sample) {
	m := placeDims(p, "colo")
	tunnelDims(m, s.In, s.Out)
	h, tcp, gre := &s.Packet, &s.Packet.TCP, &s.Packet.GRE
	m["direction"], m["dropReason"], m["verdict"], m["outcome"], m["trafficType"] = s.Direction().String(), s.Reason, s.Verdict.String(), "pass", ""
	if s.Verdict == flow.Dropped {
		m["outcome"] = "drop"
	}
	if s.Probe {
		m["trafficType"] = "probe"
	}
	for _, k := range []string{"mitigationSystem", "sourceGeohash", "destinationGeohash", "prefixTag", "leaseTag", "applicationTag"} {
		m[k] = ""
	}
	for k, v := range map[string]string{"sourceAsnName": s.Src.ASName, "sourceCountry": s.Src.Country, "destinationAsnName": s.Dst.ASName,
		"destinationCountry": s.Dst.Country,
		"ipSourceAddress":    h.Src.String(), "ipDestinationAddress": h.Dst.String(), "ipSourceSubnet": net(h.Src), "ipDestinationSubnet": net(h.Dst),
		"ethertype": fmt.Sprint("IPv", h.Version), "ipProtocolName": flow.ProtocolName(h.Protocol), "ipv4Options": fmt.Sprintf("%x", h.Options),
		"ipv6ExtensionHeaders": strings.Trim(fmt.Sprint(h.Extensions.All()), "[]"), "tcpFlagsString": flow.TCPFlagNames(tcp.Flags),
		"tcpOptions": fmt.Sprintf("%x", tcp.Options)} {
		m[k] = v
	}
	v4, v6 := zeroOne(h.Version == 4), zeroOne(h.Version == 6)
	for k, v := range map[string]uint64{"sampleInterval": uint64(s.Every), "sourceAsn": uint64(s.Src.ASN), "destinationAsn": uint64(s.Dst.ASN),
		"sourcePort":      uint64(h.SrcPort),
		"destinationPort": uint64(h.DstPort), "ipFragmentOffset": uint64(h.FragmentOffset), "ipMoreFragments": zeroOne(h.MoreFragments),
		"ipHeaderLength": uint64(h.HeaderBytes),
		"ipProtocol":     uint64(h.Protocol), "ipTotalLength": uint64(s.Length), "ipTotalLengthBuckets": uint64(s.Length / 100 * 100),
		"ipTtl":        uint64(h.TTL),
		"ipTtlBuckets": uint64(h.TTL / 10 * 10), "ipv4Checksum": uint64(h.Checksum), "ipv4DontFragment": zeroOne(h.DontFragment),
		"ipv4Dscp": v4 * uint64(h.DSCP),
		"ipv4Ecn":  v4 * uint64(h.ECN), "ipv4Identification": v4 * uint64(h.Identification), "ipv6Dscp": v6 * uint64(h.DSCP),
		"ipv6Ecn":       v6 * uint64(h.ECN),
		"ipv6FlowLabel": uint64(h.FlowLabel), "ipv6Identification": v6 * uint64(h.Identification), "greChecksum": uint64(gre.Checksum),
		"greEthertype":    uint64(gre.EtherType),
		"greHeaderLength": uint64(gre.Bytes), "greKey": uint64(gre.Key), "greSequenceNumber": uint64(gre.Sequence), "greVersion": uint64(gre.Version),
		"icmpType": uint64(h.ICMPType), "icmpCode": uint64(h.ICMPCode), "icmpChecksum": uint64(h.ICMPChecksum),
		"tcpAcknowledgementNumber": uint64(tcp.Ack),
		"tcpChecksum":              uint64(tcp.Checksum), "tcpDataOffset": uint64(tcp.DataOffset), "tcpFlags": uint64(tcp.Flags),
		"tcpMss":        uint64(tcp.MSS),
		"tcpSackBlocks": uint64(tcp.SACKBlocks), "tcpSackPermitted": zeroOne(tcp.SACKPermitted), "tcpSequenceNumber": uint64(tcp.Seq),
		"tcpTimestampEcr":   uint64(tcp.TSEcho),
		"tcpTimestampValue": uint64(tcp.TSValue), "tcpUrgentPointer": uint64(tcp.Urgent), "tcpWindowScale": uint64(tcp.WindowScale),
		"tcpWindowSize": uint64(tcp.Window),
		"udpChecksum":   uint64(h.UDPChecksum), "udpPayloadLength": uint64(h.UDPLength)} {
		m[k] = v
	}
	o.rows[dataset.SampleTable] = append(o.rows[dataset.SampleTable], &fact{t: s.Time.Unix(), account: s.Account, dims: m, every: uint64(s.Every),
		length: uint64(s.Length)})
}

func net(a netip.Addr) string {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	return netip.PrefixFrom(a, bits).Masked().String()
}

// value is a dimension of a row: string, uint64, time.Time or nil.
func (f *fact) value(d *dataset.Dimension) any {
	switch {
	case d.Name == "endDatetime" && f.ended == 0:
		return nil
	case d.Name == "endDatetime":
		return time.Unix(f.ended, 0).UTC()
	case d.Bucket > 0:
		return time.Unix(f.t/d.Bucket*d.Bucket, 0).UTC()
	}
	v, ok := f.dims[d.Name]
	if !ok {
		panic("the oracle does not know " + d.Name)
	}
	return v
}

func compareValues(a, b any) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	switch a := a.(type) {
	case string:
		return strings.Compare(a, b.(string))
	case uint64:
		if b := b.(uint64); a != b {
			return map[bool]int{true: -1, false: 1}[a < b]
		}
		return 0
	}
	return a.(time.Time).Compare(b.(time.Time))
}

func (f *fact) matches(w *store.Where) bool {
	for i := range w.All {
		if !f.matches(&w.All[i]) {
			return false
		}
	}
	if len(w.Any) > 0 && !slices.ContainsFunc(w.Any, func(x store.Where) bool { return f.matches(&x) }) {
		return false
	}
	return w.Dimension == nil || f.compares(w)
}

func (f *fact) compares(w *store.Where) bool {
	v := f.value(w.Dimension)
	equal := slices.ContainsFunc(w.Values, func(x any) bool { return v != nil && compareValues(v, x) == 0 })
	switch w.Op {
	case store.In:
		return equal
	case store.NotIn:
		return !equal && (v != nil || len(w.Values) == 0)
	}
	if v == nil { // it comes later than all that is
		return w.Op == store.Greater || w.Op == store.AtLeast
	}
	if w.Op == store.Like || w.Op == store.NotLike {
		pattern := regexp.QuoteMeta(w.Values[0].(string))
		pattern = "(?s)^" + strings.NewReplacer("%", ".*", "_", ".").Replace(pattern) + "$"
		return regexp.MustCompile(pattern).MatchString(v.(string)) == (w.Op == store.Like)
	}
	c := compareValues(v, w.Values[0])
	return map[store.Op]bool{store.Equal: c == 0, store.Not: c != 0, store.Greater: c > 0, store.AtLeast: c >= 0, store.Less: c < 0,
		store.AtMost: c <= 0}[w.Op]
}

// at is the rows of a table, rolled up to a resolution.
func (o *Oracle) at(table dataset.Table, resolution, now int64) (out []*fact) {
	if table == dataset.TopTable {
		return o.tops(resolution, now)
	}
	if table != dataset.TrafficTable && table != dataset.DropsTable {
		return o.rows[table]
	}
	byKey := map[string]*fact{}
	for _, f := range o.rows[table] {
		t := f.t / resolution * resolution
		key := fmt.Sprint(t, f.account, f.dims)
		r := byKey[key]
		if r == nil {
			r = &fact{t: t, account: f.account, dims: f.dims}
			byKey[key] = r
			out = append(out, r)
		}
		r.packets, r.bytes, r.dropped = r.packets+f.packets, r.bytes+f.bytes, r.dropped+f.dropped
		r.peakPackets, r.peakBytes = max(r.peakPackets, f.packets), max(r.peakBytes, f.bytes)
	}
	return out
}

// A Span is what the tests put into the condition of a query; zero: no bound.
type Span struct{ From, To int64 }

// Groups answers as a store should that has rows of a resolution, in seconds.
func (o *Oracle) Groups(q *store.Query, resolution int64, asked Span, now int64) (out []store.Group) {
	byKey := map[string][]*fact{}
	first := int64(math.MaxInt64)
	for _, f := range o.at(q.Dataset.Table, resolution, now) {
		if (q.Account != store.Operator && q.Account != f.account) || !f.matches(&q.Where) {
			continue
		}
		first = min(first, f.t)
		key := fmt.Sprintf("%q", f.id)
		for _, d := range q.By {
			key += fmt.Sprintf(" %q", fmt.Sprint(f.value(d)))
		}
		byKey[key] = append(byKey[key], f)
	}
	for _, rows := range byKey {
		g := store.Group{}
		from, to := asked.From, asked.To
		if from == 0 {
			from = first
		}
		if to == 0 || to > now {
			to = now
		}
		for _, d := range q.By {
			g.Values = append(g.Values, rows[0].value(d))
			if d.Bucket > 0 && d.Name != "endDatetime" {
				t := rows[0].t / d.Bucket * d.Bucket
				from, to = max(from, t), min(to, t+d.Bucket)
			}
		}
		for _, m := range q.Measures {
			g.Measures = append(g.Measures, measured(m, q.Dataset.Table, rows, resolution, from, to))
		}
		if q.Dataset.Table == dataset.SampleTable {
			g.Rows = uint64(len(rows))
			for _, r := range rows {
				w, x := float64(r.every), float64(8*r.length)
				g.PacketsVariance += w * (w - 1)
				g.BitsVariance += w * (w - 1) * x * x
			}
		}
		for _, r := range rows {
			g.Rows, g.PacketsVariance, g.BitsVariance = g.Rows+r.samples, g.PacketsVariance+r.packetsVariance, g.BitsVariance+r.bitsVariance
		}
		out = append(out, g)
	}
	o.order(q, out)
	return out[:min(len(out), q.Limit)]
}

func (o *Oracle) order(q *store.Query, groups []store.Group) {
	sort.SliceStable(groups, func(i, j int) bool {
		a, b := groups[i], groups[j]
		for _, by := range q.Order {
			c := 0
			if by.Dimension != nil {
				n := slices.Index(q.By, by.Dimension)
				c = compareValues(a.Values[n], b.Values[n])
			} else if n := slices.Index(q.Measures, by.Measure); a.Measures[n] != b.Measures[n] {
				c = map[bool]int{true: -1, false: 1}[a.Measures[n] < b.Measures[n]]
			}
			if by.Descending {
				c = -c
			}
			if c != 0 {
				return c < 0
			}
		}
		for n := range q.By {
			if c := compareValues(a.Values[n], b.Values[n]); c != 0 {
				return c < 0
			}
		}
		return false
	})
}

// amount is what a row adds to a sum.
func (f *fact) amount(v dataset.Value, t dataset.Table) float64 {
	switch {
	case v == dataset.Bits && t == dataset.SampleTable:
		return float64(8 * f.every * f.length)
	case v == dataset.Bits && t == dataset.AttackTable:
		return float64(f.bits)
	case v == dataset.Bits:
		return float64(8 * f.bytes)
	case v == dataset.PacketCount && t == dataset.SampleTable:
		return float64(f.every)
	case v == dataset.PacketCount:
		return float64(f.packets)
	case v == dataset.DroppedPackets:
		return float64(f.dropped)
	case v == dataset.DroppedBits:
		return float64(f.droppedBits)
	case v == dataset.Probes:
		return float64(f.probes)
	case v == dataset.Lost:
		return float64(f.lost)
	case v == dataset.SampleCount:
		return float64(f.samples)
	case v == dataset.PacketsError:
		return float64(f.packetsError)
	case v == dataset.BitsError:
		return float64(8 * f.bytesError)
	}
	return 1
}

func measured(m dataset.Measure, t dataset.Table, rows []*fact, resolution, from, to int64) float64 {
	if m.Value == dataset.DistinctSources {
		return float64(slices.MaxFunc(rows, func(a, b *fact) int { return cmp.Compare(a.sources, b.sources) }).sources)
	}
	if m.Block == dataset.Max || m.Block == dataset.P95 {
		return ofIntervals(m, t, rows, resolution, from, to)
	}
	total, answered, n := 0.0, 0.0, float64(len(rows))
	for _, r := range rows {
		switch m.Value {
		case dataset.SampleInterval:
			total += map[bool]float64{true: float64(r.every), false: 1}[t == dataset.SampleTable] / n
		case dataset.TunnelState:
			total += map[string]float64{"healthy": 1, "degraded": 0.5}[r.state] / n
		case dataset.RTT:
			total, answered = total+r.rtt*float64(r.probes-r.lost), answered+float64(r.probes-r.lost)
		default:
			total += r.amount(m.Value, t)
		}
	}
	if m.Value == dataset.RTT {
		if answered == 0 {
			return 0
		}
		return total / answered
	}
	if m.Seconds > 0 {
		total /= float64(m.Seconds)
	}
	return total
}

func ofIntervals(m dataset.Measure, t dataset.Table, rows []*fact, resolution, from, to int64) float64 {
	byInterval := map[int64][]*fact{}
	for _, r := range rows {
		byInterval[r.t] = append(byInterval[r.t], r)
	}
	alone, peak := true, 0.0
	var rates []float64
	for start := (from + resolution - 1) / resolution * resolution; start < to; start += resolution {
		if byInterval[start] == nil {
			rates = append(rates, 0)
		}
	}
	for _, list := range byInterval {
		rate := 0.0
		alone = alone && len(list) == 1
		for _, r := range list {
			rate += r.amount(m.Value, t) / float64(resolution)
			peak = max(peak, map[bool]float64{true: float64(8 * r.peakBytes), false: float64(r.peakPackets)}[m.Value == dataset.Bits])
		}
		rates = append(rates, rate)
	}
	slices.Sort(rates)
	switch {
	case m.Block == dataset.P95:
		return rates[int(math.Ceil(0.95*float64(len(rates))))-1]
	case alone:
		return peak
	}
	return rates[len(rates)-1]
}
