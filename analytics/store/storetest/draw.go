package storetest

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"pgregory.net/rapid"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// Noon is when the tests begin.
var Noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// What batches are drawn of.
var (
	AcmeA   = &flow.Tunnel{ID: "a0", Name: "acme-a", Account: "acme", Kind: "GRE"}
	AcmeB   = &flow.Tunnel{ID: "b0", Name: "Acme_b%", Account: "acme", Kind: "IPSec"}
	OtherA  = &flow.Tunnel{ID: "c0", Name: "acme-a", Account: "other", Kind: "GRE"}
	Tunnels = []*flow.Tunnel{AcmeA, AcmeB, OtherA}
	Places  = []store.Place{
		{Node: "edge-1", DataCenter: "ams1", Region: "WEUR", City: "Amsterdam", Country: "NL", Geohash: "u173"},
		{Node: "edge-2", DataCenter: "fra1", Region: "WEUR", City: "Frankfurt's", Country: "DE", Geohash: "u0y"},
	}
	reasons = []string{"no_route", "ttl", "it's; DROP TABLE series --"}
)

// DrawBatch is rows of one node from some minutes on.
func DrawBatch(t *rapid.T, start int64) *store.Batch {
	b := &store.Batch{Place: rapid.SampledFrom(Places).Draw(t, "place")}
	n := rapid.IntRange(0, 25)
	at := func() int64 { return start + int64(rapid.IntRange(0, 400).Draw(t, "t")) }
	tunnel := rapid.SampledFrom(Tunnels)
	direction := rapid.SampledFrom([]flow.Direction{flow.Ingress, flow.Egress, flow.Lateral})
	count := rapid.Uint64Range(0, 1<<20)
	for range n.Draw(t, "traffic") {
		x := tunnel.Draw(t, "tunnel")
		b.Traffic = append(b.Traffic, store.Traffic{Time: at(), Account: x.Account, Tunnel: x, Direction: direction.Draw(t, "direction"),
			Packets: count.Draw(t, "packets"), Bytes: count.Draw(t, "bytes") << 10, Dropped: count.Draw(t, "dropped")})
	}
	for range n.Draw(t, "drops") {
		r := store.Drops{Time: at(), Reason: rapid.SampledFrom(reasons).Draw(t, "reason"), Packets: count.Draw(t, "packets")}
		if x := tunnel.Draw(t, "tunnel"); rapid.Bool().Draw(t, "found") {
			r.Account, r.Tunnel, r.Direction = x.Account, x, direction.Draw(t, "direction")
		}
		b.Drops = append(b.Drops, r)
	}
	for range n.Draw(t, "samples") {
		b.Samples = append(b.Samples, drawSample(t, at()))
	}
	for range n.Draw(t, "tops") {
		b.Tops = append(b.Tops, drawTop(t, at()))
	}
	for range n.Draw(t, "health") {
		x, probes := tunnel.Draw(t, "tunnel"), rapid.Uint64Range(0, 60).Draw(t, "probes")
		b.Health = append(b.Health, store.Health{Time: at() / 60 * 60, Account: x.Account, Tunnel: x, Remote: "192.0.2.7",
			State: rapid.SampledFrom([]string{"healthy", "degraded", "down"}).Draw(t, "state"), Active: rapid.Bool().Draw(t, "active"),
			Probes: probes, Lost: rapid.Uint64Range(0, probes).Draw(t, "lost"), RTT: time.Duration(rapid.IntRange(0, 1e9).Draw(t, "rtt"))})
	}
	for range n.Draw(t, "attacks") {
		id := rapid.IntRange(0, 30).Draw(t, "id")
		b.Attacks = append(b.Attacks, store.Attack{ID: fmt.Sprint(start, b.Place.Node, id), Account: rapid.SampledFrom([]string{"acme", "other"}).Draw(t,
			"account"),
			Start: start + int64(id), End: rapid.SampledFrom([]int64{0, start + 100}).Draw(t, "end"), Type: "flood",
			Vector: rapid.SampledFrom([]string{"SYN flood", "UDP flood"}).Draw(t, "vector"),
			Src:    "198.51.100.1", Dst: "203.0.113.1", SrcPort: 53, DstPort: 443, Protocol: 6, TCPFlags: flow.SYN, Packets: count.Draw(t,
				"packets"), Bits: count.Draw(t, "bits"),
			DroppedPackets: count.Draw(t, "dp"), DroppedBits: count.Draw(t, "db")})
	}
	return b
}

