package sqlite

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// noon is when the tests begin.
var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// A bench is a store with a clock that stands still, and what an oracle knows of it.
type bench struct {
	t interface {
		Helper()
		Fatal(...any)
		Fatalf(string, ...any)
	}
	*Store
	oracle *oracle
	now    time.Time
}

func newBench(t testing.TB, o Options) *bench {
	t.Helper()
	return openBench(t, t.TempDir(), o)
}

func openBench(t testing.TB, dir string, o Options) *bench {
	t.Helper()
	b := &bench{t: t, oracle: newOracle(), now: noon}
	o.Now = func() time.Time { return b.now }
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b.Store = s
	return b
}

func (b *bench) write(batch *store.Batch) {
	b.t.Helper()
	if err := b.Write(context.Background(), batch); err != nil {
		b.t.Fatal(err)
	}
	b.oracle.take(batch)
}

func (b *bench) tidy() {
	b.t.Helper()
	if err := b.Tidy(context.Background()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) ask(q *store.Query) *store.Answer {
	b.t.Helper()
	a, err := b.Groups(context.Background(), q)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

// compare asks both.
func (b *bench) compare(q *store.Query, asked span) {
	b.t.Helper()
	a := b.ask(q)
	want := b.oracle.groups(q, int64(a.Resolution/time.Second), asked, b.now.Unix())
	for _, list := range [][]store.Group{a.Groups, want} {
		for i := range list {
			for j := range list[i].Measures {
				list[i].Measures[j] = rounded(list[i].Measures[j])
			}
			list[i].PacketsVariance, list[i].BitsVariance = rounded(list[i].PacketsVariance), rounded(list[i].BitsVariance)
		}
	}
	if d := cmp.Diff(want, a.Groups); d != "" {
		b.t.Fatalf("%s at %s (-oracle +store):\n%s\nwhere %s\nby %s measures %v order %v limit %d account %s", q.Dataset.Name, a.Resolution, d,
			show(&q.Where), names(q.By), q.Measures, q.Order, q.Limit, q.Account)
	}
}

// rounded forgets what comes of adding in another order.
func rounded(x float64) float64 {
	if x == 0 {
		return 0
	}
	scale := math.Pow(10, 10-math.Ceil(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}

func names(list []*dataset.Dimension) (out []string) {
	for _, d := range list {
		out = append(out, d.Name)
	}
	return out
}

func show(w *store.Where) string {
	text := ""
	for i := range w.All {
		text += " and " + show(&w.All[i])
	}
	for i := range w.Any {
		text += " or " + show(&w.Any[i])
	}
	if w.Dimension != nil {
		text += fmt.Sprint(" ", w.Dimension.Name, w.Op, w.Values)
	}
	return "(" + text + ")"
}

var (
	acmeA   = &flow.Tunnel{ID: "a0", Name: "acme-a", Account: "acme", Kind: "GRE"}
	acmeB   = &flow.Tunnel{ID: "b0", Name: "Acme_b%", Account: "acme", Kind: "IPSec"}
	otherA  = &flow.Tunnel{ID: "c0", Name: "acme-a", Account: "other", Kind: "GRE"}
	tunnels = []*flow.Tunnel{acmeA, acmeB, otherA}
	places  = []store.Place{
		{Node: "edge-1", DataCenter: "ams1", Region: "WEUR", City: "Amsterdam", Country: "NL", Geohash: "u173"},
		{Node: "edge-2", DataCenter: "fra1", Region: "WEUR", City: "Frankfurt's", Country: "DE", Geohash: "u0y"},
	}
	reasons = []string{"no_route", "ttl", "it's; DROP TABLE series --"}
)

// drawBatch is rows of one node from some minutes on.
func drawBatch(t *rapid.T, start int64) *store.Batch {
	b := &store.Batch{Place: rapid.SampledFrom(places).Draw(t, "place")}
	n := rapid.IntRange(0, 25)
	at := func() int64 { return start + int64(rapid.IntRange(0, 400).Draw(t, "t")) }
	tunnel := rapid.SampledFrom(tunnels)
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
	for range n.Draw(t, "health") {
		x, probes := tunnel.Draw(t, "tunnel"), rapid.Uint64Range(0, 60).Draw(t, "probes")
		b.Health = append(b.Health, store.Health{Time: at() / 60 * 60, Account: x.Account, Tunnel: x, Remote: "192.0.2.7",
			State: rapid.SampledFrom([]string{"healthy", "degraded", "down"}).Draw(t, "state"), Active: rapid.Bool().Draw(t, "active"),
			Probes: probes, Lost: rapid.Uint64Range(0, probes).Draw(t, "lost"), RTT: time.Duration(rapid.IntRange(0, 1e9).Draw(t, "rtt"))})
	}
	for range n.Draw(t, "attacks") {
		id := rapid.IntRange(0, 30).Draw(t, "id")
		b.Attacks = append(b.Attacks, store.Attack{ID: fmt.Sprint(start, "-", id), Account: rapid.SampledFrom([]string{"acme", "other"}).Draw(t,
			"account"),
			Start: start + int64(id), End: rapid.SampledFrom([]int64{0, start + 100}).Draw(t, "end"), Type: "flood",
			Vector: rapid.SampledFrom([]string{"SYN flood", "UDP flood"}).Draw(t, "vector"),
			Src:    "198.51.100.1", Dst: "203.0.113.1", SrcPort: 53, DstPort: 443, Protocol: 6, TCPFlags: flow.SYN, Packets: count.Draw(t,
				"packets"), Bits: count.Draw(t, "bits"),
			DroppedPackets: count.Draw(t, "dp"), DroppedBits: count.Draw(t, "db")})
	}
	return b
}

// drawSample fills every field that a column is made of.
func drawSample(t *rapid.T, at int64) store.Sample {
	small := func() uint64 { return rapid.Uint64Range(0, 3).Draw(t, "n") }
	flag := func() bool { return rapid.Bool().Draw(t, "b") }
	big := func() uint32 { return rapid.SampledFrom([]uint32{0, 1, math.MaxUint32}).Draw(t, "big") }
	tunnel := func() *flow.Tunnel { return rapid.SampledFrom([]*flow.Tunnel{nil, acmeA, acmeB}).Draw(t, "tunnel") }
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

// drawQuery asks for anything. Times that are grouped by are at least so long.
func drawQuery(t *rapid.T, o *oracle, shortest int64, starts []int64) (*store.Query, span) {
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
	if set == dataset.Attacks { // several with the same values follow each other as their ids do
		q.By = append(slices.DeleteFunc(q.By, func(d *dataset.Dimension) bool { return d.Name == "attackId" }), set.Lookup("attackId"))
		q.Order = slices.DeleteFunc(q.Order, func(o store.Order) bool { return o.Dimension == set.Lookup("attackId") })
		if q.Account == store.Operator {
			q.Account = "acme"
		}
	}
	var asked span
	for _, bound := range []struct {
		op   store.Op
		into *int64
	}{{store.AtLeast, &asked.from}, {store.Less, &asked.to}} {
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

func drawWhere(t *rapid.T, o *oracle, set *dataset.Dataset, depth int) (w store.Where) {
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
			return noon.Add(time.Duration(rapid.IntRange(-1000, 1000).Draw(t, "ms")) * 700 * time.Millisecond)
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

// Whatever is asked of whatever was written, at each resolution, over midnights, rolled up or not yet: the store answers as the oracle does.
func TestAnswers(t *testing.T) {
	if testing.Short() { // rapid divides that by five
		if err := flag.Set("rapid.checks", "40"); err != nil {
			t.Fatal(err)
		}
	}
	day := 24 * time.Hour
	for _, x := range []struct {
		name      string
		retention Retention
		shortest  int64
	}{
		{"seconds", Retention{Second: 9 * day}, 1},
		{"minutes", Retention{Second: time.Hour, Minute: 9 * day}, 60},
		{"hours", Retention{Second: time.Hour, Minute: time.Hour + time.Minute, Hour: 9 * day}, 3600},
	} {
		t.Run(x.name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) { answers(t, r, x.retention, x.shortest) })
		})
	}
}

func answers(t *testing.T, r *rapid.T, retention Retention, shortest int64) {
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	b := openBench(t, dir, Options{Retention: retention})
	defer b.Close()
	b.t = r
	midnight := noon.Truncate(24 * time.Hour)
	starts := []int64{midnight.Add(-24*time.Hour - 200*time.Second).Unix(), midnight.Add(-200 * time.Second).Unix(),
		noon.Add(-600 * time.Second).Unix()}
	for _, start := range starts {
		for range rapid.IntRange(0, 2).Draw(r, "batches") {
			b.now = time.Unix(start, 0)
			b.write(drawBatch(r, start))
			b.now = time.Unix(start+int64(rapid.IntRange(300, 700).Draw(r, "later")), 0)
			if rapid.Bool().Draw(r, "tidy") {
				b.tidy()
			}
		}
	}
	b.now = noon
	questions := 20
	if testing.Short() {
		questions = 8
	}
	for range questions {
		q, asked := drawQuery(r, b.oracle, shortest, starts)
		if shortest > 1 && (asked.from == 0 || asked.from > starts[1]) {
			continue // it may be answered from something finer, which has not all rows any more
		}
		b.compare(q, asked)
	}
}

// Files and the directory are for their owner alone, and only one process has them.
func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a dir?with%20odd#name")
	b := openBench(t, dir, Options{})
	b.write(oneSecond(noon.Unix(), 1))
	for path, want := range map[string]os.FileMode{"": 0o700, "lock": 0o600, "2026-11-30.db": 0o600, "2026-11-30.db-wal": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %o", path, info, err, want)
		}
	}
	if s, err := Open(dir, Options{}); err == nil {
		s.Close()
		t.Error("a second store could open the directory")
	}
}

// oneSecond is traffic of one tunnel in one second.
func oneSecond(t int64, packets uint64) *store.Batch {
	return &store.Batch{Place: places[0], Traffic: []store.Traffic{{Time: t, Account: "acme", Tunnel: acmeA, Direction: flow.Ingress,
		Packets: packets, Bytes: 100 * packets}}}
}