// drawTop is of a minute, or of an hour.
func drawTop(t *rapid.T, at int64) store.Top {
	count := rapid.Uint64Range(0, 1<<20)
	r := store.Top{Time: at / 60 * 60, Hour: rapid.Bool().Draw(t, "hour"), Kind: store.TopKind(rapid.IntRange(0, len(store.TopKinds)-1).Draw(t, "kind")),
		Value:   rapid.SampledFrom([]string{"", store.TopOther, "198.51.100.1", "it's; DROP TABLE tops --", "443"}).Draw(t, "value"),
		Samples: count.Draw(t, "samples"), Packets: count.Draw(t, "packets"), Bytes: count.Draw(t, "bytes") << 10,
		PacketsVariance: float64(count.Draw(t, "variance")) * 1.5, BitsVariance: float64(count.Draw(t, "variance")) * 1e9,
		PacketsError: count.Draw(t, "error"), BytesError: count.Draw(t, "error"), Sources: count.Draw(t, "sources")}
	if r.Hour {
		r.Time = at / 3600 * 3600
	}
	if x := rapid.SampledFrom(Tunnels).Draw(t, "tunnel"); rapid.IntRange(0, 3).Draw(t, "found") > 0 {
		r.Account, r.Tunnel, r.Direction = x.Account, x, rapid.SampledFrom([]flow.Direction{flow.Ingress, flow.Egress, flow.Lateral}).Draw(t, "direction")
	}
	return r
}

// drawSample fills every field that a column is made of.
func drawSample(t *rapid.T, at int64) store.Sample {
	small := func() uint64 { return rapid.Uint64Range(0, 3).Draw(t, "n") }
	flag := func() bool { return rapid.Bool().Draw(t, "b") }
	big := func() uint32 { return rapid.SampledFrom([]uint32{0, 1, math.MaxUint32}).Draw(t, "big") }
	tunnel := func() *flow.Tunnel { return rapid.SampledFrom([]*flow.Tunnel{nil, AcmeA, AcmeB}).Draw(t, "tunnel") }
	some := func() []byte { return rapid.SampledFrom([][]byte{nil, {1, 0xff}}).Draw(t, "bytes") }
	s := store.Sample{Account: rapid.SampledFrom([]string{"acme", "other"}).Draw(t, "account"), Probe: flag(),
		Src: store.Origin{ASN: big(), ASName: "Beispiel ä", Country: "DE"}, Dst: store.Origin{ASN: big(), ASName: "Example", Country: "NL"}}
	s.Time, s.Every, s.In, s.Out = time.Unix(at, 7e8), uint32(rapid.IntRange(1, 1000).Draw(t, "every")), tunnel(), tunnel()
	s.Verdict, s.Length = rapid.SampledFrom([]flow.Verdict{flow.Forwarded, flow.Dropped}).Draw(t, "verdict"), rapid.IntRange(20, 1500).Draw(t,
		"length")
	if s.Verdict == flow.Dropped {
		s.Reason = rapid.SampledFrom(reasons).Draw(t, "reason")
	}
	h := &s.Packet
	h.Version, h.Src, h.Dst = 4, netip.AddrFrom4([4]byte{198, 51, byte(small()), byte(small())}), netip.MustParseAddr("203.0.113.9")
	if flag() {
		h.Version, h.Src, h.Dst = 6, netip.MustParseAddr("2001:db8:0:1::1"), netip.MustParseAddr("2001:db8:2:1::1")
	}
	h.Protocol, h.TTL, h.DSCP, h.ECN = rapid.SampledFrom([]uint8{1, 6, 17, 47, 200}).Draw(t, "protocol"), uint8(60+9*small()), uint8(small()),
		uint8(small())
	h.Length, h.HeaderBytes, h.Checksum, h.DontFragment = s.Length, 20, uint16(big()), flag()
	h.Identification, h.Options, h.FlowLabel, h.FragmentOffset, h.MoreFragments = uint32(uint16(big())), some(), uint32(small()), int(8*small()),
		flag()
	h.Extensions.Count = int(small())
	copy(h.Extensions.Kinds[:], []uint8{0, 43, 44})
	h.SrcPort, h.DstPort, h.UDPLength, h.UDPChecksum = uint16(small()), uint16(big()), uint16(small()), uint16(small())
	h.ICMPType, h.ICMPCode, h.ICMPChecksum = uint8(small()), uint8(small()), uint16(small())
	h.GRE = flow.GRE{Bytes: uint8(4 + small()), Version: uint8(small()), EtherType: 0x800, Checksum: uint16(small()), Key: big(), Sequence: big()}
	h.TCP = flow.TCP{Seq: big(), Ack: big(), DataOffset: uint8(5 + small()), Flags: uint8(rapid.SampledFrom([]int{0, 2, 18, 255}).Draw(t,
		"flags")), Window: uint16(big()),
		Checksum: uint16(small()), Urgent: uint16(small()), Options: some(), MSS: uint16(small()), WindowScale: uint8(small()),
		SACKPermitted: flag(), SACKBlocks: int(small()),
		TSValue: big(), TSEcho: uint32(small())}
	return s
}

// DrawQuery asks for anything. Times that are grouped by are at least so long.
func DrawQuery(t *rapid.T, o *Oracle, shortest int64, starts []int64) (*store.Query, Span) {
	set := rapid.SampledFrom(dataset.All).Draw(t, "dataset")
	q := &store.Query{Dataset: set, Account: rapid.SampledFrom([]string{"acme", "other", store.Operator, "nobody"}).Draw(t, "account"),
		Limit: rapid.SampledFrom([]int{1, 3, 10_000}).Draw(t, "limit")}
	for range rapid.IntRange(0, 3).Draw(t, "by") {
		if d := drawDimension(t, set); !slices.Contains(q.By, d) && (d.Bucket == 0 || d.Bucket >= shortest) {
			q.By = append(q.By, d)
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "measures") {
		q.Measures = append(q.Measures, rapid.SampledFrom(set.Measures).Draw(t, "measure"))
	}
	for range rapid.IntRange(0, 2).Draw(t, "order") {
		down := rapid.Bool().Draw(t, "down")
		if len(q.Measures) > 0 && rapid.Bool().Draw(t, "measured") {
			q.Order = append(q.Order, store.Order{Measure: rapid.SampledFrom(q.Measures).Draw(t, "ordered"), Descending: down})
		} else if len(q.By) > 0 {
			q.Order = append(q.Order, store.Order{Dimension: rapid.SampledFrom(q.By).Draw(t, "ordered"), Descending: down})
		}
	}
	if kind := set.Lookup(dataset.Kind.Name); set == dataset.Tops && !slices.Contains(q.By, kind) { // else they are refused
		name := rapid.SampledFrom(store.TopKinds[:]).Draw(t, "kind")
		q.Where.All = append(q.Where.All, store.Where{Dimension: kind, Op: store.Equal, Values: []any{name}})
	}
	if set == dataset.Attacks { // several with the same values follow each other as their ids do
		q.By = append(slices.DeleteFunc(q.By, func(d *dataset.Dimension) bool { return d.Name == "attackId" }), set.Lookup("attackId"))
		q.Order = slices.DeleteFunc(q.Order, func(o store.Order) bool { return o.Dimension == set.Lookup("attackId") })
		if q.Account == store.Operator {
			q.Account = "acme"
		}
	}
	var asked Span
	for _, bound := range []struct {
		op   store.Op
		into *int64
	}{{store.AtLeast, &asked.From}, {store.Less, &asked.To}} {
		d := set.Lookup("datetime")
		if set == dataset.Attacks {
			d = set.Lookup("startDatetime")
		}
		if rapid.IntRange(0, 3).Draw(t, "bounded") > 0 {
			*bound.into = rapid.SampledFrom(starts).Draw(t, "bound") + int64(rapid.IntRange(-100, 500).Draw(t, "offset"))
			q.Where.All = append(q.Where.All, store.Where{Dimension: d, Op: bound.op, Values: []any{time.Unix(*bound.into, 0)}})
		}
	}
	if rapid.Bool().Draw(t, "filtered") {
		q.Where.All = append(q.Where.All, drawWhere(t, o, set, 0))
	}
	return q, asked
}

func drawDimension(t *rapid.T, set *dataset.Dataset) *dataset.Dimension {
	return &set.Dimensions[rapid.IntRange(0, len(set.Dimensions)-1).Draw(t, "dimension")]
}

func drawWhere(t *rapid.T, o *Oracle, set *dataset.Dataset, depth int) (w store.Where) {
	if depth < 2 && rapid.Bool().Draw(t, "nested") {
		for range rapid.IntRange(0, 2).Draw(t, "all") {
			w.All = append(w.All, drawWhere(t, o, set, depth+1))
		}
		for range rapid.IntRange(0, 3).Draw(t, "any") {
			// A bound of time alone in Any would be one that must hold, and the oracle is told only of those that must.
			w.Any = append(w.Any, drawWhere(t, o, set, depth+1))
		}
		return w
	}
	w.Dimension = drawDimension(t, set)
	value := func() any {
		if rows := o.rows[set.Table]; len(rows) > 0 && rapid.IntRange(0, 9).Draw(t, "known") > 0 {
			if v := rows[rapid.IntRange(0, len(rows)-1).Draw(t, "row")].value(w.Dimension); v != nil {
				return v
			}
		}
		switch w.Dimension.Type {
		case dataset.String:
			return rapid.SampledFrom([]string{"", "acme-a", "' OR 1=1 --", "%"}).Draw(t, "text")
		case dataset.Time, dataset.Date:
			return Noon.Add(time.Duration(rapid.IntRange(-1000, 1000).Draw(t, "ms")) * 700 * time.Millisecond)
		}
		return rapid.SampledFrom([]uint64{0, 1, math.MaxUint64}).Draw(t, "number")
	}
	ops := []store.Op{store.Not, store.In, store.NotIn, store.Equal, store.Greater, store.AtLeast, store.Less, store.AtMost}
	if w.Dimension.Bucket > 0 { // others would bound the time
		ops = ops[:3]
	}
	if w.Dimension.Type == dataset.String {
		ops = append(ops, store.Like, store.NotLike)
	}
	w.Op = rapid.SampledFrom(ops).Draw(t, "op")
	switch w.Op {
	case store.In, store.NotIn:
		for range rapid.IntRange(0, 3).Draw(t, "values") {
			w.Values = append(w.Values, value())
		}
	case store.Like, store.NotLike:
		w.Values = []any{rapid.SampledFrom([]string{"acme%", "%a", "A___\\_b%", "%", "", "__me_a", "198.51.%", "%'%", "[a]*"}).Draw(t, "pattern")}
	default:
		w.Values = []any{value()}
	}
	return w
}
